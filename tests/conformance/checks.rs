//! Group B.

//! Small helpers without knowledge of SIP or presence: prefetch hints, counters without shared cache lines, a limit for
//! log lines, and texts that must not leak. Every other module may use them; they use no other module.

pub mod counters;
pub mod log_limit;
pub(crate) mod per_thread;
pub(crate) mod prefetch;
pub mod secret;

//! Small helpers without knowledge of SIP or presence: prefetch hints, counters without shared cache lines, and a limit
//! for log lines. Every other module may use them; they use no other module.

pub mod counters;
pub mod log_limit;
pub(crate) mod per_thread;
pub(crate) mod prefetch;

//! Test helpers that several modules use.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// CPU time of the current thread so far. Unlike wall-clock time it does not include the work of other processes.
pub(crate) fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock").into()
}

//! What tests of several rooms share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The CPU time of this thread so far: unlike a clock on the wall, it does not count what others on the machine do.
pub(crate) fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock").into()
}

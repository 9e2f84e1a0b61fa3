//! Clock of the notifier. The notifier never reads a clock itself; it is passed the time (rule 9).
//!
//! The clock starts at the wall-clock time and then follows the monotonic clock. So ticks can be compared with those of
//! an earlier run, and a correction of the wall clock cannot end subscriptions.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::presence::Tick;

/// Clock that counts from the start of the server and never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    started_at: u64,
}

impl Clock {
    pub(super) fn start() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), started_at: unix.as_millis() as u64 }
    }

    /// Start time of the server.
    pub(super) fn started(&self) -> Tick {
        Tick(self.started_at)
    }

    pub(super) fn now(&self) -> Tick {
        Tick(self.started_at + self.start.elapsed().as_millis() as u64)
    }
}

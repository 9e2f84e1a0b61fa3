//! The clock: the one place that reads it.
//!
//! It starts at what the wall clock says and from then on follows the monotonic one, so that ticks of one run can be
//! compared with those of the next, and a correction of the wall clock cannot end subscriptions.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::presence::Tick;

/// Counts from the start of the server and never goes back.
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

    /// When the server started.
    pub(super) fn started(&self) -> Tick {
        Tick(self.started_at)
    }

    pub(super) fn now(&self) -> Tick {
        Tick(self.started_at + self.start.elapsed().as_millis() as u64)
    }
}

//! Whether new work is taken: what `/readyz` says, and what new subscriptions are told.
//!
//! An operator may close the doors and open them again; once the server is to stop, they stay closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::notifier::Notifier;

#[derive(Debug)]
pub(super) struct Doors {
    notifier: Arc<Notifier>,
    ready: Arc<AtomicBool>,
    stopping: Mutex<bool>,
}

impl Doors {
    pub(super) fn new(notifier: Arc<Notifier>) -> Doors {
        Doors { notifier, ready: Arc::new(AtomicBool::new(true)), stopping: Mutex::new(false) }
    }

    /// Shared with the probes.
    pub(super) fn ready(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ready)
    }

    /// They are open.
    pub(super) fn are_open(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Closes them, for good if the server is to stop.
    pub(super) fn close(&self, for_good: bool) {
        let mut stopping = self.stopping.lock();
        *stopping |= for_good;
        self.ready.store(false, Ordering::Release);
        self.notifier.drain();
    }

    /// Opens them; false if the server is to stop.
    pub(super) fn open(&self) -> bool {
        let stopping = self.stopping.lock();
        if !*stopping {
            self.notifier.reopen();
            self.ready.store(true, Ordering::Release);
        }
        !*stopping
    }
}

//! Readiness: whether new subscriptions are accepted, and the answer of `/readyz`.
//!
//! An operator may start and end a drain. Once the server is stopping, it stays not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::notifier::Notifier;

#[derive(Debug)]
pub(super) struct Readiness {
    notifier: Arc<Notifier>,
    ready: Arc<AtomicBool>,
    shutting_down: Mutex<bool>,
}

impl Readiness {
    pub(super) fn new(notifier: Arc<Notifier>) -> Readiness {
        Readiness { notifier, ready: Arc::new(AtomicBool::new(true)), shutting_down: Mutex::new(false) }
    }

    /// Flag that the `/readyz` handler reads.
    pub(super) fn ready(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ready)
    }

    /// Returns true if the server is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Starts a drain: not ready, and no new subscriptions. With `for_good`, because the server stops, it cannot be
    /// undone.
    pub(super) fn close(&self, for_good: bool) {
        let mut stopping = self.shutting_down.lock();
        *stopping |= for_good;
        self.ready.store(false, Ordering::Release);
        self.notifier.drain();
    }

    /// Ends a drain. Returns false if the server is stopping.
    pub(super) fn open(&self) -> bool {
        let stopping = self.shutting_down.lock();
        if !*stopping {
            self.notifier.reopen();
            self.ready.store(true, Ordering::Release);
        }
        !*stopping
    }
}

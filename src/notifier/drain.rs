//! Draining: before it stops, a server takes no new subscriptions, and reports its remaining work.

use std::sync::atomic::Ordering;

use super::Notifier;
use super::control::DrainStatus;
use crate::presence::subscription::{Delivery, Subscription};

impl Notifier {
    /// Begins draining. New subscriptions are refused, with a Retry-After that lets the next server start first.
    /// Refreshes, publications and responses are still processed.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends draining: new subscriptions are accepted again.
    pub fn reopen(&self) {
        self.draining.store(false, Ordering::Relaxed);
    }

    /// Returns true if a NOTIFY waits for a response from a phone that is known to respond. Scans all subscriptions:
    /// only for the shutdown of the server.
    pub fn awaits_answers(&self) -> bool {
        self.table.all().iter().any(|presentity| presentity.lock().watchers.iter().any(is_awaited))
    }

    /// Counts the remaining work. Scans all presentities, and locks one at a time.
    pub fn left(&self) -> DrainStatus {
        let mut left = DrainStatus::default();
        for presentity in self.table.all() {
            let state = presentity.lock();
            left.publications += state.publications.len();
            for s in state.watchers.iter() {
                left.unanswered += usize::from(is_awaited(s));
                if !s.ended {
                    left.subscriptions += 1;
                    left.last_expires_at = left.last_expires_at.max(Some(s.expires_at.0));
                }
            }
        }
        left
    }
}

/// Returns true if a NOTIFY is in flight or waits for DNS, and the previous one did not fail.
fn is_awaited(s: &Subscription) -> bool {
    matches!(s.delivery, Delivery::InFlight(_) | Delivery::Resolving { .. }) && s.delivery.failures() == 0
}

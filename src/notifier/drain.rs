//! Draining: a server that is about to go takes nothing new on, and says what it still has.

use std::sync::atomic::Ordering;

use super::Notifier;
use super::control::Left;
use crate::presence::subscription::{Delivery, Subscription};

impl Notifier {
    /// From now on new subscriptions are sent away, to come back when the next server is up. Refreshes, publications and
    /// answers are taken until the end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// New subscriptions are taken again.
    pub fn reopen(&self) {
        self.draining.store(false, Ordering::Relaxed);
    }

    /// Whether a phone that is known to answer still owes us the answer to a NOTIFY. Looks at everything: for the end of
    /// the server only.
    pub fn awaits_answers(&self) -> bool {
        self.table.all().iter().any(|presentity| presentity.lock().watchers.iter().any(is_awaited))
    }

    /// What there still is. Looks at everything, a presentity at a time.
    pub fn left(&self) -> Left {
        let mut left = Left::default();
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

/// Whether the phone is known to answer, and owes us an answer.
fn is_awaited(s: &Subscription) -> bool {
    matches!(s.delivery, Delivery::InFlight(_) | Delivery::Asked { .. }) && s.delivery.failures() == 0
}

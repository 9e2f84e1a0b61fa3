//! Subscriptions that phones ended before a restart. A SUBSCRIBE with Expires 0 that is retransmitted across the
//! restart gets the response that it would have had. While the server runs, `sip/transaction` recognises such
//! retransmissions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::{EndedSubscription, Layout, encode, key_of};
use crate::journal::Key;
use crate::presence::Tick;
use crate::presence::publication::REMOVED_LASTS;
use crate::presence::subscription::SubscriptionId;
use crate::sip::wire::Message;

/// Time for which an ended subscription is remembered (ms); see [`REMOVED_LASTS`].
pub(super) const ENDED_LASTS: u64 = REMOVED_LASTS;
/// Maximum number of remembered subscriptions: some seconds of a storm of SUBSCRIBEs. Beyond it a retransmission gets
/// a 481, which also says that the subscription is over.
const MAX_ENDED: usize = 50_000;

/// Ended subscriptions that were in the journal at the start.
#[derive(Debug, Default)]
pub(in super::super) struct EndedSubscriptions {
    all: Mutex<HashMap<SubscriptionId, EndedSubscription>>,
    /// Time when the last of them is forgotten (ms); 0 if there is none.
    until: AtomicU64,
}

impl EndedSubscriptions {
    /// Adds one from the journal. It is remembered no longer than if it had ended just now.
    pub(super) fn restore(&self, now: Tick, presentity: u32, slot: u32, ended: EndedSubscription) {
        let until = ended.until.min(now.after(ENDED_LASTS));
        let mut all = self.all.lock();
        if until > now && all.len() < MAX_ENDED {
            all.insert(SubscriptionId { presentity, slot, nonce: ended.nonce }, EndedSubscription { until, ..ended });
            self.until.fetch_max(until.0, Ordering::Relaxed);
        }
    }

    /// Returns true if this request is the one that ended the subscription.
    pub(in super::super) fn by(&self, now: Tick, place: SubscriptionId, request: &Message<'_>) -> bool {
        self.until.load(Ordering::Relaxed) > now.0
            && self.all.lock().get(&place).is_some_and(|ended| {
                ended.until > now && ended.call_id == request.call_id && ended.cseq == request.cseq.number
            })
    }

    /// Returns the time when all of them are forgotten.
    pub(super) fn until(&self) -> Option<Tick> {
        Some(Tick(self.until.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// Forgets all of them once that time has passed.
    pub(super) fn pass_time(&self, now: Tick) {
        let until = self.until.load(Ordering::Relaxed);
        if until != 0 && until <= now.0 {
            self.until.store(0, Ordering::Relaxed);
            *self.all.lock() = HashMap::new();
        }
    }

    /// Passes each of them to the writer of a compaction.
    pub(super) fn for_each(&self, mut each: impl FnMut(Key, Bytes)) {
        let value = |(place, ended): (&SubscriptionId, &EndedSubscription)| {
            (key_of(place.presentity, place.slot), encode(Layout::EndedSubscription, ended))
        };
        let all: Vec<_> = self.all.lock().iter().map(value).collect();
        all.into_iter().for_each(|(key, value)| each(key, value));
    }
}

//! Change feed: the lamps and subscriptions that have changed since the last read. It is the source of the live event
//! stream.
//!
//! While no client listens, a change costs one read of a flag. Otherwise it costs a short entry in a list that is
//! emptied many times a second; the new state is read when the list is emptied. So a burst of changes costs the work of
//! one (rule 1). The lists are bounded: when one is full, the feed only reports that changes were lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::presence::AccountNo;
use crate::presence::presentity::Presentity;
use crate::presence::subscription::SubscriptionId;

const SHARDS: usize = 16;
/// Maximum number of entries in a shard, including duplicates.
const MOST: usize = 8_192;

/// A lamp or subscription that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changed {
    /// Account of the presentity.
    pub account: AccountNo,
    /// URI of the presentity, `sip:user@realm`.
    pub uri: Arc<str>,
    /// The subscription; none if the lamp has changed.
    pub subscription: Option<SubscriptionId>,
}

/// Collects changes while there is a listener.
#[derive(Debug, Default)]
pub(super) struct ChangeFeed {
    listening: AtomicBool,
    lost: AtomicBool,
    shards: [Mutex<Vec<Changed>>; SHARDS],
}

impl ChangeFeed {
    /// Records that the lamp of a presentity may have changed.
    pub(super) fn lamp(&self, presentity: &Presentity) {
        if self.listening.load(Ordering::Relaxed) {
            self.push(presentity, None);
        }
    }

    /// Records that a subscription has begun or ended, or that its delivery status has changed.
    pub(super) fn subscription(&self, presentity: &Presentity, place: SubscriptionId) {
        if self.listening.load(Ordering::Relaxed) {
            self.push(presentity, Some(place));
        }
    }

    #[cold]
    fn push(&self, presentity: &Presentity, subscription: Option<SubscriptionId>) {
        let mut shard = self.shards[presentity.number as usize % SHARDS].lock();
        // Skip a duplicate. In a burst, the last entry is mostly the same.
        if shard.last().is_some_and(|last| last.subscription == subscription && last.uri == presentity.uri) {
            return;
        }
        if shard.len() >= MOST {
            return self.lost.store(true, Ordering::Relaxed);
        }
        let account = presentity.aor.account;
        shard.push(Changed { account, uri: Arc::clone(&presentity.uri), subscription });
    }

    /// Starts or stops collecting.
    pub(super) fn listen(&self, on: bool) {
        self.listening.store(on, Ordering::Relaxed);
        if !on {
            self.take();
        }
    }

    /// Takes the changes since the last call, without duplicates, and returns whether any were lost.
    pub(super) fn take(&self) -> (Vec<Changed>, bool) {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.append(&mut shard.lock());
        }
        let mut seen = std::collections::HashSet::new();
        all.retain(|changed| seen.insert(changed.clone()));
        (all, self.lost.swap(false, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::Aor;

    fn presentity(number: u32) -> Presentity {
        let aor = Aor::of(AccountNo(0), &number.to_string()).unwrap();
        Presentity::new(number, aor, "acme.test")
    }

    #[test]
    fn nothing_is_collected_while_nobody_listens() {
        let feed = ChangeFeed::default();
        feed.lamp(&presentity(1));
        assert_eq!(feed.take(), (vec![], false));
    }

    #[test]
    fn a_burst_is_one_change_and_too_many_are_said_to_be_lost() {
        let feed = ChangeFeed::default();
        feed.listen(true);
        let (one, two) = (presentity(1), presentity(1 + SHARDS as u32));
        for _ in 0..10 {
            feed.lamp(&one);
            feed.lamp(&two);
        }
        assert_eq!(feed.take().0.len(), 2);
        for _ in 0..MOST {
            feed.lamp(&one);
            feed.lamp(&two);
        }
        assert_eq!((feed.take().1, feed.take().1), (true, false));
        feed.lamp(&one);
        feed.listen(false);
        assert_eq!(feed.take().0, []);
    }
}

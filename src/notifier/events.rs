//! What has changed since somebody last asked: the source of the live stream.
//!
//! While nobody listens, a change costs one look at a flag. While somebody does, it costs a short entry in a list that is
//! emptied many times a second; what a lamp then shows is looked up by whoever empties it. So a burst of changes is one
//! entry's worth of work, as everywhere here (law 1), and the lists are bounded: beyond that it is only known that
//! something was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::presence::AccountNo;
use crate::presence::presentity::Presentity;
use crate::presence::subscription::Place;

const SHARDS: usize = 16;
/// The most entries of a shard, repeated ones included.
const MOST: usize = 8_192;

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Changed {
    /// Whose it is.
    pub account: AccountNo,
    /// The presentity, `sip:user@realm`.
    pub uri: Arc<str>,
    /// The subscription; none for the lamp itself.
    pub subscription: Option<Place>,
}

/// Collects changes while somebody listens.
#[derive(Debug, Default)]
pub(super) struct Feed {
    listening: AtomicBool,
    lost: AtomicBool,
    shards: [Mutex<Vec<Changed>>; SHARDS],
}

impl Feed {
    /// The lamp of a presentity may show something else.
    pub(super) fn lamp(&self, presentity: &Presentity) {
        if self.listening.load(Ordering::Relaxed) {
            self.push(presentity, None);
        }
    }

    /// A subscription has begun, ended, or fares otherwise than before.
    pub(super) fn subscription(&self, presentity: &Presentity, place: Place) {
        if self.listening.load(Ordering::Relaxed) {
            self.push(presentity, Some(place));
        }
    }

    #[cold]
    fn push(&self, presentity: &Presentity, subscription: Option<Place>) {
        let mut shard = self.shards[presentity.number as usize % SHARDS].lock();
        // The same again says nothing more; of a burst mostly the last entry is the same.
        if shard.last().is_some_and(|last| last.subscription == subscription && last.uri == presentity.uri) {
            return;
        }
        if shard.len() >= MOST {
            return self.lost.store(true, Ordering::Relaxed);
        }
        let account = presentity.aor.account;
        shard.push(Changed { account, uri: Arc::clone(&presentity.uri), subscription });
    }

    /// Begins or ends collecting.
    pub(super) fn listen(&self, on: bool) {
        self.listening.store(on, Ordering::Relaxed);
        if !on {
            self.take();
        }
    }

    /// What was collected since the last call, each thing once and in order of its last change, and whether something
    /// was lost.
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
        let feed = Feed::default();
        feed.lamp(&presentity(1));
        assert_eq!(feed.take(), (vec![], false));
    }

    #[test]
    fn a_burst_is_one_change_and_too_many_are_said_to_be_lost() {
        let feed = Feed::default();
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

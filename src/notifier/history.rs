//! What has been exchanged with whom, and what changed when and why: one ring for the whole server (law 10).
//!
//! An entry has a fixed size and refers to subscriptions by their place; bodies are not kept, for the last one can be put
//! together again. Writing costs a lock that is hardly ever contended and a copy of 48 octets into memory that is there
//! already. All entries of one subscription are in one shard, so that showing its story looks at that shard alone.

use parking_lot::Mutex;

use super::Notifier;
use super::tally::Tally;
use crate::package::PackageId;
use crate::presence::Tick;
use crate::presence::family::Family;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Carried, Delivery, InFlight, Place, Subscription};
use crate::sip::Transport;
use crate::transport::{Destination, Source};

/// Threads that write at the same moment mostly do so to different ones.
const SHARDS: usize = 32;
/// So many entries are looked at in one go.
const STRIDE: usize = 2_048;
/// What an entry of a presentity itself has in place of a slot.
const NO_SLOT: u32 = u32::MAX;

/// Why the state of a presentity changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A PUBLISH came.
    Published,
    /// A publication was not refreshed.
    PublicationExpired,
    /// A call rang for too long without a word about it, or has been over for long enough to be forgotten.
    CallLapsed,
    /// Set by hand.
    Set,
    /// Reset by hand.
    Reset,
}

/// What was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A SUBSCRIBE was granted so many seconds.
    Subscribed { cseq: u32, granted: u32 },
    /// A NOTIFY was answered (408: it was not), or superseded by the next (0).
    Notified {
        cseq: u32,
        version: u32,
        reply: u16,
        copies: u8,
        transport: Transport,
        family: Family,
        delay: u32,
        bytes: u32,
    },
    /// The presentity changed; the lower halves of the revisions of its packages since.
    Changed { cause: Cause, revisions: [u32; 3] },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: Tick,
    presentity: u32,
    slot: u32,
    nonce: u32,
    pub(super) note: Note,
}

#[derive(Debug, Default)]
struct Shard {
    /// Entry number n is at the place n modulo the room there is.
    entries: Vec<Entry>,
    /// How many have been written so far.
    written: usize,
    tally: Tally,
}

/// The ring.
#[derive(Debug)]
pub(super) struct History {
    shards: Box<[Mutex<Shard>]>,
    per_shard: usize,
}

impl Entry {
    /// The number of the presentity that it is about.
    pub(super) fn presentity(&self) -> u32 {
        self.presentity
    }
}

impl History {
    /// With room for so many entries. With none, there is only counting.
    pub(super) fn new(entries: usize) -> History {
        let per_shard = entries.div_ceil(SHARDS);
        let shard =
            |_| Mutex::new(Shard { entries: Vec::with_capacity(per_shard), written: 0, tally: Tally::default() });
        History { shards: (0..SHARDS).map(shard).collect(), per_shard }
    }

    fn push(&self, entry: Entry) {
        let mut shard = self.shard(entry.presentity, entry.slot).lock();
        shard.tally.count(&entry.note);
        if self.per_shard == 0 {
            return;
        }
        let place = shard.written % self.per_shard;
        match shard.entries.get_mut(place) {
            Some(oldest) => *oldest = entry,
            None => shard.entries.push(entry),
        }
        shard.written += 1;
    }

    fn shard(&self, presentity: u32, slot: u32) -> &Mutex<Shard> {
        // Fibonacci hashing: neighbours go apart.
        let mixed = (u64::from(presentity) << 32 | u64::from(slot)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.shards[(mixed >> 32) as usize % SHARDS]
    }

    /// What was exchanged with a subscription, oldest first.
    pub(super) fn of_subscription(&self, place: Place) -> Vec<Entry> {
        self.select(place.presentity, place.slot, |e| e.nonce == place.nonce as u32)
    }

    /// The changes of a presentity, oldest first.
    pub(super) fn of_presentity(&self, presentity: u32) -> Vec<Entry> {
        self.select(presentity, NO_SLOT, |_| true)
    }

    fn select(&self, presentity: u32, slot: u32, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut found = Vec::new();
        self.walk(self.shard(presentity, slot), |e| {
            if e.presentity == presentity && e.slot == slot && wanted(e) {
                found.push(*e);
            }
        });
        found
    }

    /// What was exchanged with the watchers of a presentity, oldest first: slot, lower half of the nonce, entry.
    pub(super) fn of_watchers(&self, presentity: u32) -> Vec<(u32, u32, Entry)> {
        let mut found = Vec::new();
        let mine = |e: &Entry| e.presentity == presentity && e.slot != NO_SLOT;
        for shard in &self.shards {
            self.walk(shard, |e| found.extend(mine(e).then_some((e.slot, e.nonce, *e))));
        }
        found.sort_by_key(|(_, _, e)| e.at);
        found
    }

    /// Shows the entries of a shard, oldest first, in strides: however large the history is, who writes waits for no more
    /// than one. What is displaced meanwhile is not shown.
    fn walk(&self, shard: &Mutex<Shard>, mut see: impl FnMut(&Entry)) {
        let mut next = 0;
        loop {
            let shard = shard.lock();
            let from = next.max(shard.written - shard.entries.len());
            if from == shard.written {
                return;
            }
            next = shard.written.min(from + STRIDE);
            (from..next).for_each(|n| see(&shard.entries[n % self.per_shard]));
        }
    }

    /// Shows every entry since `from` of the presentities that are wanted, in no order.
    pub(super) fn visit(&self, from: Tick, wanted: impl Fn(u32) -> bool, mut see: impl FnMut(&Entry)) {
        for shard in &self.shards {
            self.walk(shard, |e| {
                if e.at >= from && wanted(e.presentity) {
                    see(e);
                }
            });
        }
    }

    /// All that was counted so far.
    pub(super) fn tally(&self) -> Tally {
        self.shards.iter().fold(Tally::default(), |mut sum, shard| {
            sum.add(&shard.lock().tally);
            sum
        })
    }

    /// When the oldest entry was made that no other has displaced so far; none while nothing has been displaced.
    pub(super) fn reaches_back_to(&self) -> Option<Tick> {
        let full = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            let oldest = shard.written.checked_sub(self.per_shard)?;
            shard.entries.get(oldest % self.per_shard.max(1)).map(|entry| entry.at)
        };
        self.shards.iter().filter_map(full).max()
    }
}

impl Notifier {
    /// A SUBSCRIBE has been granted something; a NOTIFY that was under way does not count any more.
    pub(super) fn note_subscribed(&self, now: Tick, presentity: &Presentity, s: &Subscription) {
        self.note_superseded(now, s);
        let note = Note::Subscribed { cseq: s.dialog.remote_cseq, granted: s.granted };
        self.note(now, s.place, note);
        self.feed.subscription(presentity, s.place);
    }

    /// A phone has acknowledged the state of the moment, which has held since `changed_at`.
    pub(super) fn note_lamp_seen(&self, now: Tick, place: Place, changed_at: Tick) {
        let ms = now.0.saturating_sub(changed_at.0).min(u64::from(u32::MAX)) as u32;
        self.history.shard(place.presentity, place.slot).lock().tally.count_lamp(ms);
    }

    /// A NOTIFY was answered with this status, or not at all (408).
    pub(super) fn note_answered(
        &self,
        now: Tick,
        place: Place,
        (source, family): (Source, Family),
        flight: &InFlight,
        reply: u16,
    ) {
        let transport = match &flight.to {
            Destination::Datagram { .. } => Transport::Udp,
            Destination::Connection(remote) => self.settings.routing.listener(remote.listener).transport,
            Destination::Flow { .. } if flight.carried == Carried::ByDetour => Transport::Tcp,
            Destination::Flow { .. } => source.transport,
        };
        let note = Note::Notified {
            cseq: flight.cseq,
            version: flight.version,
            reply,
            copies: flight.copies,
            transport,
            family,
            delay: now.0.saturating_sub(flight.sent_at.0).min(u64::from(u32::MAX)) as u32,
            bytes: flight.size,
        };
        self.note(now, place, note);
    }

    /// Another NOTIFY takes the place of the one under way, if one is.
    pub(super) fn note_superseded(&self, now: Tick, s: &Subscription) {
        if let Delivery::InFlight(flight) = &s.delivery {
            self.note_answered(now, s.place, (s.source(), s.family), flight, 0);
        }
    }

    /// The state of a presentity has changed.
    pub(super) fn note_changed(&self, now: Tick, presentity: &Presentity, state: &mut State, cause: Cause, news: bool) {
        self.feed.lamp(presentity);
        // Where nobody watches nothing is composed, and whatever came may have been news.
        if news || state.watchers.is_empty() {
            state.changed_at = now;
            let revision = |id: usize| state.views[id].revision.0 as u32;
            let note = Note::Changed { cause, revisions: [revision(0), revision(1), revision(2)] };
            self.history.push(Entry { at: now, presentity: presentity.number, slot: NO_SLOT, nonce: 0, note });
        }
    }

    fn note(&self, at: Tick, place: Place, note: Note) {
        let Place { presentity, slot, nonce } = place;
        self.history.push(Entry { at, presentity, slot, nonce: nonce as u32, note });
    }
}

/// Since when there is something that a watcher of a package, who has acknowledged this revision, does not know; and
/// whether it may be longer, the ring having lost what was before.
pub(super) fn news_since(changes: &[Entry], package: PackageId, acknowledged: u64) -> Option<(Tick, bool)> {
    let mut revisions = changes.iter().filter_map(|entry| match entry.note {
        Note::Changed { revisions, .. } => Some((entry.at, *revisions.get(package.0 as usize)?)),
        _ => None,
    });
    let (at, revision) = revisions.find(|(_, revision)| *revision > acknowledged as u32)?;
    Some((at, revision > acknowledged as u32 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, presentity: u32, slot: u32, cseq: u32) -> Entry {
        Entry { at: Tick(at), presentity, slot, nonce: 7, note: Note::Subscribed { cseq, granted: 60 } }
    }

    fn cseqs(history: &History, presentity: u32, slot: u32) -> Vec<u32> {
        let all = history.of_subscription(Place { presentity, slot, nonce: 7 });
        all.iter()
            .map(|e| match e.note {
                Note::Subscribed { cseq, .. } => cseq,
                _ => 0,
            })
            .collect()
    }

    #[test]
    fn the_oldest_entry_makes_room_and_the_order_stays() {
        let history = History::new(SHARDS * 3);
        assert_eq!(history.reaches_back_to(), None);
        for n in 1..=5 {
            history.push(entry(n, 1, 0, n as u32));
        }
        assert_eq!(cseqs(&history, 1, 0), [3, 4, 5]);
        assert_eq!(history.reaches_back_to(), Some(Tick(3)));
        assert!(history.of_subscription(Place { presentity: 1, slot: 0, nonce: 8 }).is_empty(), "another tenant's");
    }

    #[test]
    fn a_long_history_is_shown_in_strides_and_whole() {
        let history = History::new(SHARDS * (STRIDE * 2 + 7));
        let most = STRIDE * 2 + 7;
        for n in 1..=(most + 5) as u32 {
            history.push(entry(n.into(), 1, 0, n));
        }
        let all = cseqs(&history, 1, 0);
        assert_eq!((all.len(), all[0], all[most - 1]), (most, 6, most as u32 + 5));
        assert_eq!(history.of_watchers(1).len(), most);
        let mut seen = 0;
        history.visit(Tick(10), |number| number == 1, |_| seen += 1);
        assert_eq!(seen, most - 4);
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let history = History::new(0);
        history.push(entry(1, 1, 0, 1));
        assert!(cseqs(&history, 1, 0).is_empty() && history.reaches_back_to().is_none());
        assert_eq!(history.tally().subscribed, [1, 0], "but it is counted");
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
    }
}

//! History of the whole server (rule 10): SUBSCRIBEs, NOTIFYs with their responses, and state changes with their
//! causes.
//!
//! An entry has a fixed size, and refers to a subscription by its id. Bodies are not stored, because the last one can
//! be rebuilt. Each thread appends to a segment of its own. A full segment is moved to a bounded list that all threads
//! share, and the oldest segment there is evicted. So writing costs the thread's own lock and a copy of 48 octets next
//! to the previous entry. Readers hold up writers for a short copy at most: a full segment does not change any more, so
//! it is shared and not copied.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Notifier;
use super::metrics::NotifyCounters;
use crate::package::PackageId;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, InFlight, NotifyTransport, Subscription, SubscriptionId};
use crate::presence::vendor::Vendor;
use crate::sip::Transport;
use crate::transport::{Destination, Source};
use crate::util::per_thread::PerThread;
use crate::util::prefetch::prefetch_element;

/// Maximum length of a segment (entries).
const CHAPTER: usize = 1_024;
/// Minimum number of segments, if the history is large enough to hold as many entries.
const CHAPTERS: usize = 64;
/// Prefetch distance: the cache line of an entry is requested this many entries before it is written.
const AHEAD: usize = 4;
/// Slot of an entry that is about the presentity itself, and not about a subscription.
const NO_SLOT: u32 = u32::MAX;

/// Cause of a state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A PUBLISH was received.
    Published,
    /// A publication expired.
    PublicationExpired,
    /// A call rang for too long without an update, or the tombstone of an ended call was dropped.
    CallLapsed,
    /// The state was set through the API.
    Set,
    /// The state was reset through the API.
    Reset,
    /// The previous state was restored, because the journal refused a change.
    RolledBack,
}

/// Contents of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HistoryEvent {
    /// A SUBSCRIBE was granted a lifetime (seconds).
    Subscribed { cseq: u32, granted: u32 },
    /// A NOTIFY was answered with status `reply`, timed out (408), or was superseded by the next one (0).
    Notified {
        cseq: u32,
        version: u32,
        reply: u16,
        copies: u8,
        transport: Transport,
        family: Vendor,
        delay: u32,
        bytes: u32,
    },
    /// The state of the presentity changed. `revisions` are the lower halves of the new revisions of its packages.
    Changed { cause: Cause, revisions: [u32; 3] },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: Tick,
    presentity: u32,
    slot: u32,
    nonce: u32,
    pub(super) note: HistoryEvent,
}

/// Entries of one thread, in order.
#[derive(Debug, Default)]
struct Segment {
    /// Number of the segment, unique in the process.
    number: u64,
    entries: Vec<Entry>,
}

/// Log of one thread: its current segment and its counters.
#[derive(Debug, Default)]
struct ThreadLog {
    chapter: Segment,
    tally: NotifyCounters,
}

/// Full segments, oldest first.
#[derive(Debug, Default)]
struct SealedSegments {
    chapters: VecDeque<Arc<Segment>>,
    /// Number of segments that were begun so far.
    filled: u64,
    /// Time of the newest entry that was evicted.
    lost_until: Option<Tick>,
}

/// The history of the server.
#[derive(Debug)]
pub(super) struct History {
    desks: PerThread<Mutex<ThreadLog>>,
    /// Locked once per segment, while the lock of the thread's log is held.
    shelf: Mutex<SealedSegments>,
    /// Length of a segment, and (`most`) the maximum number of full ones.
    length: usize,
    most: usize,
}

impl Entry {
    /// Number of the presentity that the entry is about.
    pub(super) fn presentity(&self) -> u32 {
        self.presentity
    }
}

impl History {
    /// Creates a history for this many entries in full segments; the current segment of each thread is added to them.
    /// With 0, nothing is stored and only the counters work.
    pub(super) fn new(entries: usize) -> History {
        let length = (entries / CHAPTERS).clamp(1, CHAPTER);
        History { desks: PerThread::default(), shelf: Mutex::default(), length, most: entries / length }
    }

    fn push(&self, entry: Entry) {
        let mut desk = self.desks.mine().lock();
        let ThreadLog { chapter, tally } = &mut *desk;
        tally.count(&entry.note);
        if self.most == 0 {
            return;
        }
        if chapter.entries.len() == chapter.entries.capacity() {
            self.seal(chapter);
        }
        chapter.entries.push(entry);
        // The memory of the next entries was last written a whole segment ago, and has left the CPU caches. Releasing
        // the lock would have to wait for it.
        prefetch_element(&chapter.entries, chapter.entries.len() + AHEAD);
    }

    /// Moves a full segment to the shared list, and begins another. The memory of an evicted segment is used again.
    #[cold]
    fn seal(&self, chapter: &mut Segment) {
        let mut shelf = self.shelf.lock();
        shelf.filled += 1;
        let full = std::mem::replace(chapter, Segment { number: shelf.filled, entries: Vec::new() });
        if full.entries.is_empty() {
            // The first segment of this thread.
            return chapter.entries.reserve_exact(self.length);
        }
        shelf.chapters.push_back(Arc::new(full));
        if shelf.chapters.len() > self.most
            && let Some(oldest) = shelf.chapters.pop_front()
        {
            shelf.lost_until = shelf.lost_until.max(oldest.entries.last().map(|entry| entry.at));
            if let Some(oldest) = Arc::into_inner(oldest) {
                chapter.entries = oldest.entries;
                chapter.entries.clear();
            }
        }
        if chapter.entries.capacity() == 0 {
            chapter.entries.reserve_exact(self.length);
        }
    }

    /// Calls `see` with every entry. Those of one thread come in order.
    fn walk(&self, mut see: impl FnMut(&Entry)) {
        // Copy the current segments first. One that becomes full meanwhile is then found in the shared list, with the
        // entries that were added to it.
        let begun: Vec<_> = self
            .desks
            .iter()
            .filter_map(|desk| {
                let ThreadLog { chapter: Segment { number, entries }, .. } = &*desk.lock();
                (!entries.is_empty()).then(|| (*number, entries.clone()))
            })
            .collect();
        let full = self.shelf.lock().chapters.clone();
        full.iter().flat_map(|chapter| &chapter.entries).for_each(&mut see);
        let begun = begun.iter().filter(|(number, _)| full.iter().all(|chapter| chapter.number != *number));
        begun.flat_map(|(_, entries)| entries).for_each(see);
    }

    /// Selects entries, oldest first.
    fn select(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut found = Vec::new();
        self.walk(|entry| found.extend(wanted(entry).then_some(*entry)));
        found.sort_by_key(|entry| entry.at);
        found
    }

    /// Exchanges of a subscription, oldest first.
    pub(super) fn of_subscription(&self, place: SubscriptionId) -> Vec<Entry> {
        let SubscriptionId { presentity, slot, nonce } = place;
        self.select(|e| (e.presentity, e.slot, e.nonce) == (presentity, slot, nonce as u32))
    }

    /// State changes of a presentity, oldest first.
    pub(super) fn of_presentity(&self, presentity: u32) -> Vec<Entry> {
        self.select(|e| e.presentity == presentity && e.slot == NO_SLOT)
    }

    /// Exchanges with the watchers of a presentity, oldest first: slot, lower half of the nonce, entry.
    pub(super) fn of_watchers(&self, presentity: u32) -> Vec<(u32, u32, Entry)> {
        let all = self.select(|e| e.presentity == presentity && e.slot != NO_SLOT);
        all.into_iter().map(|e| (e.slot, e.nonce, e)).collect()
    }

    /// Calls `see` with every entry since `from` of the wanted presentities, in no particular order.
    pub(super) fn visit(&self, from: Tick, wanted: impl Fn(u32) -> bool, mut see: impl FnMut(&Entry)) {
        self.walk(|e| {
            if e.at >= from && wanted(e.presentity) {
                see(e);
            }
        });
    }

    /// Sum of the counters of all threads.
    pub(super) fn tally(&self) -> NotifyCounters {
        self.desks.iter().fold(NotifyCounters::default(), |mut sum, desk| {
            sum.add(&desk.lock().tally);
            sum
        })
    }

    /// Time since which the history is complete; none if no entry was evicted yet.
    pub(super) fn complete_since(&self) -> Option<Tick> {
        self.shelf.lock().lost_until.map(|at| at.after(1))
    }
}

impl Notifier {
    /// Records a granted SUBSCRIBE. A NOTIFY in flight is superseded by the one that follows.
    pub(super) fn record_subscribed(&self, now: Tick, presentity: &Presentity, s: &Subscription) {
        self.record_superseded(now, s);
        let note = HistoryEvent::Subscribed { cseq: s.dialog.remote_cseq, granted: s.granted };
        self.note(now, s.place, note);
        self.change_feed.subscription(presentity, s.place);
    }

    /// Counts the delay from a state change at `changed_at` to its acknowledgement by a phone.
    pub(super) fn record_propagation(&self, now: Tick, changed_at: Tick) {
        let ms = now.0.saturating_sub(changed_at.0).min(u64::from(u32::MAX)) as u32;
        self.history.desks.mine().lock().tally.count_lamp(ms);
    }

    /// Records the outcome of a NOTIFY: the status of its response, or 408 for none.
    pub(super) fn record_answered(
        &self,
        now: Tick,
        place: SubscriptionId,
        (source, family): (Source, Vendor),
        flight: &InFlight,
        reply: u16,
    ) {
        let transport = match &flight.to {
            Destination::Datagram { .. } => Transport::Udp,
            Destination::Connection(remote) => self.settings.routing.listener(remote.listener).transport,
            Destination::Flow { .. } if flight.sent_as == NotifyTransport::Tcp => Transport::Tcp,
            Destination::Flow { .. } => source.transport,
        };
        let note = HistoryEvent::Notified {
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

    /// Records that the NOTIFY in flight, if any, is superseded by the next one.
    pub(super) fn record_superseded(&self, now: Tick, s: &Subscription) {
        if let Delivery::InFlight(flight) = &s.delivery {
            self.record_answered(now, s.place, (s.source(), s.family), flight, 0);
        }
    }

    /// Records a state change of a presentity.
    pub(super) fn record_change(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        cause: Cause,
        news: bool,
    ) {
        self.change_feed.lamp(presentity);
        // Without watchers no document is composed, so that any event may be a change.
        if news || state.watchers.is_empty() {
            state.changed_at = now;
            let revision = |id: usize| state.views[id].revision.0 as u32;
            let note = HistoryEvent::Changed { cause, revisions: [revision(0), revision(1), revision(2)] };
            self.history.push(Entry { at: now, presentity: presentity.number, slot: NO_SLOT, nonce: 0, note });
        }
    }

    fn note(&self, at: Tick, place: SubscriptionId, note: HistoryEvent) {
        let SubscriptionId { presentity, slot, nonce } = place;
        self.history.push(Entry { at, presentity, slot, nonce: nonce as u32, note });
    }
}

/// Time at which a watcher with this acknowledged revision ceased to know the current state. The flag is true if that
/// is only the latest possible time, because older entries were evicted.
pub(super) fn news_since(changes: &[Entry], package: PackageId, acknowledged: u64) -> Option<(Tick, bool)> {
    let mut revisions = changes.iter().filter_map(|entry| match entry.note {
        HistoryEvent::Changed { revisions, .. } => Some((entry.at, *revisions.get(package.0 as usize)?)),
        _ => None,
    });
    let (at, revision) = revisions.find(|(_, revision)| *revision > acknowledged as u32)?;
    Some((at, revision > acknowledged as u32 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, presentity: u32, slot: u32, cseq: u32) -> Entry {
        Entry { at: Tick(at), presentity, slot, nonce: 7, note: HistoryEvent::Subscribed { cseq, granted: 60 } }
    }

    fn cseqs(history: &History, presentity: u32, slot: u32) -> Vec<u32> {
        let all = history.of_subscription(SubscriptionId { presentity, slot, nonce: 7 });
        all.iter()
            .map(|e| match e.note {
                HistoryEvent::Subscribed { cseq, .. } => cseq,
                _ => 0,
            })
            .collect()
    }

    #[test]
    fn the_oldest_chapter_makes_room_and_the_order_stays() {
        let history = History::new(CHAPTERS * 3);
        let most = CHAPTERS as u32 * 3;
        (1..=most + 3).for_each(|n| history.push(entry(n.into(), 1, 0, n)));
        assert_eq!((cseqs(&history, 1, 0), history.complete_since()), ((1..=most + 3).collect(), None));
        (most + 4..=most + 8).for_each(|n| history.push(entry(n.into(), 1, 0, n)));
        assert_eq!((cseqs(&history, 1, 0), history.complete_since()), ((7..=most + 8).collect(), Some(Tick(7))));
        assert!(
            history.of_subscription(SubscriptionId { presentity: 1, slot: 0, nonce: 8 }).is_empty(),
            "another tenant's"
        );
        let mut seen = 0;
        history.visit(Tick(10), |number| number == 1, |_| seen += 1);
        assert_eq!(seen, most - 1);
    }

    #[test]
    fn what_threads_write_is_kept_together_and_read_while_they_write() {
        let (history, per_thread) = (History::new(65_536), 20_000);
        std::thread::scope(|scope| {
            for slot in 0..3 {
                let history = &history;
                scope.spawn(move || {
                    (1..=per_thread).for_each(|n| history.push(entry(n.into(), 1, slot, n)));
                });
            }
            for _ in 0..20 {
                let seen = cseqs(&history, 1, 1);
                assert_eq!(seen, (1..=seen.len() as u32).collect::<Vec<_>>(), "nothing twice, nothing left out");
            }
        });
        for slot in 0..3 {
            assert_eq!(cseqs(&history, 1, slot), (1..=per_thread).collect::<Vec<_>>());
        }
        assert_eq!((history.of_watchers(1).len(), history.tally().subscribed), (60_000, [60_000, 0]));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let history = History::new(0);
        history.push(entry(1, 1, 0, 1));
        assert!(cseqs(&history, 1, 0).is_empty() && history.complete_since().is_none());
        assert_eq!(history.tally().subscribed, [1, 0], "but it is counted");
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
    }
}

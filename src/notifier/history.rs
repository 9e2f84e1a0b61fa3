//! What has been exchanged with whom, and what changed when and why: one history for the whole server (law 10).
//!
//! An entry has a fixed size and refers to subscriptions by their place; bodies are not kept, for the last one can be put
//! together again. Each thread writes a chapter of its own, and a full one is put behind those of all threads, the
//! oldest of which makes room. So writing costs a lock that is the thread's own and a copy of 48 octets to where the last
//! one went, and nobody who reads is waited for: a full chapter does not change any more.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Notifier;
use super::tally::Tally;
use crate::ahead::fetch_one;
use crate::package::PackageId;
use crate::per_thread::PerThread;
use crate::presence::Tick;
use crate::presence::family::Family;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Carried, Delivery, InFlight, Place, Subscription};
use crate::sip::Transport;
use crate::transport::{Destination, Source};

/// The longest chapter (entries).
const CHAPTER: usize = 1_024;
/// There are at least so many chapters where there is room for as many entries.
const CHAPTERS: usize = 64;
/// So many entries before one is written its memory is asked for.
const AHEAD: usize = 4;
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
    /// Put back to what it was, because the journal has refused a change.
    RolledBack,
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

/// What one thread has written, in order.
#[derive(Debug, Default)]
struct Chapter {
    /// No other has it.
    number: u64,
    entries: Vec<Entry>,
}

/// What a thread is writing.
#[derive(Debug, Default)]
struct Desk {
    chapter: Chapter,
    tally: Tally,
}

/// Full chapters, oldest first.
#[derive(Debug, Default)]
struct Shelf {
    chapters: VecDeque<Arc<Chapter>>,
    /// How many there were so far.
    filled: u64,
    /// When the last entry was made that had to make room.
    lost_until: Option<Tick>,
}

/// All that is remembered.
#[derive(Debug)]
pub(super) struct History {
    desks: PerThread<Mutex<Desk>>,
    /// Locked once a chapter, while the thread's desk is locked.
    shelf: Mutex<Shelf>,
    /// How long a chapter is, and how many full ones are kept.
    length: usize,
    most: usize,
}

impl Entry {
    /// The number of the presentity that it is about.
    pub(super) fn presentity(&self) -> u32 {
        self.presentity
    }
}

impl History {
    /// Remembers so many entries, and what each thread has begun. With none, there is only counting.
    pub(super) fn new(entries: usize) -> History {
        let length = (entries / CHAPTERS).clamp(1, CHAPTER);
        History { desks: PerThread::default(), shelf: Mutex::default(), length, most: entries / length }
    }

    fn push(&self, entry: Entry) {
        let mut desk = self.desks.mine().lock();
        let Desk { chapter, tally } = &mut *desk;
        tally.count(&entry.note);
        if self.most == 0 {
            return;
        }
        if chapter.entries.len() == chapter.entries.capacity() {
            self.turn_over(chapter);
        }
        chapter.entries.push(entry);
        // Its place has been far away since it was last written, and letting go of the lock waits for what was written.
        fetch_one(&chapter.entries, chapter.entries.len() + AHEAD);
    }

    /// Puts a full chapter on the shelf and begins another.
    #[cold]
    fn turn_over(&self, chapter: &mut Chapter) {
        let mut shelf = self.shelf.lock();
        shelf.filled += 1;
        let full = std::mem::replace(chapter, Chapter { number: shelf.filled, entries: Vec::new() });
        if full.entries.is_empty() {
            // This thread's first.
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

    /// Shows every entry of the moment; those of one thread in order.
    fn walk(&self, mut see: impl FnMut(&Entry)) {
        // First what has been begun: what is put on the shelf meanwhile is seen there, with what came to it.
        let begun: Vec<_> = self
            .desks
            .iter()
            .filter_map(|desk| {
                let Desk { chapter: Chapter { number, entries }, .. } = &*desk.lock();
                (!entries.is_empty()).then(|| (*number, entries.clone()))
            })
            .collect();
        let full = self.shelf.lock().chapters.clone();
        full.iter().flat_map(|chapter| &chapter.entries).for_each(&mut see);
        let begun = begun.iter().filter(|(number, _)| full.iter().all(|chapter| chapter.number != *number));
        begun.flat_map(|(_, entries)| entries).for_each(see);
    }

    /// The entries that are wanted, oldest first.
    fn select(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut found = Vec::new();
        self.walk(|entry| found.extend(wanted(entry).then_some(*entry)));
        found.sort_by_key(|entry| entry.at);
        found
    }

    /// What was exchanged with a subscription, oldest first.
    pub(super) fn of_subscription(&self, place: Place) -> Vec<Entry> {
        let Place { presentity, slot, nonce } = place;
        self.select(|e| (e.presentity, e.slot, e.nonce) == (presentity, slot, nonce as u32))
    }

    /// The changes of a presentity, oldest first.
    pub(super) fn of_presentity(&self, presentity: u32) -> Vec<Entry> {
        self.select(|e| e.presentity == presentity && e.slot == NO_SLOT)
    }

    /// What was exchanged with the watchers of a presentity, oldest first: slot, lower half of the nonce, entry.
    pub(super) fn of_watchers(&self, presentity: u32) -> Vec<(u32, u32, Entry)> {
        let all = self.select(|e| e.presentity == presentity && e.slot != NO_SLOT);
        all.into_iter().map(|e| (e.slot, e.nonce, e)).collect()
    }

    /// Shows every entry since `from` of the presentities that are wanted, in no order.
    pub(super) fn visit(&self, from: Tick, wanted: impl Fn(u32) -> bool, mut see: impl FnMut(&Entry)) {
        self.walk(|e| {
            if e.at >= from && wanted(e.presentity) {
                see(e);
            }
        });
    }

    /// All that was counted so far.
    pub(super) fn tally(&self) -> Tally {
        self.desks.iter().fold(Tally::default(), |mut sum, desk| {
            sum.add(&desk.lock().tally);
            sum
        })
    }

    /// Since when nothing has been lost; none while nothing has been lost at all.
    pub(super) fn reaches_back_to(&self) -> Option<Tick> {
        self.shelf.lock().lost_until.map(|at| at.after(1))
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
    pub(super) fn note_lamp_seen(&self, now: Tick, changed_at: Tick) {
        let ms = now.0.saturating_sub(changed_at.0).min(u64::from(u32::MAX)) as u32;
        self.history.desks.mine().lock().tally.count_lamp(ms);
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
    fn the_oldest_chapter_makes_room_and_the_order_stays() {
        let history = History::new(CHAPTERS * 3);
        let most = CHAPTERS as u32 * 3;
        (1..=most + 3).for_each(|n| history.push(entry(n.into(), 1, 0, n)));
        assert_eq!((cseqs(&history, 1, 0), history.reaches_back_to()), ((1..=most + 3).collect(), None));
        (most + 4..=most + 8).for_each(|n| history.push(entry(n.into(), 1, 0, n)));
        assert_eq!((cseqs(&history, 1, 0), history.reaches_back_to()), ((7..=most + 8).collect(), Some(Tick(7))));
        assert!(history.of_subscription(Place { presentity: 1, slot: 0, nonce: 8 }).is_empty(), "another tenant's");
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
        assert!(cseqs(&history, 1, 0).is_empty() && history.reaches_back_to().is_none());
        assert_eq!(history.tally().subscribed, [1, 0], "but it is counted");
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 48, "{}", size_of::<Entry>());
    }
}

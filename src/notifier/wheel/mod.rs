//! Timers of subscriptions, publications and calls.
//!
//! The timers are lazy: the owner of a timer keeps its true deadline. Extending a deadline costs nothing here; when
//! the timer fires early, its owner sets it again. An owner that is removed cancels its timers, so that phones that
//! come and go by the thousand leave none behind.

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::presence::Tick;
use crate::presence::publication::PublicationNo;
use crate::presence::subscription::TimerHandle;
use crate::sip::transaction::T1;
use crate::util::per_thread::{CachePadded, PerThread, thread_slot};
use queue::Queue;

mod queue;

/// Kind of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TimerKind {
    /// Expiry of the subscription in this slot.
    Expiry(u32),
    /// Delivery of the NOTIFY of the subscription in this slot.
    Delivery(u32),
    /// Resuming the suspended subscription in this slot, because its phone has shown a sign of life.
    Resume(u32),
    /// Expiry of a publication.
    Publication(PublicationNo),
    /// Calls: forgets the tombstones of ended calls, and ends calls that have been ringing for too long.
    Calls,
}

/// A timer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DueTimer {
    /// Due time, rounded.
    pub(super) at: Tick,
    /// Number of the presentity.
    pub(super) presentity: u32,
    /// Kind of the timer.
    pub(super) watch: TimerKind,
}

/// All timers.
#[derive(Debug)]
pub(super) struct Wheel {
    /// Shards by presentity number, so that threads do not contend for one lock.
    shards: CachePadded<[Mutex<Shard>; SHARDS]>,
    /// First delivery timers of NOTIFYs, by the thread that sent them. Mostly the same thread receives the responses.
    queues: PerThread<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Timers by due time.
    buckets: BTreeMap<Tick, Bucket>,
}

impl Shard {
    fn schedule(&mut self, at: Tick, presentity: u32, watch: TimerKind) {
        self.buckets.entry(at).or_default().insert(presentity, watch);
    }

    fn cancel(&mut self, at: Tick, presentity: u32, watch: TimerKind) {
        if let Some(bucket) = self.buckets.get_mut(&at) {
            bucket.remove(presentity, watch);
            if bucket.len() == 0 {
                self.buckets.remove(&at);
            }
        }
    }

    fn take_due(&mut self, now: Tick, due: &mut Vec<DueTimer>) {
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() <= now) {
            let at = *bucket.key();
            let entries = bucket.remove().into_entries();
            due.extend(entries.into_iter().map(|(presentity, watch)| DueTimer { at, presentity, watch }));
        }
    }

    /// Returns the time of the next timer.
    fn next(&self) -> Option<Tick> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }
}

/// Timers with the same due time. Nearly all belong to subscriptions, of which there are millions. Those are stored
/// in two numbers: the presentity, and the slot with the kind in its two highest bits, which no slot needs.
#[derive(Debug, Default)]
struct Bucket {
    of_subscriptions: HashSet<(u32, u32), RandomState>,
    others: HashSet<(u32, TimerKind), RandomState>,
}

/// Upper bound of slot numbers; see `limits.watchers_per_presentity`.
const SLOTS: u32 = 1 << 30;

/// Packs the timer of a subscription into one number; `None` for other kinds.
fn packed(watch: TimerKind) -> Option<u32> {
    match watch {
        TimerKind::Expiry(slot) if slot < SLOTS => Some(slot),
        TimerKind::Delivery(slot) if slot < SLOTS => Some(slot | SLOTS),
        TimerKind::Resume(slot) if slot < SLOTS => Some(slot | SLOTS << 1),
        _ => None,
    }
}

fn unpacked(packed: u32) -> TimerKind {
    let slot = packed & (SLOTS - 1);
    match packed / SLOTS {
        0 => TimerKind::Expiry(slot),
        1 => TimerKind::Delivery(slot),
        _ => TimerKind::Resume(slot),
    }
}

impl Bucket {
    fn insert(&mut self, presentity: u32, watch: TimerKind) {
        match packed(watch) {
            Some(watch) => self.of_subscriptions.insert((presentity, watch)),
            None => self.others.insert((presentity, watch)),
        };
    }

    fn remove(&mut self, presentity: u32, watch: TimerKind) {
        match packed(watch) {
            Some(watch) => self.of_subscriptions.remove(&(presentity, watch)),
            None => self.others.remove(&(presentity, watch)),
        };
    }

    fn len(&self) -> usize {
        self.of_subscriptions.len() + self.others.len()
    }

    fn into_entries(self) -> Vec<(u32, TimerKind)> {
        let of_subscriptions =
            self.of_subscriptions.into_iter().map(|(presentity, watch)| (presentity, unpacked(watch)));
        of_subscriptions.chain(self.others).collect()
    }
}

const SHARDS: usize = 16;
/// Granularity of near deadlines (ms). Deadlines are rounded up, so that many timers share one bucket.
const FINE: u64 = 10;
/// Granularity of deadlines that are further away than [`FAR`] (ms).
const COARSE: u64 = 250;
const FAR: u64 = 10_000;

impl Default for Wheel {
    fn default() -> Self {
        Wheel { shards: CachePadded(std::array::from_fn(|_| Mutex::default())), queues: PerThread::default() }
    }
}

impl Wheel {
    /// Sets a timer, and returns its due time: the deadline or a little later, never earlier.
    pub(super) fn schedule(&self, now: Tick, deadline: Tick, presentity: u32, watch: TimerKind) -> Tick {
        let grain = if deadline.0.saturating_sub(now.0) > FAR { COARSE } else { FINE };
        let at = Tick(deadline.0.div_ceil(grain) * grain);
        self.shard(presentity).lock().schedule(at, presentity, watch);
        at
    }

    /// Cancels a timer that is due at `at`; does nothing if it has fired already.
    pub(super) fn cancel(&self, at: Tick, presentity: u32, watch: TimerKind) {
        self.shard(presentity).lock().cancel(at, presentity, watch);
    }

    /// Sets the delivery timer of a NOTIFY.
    pub(super) fn schedule_delivery(&self, now: Tick, deadline: Tick, presentity: u32, slot: u32) -> TimerHandle {
        // The queue is in order of time: with a timer far in the future at its end, all later ones would have to go
        // to the shards.
        if deadline <= now.after(T1) && self.queues.mine().lock().file(deadline, presentity, slot) {
            return TimerHandle::new(deadline, thread_slot());
        }
        TimerHandle::new(self.schedule(now, deadline, presentity, TimerKind::Delivery(slot)), thread_slot())
    }

    /// Cancels the delivery timer of a NOTIFY; does nothing if it has fired already.
    pub(super) fn cancel_delivery(&self, filed: TimerHandle, presentity: u32, slot: u32) {
        let queued =
            self.queues.at(filed.place()).is_some_and(|queue| queue.lock().cancel(filed.at(), presentity, slot));
        if !queued {
            self.cancel(filed.at(), presentity, TimerKind::Delivery(slot));
        }
    }

    fn shard(&self, presentity: u32) -> &Mutex<Shard> {
        &self.shards[presentity as usize % SHARDS]
    }

    /// Takes out all timers due at `now`, in a fixed order, so that a simulation can be replayed.
    pub(super) fn take_due(&self, now: Tick) -> Vec<DueTimer> {
        let mut due = Vec::new();
        self.shards.iter().for_each(|shard| shard.lock().take_due(now, &mut due));
        for queue in self.queues.iter() {
            let mut queue = queue.lock();
            let queued = std::iter::from_fn(|| queue.pop_due(now));
            due.extend(queued.map(|(at, presentity, slot)| DueTimer {
                at,
                presentity,
                watch: TimerKind::Delivery(slot),
            }));
        }
        due.sort_unstable_by_key(|entry| (entry.at, entry.presentity, entry.watch));
        due
    }

    /// Returns the number of timers.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let filed = |shard: &Mutex<Shard>| shard.lock().buckets.values().map(Bucket::len).sum::<usize>();
        let queued = |queue: &Mutex<Queue>| queue.lock().len();
        self.shards.iter().map(filed).sum::<usize>() + self.queues.iter().map(queued).sum::<usize>()
    }

    /// Returns the time of the next timer; `None` if there is none.
    pub(super) fn next(&self) -> Option<Tick> {
        let filed = self.shards.iter().filter_map(|shard| shard.lock().next());
        filed.chain(self.queues.iter().filter_map(|queue| queue.lock().next())).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_up_at_their_deadline_or_just_after() {
        let wheel = Wheel::default();
        let near = wheel.schedule(Tick(0), Tick(501), 1, TimerKind::Delivery(0));
        let far = wheel.schedule(Tick(0), Tick(3_600_001), 2, TimerKind::Expiry(0));
        assert_eq!((near, far), (Tick(510), Tick(3_600_250)));
        assert_eq!(wheel.next(), Some(near));
        assert_eq!(wheel.take_due(Tick(509)), []);
        assert_eq!(wheel.take_due(Tick(510)), [DueTimer { at: near, presentity: 1, watch: TimerKind::Delivery(0) }]);
        assert_eq!(wheel.take_due(Tick(4_000_000)).len(), 1);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn every_kind_comes_back_as_it_was_filed() {
        let wheel = Wheel::default();
        let all = [
            TimerKind::Expiry(SLOTS - 1),
            TimerKind::Expiry(SLOTS),
            TimerKind::Delivery(0),
            TimerKind::Delivery(u32::MAX),
            TimerKind::Resume(7),
            TimerKind::Publication(PublicationNo(u64::MAX)),
            TimerKind::Calls,
        ];
        all.iter().for_each(|watch| _ = wheel.schedule(Tick(0), Tick(100), 1, *watch));
        wheel.cancel(Tick(100), 1, TimerKind::Resume(7));
        let mut due: Vec<_> = wheel.take_due(Tick(100)).into_iter().map(|entry| entry.watch).collect();
        due.sort_unstable();
        let mut expected: Vec<_> = all.into_iter().filter(|watch| *watch != TimerKind::Resume(7)).collect();
        expected.sort_unstable();
        assert_eq!(due, expected);
    }

    #[test]
    fn looks_at_notifys_come_up_in_order_whenever_they_were_filed_and_not_once_they_are_taken_out() {
        let wheel = Wheel::default();
        let slots = [(3, 500), (1, 500), (2, 300), (4, 1_000), (5, 405), (6, 1_000), (7, 500)];
        let filed = slots.map(|(slot, at)| (slot, wheel.schedule_delivery(Tick(0), Tick(at), 7, slot)));
        assert_eq!((wheel.next(), wheel.len()), (Some(Tick(300)), 7));
        // Another thread may cancel a timer as well.
        let taken_out = filed.iter().filter(|(slot, _)| [1, 2, 6].contains(slot));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (slot, filed) in taken_out {
                    wheel.cancel_delivery(*filed, 7, *slot);
                    wheel.cancel_delivery(*filed, 7, *slot);
                }
            });
        });
        assert_eq!((wheel.next(), wheel.len()), (Some(Tick(410)), 4));
        let due: Vec<_> = wheel.take_due(Tick(2_000)).iter().map(|entry| (entry.at.0, entry.watch)).collect();
        assert_eq!(due, [(410, 5), (500, 3), (500, 7), (1_000, 4)].map(|(at, slot)| (at, TimerKind::Delivery(slot))));
        assert_eq!((wheel.next(), wheel.len()), (None, 0));
    }

    #[test]
    fn an_entry_that_is_taken_out_does_not_come_up() {
        let wheel = Wheel::default();
        let at = wheel.schedule(Tick(0), Tick(100), 1, TimerKind::Expiry(0));
        let other = wheel.schedule(Tick(0), Tick(100), 1, TimerKind::Delivery(0));
        wheel.cancel(at, 1, TimerKind::Expiry(0));
        wheel.cancel(at, 1, TimerKind::Expiry(7));
        assert_eq!(wheel.take_due(Tick(200)), [DueTimer { at: other, presentity: 1, watch: TimerKind::Delivery(0) }]);
        wheel.cancel(other, 1, TimerKind::Delivery(0));
        assert_eq!(wheel.next(), None);
    }
}

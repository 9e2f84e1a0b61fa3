//! Requests of the last half minute, in the order of arrival, with indices to find one.
//!
//! There may be a million of them, rarely looked up again. A new request is therefore appended next to the last one,
//! the oldest are dropped without touching anything else, and a lookup that finds nothing costs one cache miss.

use std::collections::VecDeque;

use super::index::{Index, MOST_LIVE, known};
use crate::util::prefetch::prefetch_element;

/// State of a remembered request.
#[derive(Clone, Debug)]
pub(super) enum Stage<A> {
    /// In progress.
    Working,
    Answered(A),
    Merged,
}

/// A remembered request.
#[derive(Debug)]
struct Entry<A> {
    /// Time at which it can be forgotten (ms).
    ends: u64,
    key: u64,
    /// Hash of the fields that merged requests share; none if they are not looked for.
    trace: Option<u64>,
    /// None once it is forgotten, as if it had never arrived.
    stage: Option<Stage<A>>,
}

/// The requests, numbered.
#[derive(Debug)]
struct Ring<A> {
    /// Requests in the order in which they end.
    entries: VecDeque<Entry<A>>,
    /// Number of the first request. Numbers rise by one and wrap after 2^32.
    first: u32,
}

impl<A> Ring<A> {
    /// Position of the request whose number has these low bits. It may be out of range.
    fn place(&self, number: u32) -> usize {
        known(number.wrapping_sub(self.first)) as usize
    }

    fn get(&self, number: u32) -> Option<&Entry<A>> {
        self.entries.get(self.place(number)).filter(|entry| entry.stage.is_some())
    }

    /// Returns true if there is a request with this number, forgotten or not.
    fn holds(&self, number: u32) -> bool {
        self.place(number) < self.entries.len()
    }

    /// Number of the next request.
    fn next(&self) -> u32 {
        self.first.wrapping_add(self.entries.len() as u32)
    }
}

/// Store of one shard. Keys are hashes already, and are used without hashing again.
#[derive(Debug)]
pub(super) struct TransactionStore<A> {
    ring: Ring<A>,
    by_key: Index,
    by_trace: Index,
}

impl<A> Default for TransactionStore<A> {
    fn default() -> TransactionStore<A> {
        let ring = Ring { entries: VecDeque::new(), first: 0 };
        TransactionStore { ring, by_key: Index::default(), by_trace: Index::default() }
    }
}

impl<A> TransactionStore<A> {
    /// Drops requests that have ended, and more if there is no room for another one.
    pub(super) fn make_room(&mut self, now: u64, most: usize) {
        let Ring { entries, first } = &mut self.ring;
        let most = most.min(MOST_LIVE);
        while entries.front().is_some_and(|entry| entry.ends <= now || entries.len() >= most) {
            entries.pop_front();
            *first = first.wrapping_add(1);
        }
        // After a peak of load, the memory is returned.
        if entries.capacity() > 1_024 && entries.len() < entries.capacity() / 8 {
            entries.shrink_to(2 * entries.len());
            self.list(2 * self.ring.entries.len());
        }
    }

    /// Prefetches the memory that a new request with this key and this trace uses.
    pub(super) fn fetch(&self, key: u64, trace: Option<u64>) {
        self.by_key.fetch(key);
        trace.into_iter().for_each(|trace| self.by_trace.fetch(trace));
        let (old, new) = self.ring.entries.as_slices();
        // The first entry is dropped; the new one is appended after the last.
        prefetch_element(old, 0);
        let last = if new.is_empty() { old } else { new };
        (0..2).for_each(|more| prefetch_element(last, last.len() + more));
    }

    /// End time and state of a request.
    pub(super) fn find(&self, key: u64) -> Option<(u64, &Stage<A>)> {
        let entry = self.ring.get(self.number(key)?)?;
        Some((entry.ends, entry.stage.as_ref()?))
    }

    fn number(&self, key: u64) -> Option<u32> {
        self.by_key.find(key, |number| self.ring.get(number).is_some_and(|entry| entry.key == key))
    }

    /// Returns true if a request with this trace is remembered.
    pub(super) fn has_trace(&self, trace: u64) -> bool {
        let is = |number| self.ring.get(number).is_some_and(|entry| entry.trace == Some(trace));
        self.by_trace.find(trace, is).is_some()
    }

    /// Remembers a new request. `trace` is none if it is not indexed by trace.
    pub(super) fn push(&mut self, ends: u64, key: u64, trace: Option<u64>, stage: Stage<A>) {
        if self.ring.entries.len() >= self.by_key.room() {
            self.list(2 * self.ring.entries.len());
        }
        let TransactionStore { ring, by_key, by_trace } = self;
        let number = ring.next();
        by_key.insert(key, number, |other| ring.holds(other));
        if let Some(trace) = trace {
            by_trace.insert(trace, number, |other| ring.holds(other));
        }
        ring.entries.push_back(Entry { ends, key, trace, stage: Some(stage) });
    }

    /// Rebuilds the indices with room for this number of entries.
    fn list(&mut self, room: usize) {
        let TransactionStore { ring, by_key, by_trace } = self;
        (*by_key, *by_trace) = (Index::with_room(room), Index::with_room(room));
        for (n, entry) in (0..).zip(&ring.entries) {
            let number = ring.first.wrapping_add(n);
            by_key.insert(entry.key, number, |other| ring.holds(other));
            if let Some(trace) = entry.trace {
                by_trace.insert(trace, number, |other| ring.holds(other));
            }
        }
    }

    /// Sets the state of a request, if it is still remembered.
    pub(super) fn set(&mut self, key: u64, stage: Stage<A>) {
        self.put(key, Some(stage));
    }

    /// Forgets a request before its end.
    pub(super) fn forget(&mut self, key: u64) {
        self.put(key, None);
        while self.ring.entries.pop_back_if(|entry| entry.stage.is_none()).is_some() {}
    }

    fn put(&mut self, key: u64, stage: Option<Stage<A>>) {
        let place = self.number(key).map(|number| self.ring.place(number));
        if let Some(entry) = place.and_then(|place| self.ring.entries.get_mut(place)) {
            entry.stage = stage;
        }
    }

    /// Number of requests.
    pub(super) fn len(&self) -> usize {
        self.ring.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(memory: &TransactionStore<u32>, keys: std::ops::Range<u64>) -> Vec<u64> {
        keys.filter(|key| memory.find(*key).is_some()).collect()
    }

    #[test]
    fn numbers_that_begin_anew_lead_where_they_should() {
        let mut memory = TransactionStore::default();
        memory.ring.first = u32::MAX - 2;
        for key in 1..=6 {
            memory.push(key, key, Some(100 + key), Stage::Answered(key as u32));
        }
        for key in 1..=6 {
            assert!(
                matches!(memory.find(key), Some((ends, Stage::Answered(answer))) if (ends, *answer) == (key, key as u32))
            );
            assert!(memory.has_trace(100 + key) && !memory.has_trace(key));
        }
        memory.make_room(4, 100);
        assert_eq!((keys(&memory, 0..10), memory.len(), memory.has_trace(104)), (vec![5, 6], 2, false));
    }

    #[test]
    fn each_of_many_is_found_for_as_long_as_it_is_there() {
        let mut memory = TransactionStore::default();
        for n in 1..=200_000_u64 {
            memory.make_room(n, 10_000);
            let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            assert!(memory.find(key).is_none() && !memory.has_trace(!key));
            memory.push(n + 8_000, key, Some(!key), Stage::Answered(n as u32));
            let old = n.saturating_sub(7_999).max(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            assert!(memory.find(old).is_some() && memory.has_trace(!old), "{n}");
        }
    }

    #[test]
    fn what_was_forgotten_before_its_time_is_nowhere_and_takes_no_room_for_long() {
        let mut memory = TransactionStore::default();
        for key in 1..=100_000 {
            memory.push(32_000, key, Some(key), Stage::<u32>::Working);
            memory.forget(key);
        }
        assert_eq!(memory.len(), 0);
        (1..=3).for_each(|key| memory.push(key, key, Some(key), Stage::Working));
        memory.forget(2);
        assert_eq!((keys(&memory, 0..10), memory.has_trace(2)), (vec![1, 3], false));
        memory.push(4, 2, Some(2), Stage::Working);
        memory.make_room(3, 100);
        assert_eq!((keys(&memory, 0..10), memory.has_trace(2), memory.len()), (vec![2], true, 1));
    }

    #[test]
    fn room_is_made_by_forgetting_the_oldest_and_given_back_when_it_is_not_needed() {
        let mut memory = TransactionStore::default();
        for key in 1..=50_000 {
            memory.make_room(0, 10_000);
            memory.push(key, key, Some(key), Stage::<u32>::Working);
        }
        assert_eq!((memory.len(), memory.find(40_000).is_none(), memory.find(40_001).is_some()), (10_000, true, true));
        memory.make_room(49_990, 10_000);
        assert_eq!(keys(&memory, 0..60_000), (49_991..=50_000).collect::<Vec<_>>());
        assert!(memory.ring.entries.capacity() < 100 && memory.by_key.room() < 100 && memory.by_trace.room() < 100);
    }
}

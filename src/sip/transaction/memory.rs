//! The requests of the last half minute in the order in which they came, and ways to find one.
//!
//! There may be a million of them, seldom looked at again. So a new one goes where the last one went, and what leads
//! to it are four octets in an index: looking something up, and forgetting it in the end, touch little memory.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use hashbrown::HashTable;

/// How far a remembered request has come.
#[derive(Clone, Debug)]
pub(super) enum Stage<A> {
    /// It is being worked on.
    Working,
    Answered(A),
    Merged,
}

/// A request.
#[derive(Debug)]
struct Entry<A> {
    /// When it can be forgotten (ms).
    ends: u64,
    key: u64,
    /// What it has in common with requests that are merged with it, if that is looked for.
    trace: Option<NonZeroU64>,
    stage: Stage<A>,
}

/// What is remembered. Keys are hashes already, and are taken as they are.
#[derive(Debug)]
pub(super) struct Memory<A> {
    /// In the order in which they end. Those that have been forgotten before are in none of the indices.
    ring: VecDeque<Entry<A>>,
    /// The number of the first. They are counted up, and begin anew after 2^32.
    first: u32,
    /// Numbers by key, and by trace.
    by_key: HashTable<u32>,
    by_trace: HashTable<u32>,
}

impl<A> Default for Memory<A> {
    fn default() -> Memory<A> {
        Memory { ring: VecDeque::new(), first: 0, by_key: HashTable::new(), by_trace: HashTable::new() }
    }
}

fn nonzero(trace: u64) -> NonZeroU64 {
    NonZeroU64::new(trace).unwrap_or(NonZeroU64::MIN)
}

impl<A> Memory<A> {
    /// Forgets what has ended, and more if there is no room for another one.
    pub(super) fn make_room(&mut self, now: u64, most: usize) {
        while let Some(entry) = self.ring.front() {
            if entry.ends > now && self.by_key.len() < most && self.ring.len() / 2 < most {
                break;
            }
            let (key, trace, number) = (entry.key, entry.trace, self.first);
            self.unlist(key, trace, number);
            self.ring.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        // A storm is over, and what it took can be given back.
        if self.ring.capacity() > 1_024 && self.ring.len() < self.ring.capacity() / 8 {
            let Memory { ring, first, by_key, by_trace } = self;
            let room = 2 * ring.len();
            ring.shrink_to(room);
            by_key.shrink_to(room, |number| key_of(ring, *first, *number));
            by_trace.shrink_to(room, |number| trace_of(ring, *first, *number));
        }
    }

    /// When a request ends, and how far it has come.
    pub(super) fn find(&self, key: u64) -> Option<(u64, &Stage<A>)> {
        let number = self.by_key.find(key, |number| key_of(&self.ring, self.first, *number) == key)?;
        self.ring.get(number.wrapping_sub(self.first) as usize).map(|entry| (entry.ends, &entry.stage))
    }

    /// Whether a request with this trace has come.
    pub(super) fn has_trace(&self, trace: u64) -> bool {
        let trace = nonzero(trace).get();
        self.by_trace.find(trace, |number| trace_of(&self.ring, self.first, *number) == trace).is_some()
    }

    /// Remembers a request that was not found, and its trace if there is one that was not found either.
    pub(super) fn push(&mut self, ends: u64, key: u64, trace: Option<u64>, stage: Stage<A>) {
        let Memory { ring, first, by_key, by_trace } = self;
        let number = first.wrapping_add(ring.len() as u32);
        let trace = trace.map(nonzero);
        by_key.insert_unique(key, number, |number| key_of(ring, *first, *number));
        if let Some(trace) = trace {
            by_trace.insert_unique(trace.get(), number, |number| trace_of(ring, *first, *number));
        }
        ring.push_back(Entry { ends, key, trace, stage });
    }

    /// A request has come this far, if it is still known.
    pub(super) fn set(&mut self, key: u64, stage: Stage<A>) {
        let found = self.by_key.find(key, |number| key_of(&self.ring, self.first, *number) == key);
        if let Some(entry) = found.and_then(|number| self.ring.get_mut(number.wrapping_sub(self.first) as usize)) {
            entry.stage = stage;
        }
    }

    /// Forgets a request before its time.
    pub(super) fn forget(&mut self, key: u64) {
        let Some(number) = self.by_key.find(key, |n| key_of(&self.ring, self.first, *n) == key).copied() else {
            return;
        };
        let place = number.wrapping_sub(self.first) as usize;
        let trace = self.ring.get(place).and_then(|entry| entry.trace);
        self.unlist(key, trace, number);
        if place + 1 == self.ring.len() {
            self.ring.pop_back();
        }
    }

    /// How many can be found.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn unlist(&mut self, key: u64, trace: Option<NonZeroU64>, number: u32) {
        if let Ok(found) = self.by_key.find_entry(key, |n| *n == number) {
            found.remove();
        }
        if let Some(trace) = trace
            && let Ok(found) = self.by_trace.find_entry(trace.get(), |n| *n == number)
        {
            found.remove();
        }
    }
}

fn entry_of<A>(ring: &VecDeque<Entry<A>>, first: u32, number: u32) -> Option<&Entry<A>> {
    ring.get(number.wrapping_sub(first) as usize)
}

fn key_of<A>(ring: &VecDeque<Entry<A>>, first: u32, number: u32) -> u64 {
    entry_of(ring, first, number).map_or(0, |entry| entry.key)
}

fn trace_of<A>(ring: &VecDeque<Entry<A>>, first: u32, number: u32) -> u64 {
    entry_of(ring, first, number).and_then(|entry| entry.trace).map_or(0, NonZeroU64::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(memory: &Memory<u32>, keys: std::ops::Range<u64>) -> Vec<u64> {
        keys.filter(|key| memory.find(*key).is_some()).collect()
    }

    #[test]
    fn numbers_that_begin_anew_lead_where_they_should() {
        let mut memory = Memory { first: u32::MAX - 2, ..Memory::default() };
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
    fn what_was_forgotten_before_its_time_is_nowhere_and_takes_no_room_for_long() {
        let mut memory = Memory::default();
        for key in 1..=100_000 {
            memory.push(32_000, key, Some(key), Stage::<u32>::Working);
            memory.forget(key);
        }
        assert_eq!((memory.ring.len(), memory.len()), (0, 0));
        (1..=3).for_each(|key| memory.push(key, key, Some(key), Stage::Working));
        memory.forget(2);
        assert_eq!((keys(&memory, 0..10), memory.has_trace(2)), (vec![1, 3], false));
        memory.push(4, 2, Some(2), Stage::Working);
        memory.make_room(3, 100);
        assert_eq!((keys(&memory, 0..10), memory.has_trace(2), memory.ring.len()), (vec![2], true, 1));
    }

    #[test]
    fn room_is_made_by_forgetting_the_oldest_and_given_back_when_it_is_not_needed() {
        let mut memory = Memory::default();
        for key in 1..=50_000 {
            memory.make_room(0, 10_000);
            memory.push(key, key, Some(key), Stage::<u32>::Working);
        }
        assert_eq!((memory.len(), memory.find(40_000).is_none(), memory.find(40_001).is_some()), (10_000, true, true));
        memory.make_room(49_990, 10_000);
        assert_eq!(keys(&memory, 0..60_000), (49_991..=50_000).collect::<Vec<_>>());
        assert!(memory.ring.capacity() < 100 && memory.by_key.capacity() < 100 && memory.by_trace.capacity() < 100);
    }
}

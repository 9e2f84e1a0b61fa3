//! Index of requests by hash, organised like a processor's cache: sets of a few slots each.
//!
//! A set is one cache line, so a lookup costs one cache miss. Entries are never removed: a slot whose request is gone
//! counts as free. In a table of a million entries, each of which is looked up once, cache misses are nearly all of
//! the cost.

use crate::util::prefetch::prefetch_element;

/// Slots of a set, which fill a cache line.
const WAYS: usize = 16;
/// Limit on the average entries of a set. At this load, one entry in a quarter of a million finds no free slot.
const PER_SET: usize = 5;
/// Bits of a slot that hold the number. The other bits are from the hash, except one which is always set.
const NUMBER: u32 = 20;
/// Limit on live numbers: with more, the low bits that are stored would not identify a number.
pub(super) const MOST_LIVE: usize = 1 << (NUMBER - 1);

/// Numbers by hash. Only the low bits of a number are stored; the caller knows whether a number is in use.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Sets: a power of two, or none.
    sets: Vec<Set>,
}

/// Set of slots; 0 in a slot that was never used.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([u32; WAYS]);

/// Low bits of a number, as far as they are stored.
pub(super) fn known(number: u32) -> u32 {
    number & ((1 << NUMBER) - 1)
}

fn tag(hash: u64) -> u32 {
    // The bits that select the set are not used here.
    ((hash >> 32) as u32 | 1 << NUMBER) & !((1 << NUMBER) - 1)
}

impl Index {
    /// Creates an empty index with room for this number of entries.
    pub(super) fn with_room(entries: usize) -> Index {
        Index { sets: vec![Set::default(); entries.div_ceil(PER_SET).next_power_of_two()] }
    }

    /// Number of entries that it has room for.
    pub(super) fn room(&self) -> usize {
        self.sets.len() * PER_SET
    }

    fn set(&self, hash: u64) -> usize {
        hash as usize & self.sets.len().wrapping_sub(1)
    }

    /// Prefetches the set of this hash.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        prefetch_element(&self.sets, self.set(hash));
    }

    /// Low bits of the number with this hash for which `is` returns true.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let Set(places) = self.sets.get(self.set(hash))?;
        let same = places.iter().filter(|place| **place & !((1 << NUMBER) - 1) == tag(hash));
        same.map(|place| known(*place)).find(|number| is(*number))
    }

    /// Inserts a number, in place of one that is not `live` any more. If all of the set are live, one of them is
    /// displaced and is not found again.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, number: u32, live: impl Fn(u32) -> bool) {
        let set = self.set(hash);
        let Some(Set(places)) = self.sets.get_mut(set) else { return };
        let free =
            places.iter().position(|place| *place == 0 || !live(known(*place))).unwrap_or(number as usize % WAYS);
        places[free] = tag(hash) | known(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash function that spreads well enough.
    fn hash(number: u32) -> u64 {
        let mut x = u64::from(number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    }

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        let mut index = Index::with_room(100_000);
        let most = index.room() as u32;
        assert!(most >= 100_000);
        (0..most).for_each(|n| index.insert(hash(n), n, |other| other < n));
        let lost = (0..most).filter(|n| index.find(hash(*n), |found| found == *n).is_none()).count();
        assert!(lost <= 5, "{lost} of {most}");
        assert!((most..2 * most).all(|n| index.find(hash(n), |found| found == n).is_none()));
    }

    #[test]
    fn a_place_whose_number_stands_for_nothing_any_more_is_free() {
        let mut index = Index::with_room(1);
        for n in 0..1_000 {
            index.insert(hash(n), n, |other| other < n && other + 16 >= n);
            assert!((n.saturating_sub(15)..=n).all(|n| index.find(hash(n), |found| found == n).is_some()), "{n}");
        }
    }

    #[test]
    fn an_empty_one_finds_nothing_and_takes_nothing() {
        let mut index = Index::default();
        index.insert(7, 7, |_| true);
        assert!(index.find(7, |_| true).is_none());
    }
}

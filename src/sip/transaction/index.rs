//! Where a request is, by a hash: sets of some places each, as a processor's cache has them.
//!
//! All that a hash leads to is in one line of the cache, and nothing ever has to be taken out: a place whose request is
//! gone is a free one. In a table of a million entries that are looked at once, little else costs anything.

use crate::ahead::fetch_one;

/// As many places as fit into a line of the cache.
const WAYS: usize = 16;
/// No set has more entries than this on average. One in a quarter of a million finds none free even then.
const PER_SET: usize = 5;
/// So many bits of a place are the number; the others are of the hash, but for one which is always set.
const NUMBER: u32 = 20;
/// Fewer numbers than this are live at once: of more, not enough would be known.
pub(super) const MOST_LIVE: usize = 1 << (NUMBER - 1);

/// Numbers by hash, which are known by their lower bits. Whether one stands for anything is known to whoever gave it.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// As many as a power of two, or none.
    sets: Vec<Set>,
}

/// 0 where nothing has been put yet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([u32; WAYS]);

/// The bits of a number that are known.
pub(super) fn known(number: u32) -> u32 {
    number & ((1 << NUMBER) - 1)
}

fn tag(hash: u64) -> u32 {
    // Not those by which the set is found.
    ((hash >> 32) as u32 | 1 << NUMBER) & !((1 << NUMBER) - 1)
}

impl Index {
    /// Without entries, with room for so many.
    pub(super) fn with_room(entries: usize) -> Index {
        Index { sets: vec![Set::default(); entries.div_ceil(PER_SET).next_power_of_two()] }
    }

    /// How many entries it has room for.
    pub(super) fn room(&self) -> usize {
        self.sets.len() * PER_SET
    }

    fn set(&self, hash: u64) -> usize {
        hash as usize & self.sets.len().wrapping_sub(1)
    }

    /// Asks for the memory where this hash leads to.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        fetch_one(&self.sets, self.set(hash));
    }

    /// What is known of the number with this hash that is the one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let Set(places) = self.sets.get(self.set(hash))?;
        let same = places.iter().filter(|place| **place & !((1 << NUMBER) - 1) == tag(hash));
        same.map(|place| known(*place)).find(|number| is(*number))
    }

    /// Puts a number in, in place of one that is not `live` any more. Should there be none, one that is goes: it is not
    /// found again.
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

    /// A hash that is as good as any.
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

//! LRU table of fixed capacity: when it is full, the least recently used entry is evicted. Every operation takes
//! constant time, so a flood of new keys costs no more than a flood of known ones.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::quality::RandomState;

/// Index that stands for no entry.
const NONE: usize = usize::MAX;

/// LRU table: a hash map from keys to indexes, and a doubly linked list in order of use.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    capacity: usize,
    places: HashMap<K, usize, RandomState>,
    entries: Vec<Entry<K, V>>,
    newest: usize,
    oldest: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    newer: usize,
    older: usize,
}

impl<K: Clone + Eq + Hash, V: Default> Lru<K, V> {
    /// Creates an empty table for at most `capacity` entries; a capacity of 0 counts as 1.
    pub(super) fn new(capacity: usize) -> Lru<K, V> {
        let capacity = capacity.max(1);
        Lru { capacity, places: HashMap::default(), entries: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// Returns the value of a key, and makes it the most recently used one. A new key gets a default value.
    pub(super) fn touch(&mut self, key: &K) -> &mut V {
        let place = match self.places.get(key) {
            Some(&place) => {
                self.unlink(place);
                place
            }
            None => self.make_room(key),
        };
        self.link_as_newest(place);
        &mut self.entries[place].value
    }

    /// Returns the value of a key, if there is one. The order of use does not change.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|place| &self.entries[*place].value)
    }

    /// Returns all entries, the most recently used one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let first = self.entries.get(self.newest);
        std::iter::successors(first, |entry| self.entries.get(entry.older)).map(|entry| (&entry.key, &entry.value))
    }

    /// Returns the index of a new entry for `key`, not linked yet. If the table is full, evicts the least recently
    /// used entry.
    fn make_room(&mut self, key: &K) -> usize {
        let entry = Entry { key: key.clone(), value: V::default(), newer: NONE, older: NONE };
        let place = match self.entries.len() < self.capacity {
            true => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
            false => {
                let place = self.oldest;
                self.unlink(place);
                let before = std::mem::replace(&mut self.entries[place], entry);
                self.places.remove(&before.key);
                place
            }
        };
        self.places.insert(key.clone(), place);
        place
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.entries[place].newer, self.entries[place].older);
        match self.entries.get_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_as_newest(&mut self, place: usize) {
        let before = std::mem::replace(&mut self.newest, place);
        self.entries[place].newer = NONE;
        self.entries[place].older = before;
        match self.entries.get_mut(before) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(table: &Lru<u32, u32>) -> Vec<u32> {
        table.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn the_least_recently_used_entry_makes_room() {
        let mut table = Lru::new(3);
        for key in [1, 2, 3, 1, 4] {
            *table.touch(&key) += 1;
        }
        assert_eq!(keys(&table), [4, 1, 3]);
        assert_eq!((table.get(&1), table.get(&2)), (Some(&2), None));
        *table.touch(&3) += 1;
        assert_eq!((keys(&table), table.get(&3)), (vec![3, 4, 1], Some(&2)));
    }

    #[test]
    fn a_flood_of_new_keys_takes_no_more_room_than_the_capacity() {
        let mut table = Lru::new(64);
        (0..10_000).for_each(|key| *table.touch(&key) += 1);
        assert_eq!(keys(&table), (9_936..10_000).rev().collect::<Vec<_>>());
        assert_eq!((table.entries.len(), table.places.len()), (64, 64));
        let mut single = Lru::new(0);
        (0..10).for_each(|key| *single.touch(&key) += 1);
        assert_eq!(keys(&single), [9]);
    }
}

//! Filter for overtaken records: drops a record if a newer one of the same key was already appended.
//!
//! A thread changes an object under its lock, but appends the record after releasing it. So the record of the earlier
//! change may be appended last. After a restart it would count as the newest, although the later change was
//! acknowledged too.
//!
//! A record that was appended and then refused, because the disk failed, still counts as the newest. The rollback
//! appends a record with a higher order, and records that were overtaken before are older than that one too.

use std::collections::HashMap;

use super::{Key, Record};

/// Number of keys in a generation. An overtaken record is missed only if as many records of other keys came in between.
const GENERATION: usize = 1 << 15;

/// Orders of the newest records, for the most recently used keys.
#[derive(Debug, Default)]
pub(super) struct NewestPerKey {
    young: HashMap<Key, u64>,
    old: HashMap<Key, u64>,
}

impl NewestPerKey {
    /// Returns true, and remembers the record's order, unless a newer record of its key is known.
    pub(super) fn is_newest(&mut self, record: &Record) -> bool {
        let known = self.young.get(&record.key).or_else(|| self.old.get(&record.key));
        if known.is_some_and(|known| *known > record.order) {
            return false;
        }
        self.young.insert(record.key, record.order);
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(key: u64, order: u64) -> Record {
        Record { key: Key(key, 0), value: None, order }
    }

    #[test]
    fn a_word_that_was_overtaken_is_not_admitted_until_it_is_long_forgotten() {
        let mut latest = NewestPerKey::default();
        assert!([(1, 5), (2, 3), (1, 6), (1, 6)].into_iter().all(|(key, order)| latest.is_newest(&word(key, order))));
        assert!(!latest.is_newest(&word(1, 5)));
        for other in 10..10 + GENERATION as u64 {
            assert!(latest.is_newest(&word(other, 1)));
        }
        assert!(!latest.is_newest(&word(1, 5)), "still in the older generation");
        for other in 0..2 * GENERATION as u64 {
            latest.is_newest(&word(1_000_000 + other, 1));
        }
        assert!(latest.young.len() + latest.old.len() <= 2 * GENERATION);
        assert!(latest.is_newest(&word(1, 5)));
    }
}

//! Keeps words that were overtaken on their way to the journal out of it.
//!
//! Threads change one thing after the other, under its lock, and append what they made of it when they have let go of
//! that. So the earlier change may be appended last, and a start would take it for the last word, although the later one
//! has been acknowledged as well.
//!
//! A word that was admitted and then refused, because the disk failed, stays the latest: the roll-back follows it with a word
//! of a higher order, and what was overtaken before is older than that one, too.

use std::collections::HashMap;

use super::{Key, Record};

/// How many keys a generation remembers. A word would have to be overtaken by as many others to slip through.
const GENERATION: usize = 1 << 15;

/// The order of the latest words, of the last many keys.
#[derive(Debug, Default)]
pub(super) struct Latest {
    young: HashMap<Key, u64>,
    old: HashMap<Key, u64>,
}

impl Latest {
    /// Whether nothing later has been said of the record's key; from now on this has.
    pub(super) fn admits(&mut self, record: &Record) -> bool {
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
        let mut latest = Latest::default();
        assert!([(1, 5), (2, 3), (1, 6), (1, 6)].into_iter().all(|(key, order)| latest.admits(&word(key, order))));
        assert!(!latest.admits(&word(1, 5)));
        for other in 10..10 + GENERATION as u64 {
            assert!(latest.admits(&word(other, 1)));
        }
        assert!(!latest.admits(&word(1, 5)), "still in the older generation");
        for other in 0..2 * GENERATION as u64 {
            latest.admits(&word(1_000_000 + other, 1));
        }
        assert!(latest.young.len() + latest.old.len() <= 2 * GENERATION);
        assert!(latest.admits(&word(1, 5)));
    }
}

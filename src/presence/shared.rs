//! Texts that thousands have in common, such as the names of phone models, kept once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;

/// The most texts that are shared. Strangers may make up as many as they like; beyond this everybody has his own.
const MOST: usize = 4_096;

/// Texts that are shared, each with what is known of it from having looked at it once.
#[derive(Debug, Default)]
pub struct SharedTexts<T> {
    known: DashMap<Arc<str>, T, RandomState>,
    /// How many found no room.
    turned_away: AtomicUsize,
}

/// So many find no room before it is looked again whether some could be made.
const LOOK_EVERY: usize = 1_024;

impl<T: Copy> SharedTexts<T> {
    /// The shared copy of a text, and what `look` finds in it.
    pub fn share(&self, text: &str, look: impl FnOnce(&str) -> T) -> (Arc<str>, T) {
        if let Some(known) = self.known.get(text) {
            return (Arc::clone(known.key()), *known);
        }
        let found = look(text);
        let text: Arc<str> = text.into();
        if self.known.len() >= MOST && self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.known.retain(|text, _| Arc::strong_count(text) > 1);
        }
        if self.known.len() < MOST {
            self.known.insert(Arc::clone(&text), found);
        }
        (text, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once_and_those_that_nobody_has_make_room() {
        let texts = SharedTexts::default();
        let share = |text: &str| texts.share(text, str::len);
        let (one, length) = share("snom");
        assert!(length == 4 && Arc::ptr_eq(&one, &share("snom").0));
        for number in 0..2 * MOST {
            share(&number.to_string());
        }
        assert!(texts.known.len() <= MOST && Arc::ptr_eq(&one, &share("snom").0));
    }
}

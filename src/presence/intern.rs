//! Texts that thousands have in common, such as the names of phone models, kept once.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;

use crate::ahead;

/// A text with many owners, each of whom spends one word on it: there are a million of them and far fewer texts.
#[derive(Clone, Debug)]
#[allow(clippy::redundant_allocation)] // An Arc<str> is two words.
pub struct InternedStr(Arc<Box<str>>);

impl InternedStr {
    /// Asks for the memory that leads to it ...
    pub fn fetch(&self) {
        ahead::fetch(&*self.0);
    }

    /// ... and, once that is there, for its own.
    pub fn fetch_text(&self) {
        ahead::fetch_text(self);
    }

    /// Whether both are one copy.
    pub fn is_same(&self, other: &InternedStr) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Into<Box<str>>> From<T> for InternedStr {
    fn from(text: T) -> InternedStr {
        InternedStr(Arc::new(text.into()))
    }
}

impl Deref for InternedStr {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for InternedStr {
    fn borrow(&self) -> &str {
        self
    }
}

impl Hash for InternedStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for InternedStr {
    fn eq(&self, other: &InternedStr) -> bool {
        **self == **other
    }
}

impl Eq for InternedStr {}

/// The most texts that are shared. Strangers may make up as many as they like; beyond this everybody has his own.
const MOST: usize = 4_096;

/// Texts that are shared, each with what is known of it from having looked at it once.
#[derive(Debug, Default)]
pub struct Interner<T> {
    known: DashMap<InternedStr, T, RandomState>,
    /// How many found no room.
    turned_away: AtomicUsize,
}

/// So many find no room before it is looked again whether some could be made.
const LOOK_EVERY: usize = 1_024;

impl<T: Copy> Interner<T> {
    /// The shared copy of a text, and what `look` finds in it.
    pub fn share(&self, text: &str, look: impl FnOnce(&str) -> T) -> (InternedStr, T) {
        if let Some(known) = self.known.get(text) {
            return (known.key().clone(), *known);
        }
        let found = look(text);
        let text = InternedStr::from(text);
        if self.known.len() >= MOST && self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.known.retain(|text, _| Arc::strong_count(&text.0) > 1);
        }
        if self.known.len() < MOST {
            self.known.insert(text.clone(), found);
        }
        (text, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once_and_those_that_nobody_has_make_room() {
        let texts = Interner::default();
        let share = |text: &str| texts.share(text, str::len);
        let (one, length) = share("snom");
        assert!(length == 4 && one.is_same(&share("snom").0));
        for number in 0..2 * MOST {
            share(&number.to_string());
        }
        assert!(texts.known.len() <= MOST && one.is_same(&share("snom").0));
    }
}

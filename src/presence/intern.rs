//! Interned strings: a text that thousands of subscriptions share, such as the name of a phone model, is stored once.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;

use crate::util::prefetch;

/// Reference-counted text. Each owner spends one word on it, as there are a million owners and far fewer texts.
#[derive(Clone, Debug)]
#[allow(clippy::redundant_allocation)] // An Arc<str> is two words.
pub struct InternedStr(Arc<Box<str>>);

impl InternedStr {
    /// Prefetches the cache line that holds the pointer to the text.
    pub fn fetch(&self) {
        prefetch::prefetch(&*self.0);
    }

    /// Prefetches the text itself. To be called once the line of [`InternedStr::fetch`] has arrived.
    pub fn fetch_text(&self) {
        prefetch::prefetch_str(self);
    }

    /// Returns true if both are the same copy.
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

/// Limit on interned texts. Unverified sources may send any number of texts; beyond the limit, each owner has its own
/// copy.
const MOST: usize = 4_096;

/// Table of interned texts, each with a value that was derived from the text once.
#[derive(Debug, Default)]
pub struct Interner<T> {
    known: DashMap<InternedStr, T, RandomState>,
    /// Number of texts that found the table full.
    turned_away: AtomicUsize,
}

/// Attempts to intern a text in the full table between two removals of unused texts.
const LOOK_EVERY: usize = 1_024;

impl<T: Copy> Interner<T> {
    /// Returns the interned copy of a text, and the value that `look` derives from it. `look` runs only if the text
    /// is new.
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

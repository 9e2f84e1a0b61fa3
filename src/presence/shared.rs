//! Texts that thousands have in common, such as the names of phone models, kept once.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashSet;
use foldhash::quality::RandomState;

/// A text with many owners, each of whom spends one word on it: there are a million of them and far fewer texts.
#[derive(Clone, Debug)]
#[allow(clippy::redundant_allocation)] // An Arc<str> is two words.
pub struct SharedText(Arc<Box<str>>);

impl SharedText {
    /// Whether both are one copy.
    pub fn is_same(&self, other: &SharedText) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Into<Box<str>>> From<T> for SharedText {
    fn from(text: T) -> SharedText {
        SharedText(Arc::new(text.into()))
    }
}

impl Deref for SharedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SharedText {
    fn borrow(&self) -> &str {
        self
    }
}

impl Hash for SharedText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for SharedText {
    fn eq(&self, other: &SharedText) -> bool {
        **self == **other
    }
}

impl Eq for SharedText {}

/// The most texts that are shared. Strangers may make up as many as they like; beyond this everybody has his own.
const MOST: usize = 4_096;

/// Texts that are shared.
#[derive(Debug, Default)]
pub struct SharedTexts {
    known: DashSet<SharedText, RandomState>,
    /// How many found no room.
    turned_away: AtomicUsize,
}

/// So many find no room before it is looked again whether some could be made.
const LOOK_EVERY: usize = 1_024;

impl SharedTexts {
    /// The shared copy of a text.
    pub fn share(&self, text: &str) -> SharedText {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let text = SharedText::from(text);
        if self.known.len() >= MOST && self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.known.retain(|text| Arc::strong_count(&text.0) > 1);
        }
        if self.known.len() < MOST {
            self.known.insert(text.clone());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once_and_those_that_nobody_has_make_room() {
        let texts = SharedTexts::default();
        let one = texts.share("snom");
        assert!(one.is_same(&texts.share("snom")));
        for number in 0..2 * MOST {
            texts.share(&number.to_string());
        }
        assert!(texts.known.len() <= MOST && one.is_same(&texts.share("snom")));
    }
}

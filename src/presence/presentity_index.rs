//! Index of presentities by number.
//!
//! Every message in a dialog is looked up here, and the presentity has mostly not been used for minutes, so it is not
//! in the processor's cache. The numbers of an account are given out one after the other (`numbering`). They are
//! therefore kept in pages, like the page table of a machine: what leads to the pages stays in the cache, and a
//! lookup costs one cache miss where a hash table costs two.

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::quality::RandomState;

use super::presentity::Presentity;

/// Presentities in a page. A page that holds a single presentity, all others of it gone, takes 512 octets.
pub(super) const PAGE: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct PresentityIndex {
    pages: DashMap<u32, Page, RandomState>,
}

#[derive(Debug)]
struct Page {
    places: Box<[Option<Arc<Presentity>>; PAGE as usize]>,
    /// Number of presentities in the page.
    taken: u32,
}

impl Page {
    fn empty() -> Page {
        Page { places: Box::new([const { None }; PAGE as usize]), taken: 0 }
    }

    fn place(&mut self, number: u32) -> &mut Option<Arc<Presentity>> {
        &mut self.places[(number % PAGE) as usize]
    }
}

impl PresentityIndex {
    /// Returns the presentity with this number.
    pub(super) fn get(&self, number: u32) -> Option<Arc<Presentity>> {
        let page = self.pages.get(&(number / PAGE))?;
        let presentity = page.places[(number % PAGE) as usize].as_ref()?;
        presentity.fetch();
        Some(Arc::clone(presentity))
    }

    /// Returns true if no presentity has a number in the page of this one.
    pub(super) fn is_page_empty(&self, number: u32) -> bool {
        !self.pages.contains_key(&(number / PAGE))
    }

    /// Adds a presentity under its number.
    pub(super) fn insert(&self, presentity: Arc<Presentity>) {
        let number = presentity.number;
        let mut page = self.pages.entry(number / PAGE).or_insert_with(Page::empty);
        if page.place(number).replace(presentity).is_none() {
            page.taken += 1;
        }
    }

    /// Removes the presentity with this number, and its page if that is empty then.
    pub(super) fn remove(&self, number: u32) {
        self.pages.remove_if_mut(&(number / PAGE), |_, page| {
            if page.place(number).take().is_some() {
                page.taken -= 1;
            }
            page.taken == 0
        });
    }

    /// Number of presentities in the index.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pages.iter().map(|page| page.taken as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::{AccountNo, Aor};

    #[test]
    fn a_presentity_is_found_by_its_number_and_pages_go_with_the_last_of_them() {
        let numbers = PresentityIndex::default();
        let all = [1, PAGE - 1, PAGE, 7 * PAGE + 3, u32::MAX];
        for number in all {
            let aor = Aor::of(AccountNo(0), &number.to_string()).unwrap();
            numbers.insert(Arc::new(Presentity::new(number, aor, "acme.test")));
        }
        assert_eq!((numbers.len(), numbers.pages.len()), (5, 4));
        assert!(all.iter().all(|number| numbers.get(*number).unwrap().number == *number));
        assert!([0, 2, 5 * PAGE].iter().all(|number| numbers.get(*number).is_none()));
        for (number, pages) in all.into_iter().zip([4, 3, 2, 1, 0]) {
            numbers.remove(number);
            numbers.remove(number);
            assert!(numbers.get(number).is_none());
            assert_eq!(numbers.pages.len(), pages);
        }
    }
}

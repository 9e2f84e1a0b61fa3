//! Allocation of presentity numbers.
//!
//! Tags, branches and subscription ids contain these numbers, so they must not tell one tenant how busy another is. A
//! counter of all presentities would.
//!
//! Each account draws a page of 64 numbers at a time, which lie together in memory as well, and counts within the
//! page. The order of the pages can be foreseen only with the secret, and no page comes twice before all have been
//! drawn: the order is a permutation of a counter, by a Feistel network of four rounds.

use std::hash::Hasher as _;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::DashSet;
use foldhash::quality::RandomState;
use siphasher::sip::SipHasher13;

use super::presentity_index::PAGE;
use crate::util::per_thread::CachePadded;

/// Bits of half a page number: 26 bits, with the 6 bits of a number within its page, make 32.
const HALF: u32 = 13;

/// Allocator of number pages.
#[derive(Debug)]
pub(super) struct NumberPages {
    secret: [u8; 16],
    drawn: CachePadded<AtomicU32>,
    /// Pages that contain a number of the journal. There are at most as many as the journal had records at the start.
    seen: DashSet<u32, RandomState>,
}

impl NumberPages {
    pub(super) fn new(secret: [u8; 16]) -> NumberPages {
        NumberPages { secret, drawn: CachePadded(AtomicU32::new(0)), seen: DashSet::default() }
    }

    /// Makes sure that the page of this number is never drawn.
    pub(super) fn keep_away_from(&self, number: u32) {
        self.seen.insert(number / PAGE);
    }

    /// Draws the next number of an account.
    ///
    /// `next` is the number after the account's last one, or 0. The caller holds the lock of the account. `is_free`
    /// tells whether a number is unused, `is_empty` whether the page that begins with a number is unused.
    pub(super) fn draw(&self, next: &AtomicU32, is_free: impl Fn(u32) -> bool, is_empty: impl Fn(u32) -> bool) -> u32 {
        loop {
            let mut number = next.load(Relaxed);
            if number.is_multiple_of(PAGE) {
                number = self.page(self.drawn.fetch_add(1, Relaxed)) * PAGE;
                // The first page is not given out, because number 0 means "none" in `next`.
                if number == 0 || self.seen.contains(&(number / PAGE)) || !is_empty(number) {
                    continue;
                }
            }
            next.store(number.wrapping_add(1), Relaxed);
            if is_free(number) {
                return number;
            }
        }
    }

    /// Returns the page for this value of the counter.
    fn page(&self, turn: u32) -> u32 {
        const MASK: u32 = (1 << HALF) - 1;
        let (mut left, mut right) = (turn >> HALF & MASK, turn & MASK);
        for round in 0..4 {
            let mut hasher = SipHasher13::new_with_key(&self.secret);
            hasher.write_u32(round);
            hasher.write_u32(right);
            (left, right) = (right, left ^ (hasher.finish() as u32 & MASK));
        }
        left << HALF | right
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pages_do_not_come_twice_and_do_not_follow_each_other() {
        let numbering = NumberPages::new([7; 16]);
        let pages: Vec<_> = (0..100_000).map(|turn| numbering.page(turn)).collect();
        assert!(pages.iter().all(|page| *page <= u32::MAX / PAGE));
        assert_eq!(pages.iter().collect::<HashSet<_>>().len(), pages.len());
        let near = pages.windows(2).filter(|two| two[0].abs_diff(two[1]) < 1_000).count();
        assert!(near < 100, "{near} of 100,000, where 3 are to be expected");
        assert_ne!(pages[..10], (0..10).map(|turn| NumberPages::new([8; 16]).page(turn)).collect::<Vec<_>>());
    }

    #[test]
    fn an_account_counts_within_its_pages_whatever_others_do() {
        let numbering = NumberPages::new([7; 16]);
        let (one, two) = (AtomicU32::new(0), AtomicU32::new(0));
        let draw = |next| numbering.draw(next, |_| true, |_| true);
        let first = draw(&one);
        for step in 1..PAGE {
            draw(&two);
            assert_eq!(draw(&one), first + step);
        }
        assert_ne!(draw(&one) / PAGE, first / PAGE);
        let taken = one.load(Relaxed);
        assert_eq!(numbering.draw(&one, |number| number > taken, |_| true), taken + 1);
    }
}

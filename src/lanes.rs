//! A piece of something for each thread, so that threads do not write to each other's memory.
//!
//! Whatever two processors write to in turn has to travel between them each time, which costs as much as a look into memory
//! that is far away, be it locked or not. What each thread has a piece of, and hardly anybody looks at as a whole, does
//! not. A piece still has to be locked, since others look at it now and then; the lock is the thread's own nearly always.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that come later than this share what others have.
pub(crate) const LANES: usize = 32;

thread_local! {
    static LANE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

/// One piece for each thread.
#[derive(Debug)]
pub(crate) struct Lanes<T>(Box<[Apart<T>]>);

/// Not in one line of the cache with its neighbour, nor in the one that processors fetch along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T: Default> Default for Lanes<T> {
    fn default() -> Lanes<T> {
        Lanes((0..LANES).map(|_| Apart::default()).collect())
    }
}

impl<T> Lanes<T> {
    /// The piece of this thread.
    pub(crate) fn mine(&self) -> &T {
        &self.0[Self::my_number()].0
    }

    /// The number of the piece of this thread.
    pub(crate) fn my_number() -> usize {
        LANE.with(|lane| *lane)
    }

    /// The piece of this number.
    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.0.get(number).map(|Apart(piece)| piece)
    }

    /// All pieces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Apart(piece)| piece)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn each_thread_has_a_piece_of_its_own_and_all_are_seen() {
        let lanes: Lanes<AtomicU32> = Lanes::default();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..100).for_each(|_| _ = lanes.mine().fetch_add(1, Ordering::Relaxed)));
            }
        });
        assert_eq!(lanes.iter().map(|piece| piece.load(Ordering::Relaxed)).sum::<u32>(), 300);
        assert!(std::ptr::eq(lanes.mine(), lanes.get(Lanes::<AtomicU32>::my_number()).unwrap()));
    }
}

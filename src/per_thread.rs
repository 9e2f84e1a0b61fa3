//! A place of its own for each thread, so that threads do not write to each other's memory.
//!
//! Whatever two processors write to in turn has to travel between them each time, which costs as much as a look into memory
//! that is far away, be it locked or not; and so does all that is in the same line of their caches. What each thread has a
//! place of its own for, and hardly anybody looks at as a whole, does not.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More threads than these share places, which is only slower.
pub(crate) const PLACES: usize = 32;

/// Something that threads write to, away from what they read: neither in one line of the cache with anything else, nor in
/// the one that processors fetch along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Something of which every thread has its own.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[Apart<T>]>);

impl<T: Default> Default for PerThread<T> {
    fn default() -> PerThread<T> {
        PerThread((0..PLACES).map(|_| Apart::default()).collect())
    }
}

/// The place of this thread.
pub(crate) fn my_place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % PLACES);
    // Should the thread be ending, it is a stranger's place: as good as any.
    MINE.try_with(|mine| *mine).unwrap_or_default()
}

impl<T> PerThread<T> {
    /// That of this thread.
    pub(crate) fn mine(&self) -> &T {
        &self.0[my_place()]
    }

    /// That in a place.
    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.0.get(place).map(|apart| &apart.0)
    }

    /// Those of all threads.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn each_thread_has_its_own_and_all_are_seen() {
        let counts: PerThread<AtomicU32> = PerThread::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * PLACES {
                scope.spawn(|| (0..1_000).for_each(|_| _ = counts.mine().fetch_add(1, Relaxed)));
            }
        });
        assert_eq!(counts.iter().map(|count| count.load(Relaxed)).sum::<u32>(), 2_000 * PLACES as u32);
        assert!(std::ptr::eq(counts.mine(), counts.at(my_place()).unwrap()));
    }
}

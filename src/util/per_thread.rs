//! Per-thread slots that avoid false sharing.
//!
//! A cache line that two processors write to moves between them at each write. That costs as much as a cache miss, with
//! or without a lock, and affects everything else in the line. So each thread writes to its own cache-line-aligned
//! slot; a reader, which is rare, visits all slots.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Number of slots. With more threads than this some share a slot: that is slower, but still correct.
pub(crate) const SLOTS: usize = 32;

/// Value that is alone in its cache lines. The alignment is 128 octets, as processors prefetch lines of 64 octets in
/// pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Array with one slot for each thread.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for PerThread<T> {
    fn default() -> PerThread<T> {
        PerThread((0..SLOTS).map(|_| CachePadded::default()).collect())
    }
}

/// Index of the slot of the current thread.
pub(crate) fn thread_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % SLOTS);
    // The thread-local is gone while its thread ends: slot 0 is then as good as any.
    MINE.try_with(|mine| *mine).unwrap_or_default()
}

impl<T> PerThread<T> {
    /// Value of the current thread.
    pub(crate) fn mine(&self) -> &T {
        &self.0[thread_slot()]
    }

    /// Value in a slot; none if there is no slot with that index.
    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.0.get(place).map(|apart| &apart.0)
    }

    /// Values of all threads.
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
            for _ in 0..2 * SLOTS {
                scope.spawn(|| (0..1_000).for_each(|_| _ = counts.mine().fetch_add(1, Relaxed)));
            }
        });
        assert_eq!(counts.iter().map(|count| count.load(Relaxed)).sum::<u32>(), 2_000 * SLOTS as u32);
        assert!(std::ptr::eq(counts.mine(), counts.at(thread_slot()).unwrap()));
    }
}

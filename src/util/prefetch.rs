//! Cache prefetch hints.
//!
//! With a million subscriptions nearly every lookup misses the CPU caches: one miss costs as much as some hundred
//! instructions, and dependent misses add up. So all cache lines that a message will touch are prefetched together, as
//! soon as their addresses are known. These are hints only: they change the time that a result takes, never the result.

use prefetch_index::prefetch_index;

/// One cache line: the unit in which memory is fetched (64 octets).
#[derive(Clone, Copy, Debug)]
struct CacheLine(#[allow(dead_code)] [u8; 64]);

/// Zero-sized marker field for a struct of several cache lines; [`PrefetchMark::prefetch`] prefetches the whole struct from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrefetchMark([CacheLine; 0]);

impl PrefetchMark {
    /// Prefetches all cache lines of the `T` that contains this marker. `behind` is the offset of the marker in the `T`
    /// (octets).
    #[inline(always)]
    pub(crate) fn prefetch<T>(&self, behind: usize) {
        let (before, after) = (behind.div_ceil(64), size_of::<T>().saturating_sub(behind).div_ceil(64));
        (0..before + after).for_each(|line| prefetch_index(&self.0[..], line.wrapping_sub(before)));
    }
}

/// Prefetches the element of a slice at an index. An index beyond the end does nothing.
#[inline(always)]
pub(crate) fn prefetch_element<T>(of: &[T], number: usize) {
    prefetch_index(of, number);
}

/// Prefetches one cache line: the one in which a small value begins.
#[inline(always)]
pub(crate) fn prefetch<T>(small: &T) {
    prefetch_index(std::slice::from_ref(small), 0);
}

/// Prefetches the first 256 octets of a text.
#[inline(always)]
pub(crate) fn prefetch_str(text: &str) {
    (0..text.len().min(256)).step_by(64).for_each(|octet| prefetch_index(text.as_bytes(), octet));
}

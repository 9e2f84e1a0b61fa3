//! Memory that is asked for before it is needed.
//!
//! Among a million subscriptions whatever a message leads to has been looked at minutes ago, and is far away by now: a look
//! at it takes as long as some hundred instructions, and one that leads to another waits for it. So what will be needed
//! is asked for all at once as soon as it is known where it is. This changes nothing but when it comes.

use prefetch_index::prefetch_index;

/// What comes from memory at once.
#[derive(Clone, Copy, Debug)]
struct Line(#[allow(dead_code)] [u8; 64]);

/// Marks a place in something that takes several lines. It takes no room itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines([Line; 0]);

impl Lines {
    /// Asks for all lines of the `T` that this lies in, so many octets behind its beginning.
    #[inline(always)]
    pub(crate) fn fetch<T>(&self, behind: usize) {
        let (before, after) = (behind.div_ceil(64), size_of::<T>().saturating_sub(behind).div_ceil(64));
        (0..before + after).for_each(|line| prefetch_index(&self.0[..], line.wrapping_sub(before)));
    }
}

/// Asks for one of many things.
#[inline(always)]
pub(crate) fn fetch_one<T>(of: &[T], number: usize) {
    prefetch_index(of, number);
}

/// Asks for where something small is.
#[inline(always)]
pub(crate) fn fetch<T>(small: &T) {
    prefetch_index(std::slice::from_ref(small), 0);
}

/// Asks for the first lines of a text.
#[inline(always)]
pub(crate) fn fetch_text(text: &str) {
    (0..text.len().min(256)).step_by(64).for_each(|octet| prefetch_index(text.as_bytes(), octet));
}

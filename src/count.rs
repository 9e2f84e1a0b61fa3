//! Numbers that many threads count up and hardly anybody reads: each thread has its own, so that counting costs an
//! addition; who wants to know adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::per_thread::PerThread;

/// One of the numbers that threads count, of all threads together.
pub(crate) fn sum<T>(counts: &PerThread<T>, number: impl Fn(&T) -> &AtomicU64) -> u64 {
    counts.iter().map(|counts| number(counts).load(Relaxed)).sum()
}

/// Counts one more.
pub fn one_more(number: &AtomicU64) {
    number.fetch_add(1, Relaxed);
}

/// Counts so many more.
pub fn more(number: &AtomicU64, count: usize) {
    number.fetch_add(count as u64, Relaxed);
}

/// How often something was how large: counted as it happens, by upper bounds that the owner knows. The last bucket has none.
#[derive(Debug)]
pub struct Sizes<const N: usize> {
    bounds: &'static [u64],
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Sizes<N> {
    /// With these upper bounds, of which there is one fewer than buckets.
    pub const fn new(bounds: &'static [u64]) -> Sizes<N> {
        assert!(bounds.len() + 1 == N);
        Sizes { bounds, buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }

    /// Counts one of this size.
    pub fn count(&self, size: u64) {
        let place = self.bounds.iter().position(|bound| size <= *bound).unwrap_or(N - 1);
        self.buckets[place].fetch_add(1, Relaxed);
        self.sum.fetch_add(size, Relaxed);
    }

    /// What has been counted so far.
    pub fn read(&self) -> Spread {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Spread { bounds: self.bounds.to_vec(), buckets, sum: self.sum.load(Relaxed) }
    }
}

/// What [`Sizes`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The upper bounds of the buckets but the last.
    pub bounds: Vec<u64>,
    /// How many there were in each.
    pub buckets: Vec<u64>,
    /// All sizes together.
    pub sum: u64,
}

impl Spread {
    /// Adds another one with the same bounds.
    pub fn add(&mut self, other: &Spread) {
        if self.buckets.is_empty() {
            return self.clone_from(other);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_adds_up() {
        let counts = PerThread::<AtomicU64>::default();
        std::thread::scope(|threads| {
            for _ in 0..10 {
                threads.spawn(|| (0..1_000).for_each(|_| one_more(counts.mine())));
            }
        });
        assert_eq!(sum(&counts, |count| count), 10_000);
    }

    #[test]
    fn a_size_falls_into_the_first_bucket_that_holds_it() {
        let sizes = Sizes::<3>::new(&[1, 8]);
        [0, 1, 2, 8, 9, 100].into_iter().for_each(|size| sizes.count(size));
        let mut read = sizes.read();
        assert_eq!((&read.buckets[..], read.sum), (&[2, 2, 2][..], 120));
        read.add(&sizes.read());
        assert_eq!((&read.buckets[..], read.sum), (&[4, 4, 4][..], 240));
    }
}

//! Counters for values that many threads increment and that are rarely read. Each thread has its own copy, so an
//! increment costs one addition without contention; a reader sums the copies.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::util::per_thread::PerThread;

/// Total of one counter over all threads.
pub(crate) fn total<T>(counts: &PerThread<T>, number: impl Fn(&T) -> &AtomicU64) -> u64 {
    counts.iter().map(|counts| number(counts).load(Relaxed)).sum()
}

/// Increments a counter by one.
pub fn increment(number: &AtomicU64) {
    number.fetch_add(1, Relaxed);
}

/// Increments a counter by `count`.
pub fn add(number: &AtomicU64, count: usize) {
    number.fetch_add(count as u64, Relaxed);
}

/// Histogram that is filled while the server runs. Its upper bounds are given by the owner; the last bucket has no
/// bound.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64],
    buckets: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// Creates an empty histogram. There must be one upper bound fewer than buckets (checked at compile time for
    /// statics).
    pub const fn new(bounds: &'static [u64]) -> Histogram<N> {
        assert!(bounds.len() + 1 == N);
        Histogram { bounds, buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }

    /// Counts one observation of this size.
    pub fn count(&self, size: u64) {
        let place = self.bounds.iter().position(|bound| size <= *bound).unwrap_or(N - 1);
        self.buckets[place].fetch_add(1, Relaxed);
        self.sum.fetch_add(size, Relaxed);
    }

    /// Snapshot of the counts so far.
    pub fn read(&self) -> HistogramSnapshot {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        HistogramSnapshot { bounds: self.bounds.to_vec(), buckets, sum: self.sum.load(Relaxed) }
    }
}

/// Snapshot of a [`Histogram`] histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Upper bounds of all buckets but the last.
    pub bounds: Vec<u64>,
    /// Number of observations in each bucket (not cumulative).
    pub buckets: Vec<u64>,
    /// Sum of all observed sizes.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// Adds the counts of another snapshot, which must have the same bounds.
    pub fn add(&mut self, other: &HistogramSnapshot) {
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
                threads.spawn(|| (0..1_000).for_each(|_| increment(counts.mine())));
            }
        });
        assert_eq!(total(&counts, |count| count), 10_000);
    }

    #[test]
    fn a_size_falls_into_the_first_bucket_that_holds_it() {
        let sizes = Histogram::<3>::new(&[1, 8]);
        [0, 1, 2, 8, 9, 100].into_iter().for_each(|size| sizes.count(size));
        let mut read = sizes.read();
        assert_eq!((&read.buckets[..], read.sum), (&[2, 2, 2][..], 120));
        read.add(&sizes.read());
        assert_eq!((&read.buckets[..], read.sum), (&[4, 4, 4][..], 240));
    }
}

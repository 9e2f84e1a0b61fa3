//! Numbers that many threads count up and hardly anybody reads: each thread has a place of its own for them, so that counting
//! costs an addition and no cache line is fought over; who wants to know adds the places up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// More threads than these share places, which is only slower.
const PLACES: usize = 16;

/// The numbers of one thread, far enough from those of the next that they share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place<T>(T);

/// Numbers of which every thread has its own.
#[derive(Debug)]
pub struct PerThread<T>(Box<[Place<T>]>);

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        PerThread((0..PLACES).map(|_| Place::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// Those of this thread.
    pub fn mine(&self) -> &T {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % PLACES);
        // Should the thread be ending, it is a stranger's place: as good as any.
        let place = MINE.try_with(|mine| *mine).unwrap_or_default();
        &self.0[place].0
    }

    /// One of the numbers, of all threads together.
    pub fn sum(&self, number: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.0.iter().map(|place| number(&place.0).load(Relaxed)).sum()
    }
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
            for _ in 0..2 * PLACES {
                threads.spawn(|| (0..1_000).for_each(|_| one_more(counts.mine())));
            }
        });
        assert_eq!(counts.sum(|count| count), 2_000 * PLACES as u64);
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

//! Histogram of latencies with buckets at most 1.6 % wide: its memory is bounded, however many values it counts.

/// Buckets per power of two.
const STEPS: u64 = 64;
const STEPS_BITS: u32 = STEPS.trailing_zeros();

/// Number of occurrences of each latency.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

/// Index of the bucket of a value. Below two times `STEPS` every value has its own bucket; above, the leading bits
/// select it.
fn bucket(value: u64) -> usize {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(STEPS_BITS);
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// Largest value in a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket as u64 / STEPS).saturating_sub(1);
    ((bucket as u64 - shift * STEPS + 1) << shift) - 1
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        let bucket = bucket(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.largest = self.largest.max(value);
    }

    pub(super) fn count(&self) -> u64 {
        self.total
    }

    /// The smallest value that at least this share of all values does not exceed, rounded up by at most 1.6 %.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(i).min(self.largest);
            }
        }
        0
    }

    pub(super) fn largest(&self) -> u64 {
        self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_bucket_that_is_hardly_wider_than_itself() {
        for value in (0..5_000).chain((1..63).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let (b, top) = (bucket(value), upper(bucket(value)));
            assert!(top >= value && top - value <= value / 63, "{value} is in bucket {b} up to {top}");
            assert!(bucket(value + 1) - b <= 1, "no bucket is left out after {value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut h = Histogram::default();
        assert_eq!((h.quantile(0.5), h.largest()), (0, 0));
        (1..=1_000).rev().for_each(|v| h.record(v * 1_000));
        for (share, exact) in [(0.5, 500_000), (0.99, 990_000), (0.999, 999_000), (1.0, 1_000_000)] {
            let got = h.quantile(share);
            assert!(got >= exact && got <= exact + exact / 60, "{share}: {got}");
        }
        assert_eq!(h.count(), 1_000);
    }
}

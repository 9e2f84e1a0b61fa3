//! Counters of the journal.

use std::sync::atomic::AtomicU64;

use super::WriteError;
use crate::util::counters::{Histogram, increment};

/// Bucket bounds for the time of a commit (microseconds): from a battery-backed cache to a disk with errors.
static TIMES: [u64; 13] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];
/// Bucket bounds for the number of records in one commit.
static BATCHES: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];
/// Reasons for refusing an append, in the order of the counters.
pub(super) const REFUSALS: [&str; 5] = ["overloaded", "too_large", "disk", "closed", "rolling_back"];

pub(super) struct Counters {
    pub(super) records: AtomicU64,
    pub(super) octets: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) last_commit_nanos: AtomicU64,
    /// Octets of the current segment.
    pub(super) segment: AtomicU64,
    /// Octets of the segments before it that no snapshot replaces yet.
    pub(super) older_segments: AtomicU64,
    pub(super) snapshot: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) repaired: AtomicU64,
    pub(super) took: Histogram<14>,
    pub(super) batches: Histogram<8>,
    pub(super) refused: [AtomicU64; REFUSALS.len()],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            records: zero(),
            octets: zero(),
            commits: zero(),
            last_commit_nanos: zero(),
            segment: zero(),
            older_segments: zero(),
            snapshot: zero(),
            failures: zero(),
            repaired: zero(),
            took: Histogram::new(&TIMES),
            batches: Histogram::new(&BATCHES),
            refused: Default::default(),
        }
    }
}

impl Counters {
    /// Counts a refused append.
    pub(super) fn refuse(&self, why: &WriteError) {
        let place = match why {
            WriteError::Overloaded => 0,
            WriteError::TooLarge { .. } => 1,
            WriteError::Disk(_) => 2,
            WriteError::Closed => 3,
            WriteError::RollingBack => 4,
        };
        increment(&self.refused[place]);
    }
}

//! Counters of NOTIFYs, SUBSCRIBEs and lamp changes, for the metrics.
//!
//! Each thread counts beside its own part of the history, under the lock that it holds anyway, so that threads do not
//! contend for a counter. The counters are added up when the metrics are read.

use super::history::{Cause, HistoryEvent};
use crate::presence::vendor::Vendor;
pub use crate::transport::TRANSPORTS;
pub(super) use crate::transport::place;

/// Upper bounds of the histogram buckets (ms). One more bucket counts everything slower.
pub const BOUNDS: [u32; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 32_000];
/// Outcomes of a NOTIFY.
pub const OUTCOMES: [&str; 4] = ["acknowledged", "refused", "unanswered", "superseded"];
/// Causes of a lamp change.
pub const CAUSES: [&str; 6] = ["published", "publication_expired", "call_expired", "set", "reset", "rolled_back"];

/// Latency histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    /// Number of values in each bucket; the last bucket has no upper bound.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Sum of all values (ms).
    pub sum: u64,
}

impl LatencyHistogram {
    fn count(&mut self, ms: u32) {
        let place = BOUNDS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[place] += 1;
        self.sum += u64::from(ms);
    }

    fn add(&mut self, other: &LatencyHistogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
    }
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyCounters {
    /// NOTIFYs by vendor number of the phone, [`TRANSPORTS`] and [`OUTCOMES`].
    pub notifies: [[[u64; OUTCOMES.len()]; TRANSPORTS.len()]; Vendor::COUNT],
    /// Retransmissions of NOTIFYs, including new NOTIFYs that were sent in place of a retransmission.
    pub copies: u64,
    /// Time from a NOTIFY to the response that acknowledges it, by vendor number of the phone.
    pub delays: [LatencyHistogram; Vendor::COUNT],
    /// Time from a change of a lamp until a phone has acknowledged it.
    pub lamp_delays: LatencyHistogram,
    /// SUBSCRIBEs that were granted a lifetime, and SUBSCRIBEs that ended a subscription.
    pub subscribed: [u64; 2],
    /// Lamp changes by [`CAUSES`].
    pub changes: [u64; CAUSES.len()],
}

impl NotifyCounters {
    pub(super) fn count(&mut self, note: &HistoryEvent) {
        match *note {
            HistoryEvent::Subscribed { granted, .. } => self.subscribed[usize::from(granted == 0)] += 1,
            HistoryEvent::Changed { cause, .. } => self.changes[cause as usize] += 1,
            HistoryEvent::Notified { reply, copies, transport, family, delay, .. } => {
                let outcome = match reply {
                    0 => 3,
                    408 => 2,
                    200..300 => 0,
                    _ => 1,
                };
                self.notifies[family.number()][place(transport)][outcome] += 1;
                // A superseded NOTIFY passes its count on to its successor.
                if reply != 0 {
                    self.copies += u64::from(copies);
                }
                if outcome == 0 {
                    self.delays[family.number()].count(delay);
                }
            }
        }
    }

    pub(super) fn count_lamp(&mut self, ms: u32) {
        self.lamp_delays.count(ms);
    }

    pub(super) fn add(&mut self, other: &NotifyCounters) {
        let notifies = self.notifies.as_flattened_mut().iter_mut().zip(other.notifies.as_flattened());
        for (sums, more) in notifies {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.copies += other.copies;
        self.delays.iter_mut().zip(&other.delays).for_each(|(sum, more)| sum.add(more));
        self.lamp_delays.add(&other.lamp_delays);
        self.subscribed.iter_mut().zip(other.subscribed).for_each(|(sum, more)| *sum += more);
        self.changes.iter_mut().zip(other.changes).for_each(|(sum, more)| *sum += more);
    }
}

/// [`CAUSES`] must be in the order of [`Cause`].
const _: () = assert!(Cause::RolledBack as usize == CAUSES.len() - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_the_first_bucket_that_holds_them() {
        let mut delays = LatencyHistogram::default();
        for ms in [0, 5, 6, 32_000, 32_001] {
            delays.count(ms);
        }
        assert_eq!((delays.buckets[0], delays.buckets[1], delays.buckets[10], delays.buckets[11]), (2, 1, 1, 1));
        assert_eq!(delays.sum, 64_012);
    }
}

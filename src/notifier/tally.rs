//! Counts for an operator's graphs. They live in the shards of the history and are counted under their locks, so that no
//! counter is fought over; they are put together when somebody asks.

use super::history::{Cause, Note};
use crate::presence::family::Family;
pub use crate::transport::TRANSPORTS;
pub(super) use crate::transport::place;

/// The upper bounds of the histograms' buckets (ms); what is slower goes into one more.
pub const BOUNDS: [u32; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 32_000];
/// What becomes of them.
pub const OUTCOMES: [&str; 4] = ["acknowledged", "refused", "unanswered", "superseded"];
/// Why lamps change.
pub const CAUSES: [&str; 6] = ["published", "publication_expired", "call_expired", "set", "reset", "rolled_back"];

/// How long something took, by buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// How many fell into each bucket, the one without a bound last.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All of them together (ms).
    pub sum: u64,
}

impl Delays {
    fn count(&mut self, ms: u32) {
        let place = BOUNDS.iter().position(|bound| ms <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[place] += 1;
        self.sum += u64::from(ms);
    }

    fn add(&mut self, other: &Delays) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
    }
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// NOTIFYs by the number of the phone's family, [`TRANSPORTS`] and [`OUTCOMES`].
    pub notifies: [[[u64; OUTCOMES.len()]; TRANSPORTS.len()]; Family::COUNT],
    /// Copies of NOTIFYs, and NOTIFYs in their place, that left for want of an answer.
    pub copies: u64,
    /// From a NOTIFY to the answer that acknowledges it, by the number of the phone's family.
    pub delays: [Delays; Family::COUNT],
    /// From a change of a lamp until a phone has acknowledged it.
    pub lamp_delays: Delays,
    /// SUBSCRIBEs that were granted a time, and those that ended a subscription.
    pub subscribed: [u64; 2],
    /// Changes of lamps by [`CAUSES`].
    pub changes: [u64; CAUSES.len()],
}

impl Tally {
    pub(super) fn count(&mut self, note: &Note) {
        match *note {
            Note::Subscribed { granted, .. } => self.subscribed[usize::from(granted == 0)] += 1,
            Note::Changed { cause, .. } => self.changes[cause as usize] += 1,
            Note::Notified { reply, copies, transport, family, delay, .. } => {
                let outcome = match reply {
                    0 => 3,
                    408 => 2,
                    200..300 => 0,
                    _ => 1,
                };
                self.notifies[family.number()][place(transport)][outcome] += 1;
                // Of one that was superseded, its successor goes on counting.
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

    pub(super) fn add(&mut self, other: &Tally) {
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

/// The order of [`CAUSES`] is that of [`Cause`].
const _: () = assert!(Cause::RolledBack as usize == CAUSES.len() - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_the_first_bucket_that_holds_them() {
        let mut delays = Delays::default();
        for ms in [0, 5, 6, 32_000, 32_001] {
            delays.count(ms);
        }
        assert_eq!((delays.buckets[0], delays.buckets[1], delays.buckets[10], delays.buckets[11]), (2, 1, 1, 1));
        assert_eq!(delays.sum, 64_012);
    }
}

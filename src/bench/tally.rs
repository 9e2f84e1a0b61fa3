//! Counters and violations of a scenario.

use std::collections::BTreeMap;

use super::histogram::Histogram;

/// Violations by name, with their number and the first one in detail.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(BTreeMap<&'static str, (u64, String)>);

impl Faults {
    /// Records a violation; `detail` is called only for the first of its kind.
    pub(super) fn note(&mut self, what: &'static str, detail: impl FnOnce() -> String) {
        self.0.entry(what).or_insert_with(|| (0, detail())).0 += 1;
    }

    /// Adds the violations of another set.
    pub(super) fn merge(&mut self, other: &Faults) {
        for (what, (count, detail)) in &other.0 {
            self.0.entry(what).or_insert_with(|| (0, detail.clone())).0 += count;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64, &str)> {
        self.0.iter().map(|(what, (count, detail))| (*what, *count, &**detail))
    }
}

/// Counters of one scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Successful requests.
    pub(super) done: u64,
    /// Failed requests.
    pub(super) failed: u64,
    /// Requests without any response, among the failed ones.
    pub(super) lost: u64,
    /// Time from a request to its response (ns).
    pub(super) answer: Histogram,
    /// Time from a SUBSCRIBE to its NOTIFY, or from a PUBLISH to each NOTIFY with its state (ns).
    pub(super) notify: Histogram,
    /// Retransmitted requests.
    pub(super) repeated: u64,
    /// NOTIFYs, without retransmissions.
    pub(super) notifies: u64,
    /// Retransmissions of NOTIFYs.
    pub(super) notify_copies: u64,
    /// NOTIFYs that brought a new step to a watcher.
    pub(super) news: u64,
    /// Steps that a watcher never received because a newer one replaced them: allowed, and good under load.
    pub(super) overtaken: u64,
    /// NOTIFYs that never arrived, by the gap in CSeq; a violation unless the kernel has dropped datagrams.
    pub(super) missed: u64,
    /// Answered challenges.
    pub(super) challenges: u64,
    /// Responses by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Time of the last counted event (ns).
    pub(super) last: u64,
    /// Violations.
    pub(super) faults: Faults,
}

impl Tally {
    /// Number of responses with a status of 500 to 599.
    pub(super) fn server_errors(&self) -> u64 {
        self.statuses.range(500..600).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_of_a_kind_is_told_in_detail() {
        let mut faults = Faults::default();
        faults.note("b", || "first".into());
        faults.note("b", || "second".into());
        let mut sum = Faults::default();
        sum.merge(&faults);
        sum.merge(&faults);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [("b", 4, "first")]);
    }

    #[test]
    fn server_errors_are_the_five_hundreds() {
        let statuses = [(200, 5), (480, 1), (500, 2), (503, 3), (603, 7)].into_iter().collect();
        assert_eq!(Tally { statuses, ..Tally::default() }.server_errors(), 5);
    }
}

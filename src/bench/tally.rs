//! What is counted while a scenario runs, and what was wrong.

use std::collections::BTreeMap;

use super::histogram::Histogram;

/// Everything that a server must not do, by name, with how often and the first time in detail.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(BTreeMap<&'static str, (u64, String)>);

impl Faults {
    /// Notes one; `detail` is asked for at the first of its kind only.
    pub(super) fn note(&mut self, what: &'static str, detail: impl FnOnce() -> String) {
        self.0.entry(what).or_insert_with(|| (0, detail())).0 += 1;
    }

    /// Adds those of another.
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

/// Counts of one scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Requests that ended as they should.
    pub(super) done: u64,
    /// Requests that did not.
    pub(super) failed: u64,
    /// Requests without any answer, of those that failed.
    pub(super) lost: u64,
    /// From a request to its answer (ns).
    pub(super) answer: Histogram,
    /// From a SUBSCRIBE to its NOTIFY, or from a PUBLISH to each NOTIFY that tells of it (ns).
    pub(super) notify: Histogram,
    /// Requests sent again.
    pub(super) repeated: u64,
    /// NOTIFYs, without copies.
    pub(super) notifies: u64,
    /// Copies of NOTIFYs.
    pub(super) notify_copies: u64,
    /// NOTIFYs that told a watcher of a new step.
    pub(super) news: u64,
    /// Steps that a watcher was never told of because a newer one was there already: allowed, and good under load.
    pub(super) overtaken: u64,
    /// NOTIFYs that never arrived, by the gap in CSeq; a fault unless the kernel has dropped datagrams.
    pub(super) missed: u64,
    /// Challenges answered.
    pub(super) challenges: u64,
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// When the last of all this happened (ns).
    pub(super) last: u64,
    /// What was wrong.
    pub(super) faults: Faults,
}

impl Tally {
    /// Answers with a status of 500 to 599.
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

//! Measurement of how long lamps are wrong.

use super::phone::Phone;
use super::truth::Truth;

/// Counters of a storm.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Total time during which lamps differed from the true state, summed over all lamps (ms).
    pub wrong: u64,
    /// Longest time during which one lamp differed (ms).
    pub longest: u64,
    /// Number of times that a lamp differed from the true state.
    pub times: u64,
    /// Call changes made by publishers.
    pub events: u64,
    /// NOTIFYs sent by the server, retransmissions included.
    pub notifies: u64,
    /// Crashes of the server.
    pub crashes: u64,
    /// Commits that the journal refused.
    pub refused: u64,
    since: Vec<Vec<Option<u64>>>,
}

impl Tally {
    /// Counters at zero, for these phones.
    pub fn new(phones: &[Phone]) -> Tally {
        Tally { since: phones.iter().map(|phone| vec![None; phone.watches.len()]).collect(), ..Tally::default() }
    }

    /// Compares a lamp with the true state, either of which may have changed. A lamp that has received no NOTIFY yet
    /// is not wrong.
    pub fn look(&mut self, now: u64, phone: &Phone, at: usize, truth: &Truth) {
        let watch = &phone.watches[at];
        let leg = watch.leg.as_ref().filter(|leg| leg.established && !leg.leaving);
        let screen = leg.and_then(|leg| leg.screen.as_ref());
        let wrong = screen.is_some_and(|screen| *screen != truth.lamp(watch.presentity, watch.package));
        let since = &mut self.since[phone.number][at];
        match (*since, wrong) {
            (None, true) => *since = Some(now),
            (Some(start), false) => {
                *since = None;
                self.add(now - start);
            }
            _ => {}
        }
    }

    /// Ends the measurement: a lamp that is still wrong counts until now.
    pub fn close(&mut self, now: u64) {
        for start in std::mem::take(&mut self.since).into_iter().flatten().flatten() {
            self.add(now - start);
        }
    }

    fn add(&mut self, ms: u64) {
        self.wrong += ms;
        self.times += 1;
        self.longest = self.longest.max(ms);
    }
}

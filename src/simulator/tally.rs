//! Measuring for how long lamps are wrong.

use super::phone::Phone;
use super::truth::Truth;

/// What a storm amounts to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// For how long lamps showed something else than the truth, all lamps together (ms).
    pub wrong: u64,
    /// The longest time that one lamp did (ms).
    pub longest: u64,
    /// How often a lamp was behind the truth.
    pub times: u64,
    /// Changes of calls that publishers made.
    pub events: u64,
    /// NOTIFYs that the server sent, repetitions included.
    pub notifies: u64,
    /// How often the server crashed.
    pub crashes: u64,
    /// How often the journal refused a commit.
    pub refused: u64,
    since: Vec<Vec<Option<u64>>>,
}

impl Tally {
    /// Nothing has happened yet to these phones.
    pub fn new(phones: &[Phone]) -> Tally {
        Tally { since: phones.iter().map(|phone| vec![None; phone.watches.len()]).collect(), ..Tally::default() }
    }

    /// A lamp or the truth about it may have changed. A lamp that has not been lit yet is not wrong.
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

    /// The storm is over: what is still wrong counts until now.
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

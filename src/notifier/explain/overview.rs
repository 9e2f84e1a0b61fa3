//! Overview of an account, and its exchanges of the last minutes. They are counted from the history on request, so that
//! no counters have to be kept.

use std::collections::HashSet;

use super::lamp::shown;
use super::report::{Bucket, LampState, Overview};
use super::standing_of_all;
use crate::directory::AccountNo;
use crate::notifier::Notifier;
use crate::notifier::history::HistoryEvent;
use crate::presence::Tick;

/// Length of a bucket (ms).
const BUCKET: u64 = 5_000;
/// Number of buckets: five minutes in total.
const BUCKETS: usize = 60;

impl Notifier {
    /// Overview of an account.
    pub fn overview(&self, now: Tick, account: AccountNo) -> Overview {
        // Buckets begin at multiples of their length, so that a bucket is the same in two responses.
        let from = Tick((now.0 / BUCKET + 1).saturating_sub(BUCKETS as u64) * BUCKET);
        let mut numbers = HashSet::new();
        let mut overview = Overview { from_at: from.0, bucket_ms: BUCKET, ..Overview::default() };
        for presentity in self.table.of_account(account) {
            numbers.insert(presentity.number);
            let state = presentity.lock();
            let picture = state.composed(&presentity.uri);
            overview.extensions += 1;
            overview.publications += state.publications.len();
            overview.calls += state.calls.live().max(picture.calls.len());
            let states = &mut overview.states;
            match shown(&picture) {
                LampState::Idle | LampState::Unknown => states.idle += 1,
                LampState::Ringing => states.ringing += 1,
                LampState::Calling => states.calling += 1,
                LampState::Talking => states.talking += 1,
                LampState::Held => states.held += 1,
            }
            let (watchers, behind, failing) = standing_of_all(&state);
            overview.subscriptions += watchers;
            overview.behind += behind;
            overview.failing += failing;
        }
        overview.buckets = self.buckets(from, &numbers);
        overview.complete_from = self.history.complete_since().filter(|at| *at > from).map(|at| at.0);
        overview
    }

    fn buckets(&self, from: Tick, numbers: &HashSet<u32>) -> Vec<Bucket> {
        let mut buckets = vec![Bucket::default(); BUCKETS];
        let mut delays: Vec<Vec<u32>> = vec![Vec::new(); BUCKETS];
        self.history.visit(
            from,
            |number| numbers.contains(&number),
            |entry| {
                let place = ((entry.at.0 - from.0) / BUCKET) as usize;
                let Some(bucket) = buckets.get_mut(place) else { return };
                match entry.note {
                    HistoryEvent::Changed { .. } => bucket.changes += 1,
                    HistoryEvent::Subscribed { .. } => bucket.subscribed += 1,
                    HistoryEvent::Notified { reply: 0, .. } => bucket.superseded += 1,
                    HistoryEvent::Notified { reply, delay, .. } if reply < 300 => {
                        bucket.acknowledged += 1;
                        delays[place].push(delay);
                    }
                    HistoryEvent::Notified { .. } => bucket.failed += 1,
                }
            },
        );
        for (bucket, delays) in buckets.iter_mut().zip(&mut delays) {
            delays.sort_unstable();
            let at = |hundredths: usize| delays.get(delays.len().saturating_sub(1) * hundredths / 100).copied();
            (bucket.delay_ms, bucket.delay_95_ms) = (at(50), at(95));
        }
        buckets
    }
}

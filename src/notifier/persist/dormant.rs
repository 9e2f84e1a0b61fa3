//! Dormant records: records of the journal that this run cannot use. Their account, listener or event package is not
//! configured now, or a later version wrote them.
//!
//! They stay in the journal unchanged, through every compaction, and their numbers and slots are not given to
//! anything else. So they can be used again when a later start has the account again; or they are dropped when they
//! expire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::{ACKNOWLEDGED, PersistedRecord, STATE_SLOT, acknowledged_key};
use crate::journal::Key;
use crate::presence::Tick;
use crate::presence::publication::REMOVED_LASTS;

/// A record that is kept unchanged.
#[derive(Clone, Debug)]
pub(super) struct DormantRecord {
    pub(super) value: Bytes,
    /// Id of the account; empty if it cannot be read.
    pub(super) account: String,
    pub(super) user: String,
    /// Expiry; `None` if the record never expires.
    pub(super) until: Option<Tick>,
}

impl DormantRecord {
    /// Creates a dormant record from a value, which may not be readable. `max_expires` is the longest lifetime that
    /// is granted (seconds).
    pub(super) fn new(now: Tick, value: Bytes, kept: Option<PersistedRecord>, max_expires: u32) -> DormantRecord {
        let unknown = (String::new(), String::new(), None);
        let (account, user, until) = match kept {
            Some(PersistedRecord::State(state)) => {
                let publications = state.publications.iter().map(|p| p.ends(now, max_expires));
                let removed = state.removed.as_ref().and_then(|removed| removed.last_deadline());
                // Removed publications are remembered for a while, because requests for them may be retransmitted.
                let removed = removed.map(|until| until.min(now.after(REMOVED_LASTS)));
                // A state set by hand holds until it is set again, so it never expires.
                let until = state.manual.is_none().then(|| publications.chain(removed).max().unwrap_or(now));
                (state.account, state.user, until)
            }
            Some(PersistedRecord::Subscription(kept)) => {
                let until = kept.ends(now);
                (kept.account, kept.user, Some(until))
            }
            Some(PersistedRecord::EndedSubscription(ended)) => (ended.account, ended.user, Some(ended.until)),
            Some(PersistedRecord::Acknowledged(_) | PersistedRecord::Starts(_)) | None => unknown,
        };
        DormantRecord { value, account, user, until }
    }
}

/// All dormant records.
#[derive(Debug)]
pub(in super::super) struct Dormant {
    records: Mutex<BTreeMap<Key, DormantRecord>>,
    /// Earliest expiry (ms); `u64::MAX` if no record expires.
    next_end: AtomicU64,
}

impl Default for Dormant {
    fn default() -> Dormant {
        Dormant { records: Mutex::default(), next_end: AtomicU64::new(u64::MAX) }
    }
}

/// Dormant records that have expired.
pub(super) struct Ended {
    /// Keys of the expired records, and of the acknowledgements that belong to them.
    pub(super) keys: Vec<Key>,
    /// Numbers of presentities without any dormant record left.
    pub(super) numbers: Vec<u32>,
    /// Number of expired records, by account.
    pub(super) accounts: BTreeMap<String, usize>,
}

impl Dormant {
    /// Replaces all dormant records.
    pub(super) fn fill(&self, records: BTreeMap<Key, DormantRecord>) {
        let mut all = self.records.lock();
        *all = records;
        self.note_next_end(&all);
    }

    /// Returns the number of dormant records.
    pub(super) fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Passes each record to the writer of a compaction.
    pub(super) fn for_each(&self, mut each: impl FnMut(Key, Bytes)) {
        let all: Vec<_> = self.records.lock().iter().map(|(key, record)| (*key, record.value.clone())).collect();
        all.into_iter().for_each(|(key, value)| each(key, value));
    }

    /// Returns the earliest expiry.
    pub(super) fn next_end(&self) -> Option<Tick> {
        Some(Tick(self.next_end.load(Ordering::Relaxed))).filter(|at| at.0 < u64::MAX)
    }

    /// Takes out the expired records; `None` if there are none.
    pub(super) fn take_ended(&self, now: Tick) -> Option<Ended> {
        if now.0 < self.next_end.load(Ordering::Relaxed) {
            return None;
        }
        let mut all = self.records.lock();
        let mut ended = Ended { keys: Vec::new(), numbers: Vec::new(), accounts: BTreeMap::new() };
        // The state record holds the revisions, which show if a phone has the current state. So it stays as long as
        // any subscription of its presentity.
        let mut needed: BTreeMap<u64, Tick> = BTreeMap::new();
        for (Key(number, _), record) in all.iter().filter(|(Key(_, slot), _)| *slot != STATE_SLOT) {
            let until = needed.entry(*number).or_default();
            *until = (*until).max(record.until.unwrap_or_default());
        }
        for (number, until) in needed {
            if let Some(state) = all.get_mut(&Key(number, STATE_SLOT)) {
                state.until = state.until.map(|own| own.max(until));
            }
        }
        let over = |record: &DormantRecord| record.until.is_some_and(|until| until <= now);
        let gone: Vec<_> = all.extract_if(.., |_, record| over(record)).collect();
        for (key, record) in gone {
            ended.keys.push(key);
            *ended.accounts.entry(record.account).or_default() += 1;
            let Key(number, slot) = key;
            let acknowledged = acknowledged_key(number as u32, slot);
            if slot != STATE_SLOT && all.remove(&acknowledged).is_some() {
                ended.keys.push(acknowledged);
            }
        }
        let of_number = |all: &BTreeMap<Key, DormantRecord>, number: u64| {
            [number, number | ACKNOWLEDGED].iter().any(|n| all.range(Key(*n, 0)..=Key(*n, u32::MAX)).next().is_some())
        };
        let mut numbers: Vec<u32> = ended.keys.iter().map(|Key(number, _)| *number as u32).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.retain(|number| !of_number(&all, u64::from(*number)));
        ended.numbers = numbers;
        self.note_next_end(&all);
        Some(ended).filter(|ended| !ended.keys.is_empty())
    }

    fn note_next_end(&self, all: &BTreeMap<Key, DormantRecord>) {
        let next = all.values().filter_map(|record| record.until).min();
        self.next_end.store(next.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }
}

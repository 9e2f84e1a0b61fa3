//! Dormant records: what the journal has and this run cannot use, because the account, the listener or the package that it
//! belongs to is not configured now, or because a later version wrote it.
//!
//! They stay in the journal as they are, through every compaction, and their numbers and slots are given to nothing else.
//! So all of it is whole again when the account comes back with a later start; or it ends when its time is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::{ACKNOWLEDGED, Kept, STATE, acknowledged_key};
use crate::journal::Key;
use crate::presence::Tick;
use crate::presence::publication::REMOVED_LASTS;

/// A record that is kept as it is.
#[derive(Clone, Debug)]
pub(super) struct DormantRecord {
    pub(super) value: Bytes,
    /// Whose it is; empty where that cannot be read.
    pub(super) account: String,
    pub(super) user: String,
    /// When its time is over; none for what has no end of its own.
    pub(super) until: Option<Tick>,
}

impl DormantRecord {
    /// Of a value that may be read or not. `max_expires`: the longest lifetime that is granted (seconds).
    pub(super) fn new(now: Tick, value: Bytes, kept: Option<Kept>, max_expires: u32) -> DormantRecord {
        let unknown = (String::new(), String::new(), None);
        let (account, user, until) = match kept {
            Some(Kept::State(state)) => {
                let publications = state.publications.iter().map(|p| p.ends(now, max_expires));
                let removed = state.removed.as_ref().and_then(|removed| removed.last_deadline());
                // Requests on what is gone may be repeated for a while.
                let removed = removed.map(|until| until.min(now.after(REMOVED_LASTS)));
                // What was set by hand holds until it is set anew.
                let until = state.manual.is_none().then(|| publications.chain(removed).max().unwrap_or(now));
                (state.account, state.user, until)
            }
            Some(Kept::Subscription(kept)) => {
                let until = kept.ends(now);
                (kept.account, kept.user, Some(until))
            }
            Some(Kept::EndedSubscription(ended)) => (ended.account, ended.user, Some(ended.until)),
            Some(Kept::Acknowledged(_) | Kept::Starts(_)) | None => unknown,
        };
        DormantRecord { value, account, user, until }
    }
}

/// All dormant records.
#[derive(Debug)]
pub(in super::super) struct Dormant {
    records: Mutex<BTreeMap<Key, DormantRecord>>,
    /// When the first of them ends, in ms; the greatest number if none does.
    next_end: AtomicU64,
}

impl Default for Dormant {
    fn default() -> Dormant {
        Dormant { records: Mutex::default(), next_end: AtomicU64::new(u64::MAX) }
    }
}

/// Dormant records whose time is over.
pub(super) struct Ended {
    /// Their keys, and those of what goes with them.
    pub(super) keys: Vec<Key>,
    /// Presentity numbers of which nothing dormant is left.
    pub(super) numbers: Vec<u32>,
    /// How many there were of each account.
    pub(super) accounts: BTreeMap<String, usize>,
}

impl Dormant {
    /// Keeps these from now on.
    pub(super) fn fill(&self, records: BTreeMap<Key, DormantRecord>) {
        let mut all = self.records.lock();
        *all = records;
        self.note_next_end(&all);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Hands each of them to the writer of a compaction.
    pub(super) fn for_each(&self, mut each: impl FnMut(Key, Bytes)) {
        let all: Vec<_> = self.records.lock().iter().map(|(key, record)| (*key, record.value.clone())).collect();
        all.into_iter().for_each(|(key, value)| each(key, value));
    }

    /// When the first of them ends.
    pub(super) fn next_end(&self) -> Option<Tick> {
        Some(Tick(self.next_end.load(Ordering::Relaxed))).filter(|at| at.0 < u64::MAX)
    }

    /// Takes out those whose time is over; none if there are none.
    pub(super) fn take_ended(&self, now: Tick) -> Option<Ended> {
        if now.0 < self.next_end.load(Ordering::Relaxed) {
            return None;
        }
        let mut all = self.records.lock();
        let mut ended = Ended { keys: Vec::new(), numbers: Vec::new(), accounts: BTreeMap::new() };
        // Revisions are with the state, and say what phones know: it stays for as long as a subscription does.
        let mut needed: BTreeMap<u64, Tick> = BTreeMap::new();
        for (Key(number, _), record) in all.iter().filter(|(Key(_, slot), _)| *slot != STATE) {
            let until = needed.entry(*number).or_default();
            *until = (*until).max(record.until.unwrap_or_default());
        }
        for (number, until) in needed {
            if let Some(state) = all.get_mut(&Key(number, STATE)) {
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
            if slot != STATE && all.remove(&acknowledged).is_some() {
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

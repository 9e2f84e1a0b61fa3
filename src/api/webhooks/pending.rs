//! Changes that one receiver has still to be notified of; a lamp or subscription that changes several times is listed
//! once.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::notifier::change_feed::Changed;

/// Most changes waiting for one receiver; beyond that it is asked to reload everything.
const MOST: usize = 10_000;

/// Queue of one receiver.
#[derive(Debug)]
pub(super) struct Pending {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug)]
struct State {
    things: VecDeque<Changed>,
    there: HashSet<Changed>,
    reset: bool,
    coalesced: u64,
}

/// Content of one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) things: Vec<Changed>,
    /// True if changes were lost that are not listed.
    pub(super) reset: bool,
    /// Number of changes replaced by later changes of the same lamp or subscription.
    pub(super) coalesced: u64,
}

impl Pending {
    /// Changes before the start of the server are not known, so the first delivery asks for a reload.
    pub(super) fn new() -> Pending {
        let state = State { things: VecDeque::new(), there: HashSet::new(), reset: true, coalesced: 0 };
        Pending { state: Mutex::new(state), news: Notify::new() }
    }

    /// Adds a change.
    pub(super) fn add(&self, changed: &Changed) {
        let mut state = self.state.lock();
        if state.there.contains(changed) {
            state.coalesced += 1;
        } else if state.things.len() >= MOST {
            state.lose_all();
        } else {
            state.there.insert(changed.clone());
            state.things.push_back(changed.clone());
        }
        drop(state);
        self.news.notify_one();
    }

    /// Records that changes were lost.
    pub(super) fn reset(&self) {
        self.state.lock().lose_all();
        self.news.notify_one();
    }

    /// Number of changes that wait.
    pub(super) fn len(&self) -> usize {
        self.state.lock().things.len()
    }

    /// Waits until there is something to deliver.
    pub(super) async fn wait(&self) {
        while self.is_empty() {
            self.news.notified().await;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.things.is_empty() && !state.reset
    }

    /// Takes at most `most` changes.
    pub(super) fn take(&self, most: usize) -> Batch {
        let mut state = self.state.lock();
        let many = state.things.len().min(most);
        let things: Vec<_> = state.things.drain(..many).collect();
        for thing in &things {
            state.there.remove(thing);
        }
        let State { reset, coalesced, .. } = &mut *state;
        Batch { things, reset: std::mem::take(reset), coalesced: std::mem::take(coalesced) }
    }

    /// Puts back an undelivered batch if any of it has changed again or changes were lost; the next delivery then
    /// reports the current state. Returns false if neither is so: then the same delivery can be sent again.
    pub(super) fn put_back(&self, batch: &Batch) -> bool {
        let mut state = self.state.lock();
        let overtaken = batch.things.iter().filter(|thing| state.there.contains(thing)).count();
        if overtaken == 0 && !state.reset {
            return false;
        }
        if state.things.len() + batch.things.len() - overtaken > MOST {
            state.lose_all();
        } else {
            for thing in batch.things.iter().rev() {
                if state.there.insert(thing.clone()) {
                    state.things.push_front(thing.clone());
                }
            }
        }
        state.reset |= batch.reset;
        state.coalesced += batch.coalesced + overtaken as u64;
        true
    }
}

impl State {
    fn lose_all(&mut self) {
        self.coalesced += self.things.len() as u64;
        self.things.clear();
        self.there.clear();
        self.reset = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::presence::AccountNo;

    fn lamp(n: usize) -> Changed {
        Changed { account: AccountNo(0), uri: Arc::from(format!("sip:{n}@acme.test")), subscription: None }
    }

    /// A queue without the initial reset.
    fn begun() -> Pending {
        let pending = Pending::new();
        assert_eq!(pending.take(10), Batch { reset: true, ..Batch::default() });
        assert!(pending.is_empty());
        pending
    }

    #[test]
    fn a_thing_waits_once_however_often_it_changes() {
        let pending = begun();
        for n in [1, 2, 1, 1] {
            pending.add(&lamp(n));
        }
        assert_eq!(pending.take(1), Batch { things: vec![lamp(1)], reset: false, coalesced: 2 });
        assert_eq!(pending.take(9), Batch { things: vec![lamp(2)], reset: false, coalesced: 0 });
    }

    #[test]
    fn what_failed_goes_out_again_as_it_was_or_as_it_is_now() {
        let pending = begun();
        pending.add(&lamp(1));
        pending.add(&lamp(2));
        let batch = pending.take(9);
        pending.add(&lamp(3));
        assert!(!pending.put_back(&batch), "nothing of it has changed");
        pending.add(&lamp(2));
        assert!(pending.put_back(&batch));
        assert_eq!(pending.take(9), Batch { things: vec![lamp(1), lamp(3), lamp(2)], reset: false, coalesced: 1 });
    }

    #[test]
    fn too_much_is_told_by_a_reset() {
        let pending = begun();
        for n in 0..=MOST {
            pending.add(&lamp(n));
        }
        assert_eq!((pending.len(), pending.is_empty()), (0, false));
        let batch = pending.take(9);
        assert_eq!(batch, Batch { things: vec![], reset: true, coalesced: MOST as u64 });
        pending.reset();
        assert!(pending.put_back(&batch), "a reset goes before what was to be said");
    }
}

//! Which request of the API did what: so that a NOTIFY can be followed back to it.
//!
//! The history has no room for names. What was done by hand is rare beside all else, so the latest of it stands in a list of
//! its own, and is found by its moment when a story is told.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Notifier;
use super::history::{Cause, Entry, Note};
use crate::directory::AccountNo;
use crate::presence::subscription::Place;
use crate::presence::{Aor, Tick};

/// The most deeds that are remembered, of all accounts together.
const MOST: usize = 4_096;
/// The most of a request's id that is kept (octets); the API takes over no longer one.
const MAX_ID: usize = 128;

/// Something that a request has done.
#[derive(Clone, Debug)]
struct Deed {
    at: Tick,
    presentity: u32,
    /// Slot and nonce of the subscription; none for all of the presentity.
    only: Option<(u32, u64)>,
    request: Arc<str>,
}

/// The latest deeds, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deeds(Mutex<VecDeque<Deed>>);

impl Deeds {
    fn note(&self, deed: Deed) {
        let mut deeds = self.0.lock();
        if deeds.len() == MOST {
            deeds.pop_front();
        }
        deeds.push_back(deed);
    }

    fn of(&self, presentity: u32) -> Vec<Deed> {
        self.0.lock().iter().filter(|deed| deed.presentity == presentity).cloned().collect()
    }
}

/// What has set off NOTIFYs of a presentity's watchers, in order.
pub(super) struct Reasons(Vec<Reason>);

struct Reason {
    at: Tick,
    only: Option<(u32, u64)>,
    /// None if no request was behind it.
    request: Option<Arc<str>>,
}

impl Reasons {
    /// The request that changed a lamp at this moment.
    pub(super) fn of_change(&self, at: Tick) -> Option<String> {
        let found = self.0.iter().find(|reason| reason.at == at && reason.only.is_none())?;
        found.request.as_deref().map(String::from)
    }

    /// The request that is behind a NOTIFY that left at `sent`, where that is certain: it was the last to set one off since
    /// `since`, when the phone was last spoken to or asked.
    pub(super) fn of_notify(&self, place: Place, since: Tick, sent: Tick) -> Option<String> {
        let mine = |only: Option<(u32, u64)>| only.is_none_or(|only| only == (place.slot, place.nonce));
        let last = self.0.iter().rev().find(|reason| reason.at <= sent && mine(reason.only))?;
        last.request.as_deref().filter(|_| last.at > since).map(String::from)
    }
}

impl Notifier {
    /// The latest resets and sets of an extension were the work of this request.
    pub fn attribute_change(&self, now: Tick, account: AccountNo, extension: &str, request: &str) {
        let number =
            Aor::of(account, extension).and_then(|aor| self.table.with(&aor, |presentity, _| presentity.number));
        if let Some(presentity) = number {
            self.attribute(now, presentity, None, request);
        }
    }

    /// What was done to a subscription was the work of this request.
    pub fn attribute_notify(&self, now: Tick, id: &str, request: &str) {
        if let Some(Place { presentity, slot, nonce }) = Place::read(id) {
            self.attribute(now, presentity, Some((slot, nonce)), request);
        }
    }

    fn attribute(&self, at: Tick, presentity: u32, only: Option<(u32, u64)>, request: &str) {
        if !request.is_empty() && request.len() <= MAX_ID {
            self.deeds.note(Deed { at, presentity, only, request: request.into() });
        }
    }

    /// What has set off NOTIFYs, as far as the history and the deeds reach.
    pub(super) fn reasons(&self, presentity: u32, changes: &[Entry]) -> Reasons {
        let deeds = self.deeds.of(presentity);
        let by_hand = |entry: &Entry| matches!(entry.note, Note::Changed { cause: Cause::Set | Cause::Reset, .. });
        let request = |entry: &Entry| {
            let deed = deeds.iter().find(|deed| deed.only.is_none() && deed.at == entry.at);
            deed.filter(|_| by_hand(entry)).map(|deed| Arc::clone(&deed.request))
        };
        let changes = changes.iter().map(|entry| Reason { at: entry.at, only: None, request: request(entry) });
        let single = deeds.iter().filter(|deed| deed.only.is_some());
        let single =
            single.map(|deed| Reason { at: deed.at, only: deed.only, request: Some(Arc::clone(&deed.request)) });
        let mut all: Vec<_> = changes.chain(single).collect();
        all.sort_by_key(|reason| reason.at);
        Reasons(all)
    }
}

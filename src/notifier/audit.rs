//! Audit log of API requests: which request caused which change or NOTIFY.
//!
//! The entries of the history have a fixed size, and no room for the id of a request. Manual changes are rare compared
//! with all others, so the latest are kept in a list of their own. When a report is made, they are matched with the
//! history by their time.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Notifier;
use super::history::{Cause, Entry, HistoryEvent};
use crate::directory::AccountNo;
use crate::presence::subscription::SubscriptionId;
use crate::presence::{Aor, Tick};

/// Maximum number of audit entries, of all accounts together.
const MOST: usize = 4_096;
/// Maximum length of a stored request id (octets). The API accepts no longer one.
const MAX_ID: usize = 128;

/// An action of an API request.
#[derive(Clone, Debug)]
struct AuditEntry {
    at: Tick,
    presentity: u32,
    /// Slot and nonce of the subscription; none if the action concerned the whole presentity.
    only: Option<(u32, u64)>,
    request: Arc<str>,
}

/// Latest actions, oldest first.
#[derive(Debug, Default)]
pub(super) struct AuditLog(Mutex<VecDeque<AuditEntry>>);

impl AuditLog {
    fn note(&self, deed: AuditEntry) {
        let mut deeds = self.0.lock();
        if deeds.len() == MOST {
            deeds.pop_front();
        }
        deeds.push_back(deed);
    }

    fn of(&self, presentity: u32) -> Vec<AuditEntry> {
        self.0.lock().iter().filter(|deed| deed.presentity == presentity).cloned().collect()
    }
}

/// Causes of the NOTIFYs to a presentity's watchers, oldest first.
pub(super) struct Attributions(Vec<Attribution>);

struct Attribution {
    at: Tick,
    only: Option<(u32, u64)>,
    /// Id of the API request; none if the cause was no API request.
    request: Option<Arc<str>>,
}

impl Attributions {
    /// API request that changed a lamp at this time.
    pub(super) fn of_change(&self, at: Tick) -> Option<String> {
        let found = self.0.iter().find(|reason| reason.at == at && reason.only.is_none())?;
        found.request.as_deref().map(String::from)
    }

    /// API request that caused a NOTIFY sent at `sent`, if that is certain: its action is the latest cause up to
    /// `sent`, and came after `since`, the start of the previous exchange with the phone.
    pub(super) fn of_notify(&self, place: SubscriptionId, since: Tick, sent: Tick) -> Option<String> {
        let mine = |only: Option<(u32, u64)>| only.is_none_or(|only| only == (place.slot, place.nonce));
        let last = self.0.iter().rev().find(|reason| reason.at <= sent && mine(reason.only))?;
        last.request.as_deref().filter(|_| last.at > since).map(String::from)
    }
}

impl Notifier {
    /// Attributes the reset or set of an extension at `now` to an API request.
    pub fn attribute_change(&self, now: Tick, account: AccountNo, extension: &str, request: &str) {
        let number =
            Aor::of(account, extension).and_then(|aor| self.table.with(&aor, |presentity, _| presentity.number));
        if let Some(presentity) = number {
            self.attribute(now, presentity, None, request);
        }
    }

    /// Attributes the action on a subscription at `now` to an API request.
    pub fn attribute_notify(&self, now: Tick, id: &str, request: &str) {
        if let Some(SubscriptionId { presentity, slot, nonce }) = SubscriptionId::read(id) {
            self.attribute(now, presentity, Some((slot, nonce)), request);
        }
    }

    fn attribute(&self, at: Tick, presentity: u32, only: Option<(u32, u64)>, request: &str) {
        if !request.is_empty() && request.len() <= MAX_ID {
            self.audit.note(AuditEntry { at, presentity, only, request: request.into() });
        }
    }

    /// Causes of NOTIFYs, as far back as the history and the audit log reach.
    pub(super) fn reasons(&self, presentity: u32, changes: &[Entry]) -> Attributions {
        let deeds = self.audit.of(presentity);
        let by_hand =
            |entry: &Entry| matches!(entry.note, HistoryEvent::Changed { cause: Cause::Set | Cause::Reset, .. });
        let request = |entry: &Entry| {
            let deed = deeds.iter().find(|deed| deed.only.is_none() && deed.at == entry.at);
            deed.filter(|_| by_hand(entry)).map(|deed| Arc::clone(&deed.request))
        };
        let changes = changes.iter().map(|entry| Attribution { at: entry.at, only: None, request: request(entry) });
        let single = deeds.iter().filter(|deed| deed.only.is_some());
        let single =
            single.map(|deed| Attribution { at: deed.at, only: deed.only, request: Some(Arc::clone(&deed.request)) });
        let mut all: Vec<_> = changes.chain(single).collect();
        all.sort_by_key(|reason| reason.at);
        Attributions(all)
    }
}

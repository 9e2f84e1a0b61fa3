//! Explain: reports of the state of an extension, of the state that each watcher has acknowledged, and of the reasons
//! (rule 10).
//!
//! The API asks, and gets the report types of [`report`]. Only the `history` is kept for this purpose. All other data is
//! read from the working state of the notifier, under the lock of one presentity at a time.

use std::sync::Arc;

use super::change_feed::Changed;
use super::rollback::{SubscriptionBefore, Undo};
use super::{Notifier, Outbox};
use crate::directory::AccountNo;
use crate::notifier::control::{ControlError, ServerStats};
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, Subscription, SubscriptionId};
use crate::presence::{Aor, Tick};

mod lamp;
mod overview;
pub mod report;
mod stats;
mod watcher;

use report::{Cursor, Lamp, LampReport, Overview, SubscriptionReport, TraceReport, WatcherRow};

/// Maximum number of watchers in the report of a lamp.
pub const MOST_WATCHERS: usize = 1_000;
/// Maximum number of exchanges in a report.
pub const MOST_EXCHANGES: usize = 500;

/// Queries of the API about lamps and subscriptions, and the commands that belong to them. Every call may be made from
/// any thread.
pub trait Explain: Send + Sync + 'static {
    /// Lamp of one extension; none if the server knows nothing of the extension.
    fn lamp(&self, account: AccountNo, extension: &str) -> Option<Lamp>;
    /// Lamps of an account, ordered by extension, starting at `from`; at most `most`.
    fn lamps(&self, account: AccountNo, from: &str, most: usize) -> Vec<Lamp>;
    /// Full report of one extension; none if the server knows nothing of it.
    fn lamp_story(&self, account: AccountNo, extension: &str) -> Option<LampReport>;
    /// Summary of one subscription; none if it does not exist or belongs to another account.
    fn subscription(&self, account: AccountNo, id: &str) -> Option<WatcherRow>;
    /// Full report of one subscription; none if it does not exist or belongs to another account.
    fn subscription_story(&self, account: AccountNo, id: &str) -> Option<SubscriptionReport>;
    /// Subscriptions whose watcher, User-Agent or address contains `text`, ordered by extension, starting at `from`; at
    /// most `most`.
    fn find_watchers(&self, account: AccountNo, text: &str, from: &Cursor, most: usize) -> Vec<WatcherRow>;
    /// Sends a fresh NOTIFY in one subscription; returns false if it does not exist. `request` is the id of the API
    /// request, for reports. Fails if the journal cannot write the change or the server is stopping.
    fn resend(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError>;
    /// Ends one subscription, as if it had expired; returns false if it does not exist. `request` and the errors are
    /// those of [`Explain::resend`].
    fn end(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError>;
    /// Starts tracing one subscription: its messages are kept for this many seconds from now. Returns false if it does
    /// not exist. Fails if the limit of traces, of the account or of the server, is reached.
    fn trace(&self, account: AccountNo, id: &str, seconds: u32) -> Result<bool, ControlError>;
    /// Trace of one subscription, also after its end; none if it was not traced or belongs to another account.
    fn trace_story(&self, account: AccountNo, id: &str) -> Option<TraceReport>;
    /// Stops the trace of one subscription and deletes its messages; returns false if it was not traced.
    fn forget_trace(&self, account: AccountNo, id: &str) -> bool;
    /// Overview of an account.
    fn overview(&self, account: AccountNo) -> Overview;
    /// Statistics of the whole server.
    fn vitals(&self) -> ServerStats;
    /// Starts or stops collecting changes.
    fn listen(&self, on: bool);
    /// Changes since the last call, without duplicates, and whether any were lost.
    fn changes(&self) -> (Vec<Changed>, bool);
}

impl Notifier {
    /// Calls `f` with a presentity; none if the server knows nothing of it.
    fn read<T>(&self, account: AccountNo, extension: &str, f: impl FnOnce(&Presentity, &State) -> T) -> Option<T> {
        let aor = Aor::of(account, extension)?;
        self.table.with(&aor, |presentity, state| f(presentity, state))
    }

    /// Calls `f` with a subscription; none if it has ended, does not exist or belongs to another account.
    pub(super) fn with_subscription<T>(
        &self,
        account: AccountNo,
        id: &str,
        f: impl FnOnce(&Arc<Presentity>, &mut State, SubscriptionId) -> T,
    ) -> Option<T> {
        let place = SubscriptionId::read(id)?;
        self.table.with_id(place.presentity, |presentity, state| {
            let ours = presentity.aor.account == account
                && state.watchers.get_mut(place.slot).is_some_and(|s| s.place == place && !s.ended);
            ours.then(|| f(presentity, state, place))
        })?
    }

    /// Starts or stops collecting changes.
    pub fn listen(&self, on: bool) {
        self.change_feed.listen(on);
    }

    /// Changes since the last call, without duplicates, and whether any were lost.
    pub fn changes(&self) -> (Vec<Changed>, bool) {
        self.change_feed.take()
    }

    /// Sends a fresh NOTIFY in one subscription, whatever the outcome of the previous one; returns false if the
    /// subscription does not exist.
    pub fn resend(&self, now: Tick, account: AccountNo, id: &str, out: &mut Outbox) -> bool {
        let mut found = false;
        self.guarded(now, out, |out| {
            found = self
                .with_subscription(account, id, |presentity, state, place| {
                    tracing::debug!(presentity = &*presentity.uri, subscription = id, "resend");
                    self.notify(now, presentity, state, place.slot, out);
                })
                .is_some();
        });
        found
    }

    /// Ends one subscription. The last NOTIFY gives `timeout` as the reason, so the phone may subscribe again at once
    /// (RFC 6665 section 4.1.3). Returns false if the subscription does not exist.
    pub fn end(&self, now: Tick, account: AccountNo, id: &str, out: &mut Outbox) -> bool {
        let mut found = false;
        self.guarded(now, out, |out| {
            found = self
                .with_subscription(account, id, |presentity, state, place| {
                    tracing::debug!(presentity = &*presentity.uri, subscription = id, "ended by hand");
                    let Some(subscription) = state.watchers.get_mut(place.slot) else { return };
                    let before = SubscriptionBefore::of(subscription, None);
                    self.begin_change(presentity, state, out, |_| Undo::Granted(Box::new(before)));
                    let Some(subscription) = state.watchers.get_mut(place.slot) else { return };
                    subscription.ended = true;
                    subscription.expires_at = now;
                    let under_way = matches!(subscription.delivery, Delivery::InFlight(_));
                    self.change_feed.subscription(presentity, place);
                    self.journal_subscription_removed(presentity, place.slot, out);
                    // While a NOTIFY is in flight, the last one waits for its response or for its next retransmission
                    // (rule 2).
                    if !under_way {
                        self.notify(now, presentity, state, place.slot, out);
                    }
                })
                .is_some();
        });
        found
    }
}

/// Number of watchers, of those that have not acknowledged the current state, and of those with failed NOTIFYs.
fn standing_of_all(state: &State) -> (usize, usize, usize) {
    let alive = state.watchers.iter().filter(|s| !s.ended);
    alive.fold((0, 0, 0), |(all, behind, failing), s| {
        (all + 1, behind + usize::from(is_behind(state, s)), failing + usize::from(s.delivery.failures() > 0))
    })
}

fn is_behind(state: &State, s: &Subscription) -> bool {
    let view = &state.views[s.package.0 as usize];
    s.is_behind(view.revision)
}

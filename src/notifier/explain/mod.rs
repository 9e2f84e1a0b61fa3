//! Explaining: what is believed of an extension, what each of its watchers knows of that, and why (law 10).
//!
//! In flow questions of the API; out flow [`story`]s. Nothing is kept for it but the `history`; all else is read from what
//! the notifier works with, a presentity at a time under its lock.

use std::sync::Arc;

use super::events::Changed;
use super::rollback::{SubscriptionBefore, Undo};
use super::{Notifier, Outbox};
use crate::directory::AccountNo;
use crate::notifier::control::{Refusal, Vitals};
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, Place, Subscription};
use crate::presence::{Aor, Tick};

mod lamp;
mod numbers;
mod overview;
pub mod story;
mod watcher;

use story::{Bookmark, Lamp, LampStory, Overview, SubscriptionStory, TraceStory, WatcherRow};

/// The most watchers that the story of a lamp names.
pub const MOST_WATCHERS: usize = 1_000;
/// The most exchanges that a story tells.
pub const MOST_EXCHANGES: usize = 500;

/// The notifier as somebody sees it who wants to know why. Every call may be made from any thread.
pub trait Explain: Send + Sync + 'static {
    /// The lamp of one extension; none if nothing is known of it.
    fn lamp(&self, account: AccountNo, extension: &str) -> Option<Lamp>;
    /// The lamps of an account from an extension on, ordered by extension; no more than `most`.
    fn lamps(&self, account: AccountNo, from: &str, most: usize) -> Vec<Lamp>;
    /// All about one extension; none if nothing is known of it.
    fn lamp_story(&self, account: AccountNo, extension: &str) -> Option<LampStory>;
    /// One subscription in brief; none if it is not there or belongs to another account.
    fn subscription(&self, account: AccountNo, id: &str) -> Option<WatcherRow>;
    /// All about one subscription; none if it is not there or belongs to another account.
    fn subscription_story(&self, account: AccountNo, id: &str) -> Option<SubscriptionStory>;
    /// Subscriptions whose watcher, phone or address has `text` in it, from a place on, ordered by extension; no more than
    /// `most`.
    fn find_watchers(&self, account: AccountNo, text: &str, from: &Bookmark, most: usize) -> Vec<WatcherRow>;
    /// Sends a fresh NOTIFY in one subscription; false if there is no such one. `request` names who asked for it, in stories.
    fn resend(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, Refusal>;
    /// Ends one subscription, as if it had expired; false if there is no such one.
    fn end(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, Refusal>;
    /// Keeps the messages of one subscription from now on, for so many seconds; false if there is no such one.
    fn trace(&self, account: AccountNo, id: &str, seconds: u32) -> Result<bool, Refusal>;
    /// What has been kept of one, also when it is over; none if it was not traced, or belongs to another account.
    fn trace_story(&self, account: AccountNo, id: &str) -> Option<TraceStory>;
    /// Ends the tracing of one, and forgets what was kept; false if it was not traced.
    fn forget_trace(&self, account: AccountNo, id: &str) -> bool;
    /// How an account fares as a whole.
    fn overview(&self, account: AccountNo) -> Overview;
    /// How the server fares as a whole.
    fn vitals(&self) -> Vitals;
    /// Begins or ends collecting what changes.
    fn listen(&self, on: bool);
    /// What has changed since the last call, each thing once, and whether something was lost.
    fn changes(&self) -> (Vec<Changed>, bool);
}

impl Notifier {
    /// Reads something of a presentity; none if nothing is known of it.
    fn read<T>(&self, account: AccountNo, extension: &str, f: impl FnOnce(&Presentity, &State) -> T) -> Option<T> {
        let aor = Aor::of(account, extension)?;
        self.table.with(&aor, |presentity, state| f(presentity, state))
    }

    /// Does something with a subscription of an account.
    pub(super) fn with_subscription<T>(
        &self,
        account: AccountNo,
        id: &str,
        f: impl FnOnce(&Arc<Presentity>, &mut State, Place) -> T,
    ) -> Option<T> {
        let place = Place::read(id)?;
        self.table.with_number(place.presentity, |presentity, state| {
            let ours = presentity.aor.account == account
                && state.watchers.get_mut(place.slot).is_some_and(|s| s.place == place && !s.ended);
            ours.then(|| f(presentity, state, place))
        })?
    }

    /// Begins or ends collecting what changes.
    pub fn listen(&self, on: bool) {
        self.feed.listen(on);
    }

    /// What has changed since the last call, each thing once, and whether something was lost.
    pub fn changes(&self) -> (Vec<Changed>, bool) {
        self.feed.take()
    }

    /// Sends a fresh NOTIFY in one subscription, whatever has become of the last; false if there is no such one.
    pub fn resend(&self, now: Tick, account: AccountNo, id: &str, out: &mut Outbox) -> bool {
        let mut found = false;
        self.contained(now, out, |out| {
            found = self
                .with_subscription(account, id, |presentity, state, place| {
                    tracing::debug!(presentity = &*presentity.uri, subscription = id, "resend");
                    self.notify(now, presentity, state, place.slot, out);
                })
                .is_some();
        });
        found
    }

    /// Ends one subscription: the phone is told that its time is over, and may subscribe anew at once (RFC 6665 section
    /// 4.1.3, `timeout`). False if there is no such one.
    pub fn end(&self, now: Tick, account: AccountNo, id: &str, out: &mut Outbox) -> bool {
        let mut found = false;
        self.contained(now, out, |out| {
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
                    self.feed.subscription(presentity, place);
                    self.drop_subscription(presentity, place.slot, out);
                    // With a NOTIFY under way, the last one waits for its answer or for its repetition to come due (law 2).
                    if !under_way {
                        self.notify(now, presentity, state, place.slot, out);
                    }
                })
                .is_some();
        });
        found
    }
}

/// How many watchers there are, how many are behind, and how many have failures.
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

//! Commands and queries of the HTTP API: listing, reset and set. This is the part of the trait
//! [`super::control::Control`] that needs no clock and no sockets.

use super::control::{ControlError, LastNotify, PublicationRecord, SubscriptionRecord};
use super::history::Cause;
use super::{Notifier, Outbox};
use crate::directory::AccountNo;
use crate::package::{self, PackageId};
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::Publication;
use crate::presence::state::CallState;
use crate::presence::subscription::{LastReply, Subscription};
use crate::presence::{Aor, Tick};
use crate::sip::headers::NameAddr;

impl Notifier {
    /// All subscriptions of an account. Not bounded: only for accounts that are known to be small.
    pub fn list_subscriptions(&self, account: AccountNo, package: Option<PackageId>) -> Vec<SubscriptionRecord> {
        let mut all = Vec::new();
        for presentity in self.table.of_account(account) {
            let state = presentity.lock();
            let wanted = state.watchers.iter().filter(|s| !s.ended && package.is_none_or(|id| id == s.package));
            all.extend(wanted.map(|s| self.subscription_record(&presentity, s)));
        }
        all
    }

    pub(super) fn subscription_record(&self, presentity: &Presentity, s: &Subscription) -> SubscriptionRecord {
        SubscriptionRecord {
            user: presentity.aor.user.to_string(),
            package: s.package,
            call_id: s.dialog.call_id().to_string(),
            from: watcher_uri(s).to_string(),
            expires: s.granted,
            subscribed_at: s.subscribed_at().0 / 1_000,
            last: s.last().map(|last| last_notify(&presentity.uri, s, last)),
            user_agent: s.user_agent.as_deref().map(String::from),
            proxy_route: s.dialog.first_route().map(String::from),
        }
    }

    /// All publications of an account. Not bounded: only for accounts that are known to be small.
    pub fn list_publications(&self, account: AccountNo, package: Option<PackageId>) -> Vec<PublicationRecord> {
        let mut all = Vec::new();
        for presentity in self.table.of_account(account) {
            let state = presentity.lock();
            let wanted = state.publications.iter().filter(|p| package.is_none_or(|id| id == p.package));
            all.extend(wanted.map(|publication| self.publication_record(&presentity, &state, publication)));
        }
        all
    }

    pub(super) fn publication_record(
        &self,
        presentity: &Presentity,
        state: &State,
        publication: &Publication,
    ) -> PublicationRecord {
        let format = package::get(publication.package);
        let mut tail = String::new();
        format.write_tail(&state.composed(&presentity.uri), &mut tail);
        PublicationRecord {
            user: presentity.aor.user.to_string(),
            package: publication.package,
            etag: publication.etag.to_string(),
            body: format.body(0, &presentity.uri, &tail),
        }
    }

    /// Removes all calls and the manual state of a presentity. Each of its watchers is sent one fresh NOTIFY.
    pub fn reset(&self, now: Tick, account: AccountNo, user: &str, out: &mut Outbox) {
        let Some(aor) = Aor::of(account, user) else { return };
        self.guarded(now, out, |out| {
            self.table.with(&aor, |presentity, state| {
                tracing::debug!(presentity = &*presentity.uri, watchers = state.watchers.len(), "reset");
                self.begin_state_change(presentity, state, out);
                state.reset();
                self.arm_call_timer(now, presentity, state);
                self.compose_all(presentity, state, true);
                self.record_change(now, presentity, state, Cause::Reset, true);
                self.journal_presentity(presentity, state, out);
                self.fan_out(now, presentity, state, out);
            });
        });
    }

    /// Sets the manual state of a presentity, which holds until it is set again or reset. `Terminated` removes it.
    ///
    /// Fails if the presentity is new and its account has reached `limits.presentities_per_account`.
    pub fn set(
        &self,
        now: Tick,
        account: AccountNo,
        user: &str,
        manual: CallState,
        out: &mut Outbox,
    ) -> Result<(), ControlError> {
        let Some(aor) = Aor::of(account, user) else { return Ok(()) };
        let limit = self.settings.limits.presentities_per_account;
        let realm = self.settings.directory.realm(account);
        let mut full = false;
        self.guarded(now, out, |out| {
            let made = self.table.get_or_create(&aor, realm, None, |presentity, state| {
                tracing::debug!(presentity = &*presentity.uri, ?manual, watchers = state.watchers.len(), "set");
                self.begin_state_change(presentity, state, out);
                state.manual = (manual != CallState::Terminated).then_some(manual);
                self.commit_change(now, presentity, state, Cause::Set, out);
            });
            full = made.is_err();
        });
        match full {
            true => Err(ControlError::LimitReached { key: "limits.presentities_per_account", limit }),
            false => Ok(()),
        }
    }
}

/// `user@realm` of a watcher as its SUBSCRIBE wrote it, without scheme and parameters.
pub(super) fn watcher_uri(s: &Subscription) -> &str {
    let from = NameAddr::read(s.dialog.remote()).map_or("", |remote| remote.uri);
    let from = from.split_once(':').map_or(from, |(_, rest)| rest);
    from.split(';').next().unwrap_or(from)
}

/// The last NOTIFY that was answered. Its body is not stored, but rebuilt from the shared part of the document and the
/// version.
pub(super) fn last_notify(own: &str, s: &Subscription, last: LastReply<'_>) -> LastNotify {
    let whole = |tail: &str| package::get(s.package).body(last.version, s.entity(own), tail);
    let body = last.tail.map(whole).unwrap_or_default();
    LastNotify { cseq: last.cseq, reply: last.reply, body }
}

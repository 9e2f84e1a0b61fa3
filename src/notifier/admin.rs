//! Listing, reset and set: what the API asks for (the trait [`super::control::Control`] without clock and sockets).

use super::control::{LastNotify, Part, PublicationRecord, Refusal, SubscriptionRecord};
use super::history::Cause;
use super::{Notifier, Outbox};
use crate::directory::AccountNo;
use crate::package::{self, PackageId};
use crate::presence::facts::CallState;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Answered, Subscription};
use crate::presence::{Aor, Tick};
use crate::sip::headers::NameAddr;

/// How many presentities a part of a listing looks at, at most ...
const AT_ONCE: usize = 256;
/// ... and how many records make a part; those of a presentity stay together.
const ENOUGH: usize = 256;

impl Notifier {
    /// The subscriptions of an account from a user on, ordered by user: those of some presentities at a time.
    pub fn subscriptions_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &str,
    ) -> Part<SubscriptionRecord> {
        self.part(account, from, |presentity, state, records| {
            let wanted = |s: &&Subscription| !s.ended && package.is_none_or(|id| id == s.package);
            records.extend(state.watchers.iter().filter(wanted).map(|s| self.record(presentity, s)));
        })
    }

    /// The same of the account as a whole: for what is known to be small.
    pub fn list_subscriptions(&self, account: AccountNo, package: Option<PackageId>) -> Vec<SubscriptionRecord> {
        whole(|from| self.subscriptions_from(account, package, from))
    }

    /// The next presentities of an account, until there is enough to tell of them. A presentity is never in two parts.
    fn part<T>(
        &self,
        account: AccountNo,
        from: &str,
        mut tell: impl FnMut(&Presentity, &State, &mut Vec<T>),
    ) -> Part<T> {
        let (mut records, mut looked) = (Vec::new(), 0_usize);
        let presentities = self.table.of_account_from(account, from, AT_ONCE);
        for presentity in &presentities {
            tell(presentity, &presentity.lock(), &mut records);
            looked += 1;
            if records.len() >= ENOUGH {
                break;
            }
        }
        // No user has a NUL in it, so this is the least that is greater.
        let next =
            presentities.get(looked.saturating_sub(1)).filter(|_| looked == AT_ONCE || looked < presentities.len());
        let next = next.map(|last| format!("{}\0", last.aor.user));
        Part { records, next }
    }

    fn record(&self, presentity: &Presentity, s: &Subscription) -> SubscriptionRecord {
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

    /// The publications of an account from a user on, ordered by user: those of some presentities at a time.
    pub fn publications_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &str,
    ) -> Part<PublicationRecord> {
        self.part(account, from, |presentity, state, records| {
            for publication in state.publications.iter().filter(|p| package.is_none_or(|id| id == p.package)) {
                let format = package::get(publication.package);
                let mut tail = String::new();
                format.write_tail(&state.picture(&presentity.uri), &mut tail);
                let body = format.body(0, &presentity.uri, &tail);
                let (user, package) = (presentity.aor.user.to_string(), publication.package);
                records.push(PublicationRecord { user, package, etag: publication.etag.to_string(), body });
            }
        })
    }

    /// The same of the account as a whole: for what is known to be small.
    pub fn list_publications(&self, account: AccountNo, package: Option<PackageId>) -> Vec<PublicationRecord> {
        whole(|from| self.publications_from(account, package, from))
    }

    /// Removes all calls and the manual state of a presentity; each of its watchers is sent one fresh NOTIFY.
    pub fn reset(&self, now: Tick, account: AccountNo, user: &str, out: &mut Outbox) {
        let Some(aor) = Aor::of(account, user) else { return };
        self.contained(now, out, |out| {
            self.table.with(&aor, |presentity, state| {
                tracing::debug!(presentity = &*presentity.uri, watchers = state.watchers.len(), "reset");
                state.reset();
                self.watch_calls(now, presentity, state);
                self.compose(presentity, state, true);
                self.note_changed(now, presentity, state, Cause::Reset, true);
                self.keep_state(presentity, state, out);
                self.fan_out(now, presentity, state, out);
            });
        });
    }

    /// Sets the manual state of a presentity, which holds until it is set anew or reset; `Terminated` removes it.
    pub fn set(
        &self,
        now: Tick,
        account: AccountNo,
        user: &str,
        manual: CallState,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let Some(aor) = Aor::of(account, user) else { return Ok(()) };
        let limit = self.settings.limits.presentities_per_account;
        let realm = self.settings.directory.realm(account);
        let mut full = false;
        self.contained(now, out, |out| {
            let made = self.table.obtain(&aor, realm, None, |presentity, state| {
                tracing::debug!(presentity = &*presentity.uri, ?manual, watchers = state.watchers.len(), "set");
                state.manual = (manual != CallState::Terminated).then_some(manual);
                self.spread_news(now, presentity, state, Cause::Set, out);
            });
            full = made.is_err();
        });
        match full {
            true => Err(Refusal::LimitReached { key: "limits.presentities_per_account", limit }),
            false => Ok(()),
        }
    }
}

fn whole<T>(part: impl Fn(&str) -> Part<T>) -> Vec<T> {
    let (mut all, mut from) = (Vec::new(), Some(String::new()));
    while let Some(begin) = from {
        let Part { records, next } = part(&begin);
        all.extend(records);
        from = next;
    }
    all
}

/// `user@realm` of a watcher as he wrote it, without scheme and parameters.
pub(super) fn watcher_uri(s: &Subscription) -> &str {
    let from = NameAddr::read(s.dialog.remote()).map_or("", |remote| remote.uri);
    let from = from.split_once(':').map_or(from, |(_, rest)| rest);
    from.split(';').next().unwrap_or(from)
}

/// The body is not kept but put together again from what it was made of.
pub(super) fn last_notify(own: &str, s: &Subscription, last: Answered<'_>) -> LastNotify {
    let whole = |tail: &str| package::get(s.package).body(last.version, s.entity(own), tail);
    let body = last.tail.map(whole).unwrap_or_default();
    LastNotify { cseq: last.cseq, reply: last.reply, body }
}

//! Rollback: a change that the journal has refused has not happened (rule 5).
//!
//! A request is decided in memory first, and its messages wait for the journal. Each change that a request asked for
//! (PUBLISH, SUBSCRIBE, refresh, end, set, reset) leaves a [`Change`] in its outbox, with the data to undo it. Once
//! the journal has written the records, that data is dropped without further work. When the journal has refused them:
//! - memory goes back to its state before the change, newest change first, so that changes made on top of each other
//!   are undone one after the other;
//! - the response becomes 503 with Retry-After, and the previous entity-tag is valid again;
//! - NOTIFYs with the refused change do not leave. A watcher that is stale gets one with the state that holds;
//! - a record with the state that holds follows, because the refused one may have reached the disk all the same (a
//!   disk that hangs and then continues). Until then the journal accepts no other change.
//!
//! Changes that no request asked for (expiry, numbers reserved for NOTIFYs) are not undone: after the next start the
//! decision would be the same. Their records are appended again, and the journal writes them when it can.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::history::Cause;
use super::outbox::PendingResponse;
use super::request::take_live_responses;
use super::response::CachedResponse;
use super::wheel::TimerKind;
use super::{Notifier, Outbox};
use crate::journal::{Hold, Key};
use crate::presence::calls::Calls;
use crate::presence::device::Device;
use crate::presence::intern::InternedStr;
use crate::presence::presentity::{NotifyEtag, PackageView, Presentity, State};
use crate::presence::publication::{Publication, RemovedPublications};
use crate::presence::state::CallState;
use crate::presence::subscription::{Delivery, Doubts, SubscribeOptions, Subscription, SubscriptionId};
use crate::presence::vendor::Vendor;
use crate::presence::{MAX_PACKAGES, Tick};
use crate::sip::wire::{self, Name};
use crate::transport::{DeliveryToken, Destination, Source};

/// Time for which a refused change waits for a later change of the same presentity to be refused as well (ms). If the
/// later one is not refused within this time, the journal has written it, and its record contains this change as
/// well.
const SETTLED_AFTER: u64 = 1_000;

/// A change that a request asked for, with the data to undo it.
#[derive(Debug)]
pub struct Change {
    presentity: Arc<Presentity>,
    /// Number of the change. Numbers rise with every change.
    number: u64,
    /// Number of the previous change of the same presentity.
    before: u64,
    undo: Undo,
}

/// State before a change.
#[derive(Debug)]
pub(super) enum Undo {
    /// State before a PUBLISH, a set or a reset.
    State(Box<StateBefore>),
    /// State before a new subscription.
    Subscribed(Box<Subscribed>),
    /// State before a refresh or an end.
    Granted(Box<SubscriptionBefore>),
}

/// State of a presentity as reported by publishers and the API.
#[derive(Debug)]
pub(super) struct StateBefore {
    calls: Calls,
    publications: Vec<Publication>,
    removed: Option<Box<RemovedPublications>>,
    manual: Option<CallState>,
    /// Revision and fingerprint of the state of each package before the change.
    views: [NotifyEtag; MAX_PACKAGES],
}

/// A new subscription.
#[derive(Debug)]
pub(super) struct Subscribed {
    /// Identity of the new subscription.
    pub(super) place: SubscriptionId,
    /// Subscription that the new one has replaced, because its phone subscribed again.
    pub(super) replaced: Option<RemovedSubscription>,
    /// Slot of an older subscription that has been marked as possibly replaced by the new one.
    pub(super) doubted: Option<u32>,
}

/// Fields of a subscription before the change.
#[derive(Debug)]
pub(super) struct SubscriptionBefore {
    place: SubscriptionId,
    particulars: Option<Box<SubscribeOptions>>,
    source: Source,
    granted: u32,
    expires_at: Tick,
    ended: bool,
    user_agent: Option<InternedStr>,
    family: Vendor,
    /// Remote target; `None` if the request does not change it.
    target: Option<Box<str>>,
    /// The whole subscription, if the request may remove it at once.
    removed: Option<RemovedSubscription>,
}

/// Copy of a subscription that a change removes from memory.
#[derive(Debug)]
pub(super) struct RemovedSubscription(Box<Subscription>);

impl From<&Subscription> for RemovedSubscription {
    fn from(s: &Subscription) -> RemovedSubscription {
        // The copy must not count as a subscription of its phone while the subscription is removed.
        let mut removed = Box::new(s.clone());
        removed.phone = Device::detached(s.phone.id());
        RemovedSubscription(removed)
    }
}

/// An outbox whose records the journal has refused.
#[derive(Debug)]
pub(super) struct RefusedOutbox {
    out: Outbox,
    since: Tick,
    /// Numbers of its changes that have been undone.
    undone: Vec<u64>,
}

impl Change {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl From<&State> for StateBefore {
    fn from(state: &State) -> StateBefore {
        StateBefore {
            calls: state.calls.clone(),
            publications: state.publications.clone(),
            removed: state.removed.clone(),
            manual: state.manual,
            views: state.views.each_ref().map(PackageView::tag),
        }
    }
}

impl SubscriptionBefore {
    pub(super) fn of(s: &Subscription, new_target: Option<&str>) -> SubscriptionBefore {
        SubscriptionBefore {
            place: s.place,
            particulars: s.options.clone(),
            source: s.source(),
            granted: s.granted,
            expires_at: s.expires_at,
            ended: s.ended,
            user_agent: s.user_agent.clone(),
            family: s.family,
            target: new_target.filter(|new| *new != s.dialog.target()).map(|_| s.dialog.target().into()),
            removed: None,
        }
    }

    /// Adds the whole subscription, for a request that may remove it at once.
    pub(super) fn with_all(self, removed: Option<RemovedSubscription>) -> SubscriptionBefore {
        SubscriptionBefore { removed, ..self }
    }
}

impl Notifier {
    /// Records that a change asked for by a request begins; `undo` returns the state before it.
    pub(super) fn begin_change(
        &self,
        presentity: &Arc<Presentity>,
        state: &mut State,
        out: &mut Outbox,
        undo: impl FnOnce(&mut State) -> Undo,
    ) {
        if self.settings.journal {
            let (number, before, undo) = (self.next_number(), state.last_change, undo(state));
            out.changes.push(Change { presentity: Arc::clone(presentity), number, before, undo });
            state.last_change = number;
        }
    }

    /// Does the same for a change of the state that publishers and the API report.
    pub(super) fn begin_state_change(&self, presentity: &Arc<Presentity>, state: &mut State, out: &mut Outbox) {
        self.begin_change(presentity, state, out, |state| Undo::State(Box::new(StateBefore::from(&*state))));
    }

    /// Undoes the changes of an outbox whose records the journal has refused, and puts the messages that leave
    /// instead into `out`.
    ///
    /// The records in `out` are deferred records. They must be appended before its holds are dropped; `hold` is the
    /// last of these.
    pub fn roll_back(&self, now: Tick, refused: Outbox, hold: Option<Hold>, out: &mut Outbox) {
        self.add_refused(now, refused, hold);
        self.finish_rollbacks(now, out);
    }

    /// Does the same for one of several outboxes that were refused together. Nothing is undone or sent before
    /// [`Notifier::finish_rollbacks`], which then knows all of them.
    pub fn add_refused(&self, now: Tick, mut refused: Outbox, hold: Option<Hold>) {
        refused.holds.extend(hold);
        self.refused.lock().push(RefusedOutbox { out: refused, since: now, undone: Vec::new() });
    }

    /// Continues with refused changes that wait for later ones to be refused as well. Returns true if any still
    /// waits.
    pub fn finish_rollbacks(&self, now: Tick, out: &mut Outbox) -> bool {
        let mut all = self.refused.lock();
        if !all.is_empty() {
            self.undo_refused(now, &mut all, out);
        }
        !all.is_empty()
    }

    fn undo_refused(&self, now: Tick, all: &mut Vec<RefusedOutbox>, out: &mut Outbox) {
        let mut changes: Vec<(usize, Change)> = Vec::new();
        for (at, refused) in all.iter_mut().enumerate() {
            changes.extend(refused.out.changes.drain(..).map(|change| (at, change)));
        }
        changes.sort_by_key(|(_, change)| std::cmp::Reverse(change.number));
        let mut work = Outbox::default();
        for (at, change) in changes {
            let number = change.number;
            match self.undo(now, change, &mut work) {
                Ok(()) => all[at].undone.push(number),
                Err(waits) => all[at].out.changes.push(waits),
            }
        }
        let over =
            |refused: &RefusedOutbox| refused.out.changes.is_empty() || refused.since.after(SETTLED_AFTER) <= now;
        let settled: Vec<_> = all.extract_if(.., |refused| over(refused)).collect();
        let keys: BTreeSet<Key> = settled.iter().flat_map(|refused| &refused.out.appended).copied().collect();
        for refused in settled {
            self.settle(now, refused, &mut work);
        }
        keys.into_iter().for_each(|key| self.journal_current(key, &mut work));
        out.messages.append(&mut work.messages);
        out.pending_fan_outs.append(&mut work.pending_fan_outs);
        out.dns_queries.append(&mut work.dns_queries);
        out.holds.append(&mut work.holds);
        out.deferred_records.append(&mut work.deferred_records);
        out.deferred_records.append(&mut work.records);
    }

    /// Undoes a change, or gives it back if there is a later change on top of it.
    fn undo(&self, now: Tick, change: Change, out: &mut Outbox) -> Result<(), Change> {
        let Change { presentity, number, before, undo } = change;
        let retired = presentity.lock().retired;
        // The presentity may have been removed from the table since then, because nothing was left of it.
        let home = match retired {
            false => Some(Arc::clone(&presentity)),
            true => {
                let realm = self.settings.directory.realm(presentity.aor.account);
                self.table.restore(presentity.number, &presentity.aor, realm)
            }
        };
        let Some(home) = home else { return Ok(()) };
        let undone = self.table.with_locked(&home, |presentity, state| {
            if state.last_change != number && !retired {
                return Err(undo);
            }
            state.last_change = before;
            match undo {
                Undo::State(before) => self.undo_state(now, presentity, state, *before, out),
                Undo::Subscribed(new) => self.undo_subscribed(now, presentity, state, *new, out),
                Undo::Granted(before) => self.undo_subscription_change(now, presentity, state, *before),
            }
            Ok(())
        });
        if let Some(Err(undo)) = undone {
            return Err(Change { presentity, number, before, undo });
        }
        self.guarded(now, out, |out| {
            self.table.with_locked(&home, |presentity, state| self.fan_out(now, presentity, state, out));
        });
        Ok(())
    }

    fn undo_state(&self, now: Tick, presentity: &Presentity, state: &mut State, before: StateBefore, out: &mut Outbox) {
        let watch = |publication: &Publication| TimerKind::Publication(publication.etag.number);
        for publication in &state.publications {
            self.wheel.cancel(publication.timer_at, presentity.number, watch(publication));
        }
        let StateBefore { calls, publications, removed, manual, views } = before;
        (state.calls, state.publications, state.removed, state.manual) = (calls, publications, removed, manual);
        for publication in &mut state.publications {
            publication.timer_at =
                self.wheel.schedule(now, publication.expires_at, presentity.number, watch(publication));
        }
        // Publications that have expired since then stay expired.
        let over = state.publications.iter().filter(|p| p.expires_at <= now).map(|p| p.etag.number);
        for number in over.collect::<Vec<_>>() {
            self.expire_publication(now, presentity, state, number);
        }
        state.pass_time(now);
        self.arm_call_timer(now, presentity, state);
        let news = self.compose_all(presentity, state, false);
        self.record_change(now, presentity, state, Cause::RolledBack, news);
        // A phone that has acknowledged the document from before the change also knows the current one, because it is
        // the same document.
        let now_told = state.views.each_ref().map(PackageView::tag);
        for slot in 0..state.watchers.slots() as u32 {
            let Some(s) = state.watchers.get_mut(slot) else { continue };
            let (known, told) = (views[s.package.0 as usize], now_told[s.package.0 as usize]);
            if s.acknowledged == known.revision && known.fingerprint == told.fingerprint {
                s.acknowledged = told.revision;
                self.journal_acknowledged(presentity, slot, told.into(), out);
            }
        }
    }

    fn undo_subscribed(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        new: Subscribed,
        out: &mut Outbox,
    ) {
        let Subscribed { place, replaced, doubted } = new;
        if state.watchers.get_mut(place.slot).is_some_and(|s| s.place == place) {
            self.remove(presentity, state, place.slot, "the journal has refused it", out);
        }
        if let Some(earlier) = doubted.and_then(|slot| state.watchers.get_mut(slot)) {
            earlier.doubts.remove(Doubts::REPLACED);
            let slot = earlier.place.slot;
            state.watchers.index_again(slot);
        }
        if let Some(replaced) = replaced {
            self.bring_back(now, presentity, state, replaced);
        }
    }

    fn undo_subscription_change(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        before: SubscriptionBefore,
    ) {
        let SubscriptionBefore { place, source, removed, .. } = before;
        let Some(s) = state.watchers.get_mut(place.slot).filter(|s| s.place == place) else {
            return removed.into_iter().for_each(|removed| self.bring_back(now, presentity, state, removed));
        };
        s.set_source(source);
        if let Some(target) = &before.target {
            // This cannot fail: the earlier target was short enough.
            let _ = s.set_remote_target(target);
        }
        (s.options, s.user_agent, s.family) = (before.particulars, before.user_agent, before.family);
        (s.granted, s.expires_at, s.ended) = (before.granted, before.expires_at, before.ended);
        let expiry = TimerKind::Expiry(place.slot);
        self.wheel.cancel(s.expiry_timer, presentity.number, expiry);
        s.expiry_timer = self.wheel.schedule(now, s.expires_at, presentity.number, expiry);
        self.withdraw_notify(now, s);
    }

    /// Restores a subscription that the undone change has removed, and its NOTIFY if one was in flight.
    fn bring_back(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        RemovedSubscription(mut s): RemovedSubscription,
    ) {
        let slot = s.place.slot;
        if !state.watchers.is_free(slot) {
            return;
        }
        s.phone = self.phones.get_or_create(s.phone.id());
        s.expiry_timer = self.wheel.schedule(now, s.expires_at, presentity.number, TimerKind::Expiry(slot));
        s.delivery_timer = None;
        let deadline = match &s.delivery {
            Delivery::Idle => None,
            // The DNS answer may have arrived while the subscription was removed, so ask again at once.
            Delivery::Resolving { .. } => Some(now),
            Delivery::Throttled { until, .. } | Delivery::Suspended { until, .. } => Some(*until),
            Delivery::InFlight(flight) => Some(Tick(flight.transaction.deadline())),
        };
        if let Delivery::Suspended { silent: true, .. } = s.delivery {
            s.phone.suspend(presentity.number, slot);
        }
        deadline.into_iter().for_each(|deadline| self.arm_delivery_timer(now, &mut s, deadline));
        state.watchers.restore(slot, *s);
        self.table.count_subscription(presentity.aor.account);
    }

    /// Drops the NOTIFY in flight, because it describes a state that does not hold.
    fn withdraw_notify(&self, now: Tick, s: &mut Subscription) {
        self.record_superseded(now, s);
        s.delivery = Delivery::Idle;
        self.cancel_delivery_timer(s);
    }

    /// Puts the messages of a refused outbox that may still leave into `out`.
    fn settle(&self, now: Tick, refused: RefusedOutbox, out: &mut Outbox) {
        let RefusedOutbox { out: mut refused, undone, .. } = refused;
        let promises = take_live_responses(now, &mut refused);
        for mut packet in refused.messages {
            let promise = promises.iter().find(|promise| promise.answer == packet.bytes);
            match (packet.ticket, promise) {
                (Some(ticket), _) if !self.still_holds(now, ticket, out) => continue,
                (None, Some(promise)) if promise.change.is_some_and(|change| undone.contains(&change)) => {
                    packet.bytes = self.refuse_promised(now, promise, &packet.to);
                    self.transactions.answered(promise.key, CachedResponse::Whole(packet.bytes.as_ref().into()));
                }
                (None, Some(promise)) => self.transactions.answered(promise.key, promise.remembered.clone()),
                _ => {}
            }
            out.messages.push(packet);
        }
        out.deferred_records.append(&mut refused.deferred_records);
        out.pending_fan_outs.append(&mut refused.pending_fan_outs);
        out.dns_queries.append(&mut refused.dns_queries);
        out.holds.append(&mut refused.holds);
    }

    /// Returns true if a NOTIFY that has not left yet describes the state that holds. If it does not, it never
    /// leaves; a phone that is stale gets a new one.
    fn still_holds(&self, now: Tick, ticket: DeliveryToken, out: &mut Outbox) -> bool {
        self.with_notify(ticket, |presentity, state, slot, cseq| {
            let current = state.views.each_ref().map(|view| view.revision);
            let Some(s) = state.watchers.get_mut(slot) else { return false };
            let current = current[s.package.0 as usize];
            match &s.delivery {
                Delivery::InFlight(flight) if flight.cseq == cseq => {
                    // A final NOTIFY says that the subscription is over, so a change of the state does not matter to
                    // it.
                    if flight.last && s.ended || flight.revision == current && flight.last == s.ended {
                        return true;
                    }
                }
                // The NOTIFY is superseded already.
                _ => return false,
            }
            self.withdraw_notify(now, s);
            if s.is_behind(current) {
                self.notify_paced(now, presentity, state, slot, out);
            } else if s.ended {
                self.notify(now, presentity, state, slot, out);
            }
            false
        }) == Some(true)
    }

    /// Builds the 503 that is sent in place of a pending response.
    fn refuse_promised(&self, now: Tick, promise: &PendingResponse, to: &Destination) -> Bytes {
        let Ok(Some(message)) = wire::read(&promise.answer) else { return promise.answer.clone() };
        let answer = self.journal_unavailable();
        self.not_kept_after_all(now, &message, to, &answer);
        let mut bytes = Vec::with_capacity(512);
        let mut writer = wire::Writer::response(&mut bytes, &answer.status, &answer.reason);
        for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            for value in message.all(name) {
                writer.header(name.text(), value);
            }
        }
        writer.lines(&answer.headers);
        writer.end();
        bytes.into()
    }
}

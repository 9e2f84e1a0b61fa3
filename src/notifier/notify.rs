//! NOTIFY: sending one, and applying its outcome to the subscription (RFC 6665 section 4.2.2; rules 1, 2 and 6).

use std::sync::Arc;

use super::notify_message::{EncodedNotify, NotifyContent};
use super::outbox::NotifyRef;
use super::pacing::{MAX_UNVERIFIED_RETRANSMITS, switch_to_new_connection};
use super::persist::{Acknowledged, CSEQ_RESERVE};
use super::wheel::TimerKind;
use super::{Notifier, Outbox};
use crate::presence::presentity::{NotifyEtag, Presentity, State};
use crate::presence::subscription::{
    Delivery, Doubts, InFlight, NotifyTransport, Revision, Subscription, SubscriptionId,
};
use crate::presence::{MAX_PACKAGES, Tick};
use crate::sip::headers::MAGIC_COOKIE;
use crate::sip::transaction::{ClientTransaction, Due};
use crate::sip::wire::{Hex, Reply};
use crate::transport::{DeliveryToken, Destination, Source};

/// Final responses that end a subscription (RFC 6665 section 4.2.2). Any other failure concerns only that one NOTIFY.
const DIALOG_ENDING: [u16; 13] = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604];
/// Back-off after the first failed NOTIFY (ms). It doubles with every further failure in a row, up to
/// [`MAX_BACKOFF`].
const INITIAL_BACKOFF: u64 = 5_000;
/// Longest back-off between two attempts (ms).
const MAX_BACKOFF: u64 = 300_000;
/// Upper limit for the Retry-After of a phone (seconds); a larger value is cut to this.
const LONGEST_RETRY_AFTER: u32 = 3_600;
/// Status used for a missing response (RFC 3261 section 8.1.3.1).
pub(super) const REQUEST_TIMEOUT: u16 = 408;

/// Status used for a NOTIFY that is too large to be sent (RFC 3261 section 21.5.7).
pub(super) const TOO_LARGE: u16 = 513;

/// Outcome of a NOTIFY.
#[derive(Clone, Copy)]
struct NotifyOutcome {
    cseq: u32,
    status: u16,
    /// Retry-After of the response (seconds).
    retry_after: Option<u32>,
    /// True for our own timeout; false for a 408 that a proxy sent.
    lost: bool,
}

impl NotifyOutcome {
    fn no_answer(cseq: u32) -> NotifyOutcome {
        NotifyOutcome { cseq, status: REQUEST_TIMEOUT, retry_after: None, lost: true }
    }
}

impl Reply<'_> {
    /// Returns the NOTIFY that this response belongs to, read from the branch that we put into its Via.
    pub(super) fn notify(&self) -> Option<NotifyRef> {
        let branch = self.branch.strip_prefix(MAGIC_COOKIE)?;
        let (place, cseq) = branch.split_at_checked(branch.bytes().rposition(|c| c == b'.')?)?;
        Some(NotifyRef { place: SubscriptionId::read(place)?, cseq: u32::try_from(Hex::read(&cseq[1..])?).ok()? })
    }
}

impl Notifier {
    /// Creates a NOTIFY with the current state and sends it.
    ///
    /// It supersedes a NOTIFY that is still in flight: that one is no longer retransmitted, and a late response to it
    /// does not count for this one. If the host name of the next hop must be resolved first, nothing is sent now;
    /// this is called again once the name is known.
    pub(super) fn notify(&self, now: Tick, presentity: &Presentity, state: &mut State, slot: u32, out: &mut Outbox) {
        if let Some(subscription) = state.watchers.get_mut(slot).filter(|s| s.source().flow.is_none()) {
            // After a restart the connection is unknown; the phone may have connected again and subscribed in another
            // dialog.
            switch_to_new_connection(subscription);
        }
        let Some(to) = self.next_hop(now, state, slot, out) else { return };
        let known = state.watchers.get_mut(slot).map(|s| (s.package, s.acknowledged));
        let Some((package, acknowledged)) = known else { return };
        let view = self.ensure_composed(presentity, state, package, out);
        let tag @ NotifyEtag { revision, fingerprint } = view.tag();
        let shared = view.body_for(acknowledged).cloned();
        let tail = self.filtered_body(presentity, state, slot, out).or(shared);
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let tail = tail.filter(|_| !subscription.suppresses(revision));
        let version = subscription.next_version;
        subscription.next_version = subscription.next_version.wrapping_add(u32::from(tail.is_some()));
        subscription.dialog.local_cseq += 1;
        // Every document needs a NOTIFY of its own, so numbers reserved for CSeq are enough for document versions,
        // too.
        if subscription.dialog.local_cseq > subscription.reserved && !subscription.ended {
            subscription.reserved = subscription.dialog.local_cseq + CSEQ_RESERVE;
            self.journal_subscription(presentity, subscription, out);
        }
        self.record_superseded(now, subscription);
        let cseq = subscription.dialog.local_cseq;
        let document =
            NotifyContent { entity: subscription.entity(&presentity.uri), tag, version, tail: tail.as_deref() };
        let EncodedNotify { to, bytes, carried } = self.write_notify(now, subscription, to, &document, &mut out.pool);
        let fresh = ClientTransaction::start(now.0, to.is_reliable());
        let (transaction, failures, copies) = match &mut subscription.delivery {
            Delivery::InFlight(flight) if flight.to.is_reliable() == to.is_reliable() => {
                flight.transaction.replace(now.0);
                (flight.transaction, flight.failures, flight.copies.saturating_add(1))
            }
            other => (fresh, other.failures(), 0),
        };
        let notify = NotifyRef { place: subscription.place, cseq };
        let size = bytes.len() as u32;
        if carried != NotifyTransport::Not {
            out.send(to.clone(), bytes, Some(notify));
        }
        subscription.last_notify_at = now;
        let last = subscription.ended;
        let sent_at = now;
        let flight = InFlight {
            cseq,
            revision,
            version,
            tail,
            fingerprint,
            size,
            to,
            sent_as: carried,
            copies,
            sent_at,
            transaction,
            failures,
            last,
        };
        subscription.delivery = Delivery::InFlight(Box::new(flight));
        if carried == NotifyTransport::Not {
            let fate = NotifyOutcome { cseq, status: TOO_LARGE, retry_after: None, lost: false };
            return self.on_notify_outcome(now, presentity, state, slot, fate, out);
        }
        self.arm_delivery_timer(now, subscription, Tick(transaction.deadline()));
    }

    /// Handles a response, which is matched to its NOTIFY by the branch that we put into the Via. A response that
    /// does not match in every respect is dropped (RFC 3261 sections 8.1.3.3, 17.1.3 and 18.1.2).
    ///
    /// `known` is the presentity of that NOTIFY, if the caller has looked it up already.
    pub(super) fn on_reply(
        &self,
        now: Tick,
        reply: &Reply<'_>,
        NotifyRef { place, cseq }: NotifyRef,
        known: Option<&Arc<Presentity>>,
        source: Source,
        out: &mut Outbox,
    ) {
        let Reply { status, retry_after, .. } = *reply;
        let ours =
            |sent_by: &str| self.settings.routing.listeners.iter().any(|l| l.sent_by.eq_ignore_ascii_case(sent_by));
        if !ours(reply.sent_by) || reply.cseq.method != "NOTIFY" || reply.cseq.number != cseq {
            return;
        }
        let take = |presentity: &Arc<Presentity>, state: &mut State| {
            let fits = |s: &Subscription| s.place == place && s.dialog.call_id() == reply.call_id;
            if state.watchers.fetch(place.slot).is_some_and(|s| fits(s)) {
                let proves = |s: &Subscription| s.delivery.is_answered_by(cseq, status, &source);
                if state.watchers.get_mut(place.slot).is_some_and(|s| proves(s))
                    && !self.settings.routing.trusts(&source)
                {
                    self.rate_limiter.mark_verified(now, &source);
                }
                let fate = NotifyOutcome { cseq, status, retry_after, lost: false };
                self.on_notify_outcome(now, presentity, state, place.slot, fate, out);
            }
        };
        match known {
            Some(known) => self.table.with_locked(known, take),
            None => self.table.with_id(place.presentity, take),
        };
    }

    /// Returns true if a NOTIFY that is about to leave is the latest of its dialog. If it is not, it is superseded
    /// (rule 2) or its subscription is gone.
    pub fn is_latest(&self, ticket: DeliveryToken) -> bool {
        let [presentity, slot, cseq, nonce] = [96, 64, 32, 0].map(|shift| (ticket.0 >> shift) as u32);
        let latest = self.table.with_id(presentity, |_, state| {
            let subscription = state.watchers.get_mut(slot).filter(|s| s.place.nonce as u32 == nonce);
            subscription.is_some_and(|s| s.dialog.local_cseq <= cseq)
        });
        latest == Some(true)
    }

    /// Handles a NOTIFY that could not be sent at all: its connection is gone and no other one can be opened.
    pub fn undeliverable(&self, now: Tick, ticket: DeliveryToken, out: &mut Outbox) {
        self.guarded(now, out, |out| {
            self.with_notify(ticket, |presentity, state, slot, cseq| {
                let Some(s) = state.watchers.get_mut(slot) else { return };
                let waited_for = matches!(&s.delivery, Delivery::InFlight(flight) if flight.cseq == cseq);
                if waited_for && switch_to_new_connection(s) {
                    self.record_superseded(now, s);
                    // The phone has opened another connection in the meantime.
                    s.delivery = Delivery::Idle;
                    self.notify(now, presentity, state, slot, out);
                } else {
                    self.on_notify_outcome(now, presentity, state, slot, NotifyOutcome::no_answer(cseq), out);
                }
            });
        });
    }

    /// Calls `f` with the presentity, its state, the slot of the subscription and the CSeq number of the NOTIFY that
    /// a ticket names. Returns `None` if the subscription is gone.
    pub(super) fn with_notify<T>(
        &self,
        ticket: DeliveryToken,
        f: impl FnOnce(&Presentity, &mut State, u32, u32) -> T,
    ) -> Option<T> {
        let [presentity, slot, cseq, nonce] = [96, 64, 32, 0].map(|shift| (ticket.0 >> shift) as u32);
        self.table.with_id(presentity, |presentity, state| {
            let there = state.watchers.get_mut(slot).is_some_and(|s| s.place.nonce as u32 == nonce);
            there.then(|| f(presentity, state, slot, cseq))
        })?
    }

    /// Applies the outcome of a NOTIFY to its subscription.
    fn on_notify_outcome(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        fate: NotifyOutcome,
        out: &mut Outbox,
    ) {
        let NotifyOutcome { cseq, status, retry_after, lost } = fate;
        let current = state.views.each_ref().map(|view| view.revision);
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let (place, from) = (subscription.place, (subscription.source(), subscription.family));
        let flight = match &mut subscription.delivery {
            Delivery::InFlight(flight) if flight.cseq == cseq => flight,
            _ => return self.on_late_reply(now, presentity, state, slot, fate, out),
        };
        if status < 200 {
            return flight.transaction.proceed(now.0);
        }
        self.record_answered(now, place, from, flight, status);
        if status == REQUEST_TIMEOUT && flight.sent_as == NotifyTransport::Tcp {
            // The phone seems to accept no TCP connections: send the same state again in a UDP datagram, whatever its
            // size.
            subscription.phone.mark_udp_only();
            subscription.delivery = Delivery::Idle;
            return self.notify(now, presentity, state, slot, out);
        }
        let known = Acknowledged(flight.revision.0, flight.fingerprint);
        if status != REQUEST_TIMEOUT && flight.sent_as != NotifyTransport::Not {
            let address = match flight.to {
                Destination::Datagram { peer, .. } => Some(peer.ip()),
                _ => None,
            };
            let asleep = subscription.phone.on_reply(now, flight.sent_at, address);
            self.schedule_resumes(now, &subscription.phone, asleep);
        }
        if (lost || status == 503) && self.try_next_target(now, presentity, state, slot, out) {
            return;
        }
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let Delivery::InFlight(flight) = &mut subscription.delivery else { return };
        let (version, tail, revision, failures, last) =
            (flight.version, flight.tail.take(), flight.revision, flight.failures, flight.last);
        subscription.failed_targets = 0;
        subscription.record_reply(cseq, status, version, tail);
        if last || (subscription.ended && status == REQUEST_TIMEOUT) {
            return self.remove(presentity, state, slot, "the last NOTIFY is done", out);
        }
        if DIALOG_ENDING.contains(&status) {
            return self.remove(presentity, state, slot, "the phone ended the dialog", out);
        }
        if subscription.doubts.has(Doubts::REPLACED) && status == REQUEST_TIMEOUT {
            return self.remove(presentity, state, slot, "its phone has another and does not answer in this one", out);
        }
        if subscription.ended {
            // The subscription expired while this NOTIFY was in flight.
            subscription.delivery = Delivery::Idle;
            return self.notify(now, presentity, state, slot, out);
        }
        if failures > 0 || status >= 300 {
            self.change_feed.subscription(presentity, subscription.place);
        }
        if status < 300 {
            let told_before = subscription.acknowledged != Revision::default();
            if told_before && revision == current[subscription.package.0 as usize] && subscription.is_behind(revision) {
                self.record_propagation(now, state.changed_at);
            }
            subscription.confirmed_cseq = cseq;
            subscription.delivery = Delivery::Idle;
            self.cancel_delivery_timer(subscription);
            subscription.acknowledged = revision;
            subscription.doubts.remove(Doubts::REPLACED);
            self.journal_acknowledged(presentity, slot, known, out);
        } else {
            let proven = self.is_address_verified(subscription);
            suspend(subscription, now, failures, status, retry_after, proven);
            if status == REQUEST_TIMEOUT {
                subscription.phone.suspend(presentity.number, slot);
            }
            if let Delivery::Suspended { until, .. } = subscription.delivery {
                self.arm_delivery_timer(now, subscription, until);
            }
            tracing::debug!(
                watcher = subscription.dialog.remote(),
                presentity = &*presentity.uri,
                status,
                failures = failures + 1,
                "a NOTIFY failed; the subscription is kept and tried again"
            );
        }
        // A change since this NOTIFY was created goes out now, but not to a phone that did not respond or that sent a
        // Retry-After: that one waits for its back-off.
        let moved_on = revision != current[subscription.package.0 as usize];
        let silent = matches!(subscription.delivery, Delivery::Suspended { silent: true, .. });
        if moved_on && !silent {
            self.notify_paced(now, presentity, state, slot, out);
        }
    }

    /// Handles a response to a NOTIFY that is no longer in flight.
    ///
    /// It acknowledges no later NOTIFY. But a response that ends the dialog still does so, unless the phone has
    /// confirmed the dialog since; and a 2xx from a phone that was taken for unresponsive is a sign of life (rule 6).
    fn on_late_reply(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        NotifyOutcome { cseq, status, .. }: NotifyOutcome,
        out: &mut Outbox,
    ) {
        let Some(subscription) = state.watchers.get_mut(slot).filter(|s| cseq > s.confirmed_cseq) else { return };
        if DIALOG_ENDING.contains(&status) {
            return self.remove(presentity, state, slot, "a late answer ended the dialog", out);
        }
        if !(200..300).contains(&status) {
            return;
        }
        subscription.confirmed_cseq = cseq;
        subscription.doubts.remove(Doubts::REPLACED);
        let asleep = subscription.phone.on_activity();
        self.schedule_resumes(now, &subscription.phone, asleep);
        self.resume(now, presentity, state, slot, out);
    }

    /// Handles the delivery timer of a subscription.
    pub(super) fn on_delivery_timer(
        &self,
        now: Tick,
        at: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        let current: [Revision; MAX_PACKAGES] = state.views.each_ref().map(|view| view.revision);
        let Some(subscription) =
            state.watchers.get_mut(slot).filter(|s| s.delivery_timer.is_some_and(|filed| filed.at() == at))
        else {
            return;
        };
        subscription.delivery_timer = None;
        let current = current[subscription.package.0 as usize];
        let behind = subscription.is_behind(current);
        let proven = self.is_address_verified(subscription);
        match &mut subscription.delivery {
            Delivery::Idle => {}
            Delivery::Throttled { until, .. }
            | Delivery::Resolving { until, .. }
            | Delivery::Suspended { until, .. }
                if now < *until =>
            {
                let until = *until;
                self.arm_delivery_timer(now, subscription, until);
            }
            Delivery::Resolving { .. } => self.resume(now, presentity, state, slot, out),
            Delivery::Throttled { .. } if behind => self.notify(now, presentity, state, slot, out),
            Delivery::Suspended { .. } if behind => self.notify_paced(now, presentity, state, slot, out),
            Delivery::Throttled { .. } | Delivery::Suspended { .. } => subscription.delivery = Delivery::Idle,
            Delivery::InFlight(flight) => match flight.transaction.due(now.0) {
                Due::Retransmission if !proven && flight.copies >= MAX_UNVERIFIED_RETRANSMITS => {
                    let deadline = Tick(flight.transaction.deadline());
                    self.arm_delivery_timer(now, subscription, deadline);
                }
                Due::Timeout => {
                    let cseq = flight.cseq;
                    self.on_notify_outcome(now, presentity, state, slot, NotifyOutcome::no_answer(cseq), out);
                }
                // The state has changed, or the subscription has ended: a new NOTIFY goes out in place of a
                // retransmission of the old one.
                Due::Retransmission
                    if (subscription.ended && !flight.last) || (!subscription.ended && flight.revision != current) =>
                {
                    subscription.phone.on_retransmit();
                    self.notify_rate_limited(now, presentity, state, slot, out);
                }
                due => {
                    let deadline = Tick(flight.transaction.deadline());
                    if due == Due::Retransmission {
                        flight.copies = flight.copies.saturating_add(1);
                        subscription.phone.on_retransmit();
                        self.retransmit(presentity, subscription, out);
                    }
                    self.arm_delivery_timer(now, subscription, deadline);
                }
            },
        }
    }

    /// Retransmits the NOTIFY that is in flight.
    fn retransmit(&self, presentity: &Presentity, subscription: &Subscription, out: &mut Outbox) {
        let Delivery::InFlight(flight) = &subscription.delivery else { return };
        let notify = NotifyRef { place: subscription.place, cseq: flight.cseq };
        let bytes = self.encode_again(presentity, subscription, flight, &mut out.pool);
        out.send(flight.to.clone(), bytes, Some(notify));
    }

    /// Sets the delivery timer of the subscription to `deadline`, unless an earlier one is set already.
    pub(super) fn arm_delivery_timer(&self, now: Tick, subscription: &mut Subscription, deadline: Tick) {
        if subscription.delivery_timer.is_none_or(|filed| filed.at() > deadline) {
            self.cancel_delivery_timer(subscription);
            let SubscriptionId { presentity, slot, .. } = subscription.place;
            subscription.delivery_timer = Some(self.wheel.schedule_delivery(now, deadline, presentity, slot));
        }
    }

    /// Cancels the delivery timer: nothing is in flight any more, or an earlier timer takes its place. Soon after the
    /// timer was set, taking it out is cheaper than handling it later for nothing.
    pub(super) fn cancel_delivery_timer(&self, subscription: &mut Subscription) {
        if let Some(filed) = subscription.delivery_timer.take() {
            let SubscriptionId { presentity, slot, .. } = subscription.place;
            self.wheel.cancel_delivery(filed, presentity, slot);
        }
    }

    /// Removes a subscription for good.
    pub(super) fn remove(
        &self,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        why: &'static str,
        out: &mut Outbox,
    ) {
        let Some(mut subscription) = state.watchers.remove(slot).map(|s| *s) else { return };
        if !subscription.ended {
            self.journal_subscription_removed(presentity, slot, out);
        }
        if state.watchers.is_empty() {
            self.journal_presentity(presentity, state, out);
        }
        self.table.uncount_subscription(presentity.aor.account);
        self.change_feed.subscription(presentity, subscription.place);
        self.wheel.cancel(subscription.expiry_timer, presentity.number, TimerKind::Expiry(slot));
        self.cancel_delivery_timer(&mut subscription);
        tracing::debug!(
            watcher = subscription.dialog.remote(),
            presentity = &*presentity.uri,
            call_id = subscription.dialog.call_id(),
            why,
            "subscription gone"
        );
        self.phones.release(subscription.phone, presentity.number, slot);
    }
}

/// Suspends a subscription after a failure that does not end it (rule 6). The back-off grows with each failure.
fn suspend(
    subscription: &mut Subscription,
    now: Tick,
    failures: u32,
    status: u16,
    retry_after: Option<u32>,
    proven: bool,
) {
    let failures = failures + 1;
    let wait = match retry_after {
        // This address is not verified and may belong to another host. So nothing more is sent to it until a phone
        // proves that it is reachable there.
        None if !proven => subscription.expires_at.0.saturating_sub(now.0),
        Some(seconds) => u64::from(seconds.min(LONGEST_RETRY_AFTER)) * 1_000,
        None => (INITIAL_BACKOFF << (failures - 1).min(16)).min(MAX_BACKOFF),
    };
    let silent = status == REQUEST_TIMEOUT || retry_after.is_some();
    subscription.delivery = Delivery::Suspended { until: now.after(wait), failures, silent };
}

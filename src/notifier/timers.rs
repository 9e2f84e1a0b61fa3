//! Handlers of due timers: expiry of subscriptions, publications and calls, and the resuming of NOTIFYs.

use std::collections::BTreeSet;

use super::history::Cause;
use super::wheel::{DueTimer, TimerKind};
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{Publication, PublicationNo, REMOVED_LASTS, RemovedPublication};
use crate::presence::subscription::Delivery;

impl Notifier {
    /// Handles a due timer. A timer that its owner has replaced or outlived does nothing.
    pub(super) fn on_timer(&self, now: Tick, entry: DueTimer, out: &mut Outbox) {
        self.table.with_id(entry.presentity, |presentity, state| match entry.watch {
            TimerKind::Expiry(slot) => self.on_subscription_expiry(now, entry.at, presentity, state, slot, out),
            TimerKind::Delivery(slot) => self.on_delivery_timer(now, entry.at, presentity, state, slot, out),
            TimerKind::Resume(slot) => self.resume(now, presentity, state, slot, out),
            TimerKind::Publication(number) => self.on_publication_expiry(now, entry.at, presentity, state, number, out),
            TimerKind::Calls => self.on_call_timer(now, entry.at, presentity, state, out),
        });
    }

    /// Sets the timer for the next deadline of a presentity's calls. A call that rings must not ring for ever, and a
    /// presentity with nothing but tombstones of ended calls is kept until these are dropped.
    pub(super) fn arm_call_timer(&self, now: Tick, presentity: &Presentity, state: &mut State) {
        let deadline = state.next_deadline();
        // Keep a timer that is due before the deadline, or at most a second after it: this does no harm, and most
        // changes of a call need not touch the timer wheel.
        if let (Some(at), Some(deadline)) = (state.calls_timer, deadline)
            && at <= deadline.after(1_000)
        {
            return;
        }
        if let Some(at) = state.calls_timer {
            self.wheel.cancel(at, presentity.number, TimerKind::Calls);
        }
        state.calls_timer =
            deadline.map(|deadline| self.wheel.schedule(now, deadline, presentity.number, TimerKind::Calls));
    }

    fn on_call_timer(&self, now: Tick, at: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        if state.calls_timer != Some(at) {
            return;
        }
        state.calls_timer = None;
        // Dropping tombstones changes no document, and then no NOTIFY is sent.
        state.pass_time(now);
        self.commit_change(now, presentity, state, Cause::CallLapsed, out);
    }

    /// Ends a subscription that was not refreshed, with a NOTIFY that says so (RFC 6665 section 4.2.1.4). If the phone
    /// no longer responds, the subscription is removed without a NOTIFY.
    fn on_subscription_expiry(
        &self,
        now: Tick,
        at: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        if subscription.expiry_timer != at || subscription.ended {
            return;
        }
        if subscription.expires_at > now {
            let deadline = subscription.expires_at;
            subscription.expiry_timer = self.wheel.schedule(now, deadline, presentity.number, TimerKind::Expiry(slot));
        } else if is_unresponsive(&subscription.delivery) {
            self.remove(presentity, state, slot, "expired while the phone was silent", out);
        } else {
            subscription.ended = true;
            self.journal_subscription_removed(presentity, slot, out);
            // While a NOTIFY is in flight, the last one waits for its response or for its next retransmission (rule 2).
            if !matches!(subscription.delivery, Delivery::InFlight(_)) {
                self.notify(now, presentity, state, slot, out);
            }
        }
    }

    /// Removes a publication that was not refreshed, with all state that only this publication reported (RFC 3903
    /// section 6).
    fn on_publication_expiry(
        &self,
        now: Tick,
        at: Tick,
        presentity: &Presentity,
        state: &mut State,
        number: PublicationNo,
        out: &mut Outbox,
    ) {
        let Some(publication) = state.publication_mut(number).filter(|p| p.timer_at == at) else { return };
        if publication.expires_at > now {
            let deadline = publication.expires_at;
            publication.timer_at =
                self.wheel.schedule(now, deadline, presentity.number, TimerKind::Publication(number));
            return;
        }
        self.expire_publication(now, presentity, state, number);
        self.commit_change(now, presentity, state, Cause::PublicationExpired, out);
    }

    /// Removes an expired publication.
    pub(super) fn expire_publication(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        number: PublicationNo,
    ) {
        let Some(publication) = state.publication_mut(number) else { return };
        tracing::debug!(presentity = &*presentity.uri, etag = %publication.etag, "publication expired");
        // A publication with a short lifetime may be gone while its publisher still retransmits the PUBLISH for lack of
        // a response. Such a request is remembered.
        let Publication { etag, requests, granted, expires_at, in_doubt, .. } = *publication;
        // The time of a PUBLISH from before a restart is known only by the clock of that time, so the current time is
        // used.
        let asked_at = if in_doubt { now } else { Tick(expires_at.0.saturating_sub(u64::from(granted) * 1_000)) };
        let removed =
            |request| RemovedPublication { request, answered: etag, granted, until: asked_at.after(REMOVED_LASTS) };
        if self.settings.journal && removed(requests.latest).until > now {
            let requests = BTreeSet::from([requests.first, requests.latest]);
            requests.into_iter().for_each(|request| state.remember_removed(removed(request)));
        }
        self.drop_publication(presentity, state, number);
    }
}

/// Returns true if the phone has not responded for longer than a transaction lasts.
fn is_unresponsive(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Idle => false,
        Delivery::Throttled { failures, .. } | Delivery::Resolving { failures, .. } => *failures > 0,
        Delivery::InFlight(flight) => flight.failures > 0,
        Delivery::Suspended { silent, .. } => *silent,
    }
}

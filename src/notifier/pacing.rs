//! Pacing of NOTIFYs per phone, and resuming suspended subscriptions when the phone becomes reachable (rules 6 and
//! 7).
//!
//! NOTIFYs that a phone did not just ask for are spread in time, across all subscriptions of that phone. A waiting
//! subscription is sent the state that is current when its time comes, so a burst of changes costs a slow phone no
//! more than it can take. When a phone that did not respond shows a sign of life in one dialog, its other
//! subscriptions resume before their back-off ends.

use super::notify::REQUEST_TIMEOUT;
use super::wheel::TimerKind;
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::device::Device;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, Subscription};
use crate::transport::Source;

/// Maximum number of retransmissions of a NOTIFY to an unverified address.
pub(super) const MAX_UNVERIFIED_RETRANSMITS: u8 = 2;

impl Notifier {
    /// Sends a NOTIFY as soon as the pacing of this phone allows it, which is nearly always at once.
    pub(super) fn notify_paced(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let turn = subscription.phone.reserve_send_time(now);
        let until = subscription.next_notify_allowed_at(self.settings.presence.min_notify_interval_ms).max(turn);
        self.notify_at(until, now, presentity, state, slot, out);
    }

    /// Sends a NOTIFY as soon as the rate that the watcher asked for allows it (RFC 6446 section 5); without such a
    /// rate, at once. The caller has waited for the pacing of the phone already.
    ///
    /// While the NOTIFY waits, none is in flight: one that was not answered yet is out of date.
    pub(super) fn notify_rate_limited(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let until = if subscription.ended {
            now
        } else {
            subscription.next_notify_allowed_at(self.settings.presence.min_notify_interval_ms)
        };
        self.notify_at(until, now, presentity, state, slot, out);
    }

    fn notify_at(
        &self,
        until: Tick,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        if until <= now {
            return self.notify(now, presentity, state, slot, out);
        }
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        self.record_superseded(now, subscription);
        subscription.delivery = Delivery::Throttled { until, failures: subscription.delivery.failures() };
        self.arm_delivery_timer(now, subscription, until);
    }

    /// Returns true if the address of a subscription is verified: messages to it are known to reach the phone and no
    /// other host.
    ///
    /// The source of a datagram is easily forged. So until the address is verified, a SUBSCRIBE causes no more than
    /// its response, one NOTIFY and [`MAX_UNVERIFIED_RETRANSMITS`] retransmissions. With `access.allow_unauthenticated` something in
    /// front of this server checks the sources.
    pub(super) fn is_address_verified(&self, s: &Subscription) -> bool {
        let address = s.source().peer.ip();
        s.source().is_stream()
            || self.settings.access.allow_unauthenticated
            || s.phone.is_verified_at(address)
            || self.settings.routing.trusts(&s.source())
    }

    /// Schedules the suspended subscriptions of a phone that has shown a sign of life to resume, at the pace of that
    /// phone.
    pub(super) fn schedule_resumes(&self, now: Tick, phone: &Device, asleep: Vec<(u32, u32)>) {
        for (presentity, slot) in asleep {
            let turn = phone.reserve_send_time(now);
            self.wheel.schedule(now, turn, presentity, TimerKind::Resume(slot));
        }
    }

    /// Resumes a subscription: its phone has shown a sign of life and its time in the pacing has come, or the host
    /// name that its NOTIFY waits for has been resolved.
    pub(super) fn resume(&self, now: Tick, presentity: &Presentity, state: &mut State, slot: u32, out: &mut Outbox) {
        let current = state.views.each_ref().map(|view| view.revision);
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        if let Delivery::Resolving { .. } = subscription.delivery {
            return self.notify(now, presentity, state, slot, out);
        }
        let unanswered = subscription.last().is_some_and(|last| last.reply == REQUEST_TIMEOUT);
        if !unanswered || !matches!(subscription.delivery, Delivery::Suspended { .. }) {
            return;
        }
        switch_to_new_connection(subscription);
        subscription.delivery = Delivery::Idle;
        if subscription.is_behind(current[subscription.package.0 as usize]) {
            self.notify_rate_limited(now, presentity, state, slot, out);
        }
    }
}

/// Switches the subscription from a connection that is gone to the one that the phone used last. Returns true if
/// there is such a connection and it is at least as secure.
pub(super) fn switch_to_new_connection(subscription: &mut Subscription) -> bool {
    if !subscription.source().is_stream() {
        return false;
    }
    match subscription.phone.way() {
        Some(way) if way.flow != subscription.source().flow && is_at_least_as_secure(&way, &subscription.source()) => {
            subscription.set_source(way);
            true
        }
        _ => false,
    }
}

/// Returns true if the path `way` is at least as secure as `than`.
pub(super) fn is_at_least_as_secure(way: &Source, than: &Source) -> bool {
    way.is_secure() >= than.is_secure() && way.certified >= than.certified
}

//! Not faster than a phone can take it, and no longer silent than it is (laws 6 and 7).
//!
//! NOTIFYs that a phone did not just ask for take turns, across all of its subscriptions. Whoever waits for his turn is
//! told what holds when it comes, so a burst of changes costs a slow phone no more than it can take. And when a phone
//! that was taken for silent shows itself in one of its dialogs, the others do not wait out their back-off.

use super::notify::NO_ANSWER;
use super::wheel::Watch;
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::phone::Phone;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, Subscription};
use crate::transport::Source;

/// How often a NOTIFY is repeated to an address from which nothing has come back yet.
pub(super) const UNPROVEN_COPIES: u8 = 2;

impl Notifier {
    /// Makes a NOTIFY once it is this phone's turn; mostly that is now.
    pub(super) fn notify_in_turn(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) {
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        let turn = subscription.phone.take_turn(now);
        let until = subscription.may_be_told(self.settings.presence.min_notify_interval_ms).max(turn);
        self.notify_not_before(until, now, presentity, state, slot, out);
    }

    /// Makes a NOTIFY as soon as the watcher wants one, his turn having come: at once, unless he has asked for fewer (RFC
    /// 6446 section 5). Till then nothing is under way: what he has not answered by now is out of date.
    pub(super) fn notify_if_due(
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
            subscription.may_be_told(self.settings.presence.min_notify_interval_ms)
        };
        self.notify_not_before(until, now, presentity, state, slot, out);
    }

    fn notify_not_before(
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
        self.note_superseded(now, subscription);
        subscription.delivery = Delivery::Paced { until, failures: subscription.delivery.failures() };
        self.watch_delivery(now, subscription, until);
    }

    /// Whether what goes to a phone is known to reach it and nobody else. Until it is, a SUBSCRIBE makes us send no more
    /// than its answer and [`UNPROVEN_COPIES`] and one NOTIFYs: the source of a datagram is easily forged, unless
    /// something in front of us sees to it that it is not (`access.allow_unauthenticated`).
    pub(super) fn is_proven(&self, s: &Subscription) -> bool {
        let address = s.source().peer.ip();
        s.source().is_stream()
            || self.settings.access.allow_unauthenticated
            || s.phone.is_proven_at(address)
            || self.settings.routing.trusts(&s.source())
    }

    /// Has the subscriptions looked at that have waited for a sign of life from their phone, in turn.
    pub(super) fn wake(&self, now: Tick, phone: &Phone, asleep: Vec<(u32, u32)>) {
        for (presentity, slot) in asleep {
            let turn = phone.take_turn(now);
            self.wheel.file(now, turn, presentity, Watch::Awakening(slot));
        }
    }

    /// The phone of this subscription has shown itself, and its turn has come; or the name that its NOTIFY waits for is
    /// known.
    pub(super) fn awaken(&self, now: Tick, presentity: &Presentity, state: &mut State, slot: u32, out: &mut Outbox) {
        let current = state.views.each_ref().map(|view| view.revision);
        let Some(subscription) = state.watchers.get_mut(slot) else { return };
        if let Delivery::Asked { .. } = subscription.delivery {
            return self.notify(now, presentity, state, slot, out);
        }
        let unanswered = subscription.last().is_some_and(|last| last.reply == NO_ANSWER);
        if !unanswered || !matches!(subscription.delivery, Delivery::Suspended { .. }) {
            return;
        }
        follow(subscription);
        subscription.delivery = Delivery::Idle;
        if subscription.is_behind(current[subscription.package.0 as usize]) {
            self.notify_if_due(now, presentity, state, slot, out);
        }
    }
}

/// Takes the connection that the phone last came by in place of one that is gone; true if there is another, and it is
/// no less safe.
pub(super) fn follow(subscription: &mut Subscription) -> bool {
    if !subscription.source().is_stream() {
        return false;
    }
    match subscription.phone.way() {
        Some(way) if way.flow != subscription.source().flow && is_as_safe(&way, &subscription.source()) => {
            subscription.comes_by(way);
            true
        }
        _ => false,
    }
}

/// Whether what went one way may go another.
pub(super) fn is_as_safe(way: &Source, than: &Source) -> bool {
    way.is_secure() >= than.is_secure() && way.certified >= than.certified
}

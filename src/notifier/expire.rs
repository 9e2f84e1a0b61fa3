//! What the passing of time does.

use std::collections::BTreeSet;

use super::history::Cause;
use super::wheel::{Entry, Watch};
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{Publication, PublicationNo, REMOVED_LASTS, Removed};
use crate::presence::subscription::Delivery;

impl Notifier {
    /// Looks at what a timer came up for. Whoever has moved on since is not concerned.
    pub(super) fn look_at(&self, now: Tick, entry: Entry, out: &mut Outbox) {
        self.table.with_number(entry.presentity, |presentity, state| match entry.watch {
            Watch::Expiry(slot) => self.look_at_expiry(now, entry.at, presentity, state, slot, out),
            Watch::Delivery(slot) => self.look_at_delivery(now, entry.at, presentity, state, slot, out),
            Watch::Awakening(slot) => self.awaken(now, presentity, state, slot, out),
            Watch::Publication(number) => self.look_at_publication(now, entry.at, presentity, state, number, out),
            Watch::Calls => self.look_at_calls(now, entry.at, presentity, state, out),
        });
    }

    /// Has the calls looked at in time: one may ring for too long, and for the sake of ended ones alone an idle
    /// presentity stays.
    pub(super) fn watch_calls(&self, now: Tick, presentity: &Presentity, state: &mut State) {
        let deadline = state.next_deadline();
        // A second late harms nobody here, and spares most changes of a call the way to the timers.
        if let (Some(at), Some(deadline)) = (state.calls_timer, deadline)
            && at <= deadline.after(1_000)
        {
            return;
        }
        if let Some(at) = state.calls_timer {
            self.wheel.cancel(at, presentity.number, Watch::Calls);
        }
        state.calls_timer = deadline.map(|deadline| self.wheel.file(now, deadline, presentity.number, Watch::Calls));
    }

    fn look_at_calls(&self, now: Tick, at: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        if state.calls_timer != Some(at) {
            return;
        }
        state.calls_timer = None;
        // Forgetting what has ended is news to nobody, and then nobody is told.
        state.pass_time(now);
        self.spread_news(now, presentity, state, Cause::CallLapsed, out);
    }

    /// A subscription that is not refreshed ends with a NOTIFY that says so (RFC 6665 section 4.2.1.4); one whose
    /// phone has fallen silent ends without.
    fn look_at_expiry(
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
            subscription.expiry_timer = self.wheel.file(now, deadline, presentity.number, Watch::Expiry(slot));
        } else if is_silent(&subscription.delivery) {
            self.remove(presentity, state, slot, "expired while the phone was silent", out);
        } else {
            subscription.ended = true;
            self.drop_subscription(presentity, slot, out);
            // With a NOTIFY under way, the last one waits for its answer or for its repetition to come due (law 2).
            if !matches!(subscription.delivery, Delivery::InFlight(_)) {
                self.notify(now, presentity, state, slot, out);
            }
        }
    }

    /// A publication that is not refreshed is gone, with all that only it said (RFC 3903 section 6).
    fn look_at_publication(
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
            publication.timer_at = self.wheel.file(now, deadline, presentity.number, Watch::Publication(number));
            return;
        }
        self.expire_publication(now, presentity, state, number);
        self.spread_news(now, presentity, state, Cause::PublicationExpired, out);
    }

    /// Lets a publication expire whose time is over.
    pub(super) fn expire_publication(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        number: PublicationNo,
    ) {
        let Some(publication) = state.publication_mut(number) else { return };
        tracing::debug!(presentity = &*presentity.uri, etag = %publication.etag, "publication expired");
        // A brief one may be gone while its publisher still repeats the request, for want of an answer.
        let Publication { etag, requests, granted, expires_at, in_doubt, .. } = *publication;
        // When one from before a restart was asked for is only known by the clock of then.
        let asked_at = if in_doubt { now } else { Tick(expires_at.0.saturating_sub(u64::from(granted) * 1_000)) };
        let removed = |request| Removed { request, answered: etag, granted, until: asked_at.after(REMOVED_LASTS) };
        if self.settings.journal && removed(requests.latest).until > now {
            let requests = BTreeSet::from([requests.first, requests.latest]);
            requests.into_iter().for_each(|request| state.remember_removed(removed(request)));
        }
        self.forget_publication(presentity, state, number);
    }
}

/// Whether the phone has not answered for longer than a transaction lasts.
fn is_silent(delivery: &Delivery) -> bool {
    match delivery {
        Delivery::Idle => false,
        Delivery::Paced { failures, .. } | Delivery::Asked { failures, .. } => *failures > 0,
        Delivery::InFlight(flight) => flight.failures > 0,
        Delivery::Suspended { silent, .. } => *silent,
    }
}

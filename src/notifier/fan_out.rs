//! Telling all who are behind, in bounded slices.

use super::history::Cause;
use super::size::MAX_DOCUMENT;
use super::{Notifier, Outbox};
use crate::package::{self, PackageId, REGISTRY};
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State, View};
use crate::presence::subscription::Delivery;

/// The most NOTIFYs made in one go while a presentity is locked.
const SLICE: usize = 256;
/// The most slots looked at in one go.
const STRIDE: usize = 4_096;

impl Notifier {
    /// Composes what the watchers of each package are to be told. With `anew`, it counts as new even if it says what
    /// was said before (a reset). Packages that nobody watches are left until somebody does.
    ///
    /// True if there is something new for anybody.
    pub(super) fn compose(&self, presentity: &Presentity, state: &mut State, anew: bool) -> bool {
        let mut news = false;
        for id in (0..REGISTRY.len()).map(|i| PackageId(i as u8)) {
            if state.watchers.any_of(id) {
                news |= self.compose_one(presentity, state, id) | anew;
                state.views[id.0 as usize].revision.0 += u64::from(anew);
            } else {
                state.views[id.0 as usize].clear();
            }
        }
        state.calls.parted();
        news
    }

    /// Composes what the watchers of one package are to be told; true if that is new.
    pub(super) fn compose_one(&self, presentity: &Presentity, state: &mut State, id: PackageId) -> bool {
        let package = package::get(id);
        let mut tail = String::with_capacity(512);
        package.write_tail(&state.news(&presentity.uri), &mut tail);
        let settled = state.calls.parting().next().map(|_| {
            let mut settled = String::with_capacity(512);
            package.write_tail(&state.picture(&presentity.uri), &mut settled);
            settled
        });
        // Calls that have ended are shown once more while there is room; without them, the document says the same.
        let settled = match settled {
            Some(settled) if tail.len() > MAX_DOCUMENT => {
                tail = settled;
                None
            }
            settled => settled,
        };
        state.views[id.0 as usize].update(&tail, settled.as_deref())
    }

    /// The view of one package, composed now if nobody has watched it before.
    pub(super) fn composed<'a>(
        &self,
        presentity: &Presentity,
        state: &'a mut State,
        id: PackageId,
        out: &mut Outbox,
    ) -> &'a View {
        if state.views[id.0 as usize].tail.is_none() {
            self.compose_one(presentity, state, id);
            self.keep_state(presentity, state, out);
        }
        &state.views[id.0 as usize]
    }

    /// Composes anew after a change, has it kept, and tells those for whom it is one.
    pub(super) fn spread_news(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        cause: Cause,
        out: &mut Outbox,
    ) {
        self.watch_calls(now, presentity, state);
        let news = self.compose(presentity, state, false);
        self.note_changed(now, presentity, state, cause, news);
        self.keep_state(presentity, state, out);
        if news {
            self.fan_out(now, presentity, state, out);
        }
    }

    /// Sends to all who are behind, or to the first of them; the rest is named in [`Outbox::unfinished`].
    pub(super) fn fan_out(&self, now: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        state.fan_out.left = state.watchers.slots();
        // Somebody who walks already will come round to everybody.
        if !state.fan_out.walking {
            self.walk(now, presentity, state, out);
        }
    }

    /// Goes on with a fan-out that [`Outbox::unfinished`] named.
    pub fn continue_fan_out(&self, now: Tick, presentity: u32, out: &mut Outbox) {
        self.contained(now, out, |out| {
            self.table.with_number(presentity, |presentity, state| self.walk(now, presentity, state, out));
        });
    }

    fn walk(&self, now: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        let (mut looked, sent) = (0, out.messages.len());
        // Set only when the walk is handed on, so that a panic on the way cannot leave it standing for ever.
        state.fan_out.walking = false;
        while state.fan_out.left > 0 && looked < STRIDE && out.messages.len() - sent < SLICE {
            looked += 1;
            state.fan_out.left -= 1;
            let slot = state.fan_out.next % state.watchers.slots().max(1);
            state.fan_out.next = slot + 1;
            let current = state.views.each_ref().map(|view| view.revision);
            let Some(subscription) = state.watchers.get_mut(slot as u32) else { continue };
            let waits = match subscription.delivery {
                Delivery::Idle => false,
                // Its answer, or its repetition coming due, brings the new state (law 2).
                Delivery::InFlight(_) => true,
                // And so does its turn.
                Delivery::Paced { .. } | Delivery::Asked { .. } => true,
                Delivery::Suspended { silent, .. } => silent,
            };
            if !waits && subscription.is_behind(current[subscription.package.0 as usize]) {
                self.notify_in_turn(now, presentity, state, slot as u32, out);
            }
        }
        if state.fan_out.left > 0 {
            state.fan_out.walking = true;
            out.unfinished.push(presentity.number);
        }
    }
}

//! Fan-out: sends a new state to all watchers that have not acknowledged it, in slices of bounded size.

use super::history::Cause;
use super::size::MAX_DOCUMENT;
use super::{Notifier, Outbox};
use crate::package::{self, PackageId, REGISTRY};
use crate::presence::Tick;
use crate::presence::presentity::{PackageView, Presentity, State};
use crate::presence::subscription::Delivery;

/// Maximum number of NOTIFYs in one slice. The presentity is locked meanwhile.
const SLICE: usize = 256;
/// Maximum number of slots that are scanned in one slice.
const MAX_SLOTS_SCANNED: usize = 4_096;

impl Notifier {
    /// Composes the document of each package that has watchers. With `anew` (a reset) it counts as new even if it is
    /// the same as before. A package without watchers is composed when the first one subscribes.
    ///
    /// Returns true if the document of any package is new.
    pub(super) fn compose_all(&self, presentity: &Presentity, state: &mut State, anew: bool) -> bool {
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

    /// Composes the document of one package; returns true if it is new.
    pub(super) fn compose_one(&self, presentity: &Presentity, state: &mut State, id: PackageId) -> bool {
        let package = package::get(id);
        let mut tail = String::with_capacity(512);
        package.write_tail(&state.news(&presentity.uri), &mut tail);
        let settled = state.calls.parting().next().map(|_| {
            let mut settled = String::with_capacity(512);
            package.write_tail(&state.composed(&presentity.uri), &mut settled);
            settled
        });
        // Calls that have just ended are shown once more, if the document is then small enough. Without them, it means
        // the same.
        let settled = match settled {
            Some(settled) if tail.len() > MAX_DOCUMENT => {
                tail = settled;
                None
            }
            settled => settled,
        };
        state.views[id.0 as usize].update(&tail, settled.as_deref())
    }

    /// View of one package. It is composed now if the package had no watcher before.
    pub(super) fn ensure_composed<'a>(
        &self,
        presentity: &Presentity,
        state: &'a mut State,
        id: PackageId,
        out: &mut Outbox,
    ) -> &'a PackageView {
        if state.views[id.0 as usize].tail.is_none() {
            self.compose_one(presentity, state, id);
            self.journal_presentity(presentity, state, out);
        }
        &state.views[id.0 as usize]
    }

    /// Applies a change: composes the documents, records the change in history and journal, and notifies the watchers
    /// whose document is new.
    pub(super) fn commit_change(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        cause: Cause,
        out: &mut Outbox,
    ) {
        self.arm_call_timer(now, presentity, state);
        let news = self.compose_all(presentity, state, false);
        self.record_change(now, presentity, state, cause, news);
        self.journal_presentity(presentity, state, out);
        if news {
            self.fan_out(now, presentity, state, out);
        }
    }

    /// Sends a NOTIFY to all watchers that have not acknowledged the current state. If that takes more than one slice,
    /// the presentity is added to [`Outbox::pending_fan_outs`] for the rest.
    pub(super) fn fan_out(&self, now: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        state.fan_out.left = state.watchers.slots();
        // A fan-out that is in progress reaches all slots, because the count above was reset.
        if !state.fan_out.walking {
            self.run_slice(now, presentity, state, out);
        }
    }

    /// Continues a fan-out that [`Outbox::pending_fan_outs`] lists.
    pub fn continue_fan_out(&self, now: Tick, presentity: u32, out: &mut Outbox) {
        self.guarded(now, out, |out| {
            self.table.with_id(presentity, |presentity, state| self.run_slice(now, presentity, state, out));
        });
    }

    fn run_slice(&self, now: Tick, presentity: &Presentity, state: &mut State, out: &mut Outbox) {
        let (mut looked, sent) = (0, out.messages.len());
        // Set again only when the rest is handed over, so that a panic in this slice cannot leave it set for ever.
        state.fan_out.walking = false;
        while state.fan_out.left > 0 && looked < MAX_SLOTS_SCANNED && out.messages.len() - sent < SLICE {
            looked += 1;
            state.fan_out.left -= 1;
            let slot = state.fan_out.next % state.watchers.slots().max(1);
            state.fan_out.next = slot + 1;
            let current = state.views.each_ref().map(|view| view.revision);
            let Some(subscription) = state.watchers.get_mut(slot as u32) else { continue };
            let waits = match subscription.delivery {
                Delivery::Idle => false,
                // Its response, or its next retransmission, brings the new state (rule 2).
                Delivery::InFlight(_) => true,
                // The NOTIFY that is scheduled brings the new state.
                Delivery::Throttled { .. } | Delivery::Resolving { .. } => true,
                Delivery::Suspended { silent, .. } => silent,
            };
            if !waits && subscription.is_behind(current[subscription.package.0 as usize]) {
                self.notify_paced(now, presentity, state, slot as u32, out);
            }
        }
        if state.fan_out.left > 0 {
            state.fan_out.walking = true;
            out.pending_fan_outs.push(presentity.number);
        }
    }
}

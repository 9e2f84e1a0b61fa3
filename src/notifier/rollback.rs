//! Rollback: a change that the journal has refused has not happened (rule 5).
//!
//! Requests are decided in memory first, and their messages wait for the journal. Each change that a request asked for
//! (PUBLISH, SUBSCRIBE, refresh, end, set, reset) leaves a [`Change`] in its outbox with what it has to be undone with. When
//! the journal has kept the records, that is thrown away and has cost nothing more. When the journal has refused them:
//! - memory goes back to what it was before the change, newest change first, so that changes which were made one upon
//!   the other are undone one after the other;
//! - the answer becomes 503 with Retry-After, and the entity-tag of before is good again;
//! - NOTIFYs that tell of the change do not leave. A watcher that is behind gets one with the state that holds;
//! - a record with the state that holds follows, in case that the refused one has reached the disk all the same (a disk
//!   that hangs and goes on). The journal takes no other change before that.
//!
//! What no request has asked for (expiry, numbers reserved for NOTIFYs) is not undone: the next start would come to the same
//! decision. It gets records anew like all others, for the journal to write when it can.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::Remembered;
use super::history::Cause;
use super::outbox::Promise;
use super::persist::Known;
use super::request::in_time;
use super::wheel::Watch;
use super::{Notifier, Outbox};
use crate::journal::{Hold, Key};
use crate::presence::calls::Calls;
use crate::presence::facts::CallState;
use crate::presence::family::Family;
use crate::presence::phone::Phone;
use crate::presence::presentity::{Presentity, State, StateTag, View};
use crate::presence::publication::{Publication, RemovedPublications};
use crate::presence::shared::SharedText;
use crate::presence::subscription::{Delivery, Doubts, Particulars, Place, Subscription};
use crate::presence::{MAX_PACKAGES, Tick};
use crate::sip::wire::{self, Name};
use crate::transport::{Destination, Source, Ticket};

/// How long a refused change waits for a later one on the same presentity to be refused as well (ms). One that was not
/// refused by then was kept, and its record holds this change, too.
const SETTLED_AFTER: u64 = 1_000;

/// A change that a request asked for, and how to undo it.
#[derive(Debug)]
pub struct Change {
    presentity: Arc<Presentity>,
    /// Its number, which rises with every change.
    number: u64,
    /// The number of the change before it on the same presentity.
    before: u64,
    undo: Undo,
}

/// What there was before a change.
#[derive(Debug)]
pub(super) enum Undo {
    /// Before a PUBLISH, a set or a reset.
    State(Box<StateBefore>),
    /// Before a new subscription.
    Subscribed(Box<Subscribed>),
    /// Before a refresh or an end.
    Granted(Box<SubscriptionBefore>),
}

/// What publishers and the API had said of a presentity.
#[derive(Debug)]
pub(super) struct StateBefore {
    calls: Calls,
    publications: Vec<Publication>,
    removed: Option<Box<RemovedPublications>>,
    manual: Option<CallState>,
    /// What watchers of each package were told.
    views: [StateTag; MAX_PACKAGES],
}

/// A subscription that is new.
#[derive(Debug)]
pub(super) struct Subscribed {
    /// Where it lives.
    pub(super) place: Place,
    /// The one whose place it has taken, as its phone has subscribed anew.
    pub(super) replaced: Option<Removed>,
    /// The slot of one that is doubted since then.
    pub(super) doubted: Option<u32>,
}

/// What a subscription was.
#[derive(Debug)]
pub(super) struct SubscriptionBefore {
    place: Place,
    particulars: Option<Box<Particulars>>,
    source: Source,
    granted: u32,
    expires_at: Tick,
    ended: bool,
    user_agent: Option<SharedText>,
    family: Family,
    /// Its remote target, where the request has another one.
    target: Option<Box<str>>,
    /// All of it, where the request may remove it at once.
    removed: Option<Removed>,
}

/// A subscription that a change removes from memory, as it was.
#[derive(Debug)]
pub(super) struct Removed(Box<Subscription>);

impl From<&Subscription> for Removed {
    fn from(s: &Subscription) -> Removed {
        // It does not count for its phone while it is not there.
        let mut removed = Box::new(s.clone());
        removed.phone = Phone::detached(s.phone.id());
        Removed(removed)
    }
}

/// An outbox whose records the journal has refused.
#[derive(Debug)]
pub(super) struct Refused {
    out: Outbox,
    since: Tick,
    /// The numbers of its changes that have been undone.
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
            views: state.views.each_ref().map(View::tag),
        }
    }
}

impl SubscriptionBefore {
    pub(super) fn of(s: &Subscription, new_target: Option<&str>) -> SubscriptionBefore {
        SubscriptionBefore {
            place: s.place,
            particulars: s.particulars.clone(),
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

    /// With all of the subscription, where it may be removed at once.
    pub(super) fn with_all(self, removed: Option<Removed>) -> SubscriptionBefore {
        SubscriptionBefore { removed, ..self }
    }
}

impl Notifier {
    /// Notes that a change begins that a request asked for; `undo` tells what there was before it.
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

    /// The same of what publishers and the API say.
    pub(super) fn begin_state_change(&self, presentity: &Arc<Presentity>, state: &mut State, out: &mut Outbox) {
        self.begin_change(presentity, state, out, |state| Undo::State(Box::new(StateBefore::from(&*state))));
    }

    /// The journal has refused the records of an outbox: undoes its changes, and puts into `out` what is to leave instead.
    /// The records in `out` are remarks, to be appended before its holds are dropped, the last of which is `hold`.
    pub fn roll_back(&self, now: Tick, refused: Outbox, hold: Option<Hold>, out: &mut Outbox) {
        self.note_refused(now, refused, hold);
        self.settle_refused(now, out);
    }

    /// The same of several that were refused together: nothing leaves before [`Notifier::settle_refused`], and that knows of
    /// all of them.
    pub fn note_refused(&self, now: Tick, mut refused: Outbox, hold: Option<Hold>) {
        refused.holds.extend(hold);
        self.refused.lock().push(Refused { out: refused, since: now, undone: Vec::new() });
    }

    /// Goes on with refused changes that wait for later ones to be refused as well; true if any still waits.
    pub fn settle_refused(&self, now: Tick, out: &mut Outbox) -> bool {
        let mut all = self.refused.lock();
        if !all.is_empty() {
            self.undo_refused(now, &mut all, out);
        }
        !all.is_empty()
    }

    fn undo_refused(&self, now: Tick, all: &mut Vec<Refused>, out: &mut Outbox) {
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
        let over = |refused: &Refused| refused.out.changes.is_empty() || refused.since.after(SETTLED_AFTER) <= now;
        let settled: Vec<_> = all.extract_if(.., |refused| over(refused)).collect();
        let keys: BTreeSet<Key> = settled.iter().flat_map(|refused| &refused.out.appended).copied().collect();
        for refused in settled {
            self.settle(now, refused, &mut work);
        }
        keys.into_iter().for_each(|key| self.keep_again(key, &mut work));
        out.messages.append(&mut work.messages);
        out.unfinished.append(&mut work.unfinished);
        out.questions.append(&mut work.questions);
        out.holds.append(&mut work.holds);
        out.remarks.append(&mut work.remarks);
        out.remarks.append(&mut work.records);
    }

    /// Undoes a change; gives it back if there is a later one on top of it.
    fn undo(&self, now: Tick, change: Change, out: &mut Outbox) -> Result<(), Change> {
        let Change { presentity, number, before, undo } = change;
        let retired = presentity.lock().retired;
        // It may have been retired since, with nothing left to know of it.
        let home = match retired {
            false => Some(Arc::clone(&presentity)),
            true => {
                let realm = self.settings.directory.realm(presentity.aor.account);
                self.table.restore(presentity.number, &presentity.aor, realm)
            }
        };
        let Some(home) = home else { return Ok(()) };
        let undone = self.table.locked(&home, |presentity, state| {
            if state.last_change != number && !retired {
                return Err(undo);
            }
            state.last_change = before;
            match undo {
                Undo::State(before) => self.undo_state(now, presentity, state, *before, out),
                Undo::Subscribed(new) => self.undo_subscribed(now, presentity, state, *new, out),
                Undo::Granted(before) => self.undo_grant(now, presentity, state, *before),
            }
            Ok(())
        });
        if let Some(Err(undo)) = undone {
            return Err(Change { presentity, number, before, undo });
        }
        self.contained(now, out, |out| {
            self.table.locked(&home, |presentity, state| self.fan_out(now, presentity, state, out));
        });
        Ok(())
    }

    fn undo_state(&self, now: Tick, presentity: &Presentity, state: &mut State, before: StateBefore, out: &mut Outbox) {
        let watch = |publication: &Publication| Watch::Publication(publication.etag.number);
        for publication in &state.publications {
            self.wheel.cancel(publication.timer_at, presentity.number, watch(publication));
        }
        let StateBefore { calls, publications, removed, manual, views } = before;
        (state.calls, state.publications, state.removed, state.manual) = (calls, publications, removed, manual);
        for publication in &mut state.publications {
            publication.timer_at = self.wheel.file(now, publication.expires_at, presentity.number, watch(publication));
        }
        // What has ended since by itself stays so.
        let over = state.publications.iter().filter(|p| p.expires_at <= now).map(|p| p.etag.number);
        for number in over.collect::<Vec<_>>() {
            self.expire_publication(now, presentity, state, number);
        }
        state.pass_time(now);
        self.watch_calls(now, presentity, state);
        let news = self.compose(presentity, state, false);
        self.note_changed(now, presentity, state, Cause::RolledBack, news);
        // A phone that has acknowledged the document of before knows the one that holds now: it is the same.
        let now_told = state.views.each_ref().map(View::tag);
        for slot in 0..state.watchers.slots() as u32 {
            let Some(s) = state.watchers.get_mut(slot) else { continue };
            let (known, told) = (views[s.package.0 as usize], now_told[s.package.0 as usize]);
            if s.acknowledged == known.revision && known.fingerprint == told.fingerprint {
                s.acknowledged = told.revision;
                self.remark_acknowledged(presentity, slot, Known(told.revision.0, told.fingerprint), out);
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

    fn undo_grant(&self, now: Tick, presentity: &Presentity, state: &mut State, before: SubscriptionBefore) {
        let SubscriptionBefore { place, source, removed, .. } = before;
        let Some(s) = state.watchers.get_mut(place.slot).filter(|s| s.place == place) else {
            return removed.into_iter().for_each(|removed| self.bring_back(now, presentity, state, removed));
        };
        s.comes_by(source);
        if let Some(target) = &before.target {
            // It was short enough before.
            let _ = s.aim_at(target);
        }
        (s.particulars, s.user_agent, s.family) = (before.particulars, before.user_agent, before.family);
        (s.granted, s.expires_at, s.ended) = (before.granted, before.expires_at, before.ended);
        let expiry = Watch::Expiry(place.slot);
        self.wheel.cancel(s.expiry_timer, presentity.number, expiry);
        s.expiry_timer = self.wheel.file(now, s.expires_at, presentity.number, expiry);
        self.withdraw_notify(now, s);
    }

    /// Brings back a subscription that the undone change has removed, with the NOTIFY that waits for its answer.
    fn bring_back(&self, now: Tick, presentity: &Presentity, state: &mut State, Removed(mut s): Removed) {
        let slot = s.place.slot;
        if !state.watchers.is_free(slot) {
            return;
        }
        s.phone = self.phones.obtain(s.phone.id());
        s.expiry_timer = self.wheel.file(now, s.expires_at, presentity.number, Watch::Expiry(slot));
        s.delivery_timer = None;
        let deadline = match &s.delivery {
            Delivery::Idle => None,
            // The answer of the name service has found no subscription meanwhile.
            Delivery::Asked { .. } => Some(now),
            Delivery::Paced { until, .. } | Delivery::Suspended { until, .. } => Some(*until),
            Delivery::InFlight(flight) => Some(Tick(flight.transaction.deadline())),
        };
        if let Delivery::Suspended { silent: true, .. } = s.delivery {
            s.phone.sleeps(presentity.number, slot);
        }
        deadline.into_iter().for_each(|deadline| self.watch_delivery(now, &mut s, deadline));
        state.watchers.restore(slot, *s);
        self.table.count_subscription(presentity.aor.account);
    }

    /// What is under way tells of what does not hold: nothing is, then.
    fn withdraw_notify(&self, now: Tick, s: &mut Subscription) {
        self.note_superseded(now, s);
        s.delivery = Delivery::Idle;
        self.watch_no_more(s);
    }

    /// Puts what is to leave of a refused outbox into `out`.
    fn settle(&self, now: Tick, refused: Refused, out: &mut Outbox) {
        let Refused { out: mut refused, undone, .. } = refused;
        let promises = in_time(now, &mut refused);
        for mut packet in refused.messages {
            let promise = promises.iter().find(|promise| promise.answer == packet.bytes);
            match (packet.ticket, promise) {
                (Some(ticket), _) if !self.still_holds(now, ticket, out) => continue,
                (None, Some(promise)) if promise.change.is_some_and(|change| undone.contains(&change)) => {
                    packet.bytes = self.refuse_promised(now, promise, &packet.to);
                    self.transactions.answered(promise.key, Remembered::Whole(packet.bytes.as_ref().into()));
                }
                (None, Some(promise)) => self.transactions.answered(promise.key, promise.remembered.clone()),
                _ => {}
            }
            out.messages.push(packet);
        }
        out.remarks.append(&mut refused.remarks);
        out.unfinished.append(&mut refused.unfinished);
        out.questions.append(&mut refused.questions);
        out.holds.append(&mut refused.holds);
    }

    /// Whether a NOTIFY that has not left yet tells what holds. If it does not, it never leaves; a phone that is behind is
    /// told anew.
    fn still_holds(&self, now: Tick, ticket: Ticket, out: &mut Outbox) -> bool {
        self.with_notify(ticket, |presentity, state, slot, cseq| {
            let current = state.views.each_ref().map(|view| view.revision);
            let Some(s) = state.watchers.get_mut(slot) else { return false };
            let current = current[s.package.0 as usize];
            match &s.delivery {
                Delivery::InFlight(flight) if flight.cseq == cseq => {
                    // The last one tells that it is over, whatever else has changed.
                    if flight.last && s.ended || flight.revision == current && flight.last == s.ended {
                        return true;
                    }
                }
                // Superseded already.
                _ => return false,
            }
            self.withdraw_notify(now, s);
            if s.is_behind(current) {
                self.notify_in_turn(now, presentity, state, slot, out);
            } else if s.ended {
                self.notify(now, presentity, state, slot, out);
            }
            false
        }) == Some(true)
    }

    /// 503 in place of a promised answer.
    fn refuse_promised(&self, now: Tick, promise: &Promise, to: &Destination) -> Bytes {
        let Ok(Some(message)) = wire::read(&promise.answer) else { return promise.answer.clone() };
        let answer = self.not_kept();
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

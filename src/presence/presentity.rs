//! Presentity: everything about one address that must change together, under one lock (rule 3).

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use siphasher::sip::SipHasher13;

use super::calls::Calls;
use super::device::DeviceId;
use super::dialog_filter::DialogFilter;
use super::intern::InternedStr;
use super::publication::{
    Content, Publication, PublicationNo, RemovedPublication, RemovedPublications, compose_mailbox, compose_person,
};
use super::state::{CallReport, CallState, ComposedState, PublishedState};
use super::subscription::{Revision, Subscription};
use super::{Aor, MAX_PACKAGES, PackageId, Tick};
use crate::sip::wire::{Hex, Value};
use crate::util::prefetch::{self, PrefetchMark};

/// An address that is watched or published for.
#[derive(Debug)]
pub struct Presentity {
    lines: PrefetchMark,
    /// Number of the presentity, which our tags and branches carry.
    pub number: u32,
    /// Address of record.
    pub aor: Aor,
    /// `sip:user@realm`, canonical.
    pub uri: Arc<str>,
    state: Mutex<State>,
}

/// State of a presentity that its lock protects.
#[derive(Debug, Default)]
pub struct State {
    /// True once the presentity has been removed from the table. A holder of a reference must look it up again.
    pub retired: bool,
    /// Its calls.
    pub calls: Calls,
    /// Its publications, oldest first.
    pub publications: Vec<Publication>,
    /// Publications that were removed lately. Boxed, as most presentities have none.
    #[allow(clippy::box_collection)]
    pub removed: Option<Box<RemovedPublications>>,
    /// State set by the API; never `Terminated`.
    pub manual: Option<CallState>,
    /// The subscriptions of its watchers, by slot.
    pub watchers: Watchers,
    /// Composed state per package, as watchers are sent it.
    pub views: [PackageView; MAX_PACKAGES],
    /// Cursor of the fan-out over the stale watchers.
    pub fan_out: FanOutCursor,
    /// Time of the latest change.
    pub changed_at: Tick,
    /// Time at which the timer for calls (ringing or ended) and for removed publications fires next.
    pub calls_timer: Option<Tick>,
    /// Number of the latest change that the journal was asked to keep and that can be rolled back; see
    /// `notifier/rollback.rs`.
    pub last_change: u64,
}

/// Composed state of one package: the part of the document that all its watchers share.
#[derive(Clone, Debug, Default)]
pub struct PackageView {
    /// Number of changes so far.
    pub revision: Revision,
    /// Shared part of the document that reports the latest change; none before the first watcher.
    pub tail: Option<InternedStr>,
    /// Shared part for a watcher that has acknowledged that change or subscribes later: without the calls that ended
    /// with the change.
    pub settled: Option<InternedStr>,
    /// Hash of the `settled` document. Unlike the revision it means the same after a restart.
    pub fingerprint: u64,
}

/// Entity-tag of a view (RFC 5839 section 4).
///
/// It holds the revision, so that a state that went and came back has another tag, and the hash of the document, so
/// that a tag from before a restart matches the same state or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyEtag {
    /// Revision of the view.
    pub revision: Revision,
    /// Hash of the settled document.
    pub fingerprint: u64,
}

impl fmt::Display for NotifyEtag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:016x}", self.revision.0, self.fingerprint)
    }
}

impl Value for NotifyEtag {
    fn put(&self, out: &mut Vec<u8>) {
        (Hex(self.revision.0, 1), ".", Hex(self.fingerprint, 16)).put(out);
    }
}

/// Hash of a document, without a key: the same in every run.
fn fingerprint(text: &str) -> u64 {
    SipHasher13::new().hash(text.as_bytes())
}

impl PackageView {
    /// Stores a newly composed document. `settled` is the document once the change has been notified, where it
    /// differs. Returns true if the document is new.
    pub fn update(&mut self, tail: &str, settled: Option<&str>) -> bool {
        if self.settled.as_deref() == Some(tail) {
            return false;
        }
        let tail = InternedStr::from(tail);
        let settled = settled.map_or_else(|| tail.clone(), InternedStr::from);
        self.fingerprint = fingerprint(&settled);
        self.settled = Some(settled);
        self.tail = Some(tail);
        self.revision.0 += 1;
        true
    }

    /// Prefetches the pointer to the settled document, which most watchers are sent.
    pub fn fetch(&self) {
        self.settled.iter().for_each(InternedStr::fetch);
    }

    /// Prefetches the settled document. To be called once the line of [`PackageView::fetch`] has arrived.
    pub fn fetch_text(&self) {
        self.settled.iter().for_each(InternedStr::fetch_text);
    }

    /// Document for a watcher with this acknowledged revision: with the latest change if the watcher is stale, else
    /// the settled one.
    pub fn body_for(&self, acknowledged: Revision) -> Option<&InternedStr> {
        let knows = acknowledged == self.revision || acknowledged == Revision::default();
        if knows { self.settled.as_ref() } else { self.tail.as_ref() }
    }

    /// Entity-tag of the current state.
    pub fn tag(&self) -> NotifyEtag {
        NotifyEtag { revision: self.revision, fingerprint: self.fingerprint }
    }

    /// Drops the document. The next one counts as a change.
    pub fn clear(&mut self) {
        (self.tail, self.settled) = (None, None);
    }
}

/// Cursor of a fan-out over all slots, in bounded slices. A change during the fan-out extends it by one full round
/// from where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanOutCursor {
    /// Slot to check next.
    pub next: usize,
    /// Number of slots left to check.
    pub left: usize,
    /// True while a thread runs the fan-out.
    pub walking: bool,
}

/// Subscriptions by slot. A free slot is used again.
#[derive(Debug, Default)]
pub struct Watchers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Number of slots that are reserved for subscriptions which the journal has and which cannot be restored in this
    /// run.
    reserved: u32,
    of_package: [u32; MAX_PACKAGES],
    /// Slots by the key of [`wish_of`], for presentities with too many slots to search: the latest subscription of
    /// each key.
    #[allow(clippy::box_collection)] // Hardly any presentity has one.
    of_wish: Option<Box<HashMap<u64, u32, RandomState>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Key of the subscription ([`wish_of`]), by which an older subscription of the same device is found. 0 if the
    /// device has a newer subscription with this key, or the slot is free.
    wish: u64,
    subscription: Option<Box<Subscription>>,
}

/// Number of slots from which on they are indexed by key.
const MANY: usize = 64;

/// Hash of (device, package, event id), never 0. A device has one subscription for each.
fn wish_of(phone: DeviceId, package: PackageId, event_id: Option<&str>) -> u64 {
    let mut hasher = SipHasher13::new();
    (phone, package, event_id).hash(&mut hasher);
    hasher.finish().max(1)
}

impl Watchers {
    /// Slot that the next subscription will get.
    pub fn vacant(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    /// Slot of the latest subscription of a device with this package and event id.
    pub fn latest_of(&self, phone: DeviceId, package: PackageId, event_id: Option<&str>) -> Option<u32> {
        let slot = self.latest(wish_of(phone, package, event_id))?;
        let s = self.slots.get(slot as usize)?.subscription.as_deref()?;
        (s.phone.id() == phone && s.package == package && s.event_id() == event_id).then_some(slot)
    }

    /// Puts a subscription into the vacant slot. `lasting` is false for a fetch of the state, which no later
    /// SUBSCRIBE replaces.
    pub fn insert(&mut self, subscription: Subscription, lasting: bool) {
        self.of_package[subscription.package.0 as usize] += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // Grows by half: doubling would leave a third of the slots empty.
                    self.slots.reserve_exact((self.slots.len() / 2).max(2));
                }
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
        };
        if lasting {
            self.index(slot as u32, &subscription);
        }
        self.slots[slot].subscription = Some(Box::new(subscription));
    }

    /// Puts a subscription back into the slot that it had before a restart. Returns false if the slot is taken.
    pub fn restore(&mut self, slot: u32, subscription: Subscription) -> bool {
        if !self.take_free(slot) {
            return false;
        }
        self.of_package[subscription.package.0 as usize] += 1;
        let wish = wish_of(subscription.phone.id(), subscription.package, subscription.event_id());
        let other = self.latest(wish).and_then(|slot| self.slots.get(slot as usize)?.subscription.as_deref());
        // Slots come back in the order of their numbers, which is not the order of time.
        if other.is_none_or(|other| other.subscribed_at() <= subscription.subscribed_at()) {
            self.index(slot, &subscription);
        }
        self.slots[slot as usize].subscription = Some(Box::new(subscription));
        true
    }

    /// Reserves the slot of a subscription that cannot be restored in this run, so that no other subscription gets
    /// its journal key and its tags. Returns false if the slot is taken.
    pub fn reserve(&mut self, slot: u32) -> bool {
        let reserved = self.take_free(slot);
        self.reserved += u32::from(reserved);
        reserved
    }

    /// Frees a reserved slot.
    pub fn unreserve(&mut self, slot: u32) {
        let reserved = self.slots.get(slot as usize).is_some_and(|known| known.subscription.is_none());
        if reserved && self.reserved > 0 && !self.free.contains(&slot) {
            self.reserved -= 1;
            self.free.push(slot);
        }
    }

    /// Returns true if a subscription could be put into a slot.
    pub fn is_free(&self, slot: u32) -> bool {
        slot as usize >= self.slots.len() || self.free.contains(&slot)
    }

    /// Takes a given slot from the free ones. Returns false if it is not free.
    fn take_free(&mut self, slot: u32) -> bool {
        while self.slots.len() <= slot as usize {
            self.free.push(self.slots.len() as u32);
            self.slots.push(Slot::default());
        }
        let place = self.free.iter().position(|free| *free == slot);
        place.map(|place| self.free.swap_remove(place)).is_some()
    }

    fn latest(&self, wish: u64) -> Option<u32> {
        match &self.of_wish {
            Some(of_wish) => of_wish.get(&wish).copied(),
            None => self.slots.iter().position(|known| known.wish == wish).map(|slot| slot as u32),
        }
    }

    fn index(&mut self, slot: u32, s: &Subscription) {
        let wish = wish_of(s.phone.id(), s.package, s.event_id());
        if let Some(earlier) = self.latest(wish) {
            self.slots[earlier as usize].wish = 0;
        }
        self.slots[slot as usize].wish = wish;
        match &mut self.of_wish {
            Some(of_wish) => _ = of_wish.insert(wish, slot),
            None if self.slots.len() < MANY => {}
            None => {
                let known = self.slots.iter().zip(0..).filter(|(known, _)| known.wish != 0);
                self.of_wish = Some(Box::new(known.map(|(known, slot)| (known.wish, slot)).collect()));
            }
        }
    }

    /// Makes the subscription in a slot the latest one of its device for its event again.
    pub fn index_again(&mut self, slot: u32) {
        if let Some(subscription) = self.slots.get_mut(slot as usize).and_then(|known| known.subscription.take()) {
            self.index(slot, &subscription);
            self.slots[slot as usize].subscription = Some(subscription);
        }
    }

    /// Subscription in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Subscription> {
        self.slots.get_mut(slot as usize)?.subscription.as_deref_mut()
    }

    /// Prefetches the first slots, which are searched for an older subscription of a new watcher.
    pub fn fetch_slots(&self) {
        (0..self.slots.len().min(16)).step_by(4).for_each(|slot| prefetch::prefetch_element(&self.slots, slot));
    }

    /// Prefetches one slot.
    pub fn fetch_slot(&self, slot: u32) {
        prefetch::prefetch_element(&self.slots, slot as usize);
    }

    /// Prefetches the subscription in a slot. To be called once the line of [`Watchers::fetch_slot`] has arrived.
    pub fn fetch_subscription(&self, slot: u32) {
        let subscription = self.slots.get(slot as usize).and_then(|slot| slot.subscription.as_deref());
        subscription.into_iter().for_each(Subscription::fetch_itself);
    }

    /// Subscription in a slot, all lines of which are prefetched.
    pub fn fetch(&mut self, slot: u32) -> Option<&mut Subscription> {
        let subscription = self.get_mut(slot)?;
        subscription.fetch();
        Some(subscription)
    }

    /// Removes a subscription.
    pub fn remove(&mut self, slot: u32) -> Option<Box<Subscription>> {
        let left = self.slots.get_mut(slot as usize)?;
        let taken = left.subscription.take()?;
        let wish = std::mem::take(&mut left.wish);
        self.free.push(slot);
        self.of_package[taken.package.0 as usize] -= 1;
        if let Some(of_wish) = self.of_wish.as_mut().filter(|of_wish| of_wish.get(&wish) == Some(&slot)) {
            of_wish.remove(&wish);
        }
        if self.is_vacant() {
            *self = Watchers::default();
        }
        Some(taken)
    }

    /// All subscriptions, in order of slot.
    pub fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.slots.iter().filter_map(|slot| slot.subscription.as_deref())
    }

    /// Number of subscriptions.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.reserved as usize
    }

    /// True if there is no subscription and no reserved slot.
    pub fn is_vacant(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// True if there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of slots, used or free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// True if the package has a watcher.
    pub fn any_of(&self, package: PackageId) -> bool {
        self.of_package[package.0 as usize] > 0
    }
}

impl Presentity {
    /// Creates a presentity without any state.
    pub fn new(number: u32, aor: Aor, realm: &str) -> Presentity {
        let uri = aor.uri(realm).into();
        Presentity { lines: PrefetchMark::default(), number, aor, uri, state: Mutex::default() }
    }

    /// Prefetches the presentity.
    #[inline]
    pub fn fetch(&self) {
        self.lines.prefetch::<Presentity>(offset_of!(Presentity, lines));
    }

    /// Takes the lock. The lock is held for one decision, never across anything that waits.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Current state, composed from all sources, for writing documents.
    pub fn composed<'a>(&'a self, uri: &'a str) -> ComposedState<'a> {
        self.compose(uri, self.calls.ranked())
    }

    /// Current state, with the calls that have just ended.
    pub fn news<'a>(&'a self, uri: &'a str) -> ComposedState<'a> {
        let mut calls = self.calls.ranked();
        calls.extend(self.calls.parting());
        self.compose(uri, calls)
    }

    /// State of one dialog: its live branches, else the latest of them that is remembered as ended.
    pub fn composed_for<'a>(&'a self, uri: &'a str, named: &DialogFilter) -> ComposedState<'a> {
        let mut calls = self.calls.ranked();
        calls.retain(|call| named.is(call));
        if calls.is_empty() {
            calls.extend(self.calls.ended().find(|call| named.is(call)));
        }
        ComposedState { uri, calls, ..ComposedState::default() }
    }

    fn compose<'a>(&'a self, uri: &'a str, calls: Vec<&'a CallReport>) -> ComposedState<'a> {
        let persons = self.publications.iter().filter_map(|p| match &p.content {
            Content::PersonState(person) => Some(person),
            _ => None,
        });
        let mailboxes = self.publications.iter().filter_map(|p| match &p.content {
            Content::Mailbox(mailbox) => Some(mailbox),
            _ => None,
        });
        ComposedState {
            uri,
            calls,
            manual: self.manual,
            person: compose_person(persons),
            mailbox: compose_mailbox(mailboxes),
        }
    }

    /// Applies a new report of publication `number`. Calls are applied to [`State::calls`]; other content is
    /// returned, to be kept with the publication.
    pub fn take_report(&mut self, now: Tick, number: PublicationNo, report: PublishedState) -> Content {
        match report {
            PublishedState::Calls(calls) => {
                self.calls.apply(now, number, &calls);
                Content::Calls
            }
            PublishedState::PersonState(person) => Content::PersonState(person),
            PublishedState::Mailbox(mailbox) => Content::Mailbox(mailbox),
        }
    }

    /// Publication with this number.
    pub fn publication_mut(&mut self, number: PublicationNo) -> Option<&mut Publication> {
        self.publications.iter_mut().find(|p| p.etag.number == number)
    }

    /// Removes a publication, and the calls that only it reported.
    pub fn remove_publication(&mut self, number: PublicationNo) {
        self.publications.retain(|p| p.etag.number != number);
        self.calls.release(number);
    }

    /// Remembers a publication that was removed.
    pub fn remember_removed(&mut self, removed: RemovedPublication) {
        self.removed.get_or_insert_default().add(removed);
    }

    /// Time at which [`State::pass_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Tick> {
        let removed = self.removed.as_ref().and_then(|removed| removed.next_deadline());
        [self.calls.next_deadline(), removed].into_iter().flatten().min()
    }

    /// Ends calls whose lease has expired, and forgets what ended or was removed long enough ago.
    pub fn pass_time(&mut self, now: Tick) {
        self.calls.pass_time(now);
        if let Some(removed) = &mut self.removed {
            removed.pass_time(now);
        }
        self.removed.take_if(|removed| removed.is_empty());
    }

    /// True if ended calls or removed publications are remembered.
    pub fn remembers(&self) -> bool {
        self.calls.remembers() || self.removed.is_some()
    }

    /// Forgets every call and the manual state. Message counts and notes stay. The entity-tags stay as well: a
    /// refresh without a body is accepted, and brings no call back.
    pub fn reset(&mut self) {
        self.calls.reset();
        self.manual = None;
        for publication in &mut self.publications {
            publication.content.reset();
        }
    }

    /// True if there is no watcher, publication or manual state. Ended calls and removed publications do not count.
    pub fn is_idle(&self) -> bool {
        self.watchers.is_vacant() && self.publications.is_empty() && self.manual.is_none()
    }
}

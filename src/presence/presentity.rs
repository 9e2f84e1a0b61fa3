//! A presentity: everything about one address that must change together, under one lock (law 3).

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
use crate::ahead::{self, Lines};
use crate::sip::wire::{Hex, Value};

/// One address that is watched or published for.
#[derive(Debug)]
pub struct Presentity {
    lines: Lines,
    /// Its number, which our tags carry.
    pub number: u32,
    /// Its address.
    pub aor: Aor,
    /// `sip:user@realm`, canonical.
    pub uri: Arc<str>,
    state: Mutex<State>,
}

/// All that changes about a presentity.
#[derive(Debug, Default)]
pub struct State {
    /// It has been taken out of the table; whoever still holds it has to look it up anew.
    pub retired: bool,
    /// Its calls.
    pub calls: Calls,
    /// Its publications, oldest first.
    pub publications: Vec<Publication>,
    /// Publications that were removed lately; boxed, for most presentities have none.
    #[allow(clippy::box_collection)]
    pub removed: Option<Box<RemovedPublications>>,
    /// State set by the API; never `Terminated`.
    pub manual: Option<CallState>,
    /// The subscriptions of its watchers, by slot.
    pub watchers: Watchers,
    /// What watchers of each package are told.
    pub views: [PackageView; MAX_PACKAGES],
    /// The walk over the watchers that are behind.
    pub fan_out: FanOutCursor,
    /// When it last changed.
    pub changed_at: Tick,
    /// When the timer that watches over calls, ringing or ended, and over removed publications will look next.
    pub calls_timer: Option<Tick>,
    /// The number of the latest change that the journal was asked to keep and that can be rolled back; see
    /// `notifier/rollback.rs`.
    pub last_change: u64,
}

/// What the watchers of one package are told: the part of the document that they share.
#[derive(Clone, Debug, Default)]
pub struct PackageView {
    /// Counts its changes.
    pub revision: Revision,
    /// The shared part of the document that tells of the latest change; none before anybody watched.
    pub tail: Option<InternedStr>,
    /// The same for who knows of that change, or comes later: calls that ended with it are gone from it.
    pub settled: Option<InternedStr>,
    /// Tells settled documents apart, also across restarts.
    pub fingerprint: u64,
}

/// The entity-tag of a view (RFC 5839 section 4): its revision, so that a state that went and came back has another one,
/// and its document, so that a tag from before a restart means the same or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyEtag {
    /// Of the view.
    pub revision: Revision,
    /// Of the settled document.
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

/// A number that tells documents apart; the same in every run.
fn fingerprint(text: &str) -> u64 {
    SipHasher13::new().hash(text.as_bytes())
}

impl PackageView {
    /// Takes over a newly composed document, and what it will be once it has been told; true if it says something new.
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

    /// Asks for the memory that leads to the document of who is not behind ...
    pub fn fetch(&self) {
        self.settled.iter().for_each(InternedStr::fetch);
    }

    /// ... and, once that is there, for the document.
    pub fn fetch_text(&self) {
        self.settled.iter().for_each(InternedStr::fetch_text);
    }

    /// The document for a watcher that has acknowledged a revision: the news if he is behind, else what holds now.
    pub fn tail_for(&self, acknowledged: Revision) -> Option<&InternedStr> {
        let knows = acknowledged == self.revision || acknowledged == Revision::default();
        if knows { self.settled.as_ref() } else { self.tail.as_ref() }
    }

    /// Names what holds now.
    pub fn tag(&self) -> NotifyEtag {
        NotifyEtag { revision: self.revision, fingerprint: self.fingerprint }
    }

    /// Forgets the document; the next one counts as new.
    pub fn clear(&mut self) {
        (self.tail, self.settled) = (None, None);
    }
}

/// A walk over all slots in bounded slices. A change during the walk lets it go once more around from where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanOutCursor {
    /// The slot to look at next.
    pub next: usize,
    /// How many slots are left to look at.
    pub left: usize,
    /// Somebody is walking.
    pub walking: bool,
}

/// Subscriptions by slot; a slot that became free is used again.
#[derive(Debug, Default)]
pub struct Watchers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// How many slots are reserved for subscriptions that the journal has and that cannot be restored in this run.
    reserved: u32,
    of_package: [u32; MAX_PACKAGES],
    /// The slots by wish, where there are too many slots to look through: the latest of each.
    #[allow(clippy::box_collection)] // hardly any presentity has one
    of_wish: Option<Box<HashMap<u64, u32, RandomState>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// What its phone has this subscription of; 0 where it has another one for that by now, or the slot is free.
    wish: u64,
    subscription: Option<Box<Subscription>>,
}

/// From so many slots on there is an index of who has which.
const MANY: usize = 64;

/// What a phone can have one subscription of.
fn wish_of(phone: DeviceId, package: PackageId, event_id: Option<&str>) -> u64 {
    let mut hasher = SipHasher13::new();
    (phone, package, event_id).hash(&mut hasher);
    hasher.finish().max(1)
}

impl Watchers {
    /// The slot that the next subscription will get.
    pub fn vacant(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    /// The latest subscription of a phone for the same event.
    pub fn latest_of(&self, phone: DeviceId, package: PackageId, event_id: Option<&str>) -> Option<u32> {
        let slot = self.latest(wish_of(phone, package, event_id))?;
        let s = self.slots.get(slot as usize)?.subscription.as_deref()?;
        (s.phone.id() == phone && s.package == package && s.event_id() == event_id).then_some(slot)
    }

    /// Puts a subscription into the vacant slot; `lasting` unless it is a mere look at the state.
    pub fn insert(&mut self, subscription: Subscription, lasting: bool) {
        self.of_package[subscription.package.0 as usize] += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // By half, for doubling would leave a third of them empty.
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

    /// Puts a subscription back into the slot that it had before a restart. False if the slot is taken.
    pub fn restore(&mut self, slot: u32, subscription: Subscription) -> bool {
        if !self.take_free(slot) {
            return false;
        }
        self.of_package[subscription.package.0 as usize] += 1;
        let wish = wish_of(subscription.phone.id(), subscription.package, subscription.event_id());
        let other = self.latest(wish).and_then(|slot| self.slots.get(slot as usize)?.subscription.as_deref());
        // Slots come back in their order, which is not that of time.
        if other.is_none_or(|other| other.subscribed_at() <= subscription.subscribed_at()) {
            self.index(slot, &subscription);
        }
        self.slots[slot as usize].subscription = Some(Box::new(subscription));
        true
    }

    /// Reserves the slot of a subscription that cannot be restored in this run, so that no other gets its journal key and
    /// its tags. False if the slot is taken.
    pub fn reserve(&mut self, slot: u32) -> bool {
        let reserved = self.take_free(slot);
        self.reserved += u32::from(reserved);
        reserved
    }

    /// A reserved slot may be used again.
    pub fn unreserve(&mut self, slot: u32) {
        let reserved = self.slots.get(slot as usize).is_some_and(|known| known.subscription.is_none());
        if reserved && self.reserved > 0 && !self.free.contains(&slot) {
            self.reserved -= 1;
            self.free.push(slot);
        }
    }

    /// Whether a subscription could be put into a slot.
    pub fn is_free(&self, slot: u32) -> bool {
        slot as usize >= self.slots.len() || self.free.contains(&slot)
    }

    /// Takes one certain slot out of the free ones. False if it is not free.
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

    /// The subscription in a slot is again the latest of its phone for its event.
    pub fn index_again(&mut self, slot: u32) {
        if let Some(subscription) = self.slots.get_mut(slot as usize).and_then(|known| known.subscription.take()) {
            self.index(slot, &subscription);
            self.slots[slot as usize].subscription = Some(subscription);
        }
    }

    /// The subscription in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Subscription> {
        self.slots.get_mut(slot as usize)?.subscription.as_deref_mut()
    }

    /// Asks for the memory of the first slots, which a new watcher has looked through.
    pub fn fetch_slots(&self) {
        (0..self.slots.len().min(16)).step_by(4).for_each(|slot| ahead::fetch_one(&self.slots, slot));
    }

    /// Asks for the memory of one slot ...
    pub fn fetch_slot(&self, slot: u32) {
        ahead::fetch_one(&self.slots, slot as usize);
    }

    /// ... and, once that is there, of the subscription in it.
    pub fn fetch_subscription(&self, slot: u32) {
        let subscription = self.slots.get(slot as usize).and_then(|slot| slot.subscription.as_deref());
        subscription.into_iter().for_each(Subscription::fetch_itself);
    }

    /// The subscription in a slot, for who will need all of it.
    pub fn fetch(&mut self, slot: u32) -> Option<&mut Subscription> {
        let subscription = self.get_mut(slot)?;
        subscription.fetch();
        Some(subscription)
    }

    /// Takes a subscription out.
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

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.reserved as usize
    }

    /// True if there is none and no slot is reserved.
    pub fn is_vacant(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots there are, used or free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// True if somebody watches this package.
    pub fn any_of(&self, package: PackageId) -> bool {
        self.of_package[package.0 as usize] > 0
    }
}

impl Presentity {
    /// A presentity of which nothing is known yet.
    pub fn new(number: u32, aor: Aor, realm: &str) -> Presentity {
        let uri = aor.uri(realm).into();
        Presentity { lines: Lines::default(), number, aor, uri, state: Mutex::default() }
    }

    /// Asks for its memory, for it will be needed soon.
    #[inline]
    pub fn fetch(&self) {
        self.lines.fetch::<Presentity>(offset_of!(Presentity, lines));
    }

    /// Takes the lock. It is held for one decision and never across anything that waits.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// All that holds now, put together for composing documents.
    pub fn picture<'a>(&'a self, uri: &'a str) -> ComposedState<'a> {
        self.compose(uri, self.calls.ranked())
    }

    /// The same with the calls that have just ended.
    pub fn news<'a>(&'a self, uri: &'a str) -> ComposedState<'a> {
        let mut calls = self.calls.ranked();
        calls.extend(self.calls.parting());
        self.compose(uri, calls)
    }

    /// Of one dialog alone: its live branches, else the last one that is known to have ended.
    pub fn picture_of<'a>(&'a self, uri: &'a str, named: &DialogFilter) -> ComposedState<'a> {
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

    /// What a new report of publication `number` means: calls are applied, other content is handed back to be kept
    /// with the publication.
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

    /// The publication with this number.
    pub fn publication_mut(&mut self, number: PublicationNo) -> Option<&mut Publication> {
        self.publications.iter_mut().find(|p| p.etag.number == number)
    }

    /// Takes a publication out, with all that only it said.
    pub fn remove_publication(&mut self, number: PublicationNo) {
        self.publications.retain(|p| p.etag.number != number);
        self.calls.release(number);
    }

    /// Remembers a publication that was removed.
    pub fn remember_removed(&mut self, removed: RemovedPublication) {
        self.removed.get_or_insert_default().add(removed);
    }

    /// When [`State::pass_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Tick> {
        let removed = self.removed.as_ref().and_then(|removed| removed.next_deadline());
        [self.calls.next_deadline(), removed].into_iter().flatten().min()
    }

    /// Lets calls lapse, and forgets what ended or was removed long enough ago.
    pub fn pass_time(&mut self, now: Tick) {
        self.calls.pass_time(now);
        if let Some(removed) = &mut self.removed {
            removed.pass_time(now);
        }
        self.removed.take_if(|removed| removed.is_empty());
    }

    /// True if calls that ended or publications that were removed are remembered.
    pub fn remembers(&self) -> bool {
        self.calls.remembers() || self.removed.is_some()
    }

    /// Forgets every call and the manual state. Message counts and notes stay, and so do the entity-tags: a refresh
    /// without body is good, and revives nothing.
    pub fn reset(&mut self) {
        self.calls.reset();
        self.manual = None;
        for publication in &mut self.publications {
            publication.content.reset();
        }
    }

    /// True if nobody watches and nothing is known, apart from calls that ended and publications that were removed.
    pub fn is_idle(&self) -> bool {
        self.watchers.is_vacant() && self.publications.is_empty() && self.manual.is_none()
    }
}

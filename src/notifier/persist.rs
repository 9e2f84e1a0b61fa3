//! What the journal keeps of us, and how we come back from it.
//!
//! A subscription is one record, and so is all else that is known of a presentity; what a phone has acknowledged is a
//! small record of its own that nobody waits for. Each is the latest word on its key, so that replaying them in any
//! state of compaction gives the same picture.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::wheel::Watch;
use super::{Notifier, Outbox};
use crate::journal::{Key, Record};
use crate::package;
use crate::presence::calls::Calls;
use crate::presence::facts::CallState;
use crate::presence::family::Family;
use crate::presence::named::NamedDialog;
use crate::presence::phone::PhoneId;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{Content, EntityTag, Publication};
use crate::presence::subscription::{
    Beginning, Delivery, MaxRate, Particulars, Place, Revision, Subscription, Suppressed,
};
use crate::presence::{Aor, MAX_PACKAGES, Tick};
use crate::sip::Transport;
use crate::sip::dialog::Dialog;
use crate::transport::{ListenerNo, Source};

/// How many NOTIFYs a record of a subscription makes room for. A crash skips at most so many CSeq numbers and versions.
pub(super) const RESERVE: u32 = 64;
/// The slot under which all that is no subscription is kept.
const STATE: u32 = u32::MAX;
/// Set in the first half of the key of what a phone has acknowledged.
const ACKNOWLEDGED: u64 = 1 << 32;
/// How far apart the NOTIFYs leave that a restart makes necessary (ms): 500 in a second, whoever they go to, and to no
/// phone more than it takes.
const RESTART_PACE: u64 = 2;

#[derive(Serialize)]
struct SubscriptionToKeep<'a, D> {
    account: &'a str,
    user: &'a str,
    package: &'static str,
    nonce: u64,
    event_id: Option<&'a str>,
    phone: PhoneId,
    dialog: D,
    entity: &'a str,
    user_agent: Option<&'a str>,
    way: Way,
    listener: u8,
    peer: SocketAddr,
    subscribed_at: Tick,
    granted: u32,
    expires_at: Tick,
    reserved: u32,
    /// Whatever changes, it is not to be told (RFC 5839).
    suppressed: bool,
    max_rate: Option<&'a MaxRate>,
    named: Option<&'a NamedDialog>,
}

/// [`SubscriptionToKeep`] read back: the same fields in the same order.
#[derive(Deserialize)]
struct KeptSubscription {
    account: String,
    user: String,
    package: String,
    nonce: u64,
    event_id: Option<Box<str>>,
    phone: PhoneId,
    dialog: Dialog,
    entity: String,
    user_agent: Option<Box<str>>,
    way: Way,
    listener: u8,
    peer: SocketAddr,
    #[expect(dead_code, reason = "the end and what was granted say the same")]
    subscribed_at: Tick,
    granted: u32,
    expires_at: Tick,
    reserved: u32,
    suppressed: bool,
    max_rate: Option<MaxRate>,
    named: Option<NamedDialog>,
}

/// The way that the latest SUBSCRIBE came. The first two are what was once `tcp: bool`, and read as such.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Way {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    CertifiedTls,
    CertifiedWss,
}

impl Way {
    fn of(source: &Source) -> Way {
        match (source.transport, source.certified) {
            (Transport::Tls, false) => Way::Tls,
            (Transport::Tls, true) => Way::CertifiedTls,
            (Transport::Ws, _) => Way::Ws,
            (Transport::Wss, false) => Way::Wss,
            (Transport::Wss, true) => Way::CertifiedWss,
            (Transport::Udp, _) => Way::Udp,
            // SCTP is not spoken here.
            (Transport::Tcp | Transport::Sctp | Transport::TlsSctp, _) => Way::Tcp,
        }
    }

    fn transport(self) -> Transport {
        match self {
            Way::Udp => Transport::Udp,
            Way::Tcp => Transport::Tcp,
            Way::Tls | Way::CertifiedTls => Transport::Tls,
            Way::Ws => Transport::Ws,
            Way::Wss | Way::CertifiedWss => Transport::Wss,
        }
    }

    fn is_certified(self) -> bool {
        matches!(self, Way::CertifiedTls | Way::CertifiedWss)
    }
}

#[derive(Serialize)]
struct StateToKeep<'a> {
    account: &'a str,
    user: &'a str,
    calls: &'a Calls,
    publications: Vec<(EntityTag, &'static str, Tick, &'a Content)>,
    manual: Option<CallState>,
    /// Of each view: what a phone has acknowledged says nothing about it if the state has moved on since, even if it
    /// has come back to the same document.
    revisions: [u64; MAX_PACKAGES],
}

/// [`StateToKeep`] read back: the same fields in the same order.
#[derive(Deserialize)]
struct KeptState {
    account: String,
    user: String,
    calls: Calls,
    publications: Vec<(EntityTag, String, Tick, Content)>,
    manual: Option<CallState>,
    revisions: [u64; MAX_PACKAGES],
}

/// What a phone has acknowledged: a revision, and the document that it knows with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known(pub(super) u64, pub(super) u64);

/// What came back after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Subscriptions that go on.
    pub subscriptions: usize,
    /// Of these, the ones whose phone may not know the state of the moment.
    pub behind: usize,
    /// Presentities with publications, calls or a manual state.
    pub states: usize,
    /// Records that could not be used: of accounts or packages that are no longer configured, or unreadable.
    pub unusable: usize,
}

fn key_of(presentity: &Presentity, slot: u32) -> Key {
    Key(u64::from(presentity.number), slot)
}

impl Notifier {
    /// Has a subscription kept as it is now.
    pub(super) fn keep_subscription(&self, presentity: &Presentity, s: &Subscription, out: &mut Outbox) {
        if self.settings.journal {
            let value = Some(self.subscription_value(presentity, s));
            out.records.push(self.word(key_of(presentity, s.place.slot), value));
        }
    }

    /// Has a subscription forgotten.
    pub(super) fn drop_subscription(&self, presentity: &Presentity, slot: u32, out: &mut Outbox) {
        if self.settings.journal {
            let key = key_of(presentity, slot);
            out.records.push(self.word(key, None));
            out.records.push(self.word(Key(key.0 | ACKNOWLEDGED, slot), None));
        }
    }

    /// Notes what a phone knows now.
    pub(super) fn remark_acknowledged(&self, presentity: &Presentity, slot: u32, known: Known, out: &mut Outbox) {
        if self.settings.journal {
            let key = Key(u64::from(presentity.number) | ACKNOWLEDGED, slot);
            out.remarks.push(self.word(key, Some(encode(&known))));
        }
    }

    /// Has all that is known of a presentity kept as it is now, or forgotten if that is nothing.
    pub(super) fn keep_state(&self, presentity: &Presentity, state: &State, out: &mut Outbox) {
        if self.settings.journal {
            let value = self.state_value(presentity, state);
            out.records.push(self.word(key_of(presentity, STATE), value));
        }
    }

    /// The latest word on a key, drawn under the presentity's lock.
    fn word(&self, key: Key, value: Option<Bytes>) -> Record {
        Record { key, value, order: self.next_number() }
    }

    fn subscription_value(&self, presentity: &Presentity, s: &Subscription) -> Bytes {
        encode(&SubscriptionToKeep {
            account: self.settings.directory.account_id(presentity.aor.account),
            user: &presentity.aor.user,
            package: package::get(s.package).name(),
            nonce: s.place.nonce,
            event_id: s.event_id(),
            phone: s.phone.id(),
            // Counting goes on where the reservation ends.
            dialog: s.dialog.kept(s.reserved),
            entity: s.entity(&presentity.uri),
            user_agent: s.user_agent.as_deref(),
            way: Way::of(&s.source()),
            listener: s.source().listener.0,
            peer: s.source().peer,
            subscribed_at: s.subscribed_at(),
            granted: s.granted,
            expires_at: s.expires_at,
            reserved: s.reserved,
            suppressed: s.suppressed() == Suppressed::Everything,
            max_rate: s.max_rate(),
            named: s.named(),
        })
    }

    fn state_value(&self, presentity: &Presentity, state: &State) -> Option<Bytes> {
        let calls = !state.calls.is_quiet() || state.calls.remembers();
        if !calls && state.is_idle() {
            return None;
        }
        let publication = |p: &'_ Publication| (p.etag, package::get(p.package).name(), p.expires_at);
        let publications = state.publications.iter().map(|p| {
            let (etag, package, expires_at) = publication(p);
            (etag, package, expires_at, &p.content)
        });
        Some(encode(&StateToKeep {
            account: self.settings.directory.account_id(presentity.aor.account),
            user: &presentity.aor.user,
            calls: &state.calls,
            publications: publications.collect(),
            manual: state.manual,
            revisions: state.views.each_ref().map(|view| view.revision.0),
        }))
    }

    /// Every record that holds now, for compacting the journal. Presentities are locked one at a time.
    pub fn keep_all(&self, mut each: impl FnMut(Key, Bytes)) {
        for presentity in self.table.all() {
            let state = presentity.lock();
            if let Some(value) = self.state_value(&presentity, &state) {
                each(key_of(&presentity, STATE), value);
            }
            for s in state.watchers.iter().filter(|s| !s.ended) {
                let key = key_of(&presentity, s.place.slot);
                each(key, self.subscription_value(&presentity, s));
                let view = &state.views[s.package.0 as usize];
                if s.acknowledged == view.revision {
                    let known = Known(view.revision.0, view.fingerprint);
                    each(Key(key.0 | ACKNOWLEDGED, key.1), encode(&known));
                }
            }
        }
    }

    /// Comes back from what the journal kept. Only watchers whose phone may not know the state of the moment are sent
    /// a NOTIFY, one after the other.
    pub fn restore(&self, now: Tick, records: impl IntoIterator<Item = (Key, Bytes)>) -> Restored {
        let mut restored = Restored::default();
        let mut subscriptions = Vec::new();
        let mut known = BTreeMap::new();
        for (Key(number, slot), value) in records {
            let presentity = number as u32;
            let used = if number & ACKNOWLEDGED != 0 {
                decode(&value).map(|acknowledged: Known| known.insert((presentity, slot), acknowledged)).is_some()
            } else if slot == STATE {
                let back = decode(&value).and_then(|kept| self.restore_state(now, presentity, kept));
                restored.states += usize::from(back.is_some());
                back.is_some()
            } else {
                // What later versions have added is nothing in the records of earlier ones.
                let kept: Option<KeptSubscription> = decode(&[&value[..], &[0; 8]].concat());
                kept.map(|kept| subscriptions.push((presentity, slot, kept))).is_some()
            };
            restored.unusable += usize::from(!used);
        }
        for (presentity, slot, kept) in subscriptions {
            match self.restore_subscription(now, presentity, slot, kept) {
                Some(()) => restored.subscriptions += 1,
                None => restored.unusable += 1,
            }
        }
        restored.behind = self.catch_up(now, &known);
        restored
    }

    fn aor_of(&self, account: &str, user: &str) -> Option<(Aor, &str)> {
        let account = self.settings.directory.account_by_id(account)?;
        Some((Aor::of(account, user)?, self.settings.directory.realm(account)))
    }

    fn restore_state(&self, now: Tick, number: u32, kept: KeptState) -> Option<()> {
        let (aor, realm) = self.aor_of(&kept.account, &kept.user)?;
        let presentity = self.table.restore(number, &aor, realm);
        let mut state = presentity.lock();
        state.calls = kept.calls;
        state.manual = kept.manual;
        for (view, revision) in state.views.iter_mut().zip(kept.revisions) {
            view.revision = Revision(revision);
        }
        for (etag, package, expires_at, content) in kept.publications {
            let Some(package) = package::by_name(&package) else { continue };
            let timer_at = self.wheel.file(now, expires_at, presentity.number, Watch::Publication(etag.number));
            self.counter.fetch_max(etag.number.0 + 1, Ordering::Relaxed);
            state.publications.push(Publication { etag, package, expires_at, timer_at, origin: None, content });
        }
        self.watch_calls(now, &presentity, &mut state);
        Some(())
    }

    fn restore_subscription(&self, now: Tick, number: u32, slot: u32, kept: KeptSubscription) -> Option<()> {
        let (aor, realm) = self.aor_of(&kept.account, &kept.user)?;
        let package = package::by_name(&kept.package)?;
        let transport = kept.way.transport();
        let listener = self.settings.routing.listener_again(transport, ListenerNo(kept.listener), kept.peer)?;
        let presentity = self.table.restore(number, &aor, realm);
        if presentity.number != number {
            return None;
        }
        let expiry_timer = self.wheel.file(now, kept.expires_at, number, Watch::Expiry(slot));
        let particulars = Particulars {
            event_id: kept.event_id,
            named: kept.named,
            max_rate: kept.max_rate,
            suppressed: if kept.suppressed { Suppressed::Everything } else { Suppressed::Nothing },
        };
        // The connection is gone with the process that had it.
        let source = Source { transport, listener, peer: kept.peer, flow: None, certified: kept.way.is_certified() };
        self.gate.know(now, &source);
        let beginning = Beginning {
            place: Place { presentity: number, slot, nonce: kept.nonce },
            package,
            phone: self.phones.obtain(kept.phone),
            dialog: kept.dialog,
            written: (*kept.entity != *presentity.uri).then(|| kept.entity.into()),
            source,
        };
        // It may have been told something a moment ago, which is what `told_at` says of a new one.
        let mut subscription = Subscription::new(now, beginning);
        subscription.particulars = particulars.boxed();
        if let Some(agent) = kept.user_agent {
            let (agent, family) = self.agents.share(&agent, Family::of);
            (subscription.user_agent, subscription.family) = (Some(agent), family);
        }
        (subscription.granted, subscription.expires_at) = (kept.granted, kept.expires_at);
        // What a phone says of NOTIFYs from before the crash is out of date.
        (subscription.documents, subscription.reserved, subscription.proven) =
            (kept.reserved, kept.reserved, kept.reserved);
        subscription.expiry_timer = expiry_timer;
        let back = presentity.lock().watchers.restore(slot, subscription);
        back.then(|| self.table.count_subscription(aor.account))
    }

    /// Composes what every watcher is to be told, and has those caught up whose phone may not know it.
    fn catch_up(&self, now: Tick, known: &BTreeMap<(u32, u32), Known>) -> usize {
        let mut behind = 0;
        for presentity in self.table.all() {
            let mut state = presentity.lock();
            // Composing after a restart is no change: the revisions stay what they were.
            let revisions = state.views.each_ref().map(|view| view.revision);
            self.compose(&presentity, &mut state, false);
            for (view, revision) in state.views.iter_mut().zip(revisions) {
                view.revision = revision;
            }
            let views = state.views.each_ref().map(|view| (view.revision, view.fingerprint));
            for slot in 0..state.watchers.slots() as u32 {
                let Some(s) = state.watchers.get_mut(slot) else { continue };
                let (revision, fingerprint) = views[s.package.0 as usize];
                if known.get(&(presentity.number, slot)) == Some(&Known(revision.0, fingerprint)) {
                    s.acknowledged = revision;
                    continue;
                }
                if s.suppresses(revision) {
                    continue;
                }
                behind += 1;
                let until = now
                    .after(behind as u64 * RESTART_PACE)
                    .max(s.phone.take_turn(now))
                    .max(s.may_be_told(self.settings.presence.notify_gap_ms));
                s.delivery = Delivery::Paced { until, failures: 0 };
                self.watch_delivery(now, s, until);
            }
        }
        behind
    }
}

/// The types here have nothing that could fail to be written.
fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_stdvec(value).map(Bytes::from).unwrap_or_default()
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_comes_back_and_those_of_older_journals_are_what_they_were() {
        let all = [
            (Transport::Udp, false),
            (Transport::Tcp, false),
            (Transport::Tls, false),
            (Transport::Ws, false),
            (Transport::Wss, false),
            (Transport::Tls, true),
            (Transport::Wss, true),
        ];
        for (transport, certified) in all {
            let peer = "192.0.2.7:5060".parse().unwrap();
            let source = Source { transport, listener: ListenerNo(0), peer, flow: None, certified };
            let way: Way = decode(&encode(&Way::of(&source))).unwrap();
            assert_eq!((way.transport(), way.is_certified()), (transport, certified));
        }
        for (tcp, transport) in [(false, Transport::Udp), (true, Transport::Tcp)] {
            assert_eq!(decode::<Way>(&encode(&tcp)).unwrap().transport(), transport);
        }
    }
}

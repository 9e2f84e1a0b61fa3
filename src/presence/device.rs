//! DeviceTable: the devices behind watchers, across all their subscriptions.
//!
//! What concerns a device as a whole is kept here: how fast it takes NOTIFYs, which of its subscriptions wait for it to
//! show up again, and the connection that it last came by. Subscriptions to different presentities share it, so it
//! has a lock of its own, held for a few instructions and never while another is taken.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Tick;
use crate::transport::Source;

/// Names a phone, in every run alike: a digest of whose it is and which of his devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// The phone that these words describe: its user's address first, then what tells it from his other devices.
    pub fn of(words: &[&str]) -> DeviceId {
        let mut digest = Sha256::new();
        for word in words {
            digest.update((word.len() as u64).to_le_bytes());
            digest.update(word.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        DeviceId(id)
    }
}

/// So many NOTIFYs may leave at once to a phone that was left alone for a while: the keys of a desk phone and its first
/// extension module.
const BURST: u32 = 20 * TURN;
/// One turn, in the unit that they are counted in.
const TURN: u32 = 1_000;
/// Between the NOTIFYs to a phone of which nothing is known, or that has shown to be slow (ms). There are models that
/// manage ten in a second and throw away what is more (reference: peers.md, Auerswald).
const SLOWEST: u8 = 100;
/// Between the NOTIFYs to a phone that answers quickly (ms).
const QUICKEST: u8 = 1;
/// An answer that comes within this is a quick one (ms).
const QUICK: u64 = 250;

/// One phone.
#[derive(Debug)]
pub struct Device {
    id: DeviceId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: SendRate,
    /// The tick that the turns taken are of, as far as it fits: who was left alone for 25 days may find a few turns taken.
    taken_at: u32,
    /// An address that has been shown to be its own: something that only reached it there has come back.
    own_address: Option<PackedAddress>,
    /// What few phones have; there are millions.
    rare: Option<Box<Extras>>,
}

/// The turns taken and not yet worn off, in thousandths, and in the top octet the milliseconds in which one wears off.
#[derive(Clone, Copy, Debug)]
struct SendRate(u32);

/// As many turns as fit beside the interval.
const MOST_TAKEN: u32 = (1 << 24) - 1;

impl SendRate {
    fn new(taken: u32, interval: u8) -> SendRate {
        SendRate(u32::from(interval) << 24 | taken.min(MOST_TAKEN))
    }

    fn taken(self) -> u32 {
        self.0 & MOST_TAKEN
    }

    fn interval(self) -> u8 {
        (self.0 >> 24) as u8
    }

    fn take(&mut self, taken: u32) {
        *self = SendRate::new(taken, self.interval());
    }
}

/// An address in one word, for telling whether another is the same: of IPv4 its octets, of IPv6 a digest that nobody can
/// aim at somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedAddress(NonZeroU64);

impl PackedAddress {
    fn of(address: IpAddr) -> PackedAddress {
        let packed = match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => {
                let digest = Sha256::digest(v6.octets());
                // Above all that IPv4 can be.
                digest[..8].iter().fold(0, |packed, octet| packed << 8 | u64::from(*octet)) | 1 << 63
            }
        };
        PackedAddress(NonZeroU64::MIN.saturating_add(packed))
    }
}

#[derive(Debug, Default)]
struct Extras {
    /// Subscriptions, by presentity and slot, that wait for a sign of life.
    asleep: Vec<(u32, u32)>,
    /// The way that its latest SUBSCRIBE came, if that is a stream: the other subscriptions may use it, too.
    way: Option<Source>,
    /// It did not take a connection when one was tried.
    datagrams_only: bool,
}

impl Device {
    fn new(id: DeviceId) -> Device {
        let state = State { pace: SendRate::new(0, SLOWEST), taken_at: 0, own_address: None, rare: None };
        Device { id, state: Mutex::new(state) }
    }

    /// A phone of this name that is not among [`DeviceTable`]: for a subscription that is in no table.
    pub fn detached(id: DeviceId) -> Arc<Device> {
        Arc::new(Device::new(id))
    }

    /// Its name.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Takes the next turn: when a NOTIFY to this phone may leave; not before `now`.
    pub fn take_turn(&self, now: Tick) -> Tick {
        let mut state = self.state.lock();
        state.wear_off(now);
        let taken = state.pace.taken() + TURN;
        state.pace.take(taken);
        now.after(u64::from(taken.saturating_sub(BURST)) * u64::from(state.pace.interval()) / u64::from(TURN))
    }

    /// A SUBSCRIBE came from it this way; `own`: it has shown that the address is its own. Gives the subscriptions that have
    /// waited for a sign of life.
    ///
    /// The NOTIFY that follows leaves without waiting for a turn, because the phone asked for it. Others wait the longer,
    /// but never for more than a burst: it has itself to thank.
    #[must_use]
    pub fn subscribed(&self, now: Tick, source: Source, own: bool) -> Vec<(u32, u32)> {
        let mut state = self.state.lock();
        let way = source.flow.map(|_| source);
        if way.is_some() || state.rare.is_some() {
            state.rare.get_or_insert_default().way = way;
        }
        if own {
            state.own_address = Some(PackedAddress::of(source.peer.ip()));
        }
        state.wear_off(now);
        let taken = state.pace.taken();
        state.pace.take(taken.max((taken + TURN).min(BURST)));
        state.awaken()
    }

    /// It has answered a NOTIFY that left at `sent`, to this address if it was a datagram: so it has proven that it receives
    /// what is sent there. Gives the subscriptions that have waited for a sign of life.
    #[must_use]
    pub fn answered(&self, now: Tick, sent: Tick, address: Option<IpAddr>) -> Vec<(u32, u32)> {
        let mut state = self.state.lock();
        if let Some(address) = address {
            state.own_address = Some(PackedAddress::of(address));
        }
        if now.0.saturating_sub(sent.0) <= QUICK {
            let quicker = (u32::from(state.pace.interval()) * 7 / 8).max(QUICKEST.into()) as u8;
            state.pace = SendRate::new(state.pace.taken(), quicker);
        }
        state.awaken()
    }

    /// It lets a NOTIFY wait for so long that it has to be repeated.
    pub fn kept_waiting(&self) {
        let mut state = self.state.lock();
        let slower = state.pace.interval().saturating_mul(2).clamp(SLOWEST / 10, SLOWEST);
        state.pace = SendRate::new(state.pace.taken(), slower);
    }

    /// It has shown itself. Gives the subscriptions that have waited for that.
    #[must_use]
    pub fn shown(&self) -> Vec<(u32, u32)> {
        self.state.lock().awaken()
    }

    /// Whether it has proven that it receives what is sent to this address. Until then, who knows whom we would be sending
    /// to.
    pub fn is_proven_at(&self, address: IpAddr) -> bool {
        self.state.lock().own_address == Some(PackedAddress::of(address))
    }

    /// The stream that it last came by, if it did.
    pub fn way(&self) -> Option<Source> {
        self.state.lock().rare.as_ref().and_then(|rare| rare.way)
    }

    /// No connection to it could be made or used: what is large goes in datagrams to it, for as long as it is known.
    pub fn wants_datagrams(&self) {
        self.state.lock().rare.get_or_insert_default().datagrams_only = true;
    }

    /// Whether connections to it have been found to be in vain.
    pub fn takes_datagrams_only(&self) -> bool {
        self.state.lock().rare.as_ref().is_some_and(|rare| rare.datagrams_only)
    }

    /// It is silent to this subscription, which is to be tried again once it shows itself.
    pub fn sleeps(&self, presentity: u32, slot: u32) {
        let mut state = self.state.lock();
        let asleep = &mut state.rare.get_or_insert_default().asleep;
        if !asleep.contains(&(presentity, slot)) {
            asleep.push((presentity, slot));
        }
    }
}

impl State {
    fn wear_off(&mut self, now: Tick) {
        let passed = (now.0 as u32).wrapping_sub(self.taken_at);
        if passed > u32::MAX / 2 {
            // Another thread has read its clock a little later, and was here first.
            return;
        }
        let worn_off = u64::from(passed) * u64::from(TURN) / u64::from(self.pace.interval());
        self.pace.take(self.pace.taken().saturating_sub(u32::try_from(worn_off).unwrap_or(u32::MAX)));
        self.taken_at = now.0 as u32;
    }

    fn awaken(&mut self) -> Vec<(u32, u32)> {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.asleep)).unwrap_or_default()
    }
}

/// A phone in the set of all: found by its name, which it knows itself.
#[derive(Debug)]
struct KnownDevice(Arc<Device>);

impl Borrow<DeviceId> for KnownDevice {
    fn borrow(&self) -> &DeviceId {
        &self.0.id
    }
}

impl Hash for KnownDevice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for KnownDevice {
    fn eq(&self, other: &KnownDevice) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for KnownDevice {}

/// All phones that have a subscription.
#[derive(Debug, Default)]
pub struct DeviceTable {
    known: DashMap<KnownDevice, (), RandomState>,
}

impl DeviceTable {
    /// The phone of this name, if it has a subscription.
    pub fn find(&self, id: DeviceId) -> Option<Arc<Device>> {
        self.known.get(&id).map(|known| Arc::clone(&known.key().0))
    }

    /// The phone of this name.
    pub fn obtain(&self, id: DeviceId) -> Arc<Device> {
        // Should somebody have been quicker, his is the one that stays.
        let entry = self.known.entry(KnownDevice(Arc::new(Device::new(id)))).or_insert(());
        Arc::clone(&entry.key().0)
    }

    /// One of its subscriptions has gone; with the last, the phone is forgotten.
    pub fn release(&self, phone: Arc<Device>, presentity: u32, slot: u32) {
        if let Some(rare) = &mut phone.state.lock().rare {
            rare.asleep.retain(|place| *place != (presentity, slot));
        }
        self.let_go(phone);
    }

    /// Whoever has found a phone does not want it after all. If nobody else has it by now, it is forgotten.
    pub fn let_go(&self, phone: Arc<Device>) {
        // Whoever wants it at this moment holds the map's lock before he counts, so two are the map and we.
        self.known.remove_if(&phone.id, |known, ()| Arc::strong_count(&known.0) <= 2);
    }

    /// How many subscriptions a phone has that was found.
    pub fn subscriptions(phone: &Arc<Device>) -> usize {
        // The map has one, and every subscription, and whoever asks.
        Arc::strong_count(phone).saturating_sub(2)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone() -> Arc<Device> {
        DeviceTable::default().obtain(DeviceId::of(&["sip:1002@acme.test", "desk"]))
    }

    fn by_udp(peer: &str) -> Source {
        let (transport, listener) = (crate::sip::Transport::Udp, crate::transport::ListenerId(0));
        Source { transport, listener, peer: peer.parse().unwrap(), flow: None, certified: false }
    }

    fn turns(phone: &Device, now: u64, count: usize) -> Vec<u64> {
        (0..count).map(|_| phone.take_turn(Tick(now)).0).collect()
    }

    #[test]
    fn a_phone_is_small() {
        // And two counters.
        assert!(size_of::<Device>() <= 64 - 16, "{}", size_of::<Device>());
    }

    #[test]
    fn what_one_address_has_proven_counts_for_no_other() {
        let phone = phone();
        let addresses: [IpAddr; 4] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
        for own in addresses {
            let _ = phone.answered(Tick(0), Tick(0), Some(own));
            assert_eq!(addresses.map(|address| phone.is_proven_at(address)), addresses.map(|address| address == own));
        }
        let _ = phone.subscribed(Tick(0), by_udp("[::ffff:192.0.2.1]:5060"), true);
        assert!(phone.is_proven_at(addresses[0]), "the same host in other clothes");
    }

    #[test]
    fn a_name_keeps_its_words_apart() {
        assert_eq!(DeviceId::of(&["ab", "c"]), DeviceId::of(&["ab", "c"]));
        assert_ne!(DeviceId::of(&["ab", "c"]), DeviceId::of(&["a", "bc"]));
    }

    #[test]
    fn a_phone_of_which_nothing_is_known_gets_a_burst_and_then_ten_in_a_second() {
        let phone = phone();
        assert_eq!(turns(&phone, 1_000, 23), [&[1_000; 20][..], &[1_100, 1_200, 1_300]].concat());
        assert_eq!(turns(&phone, 10_000, 20), [10_000; 20], "left alone for a while");
    }

    #[test]
    fn a_clock_that_was_read_a_little_earlier_wears_nothing_off() {
        let phone = phone();
        assert_eq!(turns(&phone, 5_000_000_000, 20), [5_000_000_000; 20]);
        assert_eq!(turns(&phone, 4_999_999_998, 2), [5_000_000_098, 5_000_000_198]);
        for _ in 0..100_000 {
            phone.take_turn(Tick(5_000_000_000));
        }
        assert_eq!(phone.state.lock().pace.interval(), SLOWEST, "however many are taken");
    }

    #[test]
    fn a_phone_that_answers_quickly_gets_a_thousand_in_a_second() {
        let phone = phone();
        for _ in 0..40 {
            assert_eq!(phone.answered(Tick(1_020), Tick(1_000), None), []);
        }
        assert_eq!(turns(&phone, 2_000, 22), [&[2_000; 20][..], &[2_001, 2_002]].concat());
        for _ in 0..4 {
            phone.kept_waiting();
        }
        assert_eq!(turns(&phone, 9_000, 21)[20], 9_080);
        assert_eq!(phone.answered(Tick(20_000), Tick(19_000), None), [], "a slow answer changes nothing");
        assert_eq!(turns(&phone, 30_000, 21)[20], 30_080);
    }

    #[test]
    fn what_a_phone_asks_for_itself_delays_the_others_by_no_more_than_a_burst() {
        let phone = phone();
        for _ in 0..1_000 {
            let _ = phone.subscribed(Tick(1_000), by_udp("192.0.2.1:5060"), false);
        }
        assert_eq!(turns(&phone, 1_000, 2), [1_100, 1_200]);
    }

    #[test]
    fn whoever_waits_for_a_sign_of_life_is_named_once() {
        let phone = phone();
        phone.sleeps(1, 2);
        phone.sleeps(1, 2);
        phone.sleeps(3, 0);
        assert_eq!(phone.shown(), [(1, 2), (3, 0)]);
        assert_eq!(phone.shown(), []);
    }

    #[test]
    fn a_phone_is_forgotten_with_its_last_subscription() {
        let phones = DeviceTable::default();
        let id = DeviceId::of(&["a"]);
        let (one, two) = (phones.obtain(id), phones.obtain(id));
        one.sleeps(1, 0);
        phones.release(one, 1, 0);
        assert_eq!((phones.len(), DeviceTable::subscriptions(&phones.find(id).unwrap()), two.shown()), (1, 1, vec![]));
        phones.release(two, 2, 0);
        assert!(phones.is_empty());
    }
}

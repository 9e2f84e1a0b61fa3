//! State per device behind the watchers, across all its subscriptions.
//!
//! A device is known by what its SUBSCRIBEs say. This module keeps how fast it takes NOTIFYs, which of its
//! subscriptions are suspended until it shows a sign of life, and the connection that it used last. Subscriptions to
//! different presentities share this state, so it has a lock of its own, held for a few instructions and never while
//! another lock is taken.

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

/// Identity of a device, the same in every run: a digest of the user and of what identifies the device among those of
/// the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// Identity of the device that these words describe: the address of its user first, then what distinguishes it
    /// from the user's other devices.
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

/// Burst: number of NOTIFYs that may leave at once to an idle device (20). Enough for the keys of a desk phone and
/// its first extension module.
const BURST: u32 = 20 * TURN;
/// Cost of one NOTIFY, in the unit that the rate is counted in.
const TURN: u32 = 1_000;
/// Interval between NOTIFYs to a device that is unknown or has been slow (ms). Some models manage ten NOTIFYs in a
/// second and discard the rest (Auerswald).
const SLOWEST: u8 = 100;
/// Interval between NOTIFYs to a device that replies quickly (ms).
const QUICKEST: u8 = 1;
/// Limit up to which a reply counts as quick (ms).
const QUICK: u64 = 250;

/// A device that has subscriptions.
#[derive(Debug)]
pub struct Device {
    id: DeviceId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: SendRate,
    /// Time of the last refill, truncated to 32 bits of milliseconds. After 25 days without a NOTIFY the difference
    /// is ambiguous, and a few NOTIFYs may still count as just sent.
    taken_at: u32,
    /// Address that the device has been verified at: a reply or request proved that it received a message sent there.
    own_address: Option<PackedAddress>,
    /// Fields that few devices have. Boxed, as there are millions of devices.
    rare: Option<Box<Extras>>,
}

/// Send rate in one word: the tokens used and not yet refilled, in thousandths, and in the top octet the interval in
/// which one is refilled (ms).
#[derive(Clone, Copy, Debug)]
struct SendRate(u32);

/// Most used tokens that fit beside the interval.
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

/// IP address in one word, for comparison only: the octets of an IPv4 address, or a digest of an IPv6 address. An
/// attacker cannot find an address that has the digest of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedAddress(NonZeroU64);

impl PackedAddress {
    fn of(address: IpAddr) -> PackedAddress {
        let packed = match address.to_canonical() {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => {
                let digest = Sha256::digest(v6.octets());
                // The top bit keeps the digest apart from every IPv4 address.
                digest[..8].iter().fold(0, |packed, octet| packed << 8 | u64::from(*octet)) | 1 << 63
            }
        };
        PackedAddress(NonZeroU64::MIN.saturating_add(packed))
    }
}

#[derive(Debug, Default)]
struct Extras {
    /// Suspended subscriptions, by presentity and slot, that wait for a sign of life.
    asleep: Vec<(u32, u32)>,
    /// Source of its latest SUBSCRIBE, if that is a stream. Its other subscriptions may use the connection, too.
    way: Option<Source>,
    /// True if an attempt to connect to it failed.
    datagrams_only: bool,
}

impl Device {
    fn new(id: DeviceId) -> Device {
        let state = State { pace: SendRate::new(0, SLOWEST), taken_at: 0, own_address: None, rare: None };
        Device { id, state: Mutex::new(state) }
    }

    /// Creates a device outside [`DeviceTable`], for a subscription that is in no table.
    pub fn detached(id: DeviceId) -> Arc<Device> {
        Arc::new(Device::new(id))
    }

    /// Identity of the device.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Reserves the next send time of a NOTIFY to this device, not before `now`.
    pub fn reserve_send_time(&self, now: Tick) -> Tick {
        let mut state = self.state.lock();
        state.wear_off(now);
        let taken = state.pace.taken() + TURN;
        state.pace.take(taken);
        now.after(u64::from(taken.saturating_sub(BURST)) * u64::from(state.pace.interval()) / u64::from(TURN))
    }

    /// Records a SUBSCRIBE from this source, and returns the suspended subscriptions, which resume. `own` is true if
    /// the device has been verified at the address.
    ///
    /// The NOTIFY that follows leaves at once, because the device asked for it. It delays other NOTIFYs, but by no
    /// more than a burst.
    #[must_use]
    pub fn on_subscribe(&self, now: Tick, source: Source, own: bool) -> Vec<(u32, u32)> {
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

    /// Records a reply to the NOTIFY that left at `sent`, and returns the suspended subscriptions, which resume.
    /// `address` is the destination if the NOTIFY was a datagram: the reply verifies the device there.
    #[must_use]
    pub fn on_reply(&self, now: Tick, sent: Tick, address: Option<IpAddr>) -> Vec<(u32, u32)> {
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

    /// Records that a NOTIFY had to be retransmitted. The device is sent less per second from now on.
    pub fn on_retransmit(&self) {
        let mut state = self.state.lock();
        let slower = state.pace.interval().saturating_mul(2).clamp(SLOWEST / 10, SLOWEST);
        state.pace = SendRate::new(state.pace.taken(), slower);
    }

    /// Records a sign of life, and returns the suspended subscriptions, which resume.
    #[must_use]
    pub fn on_activity(&self) -> Vec<(u32, u32)> {
        self.state.lock().awaken()
    }

    /// Returns true if the device has been verified to receive what is sent to this address. Until then the address
    /// may be that of a victim.
    pub fn is_verified_at(&self, address: IpAddr) -> bool {
        self.state.lock().own_address == Some(PackedAddress::of(address))
    }

    /// Connection of its latest SUBSCRIBE, if that came over a stream.
    pub fn way(&self) -> Option<Source> {
        self.state.lock().rare.as_ref().and_then(|rare| rare.way)
    }

    /// Records that no connection to the device could be made or used. Large NOTIFYs go to it in datagrams for as
    /// long as it is known.
    pub fn mark_udp_only(&self) {
        self.state.lock().rare.get_or_insert_default().datagrams_only = true;
    }

    /// Returns true if connections to the device have failed.
    pub fn is_udp_only(&self) -> bool {
        self.state.lock().rare.as_ref().is_some_and(|rare| rare.datagrams_only)
    }

    /// Suspends a subscription until the device shows a sign of life.
    pub fn suspend(&self, presentity: u32, slot: u32) {
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
            // Another thread that read its clock a little later got the lock first.
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

/// Entry of the device table, found by the id that the device itself holds.
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

/// Table of all devices that have a subscription.
#[derive(Debug, Default)]
pub struct DeviceTable {
    known: DashMap<KnownDevice, (), RandomState>,
}

impl DeviceTable {
    /// Device with this id, if it has a subscription.
    pub fn find(&self, id: DeviceId) -> Option<Arc<Device>> {
        self.known.get(&id).map(|known| Arc::clone(&known.key().0))
    }

    /// Device with this id, created if it does not exist.
    pub fn get_or_create(&self, id: DeviceId) -> Arc<Device> {
        // If another thread was quicker, its device is the one that stays.
        let entry = self.known.entry(KnownDevice(Arc::new(Device::new(id)))).or_insert(());
        Arc::clone(&entry.key().0)
    }

    /// Drops the reference of a subscription that has gone. With the last one, the device is forgotten.
    pub fn release(&self, phone: Arc<Device>, presentity: u32, slot: u32) {
        if let Some(rare) = &mut phone.state.lock().rare {
            rare.asleep.retain(|place| *place != (presentity, slot));
        }
        self.release_unused(phone);
    }

    /// Drops a reference that is not used for a subscription after all. If nothing else refers to the device, it is
    /// forgotten.
    pub fn release_unused(&self, phone: Arc<Device>) {
        // A thread that takes a reference holds the map's lock, so a count of two means the map and this caller.
        self.known.remove_if(&phone.id, |known, ()| Arc::strong_count(&known.0) <= 2);
    }

    /// Number of subscriptions of a device that was found.
    pub fn subscriptions(phone: &Arc<Device>) -> usize {
        // The map, every subscription and the caller hold one reference each.
        Arc::strong_count(phone).saturating_sub(2)
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if there is no device.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone() -> Arc<Device> {
        DeviceTable::default().get_or_create(DeviceId::of(&["sip:1002@acme.test", "desk"]))
    }

    fn by_udp(peer: &str) -> Source {
        let (transport, listener) = (crate::sip::Transport::Udp, crate::transport::ListenerId(0));
        Source { transport, listener, peer: peer.parse().unwrap(), flow: None, certified: false }
    }

    fn turns(phone: &Device, now: u64, count: usize) -> Vec<u64> {
        (0..count).map(|_| phone.reserve_send_time(Tick(now)).0).collect()
    }

    #[test]
    fn a_phone_is_small() {
        // The Arc adds two counters.
        assert!(size_of::<Device>() <= 64 - 16, "{}", size_of::<Device>());
    }

    #[test]
    fn what_one_address_has_proven_counts_for_no_other() {
        let phone = phone();
        let addresses: [IpAddr; 4] =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"].map(|a| a.parse().unwrap());
        for own in addresses {
            let _ = phone.on_reply(Tick(0), Tick(0), Some(own));
            assert_eq!(addresses.map(|address| phone.is_verified_at(address)), addresses.map(|address| address == own));
        }
        let _ = phone.on_subscribe(Tick(0), by_udp("[::ffff:192.0.2.1]:5060"), true);
        assert!(phone.is_verified_at(addresses[0]), "the same host in other clothes");
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
            phone.reserve_send_time(Tick(5_000_000_000));
        }
        assert_eq!(phone.state.lock().pace.interval(), SLOWEST, "however many are taken");
    }

    #[test]
    fn a_phone_that_answers_quickly_gets_a_thousand_in_a_second() {
        let phone = phone();
        for _ in 0..40 {
            assert_eq!(phone.on_reply(Tick(1_020), Tick(1_000), None), []);
        }
        assert_eq!(turns(&phone, 2_000, 22), [&[2_000; 20][..], &[2_001, 2_002]].concat());
        for _ in 0..4 {
            phone.on_retransmit();
        }
        assert_eq!(turns(&phone, 9_000, 21)[20], 9_080);
        assert_eq!(phone.on_reply(Tick(20_000), Tick(19_000), None), [], "a slow answer changes nothing");
        assert_eq!(turns(&phone, 30_000, 21)[20], 30_080);
    }

    #[test]
    fn what_a_phone_asks_for_itself_delays_the_others_by_no_more_than_a_burst() {
        let phone = phone();
        for _ in 0..1_000 {
            let _ = phone.on_subscribe(Tick(1_000), by_udp("192.0.2.1:5060"), false);
        }
        assert_eq!(turns(&phone, 1_000, 2), [1_100, 1_200]);
    }

    #[test]
    fn whoever_waits_for_a_sign_of_life_is_named_once() {
        let phone = phone();
        phone.suspend(1, 2);
        phone.suspend(1, 2);
        phone.suspend(3, 0);
        assert_eq!(phone.on_activity(), [(1, 2), (3, 0)]);
        assert_eq!(phone.on_activity(), []);
    }

    #[test]
    fn a_phone_is_forgotten_with_its_last_subscription() {
        let phones = DeviceTable::default();
        let id = DeviceId::of(&["a"]);
        let (one, two) = (phones.get_or_create(id), phones.get_or_create(id));
        one.suspend(1, 0);
        phones.release(one, 1, 0);
        assert_eq!(
            (phones.len(), DeviceTable::subscriptions(&phones.find(id).unwrap()), two.on_activity()),
            (1, 1, vec![])
        );
        phones.release(two, 2, 0);
        assert!(phones.is_empty());
    }
}

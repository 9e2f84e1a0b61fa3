//! The gate: how much anybody may say, decided before a message is read (law 7).
//!
//! Sources that have shown who or where they are have a bucket of their own. Strangers share a fixed number of buckets,
//! by address and port and by address, and one for all of them together; so a flood from a million forged addresses
//! takes no memory, and what it crowds out is other strangers, not the phones that are here. Trusted sources pass.
//!
//! Buckets are kept as the moment at which they will be empty again (GCRA), one word each.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use siphasher::sip::SipHasher13;

use crate::config::Rates;
use crate::presence::Tick;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is read.
    Pass,
    /// Its sender has said too much, and may be told so.
    TellOff,
    /// It is dropped.
    Drop,
}

/// Buckets are finer than the clock: this many units are a millisecond.
const UNITS: u64 = 1_000;
/// So many seconds' worth may come at once.
const BURST_SECONDS: u64 = 5;
/// So often is somebody told in a second that he says too much.
const ANSWERS_PER_SECOND: u32 = 2;
/// Buckets that strangers share, by address and port and by address.
const SHARED: usize = 1 << 14;
/// A source that was not heard for so long is a stranger again (ms).
const REMEMBERED: u64 = 2 * 3_600_000;
/// How often those are looked for (ms).
const SWEEP_EVERY: u64 = 600_000;
/// The most sources that are known; more stay strangers.
const MOST_KNOWN: usize = 1_000_000;

/// A bucket that leaks at a rate: the moment at which it will be empty.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Puts one message in; false if it does not fit. A rate of 0 is no limit.
    fn take(&self, now: Tick, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let (now, one) = (now.0 * UNITS, 1_000 * UNITS / u64::from(per_second));
        let full = now + BURST_SECONDS * 1_000 * UNITS;
        let fill = |empty_at: u64| Some(empty_at.max(now) + one).filter(|filled| *filled <= full);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill).is_ok()
    }
}

#[derive(Debug, Default)]
struct Known {
    said: Bucket,
    told: Bucket,
    heard_at: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Gate {
    rates: Rates,
    key: [u8; 16],
    known: DashMap<SocketAddr, Known, RandomState>,
    /// Made when the first stranger comes.
    by_source: OnceLock<Box<[Bucket]>>,
    by_address: OnceLock<Box<[Bucket]>>,
    strangers: Bucket,
    told: Bucket,
    swept_at: AtomicU64,
    dropped: AtomicU64,
}

impl Gate {
    pub(super) fn new(rates: Rates, key: [u8; 16]) -> Gate {
        Gate {
            rates,
            key,
            known: DashMap::default(),
            by_source: OnceLock::new(),
            by_address: OnceLock::new(),
            strangers: Bucket::default(),
            told: Bucket::default(),
            swept_at: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether a message from this source is read.
    pub(super) fn admit(&self, now: Tick, source: SocketAddr) -> Verdict {
        let verdict = match self.known.get(&source) {
            Some(known) => {
                known.heard_at.store(now.0, Ordering::Relaxed);
                match known.said.take(now, self.rates.known) {
                    true => Verdict::Pass,
                    false if known.told.take(now, ANSWERS_PER_SECOND) => Verdict::TellOff,
                    false => Verdict::Drop,
                }
            }
            None => self.admit_stranger(now, source),
        };
        if verdict != Verdict::Pass {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    fn admit_stranger(&self, now: Tick, source: SocketAddr) -> Verdict {
        let shared = || (0..SHARED).map(|_| Bucket::default()).collect();
        let own = &self.by_source.get_or_init(shared)[self.place(source.ip(), source.port())];
        let address = &self.by_address.get_or_init(shared)[self.place(source.ip(), 0)];
        if !own.take(now, self.rates.stranger) || !address.take(now, self.rates.address) {
            // One bucket for all who are told: an answer to a forged address must not cost us, nor whoever lives there.
            return if self.told.take(now, ANSWERS_PER_SECOND) { Verdict::TellOff } else { Verdict::Drop };
        }
        match self.strangers.take(now, self.rates.strangers) {
            true => Verdict::Pass,
            false => Verdict::Drop,
        }
    }

    fn place(&self, address: IpAddr, port: u16) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match address.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            // Whoever has one address of a /64 has all of them.
            IpAddr::V6(ip) if port == 0 => hasher.write(&ip.octets()[..8]),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u16(port);
        hasher.finish() as usize % SHARED
    }

    /// This source has shown that it is there.
    pub(super) fn know(&self, now: Tick, source: SocketAddr) {
        if let Some(known) = self.known.get(&source) {
            return known.heard_at.store(now.0, Ordering::Relaxed);
        }
        if self.known.len() < MOST_KNOWN {
            self.known.entry(source).or_default().heard_at.store(now.0, Ordering::Relaxed);
        }
    }

    /// Forgets, now and then, who was not heard for long.
    pub(super) fn pass_time(&self, now: Tick) {
        let last = self.swept_at.load(Ordering::Relaxed);
        if now.0 >= last + SWEEP_EVERY {
            self.swept_at.store(now.0, Ordering::Relaxed);
            self.known.retain(|_, known| known.heard_at.load(Ordering::Relaxed) + REMEMBERED > now.0);
        }
    }

    /// How many messages were not read.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { known: 100, stranger: 10, address: 40, strangers: 200 };

    fn gate() -> Gate {
        Gate::new(RATES, [7; 16])
    }

    fn source(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    fn passed(gate: &Gate, now: u64, sources: impl Iterator<Item = SocketAddr>) -> usize {
        sources.filter(|source| gate.admit(Tick(now), *source) == Verdict::Pass).count()
    }

    #[test]
    fn a_stranger_may_say_a_little_and_a_known_source_more() {
        let gate = gate();
        let (stranger, known) = (source(1, 5060), source(2, 5060));
        gate.know(Tick(1_000), known);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(stranger, 1_000)), 50);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(known, 10_000)), 500);
        assert_eq!(passed(&gate, 2_000, std::iter::repeat_n(stranger, 1_000)), 10);
        assert_eq!(passed(&gate, 2_000, std::iter::repeat_n(known, 10_000)), 100);
    }

    #[test]
    fn many_strangers_at_one_address_share_what_it_may_say() {
        let gate = gate();
        assert_eq!(passed(&gate, 1_000, (1..1_000).map(|port| source(1, port))), 200);
    }

    #[test]
    fn a_flood_of_strangers_crowds_out_strangers_and_nobody_who_is_known() {
        let gate = gate();
        gate.know(Tick(1_000), source(1, 5060));
        let forged = (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| SocketAddr::from(([10, 0, a, b], 5060))));
        assert_eq!(passed(&gate, 1_000, forged), 1_000);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(source(1, 5060), 100)), 100);
        assert_eq!(gate.dropped(), 65_536 - 1_000);
        assert_eq!(gate.known.len(), 1);
    }

    #[test]
    fn who_says_too_much_is_told_so_now_and_then() {
        let gate = gate();
        gate.know(Tick(1_000), source(1, 5060));
        let verdicts: Vec<_> = (0..2_000).map(|_| gate.admit(Tick(1_000), source(1, 5060))).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::TellOff).count(), 10);
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        let gate = Gate::new(Rates { known: 0, stranger: 0, address: 0, strangers: 0 }, [7; 16]);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(source(1, 5060), 100_000)), 100_000);
    }

    #[test]
    fn who_was_not_heard_for_long_is_a_stranger_again() {
        let gate = gate();
        gate.know(Tick(1_000), source(1, 5060));
        gate.know(Tick(1_000), source(2, 5060));
        gate.admit(Tick(4_000_000), source(2, 5060));
        gate.pass_time(Tick(8_000_000));
        assert_eq!(gate.known.len(), 1);
    }
}

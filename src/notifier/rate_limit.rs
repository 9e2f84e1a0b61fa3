//! Rate limits per source, applied before a message is parsed (rule 7).
//!
//! A verified source has a bucket of its own. A source is an address and port for datagrams, and a connection for
//! streams; it is verified once it has authenticated or proven its address. All unverified sources share a fixed number
//! of buckets: by address and port, by address (the /64 prefix for IPv6), and one for all of them together. So a flood
//! from a million forged addresses takes no memory. It displaces other unverified sources, not verified phones.
//! Trusted sources are not limited.
//!
//! A bucket is stored as the time at which it will be empty (GCRA), in one word.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use siphasher::sip::SipHasher13;

use super::settings::RateLimits;
use crate::presence::Tick;
use crate::transport::{FlowId, Source, limited_as};
use crate::util::counters::increment;

/// Decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The message is processed.
    Accept,
    /// The source is over its limit, and may be sent a 480.
    Reject,
    /// The message is dropped without a response.
    Drop,
}

/// Kind of a message, as far as its first octets show it without parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request, or anything else that is answered like one.
    Request,
    /// A response to a request of ours.
    Answer,
}

impl Kind {
    pub(super) fn of(bytes: &[u8]) -> Kind {
        if bytes.starts_with(b"SIP/") { Kind::Answer } else { Kind::Request }
    }
}

/// Time resolution of a bucket: units in a millisecond.
const UNITS: u64 = 1_000;
/// Burst that a bucket allows, in milliseconds of its rate.
const BURST: u64 = 5_000;
/// Burst that all unverified sources together may send in requests, in milliseconds of their rate. Each request gets a
/// response, so this is less than one second of the rate: no second sees twice the rate.
const BURST_OF_STRANGERS: u64 = 900;
/// Maximum number of 480 responses a second for being over the limit: per verified source, and for all unverified
/// sources together.
const ANSWERS_PER_SECOND: u32 = 2;
/// Maximum number of responses a second that are cached for retransmissions of requests that changed nothing. The
/// responses beyond that are made again for a retransmission, which takes no memory: half a minute of a flood would be
/// hundreds of megabytes.
const REMEMBERED_ANSWERS: u32 = 1_000;
/// Number of buckets that unverified sources share, for each of the two tables: by address and port, and by address.
const SHARED: usize = 1 << 14;
/// Lifetime of a verified source without a message (ms); it is then unverified again.
const VERIFIED_TTL: u64 = 2 * 3_600_000;
/// Interval between two sweeps for verified sources whose lifetime is over (ms).
const SWEEP_EVERY: u64 = 600_000;
/// Maximum number of verified datagram sources. Sources beyond that stay unverified.
const MOST_KNOWN: usize = 1_000_000;

/// Leaky bucket: the time at which it will be empty.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Adds one message to the bucket; returns false if it does not fit.
    pub(super) fn take(&self, now: Tick, size: Size) -> bool {
        let Some(one) = size.one() else { return true };
        let now = now.0 * UNITS;
        let full = now + size.burst * UNITS;
        let fill = |empty_at: u64| Some(empty_at.max(now) + one).filter(|filled| *filled <= full);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill).is_ok()
    }

    /// Time until one more message fits (ms).
    fn fits_in(&self, now: Tick, size: Size) -> u64 {
        let Some(one) = size.one() else { return 0 };
        let fits_at = (self.0.load(Ordering::Relaxed) + one).saturating_sub(size.burst * UNITS);
        fits_at.saturating_sub(now.0 * UNITS).div_ceil(UNITS)
    }
}

/// Rate and burst of a bucket.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Messages a second; 0 means no limit.
    per_second: u32,
    /// Burst, in milliseconds of the rate.
    burst: u64,
}

impl Size {
    pub(super) fn of(per_second: u32) -> Size {
        Size { per_second, burst: BURST }
    }

    fn of_strangers(per_second: u32) -> Size {
        Size { per_second, burst: BURST_OF_STRANGERS }
    }

    /// Cost of one message in [`UNITS`]; none if there is no limit.
    fn one(self) -> Option<u64> {
        (self.per_second > 0).then(|| 1_000 * UNITS / u64::from(self.per_second))
    }
}

/// Reasons why a message was not processed, in the order of their counters.
pub(super) const REASONS: [&str; 6] =
    ["verified_source", "unverified_source", "address", "unverified_total", "overload", "loudest_source"];

#[derive(Debug, Default)]
struct VerifiedSource {
    said: Bucket,
    told: Bucket,
    heard_at: AtomicU64,
}

#[derive(Debug)]
pub(super) struct RateLimiter {
    rate_limits: RateLimits,
    key: [u8; 16],
    /// Verified sources of datagrams.
    known: DashMap<SocketAddr, VerifiedSource, RandomState>,
    /// Verified connections. An entry is removed when its connection ends.
    proven: DashMap<FlowId, VerifiedSource, RandomState>,
    /// Allocated when the first message from an unverified source arrives.
    by_source: OnceLock<Box<[Bucket]>>,
    by_address: OnceLock<Box<[Bucket]>>,
    strangers: Bucket,
    /// Bucket for the responses that all unverified sources send to our NOTIFYs. They get no response, so that they
    /// cost less than requests.
    answers: Bucket,
    told: Bucket,
    remembered: Bucket,
    swept_at: AtomicU64,
    dropped: [AtomicU64; REASONS.len()],
}

impl RateLimiter {
    pub(super) fn new(rate_limits: RateLimits, key: [u8; 16]) -> RateLimiter {
        RateLimiter {
            rate_limits,
            key,
            known: DashMap::default(),
            proven: DashMap::default(),
            by_source: OnceLock::new(),
            by_address: OnceLock::new(),
            strangers: Bucket::default(),
            answers: Bucket::default(),
            told: Bucket::default(),
            remembered: Bucket::default(),
            swept_at: AtomicU64::new(0),
            dropped: Default::default(),
        }
    }

    /// Decides whether a message from this source is processed.
    pub(super) fn admit(&self, now: Tick, source: &Source, kind: Kind) -> Admission {
        let known = self.with_known(source, |known| self.admit_known(now, known));
        known.unwrap_or_else(|| self.admit_stranger(now, source.peer, kind))
    }

    /// Time until this source may send one more message (ms); 0 if it may now.
    pub(super) fn wait_ms(&self, now: Tick, source: &Source) -> u64 {
        let known =
            self.with_known(source, |known| known.said.fits_in(now, Size::of(self.rate_limits.verified_source)));
        known.unwrap_or_else(|| {
            let (own, address) = self.shared(source.peer);
            let own = own.fits_in(now, Size::of(self.rate_limits.unverified_source));
            let address = address.fits_in(now, Size::of(self.rate_limits.per_address));
            own.max(address).max(self.strangers.fits_in(now, Size::of_strangers(self.rate_limits.unverified_total)))
        })
    }

    /// Calls `f` with the entry of a verified source; none if the source is not verified.
    fn with_known<R>(&self, source: &Source, f: impl FnOnce(&VerifiedSource) -> R) -> Option<R> {
        match source.flow {
            Some(flow) => self.proven.get(&flow).map(|known| f(&known)),
            None => self.known.get(&source.peer).map(|known| f(&known)),
        }
    }

    fn admit_known(&self, now: Tick, known: &VerifiedSource) -> Admission {
        known.heard_at.store(now.0, Ordering::Relaxed);
        if known.said.take(now, Size::of(self.rate_limits.verified_source)) {
            return Admission::Accept;
        }
        self.count_rejected(0);
        match known.told.take(now, Size::of(ANSWERS_PER_SECOND)) {
            true => Admission::Reject,
            false => Admission::Drop,
        }
    }

    fn admit_stranger(&self, now: Tick, source: SocketAddr, kind: Kind) -> Admission {
        let (own, address) = self.shared(source);
        let within = own.take(now, Size::of(self.rate_limits.unverified_source));
        if !within || !address.take(now, Size::of(self.rate_limits.per_address)) {
            self.count_rejected(if within { 2 } else { 1 });
            // One bucket for all unverified sources: the responses to forged addresses must cost little, for us and for
            // the real owners of these addresses.
            let told = self.told.take(now, Size::of(ANSWERS_PER_SECOND));
            return if told { Admission::Reject } else { Admission::Drop };
        }
        let together = match kind {
            Kind::Request => self.strangers.take(now, Size::of_strangers(self.rate_limits.unverified_total)),
            Kind::Answer => self.answers.take(now, Size::of(self.rate_limits.unverified_total)),
        };
        match together {
            true => Admission::Accept,
            false => {
                self.count_rejected(3);
                Admission::Drop
            }
        }
    }

    /// The two buckets that an unverified source shares with others: that of its address and port, and that of its
    /// address.
    fn shared(&self, source: SocketAddr) -> (&Bucket, &Bucket) {
        let shared = || (0..SHARED).map(|_| Bucket::default()).collect();
        let own = &self.by_source.get_or_init(shared)[self.place(source.ip().to_canonical(), source.port())];
        let address = &self.by_address.get_or_init(shared)[self.place(limited_as(source.ip()), 0)];
        (own, address)
    }

    /// Counts requests that were not processed because too much waits for the journal.
    pub(super) fn count_overload(&self, requests: u64) {
        self.count(4, requests);
    }

    /// Counts requests that were not processed because an overloaded socket has to serve other sources, too.
    pub(super) fn count_dropped_of_loudest(&self, requests: u64) {
        self.count(5, requests);
    }

    fn count(&self, reason: usize, requests: u64) {
        if requests > 0 {
            self.dropped[reason].fetch_add(requests, Ordering::Relaxed);
        }
    }

    fn count_rejected(&self, reason: usize) {
        increment(&self.dropped[reason]);
    }

    fn place(&self, address: IpAddr, port: u16) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match address {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u16(port);
        hasher.finish() as usize % SHARED
    }

    /// Marks a source as verified: it has authenticated, or has proven that its address is real.
    pub(super) fn mark_verified(&self, now: Tick, source: &Source) {
        let heard = |known: &VerifiedSource| known.heard_at.store(now.0, Ordering::Relaxed);
        if self.with_known(source, heard).is_some() {
            return;
        }
        match source.flow {
            // Bounded by the number of connections.
            Some(flow) => heard(&self.proven.entry(flow).or_default()),
            None if source.is_stream() => {}
            None if self.known.len() < MOST_KNOWN => heard(&self.known.entry(source.peer).or_default()),
            None => {}
        }
    }

    /// Returns true if the response to a request that changed nothing may be cached.
    pub(super) fn remembers(&self, now: Tick) -> bool {
        self.remembered.take(now, Size::of(REMEMBERED_ANSWERS))
    }

    /// Removes the entry of a connection that has ended.
    pub(super) fn forget(&self, flow: FlowId) {
        self.proven.remove(&flow);
    }

    /// Removes verified sources whose lifetime is over, once in [`SWEEP_EVERY`].
    pub(super) fn pass_time(&self, now: Tick) {
        let last = self.swept_at.load(Ordering::Relaxed);
        if now.0 >= last + SWEEP_EVERY {
            self.swept_at.store(now.0, Ordering::Relaxed);
            self.known.retain(|_, known| known.heard_at.load(Ordering::Relaxed) + VERIFIED_TTL > now.0);
        }
    }

    /// Number of messages that were not processed, by reason.
    pub(super) fn dropped(&self) -> [(&'static str, u64); REASONS.len()] {
        std::array::from_fn(|reason| (REASONS[reason], self.dropped[reason].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Transport;
    use crate::transport::ListenerId;

    const RATES: RateLimits =
        RateLimits { verified_source: 100, unverified_source: 10, per_address: 40, unverified_total: 200 };

    fn gate() -> RateLimiter {
        RateLimiter::new(RATES, [7; 16])
    }

    fn datagrams(peer: impl Into<SocketAddr>) -> Source {
        Source { transport: Transport::Udp, listener: ListenerId(0), peer: peer.into(), flow: None, certified: false }
    }

    fn source(host: u8, port: u16) -> Source {
        datagrams(([192, 0, 2, host], port))
    }

    fn connection(flow: u64) -> Source {
        Source { transport: Transport::Tls, flow: Some(FlowId(flow)), ..source(1, flow as u16) }
    }

    fn passed(gate: &RateLimiter, now: u64, sources: impl Iterator<Item = Source>) -> usize {
        sources.filter(|source| gate.admit(Tick(now), source, Kind::Request) == Admission::Accept).count()
    }

    fn dropped(gate: &RateLimiter) -> u64 {
        gate.dropped().iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn a_stranger_may_say_a_little_and_a_known_source_more() {
        let gate = gate();
        let (stranger, known) = (source(1, 5060), source(2, 5060));
        gate.mark_verified(Tick(1_000), &known);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(stranger, 1_000)), 50);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(known, 10_000)), 500);
        assert_eq!(passed(&gate, 2_000, std::iter::repeat_n(stranger, 1_000)), 10);
        assert_eq!(passed(&gate, 2_000, std::iter::repeat_n(known, 10_000)), 100);
    }

    #[test]
    fn many_strangers_at_one_address_share_what_it_may_say() {
        let gate = RateLimiter::new(RateLimits { unverified_total: 4_000, ..RATES }, [7; 16]);
        assert_eq!(passed(&gate, 1_000, (1..1_000).map(|port| source(1, port))), 200);
        assert_eq!(passed(&gate, 1_000, (1..1_000).map(|n| datagrams(([0x2001, 0xdb8, 0, 1, 0, 0, 0, n], 5060)))), 200);
        assert_eq!(gate.dropped()[2], ("address", 799 + 799));
    }

    #[test]
    fn a_connection_is_a_stranger_until_it_has_proven_itself_and_a_new_one_is_no_new_burst() {
        let gate = RateLimiter::new(RateLimits { unverified_total: 4_000, ..RATES }, [7; 16]);
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(connection(1), 1_000)), 50);
        assert_eq!(passed(&gate, 1_000, (2..1_000).map(connection)), 150, "the rest of what their address may say");
        gate.mark_verified(Tick(1_000), &connection(2));
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(connection(2), 1_000)), 500);
        // This verifies neither another connection nor datagrams from the same address and port.
        let alike = [Source { flow: Some(FlowId(3)), ..connection(2) }, datagrams(connection(2).peer)];
        assert_eq!(passed(&gate, 1_000, alike.into_iter()), 0);
        gate.forget(FlowId(2));
        assert_eq!((gate.proven.len(), gate.known.len(), passed(&gate, 1_000, [connection(2)].into_iter())), (0, 0, 0));
    }

    #[test]
    fn how_long_a_source_has_to_wait_is_known_beforehand() {
        let gate = RateLimiter::new(RateLimits { unverified_total: 4_000, ..RATES }, [7; 16]);
        let one = connection(1);
        assert_eq!((gate.wait_ms(Tick(1_000), &one), passed(&gate, 1_000, std::iter::repeat_n(one, 1_000))), (0, 50));
        let wait = gate.wait_ms(Tick(1_000), &one);
        assert_eq!((wait, passed(&gate, 1_000 + wait - 1, [one].into_iter())), (100, 0));
        assert_eq!(passed(&gate, 1_000 + wait, [one].into_iter()), 1);
    }

    #[test]
    fn a_flood_of_strangers_crowds_out_strangers_and_nobody_who_is_known() {
        let gate = gate();
        gate.mark_verified(Tick(1_000), &source(1, 5060));
        let forged = (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| datagrams(([10, 0, a, b], 5060))));
        assert_eq!(passed(&gate, 1_000, forged), 180, "less than a second's worth");
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(source(1, 5060), 100)), 100);
        assert_eq!(dropped(&gate), 65_536 - 180);
        assert_eq!(gate.known.len(), 1);
    }

    #[test]
    fn who_says_too_much_is_told_so_now_and_then() {
        let gate = gate();
        gate.mark_verified(Tick(1_000), &source(1, 5060));
        let verdicts: Vec<_> = (0..2_000).map(|_| gate.admit(Tick(1_000), &source(1, 5060), Kind::Request)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Admission::Reject).count(), 10);
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        let gate = RateLimiter::new(
            RateLimits { verified_source: 0, unverified_source: 0, per_address: 0, unverified_total: 0 },
            [7; 16],
        );
        assert_eq!(passed(&gate, 1_000, std::iter::repeat_n(source(1, 5060), 100_000)), 100_000);
    }

    #[test]
    fn who_was_not_heard_for_long_is_a_stranger_again() {
        let gate = gate();
        gate.mark_verified(Tick(1_000), &source(1, 5060));
        gate.mark_verified(Tick(1_000), &source(2, 5060));
        gate.admit(Tick(4_000_000), &source(2, 5060), Kind::Request);
        gate.pass_time(Tick(8_000_000));
        assert_eq!(gate.known.len(), 1);
    }
}

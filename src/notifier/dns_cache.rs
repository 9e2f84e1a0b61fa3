//! DNS cache for next hops that are host names (RFC 3263, RFC 2782).
//!
//! This module does no I/O. A host name that is not cached becomes a [`DnsQuery`], which the server sends to the DNS.
//! The [`DnsAnswer`] is cached for its TTL. Each query is sent once; all NOTIFYs that need it wait for the same answer.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::presence::Tick;
use crate::sip::Transport;

/// Maximum number of host names in the cache. Only trusted sources can add names.
const MOST_NAMES: usize = 10_000;
/// Maximum number of targets in quarantine.
const MOST_ASIDE: usize = 10_000;
/// Time that NOTIFYs wait for a DNS answer (ms). The resolver gives up earlier.
const WAIT_TIMEOUT: u64 = 3_000;
/// Time that a failed lookup is cached (ms).
const FAILED_FOR: u64 = 30_000;
/// Time that a failed target stays in quarantine (ms).
const QUARANTINE: u64 = 30_000;
/// Limits of the TTL of an answer (seconds). The minimum lets the NOTIFYs that waited use the answer; the maximum is
/// one day.
const LIFETIME: std::ops::RangeInclusive<u32> = 1..=86_400;

/// DNS query: the parts of a URI that RFC 3263 section 4 needs, if its host is a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsQuery {
    /// Host name, in lower case and without a trailing dot.
    pub host: Arc<str>,
    /// Port of the URI, if it has one.
    pub port: Option<u16>,
    /// Transport of the URI, if it names one.
    pub transport: Option<Transport>,
    /// True if only TLS is allowed.
    pub secure: bool,
}

/// A host that a name resolves to (an SRV target).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvTarget {
    /// Priority; lower values are tried first.
    pub priority: u32,
    /// Share of the traffic among candidates of the same priority.
    pub weight: u16,
    /// Transport to use.
    pub transport: Transport,
    /// All addresses of the host, in the order of preference.
    pub addresses: Vec<SocketAddr>,
}

/// Result of a successful lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// Hosts that the name resolves to, in any order.
    pub candidates: Vec<SrvTarget>,
    /// Lifetime of the answer (seconds).
    pub ttl: u32,
}

/// Error of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The DNS has no record that we can use.
    #[error("there is no such name, or nothing that we speak is offered there")]
    Unknown,
    /// The DNS did not answer in time.
    #[error("the DNS did not answer in time")]
    Late,
    /// No DNS server is configured.
    #[error("there is no DNS server to ask")]
    NoServer,
}

/// Address and transport that a message can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResolvedTarget {
    /// Transport to use.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
}

/// All targets in the order in which they are tried (RFC 2782): by priority, and at random by weight within a priority.
/// The same `number` gives the same order, so that a dialog stays with its target (RFC 3263 section 4.3).
pub fn order(candidates: &[SrvTarget], number: u64) -> Vec<ResolvedTarget> {
    let mut number = number;
    let mut left: Vec<_> = candidates.iter().collect();
    // Candidates without weight come first, so that only a draw of 0 selects them (RFC 2782).
    left.sort_by_key(|candidate| (candidate.priority, candidate.weight > 0));
    let mut ordered = Vec::new();
    while let Some(priority) = left.first().map(|first| first.priority) {
        let equals = left.iter().take_while(|candidate| candidate.priority == priority);
        let sum: u64 = equals.map(|candidate| u64::from(candidate.weight)).sum();
        number = scramble(number);
        let drawn = number % (sum + 1);
        let mut running = 0;
        let at = left.iter().position(|candidate| {
            running += u64::from(candidate.weight);
            running >= drawn
        });
        let SrvTarget { transport, addresses, .. } = left.remove(at.unwrap_or(0));
        ordered.extend(addresses.iter().map(|&address| ResolvedTarget { transport: *transport, address }));
    }
    ordered
}

/// Pseudo-random number that follows `number` (splitmix64).
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Subscription that waits for an answer: number of the presentity, and slot.
pub(super) type Waiter = (u32, u32);

/// State of a name in the cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameLookup {
    /// The name is resolved.
    Targets {
        /// Targets in the order in which they are tried, without those in quarantine.
        free: Vec<ResolvedTarget>,
        /// Number of targets, including those in quarantine.
        all: usize,
    },
    /// The DNS has been queried, or must be queried now.
    Soon {
        /// Deadline of the DNS answer.
        until: Tick,
        /// True if the caller must send the query; false if it was sent already.
        ask: bool,
    },
    /// The name cannot be resolved at present.
    Nothing,
}

#[derive(Debug)]
enum Entry {
    Known { candidates: Arc<[SrvTarget]>, until: Tick },
    Asked { since: Tick, waiting: BTreeSet<Waiter> },
    Failed { until: Tick },
}

impl Entry {
    fn is_over(&self, now: Tick) -> bool {
        match self {
            Entry::Known { until, .. } | Entry::Failed { until } => *until <= now,
            Entry::Asked { since, .. } => since.after(WAIT_TIMEOUT + FAILED_FOR) <= now,
        }
    }
}

/// Cache of host names. It has a lock of its own, held for a few instructions. The lock may be taken while a presentity
/// is locked; no other lock is taken while it is held.
#[derive(Debug, Default)]
pub(super) struct DnsCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<DnsQuery, Entry>,
    /// Targets in quarantine, and the end of the quarantine.
    aside: HashMap<ResolvedTarget, Tick>,
    /// Time of the last sweep. Sweeps happen only when a table is full.
    swept_at: Tick,
}

impl State {
    /// Removes entries whose time is over. This happens at most once a second, because it scans both tables; until
    /// then, a full table stays full.
    fn sweep(&mut self, now: Tick) {
        if self.swept_at.after(1_000) <= now {
            self.swept_at = now;
            self.entries.retain(|_, entry| !entry.is_over(now));
            self.aside.retain(|_, until| *until > now);
        }
    }
}

impl DnsQuery {
    /// Transport to try if the DNS says nothing else (RFC 3263 section 4.1).
    pub(super) fn default_transport(&self) -> Transport {
        self.transport.unwrap_or(if self.secure { Transport::Tls } else { Transport::Udp })
    }
}

impl DnsCache {
    /// Looks a name up in the cache. If it is not resolved, `who` is added to the subscriptions that wait for it.
    /// `number` determines the order of the targets.
    pub(super) fn look_up(&self, now: Tick, question: &DnsQuery, who: Waiter, number: u64) -> NameLookup {
        let mut state = self.0.lock();
        let state = &mut *state;
        if state.entries.len() >= MOST_NAMES && !state.entries.contains_key(question) {
            state.sweep(now);
            if state.entries.len() >= MOST_NAMES {
                return NameLookup::Nothing;
            }
        }
        match state.entries.get_mut(question) {
            Some(Entry::Known { candidates, until }) if *until > now => {
                let mut free = order(candidates, number);
                let all = free.len();
                free.retain(|target| state.aside.get(target).is_none_or(|until| *until <= now));
                return NameLookup::Targets { free, all };
            }
            Some(Entry::Asked { since, waiting }) if since.after(WAIT_TIMEOUT) > now => {
                waiting.insert(who);
                return NameLookup::Soon { until: since.after(WAIT_TIMEOUT), ask: false };
            }
            Some(Entry::Asked { since, .. }) if since.after(WAIT_TIMEOUT + FAILED_FOR) > now => {
                return NameLookup::Nothing;
            }
            Some(Entry::Failed { until }) if *until > now => return NameLookup::Nothing,
            Some(_) | None => {}
        }
        state.entries.insert(question.clone(), Entry::Asked { since: now, waiting: BTreeSet::from([who]) });
        NameLookup::Soon { until: now.after(WAIT_TIMEOUT), ask: true }
    }

    /// Stores a DNS answer, and returns the subscriptions that waited for it.
    pub(super) fn learn(&self, now: Tick, question: DnsQuery, answer: Result<DnsAnswer, DnsError>) -> Vec<Waiter> {
        let entry = match answer {
            Ok(DnsAnswer { candidates, ttl }) if candidates.iter().any(|candidate| !candidate.addresses.is_empty()) => {
                let ttl = ttl.clamp(*LIFETIME.start(), *LIFETIME.end());
                Entry::Known { candidates: candidates.into(), until: now.after(u64::from(ttl) * 1_000) }
            }
            Ok(_) | Err(_) => Entry::Failed { until: now.after(FAILED_FOR) },
        };
        // An answer without an entry is dropped: it was not asked for, or its entry was removed meanwhile.
        match self.0.lock().entries.get_mut(&question).map(|known| std::mem::replace(known, entry)) {
            Some(Entry::Asked { waiting, .. }) => waiting.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Number of names in the cache, including pending queries.
    pub(super) fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Puts a failed target into quarantine. Other targets are tried first for a while (RFC 3263 section 4.3).
    pub(super) fn quarantine(&self, now: Tick, target: ResolvedTarget) {
        let mut state = self.0.lock();
        if state.aside.len() >= MOST_ASIDE {
            state.sweep(now);
        }
        if state.aside.len() < MOST_ASIDE {
            state.aside.insert(target, now.after(QUARANTINE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(priority: u32, weight: u16, port: u16) -> SrvTarget {
        let addresses = vec![SocketAddr::from(([192, 0, 2, 1], port))];
        SrvTarget { priority, weight, transport: Transport::Udp, addresses }
    }

    fn ports(targets: &[ResolvedTarget]) -> Vec<u16> {
        targets.iter().map(|target| target.address.port()).collect()
    }

    fn question(host: &str) -> DnsQuery {
        DnsQuery { host: host.into(), port: None, transport: None, secure: false }
    }

    fn answer(ttl: u32) -> Result<DnsAnswer, DnsError> {
        Ok(DnsAnswer { candidates: vec![candidate(1, 0, 1), candidate(2, 0, 2)], ttl })
    }

    const ANA: Waiter = (1, 0);
    const BOB: Waiter = (2, 0);

    fn found(names: &DnsCache, now: u64) -> NameLookup {
        names.look_up(Tick(now), &question("a.test"), ANA, 0)
    }

    fn ports_found(names: &DnsCache, now: u64) -> Vec<u16> {
        match found(names, now) {
            NameLookup::Targets { free, all: 2 } => ports(&free),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lower_priorities_go_first_whatever_their_weight() {
        let candidates = [candidate(20, 65_535, 3), candidate(10, 0, 1), candidate(20, 65_535, 4), candidate(15, 1, 2)];
        for number in 0..100 {
            assert_eq!(ports(&order(&candidates, number))[..2], [1, 2]);
        }
    }

    #[test]
    fn among_equals_each_goes_first_as_often_as_its_weight_says() {
        let candidates = [candidate(1, 60, 1), candidate(1, 0, 3), candidate(1, 20, 2)];
        let mut first = [0; 3];
        for number in 0..8_100 {
            let ports = ports(&order(&candidates, number));
            assert_eq!((ports.len(), ports.iter().sum::<u16>()), (3, 6), "each once");
            first[usize::from(ports[0]) - 1] += 1;
        }
        // One draw in 81 is 0, and selects the candidate without weight.
        assert!((5_850..6_150).contains(&first[0]) && (1_850..2_150).contains(&first[1]), "{first:?}");
        assert!((50..150).contains(&first[2]), "{first:?}");
    }

    #[test]
    fn the_same_number_draws_the_same_order() {
        let candidates: Vec<_> = (1..9).map(|port| candidate(1, 10, port)).collect();
        assert_eq!(order(&candidates, 7), order(&candidates, 7));
        assert_ne!(order(&candidates, 7), order(&candidates, 8));
    }

    #[test]
    fn all_addresses_of_a_host_go_before_the_next_host() {
        let two =
            SrvTarget { addresses: vec![([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into()], ..candidate(1, 0, 0) };
        assert_eq!(ports(&order(&[candidate(2, 0, 3), two], 0)), [1, 2, 3]);
    }

    #[test]
    fn a_name_is_asked_for_once_and_all_who_wait_are_told() {
        let names = DnsCache::default();
        assert_eq!(found(&names, 0), NameLookup::Soon { until: Tick(3_000), ask: true });
        assert_eq!(
            names.look_up(Tick(100), &question("a.test"), BOB, 0),
            NameLookup::Soon { until: Tick(3_000), ask: false }
        );
        assert_eq!(names.learn(Tick(200), question("a.test"), answer(60)), [ANA, BOB]);
        assert_eq!(ports_found(&names, 60_199), [1, 2]);
        assert_eq!(found(&names, 60_200), NameLookup::Soon { until: Tick(63_200), ask: true }, "its lifetime is over");
    }

    #[test]
    fn what_cannot_be_looked_up_is_left_alone_for_a_while() {
        let names = DnsCache::default();
        found(&names, 0);
        assert_eq!(names.learn(Tick(10), question("a.test"), Err(DnsError::Unknown)), [ANA]);
        assert_eq!(found(&names, 30_009), NameLookup::Nothing);
        assert!(matches!(found(&names, 30_010), NameLookup::Soon { ask: true, .. }));
        // This time the DNS does not answer.
        assert_eq!(found(&names, 33_010), NameLookup::Nothing);
        assert_eq!(names.learn(Tick(33_020), question("a.test"), answer(0)), [ANA], "better late than never");
        assert_eq!(ports_found(&names, 34_019), [1, 2], "no lifetime is too short to be used");
    }

    #[test]
    fn a_target_that_has_failed_is_left_out_for_a_while() {
        let names = DnsCache::default();
        found(&names, 0);
        names.learn(Tick(0), question("a.test"), answer(600));
        let target = |port| ResolvedTarget { transport: Transport::Udp, address: ([192, 0, 2, 1], port).into() };
        names.quarantine(Tick(0), target(1));
        assert_eq!(ports_found(&names, 29_999), [2]);
        names.quarantine(Tick(10_000), target(2));
        assert_eq!(ports_found(&names, 20_000), [0; 0]);
        assert_eq!(ports_found(&names, 30_000), [1]);
        assert_eq!(ports_found(&names, 40_000), [1, 2]);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let names = DnsCache::default();
        let ask = |now, i: usize| names.look_up(Tick(now), &question(&format!("{i}.test")), ANA, 0);
        assert!((0..MOST_NAMES).all(|i| matches!(ask(1_000, i), NameLookup::Soon { .. })));
        assert_eq!(ask(1_001, MOST_NAMES), NameLookup::Nothing);
        assert!(matches!(ask(40_000, MOST_NAMES), NameLookup::Soon { ask: true, .. }), "room is made");
        assert_eq!(names.learn(Tick(40_000), question("unasked.test"), answer(60)), []);
        assert!(names.0.lock().entries.len() == 1);
    }
}

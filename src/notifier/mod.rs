//! The application: it receives requests, decides about them, composes documents and sends NOTIFYs. It is the only
//! module that uses all lower ones.
//!
//! Inputs are messages from the network with their sources, the current time, and commands of the API. The output is an
//! [`Outbox`] of messages in the order in which they must be sent. Nothing here waits, holds a socket or reads a clock:
//! every entry point takes `now`, so that the simulator can drive the same code (rule 9). Entry points may be called
//! from any thread. All that happens to one presentity happens under its lock, in one order.
//!
//! Modules, in the order of a request:
//!
//! - Requests: `ingress` (entry of all messages), `rate_limit`, `request` (checks common to all methods),
//!   `authorization`, `subscribe`, `publish`, `retransmission` (requests that come again after a restart), `response`,
//!   `outbox`.
//! - NOTIFYs: `fan_out`, `dialog_filter` (watchers of a single dialog), `notify` (sending, responses and failures),
//!   `pacing` (rate per phone), `notify_message` (encoding, and the transport of large ones), `size` (limit of
//!   documents), `routing`, `dns_cache` and `failover`.
//! - Time and persistence: `wheel` (timers), `timers` (their handlers), `persist` and `record_description` (journal
//!   records), `rollback` (changes that the journal refuses).
//! - API and observation: `control`, `admin` (listing, reset, set), `listing` (pages of long lists), `drain`, `audit`,
//!   `explain`, `history`, `metrics` (counters), `refusals`, `change_feed`, `trace`. `settings` has what the
//!   configuration sets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use crate::journal::Acceptance;
use crate::package;
use crate::presence::Tick;
use crate::presence::device::DeviceTable;
use crate::presence::intern::Interner;
use crate::presence::publication::PublicationNo;
use crate::presence::table::Table;
use crate::presence::vendor::Vendor;
use crate::sip::digest::Verifier;
use crate::sip::digest::nonces::Nonces;
use crate::sip::transaction::ServerTransactions;
use crate::sip::wire;
use crate::util::per_thread::CachePadded;
use rate_limit::RateLimiter;

mod admin;
mod audit;
mod authorization;
pub mod change_feed;
pub mod control;
mod dialog_filter;
pub mod dns_cache;
mod drain;
pub mod explain;
mod failover;
mod fan_out;
pub mod history;
mod ingress;
mod listing;
pub mod metrics;
mod notify;
mod notify_message;
mod outbox;
mod pacing;
mod persist;
mod publish;
mod rate_limit;
mod record_description;
pub mod refusals;
mod request;
mod response;
mod retransmission;
mod rollback;
pub mod routing;
pub mod settings;
mod size;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;
mod trace;
mod wheel;

use notify_message::MAX_DATAGRAM;
pub use notify_message::OversizeNotifies;
pub use outbox::{MessageBuffer, Outbox, PendingResponse};
pub use persist::Restored;
pub use record_description::{RecordDescription, describe, lost};
pub use rollback::Change;
pub use routing::Routing;
pub use settings::Settings;

/// The notifier: all presentities, subscriptions and publications of the server.
#[derive(Debug)]
pub struct Notifier {
    settings: Settings,
    table: Table,
    phones: DeviceTable,
    transactions: ServerTransactions<response::CachedResponse>,
    rate_limiter: RateLimiter,
    nonces: Nonces,
    /// Verifier of a dummy password, for users that do not exist.
    dummy_verifier: Verifier,
    dns_cache: dns_cache::DnsCache,
    /// Interned User-Agents of phones, with their makes.
    user_agents: Interner<Vendor>,
    /// Value of the Allow-Events header.
    allow_events: Box<str>,
    wheel: wheel::Wheel,
    /// Source of unique numbers: the order of journal records and changes, and the input of `nonce`.
    counter: CachePadded<AtomicU64>,
    /// Journal's readiness for changes, an [`Acceptance`] as a number.
    acceptance: AtomicU8,
    /// True while the server drains: new subscriptions are refused.
    draining: AtomicBool,
    oversize: notify_message::OversizeCounters,
    history: history::History,
    refusals: refusals::Refusals,
    change_feed: change_feed::ChangeFeed,
    trace: trace::Trace,
    audit: audit::AuditLog,
    dormant: persist::Dormant,
    ended: persist::EndedSubscriptions,
    /// End of the time after a restart in which requests from before it may be retransmitted (ms); 0 without a restart.
    restart_grace_until: AtomicU64,
    /// Number of server starts with this journal.
    starts: AtomicU32,
    /// Outboxes that the journal has refused, and whose rollback is not complete.
    refused: Mutex<Vec<rollback::RefusedOutbox>>,
    /// Number of messages whose handling panicked. Each is a bug, and its effect is limited to that message.
    panics: AtomicU64,
}

/// Maximum number of responses that are cached for retransmissions of their requests.
const MOST_TRANSACTIONS: usize = 400_000;

/// Maximum number of used nonces that are stored.
const MOST_NONCES: usize = 500_000;
/// Minimum lifetime of a nonce (ms).
const LEAST_NONCE_LIFETIME: u64 = 3_600_000;

impl Notifier {
    /// Creates a notifier without any state.
    pub fn new(settings: Settings) -> Notifier {
        let table = Table::new(settings.directory.accounts().len(), settings.limits.presentities_per_account)
            .with_secret(settings.secret);
        let transactions = ServerTransactions::new(settings.secret, MOST_TRANSACTIONS);
        // A nonce lives twice as long as the longest subscription, so that a phone that refreshes in time is not
        // challenged again.
        let lifetime = (2_000 * u64::from(settings.presence.max_expires)).max(LEAST_NONCE_LIFETIME);
        let nonces = Nonces::new(settings.secret, lifetime, MOST_NONCES);
        let gate = RateLimiter::new(settings.rate_limits, settings.secret);
        let history = history::History::new(settings.history);
        let refusals = refusals::Refusals::new(settings.directory.accounts().len(), settings.secret);
        let dummy_verifier = Verifier::new("", "", &format!("{:?}", settings.secret));
        let packages = settings.presence.packages.iter().map(|id| package::get(*id).name());
        let allow_events = packages.collect::<Vec<_>>().join(", ").into();
        Notifier {
            user_agents: Interner::default(),
            allow_events,
            settings,
            table,
            phones: DeviceTable::default(),
            transactions,
            rate_limiter: gate,
            nonces,
            dummy_verifier,
            dns_cache: dns_cache::DnsCache::default(),
            wheel: wheel::Wheel::default(),
            counter: CachePadded(AtomicU64::new(1)),
            acceptance: AtomicU8::new(Acceptance::Accepting as u8),
            draining: AtomicBool::new(false),
            oversize: notify_message::OversizeCounters::default(),
            history,
            refusals,
            change_feed: change_feed::ChangeFeed::default(),
            trace: trace::Trace::default(),
            audit: audit::AuditLog::default(),
            dormant: persist::Dormant::default(),
            ended: persist::EndedSubscriptions::default(),
            restart_grace_until: AtomicU64::new(0),
            starts: AtomicU32::new(0),
            refused: Mutex::default(),
            panics: AtomicU64::new(0),
        }
    }

    /// Number of messages that were not processed, by reason: the source was over its rate limit, or too much waited
    /// for the journal.
    pub fn turned_away_by_reason(&self) -> [(&'static str, u64); rate_limit::REASONS.len()] {
        self.rate_limiter.dropped()
    }

    /// Number of messages that were not processed, for any reason.
    pub fn turned_away(&self) -> u64 {
        self.turned_away_by_reason().iter().map(|(_, count)| count).sum()
    }

    /// Counters since the start.
    pub fn tally(&self) -> metrics::NotifyCounters {
        self.history.tally()
    }

    /// Handles all timers that are due at `now`.
    pub fn pass_time(&self, now: Tick, out: &mut Outbox) {
        self.rate_limiter.pass_time(now);
        self.transactions.pass_time(now.0);
        self.end_dormant(now, out);
        for entry in self.wheel.take_due(now) {
            self.guarded(now, out, |out| self.on_timer(now, entry, out));
        }
    }

    /// Time of the next call of [`Notifier::pass_time`]; none if nothing is scheduled.
    pub fn next_deadline(&self) -> Option<Tick> {
        [self.wheel.next(), self.next_end()].into_iter().flatten().min()
    }

    /// Number of subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.table.subscriptions()
    }

    /// Sets the journal's readiness for changes. While it accepts none, SUBSCRIBE and PUBLISH are answered 503, and the
    /// existing state is served from memory.
    pub fn set_journal_acceptance(&self, acceptance: Acceptance) {
        let acceptance = acceptance as u8;
        // Written only if it changes: this is called before every batch of messages, and each write would take the
        // cache line away from the other threads.
        if self.acceptance.load(Ordering::Relaxed) != acceptance {
            let before = self.acceptance.swap(acceptance, Ordering::Relaxed);
            let failing = Acceptance::Failing as u8;
            match (before == failing, acceptance == failing) {
                (true, false) => tracing::info!("the journal stores changes again"),
                (false, true) => {
                    tracing::error!("the journal cannot store changes; SUBSCRIBE and PUBLISH are answered 503");
                }
                _ => {}
            }
        }
    }

    /// Returns true if the journal accepts changes.
    pub fn accepts_changes(&self) -> bool {
        self.acceptance.load(Ordering::Relaxed) == Acceptance::Accepting as u8
    }

    /// Number of messages whose handling has panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Number of a new publication, which is part of its entity-tag. It is random, because a counter would show each
    /// publisher how much all others publish. It has to be unique in one presentity only.
    fn next_publication(&self) -> PublicationNo {
        // 63 bits, so that adding to it does not overflow.
        PublicationNo(self.nonce() >> 1)
    }

    /// To tag of a response that creates no dialog.
    fn stateless_tag(&self, call_id: &str, cseq: &str) -> wire::Hex {
        let mut hasher = SipHasher24::new_with_key(&self.settings.secret);
        hasher.write(call_id.as_bytes());
        hasher.write(cseq.as_bytes());
        wire::Hex(hasher.finish(), 16)
    }

    /// Unique number that cannot be guessed without our secret.
    fn nonce(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.settings.secret);
        hasher.write_u64(self.next_number());
        hasher.finish()
    }

    /// Random delay from `from` to twice that (seconds), so that clients that were refused together do not come back
    /// together.
    fn jittered(&self, from: u32) -> u32 {
        from + (self.nonce() % u64::from(from.max(1))) as u32
    }
}

/// Random key from the operating system, or if that fails from the random keys of the standard library.
pub fn new_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    if getrandom::fill(&mut secret).is_err() {
        for (i, half) in secret.chunks_exact_mut(8).enumerate() {
            half.copy_from_slice(&RandomState::new().hash_one(i).to_ne_bytes());
        }
    }
    secret
}

//! The application: it takes requests, decides, composes and sends. The only room that sees all those below.
//!
//! In flow messages from the network with where they came from, the passing of time, and what the API wants changed;
//! out flows an [`Outbox`] of messages in the order in which they have to leave. Nothing here waits, holds a socket or
//! reads a clock: every entry takes `now`, so that a simulator can drive the very same code (law 9). Every entry may
//! be called from any thread; what happens to one presentity happens under its lock, in one order.
//!
//! Where to read: `receive` (where messages come in), `request` (what every request goes through), `gate` (how much), `access` (who may), `subscribe` and
//! `publish` (the life of each), `notify` (sending, replies and failures), `write` (a NOTIFY as text, and what carries it),
//! `rollback` (what becomes of a change that the journal refuses), `pace`, `fan_out`, `admin` (listing, reset, set), `parts` (long listings), `explain`, `history`, `events` and `trace` (what is, what has been, what has just changed, what was said word for word), `route`, `names` and `lookup` (next hops that are names), `wheel`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use siphasher::sip::SipHasher24;

use crate::config::{Access, Config, Durability, Limits, Presence, RateLimits};
use crate::directory::Directory;
use crate::journal::Acceptance;
use crate::package;
use crate::per_thread::Apart;
use crate::presence::Tick;
use crate::presence::family::Family;
use crate::presence::phone::Phones;
use crate::presence::publication::PublicationNo;
use crate::presence::shared::SharedTexts;
use crate::presence::table::Table;
use crate::sip::digest::Verifier;
use crate::sip::digest::nonces::Nonces;
use crate::sip::transaction::ServerTransactions;
use crate::sip::wire;
use crate::transport::Listener;
use gate::Gate;

mod access;
mod admin;
mod answer;
pub mod control;
mod deeds;
mod drain;
pub mod events;
mod expire;
pub mod explain;
mod fan_out;
mod gate;
pub mod history;
mod lookup;
mod named;
pub mod names;
mod notify;
mod outbox;
mod pace;
mod parts;
mod persist;
mod persist_keys;
mod publish;
mod receive;
pub mod refusals;
mod repetition;
mod request;
mod rollback;
pub mod route;
mod size;
mod subscribe;
pub mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod wheel;
mod write;

pub use outbox::{Outbox, Pool, Promise};
pub use persist::Restored;
pub use persist_keys::{About, describe};
pub use rollback::Change;
pub use route::Routing;
pub use write::LargeNotifies;
use write::MAX_DATAGRAM;

/// What the notifier is told once, at the start.
#[derive(Debug)]
pub struct Settings {
    /// `[presence]` of the configuration.
    pub presence: Presence,
    /// `[access]` of the configuration.
    pub access: Access,
    /// `[limits]` of the configuration.
    pub limits: Limits,
    /// `[rate_limits]` of the configuration.
    pub rate_limits: RateLimits,
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Our addresses, and whose word is taken for others.
    pub routing: Routing,
    /// How many exchanges are remembered.
    pub history: usize,
    /// Whether changes leave as records for a journal.
    pub journal: bool,
    /// Key of all that has to be unguessable: tags, branches, entity-tags. New for every start.
    pub secret: [u8; 16],
}

impl Settings {
    /// What a configuration says, with our addresses as peers see them.
    pub fn of(config: &Config, directory: Arc<Directory>, listeners: Vec<Listener>, secret: [u8; 16]) -> Settings {
        Settings {
            presence: config.presence.clone(),
            access: config.access.clone(),
            limits: config.limits.clone(),
            rate_limits: config.rate_limits,
            directory,
            routing: Routing { listeners, trusted: config.access.trusted_proxies.clone() },
            history: config.history.exchanges,
            journal: config.data.durability != Durability::Memory,
            secret,
        }
    }
}

/// The notifier.
#[derive(Debug)]
pub struct Notifier {
    settings: Settings,
    table: Table,
    phones: Phones,
    transactions: ServerTransactions<answer::Remembered>,
    gate: Gate,
    nonces: Nonces,
    /// The verifier of a password that nobody has.
    nobody: Verifier,
    names: names::Names,
    /// The names of phone models.
    agents: SharedTexts<Family>,
    /// What Allow-Events says.
    allow_events: Box<str>,
    wheel: wheel::Wheel,
    /// Counts whatever needs a number of its own: publications, nonces.
    counter: Apart<AtomicU64>,
    /// Whether the journal accepts changes (an [`Acceptance`]).
    acceptance: AtomicU8,
    /// True once the server is about to stop: then no new subscription is taken on.
    draining: AtomicBool,
    large: write::Tally,
    history: history::History,
    refusals: refusals::Refusals,
    feed: events::Feed,
    trace: trace::Trace,
    deeds: deeds::Deeds,
    dormant: persist::Dormant,
    ended: persist::EndedSubscriptions,
    /// Until when requests from before the restart may be repeated, in ms; 0 if there was none.
    doubtful_until: AtomicU64,
    /// How often a server has started with this journal.
    starts: AtomicU32,
    /// Outboxes that the journal has refused and that are not settled yet.
    refused: Mutex<Vec<rollback::Refused>>,
    /// Messages whose handling panicked. A bug, contained to the message that found it.
    panics: AtomicU64,
}

/// How many answers are remembered for repetitions of their requests, at most.
const MOST_TRANSACTIONS: usize = 400_000;

/// How many nonces are remembered that somebody has proven himself with, at most.
const MOST_NONCES: usize = 500_000;
/// A nonce is good for at least so long (ms).
const LEAST_NONCE_LIFETIME: u64 = 3_600_000;

impl Notifier {
    /// A notifier that knows nobody yet.
    pub fn new(settings: Settings) -> Notifier {
        let table = Table::new(settings.directory.accounts().len(), settings.limits.presentities_per_account)
            .with_secret(settings.secret);
        let transactions = ServerTransactions::new(settings.secret, MOST_TRANSACTIONS);
        // Whoever refreshes in time never needs a second challenge, whatever lifetime he was granted.
        let lifetime = (2_000 * u64::from(settings.presence.max_expires)).max(LEAST_NONCE_LIFETIME);
        let nonces = Nonces::new(settings.secret, lifetime, MOST_NONCES);
        let gate = Gate::new(settings.rate_limits, settings.secret);
        let history = history::History::new(settings.history);
        let refusals = refusals::Refusals::new(settings.directory.accounts().len(), settings.secret);
        let nobody = Verifier::new("", "", &format!("{:?}", settings.secret));
        let packages = settings.presence.packages.iter().map(|id| package::get(*id).name());
        let allow_events = packages.collect::<Vec<_>>().join(", ").into();
        Notifier {
            agents: SharedTexts::default(),
            allow_events,
            settings,
            table,
            phones: Phones::default(),
            transactions,
            gate,
            nonces,
            nobody,
            names: names::Names::default(),
            wheel: wheel::Wheel::default(),
            counter: Apart(AtomicU64::new(1)),
            acceptance: AtomicU8::new(Acceptance::Accepting as u8),
            draining: AtomicBool::new(false),
            large: write::Tally::default(),
            history,
            refusals,
            feed: events::Feed::default(),
            trace: trace::Trace::default(),
            deeds: deeds::Deeds::default(),
            dormant: persist::Dormant::default(),
            ended: persist::EndedSubscriptions::default(),
            doubtful_until: AtomicU64::new(0),
            starts: AtomicU32::new(0),
            refused: Mutex::default(),
            panics: AtomicU64::new(0),
        }
    }

    /// How many messages were not read, by the reason: their source said too much, or too much waited for the journal.
    pub fn turned_away_by_reason(&self) -> [(&'static str, u64); gate::REASONS.len()] {
        self.gate.dropped()
    }

    /// How many messages were not read.
    pub fn turned_away(&self) -> u64 {
        self.turned_away_by_reason().iter().map(|(_, count)| count).sum()
    }

    /// What has been counted since the start.
    pub fn tally(&self) -> tally::Tally {
        self.history.tally()
    }

    /// Does everything that is due at `now`.
    pub fn pass_time(&self, now: Tick, out: &mut Outbox) {
        self.gate.pass_time(now);
        self.transactions.pass_time(now.0);
        self.end_dormant(now, out);
        for entry in self.wheel.take_due(now) {
            self.contained(now, out, |out| self.look_at(now, entry, out));
        }
    }

    /// When [`Notifier::pass_time`] has something to do next; none while there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Tick> {
        [self.wheel.next(), self.next_end()].into_iter().flatten().min()
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.table.subscriptions()
    }

    /// Says whether the journal accepts changes. While it does not, SUBSCRIBE and PUBLISH get 503, and everything that
    /// was taken on before is served from memory.
    pub fn set_keeping(&self, acceptance: Acceptance) {
        let acceptance = acceptance as u8;
        // Written only where it changes: it is asked for with every message.
        if self.acceptance.load(Ordering::Relaxed) != acceptance {
            let before = self.acceptance.swap(acceptance, Ordering::Relaxed);
            let failing = Acceptance::Failing as u8;
            match (before == failing, acceptance == failing) {
                (true, false) => tracing::info!("the journal keeps changes again"),
                (false, true) => {
                    tracing::error!("the journal cannot keep changes; SUBSCRIBE and PUBLISH are answered 503");
                }
                _ => {}
            }
        }
    }

    /// Whether changes are made: not while the journal accepts none.
    pub fn is_keeping(&self) -> bool {
        self.acceptance.load(Ordering::Relaxed) == Acceptance::Accepting as u8
    }

    /// How many messages met a bug of ours so far.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a publication, which its entity-tag shows: drawn, for one that counted would tell each publisher how
    /// much all others publish. Only those of one presentity must not meet.
    fn next_publication(&self) -> PublicationNo {
        // Of 63 bits, so that whatever is counted behind it does not overflow.
        PublicationNo(self.nonce() >> 1)
    }

    /// A To tag for an answer that makes no dialog.
    fn stateless_tag(&self, call_id: &str, cseq: &str) -> wire::Hex {
        let mut hasher = SipHasher24::new_with_key(&self.settings.secret);
        hasher.write(call_id.as_bytes());
        hasher.write(cseq.as_bytes());
        wire::Hex(hasher.finish(), 16)
    }

    /// A number that nobody without our secret can guess, another one at every call.
    fn nonce(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.settings.secret);
        hasher.write_u64(self.next_number());
        hasher.finish()
    }

    /// A wait between `from` and twice that, in seconds: who is sent away must not come back with all the others.
    fn spread(&self, from: u32) -> u32 {
        from + (self.nonce() % u64::from(from.max(1))) as u32
    }
}

/// A secret from the system's random source; should that fail, from the standard library's own random keys.
pub fn new_secret() -> [u8; 16] {
    let mut secret = [0; 16];
    if getrandom::fill(&mut secret).is_err() {
        for (i, half) in secret.chunks_exact_mut(8).enumerate() {
            half.copy_from_slice(&RandomState::new().hash_one(i).to_ne_bytes());
        }
    }
    secret
}

//! The configuration: what `lamplighter.toml` may say, checked, in types that the other rooms build upon.
//!
//! In flows the text of one TOML file; out flow a [`Config`] that cannot be wrong in itself, or a [`ConfigError`] with
//! file, line, key and what is allowed. Every key has a default that serves; an unknown key is an error, for a
//! misspelt limit that silently keeps its default is worse than a server that does not start. Knows no sockets: that
//! an address is free, a directory writable, is found out by whoever uses it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub use crate::sip::digest::Algorithm;

use crate::package::PackageId;

mod check;
mod dns;
mod error;
mod hep;
mod people;
mod raw;
mod sip;
#[cfg(test)]
mod tests;
mod tls;
mod webhook;

pub use dns::Dns;
pub use error::ConfigError;
pub use hep::Hep;
pub use sip::{Listen, ListenTransport, Sip};
pub use tls::Tls;
pub use webhook::{Webhook, WebhookUrl};

/// The configuration of [`Config::demo`], which is also the shortest example of one.
const DEMO: &str = include_str!("demo.toml");

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[sip]`
    pub sip: Sip,
    /// `[tls]`, if there is one.
    pub tls: Option<Tls>,
    /// `[dns]`
    pub dns: Dns,
    /// `[http]`
    pub http: Http,
    /// `[presence]`
    pub presence: Presence,
    /// `[limits]`
    pub limits: Limits,
    /// `[rate_limits]`.
    pub rate_limits: RateLimits,
    /// `[data]`
    pub data: Data,
    /// `[history]`
    pub history: History,
    /// `[access]`
    pub access: Access,
    /// `[api]`
    pub api: Api,
    /// `[hep]`, if there is one.
    pub hep: Option<Hep>,
    /// `[log]`
    pub log: Log,
    /// Every `[[token]]`.
    pub tokens: Vec<Token>,
    /// Every `[[account]]`.
    pub accounts: Vec<Account>,
    /// What is accepted and should be changed all the same, with its place.
    pub warnings: Vec<ConfigError>,
}

/// Where HTTP is spoken.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port of the API.
    pub listen: SocketAddr,
}

/// What subscribers may ask for.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Seconds; less is answered 423.
    pub min_expires: u32,
    /// Seconds; more is shortened.
    pub max_expires: u32,
    /// Milliseconds between two NOTIFYs to a watcher that has not said how many it wants (RFC 6446).
    pub min_notify_interval_ms: u32,
    /// The event packages that are served.
    pub packages: Vec<PackageId>,
    /// A NOTIFY that is too large for a datagram may go over TCP instead.
    pub large_over_tcp: bool,
}

/// Bounds of every table, each with a default that a large installation does not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Subscriptions of all accounts together.
    pub subscriptions: usize,
    /// Subscriptions of one account.
    pub subscriptions_per_account: usize,
    /// Subscriptions of one phone.
    pub subscriptions_per_device: usize,
    /// Subscriptions to one presentity.
    pub watchers_per_presentity: usize,
    /// Publications of one presentity.
    pub publications_per_presentity: usize,
    /// Presentities of one account of which anything is kept.
    pub presentities_per_account: usize,
    /// SIP connections at once, over TCP, TLS and WebSocket together.
    pub tcp_connections: usize,
    /// Of these, from one address, unless it is trusted.
    pub tcp_connections_per_address: usize,
    /// A SIP connection that carries nothing for so long is closed.
    pub tcp_idle_seconds: u64,
    /// HTTP connections at once.
    pub http_connections: usize,
    /// Of these, from one address (IPv6: from one /64).
    pub http_connections_per_address: usize,
    /// Of the HTTP connections, live streams of lamps.
    pub event_streams: usize,
    /// Of these, opened with tokens of one account.
    pub event_streams_per_account: usize,
    /// Of these, from one address (IPv6: from one /64).
    pub event_streams_per_address: usize,
    /// Long listings that are being sent at once.
    pub listings: usize,
    /// Of these, asked for with tokens of one account.
    pub listings_per_account: usize,
    /// Of these, from one address (IPv6: from one /64).
    pub listings_per_address: usize,
    /// Subscriptions that are traced, or whose trace is kept, at once.
    pub traces: usize,
    /// Of these, of one account.
    pub traces_per_account: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 1_000_000,
            subscriptions_per_account: 200_000,
            // An attendant's console of a large company; or a gateway that subscribes for its phones as one.
            subscriptions_per_device: 50_000,
            watchers_per_presentity: 50_000,
            publications_per_presentity: 64,
            presentities_per_account: 200_000,
            tcp_connections: 20_000,
            // An office behind one address.
            tcp_connections_per_address: 2_000,
            // Longer than the default max_expires: a phone that only refreshes keeps its connection.
            tcp_idle_seconds: 3_900,
            // Streams and listings, which cannot be closed for a newcomer, fit in with room to spare; so they do per address.
            http_connections: 1_536,
            http_connections_per_address: 1_024,
            event_streams: 1_024,
            event_streams_per_account: 512,
            event_streams_per_address: 768,
            listings: 128,
            listings_per_account: 16,
            listings_per_address: 64,
            // Each message is searched for the tag of every traced subscription.
            traces: 64,
            traces_per_account: 16,
        }
    }
}

/// How many messages somebody may send in a second, where he is not trusted; five seconds' worth may come at once. 0 is
/// no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// A source that has proven itself, or has answered a NOTIFY: an address and port, or a connection.
    pub verified_source: u32,
    /// Any other source.
    pub unverified_source: u32,
    /// All such sources at one address; the /64 of an IPv6 address.
    pub per_address: u32,
    /// All such sources together.
    pub unverified_total: u32,
}

impl RateLimits {
    /// The highest: more than that is no limit.
    pub const MAX: u32 = 1_000_000;
}

impl Default for RateLimits {
    fn default() -> Self {
        // A phone with a hundred keys says two hundred words when it starts, an office behind one address a few thousand.
        Self { verified_source: 2_000, unverified_source: 50, per_address: 500, unverified_total: 5_000 }
    }
}

/// What is kept on disk.
#[derive(Clone, Debug)]
pub struct Data {
    /// Where the journal lives.
    pub dir: PathBuf,
    /// How surely.
    pub durability: Durability,
    /// What a start does that finds the journal damaged.
    pub on_damage: OnDamage,
}

/// What a start does that finds the journal damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It ends: the operator decides.
    Refuse,
    /// It repairs the journal as `lamplighter journal repair` does, and goes on.
    Repair,
}

/// When a change counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Answered only once on disk.
    Strict,
    /// Answered at once, on disk within a second.
    Relaxed,
    /// Nothing is kept.
    Memory,
}

/// What is remembered for explaining lamps, in memory only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// How many exchanges, of all subscriptions together; 0 for none.
    pub exchanges: usize,
}

impl Default for History {
    fn default() -> Self {
        // 3 MB: a few hundred watchers' day, or the last seconds of a hundred thousand.
        Self { exchanges: 65_536 }
    }
}

/// Who may speak SIP to us.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether requests are challenged.
    pub authenticate: Authenticate,
    /// What proofs are offered, in this order; never empty.
    pub algorithms: Vec<Algorithm>,
    /// Sources whose word on the sender is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they give it.
    pub identity_header: String,
    /// May listen beyond loopback without authentication.
    pub allow_unauthenticated: bool,
}

/// How SUBSCRIBE and PUBLISH are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticate {
    /// Not at all.
    Off,
    /// By digest (RFC 7616, RFC 8760), but for trusted sources.
    Digest,
}

/// The HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    /// The dialect.
    pub profile: Profile,
    /// Upstream's empty error bodies and its 500 for a missing `reset`.
    pub strict_compat: bool,
}

/// The dialects of the Kazoo-compatible API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Kazoo 3.22 and 4.0.
    V3_22,
}

/// What is logged.
#[derive(Clone, Debug)]
pub struct Log {
    /// A level or a filter of `tracing-subscriber`; the environment's RUST_LOG goes before it.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON object, for what collects logs.
    Json,
}

/// A bearer token of the API.
#[derive(Clone, Debug)]
pub struct Token {
    /// What the client shows.
    pub value: Secret,
    /// What it opens.
    pub grants: Grants,
}

/// What a token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grants {
    /// The account with this id and its descendants.
    Account(String),
    /// Everything.
    Superuser,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Account {
    /// As it stands in the paths of the API.
    pub id: String,
    /// For people.
    pub name: String,
    /// In lower case.
    pub realm: String,
    /// Id of the account above, which may manage this one.
    pub parent: Option<String>,
    /// Its users.
    pub users: Vec<User>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Who is told of its lamps.
    pub webhooks: Vec<Webhook>,
}

/// A person of an account.
#[derive(Clone, Debug)]
pub struct User {
    /// As it stands in the paths of the API.
    pub id: String,
    /// Login name, for people.
    pub username: Option<String>,
    /// The extension whose lamp is his.
    pub presence_id: Option<String>,
}

/// A phone of an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// As it stands in the paths of the API.
    pub id: String,
    /// Id of the user it belongs to.
    pub owner_id: Option<String>,
    /// How it registers.
    pub sip: Option<DeviceSip>,
    /// The extension whose lamp is its own, where that is not the SIP user name.
    pub presence_id: Option<String>,
}

/// How a device registers.
#[derive(Clone, Debug)]
pub struct DeviceSip {
    /// Its SIP user name.
    pub username: String,
    /// For digest authentication; without it the device cannot prove who it is.
    pub password: Option<Secret>,
    /// For whom it may publish.
    pub publishes: Publishes,
}

/// For whom a device may publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publishes {
    /// Its own extensions and those of its owner.
    #[default]
    Own,
    /// Everybody in its account: a PBX.
    Account,
}

/// A text that must not leak: neither `Debug` nor `Display` nor an error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text; every caller of this is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let whole = |problem: String| ConfigError { file: name.clone(), place: None, key: String::new(), problem };
        let bytes = std::fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            whole(format!("line {line} is not UTF-8, which TOML files are written in"))
        })?;
        Self::parse(&text, &name)
    }

    /// Checks a text; `file` is the name that errors give it.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = error::Source { file, text };
        let raw: raw::File = toml::from_str(text).map_err(|error| source.unreadable(&error))?;
        check::file(source, raw)
    }

    /// What the server runs with when it is given no file: one account to play with, on loopback, kept in memory.
    ///
    /// `token` opens that account. It is not put through TOML, so any text will do.
    ///
    /// # Panics
    /// If the embedded file is wrong, which a test rules out.
    pub fn demo(token: &str) -> Self {
        let mut config = Self::parse(DEMO, "demo.toml").unwrap_or_else(|error| unreachable!("embedded {error}"));
        let account = config.accounts.first().map(|account| account.id.clone());
        let grants = account.map_or(Grants::Superuser, Grants::Account);
        config.tokens.push(Token { value: Secret::new(token), grants });
        config
    }
}

//! The configuration: the content of `lamplighter.toml`, validated, in types that the other modules use.
//!
//! In flows the text of one TOML file; out flow a [`Config`] that is consistent in itself, or a [`ConfigError`] with
//! file, line, key and allowed values. Every key has a usable default. An unknown key is an error: a misspelt limit
//! that silently keeps its default is worse than a server that does not start. Opens no sockets: the user of a setting
//! finds out if an address is free or a directory is writable.

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

/// Configuration of [`Config::demo`]; also the shortest example of a configuration file.
const DEMO: &str = include_str!("demo.toml");

/// A complete, validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[sip]`
    pub sip: Sip,
    /// `[tls]`, if present.
    pub tls: Option<Tls>,
    /// `[dns]`
    pub dns: Dns,
    /// `[http]`
    pub http: Http,
    /// `[presence]`
    pub presence: Presence,
    /// `[limits]`
    pub limits: Limits,
    /// `[rate_limits]`
    pub rate_limits: RateLimits,
    /// `[data]`
    pub data: Data,
    /// `[history]`
    pub history: History,
    /// `[access]`
    pub access: Access,
    /// `[api]`
    pub api: Api,
    /// `[hep]`, if present.
    pub hep: Option<Hep>,
    /// `[log]`
    pub log: Log,
    /// Every `[[token]]`.
    pub tokens: Vec<Token>,
    /// Every `[[account]]`.
    pub accounts: Vec<Account>,
    /// Values that are accepted but should be changed, with their place in the file.
    pub warnings: Vec<ConfigError>,
}

/// HTTP settings.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port of the HTTP API.
    pub listen: SocketAddr,
}

/// Settings for subscriptions.
#[derive(Clone, Debug)]
pub struct Presence {
    /// Shortest expiry in seconds; a shorter one is refused with 423.
    pub min_expires: u32,
    /// Longest expiry in seconds; a longer one is reduced to this.
    pub max_expires: u32,
    /// Shortest time (milliseconds) between two NOTIFYs to a watcher that did not ask for a rate (RFC 6446).
    pub min_notify_interval_ms: u32,
    /// Event packages that the server supports.
    pub packages: Vec<PackageId>,
    /// True if a NOTIFY that is too large for a UDP datagram may be sent over TCP.
    pub large_over_tcp: bool,
}

/// Limits of every table. The defaults are higher than a large installation needs.
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
    /// Presentities of one account with stored state.
    pub presentities_per_account: usize,
    /// Concurrent SIP connections over TCP, TLS and WebSocket together.
    pub tcp_connections: usize,
    /// SIP connections from one address; trusted addresses are exempt.
    pub tcp_connections_per_address: usize,
    /// Idle timeout of a SIP connection, in seconds.
    pub tcp_idle_seconds: u64,
    /// Concurrent HTTP connections.
    pub http_connections: usize,
    /// HTTP connections from one address (IPv6: from one /64).
    pub http_connections_per_address: usize,
    /// Concurrent live streams; each is an HTTP connection.
    pub event_streams: usize,
    /// Live streams opened with tokens of one account.
    pub event_streams_per_account: usize,
    /// Live streams from one address (IPv6: from one /64).
    pub event_streams_per_address: usize,
    /// Long listings being sent at the same time.
    pub listings: usize,
    /// Listings requested with tokens of one account.
    pub listings_per_account: usize,
    /// Listings from one address (IPv6: from one /64).
    pub listings_per_address: usize,
    /// Subscriptions being traced, or whose trace is still stored.
    pub traces: usize,
    /// Traced subscriptions of one account.
    pub traces_per_account: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 1_000_000,
            subscriptions_per_account: 200_000,
            // Enough for an attendant console of a large company, or for a gateway that subscribes as one device for
            // its phones.
            subscriptions_per_device: 50_000,
            watchers_per_presentity: 50_000,
            publications_per_presentity: 64,
            presentities_per_account: 200_000,
            tcp_connections: 20_000,
            // Enough for a large office behind one address.
            tcp_connections_per_address: 2_000,
            // Longer than the default max_expires: a phone that sends nothing but refreshes keeps its connection.
            tcp_idle_seconds: 3_900,
            // Streams and listings cannot be evicted for a new connection. All of them together, and those of one
            // address, leave seats for others.
            http_connections: 1_536,
            http_connections_per_address: 1_024,
            event_streams: 1_024,
            event_streams_per_account: 512,
            event_streams_per_address: 768,
            listings: 128,
            listings_per_account: 16,
            listings_per_address: 64,
            // Every message is compared with the tags of all traced subscriptions.
            traces: 64,
            traces_per_account: 16,
        }
    }
}

/// Rate limits of untrusted sources, in messages per second; a burst may hold five seconds' worth. 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// A verified source: one that has authenticated, or has answered a NOTIFY. It is an address and port, or a
    /// connection.
    pub verified_source: u32,
    /// An unverified source.
    pub unverified_source: u32,
    /// All unverified sources of one address (IPv6: of one /64) together.
    pub per_address: u32,
    /// All unverified sources together.
    pub unverified_total: u32,
}

impl RateLimits {
    /// Highest value that may be configured; more would have no effect.
    pub const MAX: u32 = 1_000_000;
}

impl Default for RateLimits {
    fn default() -> Self {
        // A phone with 100 keys sends about 200 messages when it starts, an office behind one address a few thousand.
        Self { verified_source: 2_000, unverified_source: 50, per_address: 500, unverified_total: 5_000 }
    }
}

/// Settings of the journal.
#[derive(Clone, Debug)]
pub struct Data {
    /// Directory of the journal.
    pub dir: PathBuf,
    /// When a change is acknowledged.
    pub durability: Durability,
    /// Action at startup if the journal is damaged.
    pub on_damage: OnDamage,
}

/// Action at startup if the journal is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not start: the operator decides.
    Refuse,
    /// Repair the journal as `lamplighter journal repair` does, and start.
    Repair,
}

/// Durability of changes: the condition under which a change is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged after it is on disk.
    Strict,
    /// Acknowledged at once, on disk within a second.
    Relaxed,
    /// Not stored on disk at all.
    Memory,
}

/// Settings of the history that explains lamps; it is kept in memory only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Number of stored exchanges (a NOTIFY or request with its reply) of all subscriptions together; 0 disables the
    /// history.
    pub exchanges: usize,
}

impl Default for History {
    fn default() -> Self {
        // About 3 MB: a day of a few hundred watchers, or the last seconds of 100,000.
        Self { exchanges: 65_536 }
    }
}

/// Access control of SIP.
#[derive(Clone, Debug)]
pub struct Access {
    /// Authentication that requests must pass.
    pub authenticate: Authenticate,
    /// Digest algorithms to offer, in this order; never empty.
    pub algorithms: Vec<Algorithm>,
    /// Trusted networks: the sender identity that they assert is accepted without authentication.
    pub trusted_proxies: Vec<IpNet>,
    /// Header that carries the asserted identity.
    pub identity_header: String,
    /// Permits listening on addresses other than loopback without authentication.
    pub allow_unauthenticated: bool,
}

/// Authentication of SUBSCRIBE and PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticate {
    /// No authentication.
    Off,
    /// Digest authentication (RFC 7616, RFC 8760), except for trusted sources.
    Digest,
}

/// Settings of the HTTP API.
#[derive(Clone, Debug)]
pub struct Api {
    /// API profile to be compatible with.
    pub profile: Profile,
    /// True for Kazoo's deviations: empty error bodies, and 500 for a missing `reset`.
    pub strict_compat: bool,
}

/// Profiles of the Kazoo-compatible API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Kazoo 3.22 and 4.0.
    V3_22,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Log {
    /// A level or a filter of `tracing-subscriber`; the environment variable RUST_LOG overrides it.
    pub level: String,
    /// Format of a log line.
    pub format: LogFormat,
}

/// Format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// A bearer token of the API.
#[derive(Clone, Debug)]
pub struct Token {
    /// Text that the client sends.
    pub value: Secret,
    /// Access that it gives.
    pub grants: Grants,
}

/// Access that a token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grants {
    /// The account with this id and its descendants.
    Account(String),
    /// All accounts and the whole server.
    Superuser,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct Account {
    /// Id in the paths of the API.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Realm in lower case.
    pub realm: String,
    /// Id of the parent account, which may manage this one.
    pub parent: Option<String>,
    /// Its users.
    pub users: Vec<User>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Receivers of changes by HTTP.
    pub webhooks: Vec<Webhook>,
}

/// A person of an account.
#[derive(Clone, Debug)]
pub struct User {
    /// Id in the paths of the API.
    pub id: String,
    /// Login name; informational only.
    pub username: Option<String>,
    /// Extension whose lamp shows this user.
    pub presence_id: Option<String>,
}

/// A phone of an account.
#[derive(Clone, Debug)]
pub struct Device {
    /// Id in the paths of the API.
    pub id: String,
    /// Id of the user who owns the device.
    pub owner_id: Option<String>,
    /// SIP identity and credentials.
    pub sip: Option<DeviceSip>,
    /// Extension whose lamp shows this device, if it is not the SIP user name.
    pub presence_id: Option<String>,
}

/// SIP identity and credentials of a device.
#[derive(Clone, Debug)]
pub struct DeviceSip {
    /// SIP user name.
    pub username: String,
    /// Password for digest authentication; without one the device cannot authenticate.
    pub password: Option<Secret>,
    /// Extensions that it may publish for.
    pub publishes: Publishes,
}

/// Extensions that a device may publish for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publishes {
    /// Its own extensions and those of its owner.
    #[default]
    Own,
    /// All extensions of its account, as a PBX needs.
    Account,
}

/// A secret text: `Debug`, `Display` and errors do not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself. Every use must be reviewed for leaks.
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
    /// Reads and checks a configuration file.
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

    /// Checks the text of a configuration; `file` is its name in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = error::Source { file, text };
        let raw: raw::File = toml::from_str(text).map_err(|error| source.unreadable(&error))?;
        check::file(source, raw)
    }

    /// Built-in configuration without a file: one account for trying things out, on loopback, kept in memory.
    ///
    /// `token` gives access to that account. It is not parsed as TOML, so it may be any text.
    ///
    /// # Panics
    /// If the embedded file is invalid, which a test rules out.
    pub fn demo(token: &str) -> Self {
        let mut config = Self::parse(DEMO, "demo.toml").unwrap_or_else(|error| unreachable!("embedded {error}"));
        let account = config.accounts.first().map(|account| account.id.clone());
        let grants = account.map_or(Grants::Superuser, Grants::Account);
        config.tokens.push(Token { value: Secret::new(token), grants });
        config
    }
}

//! Settings of the notifier, and the limits that transport and API share with it.

use std::sync::Arc;

use ipnet::IpNet;

use super::Routing;
use crate::directory::Directory;
use crate::package::PackageId;
pub use crate::sip::digest::Algorithm;

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

/// Settings of the notifier, fixed at its start.
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
    /// Accounts, users and devices.
    pub directory: Arc<Directory>,
    /// Our addresses, and the sources that are trusted.
    pub routing: Routing,
    /// Capacity of the history (entries).
    pub history: usize,
    /// True if changes produce records for a journal.
    pub journal: bool,
    /// Key for all values that must not be guessable: tags, branches, entity-tags, nonces. New at every start.
    pub secret: [u8; 16],
}

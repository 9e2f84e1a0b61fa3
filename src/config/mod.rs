//! The configuration: the content of `lamplighter.toml`, validated, in types that the other modules use.
//!
//! In flows the text of one TOML file; out flow a [`Config`] that is consistent in itself, or a [`ConfigError`] with
//! file, line, key and allowed values. Every key has a usable default. An unknown key is an error: a misspelt limit
//! that silently keeps its default is worse than a server that does not start. Opens no sockets: the user of a setting
//! finds out if an address is free or a directory is writable.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::sip::digest::Algorithm;

use crate::directory::Directory;
use crate::notifier::{self, Routing};
use crate::transport::Listener;

mod accounts;
mod dns;
mod error;
mod hep;
mod raw;
mod sip;
#[cfg(test)]
mod tests;
mod tls;
mod validate;
mod webhook;

pub use crate::api::webhooks::settings::{Webhook, WebhookUrl};
pub use crate::capture::settings::Hep;
pub use crate::directory::settings::{Account, Device, DeviceSip, Grants, Publishes, Token, User};
pub use crate::logging::LogFormat;
pub use crate::notifier::settings::{Access, Authenticate, Limits, Presence, RateLimits};
pub use crate::transport::settings::TlsSettings;
pub use crate::util::secret::Secret;
pub use dns::Dns;
pub use error::ConfigError;
pub use sip::{Listen, ListenTransport, Sip};

/// Configuration of [`Config::demo`]; also the shortest example of a configuration file.
const DEMO: &str = include_str!("demo.toml");

/// A complete, validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[sip]`
    pub sip: Sip,
    /// `[tls]`, if present.
    pub tls: Option<TlsSettings>,
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
    /// Every `[[account.webhook]]`.
    pub webhooks: Vec<Webhook>,
    /// Values that are accepted but should be changed, with their place in the file.
    pub warnings: Vec<ConfigError>,
}

/// HTTP settings.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port of the HTTP API.
    pub listen: SocketAddr,
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

impl Config {
    /// Directory of the accounts and tokens.
    pub fn directory(&self) -> Directory {
        Directory::new(&self.accounts, &self.tokens)
    }

    /// Settings of the notifier; `listeners` are our addresses as peers see them.
    pub fn notifier(
        &self,
        directory: Arc<Directory>,
        listeners: Vec<Listener>,
        secret: [u8; 16],
    ) -> notifier::Settings {
        notifier::Settings {
            presence: self.presence.clone(),
            access: self.access.clone(),
            limits: self.limits.clone(),
            rate_limits: self.rate_limits,
            directory,
            routing: Routing { listeners, trusted: self.access.trusted_proxies.clone() },
            history: self.history.exchanges,
            journal: self.data.durability != Durability::Memory,
            secret,
        }
    }

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
        validate::file(source, raw)
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

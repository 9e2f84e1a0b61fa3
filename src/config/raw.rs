//! The configuration file as parsed: only its structure, with the place of every value that is checked later.
//!
//! serde refuses unknown keys and wrong types here; [`super::check`] checks everything else.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

use super::Secret;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) sip: Sip,
    pub(super) tls: Option<Spanned<Tls>>,
    pub(super) dns: Dns,
    pub(super) http: Http,
    pub(super) presence: Presence,
    pub(super) limits: Limits,
    pub(super) rate_limits: RateLimits,
    pub(super) data: Data,
    pub(super) history: History,
    pub(super) access: Access,
    pub(super) api: Api,
    pub(super) hep: Option<Spanned<Hep>>,
    pub(super) log: Log,
    pub(super) token: Vec<Spanned<Token>>,
    pub(super) account: Vec<Account>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sip {
    pub(super) listen: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) advertise: Option<Spanned<String>>,
    pub(super) ws_origins: Vec<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) key: Option<Spanned<PathBuf>>,
    pub(super) client_ca: Option<Spanned<PathBuf>>,
    pub(super) require_client_certificate: Option<Spanned<bool>>,
    pub(super) server_ca: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) servers: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    pub(super) listen: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Presence {
    pub(super) min_expires: Option<Spanned<i64>>,
    pub(super) max_expires: Option<Spanned<i64>>,
    pub(super) min_notify_interval_ms: Option<Spanned<i64>>,
    pub(super) packages: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) oversize_notify: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) subscriptions: Option<Spanned<i64>>,
    pub(super) subscriptions_per_account: Option<Spanned<i64>>,
    pub(super) subscriptions_per_device: Option<Spanned<i64>>,
    pub(super) watchers_per_presentity: Option<Spanned<i64>>,
    pub(super) publications_per_presentity: Option<Spanned<i64>>,
    pub(super) presentities_per_account: Option<Spanned<i64>>,
    pub(super) tcp_connections: Option<Spanned<i64>>,
    pub(super) tcp_connections_per_address: Option<Spanned<i64>>,
    pub(super) tcp_idle_seconds: Option<Spanned<i64>>,
    pub(super) http_connections: Option<Spanned<i64>>,
    pub(super) event_streams: Option<Spanned<i64>>,
    pub(super) http_connections_per_address: Option<Spanned<i64>>,
    pub(super) event_streams_per_account: Option<Spanned<i64>>,
    pub(super) event_streams_per_address: Option<Spanned<i64>>,
    pub(super) listings: Option<Spanned<i64>>,
    pub(super) listings_per_account: Option<Spanned<i64>>,
    pub(super) listings_per_address: Option<Spanned<i64>>,
    pub(super) traces: Option<Spanned<i64>>,
    pub(super) traces_per_account: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimits {
    pub(super) verified_source: Option<Spanned<i64>>,
    pub(super) unverified_source: Option<Spanned<i64>>,
    pub(super) per_address: Option<Spanned<i64>>,
    pub(super) unverified_total: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Data {
    pub(super) dir: Option<Spanned<PathBuf>>,
    pub(super) durability: Option<Spanned<String>>,
    pub(super) on_damage: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct History {
    pub(super) exchanges: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Access {
    pub(super) authenticate: Option<Spanned<String>>,
    pub(super) algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) trusted_proxies: Option<Vec<Spanned<String>>>,
    pub(super) identity_header: Option<Spanned<String>>,
    pub(super) allow_unauthenticated: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Api {
    pub(super) profile: Option<Spanned<String>>,
    pub(super) strict_compat: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hep {
    pub(super) server: Option<Spanned<String>>,
    pub(super) agent_id: Option<Spanned<i64>>,
    pub(super) password: Option<Spanned<Secret>>,
    pub(super) traffic: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Spanned<String>>,
    pub(super) format: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) value: Spanned<Secret>,
    pub(super) account: Option<Spanned<String>>,
    pub(super) superuser: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) id: Spanned<String>,
    pub(super) name: Option<String>,
    pub(super) realm: Spanned<String>,
    pub(super) parent: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) user: Vec<User>,
    #[serde(default)]
    pub(super) device: Vec<Device>,
    #[serde(default)]
    pub(super) webhook: Vec<Spanned<Webhook>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) url: Spanned<String>,
    pub(super) secret: Spanned<Secret>,
    pub(super) events: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) ca: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) id: Spanned<String>,
    pub(super) username: Option<Spanned<String>>,
    pub(super) presence_id: Option<Spanned<PresenceId>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) id: Spanned<String>,
    pub(super) owner_id: Option<Spanned<String>>,
    pub(super) sip: Option<DeviceSip>,
    pub(super) presence_id: Option<Spanned<PresenceId>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceSip {
    pub(super) username: Spanned<String>,
    pub(super) password: Option<Spanned<Secret>>,
    pub(super) publishes: Option<Spanned<String>>,
}

/// An extension. Kazoo's documents hold both `"1001"` and `1001`, so both are accepted.
pub(super) struct PresenceId(pub(super) String);

impl<'de> Deserialize<'de> for PresenceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PresenceId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<PresenceId, E> {
                Ok(PresenceId(v.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<PresenceId, E> {
                u64::try_from(v)
                    .map_or_else(|_| Err(E::custom("a number here must not be negative")), |v| self.visit_u64(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<PresenceId, E> {
                Ok(PresenceId(v.to_string()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own message for a wrong type quotes the value, which must not be shown here.
        struct Quiet;
        impl Visitor<'_> for Quiet {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Secret, E> {
                Ok(Secret::new(v))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret must be written as a string, in quotes"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret must be written as a string, in quotes"))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("a secret must be written as a string, in quotes"))
            }
        }
        deserializer.deserialize_any(Quiet)
    }
}

//! The server under test: the real notifier, with every value fixed that a real start would draw at random.

use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::notifier::Notifier;
use crate::sip::Transport;
use crate::transport::Listener;

const CONFIG: &str = r#"
[limits]
publications_per_presentity = 1000
[access]
# The edges.
trusted_proxies = ["198.18.0.0/15"]
# Nobody forges addresses here; else nobody would be told anything again whose first three answers were lost.
allow_unauthenticated = true
[[account]]
id = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
name = "Acme"
realm = "acme.test"
"#;
const SECOND_TENANT: &str = r#"
[[account]]
id = "5642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
name = "Globex"
realm = "globex.test"
"#;

/// Builds a server without any state. `life` counts its starts: each start gets another secret.
///
/// `away`: the second tenant is not configured.
pub(super) fn build(seed: u64, life: u64, away: bool) -> Notifier {
    let config = config(away).unwrap_or_else(|_| Config::demo("simulated"));
    let listener = |transport| Listener {
        transport,
        address: ([192, 0, 2, 1], 5060).into(),
        sent_by: super::message::SERVER.into(),
    };
    let mut secret = *b"simulated secret";
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    secret[8..].copy_from_slice(&life.to_le_bytes());
    let listeners = vec![listener(Transport::Udp), listener(Transport::Tcp)];
    Notifier::new(config.notifier(Arc::new(config.directory()), listeners, secret))
}

/// Returns true if a record belongs to the second tenant.
pub(super) fn is_of_second_tenant(record: &[u8]) -> bool {
    record.windows(ID.len()).any(|part| part == ID)
}

const ID: &[u8] = b"5642f64dc5e0a5d1e6a1d5e0c2d3b4a5";

fn config(away: bool) -> Result<Config, ConfigError> {
    let second = if away { "" } else { SECOND_TENANT };
    Config::parse(&format!("{CONFIG}{second}"), "simulator.toml")
}

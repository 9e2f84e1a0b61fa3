//! Lamplighter: a SIP presence server whose lamps are always right.
//!
//! The modules of the server, lower layers first. A module uses only those before it (`tests/structure.rs`):
//!
//! - [`sip`]: messages, URIs, transactions, dialogs, digest authentication.
//! - [`capture`]: copies of the SIP traffic for a HEP capture server.
//! - [`transport`]: sockets and connections (UDP, TCP, TLS, WebSocket).
//! - [`presence`]: the domain: presentities, calls, publications, subscriptions.
//! - [`package`]: the event packages: reading and writing their bodies.
//! - [`directory`]: accounts, users, devices and tokens.
//! - [`journal`]: durable storage of subscriptions and publications.
//! - [`notifier`]: the application: SUBSCRIBE, PUBLISH and NOTIFY, without sockets and clock.
//! - [`api`]: the HTTP API, metrics and dashboard.
//! - [`config`]: reading and checking the configuration file into the settings that the modules above own.
//! - [`server`]: threads, sockets and clock; starts and stops everything above.
//!
//! Commands of the binary: [`cli`] (arguments), [`ctl`] (administration, health check), [`watch`] (a test subscriber), [`demo`]
//! (an office with simulated phones), [`mod@bench`] (load generator), [`simulator`] (simulated network with failures).
//!
//! "(rule N)" in comments refers to `docs/internals/rules.md`.
//!
//! Helpers without knowledge of SIP: [`util`] (cache prefetch, counters, a limit for log lines), [`logging`],
//! `test_util` (tests only).

pub mod api;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod directory;
pub mod journal;
pub mod logging;
pub mod notifier;
pub mod package;
pub mod presence;
pub mod server;
pub mod simulator;
pub mod sip;
#[cfg(test)]
mod test_util;
pub mod transport;
pub mod util;
pub mod watch;

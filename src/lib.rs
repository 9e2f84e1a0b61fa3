//! Lamplighter: a SIP presence server whose lamps are always right.
//!
//! The rooms, lower floors first; a room knows nothing of those after it:
//! [`sip`] (the language), [`transport`] (sockets), [`presence`] (the domain), [`directory`] (who is who),
//! [`package`] (the event packages), [`notifier`] (the application), [`api`] (HTTP), [`server`] (all of it, running).

mod ahead;
pub mod api;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod config;
pub mod count;
pub mod demo;
pub mod directory;
pub mod greeting;
pub mod health;
pub mod journal;
pub mod notifier;
pub mod operator;
pub mod package;
mod per_thread;
pub mod presence;
pub mod seldom;
pub mod server;
pub mod simulator;
pub mod sip;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod watch;

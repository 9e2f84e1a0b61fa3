//! The real binary with real peers: SIPp as phones and PBX, Kamailio as edge proxy and as publisher, baresip as
//! softphone, JsSIP and SIP.js as web pages, OpenSSL for TLS, and an external load generator.
//!
//! Each test has its own server, ports and folder, so that they may run in parallel. No test waits for a fixed time:
//! each waits for an event (a process that ends, a state that the API shows) until a deadline.
//!
//! - A peer that is not installed: the test prints that and is skipped; with `LAMPLIGHTER_REQUIRE_PEERS=1` it fails.
//! - `LAMPLIGHTER_BIN=PATH`: tests that binary (for example the static one of the image) instead of the one just built.
//! - A failed test keeps its folder (configuration, logs, message traces) and prints its path.

mod harness;

mod edge;
mod expiry;
mod hundred_phones;
mod load;
mod manual_state;
mod publisher;
mod softphone;
mod tls;
mod watch_command;
mod web_page;

//! The real binary against real peers: SIPp as phones and PBX, Kamailio as edge proxy and as publisher, baresip as
//! softphone, JsSIP and SIP.js as web pages, OpenSSL as judge of our TLS, the load generator of the benches.
//!
//! Each test has its own server, ports and folder, so they may run side by side. Nothing waits for "things to settle":
//! a test waits for an event (a process that ends, a state the API shows) until a deadline.
//!
//! - A peer that is not installed: the test says so and is skipped; with `LAMPLIGHTER_REQUIRE_PEERS=1` it fails.
//! - `LAMPLIGHTER_BIN=PATH`: test that binary (the static one of the image, say) instead of the one just built.
//! - A failed test leaves its folder (configuration, logs, message traces) behind and says where.

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

//! Torture messages of RFC 4475 and RFC 5118, with the result required of this server (groups T and V of the
//! conformance list). The messages are our own: each keeps the point of its case but not the RFC's text. Each goes
//! through a real notifier without sockets.

#[path = "torture/bench.rs"]
mod bench;
#[path = "torture/ipv6.rs"]
mod ipv6;
#[path = "torture/notifier.rs"]
mod notifier;
#[path = "torture/request.rs"]
mod request;
#[path = "torture/rfc4475.rs"]
mod rfc4475;
#[path = "torture/streams.rs"]
mod streams;
#[path = "torture/valid.rs"]
mod valid;

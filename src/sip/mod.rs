//! The SIP language: bytes to meaning and back, transactions and dialogs as plain values.
//!
//! In flow datagrams and stream chunks; out flow messages that borrow from them, and bytes to send. Nothing here
//! knows sockets, a clock (time comes in as a number of milliseconds), subscriptions or presence.
//! - [`wire`] reads and writes messages: bounded, without copying, and unable to panic whatever arrives;
//! - [`uri`] and [`headers`] read the values inside headers, lazily, when somebody asks;
//! - [`transaction`] holds the non-INVITE state machines of RFC 3261 section 17;
//! - [`dialog`] holds what RFC 3261 section 12 calls a dialog, from the side that was called.
//! - [`digest`] checks who somebody is (RFC 7616).
//!
//! Methods, status codes and transports are named in rsip's words. rsip itself reads no byte from the network: it
//! misreads too much of what phones send (the README has the figures) and serves as second opinion in the tests.

pub mod dialog;
pub mod digest;
pub mod headers;
mod scan;
mod simd;
pub mod transaction;
pub mod uri;
pub mod wire;

pub use rsip::{Method, StatusCode, Transport};

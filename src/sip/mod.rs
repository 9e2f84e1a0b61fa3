//! SIP: parsing and writing messages, transactions and dialogs as plain values.
//!
//! Input is datagrams and stream chunks; output is messages that borrow from them, and bytes to send. Nothing here
//! knows sockets, a clock (time comes in as a number of milliseconds), subscriptions or presence.
//! - [`wire`] parses and writes messages: bounded, without copying, and without a panic on any input;
//! - [`uri`] and [`headers`] parse the values inside headers, on demand;
//! - [`transaction`] holds the non-INVITE state machines of RFC 3261 section 17;
//! - [`dialog`] holds dialogs (RFC 3261 section 12) as the UAS sees them;
//! - [`digest`] authenticates users (RFC 7616).
//!
//! Methods, status codes and transports are the types of rsip. rsip itself parses nothing from the network: it
//! misreads too much of what phones send (the README has the figures). It serves as second opinion in the tests.

pub mod dialog;
pub mod digest;
pub mod headers;
mod scan;
mod simd;
pub mod transaction;
pub mod uri;
pub mod wire;

pub use rsip::{Method, StatusCode, Transport};

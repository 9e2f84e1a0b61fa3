//! Messages as bytes (RFC 3261 section 7): reading, cutting streams into messages, writing.
//!
//! This is the only code that meets bytes from the network. Every loop here consumes input, every size has a limit,
//! and what is refused is refused with a [`ParseError`] that says in a person's words what was wrong.

mod frame;
mod head;
mod message;
mod parse_error;
mod reply;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use frame::{Frame, Framer};
pub use head::is_token;
pub use head::{Head, Header, Name, RequestMethod, StartLine};
pub use message::{Message, ParseFailure, read};
pub use parse_error::ParseError;
pub use reply::Reply;
pub use value::{Hex, Value, text_of};
pub use write::{HeaderLines, RequestView, Writer, reply};

/// The largest message taken, head and body (octets): the largest UDP datagram.
pub const MAX_MESSAGE: usize = 65_535;
/// The most header lines taken. Phones send 15 to 30; a request through ten proxies some 40.
pub const MAX_HEADERS: usize = 128;
/// The longest header value taken, folded lines together (octets).
pub const MAX_LINE: usize = 8 * 1024;

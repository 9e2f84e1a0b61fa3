//! Messages as octets (RFC 3261 section 7): parsing, framing of streams, writing.
//!
//! This is the only code that handles octets from the network. Every loop here consumes input, and every size has a
//! limit. A rejected message comes with a [`ParseError`] that tells in plain words what is wrong.

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

/// Limit on a message, head and body together (octets): the largest UDP datagram.
pub const MAX_MESSAGE: usize = 65_535;
/// Limit on header lines. Phones send 15 to 30; a request through ten proxies has some 40.
pub const MAX_HEADERS: usize = 128;
/// Limit on a header line, with its folded lines (octets).
pub const MAX_LINE: usize = 8 * 1024;

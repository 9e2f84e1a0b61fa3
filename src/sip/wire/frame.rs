//! Framing: cutting a stream into messages (RFC 3261 sections 7.5 and 18.3).

use bytes::{Buf, Bytes, BytesMut};

use super::head::{Head, head_end};
use super::{MAX_MESSAGE, Name, ParseError};

/// Limit on a head in a stream (octets).
const MAX_HEAD: usize = 32 * 1024;
/// Limit on a body that is skipped (octets). Skipping keeps the stream usable after a message that is too large,
/// because a proxy's connection carries the messages of other peers, too.
const MAX_SKIPPED: usize = 1024 * 1024;

/// Item found in a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Complete message, for [`super::read`].
    Message(Bytes),
    /// Head of a message that is too large. Its body is skipped.
    TooLarge(Bytes),
    /// Double CRLF between messages, to be answered with a single CRLF (RFC 5626 section 4.4.1).
    Ping,
}

/// Buffer of one connection, which cuts the stream into messages.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Position from which the search for the end of the head continues, so that a slow sender does not cause
    /// quadratic work.
    searched: usize,
    /// Length of the message at the front of the buffer, once its head is complete.
    expected: Option<usize>,
    /// Octets of a skipped body that are still to come.
    skip: usize,
    line_ends: usize,
}

impl Framer {
    /// Buffer for newly received octets.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns true while a message has begun and is not complete.
    pub fn in_message(&self) -> bool {
        self.skip > 0 || !self.buffer.is_empty()
    }

    /// Returns the next item of the stream; none if more octets are needed.
    ///
    /// After a fault, the position in the stream is lost and the connection has to be closed. The error carries the
    /// head of the faulty message, so that it can be answered first.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, (ParseError, Bytes)> {
        let passed = self.skip.min(self.buffer.len());
        self.buffer.advance(passed);
        self.skip -= passed;
        if self.expected.is_none() {
            if let Some(ping) = self.pass_line_ends() {
                return Ok(Some(ping));
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            self.line_ends = 0;
            let Some(end) = head_end(&self.buffer, self.searched.saturating_sub(2)) else {
                self.searched = self.buffer.len();
                return match self.searched {
                    length if length > MAX_HEAD => self.give_up(ParseError::HeaderTooLong, length),
                    _ => Ok(None),
                };
            };
            if end > MAX_HEAD {
                return self.give_up(ParseError::HeaderTooLong, end);
            }
            match content_length(&self.buffer[..end]) {
                // A subtraction, because a sum with the announced length could overflow.
                Ok(length) if length <= MAX_MESSAGE - end => self.expected = Some(end + length),
                Ok(length) if length <= MAX_SKIPPED => {
                    self.skip = length;
                    self.searched = 0;
                    return Ok(Some(Frame::TooLarge(self.buffer.split_to(end).freeze())));
                }
                Ok(_) => return self.give_up(ParseError::TooLarge, end),
                Err(fault) => return self.give_up(fault, end),
            }
        }
        match self.expected {
            Some(length) if self.buffer.len() >= length => {
                self.expected = None;
                self.searched = 0;
                Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())))
            }
            _ => Ok(None),
        }
    }

    /// Skips line ends between messages, up to the second.
    fn pass_line_ends(&mut self) -> Option<Frame> {
        let mut passed = 0;
        while let Some(&c @ (b'\r' | b'\n')) = self.buffer.get(passed) {
            passed += 1;
            self.line_ends += usize::from(c == b'\n');
            if self.line_ends == 2 {
                break;
            }
        }
        if passed > 0 {
            self.buffer.advance(passed);
            self.searched = 0;
        }
        let ping = self.line_ends == 2;
        if ping {
            self.line_ends = 0;
        }
        ping.then_some(Frame::Ping)
    }

    /// Returns the head alone with a fault. A response needs no more, and a body might not be text.
    fn give_up<T>(&mut self, fault: ParseError, head: usize) -> Result<T, (ParseError, Bytes)> {
        Err((fault, self.buffer.split_to(head).freeze()))
    }
}

/// Parses Content-Length. It must be present and valid, because nothing else marks the end of a message in a stream.
fn content_length(head: &[u8]) -> Result<usize, ParseError> {
    let text = std::str::from_utf8(head).map_err(|_| ParseError::NotUtf8)?;
    let (head, _) = Head::find(text)?;
    if let Some(fault) = head.fault.filter(|_| head.end_hidden) {
        return Err(fault);
    }
    let value = head.first(Name::ContentLength).ok_or(ParseError::Missing(Name::ContentLength))?;
    let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(ParseError::ContentLength)
}

#[cfg(test)]
mod tests;

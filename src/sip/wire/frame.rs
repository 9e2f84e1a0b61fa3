//! Cutting a stream into messages (RFC 3261 sections 7.5 and 18.3).

use bytes::{Buf, Bytes, BytesMut};

use super::head::{Head, head_end};
use super::{MAX_MESSAGE, Name, ParseError};

/// The longest head taken from a stream (octets).
const MAX_HEAD: usize = 32 * 1024;
/// The longest body that is read past (octets), so that the stream can go on behind a message that is too large: a proxy's
/// connection carries others' messages too.
const MAX_SKIPPED: usize = 1024 * 1024;

/// One thing found in a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message, for [`super::read`].
    Message(Bytes),
    /// The head of one that is too large; its body is passed over.
    TooLarge(Bytes),
    /// A double CRLF between messages: to be answered with a single one (RFC 5626 section 4.4.1).
    Ping,
}

/// Collects what arrives on one connection and cuts it into messages.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Where the search for the end of the head goes on, so that a slow sender costs no quadratic work.
    searched: usize,
    /// Length of the message at the front of the buffer, once its head is complete.
    expected: Option<usize>,
    /// How much of a body that is passed over is still to come.
    skip: usize,
    line_ends: usize,
}

impl Framer {
    /// Where newly received bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// True while a message has begun and not ended.
    pub fn in_message(&self) -> bool {
        self.skip > 0 || !self.buffer.is_empty()
    }

    /// The next thing in the stream; none when more bytes are needed. After a fault the stream cannot be trusted any
    /// more; the head of the message that caused it comes with it, so that it can be answered before closing.
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
                // Subtracted, for the announced length may be as large as a number can be.
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

    /// Passes over line ends between messages, up to the second.
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

    /// Hands out the head alone: an answer needs no more, and a body might not be text.
    fn give_up<T>(&mut self, fault: ParseError, head: usize) -> Result<T, (ParseError, Bytes)> {
        Err((fault, self.buffer.split_to(head).freeze()))
    }
}

/// On a stream nothing else tells where a message ends, so Content-Length must be there and sound.
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

//! WebSocket codec (RFC 6455 section 5) for the server side: takes octets, gives SIP messages, one for each WebSocket
//! message (RFC 7118 section 5). It has no socket; tungstenite implements the protocol.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Utf8Bytes};

use crate::sip::wire::MAX_MESSAGE;

/// Octets that tungstenite reads at once. Each connection has a buffer of this size.
const READ: usize = 4 * 1024;

/// State of one WebSocket: octets of an incomplete message, and replies to send.
#[derive(Debug)]
pub(super) struct WebSocketCodec {
    context: WebSocketContext,
    pipe: Pipe,
    /// True if octets have come since the last complete message.
    begun: bool,
    /// True if a Close frame was sent; nothing may be sent after it.
    closed: bool,
    /// Octets of the incomplete message, frame headers included.
    spent: usize,
}

/// Most octets that a message may take on the wire. RFC 6455 section 5.4 allows any number of empty fragments, so the
/// frame headers must be counted too. No honest client needs as much.
const MOST_OCTETS: usize = 4 * MAX_MESSAGE;

/// Event on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CodecEvent {
    /// A SIP message.
    Message(Bytes),
    /// A SIP keep-alive (RFC 7118 section 6, RFC 5626 section 4.4.1).
    Ping,
    /// A frame without content: a WebSocket ping or pong, or an empty message.
    Control,
    /// No complete frame so far.
    Nothing,
    /// The WebSocket is closed, by the peer or because of an error.
    End,
}

/// In-memory replacement for the socket: octets that were read, and octets to write.
#[derive(Debug, Default)]
struct Pipe {
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = self.incoming.len().min(into.len());
        self.incoming.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WebSocketCodec {
    /// Creates the state after a successful upgrade. `early` are the octets that came directly after the HTTP request.
    pub(super) fn after(early: &[u8]) -> WebSocketCodec {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let pipe = Pipe { incoming: early.into(), outgoing: Vec::new() };
        WebSocketCodec {
            context: WebSocketContext::new(Role::Server, Some(config)),
            pipe,
            begun: false,
            closed: false,
            spent: 0,
        }
    }

    /// Buffer to read received octets into.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pipe.incoming
    }

    /// Returns true while a frame, or a message of several frames, is incomplete.
    pub(super) fn in_message(&self) -> bool {
        self.begun
    }

    /// Returns true if nothing more may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next event. Afterwards [`WebSocketCodec::take_replies`] may have something to send.
    pub(super) fn next(&mut self) -> CodecEvent {
        let before = self.pipe.incoming.len();
        self.begun |= before > 0;
        let message = match self.context.read(&mut self.pipe) {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.spent += before;
                if self.spent > MOST_OCTETS {
                    self.close(CloseCode::Size);
                    return CodecEvent::End;
                }
                return CodecEvent::Nothing;
            }
            Err(error) => {
                self.fail(&error);
                return CodecEvent::End;
            }
        };
        self.begun = false;
        let payload = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // The flush writes the answer to a ping or a Close; it writes to memory, so it cannot fail.
            Message::Close(_) => {
                let _ = self.context.flush(&mut self.pipe);
                self.closed = true;
                return CodecEvent::End;
            }
            _ => {
                let _ = self.context.flush(&mut self.pipe);
                return CodecEvent::Control;
            }
        };
        self.spent = 0;
        if payload.iter().any(|c| !matches!(c, b'\r' | b'\n')) {
            return CodecEvent::Message(payload);
        }
        match payload.iter().filter(|c| **c == b'\n').count() {
            0 | 1 => CodecEvent::Control,
            _ => CodecEvent::Ping,
        }
    }

    /// Closes the WebSocket after an error of the protocol or a limit; the Close frame tells the peer the reason (RFC
    /// 6455 section 7.4.1).
    fn fail(&mut self, error: &Error) {
        let code = match error {
            Error::Capacity(_) => CloseCode::Size,
            Error::Utf8(_) => CloseCode::Invalid,
            Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => return self.closed = true,
            _ => CloseCode::Protocol,
        };
        self.close(code);
    }

    fn close(&mut self, code: CloseCode) {
        if !std::mem::replace(&mut self.closed, true) {
            let frame = Frame::close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
            self.pipe.outgoing.extend_from_slice(&format(frame));
        }
    }

    /// Takes the octets to send in reply to received frames.
    pub(super) fn take_replies(&mut self) -> Option<Bytes> {
        (!self.pipe.outgoing.is_empty()).then(|| std::mem::take(&mut self.pipe.outgoing).into())
    }

    /// Close frame to send before the server closes the connection; none if one was sent already.
    pub(super) fn close_frame(&mut self) -> Option<Bytes> {
        self.close(CloseCode::Away);
        self.take_replies()
    }

    /// Ping frame, which makes the peer answer if it is still there.
    pub(super) fn ping() -> Bytes {
        format(Frame::ping(Bytes::new()))
    }

    /// Frame of a SIP message: a text frame if the message is valid UTF-8, else a binary one. Our own messages are text
    /// unless they quote other octets from a request.
    pub(super) fn encode(message: &Bytes) -> Bytes {
        let kind = if std::str::from_utf8(message).is_ok() { Data::Text } else { Data::Binary };
        format(Frame::message(message.clone(), OpCode::Data(kind), true))
    }
}

fn format(frame: Frame) -> Bytes {
    let mut out = Vec::with_capacity(frame.len());
    // Writing to memory cannot fail, and frames of a server are not masked.
    let _ = frame.format(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that a client sends for these messages.
    fn wire(messages: &[Message]) -> Vec<u8> {
        let mut client = WebSocketContext::new(Role::Client, None);
        let mut pipe = Pipe::default();
        for message in messages {
            client.write(&mut pipe, message.clone()).unwrap();
        }
        client.flush(&mut pipe).unwrap();
        pipe.outgoing
    }

    /// Feeds octets in pieces of this size; returns all events but control frames, and all replies.
    fn hear(octets: &[u8], size: usize) -> (Vec<CodecEvent>, Vec<u8>) {
        let mut frames = WebSocketCodec::after(&[]);
        let (mut all, mut replies) = (Vec::new(), Vec::new());
        for piece in octets.chunks(size) {
            frames.buffer().extend_from_slice(piece);
            loop {
                let heard = frames.next();
                replies.extend(frames.take_replies().unwrap_or_default());
                match heard {
                    CodecEvent::Nothing => break,
                    CodecEvent::End => return (all, replies),
                    CodecEvent::Control => {}
                    heard => all.push(heard),
                }
            }
        }
        assert_eq!(frames.pipe.incoming.len(), 0, "all is taken in");
        (all, replies)
    }

    #[test]
    fn messages_are_the_same_however_the_octets_come() {
        let big = "x".repeat(MAX_MESSAGE);
        let octets = wire(&[
            Message::text("OPTIONS sip:a SIP/2.0\r\n\r\n"),
            Message::Ping("p".into()),
            Message::binary(big.clone()),
            Message::text("\r\n\r\n"),
            Message::text("\r\n"),
            Message::text(""),
            Message::Pong(Bytes::new()),
            Message::text("last"),
        ]);
        let expected = vec![
            CodecEvent::Message("OPTIONS sip:a SIP/2.0\r\n\r\n".into()),
            CodecEvent::Message(big.into()),
            CodecEvent::Ping,
            CodecEvent::Message("last".into()),
        ];
        for size in [1, 2, 3, 7, 100, 4_096, octets.len()] {
            assert_eq!(hear(&octets, size), (expected.clone(), b"\x8a\x01p".to_vec()), "in pieces of {size}");
        }
    }

    #[test]
    fn a_frame_that_has_begun_is_known_to_have_begun() {
        let octets = wire(&[Message::text("abc")]);
        let mut frames = WebSocketCodec::after(&octets[..4]);
        assert_eq!((frames.in_message(), frames.next(), frames.in_message()), (false, CodecEvent::Nothing, true));
        frames.buffer().extend_from_slice(&octets[4..]);
        assert_eq!((frames.next(), frames.in_message()), (CodecEvent::Message("abc".into()), false));
    }

    #[test]
    fn goodbye_is_said_once() {
        let (heard, replies) = hear(&wire(&[Message::Close(None)]), 1);
        assert_eq!((heard, replies), (vec![], b"\x88\x00".to_vec()));
        let mut frames = WebSocketCodec::after(b"\x81\x01x");
        assert_eq!(frames.next(), CodecEvent::End);
        assert_eq!(frames.close_frame().as_deref(), Some(&b"\x88\x02\x03\xea"[..]), "protocol error");
        assert_eq!(frames.close_frame(), None);
        assert_eq!(WebSocketCodec::after(&[]).close_frame().as_deref(), Some(&b"\x88\x02\x03\xe9"[..]), "going away");
    }

    #[test]
    fn no_octets_make_it_panic() {
        // A linear congruential generator: random enough, and the same in every run.
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        for _ in 0..5_000 {
            let mut octets: Vec<u8> = (0..64).map(|_| random()).collect();
            // In most rounds the first two octets are a plausible frame header.
            if random() > 50 {
                octets[0] &= 0x8f;
                octets[1] |= 0x80;
            }
            let (heard, replies) = hear(&octets, usize::from(random() % 64) + 1);
            assert!(heard.len() <= octets.len() && replies.len() <= octets.len() * 2);
        }
    }

    #[test]
    fn a_message_is_wrapped_as_text_where_it_is_text() {
        assert_eq!(WebSocketCodec::encode(&Bytes::from_static(b"hi")), &b"\x81\x02hi"[..]);
        assert_eq!(WebSocketCodec::encode(&Bytes::from_static(b"\xff")), &b"\x82\x01\xff"[..]);
        assert_eq!(WebSocketCodec::encode(&Bytes::from(vec![b'x'; 300]))[..4], b"\x81\x7e\x01\x2c"[..]);
    }
}

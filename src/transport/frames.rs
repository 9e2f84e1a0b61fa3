//! The frames of a WebSocket (RFC 6455 section 5), from our side, which is the server's: octets in, SIP messages out, one
//! in each WebSocket message (RFC 7118 section 5). No socket here; tungstenite knows the protocol.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Utf8Bytes};

use crate::sip::wire::MAX_MESSAGE;

/// What tungstenite reads at once; each connection has a buffer of this size.
const READ: usize = 4 * 1024;

/// One WebSocket: what has come and is not whole yet, and what is to be sent because of it.
#[derive(Debug)]
pub(super) struct Frames {
    context: WebSocketContext,
    pipe: Pipe,
    /// Octets have come since the last whole frame.
    begun: bool,
    /// A Close has been sent, after which nothing may be.
    closed: bool,
    /// Octets of the message that has begun, with the heads of its frames.
    spent: usize,
}

/// The most octets that a message may take on the wire (RFC 6455 section 5.4 lets it be cut into frames of nothing). Nobody
/// cuts so finely who means well.
const MOST_OCTETS: usize = 4 * MAX_MESSAGE;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A SIP message.
    Message(Bytes),
    /// A keep-alive of SIP (RFC 7118 section 6, RFC 5626 section 4.4.1).
    Ping,
    /// A frame that carries nothing: a ping or pong of WebSocket, or an empty message.
    Control,
    /// Nothing whole so far.
    Nothing,
    /// Nothing more will come.
    End,
}

/// Stands in for the socket: octets that were read, and octets to be written.
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

impl Frames {
    /// A WebSocket that has just been agreed upon, `early` having come right behind the request.
    pub(super) fn after(early: &[u8]) -> Frames {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let pipe = Pipe { incoming: early.into(), outgoing: Vec::new() };
        Frames {
            context: WebSocketContext::new(Role::Server, Some(config)),
            pipe,
            begun: false,
            closed: false,
            spent: 0,
        }
    }

    /// Where newly received octets go.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.pipe.incoming
    }

    /// True while a frame, or a message in several frames, has begun and not ended.
    pub(super) fn in_message(&self) -> bool {
        self.begun
    }

    /// Nothing more may be sent.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next thing; [`Frames::take_replies`] may have something to send after it.
    pub(super) fn next(&mut self) -> Heard {
        let before = self.pipe.incoming.len();
        self.begun |= before > 0;
        let message = match self.context.read(&mut self.pipe) {
            Ok(message) => message,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.spent += before;
                if self.spent > MOST_OCTETS {
                    self.close(CloseCode::Size);
                    return Heard::End;
                }
                return Heard::Nothing;
            }
            Err(error) => {
                self.fail(&error);
                return Heard::End;
            }
        };
        self.begun = false;
        let payload = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // Pings and Closes are answered by what is flushed here: into memory, which cannot fail.
            Message::Close(_) => {
                let _ = self.context.flush(&mut self.pipe);
                self.closed = true;
                return Heard::End;
            }
            _ => {
                let _ = self.context.flush(&mut self.pipe);
                return Heard::Control;
            }
        };
        self.spent = 0;
        if payload.iter().any(|c| !matches!(c, b'\r' | b'\n')) {
            return Heard::Message(payload);
        }
        match payload.iter().filter(|c| **c == b'\n').count() {
            0 | 1 => Heard::Control,
            _ => Heard::Ping,
        }
    }

    /// The peer broke the protocol, or a limit of ours: it is told which (RFC 6455 section 7.4.1).
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

    /// What has to be sent because of what was heard.
    pub(super) fn take_replies(&mut self) -> Option<Bytes> {
        (!self.pipe.outgoing.is_empty()).then(|| std::mem::take(&mut self.pipe.outgoing).into())
    }

    /// What is said before we close, unless goodbye has been said already.
    pub(super) fn farewell(&mut self) -> Option<Bytes> {
        self.close(CloseCode::Away);
        self.take_replies()
    }

    /// Asks whether the peer is there.
    pub(super) fn ping() -> Bytes {
        format(Frame::ping(Bytes::new()))
    }

    /// A SIP message in one frame: text where it is text, which our own messages are as long as what they quote is.
    pub(super) fn wrap(message: &Bytes) -> Bytes {
        let kind = if std::str::from_utf8(message).is_ok() { Data::Text } else { Data::Binary };
        format(Frame::message(message.clone(), OpCode::Data(kind), true))
    }
}

fn format(frame: Frame) -> Bytes {
    let mut out = Vec::with_capacity(frame.len());
    // Writing to memory cannot fail, and a server's frames are not masked.
    let _ = frame.format(&mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client puts on the wire for these messages.
    fn wire(messages: &[Message]) -> Vec<u8> {
        let mut client = WebSocketContext::new(Role::Client, None);
        let mut pipe = Pipe::default();
        for message in messages {
            client.write(&mut pipe, message.clone()).unwrap();
        }
        client.flush(&mut pipe).unwrap();
        pipe.outgoing
    }

    /// Everything that is heard when octets come in pieces of this size, and everything that is replied.
    fn hear(octets: &[u8], size: usize) -> (Vec<Heard>, Vec<u8>) {
        let mut frames = Frames::after(&[]);
        let (mut all, mut replies) = (Vec::new(), Vec::new());
        for piece in octets.chunks(size) {
            frames.buffer().extend_from_slice(piece);
            loop {
                let heard = frames.next();
                replies.extend(frames.take_replies().unwrap_or_default());
                match heard {
                    Heard::Nothing => break,
                    Heard::End => return (all, replies),
                    Heard::Control => {}
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
            Heard::Message("OPTIONS sip:a SIP/2.0\r\n\r\n".into()),
            Heard::Message(big.into()),
            Heard::Ping,
            Heard::Message("last".into()),
        ];
        for size in [1, 2, 3, 7, 100, 4_096, octets.len()] {
            assert_eq!(hear(&octets, size), (expected.clone(), b"\x8a\x01p".to_vec()), "in pieces of {size}");
        }
    }

    #[test]
    fn a_frame_that_has_begun_is_known_to_have_begun() {
        let octets = wire(&[Message::text("abc")]);
        let mut frames = Frames::after(&octets[..4]);
        assert_eq!((frames.in_message(), frames.next(), frames.in_message()), (false, Heard::Nothing, true));
        frames.buffer().extend_from_slice(&octets[4..]);
        assert_eq!((frames.next(), frames.in_message()), (Heard::Message("abc".into()), false));
    }

    #[test]
    fn goodbye_is_said_once() {
        let (heard, replies) = hear(&wire(&[Message::Close(None)]), 1);
        assert_eq!((heard, replies), (vec![], b"\x88\x00".to_vec()));
        let mut frames = Frames::after(b"\x81\x01x");
        assert_eq!(frames.next(), Heard::End);
        assert_eq!(frames.farewell().as_deref(), Some(&b"\x88\x02\x03\xea"[..]), "protocol error");
        assert_eq!(frames.farewell(), None);
        assert_eq!(Frames::after(&[]).farewell().as_deref(), Some(&b"\x88\x02\x03\xe9"[..]), "going away");
    }

    #[test]
    fn no_octets_make_it_panic() {
        // A linear congruential generator is random enough here, and the same in every run.
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        for _ in 0..5_000 {
            let mut octets: Vec<u8> = (0..64).map(|_| random()).collect();
            // A plausible first frame, most of the time.
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
        assert_eq!(Frames::wrap(&Bytes::from_static(b"hi")), &b"\x81\x02hi"[..]);
        assert_eq!(Frames::wrap(&Bytes::from_static(b"\xff")), &b"\x82\x01\xff"[..]);
        assert_eq!(Frames::wrap(&Bytes::from(vec![b'x'; 300]))[..4], b"\x81\x7e\x01\x2c"[..]);
    }
}

//! Connections: reading messages from them, whatever carries them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::door::Passage;
use super::frames::{Frames, Heard};
use super::hub::Shared;
use super::{FlowId, ListenerNo, Source};
use crate::sip::Transport;
use crate::sip::wire::{Fault, Frame, Framer};

/// How long a message may take from its first octet to its last, however many there are between.
const HALF_MESSAGE: Duration = Duration::from_secs(20);
/// A WebSocket that is silent for so long is asked whether it is still there: browsers cannot ask by themselves, and
/// what stands between forgets silent connections after a minute. Silent for as long again, it is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The reading side of one connection. Dropping it closes the connection once all that is queued has been written.
pub struct Connection {
    flow: FlowId,
    source: Source,
    reading: Box<dyn AsyncRead + Send + Unpin>,
    cutter: Cutter,
    /// When the message that has begun has to be whole: an octet now and then does not keep a connection open.
    whole_by: Option<Instant>,
    shared: Arc<Shared>,
}

/// What tells one message from the next.
enum Cutter {
    /// Content-Length, in a stream of octets.
    Octets(Framer),
    /// The frames of a WebSocket.
    Frames(Box<Frames>),
}

/// What came on a connection.
#[derive(Debug)]
pub enum Arrival {
    /// A whole message.
    Message(Bytes),
    /// The head of a message that is too large to be taken.
    TooLarge(Bytes),
    /// A keep-alive, to be answered with a CRLF (RFC 5626 section 4.4.1).
    Ping,
    /// Something that is no message; nothing after it can be trusted.
    Broken(Fault, Bytes),
}

impl Connection {
    pub(super) fn new(
        flow: FlowId,
        transport: Transport,
        listener: ListenerNo,
        peer: SocketAddr,
        passage: Passage,
        shared: Arc<Shared>,
    ) -> Connection {
        let source = Source { transport, listener, peer, flow: Some(flow), certified: passage.certified };
        let cutter = match passage.frames {
            Some(frames) => Cutter::Frames(frames),
            None => Cutter::Octets(Framer::default()),
        };
        Connection { flow, source, reading: passage.reading, cutter, whole_by: None, shared }
    }

    /// Where its messages come from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Waits for the next thing; none when the peer has closed, has been idle for too long, does not read, or is broken.
    pub async fn next(&mut self, idle: Duration) -> Option<Arrival> {
        let mut asked = false;
        loop {
            if !self.shared.is_open(self.flow) {
                // Whoever does not read what he asks for is not listened to either.
                return None;
            }
            match self.cut() {
                Cut::Arrival(arrival) => {
                    if let Arrival::Message(bytes) = &arrival {
                        self.shared.passing(self.source.transport).message_came();
                        self.shared.came(self.source, bytes);
                    }
                    return Some(arrival);
                }
                Cut::More => {}
                Cut::End => return None,
            }
            let now = Instant::now();
            let until = match self.in_message() {
                true => *self.whole_by.get_or_insert(now + HALF_MESSAGE.min(idle)),
                false => {
                    self.whole_by = None;
                    now + idle
                }
            };
            let look = match &self.cutter {
                Cutter::Octets(_) => until,
                Cutter::Frames(_) => until.min(now + KEEP_ALIVE.min(idle / 3)),
            };
            let buffer = match &mut self.cutter {
                Cutter::Octets(framer) => framer.buffer(),
                Cutter::Frames(frames) => frames.buffer(),
            };
            buffer.reserve(8 * 1024);
            match tokio::time::timeout_at(look, self.reading.read_buf(buffer)).await {
                Ok(Ok(length)) if length > 0 => {
                    self.shared.passing(self.source.transport).came(length);
                    asked = false;
                }
                Err(_) if look < until && !asked => {
                    self.shared.queue_frame(self.flow, Frames::ping());
                    asked = true;
                }
                _ => return None,
            }
        }
    }

    fn in_message(&self) -> bool {
        match &self.cutter {
            Cutter::Octets(framer) => framer.in_message(),
            Cutter::Frames(frames) => frames.in_message(),
        }
    }

    /// Looks for the next thing in what has been read.
    fn cut(&mut self) -> Cut {
        let arrival = match &mut self.cutter {
            Cutter::Octets(framer) => match framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => Arrival::Message(bytes),
                Ok(Some(Frame::TooLarge(head))) => return Cut::Arrival(Arrival::TooLarge(head)),
                Ok(Some(Frame::Ping)) => return Cut::Arrival(Arrival::Ping),
                Ok(None) => return Cut::More,
                Err((fault, bytes)) => Arrival::Broken(fault, bytes),
            },
            Cutter::Frames(frames) => {
                let heard = frames.next();
                if let Some(replies) = frames.take_replies() {
                    self.shared.queue_frame(self.flow, replies);
                }
                match heard {
                    Heard::Message(bytes) => Arrival::Message(bytes),
                    Heard::Ping => Arrival::Ping,
                    Heard::Nothing => return Cut::More,
                    Heard::End => return Cut::End,
                }
            }
        };
        self.whole_by = None;
        Cut::Arrival(arrival)
    }
}

enum Cut {
    Arrival(Arrival),
    /// More has to be read.
    More,
    /// Nothing more will come.
    End,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Cutter::Frames(frames) = &mut self.cutter
            && let Some(farewell) = frames.farewell()
        {
            self.shared.queue_frame(self.flow, farewell);
        }
        self.shared.close(self.flow);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("source", &self.source).finish_non_exhaustive()
    }
}

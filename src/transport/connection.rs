//! Reading side of a connection: takes SIP messages from a TCP or TLS stream or from a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::handshake::ReadHalf;
use super::outgoing::Queue;
use super::sender::ConnectionTable;
use super::token_bucket::TokenBucket;
use super::websocket_codec::{CodecEvent, WebSocketCodec};
use super::{FlowId, Source};
use crate::sip::wire::{Frame, Framer, ParseError};

/// Timeout of a partial message: the time from its first octet to its last, however often more of it arrives.
const PARTIAL_MESSAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval after which a silent WebSocket is sent a ping. Browsers cannot send keep-alives by themselves, and many
/// NATs and proxies drop connections that are silent for a minute. If the peer stays silent for the same time again,
/// the connection is closed. The interval is shorter if a third of the idle timeout is.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Octets to read at once.
const READ: usize = 8 * 1024;
/// Reads of fewer octets than this that complete no message are counted as keep-alives, because they cost as much.
const SLIVER: usize = 64;
/// Rate limit of reads that bring no message: per second, and burst. A flood of keep-alives then costs some thousandths
/// of a core. The rate limit of messages is not applied here but by the reader of the connection.
const IDLE_READS: (u32, u32) = (100, 500);
/// Most keep-alives of one read that are answered one by one. A client that waits for each answer sends no more than
/// one (RFC 5626 section 4.4.1).
const PONGS: usize = 8;
/// Messages to take from one connection before other tasks get a turn.
const TURN: u32 = 4;

/// Reading side of one connection. Dropping it closes the connection after its queue has been written.
pub struct Connection {
    flow: FlowId,
    source: Source,
    reading: Box<dyn AsyncRead + Send + Unpin>,
    cutter: Framing,
    /// Queue of octets to write to this connection.
    queue: Arc<Queue>,
    /// Deadline of the message that has begun; further octets do not extend it.
    message_deadline: Option<Instant>,
    idle_reads: TokenBucket,
    /// Keep-alives and short reads since the last event.
    found: IdleInput,
    /// Messages taken since other tasks last had a turn.
    taken: u32,
    shared: Arc<ConnectionTable>,
}

/// Input that is not a message: keep-alives, control frames and short reads.
#[derive(Debug, Default)]
struct IdleInput {
    pings: usize,
    controls: usize,
    /// True if a read brought fewer than [`SLIVER`] octets.
    sliver: bool,
}

impl IdleInput {
    fn is_nothing(&self) -> bool {
        self.pings == 0 && self.controls == 0 && !self.sliver
    }
}

/// Framing: separates the messages of a connection.
enum Framing {
    /// By Content-Length in a stream of octets (RFC 3261 section 18.3).
    Octets(Framer),
    /// By WebSocket frames (RFC 7118).
    WebSocketCodec(Box<WebSocketCodec>),
}

/// Event on a connection.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// A complete message.
    Message(Bytes),
    /// Head of a message that is too large to be read.
    TooLarge(Bytes),
    /// Keep-alives, which have been answered already (RFC 5626 section 4.4.1), or a short read. The buffer holds no
    /// complete message then. It counts as one message against the rate limit of the source.
    Idle,
    /// A malformed message. The stream cannot be parsed after it.
    Broken(ParseError, Bytes),
}

impl Connection {
    pub(super) fn new(
        source: Source,
        passage: ReadHalf,
        queue: Arc<Queue>,
        shared: Arc<ConnectionTable>,
    ) -> Connection {
        let cutter = match passage.frames {
            Some(frames) => Framing::WebSocketCodec(frames),
            None => Framing::Octets(Framer::default()),
        };
        let (per_second, burst) = IDLE_READS;
        Connection {
            // The source of a connection always has a flow.
            flow: source.flow.unwrap_or(FlowId(0)),
            source,
            reading: passage.reading,
            cutter,
            queue,
            message_deadline: None,
            idle_reads: TokenBucket::of(per_second, burst, Instant::now()),
            found: IdleInput::default(),
            taken: 0,
            shared,
        }
    }

    /// Source of all messages of this connection.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Waits for the next event. None when the peer has closed the connection, was idle for too long, does not read, or
    /// violates the WebSocket protocol.
    ///
    /// Nothing is read while too many responses wait to be written to the peer (back-pressure). After four messages
    /// other tasks get a turn.
    pub async fn next(&mut self, idle: Duration) -> Option<ConnectionEvent> {
        let mut asked = false;
        loop {
            self.taken += 1;
            if self.taken >= TURN {
                self.taken = 0;
                tokio::task::yield_now().await;
            }
            self.queue.answers_have_left().await;
            if self.queue.is_closed() {
                // The peer does not read, or the server is closing the connection: stop reading from it.
                return None;
            }
            match self.cut() {
                Cut::ConnectionEvent(arrival) => {
                    if let ConnectionEvent::Message(bytes) = &arrival {
                        self.shared.passing(self.source.transport).record_received();
                        self.shared.on_received(self.source, bytes);
                    }
                    return Some(arrival);
                }
                Cut::More if !self.found.is_nothing() => {
                    self.found = IdleInput::default();
                    self.idle_reads.spend(Instant::now());
                    return Some(ConnectionEvent::Idle);
                }
                Cut::More => {}
                Cut::End => return None,
            }
            let mut now = Instant::now();
            if self.idle_reads.next() > now {
                tokio::time::sleep_until(self.idle_reads.next()).await;
                now = Instant::now();
            }
            let until = match self.in_message() {
                true => *self.message_deadline.get_or_insert(now + PARTIAL_MESSAGE_TIMEOUT.min(idle)),
                false => {
                    self.message_deadline = None;
                    now + idle
                }
            };
            let look = match &self.cutter {
                Framing::Octets(_) => until,
                Framing::WebSocketCodec(_) => until.min(now + KEEP_ALIVE.min(idle / 3)),
            };
            let buffer = match &mut self.cutter {
                Framing::Octets(framer) => framer.buffer(),
                Framing::WebSocketCodec(frames) => frames.buffer(),
            };
            buffer.reserve(READ);
            match tokio::time::timeout_at(look, self.reading.read_buf(buffer)).await {
                Ok(Ok(length)) if length > 0 => {
                    self.shared.passing(self.source.transport).came(length);
                    self.found.sliver = length < SLIVER;
                    asked = false;
                }
                Err(_) if look < until && !asked => {
                    self.shared.queue_octets(self.flow, &WebSocketCodec::ping());
                    asked = true;
                }
                _ => return None,
            }
        }
    }

    fn in_message(&self) -> bool {
        match &self.cutter {
            Framing::Octets(framer) => framer.in_message(),
            Framing::WebSocketCodec(frames) => frames.in_message(),
        }
    }

    /// Takes the next event from the octets that were read, and answers the keep-alives before it.
    fn cut(&mut self) -> Cut {
        let cut = loop {
            break match &mut self.cutter {
                Framing::Octets(framer) => match framer.next_frame() {
                    Ok(Some(Frame::Message(bytes))) => Cut::ConnectionEvent(ConnectionEvent::Message(bytes)),
                    Ok(Some(Frame::TooLarge(head))) => return Cut::ConnectionEvent(ConnectionEvent::TooLarge(head)),
                    Ok(Some(Frame::Ping)) => {
                        self.found.pings += 1;
                        continue;
                    }
                    Ok(None) => Cut::More,
                    Err((fault, bytes)) => Cut::ConnectionEvent(ConnectionEvent::Broken(fault, bytes)),
                },
                Framing::WebSocketCodec(frames) => match frames.next() {
                    CodecEvent::Message(bytes) => Cut::ConnectionEvent(ConnectionEvent::Message(bytes)),
                    CodecEvent::Ping => {
                        self.found.pings += 1;
                        continue;
                    }
                    CodecEvent::Control => {
                        self.found.controls += 1;
                        continue;
                    }
                    CodecEvent::Nothing => Cut::More,
                    CodecEvent::End => Cut::End,
                },
            };
        };
        self.answer_keep_alives();
        if let Cut::ConnectionEvent(_) = cut {
            self.found = IdleInput::default();
            self.message_deadline = None;
        }
        cut
    }

    /// Queues the answers to keep-alives and control frames.
    fn answer_keep_alives(&mut self) {
        let pongs = self.found.pings.min(PONGS);
        match &mut self.cutter {
            Framing::Octets(_) if pongs == 0 => {}
            Framing::Octets(_) => self.shared.queue_octets(self.flow, &b"\r\n".repeat(pongs)),
            Framing::WebSocketCodec(frames) => {
                let mut replies = frames.take_replies().map(Vec::from).unwrap_or_default();
                if !frames.is_closed() {
                    let pong = WebSocketCodec::encode(&Bytes::from_static(b"\r\n"));
                    (0..pongs).for_each(|_| replies.extend_from_slice(&pong));
                }
                if !replies.is_empty() {
                    self.shared.queue_octets(self.flow, &replies);
                }
            }
        }
    }
}

enum Cut {
    ConnectionEvent(ConnectionEvent),
    /// No complete event; more has to be read.
    More,
    /// The connection ends.
    End,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Framing::WebSocketCodec(frames) = &mut self.cutter
            && let Some(close_frame) = frames.close_frame()
        {
            self.shared.queue_octets(self.flow, &close_frame);
        }
        self.shared.close(self.flow);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("source", &self.source).finish_non_exhaustive()
    }
}

//! Connections: reading messages from them, whatever carries them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::allowance::Allowance;
use super::door::Passage;
use super::frames::{Frames, Heard};
use super::hub::Shared;
use super::outgoing::Queue;
use super::{FlowId, Source};
use crate::sip::wire::{Fault, Frame, Framer};

/// How long a message may take from its first octet to its last, however many there are between.
const HALF_MESSAGE: Duration = Duration::from_secs(20);
/// A WebSocket that is silent for so long is asked whether it is still there: browsers cannot ask by themselves, and
/// what stands between forgets silent connections after a minute. Silent for as long again, it is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Octets read at once.
const READ: usize = 8 * 1024;
/// A read that completes no message and brings less than this is counted like a keep-alive: it costs as much.
const SLIVER: usize = 64;
/// How often in a second a connection is read that brings no messages, and how often at once: a flood of keep-alives may
/// cost some thousandths of a core. What its source may say at all is for the reader to decide.
const IDLE_READS: (u32, u32) = (100, 500);
/// The most keep-alives that are answered one by one of those that come in one read. Nobody sends more who waits for the
/// answer before the next (RFC 5626 section 4.4.1).
const PONGS: usize = 8;
/// Messages that are taken from one connection before others are served.
const TURN: u32 = 4;

/// The reading side of one connection. Dropping it closes the connection once all that is queued has been written.
pub struct Connection {
    flow: FlowId,
    source: Source,
    reading: Box<dyn AsyncRead + Send + Unpin>,
    cutter: Cutter,
    /// What waits to be written.
    queue: Arc<Queue>,
    /// When the message that has begun has to be whole: an octet now and then does not keep a connection open.
    whole_by: Option<Instant>,
    idle_reads: Allowance,
    /// What has come since the last thing that was handed over.
    found: Found,
    /// Messages since others were last given a turn.
    taken: u32,
    shared: Arc<Shared>,
}

/// What has come that is no message.
#[derive(Debug, Default)]
struct Found {
    pings: usize,
    controls: usize,
    /// There was a read that brought next to nothing.
    sliver: bool,
}

impl Found {
    fn is_nothing(&self) -> bool {
        self.pings == 0 && self.controls == 0 && !self.sliver
    }
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
    /// Keep-alives, which are answered already (RFC 5626 section 4.4.1), or next to nothing. All that has been read is used
    /// up; it counts as one message against what the source may say.
    Idle,
    /// Something that is no message; nothing after it can be trusted.
    Broken(Fault, Bytes),
}

impl Connection {
    pub(super) fn new(source: Source, passage: Passage, queue: Arc<Queue>, shared: Arc<Shared>) -> Connection {
        let cutter = match passage.frames {
            Some(frames) => Cutter::Frames(frames),
            None => Cutter::Octets(Framer::default()),
        };
        let (per_second, burst) = IDLE_READS;
        Connection {
            // It has one, being a connection.
            flow: source.flow.unwrap_or(FlowId(0)),
            source,
            reading: passage.reading,
            cutter,
            queue,
            whole_by: None,
            idle_reads: Allowance::of(per_second, burst, Instant::now()),
            found: Found::default(),
            taken: 0,
            shared,
        }
    }

    /// Where its messages come from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Waits for the next thing; none when the peer has closed, has been idle for too long, does not read, or is broken.
    ///
    /// Nothing is read while too many answers to what came before have not left (back-pressure), and a connection with
    /// much to read lets others have their turn.
    pub async fn next(&mut self, idle: Duration) -> Option<Arrival> {
        let mut asked = false;
        loop {
            self.taken += 1;
            if self.taken >= TURN {
                self.taken = 0;
                tokio::task::yield_now().await;
            }
            self.queue.answers_have_left().await;
            if self.queue.is_closed() {
                // What does not read what it asks for is not listened to either.
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
                Cut::More if !self.found.is_nothing() => {
                    self.found = Found::default();
                    self.idle_reads.spend(Instant::now());
                    return Some(Arrival::Idle);
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
            buffer.reserve(READ);
            match tokio::time::timeout_at(look, self.reading.read_buf(buffer)).await {
                Ok(Ok(length)) if length > 0 => {
                    self.shared.passing(self.source.transport).came(length);
                    self.found.sliver = length < SLIVER;
                    asked = false;
                }
                Err(_) if look < until && !asked => {
                    self.shared.queue_octets(self.flow, &Frames::ping());
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

    /// Looks for the next thing in what has been read, and answers the keep-alives before it.
    fn cut(&mut self) -> Cut {
        let cut = loop {
            break match &mut self.cutter {
                Cutter::Octets(framer) => match framer.next_frame() {
                    Ok(Some(Frame::Message(bytes))) => Cut::Arrival(Arrival::Message(bytes)),
                    Ok(Some(Frame::TooLarge(head))) => return Cut::Arrival(Arrival::TooLarge(head)),
                    Ok(Some(Frame::Ping)) => {
                        self.found.pings += 1;
                        continue;
                    }
                    Ok(None) => Cut::More,
                    Err((fault, bytes)) => Cut::Arrival(Arrival::Broken(fault, bytes)),
                },
                Cutter::Frames(frames) => match frames.next() {
                    Heard::Message(bytes) => Cut::Arrival(Arrival::Message(bytes)),
                    Heard::Ping => {
                        self.found.pings += 1;
                        continue;
                    }
                    Heard::Control => {
                        self.found.controls += 1;
                        continue;
                    }
                    Heard::Nothing => Cut::More,
                    Heard::End => Cut::End,
                },
            };
        };
        self.answer_keep_alives();
        if let Cut::Arrival(_) = cut {
            self.found = Found::default();
            self.whole_by = None;
        }
        cut
    }

    /// Queues what is to be said because of what has been found.
    fn answer_keep_alives(&mut self) {
        let pongs = self.found.pings.min(PONGS);
        match &mut self.cutter {
            Cutter::Octets(_) if pongs == 0 => {}
            Cutter::Octets(_) => self.shared.queue_octets(self.flow, &b"\r\n".repeat(pongs)),
            Cutter::Frames(frames) => {
                let mut replies = frames.take_replies().map(Vec::from).unwrap_or_default();
                if !frames.is_closed() {
                    let pong = Frames::wrap(&Bytes::from_static(b"\r\n"));
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
            self.shared.queue_octets(self.flow, &farewell);
        }
        self.shared.close(self.flow);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("source", &self.source).finish_non_exhaustive()
    }
}

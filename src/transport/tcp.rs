//! Connections: accepting them and reading messages from them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

use super::hub::Shared;
use super::{FlowId, ListenerNo, Source, listening_socket};
use crate::sip::Transport;
use crate::sip::wire::{Fault, Frame, Framer};

/// How long a message may take from its first octet to its last, however many there are between.
const HALF_MESSAGE: Duration = Duration::from_secs(20);
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// The reading side of one connection. Dropping it closes the connection once all that is queued has been written.
#[derive(Debug)]
pub struct Connection {
    flow: FlowId,
    source: Source,
    socket: OwnedReadHalf,
    framer: Framer,
    /// When the message that has begun has to be whole: an octet now and then does not keep a connection open.
    whole_by: Option<Instant>,
    shared: Arc<Shared>,
}

/// What came on a connection.
#[derive(Debug)]
pub enum Arrival {
    /// A whole message.
    Message(Bytes),
    /// A keep-alive, to be answered with a CRLF (RFC 5626 section 4.4.1).
    Ping,
    /// Something that is no message; nothing after it can be trusted.
    Broken(Fault, Bytes),
}

impl Connection {
    pub(super) fn new(
        flow: FlowId,
        listener: ListenerNo,
        peer: SocketAddr,
        socket: OwnedReadHalf,
        shared: Arc<Shared>,
    ) -> Connection {
        let source = Source { transport: Transport::Tcp, listener, peer, flow: Some(flow) };
        Connection { flow, source, socket, framer: Framer::default(), whole_by: None, shared }
    }

    /// Where its messages come from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Waits for the next thing; none when the peer has closed, has been idle for too long, or is broken.
    pub async fn next(&mut self, idle: Duration) -> Option<Arrival> {
        loop {
            match self.framer.next_frame() {
                Ok(Some(Frame::Message(bytes))) => {
                    self.whole_by = None;
                    return Some(Arrival::Message(bytes));
                }
                Ok(Some(Frame::Ping)) => return Some(Arrival::Ping),
                Ok(None) => {}
                Err((fault, bytes)) => return Some(Arrival::Broken(fault, bytes)),
            }
            let now = Instant::now();
            let until = match self.framer.in_message() {
                true => *self.whole_by.get_or_insert(now + HALF_MESSAGE.min(idle)),
                false => now + idle,
            };
            let buffer = self.framer.buffer();
            buffer.reserve(8 * 1024);
            match tokio::time::timeout_at(until, self.socket.read_buf(buffer)).await {
                Ok(Ok(length)) if length > 0 => {}
                _ => return None,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close(self.flow);
    }
}

/// One thread's socket of a TCP listener.
#[derive(Debug)]
pub struct Acceptor {
    socket: TcpListener,
    listener: ListenerNo,
    shared: Arc<Shared>,
}

impl Acceptor {
    /// Binds a socket; several may share an address.
    pub fn bind(address: SocketAddr, listener: ListenerNo, shared: Arc<Shared>) -> io::Result<Acceptor> {
        let socket = listening_socket(address, socket2::Type::STREAM)?;
        socket.listen(BACKLOG)?;
        Ok(Acceptor { socket: TcpListener::from_std(socket.into())?, listener, shared })
    }

    /// Hands over every connection. Beyond the limit, connections are closed as soon as they open.
    pub async fn run(self, each: impl Fn(Connection)) {
        loop {
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of descriptors, most likely; it may get better when connections close.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(permit) = self.shared.permit() else {
                tracing::warn!(%peer, "limits.tcp_connections is reached; a connection was closed");
                continue;
            };
            // Without it answers would wait for each other; it fails only for a peer that has gone again.
            let _ = stream.set_nodelay(true);
            let (flow, outgoing) = self.shared.register();
            let (reading, writing) = stream.into_split();
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                outgoing.write_to(&shared, flow, writing).await;
                drop(permit);
            });
            each(Connection::new(flow, self.listener, peer, reading, Arc::clone(&self.shared)));
        }
    }
}

//! Listening sockets of the stream transports: accepts connections and applies the connection limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::util::log_limit::LogLimiter;

use super::handshake::Handshaker;
use super::limits::Permit;
use super::sender::ConnectionTable;
use super::{Connection, ListenerId, Source, listening_socket};

/// Log limiter: a source that exceeds its limit may do so with many connections.
static TOO_MANY: LogLimiter = LogLimiter::new();
/// Log limiter: a failed accept is retried ten times a second.
static NOT_ACCEPTED: LogLimiter = LogLimiter::new();
/// Connections that may wait in the kernel to be accepted.
const BACKLOG: i32 = 1_024;

/// Listening socket of one thread for one stream listener.
#[derive(Debug)]
pub struct Acceptor {
    socket: TcpListener,
    listener: ListenerId,
    door: Handshaker,
    shared: Arc<ConnectionTable>,
}

impl Acceptor {
    /// Binds the socket; several may share an address (SO_REUSEPORT). `door` does the handshake of new connections.
    pub fn bind(
        address: SocketAddr,
        listener: ListenerId,
        door: Handshaker,
        shared: Arc<ConnectionTable>,
    ) -> io::Result<Acceptor> {
        let socket = listening_socket(address, socket2::Type::STREAM)?;
        socket.listen(BACKLOG)?;
        Ok(Acceptor { socket: TcpListener::from_std(socket.into())?, listener, door, shared })
    }

    /// Accepts connections and passes each to `each` after its handshake. A connection beyond a limit is closed at
    /// once.
    pub async fn run(self, each: impl Fn(Connection) + Clone + Send + 'static) {
        loop {
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Most likely no file descriptor is free; that may change when connections close.
                    if let Some(more) = NOT_ACCEPTED.check() {
                        tracing::warn!(error = %e, more, "a connection could not be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let permit = match self.shared.places().permit_from(peer.ip()) {
                Ok(permit) => permit,
                Err(limit) => {
                    if let Some(more) = TOO_MANY.check() {
                        tracing::warn!(%peer, limit, more, "a limit is reached; a connection was closed");
                    }
                    continue;
                }
            };
            // Without TCP_NODELAY responses would be delayed (Nagle's algorithm). It fails only if the peer has closed
            // already.
            let _ = stream.set_nodelay(true);
            let (door, shared, each) = (self.door.clone(), Arc::clone(&self.shared), each.clone());
            let listener = self.listener;
            tokio::spawn(async move { admit(stream, peer, listener, &door, &permit, shared, each).await });
        }
    }
}

/// Does the handshake of a connection, passes on its reading half and writes its queue until it ends.
async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    listener: ListenerId,
    door: &Handshaker,
    permit: &Permit,
    shared: Arc<ConnectionTable>,
    each: impl Fn(Connection),
) {
    let (passage, writing) = match door.pass(stream, permit).await {
        Ok(passed) => passed,
        // Mostly port scanners.
        Err(error) => return tracing::debug!(%peer, %error, "a connection did not come in"),
    };
    let (flow, queue) = shared.register(door.transport(), listener, peer, permit);
    let source = Source { transport: door.transport(), listener, peer, flow: Some(flow), certified: passage.certified };
    each(Connection::new(source, passage, Arc::clone(&queue), Arc::clone(&shared)));
    shared.write(flow, door.transport(), &queue, writing).await;
}

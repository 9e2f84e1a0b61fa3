//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::seldom::Seldom;

use super::door::Door;
use super::hub::Shared;
use super::room::Permit;
use super::{Connection, ListenerNo, Source, listening_socket};

/// Somebody who opens more connections than he may opens many.
static TOO_MANY: Seldom = Seldom::new();
/// It is tried ten times in a second.
static NOT_ACCEPTED: Seldom = Seldom::new();
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// One thread's socket of a stream listener.
#[derive(Debug)]
pub struct Acceptor {
    socket: TcpListener,
    listener: ListenerNo,
    door: Door,
    shared: Arc<Shared>,
}

impl Acceptor {
    /// Binds a socket; several may share an address. Connections come in through `door`.
    pub fn bind(address: SocketAddr, listener: ListenerNo, door: Door, shared: Arc<Shared>) -> io::Result<Acceptor> {
        let socket = listening_socket(address, socket2::Type::STREAM)?;
        socket.listen(BACKLOG)?;
        Ok(Acceptor { socket: TcpListener::from_std(socket.into())?, listener, door, shared })
    }

    /// Hands over every connection once it is through the door. Beyond the limit, connections are closed as soon as
    /// they open.
    pub async fn run(self, each: impl Fn(Connection) + Clone + Send + 'static) {
        loop {
            let (stream, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of descriptors, most likely; it may get better when connections close.
                    if let Some(more) = NOT_ACCEPTED.may_say() {
                        tracing::warn!(error = %e, more, "a connection could not be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let permit = match self.shared.places().permit_from(peer.ip()) {
                Ok(permit) => permit,
                Err(limit) => {
                    if let Some(more) = TOO_MANY.may_say() {
                        tracing::warn!(%peer, limit, more, "a limit is reached; a connection was closed");
                    }
                    continue;
                }
            };
            // Without it answers would wait for each other; it fails only for a peer that has gone again.
            let _ = stream.set_nodelay(true);
            let (door, shared, each) = (self.door.clone(), Arc::clone(&self.shared), each.clone());
            let listener = self.listener;
            tokio::spawn(async move { admit(stream, peer, listener, &door, &permit, shared, each).await });
        }
    }
}

/// Sees a connection through the door, hands over its reading side and writes to it until it ends.
async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    listener: ListenerNo,
    door: &Door,
    permit: &Permit,
    shared: Arc<Shared>,
    each: impl Fn(Connection),
) {
    let (passage, writing) = match door.pass(stream, permit).await {
        Ok(passed) => passed,
        // Scanners, mostly.
        Err(error) => return tracing::debug!(%peer, %error, "a connection did not come in"),
    };
    let (flow, queue) = shared.register(door.transport(), listener, peer, permit);
    let source = Source { transport: door.transport(), listener, peer, flow: Some(flow), certified: passage.certified };
    each(Connection::new(source, passage, Arc::clone(&queue), Arc::clone(&shared)));
    shared.write(flow, door.transport(), &queue, writing).await;
}

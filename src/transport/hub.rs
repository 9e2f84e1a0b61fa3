//! The hub: one place to send from, over whatever socket or connection a packet needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::tcp::Connection;
use super::{Datagrams, Destination, FlowId, ListenerNo, Packet, Ticket};

/// The most messages that wait for one connection. A proxy's connection carries thousands of dialogs.
const QUEUE: usize = 65_536;
/// The most octets that wait for one connection; a peer that lets more pile up does not read, and is dropped.
const QUEUE_OCTETS: usize = 64 * 1024 * 1024;
/// How long a connection may take to open, and a peer to make room for a write.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all threads share: the connections, and where failures are reported.
#[derive(Debug)]
pub struct Shared {
    flows: DashMap<FlowId, Flow>,
    /// Connections that we opened, to be used again.
    opened: DashMap<(ListenerNo, SocketAddr), FlowId>,
    next_flow: AtomicU64,
    open: AtomicUsize,
    most: usize,
    failures: mpsc::UnboundedSender<Ticket>,
}

#[derive(Clone, Debug)]
struct Flow {
    queue: mpsc::Sender<(Bytes, Option<Ticket>)>,
    octets: Arc<AtomicUsize>,
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(super) struct Permit(Arc<Shared>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Room for `most` connections; tickets of what cannot be sent go to `failures`. At most one NOTIFY of each
    /// subscription is under way, so that channel is as bounded as the table is.
    pub fn new(most: usize, failures: mpsc::UnboundedSender<Ticket>) -> Arc<Shared> {
        Arc::new(Shared {
            flows: DashMap::new(),
            opened: DashMap::new(),
            next_flow: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            most,
            failures,
        })
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes one of the connections that there may be; none when all are taken.
    pub(super) fn permit(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(self));
        (taken < self.most).then_some(permit)
    }

    fn report(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            // Nobody listens any more only while the server stops.
            let _ = self.failures.send(ticket);
        }
    }

    /// Makes a flow known; what is queued for it comes out of the receiver.
    pub(super) fn register(&self) -> (FlowId, Outgoing) {
        let id = FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed));
        let (sender, queue) = mpsc::channel(QUEUE);
        let octets = Arc::new(AtomicUsize::new(0));
        self.flows.insert(id, Flow { queue: sender, octets: Arc::clone(&octets) });
        (id, Outgoing { queue, octets })
    }

    /// Takes no more for a flow. What is queued is still written, then its connection is closed.
    pub(super) fn close(&self, id: FlowId) {
        self.flows.remove(&id);
    }

    /// Queues a message for a flow; false if that flow is gone.
    fn queue(&self, id: FlowId, bytes: &Bytes, ticket: Option<Ticket>) -> bool {
        let Some(flow) = self.flows.get(&id).map(|flow| flow.clone()) else { return false };
        let waiting = flow.octets.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting > QUEUE_OCTETS || flow.queue.try_send((bytes.clone(), ticket)).is_err() {
            tracing::warn!(flow = id.0, octets = waiting, "a peer does not read; its connection is closed");
            self.close(id);
            return false;
        }
        true
    }
}

/// What is queued for one connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: mpsc::Receiver<(Bytes, Option<Ticket>)>,
    octets: Arc<AtomicUsize>,
}

impl Outgoing {
    /// Writes what is queued until the flow is closed or the peer gone; says so for every message that is not written.
    pub(super) async fn write_to(mut self, shared: &Shared, id: FlowId, mut socket: OwnedWriteHalf) {
        let mut chunk = Vec::with_capacity(16 * 1024);
        let mut tickets = Vec::new();
        let mut messages = Vec::new();
        while self.queue.recv_many(&mut messages, 64).await > 0 {
            chunk.clear();
            tickets.clear();
            for (bytes, ticket) in messages.drain(..) {
                chunk.extend_from_slice(&bytes);
                tickets.push(ticket);
            }
            self.octets.fetch_sub(chunk.len(), Ordering::Relaxed);
            let written = tokio::time::timeout(PATIENCE, socket.write_all(&chunk)).await;
            if !matches!(written, Ok(Ok(()))) {
                tickets.drain(..).for_each(|ticket| shared.report(ticket));
                break;
            }
        }
        shared.close(id);
        // Says goodbye; a peer that is gone already does not mind.
        let _ = socket.shutdown().await;
        self.give_up(shared);
    }

    /// Reports everything that is still queued as not sent.
    fn give_up(mut self, shared: &Shared) {
        self.queue.close();
        while let Ok((_, ticket)) = self.queue.try_recv() {
            shared.report(ticket);
        }
    }
}

/// One thread's way to send.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    /// This thread's sockets, by listener; none for stream listeners.
    datagrams: Arc<[Option<Arc<Datagrams>>]>,
    /// Where connections that we open are handed to, to be read from.
    connected: mpsc::UnboundedSender<Connection>,
}

impl Hub {
    /// A hub that sends datagrams from these sockets and hands the connections that it opens to `connected`.
    pub fn new(
        shared: Arc<Shared>,
        datagrams: Vec<Option<Arc<Datagrams>>>,
        connected: mpsc::UnboundedSender<Connection>,
    ) -> Hub {
        Hub { shared, datagrams: datagrams.into(), connected }
    }

    /// Sends a packet, or reports its ticket.
    pub async fn send(&self, packet: Packet) {
        let Packet { to, bytes, ticket } = packet;
        match to {
            Destination::Datagram { listener, peer } => match self.datagrams.get(listener.0 as usize) {
                Some(Some(socket)) => socket.send(&bytes, peer).await,
                _ => self.shared.report(ticket),
            },
            Destination::Flow { flow, otherwise } => {
                if !self.shared.queue(flow, &bytes, ticket) {
                    match otherwise {
                        Some((listener, peer)) => self.send_connected(listener, peer, &bytes, ticket),
                        None => self.shared.report(ticket),
                    }
                }
            }
            Destination::Connection { listener, peer } => self.send_connected(listener, peer, &bytes, ticket),
        }
    }

    /// Sends over a connection to `peer`, opening one where there is none. Nobody waits for it to open.
    fn send_connected(&self, listener: ListenerNo, peer: SocketAddr, bytes: &Bytes, ticket: Option<Ticket>) {
        let key = (listener, peer);
        let known = self.shared.opened.get(&key).map(|id| *id);
        if known.is_some_and(|id| self.shared.queue(id, bytes, ticket)) {
            return;
        }
        let Some(permit) = self.shared.permit() else { return self.shared.report(ticket) };
        let (id, outgoing) = self.shared.register();
        self.shared.opened.insert(key, id);
        self.shared.queue(id, bytes, ticket);
        let (shared, connected) = (Arc::clone(&self.shared), self.connected.clone());
        tokio::spawn(async move {
            match open(peer).await {
                Ok(stream) => {
                    let (reading, writing) = stream.into_split();
                    // The receiver is gone only while the server stops.
                    let _ = connected.send(Connection::new(id, listener, peer, reading, Arc::clone(&shared)));
                    outgoing.write_to(&shared, id, writing).await;
                }
                Err(e) => {
                    tracing::debug!(%peer, error = %e, "no connection");
                    shared.close(id);
                    outgoing.give_up(&shared);
                }
            }
            shared.opened.remove_if(&key, |_, known| *known == id);
            drop(permit);
        });
    }
}

async fn open(peer: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(peer)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

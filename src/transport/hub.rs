//! The hub: one place to send from, over whatever socket or connection a packet needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;

use super::counts::{DatagramCounts, DatagramStats, Stats, StreamStats, Streams, place, traffic};
use super::door::{self, Passage, Writing};
use super::frames::Frames;
use super::order::{Admission, IsLatest, Order};
use super::outgoing::{Queue, QueueError};
use super::room::{Permit, Places, Room};
use super::{Connection, Datagrams, Destination, FlowId, Listener, ListenerNo, Packet, Remote, Source, Ticket, Tls};
use crate::capture::Tap;
use crate::count::one_more;
use crate::per_thread::PerThread;
use crate::seldom::Seldom;
use crate::sip::Transport;

/// A network that stops stops for many.
static NOT_READING: Seldom = Seldom::new();
/// How long a connection may take to open: the first packet may be lost twice. Somebody's lamp is waiting.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// What all threads share: the connections, and where failures are reported.
#[derive(Debug)]
pub struct Shared {
    flows: DashMap<FlowId, Flow>,
    /// Connections that we opened, to be used again.
    opened: DashMap<Remote, FlowId>,
    next_flow: AtomicU64,
    places: Arc<Places>,
    /// For the connections over TLS that we open.
    tls: Option<Arc<Tls>>,
    failures: mpsc::UnboundedSender<Ticket>,
    order: Order,
    /// Where copies of all messages go, if they do.
    tap: Option<Arc<Tap>>,
    counts: PerThread<Streams>,
    datagrams: Mutex<Vec<Arc<DatagramCounts>>>,
    not_reading: AtomicU64,
}

#[derive(Clone, Debug)]
struct Flow {
    queue: Arc<Queue>,
    transport: Transport,
    listener: ListenerNo,
    peer: SocketAddr,
}

impl Flow {
    /// A WebSocket: every message goes into a frame.
    fn is_framed(&self) -> bool {
        matches!(self.transport, Transport::Ws | Transport::Wss)
    }
}

impl Shared {
    /// Connections for which there is `room`; tickets of what cannot be sent go to `failures`. At most one NOTIFY of each
    /// subscription is under way, so that channel is as bounded as the table is.
    pub fn new(
        room: Room,
        tls: Option<Arc<Tls>>,
        tap: Option<Arc<Tap>>,
        failures: mpsc::UnboundedSender<Ticket>,
        is_latest: IsLatest,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            flows: DashMap::new(),
            opened: DashMap::new(),
            next_flow: AtomicU64::new(1),
            places: Places::of(room),
            tls,
            failures,
            order: Order::new(is_latest),
            tap,
            counts: PerThread::default(),
            datagrams: Mutex::default(),
            not_reading: AtomicU64::new(0),
        })
    }

    /// What is counted of the connections of a transport, by this thread.
    pub(super) fn passing(&self, transport: Transport) -> &super::counts::Passing {
        &self.counts.mine()[place(transport)]
    }

    /// A message has come: it is copied, if all is to be.
    pub fn came(&self, source: Source, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.came(source.listener.0, source.peer, bytes);
        }
    }

    /// Has the numbers of a datagram socket added to those of the others.
    pub fn watch(&self, socket: &Datagrams) {
        self.datagrams.lock().push(Arc::clone(socket.counts()));
    }

    /// What has passed the sockets, and what waits there.
    pub fn stats(&self) -> Stats {
        let mut streams = StreamStats {
            traffic: std::array::from_fn(|transport| traffic(&self.counts, transport)),
            refused: self.places.refused(),
            not_reading: self.not_reading.load(Ordering::Relaxed),
            superseded: self.order.superseded(),
            ..StreamStats::default()
        };
        for flow in &self.flows {
            let octets = flow.queue.waiting();
            streams.open[place(flow.transport)] += 1;
            streams.waiting += flow.queue.messages();
            streams.waiting_octets += octets;
            streams.waiting_octets_most = streams.waiting_octets_most.max(octets);
        }
        let datagrams = DatagramStats::of(self.datagrams.lock().iter().map(Arc::as_ref));
        Stats { datagrams, streams }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.places.open()
    }

    /// The connections that there may be.
    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    fn report(&self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            // Nobody listens any more only while the server stops.
            let _ = self.failures.send(ticket);
        }
    }

    /// Makes a flow known, and what will wait for it.
    pub(super) fn register(
        &self,
        transport: Transport,
        listener: ListenerNo,
        peer: SocketAddr,
        permit: &Permit,
    ) -> (FlowId, Arc<Queue>) {
        let id = FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(Queue::new(permit.budgets()));
        self.flows.insert(id, Flow { queue: Arc::clone(&queue), transport, listener, peer });
        (id, queue)
    }

    /// Writes what is queued for a flow until it is closed or the peer gone; reports every NOTIFY that is not written.
    pub(super) async fn write(&self, id: FlowId, transport: Transport, queue: &Queue, mut socket: Writing) {
        let left = |messages, octets| self.passing(transport).left(messages, octets);
        let unsent = queue.write_to(&mut socket, left).await;
        self.close(id);
        unsent.into_iter().for_each(|ticket| self.report(Some(ticket)));
    }

    /// Takes no more for a flow. What is queued is still written, then its connection is closed.
    pub(super) fn close(&self, id: FlowId) {
        if let Some((_, flow)) = self.flows.remove(&id) {
            flow.queue.close();
        }
    }

    /// Queues a message for a flow; false if that flow is gone.
    fn queue(&self, id: FlowId, bytes: &Bytes, ticket: Option<Ticket>) -> bool {
        let Some(flow) = self.flows.get(&id).map(|flow| flow.clone()) else { return false };
        if let Some(tap) = &self.tap {
            tap.left(flow.listener.0, flow.peer, bytes);
        }
        let bytes = if flow.is_framed() { &Frames::wrap(bytes) } else { bytes };
        self.push(id, &flow, bytes, ticket)
    }

    /// Queues what is no message: keep-alives, and other frames of a WebSocket.
    pub(super) fn queue_octets(&self, id: FlowId, octets: &[u8]) {
        if let Some(flow) = self.flows.get(&id).map(|flow| flow.clone()) {
            self.push(id, &flow, octets, None);
        }
    }

    fn push(&self, id: FlowId, flow: &Flow, bytes: &[u8], ticket: Option<Ticket>) -> bool {
        match flow.queue.push(bytes, ticket) {
            Ok(()) => true,
            Err(QueueError::Closed) => false,
            Err(QueueError::Full(octets)) => {
                if let Some(more) = NOT_READING.may_say() {
                    let peer = flow.peer;
                    tracing::warn!(%peer, octets, more, "a peer does not read; its connection is closed");
                }
                one_more(&self.not_reading);
                self.close(id);
                false
            }
        }
    }
}

/// One thread's way to send.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    /// This thread's sockets, by listener; none for stream listeners.
    datagrams: Arc<[Option<Arc<Datagrams>>]>,
    listeners: Arc<[Listener]>,
    /// Where connections that we open are handed to, to be read from.
    connected: mpsc::UnboundedSender<Connection>,
}

impl Hub {
    /// A hub that sends datagrams from these sockets and hands the connections that it opens to `connected`.
    pub fn new(
        shared: Arc<Shared>,
        datagrams: Vec<Option<Arc<Datagrams>>>,
        listeners: Vec<Listener>,
        connected: mpsc::UnboundedSender<Connection>,
    ) -> Hub {
        Hub { shared, datagrams: datagrams.into(), listeners: listeners.into(), connected }
    }

    /// What it shares with the other threads.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Sends packets in order, or reports the tickets of those that cannot be sent. Takes them all out.
    pub async fn send_all(&self, packets: &mut Vec<Packet>) {
        let mut rest = packets.as_slice();
        while let Some(packet) = rest.first() {
            let run = match &packet.to {
                Destination::Datagram { listener, .. } => {
                    let alike = |next: &&Packet| matches!(&next.to, Destination::Datagram { listener: no, .. } if no == listener);
                    let run = rest.iter().take_while(alike).count();
                    match self.datagrams.get(listener.0 as usize) {
                        Some(Some(socket)) => {
                            socket.send_all(&rest[..run], &self.shared.order, |packet| self.copy(packet)).await;
                        }
                        _ => rest[..run].iter().for_each(|packet| self.shared.report(packet.ticket)),
                    }
                    run
                }
                _ => {
                    self.send_over_connection(packet);
                    1
                }
            };
            rest = &rest[run..];
        }
        packets.clear();
    }

    /// Has a datagram copied, if all is to be.
    fn copy(&self, packet: &Packet) {
        if let (Some(tap), Destination::Datagram { listener, peer }) = (&self.shared.tap, &packet.to) {
            tap.left(listener.0, *peer, &packet.bytes);
        }
    }

    /// Queues a message for its connection. Those of one dialog are queued in their order.
    fn send_over_connection(&self, packet: &Packet) {
        let Packet { to, bytes, ticket } = packet;
        let mut turn = self.shared.order.turn();
        if turn.admit(*ticket) != Admission::Leaves {
            return;
        }
        match to {
            Destination::Flow { flow, .. } if self.shared.queue(*flow, bytes, *ticket) => {}
            Destination::Flow { otherwise: Some(remote), .. } | Destination::Connection(remote) => {
                self.send_connected(remote.clone(), bytes, *ticket);
            }
            Destination::Flow { otherwise: None, .. } | Destination::Datagram { .. } => self.shared.report(*ticket),
        }
    }

    /// Sends over a connection of ours, opening one where there is none. Nobody waits for it to open.
    fn send_connected(&self, remote: Remote, bytes: &Bytes, ticket: Option<Ticket>) {
        let Remote { listener, peer, .. } = remote;
        let known = self.shared.opened.get(&remote).map(|id| *id);
        if known.is_some_and(|id| self.shared.queue(id, bytes, ticket)) {
            return;
        }
        let transport = self.listeners.get(listener.0 as usize).map_or(Transport::Tcp, |listener| listener.transport);
        let Some(permit) = self.shared.places.permit_to(peer.ip()) else { return self.shared.report(ticket) };
        let (id, queue) = self.shared.register(transport, listener, peer, &permit);
        self.shared.opened.insert(remote.clone(), id);
        self.shared.queue(id, bytes, ticket);
        let (shared, connected) = (Arc::clone(&self.shared), self.connected.clone());
        tokio::spawn(async move {
            let opened = tokio::time::timeout(OPEN_WITHIN, open(transport, &remote, shared.tls.as_deref())).await;
            match opened.unwrap_or_else(|late| Err(late.into())) {
                Ok((passage, writing)) => {
                    let source = Source { transport, listener, peer, flow: Some(id), certified: passage.certified };
                    let connection = Connection::new(source, passage, Arc::clone(&queue), Arc::clone(&shared));
                    // The receiver is gone only while the server stops.
                    let _ = connected.send(connection);
                    shared.write(id, transport, &queue, writing).await;
                }
                Err(e) => {
                    tracing::debug!(%peer, error = %e, "no connection");
                    shared.close(id);
                    queue.give_up().into_iter().for_each(|ticket| shared.report(Some(ticket)));
                }
            }
            shared.opened.remove_if(&remote, |_, known| *known == id);
            drop(permit);
        });
    }
}

/// Opens a connection. What was to go over TLS goes over TLS or not at all.
async fn open(transport: Transport, remote: &Remote, tls: Option<&Tls>) -> io::Result<(Passage, Writing)> {
    let tls = tls.and_then(Tls::connector);
    if !matches!((transport, &tls), (Transport::Tcp, _) | (Transport::Tls, Some(_))) {
        return Err(io::Error::other("no connections of this transport are opened (over TLS: without tls.server_ca)"));
    }
    let stream = tokio::net::TcpStream::connect(remote.peer).await?;
    stream.set_nodelay(true)?;
    match tls.filter(|_| transport == Transport::Tls) {
        Some(tls) => {
            let name = match &remote.name {
                Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
                None => ServerName::IpAddress(remote.peer.ip().to_canonical().into()),
            };
            Ok(door::sealed(tls.connect(name, stream).await?))
        }
        None => Ok(door::plain(stream)),
    }
}

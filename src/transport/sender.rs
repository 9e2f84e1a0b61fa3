//! Sending of messages over any transport, and the table of open connections.

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

use super::handshake::{self, BoxWriter, ReadHalf};
use super::limits::{ConnectionLimiter, ConnectionLimits, Permit};
use super::metrics::{DatagramCounts, DatagramStats, Stats, StreamStats, Streams, place, traffic};
use super::order::{IsLatest, NotifyOrder, SendDecision};
use super::outgoing::{Queue, QueueError};
use super::websocket_codec::WebSocketCodec;
use super::{
    BatchUdpSocket, Connection, DeliveryToken, Destination, FlowId, Listener, ListenerId, OutboundMessage, Remote,
    Source, Tls,
};
use crate::capture::Capture;
use crate::sip::Transport;
use crate::util::counters::increment;
use crate::util::log_limit::LogLimiter;
use crate::util::per_thread::PerThread;

/// Log limiter: a network failure stops many peers at once.
static NOT_READING: LogLimiter = LogLimiter::new();
/// Timeout of connecting. It allows for two lost SYNs, which are repeated after 1 s and 3 s; a NOTIFY waits meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// State that all threads share: open connections, counters, and the channel for failed deliveries.
#[derive(Debug)]
pub struct ConnectionTable {
    flows: DashMap<FlowId, Flow>,
    /// Connections that the server opened, for reuse.
    opened: DashMap<Remote, FlowId>,
    next_flow: AtomicU64,
    places: Arc<ConnectionLimiter>,
    /// TLS settings for connections that the server opens.
    tls: Option<Arc<Tls>>,
    failures: mpsc::UnboundedSender<DeliveryToken>,
    order: NotifyOrder,
    /// Capture of all messages for a HEP server, if configured.
    tap: Option<Arc<Capture>>,
    counts: PerThread<Streams>,
    datagrams: Mutex<Vec<Arc<DatagramCounts>>>,
    not_reading: AtomicU64,
}

#[derive(Clone, Debug)]
struct Flow {
    queue: Arc<Queue>,
    transport: Transport,
    listener: ListenerId,
    peer: SocketAddr,
}

impl Flow {
    /// Returns true for a WebSocket, where each message is sent in a frame.
    fn is_framed(&self) -> bool {
        matches!(self.transport, Transport::Ws | Transport::Wss)
    }
}

impl ConnectionTable {
    /// Creates the table of connections with the limits in `room`. The tickets of messages that cannot be sent go to
    /// `failures`. That channel needs no limit of its own: at most one NOTIFY of each subscription is in flight.
    /// `is_latest` tells whether a NOTIFY is still the newest of its dialog.
    pub fn new(
        room: ConnectionLimits,
        tls: Option<Arc<Tls>>,
        tap: Option<Arc<Capture>>,
        failures: mpsc::UnboundedSender<DeliveryToken>,
        is_latest: IsLatest,
    ) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            flows: DashMap::new(),
            opened: DashMap::new(),
            next_flow: AtomicU64::new(1),
            places: ConnectionLimiter::of(room),
            tls,
            failures,
            order: NotifyOrder::new(is_latest),
            tap,
            counts: PerThread::default(),
            datagrams: Mutex::default(),
            not_reading: AtomicU64::new(0),
        })
    }

    /// Counters of a stream transport that belong to the current thread.
    pub(super) fn passing(&self, transport: Transport) -> &super::metrics::StreamCounters {
        &self.counts.mine()[place(transport)]
    }

    /// Records a received message: it is copied to the capture server, if one is configured.
    pub fn on_received(&self, source: Source, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.on_received(source.listener.0, source.peer, bytes);
        }
    }

    /// Registers a UDP socket, so that its counters are part of [`ConnectionTable::stats`].
    pub fn watch(&self, socket: &BatchUdpSocket) {
        self.datagrams.lock().push(Arc::clone(socket.counts()));
    }

    /// Statistics of all sockets: traffic, and what waits in queues.
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

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.places.open()
    }

    /// Connection limits, and how much of them is in use.
    pub(super) fn places(&self) -> &Arc<ConnectionLimiter> {
        &self.places
    }

    fn report(&self, ticket: Option<DeliveryToken>) {
        if let Some(ticket) = ticket {
            // The receiver is gone only while the server stops.
            let _ = self.failures.send(ticket);
        }
    }

    /// Registers a connection; returns its identifier and its write queue.
    pub(super) fn register(
        &self,
        transport: Transport,
        listener: ListenerId,
        peer: SocketAddr,
        permit: &Permit,
    ) -> (FlowId, Arc<Queue>) {
        let id = FlowId(self.next_flow.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(Queue::new(permit.budgets()));
        self.flows.insert(id, Flow { queue: Arc::clone(&queue), transport, listener, peer });
        (id, queue)
    }

    /// Writes the queue of a connection until that is closed or the peer has closed. Reports the ticket of every NOTIFY
    /// that could not be written.
    pub(super) async fn write(&self, id: FlowId, transport: Transport, queue: &Queue, mut socket: BoxWriter) {
        let left = |messages, octets| self.passing(transport).left(messages, octets);
        let unsent = queue.write_to(&mut socket, left).await;
        self.close(id);
        unsent.into_iter().for_each(|ticket| self.report(Some(ticket)));
    }

    /// Closes a connection for new messages. Messages in its queue are still written, then it is closed.
    pub(super) fn close(&self, id: FlowId) {
        if let Some((_, flow)) = self.flows.remove(&id) {
            flow.queue.close();
        }
    }

    /// Queues a message for a connection. Returns false if the connection is closed.
    fn queue(&self, id: FlowId, bytes: &Bytes, ticket: Option<DeliveryToken>) -> bool {
        let Some(flow) = self.flows.get(&id).map(|flow| flow.clone()) else { return false };
        if let Some(tap) = &self.tap {
            tap.left(flow.listener.0, flow.peer, bytes);
        }
        let bytes = if flow.is_framed() { &WebSocketCodec::encode(bytes) } else { bytes };
        self.push(id, &flow, bytes, ticket)
    }

    /// Queues octets that are not a SIP message: keep-alives and WebSocket control frames.
    pub(super) fn queue_octets(&self, id: FlowId, octets: &[u8]) {
        if let Some(flow) = self.flows.get(&id).map(|flow| flow.clone()) {
            self.push(id, &flow, octets, None);
        }
    }

    fn push(&self, id: FlowId, flow: &Flow, bytes: &[u8], ticket: Option<DeliveryToken>) -> bool {
        match flow.queue.push(bytes, ticket) {
            Ok(()) => true,
            Err(QueueError::Closed) => false,
            Err(QueueError::Full(octets)) => {
                if let Some(more) = NOT_READING.check() {
                    let peer = flow.peer;
                    tracing::warn!(%peer, octets, more, "closing connection: peer is not reading");
                }
                increment(&self.not_reading);
                self.close(id);
                false
            }
        }
    }
}

/// Sender of one thread: sends messages over UDP sockets and connections.
#[derive(Clone, Debug)]
pub struct SipSender {
    shared: Arc<ConnectionTable>,
    /// UDP sockets of this thread, by listener; none for stream listeners.
    datagrams: Arc<[Option<Arc<BatchUdpSocket>>]>,
    listeners: Arc<[Listener]>,
    /// Channel for connections that the server opens; the receiver reads from them.
    connected: mpsc::UnboundedSender<Connection>,
}

impl SipSender {
    /// Creates a sender that uses these UDP sockets. Connections that it opens go to `connected`.
    pub fn new(
        shared: Arc<ConnectionTable>,
        datagrams: Vec<Option<Arc<BatchUdpSocket>>>,
        listeners: Vec<Listener>,
        connected: mpsc::UnboundedSender<Connection>,
    ) -> SipSender {
        SipSender { shared, datagrams: datagrams.into(), listeners: listeners.into(), connected }
    }

    /// State that is shared with the other threads.
    pub fn shared(&self) -> &ConnectionTable {
        &self.shared
    }

    /// Sends packets in order and empties the list. Reports the tickets of those that cannot be sent.
    pub async fn send_all(&self, packets: &mut Vec<OutboundMessage>) {
        let mut rest = packets.as_slice();
        while let Some(packet) = rest.first() {
            let run = match &packet.to {
                Destination::Datagram { listener, .. } => {
                    let alike = |next: &&OutboundMessage| matches!(&next.to, Destination::Datagram { listener: no, .. } if no == listener);
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

    /// Copies a datagram to the capture server, if one is configured.
    fn copy(&self, packet: &OutboundMessage) {
        if let (Some(tap), Destination::Datagram { listener, peer }) = (&self.shared.tap, &packet.to) {
            tap.left(listener.0, *peer, &packet.bytes);
        }
    }

    /// Queues a message for its connection. The lane of its dialog is held, so that NOTIFYs of one dialog are queued in
    /// the order of their CSeq.
    fn send_over_connection(&self, packet: &OutboundMessage) {
        let OutboundMessage { to, bytes, ticket } = packet;
        let mut turn = self.shared.order.turn();
        if turn.admit(*ticket) != SendDecision::Leaves {
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

    /// Sends over a connection that the server opens, or reuses if it is open. The message waits in its queue; the
    /// caller does not wait for the connection.
    fn send_connected(&self, remote: Remote, bytes: &Bytes, ticket: Option<DeliveryToken>) {
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
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(transport, &remote, shared.tls.as_deref())).await;
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

/// Opens a connection. There is no fallback from TLS to TCP.
async fn open(transport: Transport, remote: &Remote, tls: Option<&Tls>) -> io::Result<(ReadHalf, BoxWriter)> {
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
            Ok(handshake::sealed(tls.connect(name, stream).await?))
        }
        None => Ok(handshake::plain(stream)),
    }
}

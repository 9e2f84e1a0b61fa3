//! Network addresses of messages as plain values: source, destination, listener, connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::sip::Transport;

/// Identifier of a listener: an index into the configured listen addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// Identifier of a connection of a stream transport; never reused, and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(pub u64);

/// Address by which limits per address count: an IPv4 address, or the /64 of an IPv6 address, because one host commonly
/// owns a whole /64.
pub fn limited_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Source of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Transport that the message was received over.
    pub transport: Transport,
    /// Listener that received the message.
    pub listener: ListenerId,
    /// Address of the sender: a phone, or the last proxy.
    pub peer: SocketAddr,
    /// Connection of the message; none for UDP.
    pub flow: Option<FlowId>,
    /// True if the peer presented a certificate that `tls.client_ca` has issued.
    pub certified: bool,
}

impl Source {
    /// Returns true if the message was received over a connection.
    pub fn is_stream(&self) -> bool {
        self.transport != Transport::Udp
    }

    /// Returns true if the last hop was encrypted (TLS or WSS).
    pub fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Wss)
    }
}

/// Compact form of [`Source`]: every subscription stores one, and nearly all are UDP over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSource(Packed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Packed {
    Datagram { ip: Ipv4Addr, port: u16, listener: ListenerId },
    Other(Box<Source>),
}

impl From<Source> for PackedSource {
    fn from(source: Source) -> PackedSource {
        PackedSource(match source {
            Source {
                transport: Transport::Udp,
                listener,
                peer: SocketAddr::V4(peer),
                flow: None,
                certified: false,
            } => Packed::Datagram { ip: *peer.ip(), port: peer.port(), listener },
            other => Packed::Other(Box::new(other)),
        })
    }
}

impl From<&PackedSource> for Source {
    fn from(packed: &PackedSource) -> Source {
        match &packed.0 {
            Packed::Datagram { ip, port, listener } => Source {
                transport: Transport::Udp,
                listener: *listener,
                peer: SocketAddr::from((*ip, *port)),
                flow: None,
                certified: false,
            },
            Packed::Other(source) => **source,
        }
    }
}

/// Remote end of a connection that the server opens, or reuses if it is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Listener that gives the transport (TCP or TLS) and our address for Via and Contact.
    pub listener: ListenerId,
    /// Address that the remote end listens on.
    pub peer: SocketAddr,
    /// Host name that the certificate of the remote end must contain: the host of the URI, not a name that the DNS led
    /// to (RFC 5922 section 7.2). If none, the certificate must contain the address. Set for TLS only, so that one TCP
    /// connection is shared by all names that lead to its address.
    pub name: Option<Arc<str>>,
}

/// Destination of a message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A datagram, sent from the socket of a listener.
    Datagram {
        /// Listener to send from.
        listener: ListenerId,
        /// Address to send to.
        peer: SocketAddr,
    },
    /// An open connection; if it is closed, a new one to `otherwise`.
    Flow {
        /// Open connection.
        flow: FlowId,
        /// Remote end to connect to if the connection is closed; none if only this connection will do.
        otherwise: Option<Remote>,
    },
    /// A connection that the server opens, or has opened before.
    Connection(Remote),
}

impl Destination {
    /// Returns true if a message either arrives or the connection fails, so that no retransmission is needed.
    pub fn is_reliable(&self) -> bool {
        !matches!(self, Destination::Datagram { .. })
    }
}

/// Listener with the address that it announces to peers.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Transport.
    pub transport: Transport,
    /// Address that the socket is bound to.
    pub address: SocketAddr,
    /// `host:port` for our Via and Contact headers.
    pub sent_by: Box<str>,
}

/// Token that is returned if a message cannot be sent. Only the sender of the message knows its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryToken(pub u128);

/// Message to send.
#[derive(Clone, Debug)]
pub struct OutboundMessage {
    /// Destination.
    pub to: Destination,
    /// Message as it goes on the wire.
    pub bytes: bytes::Bytes,
    /// Token to return if the message cannot be sent; none if the sender need not know.
    pub ticket: Option<DeliveryToken>,
}

//! Where messages come from and go to, as plain values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::sip::Transport;

/// Names a listener: an index into the configured listen addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerNo(pub u8);

/// Names a connection of a stream transport; never used twice, and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(pub u64);

/// What counts as one address wherever something is limited by address: an IPv4 address, or the /64 of an IPv6 address,
/// for one host commonly has all of it.
pub fn limited_as(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// The way that a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its transport.
    pub transport: Transport,
    /// The listener that it came to.
    pub listener: ListenerNo,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The connection that it came on, where there are connections.
    pub flow: Option<FlowId>,
    /// Its connection showed a certificate of `tls.client_ca`.
    pub certified: bool,
}

impl Source {
    /// Whether it came on a connection.
    pub fn is_stream(&self) -> bool {
        self.transport != Transport::Udp
    }

    /// Whether nobody between its last hop and us could read it.
    pub fn is_secure(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Wss)
    }
}

/// A [`Source`] in little room: every subscription has one, and by far the most come by datagrams over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedSource(Packed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Packed {
    Datagram { ip: Ipv4Addr, port: u16, listener: ListenerNo },
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

/// The far end of a connection to be opened, or used again if one is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// The listener whose name the connection goes by, and whose transport it has: TCP or TLS.
    pub listener: ListenerNo,
    /// Where it listens.
    pub peer: SocketAddr,
    /// The host that its certificate has to name, which is the one of the URI and not what the DNS made of it (RFC 5922
    /// section 7.2); without one, the address. Only for TLS, so that TCP connections are shared whatever led to them.
    pub name: Option<Arc<str>>,
}

/// The way that a message is to go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A datagram from a listener's socket.
    Datagram {
        /// The listener.
        listener: ListenerNo,
        /// The receiver.
        peer: SocketAddr,
    },
    /// An open connection; when it is gone, a new one to `otherwise`.
    Flow {
        /// The connection.
        flow: FlowId,
        /// Where to connect to when it is gone.
        otherwise: Option<Remote>,
    },
    /// A connection of our own.
    Connection(Remote),
}

impl Destination {
    /// Whether what is sent arrives or breaks the connection, so that nothing needs repeating.
    pub fn is_reliable(&self) -> bool {
        !matches!(self, Destination::Datagram { .. })
    }
}

/// A listener as peers see it.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// The address that it listens on.
    pub address: SocketAddr,
    /// `host:port` for our Via and Contact.
    pub sent_by: Box<str>,
}

/// Comes back when a packet could not be sent; what it means is up to whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u128);

/// One message to send.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where it goes.
    pub to: Destination,
    /// The message.
    pub bytes: bytes::Bytes,
    /// To be given back if it cannot be sent.
    pub ticket: Option<Ticket>,
}

//! Sockets: UDP, connections (TCP, TLS, WebSocket), and sending over any of them.
//!
//! Input: octets from the network, and [`OutboundMessage`]s to send. Output: messages with their [`Source`], and the tickets of
//! packets that could not be sent. The module does not parse messages; `sip::wire` only tells it where a message in a
//! stream ends. Everything is limited: connections, queues, and the time of a handshake or a partial message.
//!
//! An accepted connection passes the handshake of its listener (see [`Handshaker`]), which gives a reading and a writing
//! half. From there on all transports are handled alike.

mod accept;
pub mod address;
mod certificate_name;
mod connection;
mod handshake;
mod limits;
mod metrics;
mod order;
mod outgoing;
mod sender;
pub mod settings;
mod tls;
mod token_bucket;
mod udp;
mod websocket_codec;
mod websocket_handshake;

pub use accept::Acceptor;
pub use address::{
    DeliveryToken, Destination, FlowId, Listener, ListenerId, OutboundMessage, PackedSource, Remote, Source, limited_as,
};
pub use connection::{Connection, ConnectionEvent};
pub use handshake::Handshaker;
pub use limits::ConnectionLimits;
pub(crate) use metrics::place;
pub use metrics::{DatagramCounts, DatagramStats, KernelQueue, Stats, StreamStats, TRANSPORTS, Traffic};
pub use order::{IsLatest, NotifyOrder};
pub use sender::{ConnectionTable, SipSender};
pub use tls::{Tls, TlsError, TlsFile, TlsIdentity};
pub use udp::{BATCH, BatchUdpSocket};

/// Size of the kernel's socket buffers (octets): enough for the responses to a large fan-out while the thread is busy.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Checks that no other socket uses a listen address. The I/O threads share an address (SO_REUSEPORT), which would also
/// succeed beside another server; the kernel would then give each of the two half of the phones. So the address is
/// first bound without sharing.
///
/// # Errors
/// If the address is in use or cannot be bound.
pub fn is_free(address: std::net::SocketAddr, transport: crate::sip::Transport) -> std::io::Result<()> {
    match transport {
        crate::sip::Transport::Udp => std::net::UdpSocket::bind(address).map(drop),
        _ => std::net::TcpListener::bind(address).map(drop),
    }
}

/// Creates a listening socket that shares its address with those of the other I/O threads.
fn listening_socket(address: std::net::SocketAddr, kind: socket2::Type) -> std::io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == socket2::Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

//! Sockets: datagrams, connections (TCP, TLS, WebSocket), and the hub that sends over either.
//!
//! In flow bytes from the network and [`Packet`]s to send; out flow received bytes with their [`Source`], and the
//! tickets of packets that could not be sent. What the bytes mean is not known here; only where a message ends in a
//! stream is asked of `sip::wire`. Everything is bounded: connections, queues, the time that half a message or a handshake
//! may take.
//!
//! A connection comes in through the [`Door`] of its listener, which leaves two boxed halves; from there on all are alike.

mod accept;
pub mod address;
mod allowance;
mod connection;
mod counts;
mod door;
mod frames;
mod hub;
mod order;
mod outgoing;
mod peer_name;
mod room;
mod tls;
mod udp;
mod upgrade;

pub use accept::Acceptor;
pub use address::{
    Destination, FlowId, Listener, ListenerNo, PackedSource, Packet, Remote, Source, Ticket, limited_as,
};
pub use connection::{Arrival, Connection};
pub(crate) use counts::place;
pub use counts::{DatagramCounts, DatagramStats, KernelQueue, Stats, StreamStats, TRANSPORTS, Traffic};
pub use door::Door;
pub use hub::{Hub, Shared};
pub use order::{IsLatest, Order};
pub use room::Room;
pub use tls::{Tls, TlsError, TlsFile, TlsIdentity};
pub use udp::{BATCH, Datagrams};

/// Room in the kernel for what arrives while we are busy (octets): a fan-out's worth of answers.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Whether an address is free. Sockets that share an address would share it with another server as well, and each
/// would get half of the phones; so this is asked first, with a socket that does not share.
pub fn is_free(address: std::net::SocketAddr, transport: crate::sip::Transport) -> std::io::Result<()> {
    match transport {
        crate::sip::Transport::Udp => std::net::UdpSocket::bind(address).map(drop),
        _ => std::net::TcpListener::bind(address).map(drop),
    }
}

/// A socket for listening, sharing its address with those of the other I/O threads.
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

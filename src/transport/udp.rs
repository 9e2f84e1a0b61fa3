//! Datagram sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::{ListenerNo, Source, listening_socket};
use crate::sip::Transport;
use crate::sip::wire::MAX_MESSAGE;

/// One thread's socket of a UDP listener.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    listener: ListenerNo,
}

/// How many datagrams are taken before what they cause is sent.
const BATCH: usize = 64;

impl Datagrams {
    /// Binds a socket; several may share an address.
    pub fn bind(address: SocketAddr, listener: ListenerNo) -> io::Result<Datagrams> {
        let socket = listening_socket(address, socket2::Type::DGRAM)?;
        Ok(Datagrams { socket: UdpSocket::from_std(socket.into())?, listener })
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until something has arrived, then hands over what is there, up to a batch.
    ///
    /// Errors of earlier sends that surface here (ICMP) concern one peer and are left to the timers.
    pub async fn receive(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(Source, &[u8])) -> io::Result<()> {
        buffer.resize(MAX_MESSAGE + 1, 0);
        self.socket.readable().await?;
        for _ in 0..BATCH {
            match self.socket.try_recv_from(buffer) {
                Ok((length, peer)) => {
                    let source = Source {
                        transport: Transport::Udp,
                        listener: self.listener,
                        peer,
                        flow: None,
                        certified: false,
                    };
                    each(source, &buffer[..length]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Sends a datagram, waiting while the kernel has no room for it. What cannot be sent is lost, as datagrams are.
    pub async fn send(&self, bytes: &[u8], peer: SocketAddr) {
        loop {
            match self.socket.try_send_to(bytes, peer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.socket.writable().await.is_err() {
                        return;
                    }
                }
                Err(e) => return tracing::debug!(%peer, error = %e, "a datagram could not be sent"),
                Ok(_) => return,
            }
        }
    }
}

//! UDP sockets. Datagrams are received and sent in batches, because one system call costs as much as handling a
//! message.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::order::{NotifyOrder, SendDecision};
use super::{DatagramCounts, Destination, ListenerId, OutboundMessage, Source, listening_socket};
use crate::sip::Transport;
use crate::sip::wire::MAX_MESSAGE;

/// Most datagrams that one system call receives or sends.
pub const BATCH: usize = 32;
/// Batches up to this size are taken to have emptied the kernel's queue.
const FEW: usize = 8;
/// Buffer for one datagram (octets): the largest message, and one octet more to detect larger ones. The rest keeps the
/// size from being a power of two: else the beginnings of all datagrams of a batch would share a few cache sets and
/// evict each other.
const ROOM: usize = MAX_MESSAGE + 1 + 1_088;

/// UDP socket of one thread for one listener.
#[derive(Debug)]
pub struct BatchUdpSocket {
    socket: UdpSocket,
    listener: ListenerId,
    v6: bool,
    counts: Arc<DatagramCounts>,
}

/// Buffers for receiving. Each thread has one set for all its sockets, because they are never used across an await.
///
/// recvmmsg writes the length of each address into the headers, and nix takes that for the space available in the next
/// call. So IPv4 and IPv6 have separate headers. Sending would leave pointers to freed addresses in them, so it uses
/// rustix instead.
struct Workspace {
    headers_v4: MultiHeaders<SockaddrStorage>,
    headers_v6: MultiHeaders<SockaddrStorage>,
    /// Buffers for a batch of datagrams. The system backs only those with memory that have been written to.
    octets: Box<[u8]>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace {
        headers_v4: MultiHeaders::preallocate(BATCH, None),
        headers_v6: MultiHeaders::preallocate(BATCH, None),
        octets: vec![0; BATCH * ROOM].into(),
    });
}

fn address(of: &SockaddrStorage) -> Option<SocketAddr> {
    match (of.as_sockaddr_in(), of.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::V4((*v4).into())),
        (_, Some(v6)) => Some(SocketAddr::V6((*v6).into())),
        _ => None,
    }
}

impl BatchUdpSocket {
    /// Binds the socket; several may share an address (SO_REUSEPORT).
    pub fn bind(address: SocketAddr, listener: ListenerId) -> io::Result<BatchUdpSocket> {
        let socket = listening_socket(address, socket2::Type::DGRAM)?;
        let counts = Arc::new(DatagramCounts::of(&socket, address));
        Ok(BatchUdpSocket { socket: UdpSocket::from_std(socket.into())?, listener, v6: address.is_ipv6(), counts })
    }

    /// Address that the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Counters of this socket.
    pub fn counts(&self) -> &Arc<DatagramCounts> {
        &self.counts
    }

    /// Waits until something has been received, then passes the datagrams, at most a batch, to `take`. Datagrams that
    /// `take` does not consume are lost.
    ///
    /// Errors of earlier sends that the kernel reports here (ICMP) concern one peer. They are ignored; the
    /// retransmission timers handle them.
    pub async fn receive(&self, take: impl FnOnce(&mut dyn Iterator<Item = (Source, &[u8])>)) -> io::Result<()> {
        self.socket.readable().await?;
        WORKSPACE.with_borrow_mut(|Workspace { headers_v4, headers_v6, octets }| {
            let headers = if self.v6 { headers_v6 } else { headers_v4 };
            let mut datagrams = [(0, None); BATCH];
            let mut received = 0;
            let _: io::Result<()> = self.socket.try_io(Interest::READABLE, || {
                let mut rooms = octets.chunks_exact_mut(ROOM);
                let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
                    std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
                let fd = self.socket.as_raw_fd();
                let results = recvmmsg(fd, headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
                let datagrams = datagrams.iter_mut().zip(results);
                let count = datagrams.map(|(datagram, result)| {
                    *datagram = (result.bytes, result.address.as_ref().and_then(address));
                });
                received = count.count();
                // So few datagrams mean that the queue is empty. Asking the kernel to be sure would cost one more
                // system call than waiting.
                if received <= FEW { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if received == 0 {
                return;
            }
            self.counts.took(received, datagrams[..received].iter().map(|(length, _)| length).sum());
            let filled = octets.chunks_exact(ROOM).zip(datagrams).take(received);
            take(&mut filled.filter_map(|(octets, (length, peer))| {
                let (transport, listener) = (Transport::Udp, self.listener);
                Some((Source { transport, listener, peer: peer?, flow: None, certified: false }, &octets[..length]))
            }));
        });
        Ok(())
    }

    /// Sends datagrams in order, and waits while the kernel's buffer is full. `left` is called for each datagram that
    /// was sent. A datagram that the kernel refuses is lost, as on the network. A superseded NOTIFY is not sent.
    pub async fn send_all(
        &self,
        mut packets: &[OutboundMessage],
        order: &NotifyOrder,
        left: impl Fn(&OutboundMessage),
    ) {
        while !packets.is_empty() {
            match self.socket.try_io(Interest::WRITABLE, || self.send_batch(packets, order, &left)) {
                Ok(passed) => packets = &packets[passed..],
                Err(_) => {
                    if self.socket.writable().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends the first datagrams: at most a batch, and only as far as the kernel has room and no other thread holds
    /// their lanes. Returns the number of packets that need no further attempt, which is at least one.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel has no room for any.
    fn send_batch(
        &self,
        packets: &[OutboundMessage],
        order: &NotifyOrder,
        left: impl Fn(&OutboundMessage),
    ) -> io::Result<usize> {
        let mut turn = order.turn();
        let mut batch: Vec<(usize, &OutboundMessage, SocketAddr, [IoSlice<'_>; 1])> = Vec::with_capacity(BATCH);
        let mut passed = 0;
        for (place, packet) in packets.iter().take(BATCH).enumerate() {
            let Destination::Datagram { peer, .. } = packet.to else { break };
            match turn.admit(packet.ticket) {
                SendDecision::Leaves => batch.push((place, packet, peer, [IoSlice::new(&packet.bytes)])),
                SendDecision::Superseded => {}
                SendDecision::NextTurn => break,
            }
            passed = place + 1;
        }
        if batch.is_empty() {
            return Ok(passed);
        }
        let addresses: Vec<_> = batch.iter().map(|(_, _, peer, _)| peer.as_any()).collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] = Default::default();
        let mut messages: Vec<_> = batch
            .iter()
            .zip(&addresses)
            .zip(&mut controls)
            .map(|(((_, _, _, octets), peer), control)| MMsgHdr::new_with_addr(peer, octets, control))
            .collect();
        let sent = match sendmmsg(&self.socket, &mut messages, SendFlags::DONTWAIT) {
            Ok(sent) => sent.max(1),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => return Err(error.into()),
            Err(error) => {
                let (place, packet, ..) = &batch[0];
                tracing::debug!(to = ?packet.to, %error, "a datagram could not be sent");
                self.counts.lost();
                return Ok(place + 1);
            }
        };
        self.counts.gave(sent, batch[..sent].iter().map(|(_, packet, ..)| packet.bytes.len()).sum());
        batch[..sent].iter().for_each(|(_, packet, ..)| left(packet));
        Ok(batch.get(sent).map_or(passed, |(place, ..)| *place))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Peer;

    use bytes::Bytes;

    use super::*;
    use crate::transport::DeliveryToken;

    fn any_order() -> NotifyOrder {
        NotifyOrder::new(Box::new(|_| true))
    }

    fn free(ip: &str) -> SocketAddr {
        Peer::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    /// Receives `count` datagrams; returns sender and text of each.
    async fn hear(socket: &BatchUdpSocket, count: usize) -> Vec<(SocketAddr, String)> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let take = |datagrams: &mut dyn Iterator<Item = (Source, &[u8])>| {
                heard.extend(
                    datagrams.map(|(source, octets)| (source.peer, String::from_utf8(octets.to_vec()).unwrap())),
                );
            };
            socket.receive(take).await.unwrap();
        }
        heard
    }

    #[tokio::test]
    async fn addresses_of_both_families_stay_whole_whichever_was_heard_before() {
        let ours = ["127.0.0.1", "::1"].map(|ip| BatchUdpSocket::bind(free(ip), ListenerId(0)).unwrap());
        let theirs = ["127.0.0.1", "::1"].map(|ip| Peer::bind((ip, 0)).unwrap());
        for round in 0..3 {
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let peer = theirs.local_addr().unwrap();
                theirs.send_to(format!("{round}").as_bytes(), ours.local_addr().unwrap()).unwrap();
                assert_eq!(hear(ours, 1).await, [(peer, round.to_string())]);
                let to = Destination::Datagram { listener: ListenerId(0), peer };
                let packet = OutboundMessage { to, bytes: Bytes::from(format!("back {round}")), ticket: None };
                ours.send_all(&[packet], &any_order(), |_| {}).await;
                let mut octets = [0; 100];
                let (length, from) = theirs.recv_from(&mut octets).unwrap();
                assert_eq!((&octets[..length], from), (format!("back {round}").as_bytes(), ours.local_addr().unwrap()));
            }
        }
    }

    #[tokio::test]
    async fn more_than_a_batch_goes_out_and_comes_in_in_order_and_what_cannot_be_sent_is_left_out() {
        let [here, there] = [0, 1].map(|_| BatchUdpSocket::bind(free("127.0.0.1"), ListenerId(0)).unwrap());
        let peer = there.local_addr().unwrap();
        let packet = |n: usize| {
            // Number 7 is larger than a datagram can be.
            let bytes = if n == 7 { Bytes::from(vec![b'x'; 70_000]) } else { Bytes::from(n.to_string()) };
            OutboundMessage { to: Destination::Datagram { listener: ListenerId(0), peer }, bytes, ticket: None }
        };
        let left = std::cell::Cell::new(0);
        here.send_all(&(0..100).map(packet).collect::<Vec<_>>(), &any_order(), |_| left.set(left.get() + 1)).await;
        assert_eq!(left.get(), 99);
        let heard: Vec<_> = hear(&there, 99).await.into_iter().map(|(_, text)| text).collect();
        let sent: Vec<_> = (0..100).filter(|n| *n != 7).map(|n| n.to_string()).collect();
        assert_eq!(heard, sent);
    }

    #[tokio::test]
    async fn superseded_notifies_do_not_leave_and_those_around_them_do() {
        let [here, there] = [0, 1].map(|_| BatchUdpSocket::bind(free("127.0.0.1"), ListenerId(0)).unwrap());
        let peer = there.local_addr().unwrap();
        let packet = |n: usize| {
            let to = Destination::Datagram { listener: ListenerId(0), peer };
            OutboundMessage { to, bytes: Bytes::from(n.to_string()), ticket: Some(DeliveryToken((n as u128) << 64)) }
        };
        let order = NotifyOrder::new(Box::new(|ticket| !(ticket.0 >> 64).is_multiple_of(3)));
        here.send_all(&(0..100).map(packet).collect::<Vec<_>>(), &order, |_| {}).await;
        let heard: Vec<_> = hear(&there, 66).await.into_iter().map(|(_, text)| text).collect();
        let sent: Vec<_> = (0..100).filter(|n| n % 3 != 0).map(|n| n.to_string()).collect();
        assert_eq!((heard, order.superseded()), (sent, 34));
    }
}

//! Sockets of the phones. There are many, because servers distribute their work by source address and port, and apply
//! limits per address.
//!
//! A *lane* is a socket with its queue of outgoing messages. All lanes belong to one thread, which receives and sends
//! in batches (`recvmmsg`, `sendmmsg`): a generator that needs as much CPU as the server would measure itself.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use nix::sys::time::TimeSpec;
use socket2::{Domain, SockRef, Socket, Type};

/// Datagrams received or sent by one system call.
const BATCH: usize = 32;
/// Buffer for one datagram (octets). A larger one is truncated and counts as unreadable; no valid document comes near
/// this.
const ROOM: usize = 8 * 1024;
/// Kernel buffer of a socket (octets): a fan-out arrives faster than one thread can read it.
const KERNEL_BUFFER: usize = 4 << 20;
/// Waits of at least this length may be wrong by a millisecond (ns).
const COARSE: u64 = 10_000_000;
/// Lanes for which one call asks for readiness.
const EVENTS: usize = 256;

/// A socket and its outgoing queue.
#[derive(Debug)]
pub(super) struct Lane {
    socket: UdpSocket,
    /// Local address as it stands in Via and Contact.
    pub(super) name: String,
    out: Vec<u8>,
    /// End of each message in `out`.
    ends: Vec<usize>,
}

impl Lane {
    /// Queues one message, written by `write`.
    pub(super) fn post(&mut self, write: impl FnOnce(&mut Vec<u8>, &str)) {
        write(&mut self.out, &self.name);
        self.ends.push(self.out.len());
    }

    /// Sends the queue. A message that the kernel refuses is lost, as a datagram in the network would be.
    fn flush(&mut self, headers: &mut MultiHeaders<()>) {
        let (mut from, mut refused) = (0, 0);
        while from < self.ends.len() {
            let upto = self.ends.len().min(from + BATCH);
            let start = |i: usize| if i == 0 { 0 } else { self.ends[i - 1] };
            let mut slices: [_; BATCH] = std::array::from_fn(|_| [IoSlice::new(&[])]);
            for (slice, i) in slices.iter_mut().zip(from..upto) {
                *slice = [IoSlice::new(&self.out[start(i)..self.ends[i]])];
            }
            let fd = self.socket.as_raw_fd();
            let addresses = [const { None }; BATCH];
            let sent = sendmmsg(fd, headers, &slices[..upto - from], addresses, [], MsgFlags::empty());
            match sent.map(Iterator::count) {
                Ok(sent) if sent > 0 => (from, refused) = (from + sent, 0),
                // The first error may be an ICMP message about an earlier datagram.
                _ if refused < 2 => refused += 1,
                _ => (from, refused) = (from + 1, 0),
            }
        }
        self.out.clear();
        self.ends.clear();
    }
}

/// One batch of received datagrams.
pub(super) struct Inbox {
    headers: MultiHeaders<()>,
    room: Box<[u8]>,
    lengths: Vec<usize>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let (headers, room) = (MultiHeaders::preallocate(BATCH, None), vec![0; BATCH * ROOM].into());
        Inbox { headers, room, lengths: Vec::with_capacity(BATCH) }
    }

    /// Receives from one lane, up to a batch, and returns the number of datagrams.
    pub(super) fn fill(&mut self, lane: &Lane) -> usize {
        self.lengths.clear();
        let mut rest = &mut *self.room;
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let (one, more) = std::mem::take(&mut rest).split_at_mut(ROOM);
            rest = more;
            [IoSliceMut::new(one)]
        });
        let fd = lane.socket.as_raw_fd();
        // Errors are ICMP messages about earlier datagrams, which the retransmission timers handle.
        if let Ok(taken) = recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            self.lengths.extend(taken.map(|message| message.bytes));
        }
        self.lengths.len()
    }

    pub(super) fn get(&self, i: usize) -> &[u8] {
        &self.room[i * ROOM..i * ROOM + self.lengths[i]]
    }
}

/// All lanes, with an epoll instance to wait for them.
pub(super) struct Net {
    pub(super) lanes: Vec<Lane>,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    headers: MultiHeaders<()>,
}

impl Net {
    /// Opens `sockets` lanes to a server. On loopback they take turns on `addresses` different local addresses.
    pub(super) fn open(target: SocketAddr, sockets: u16, addresses: u16) -> io::Result<Net> {
        allow_files(u64::from(sockets) + 64);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut lanes = Vec::with_capacity(usize::from(sockets));
        for n in 0..sockets {
            let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None)?;
            // The kernel limits this by net.core.rmem_max.
            socket.set_recv_buffer_size(KERNEL_BUFFER)?;
            socket.set_send_buffer_size(KERNEL_BUFFER)?;
            socket.bind(&local_address(target, n % addresses.max(1)).into())?;
            socket.connect(&target.into())?;
            let socket = UdpSocket::from(socket);
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, u64::from(n)))?;
            let name = socket.local_addr()?.to_string();
            lanes.push(Lane { socket, name, out: Vec::new(), ends: Vec::new() });
        }
        let headers = MultiHeaders::preallocate(BATCH, None);
        Ok(Net { lanes, epoll, events: vec![EpollEvent::empty(); EVENTS], headers })
    }

    /// Sends the queues of all lanes.
    pub(super) fn flush(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| !lane.ends.is_empty()) {
            lane.flush(&mut self.headers);
        }
    }

    /// Waits until a lane has data, for at most this time (ns). Writes the numbers of such lanes into `ready`.
    pub(super) fn wait(&mut self, nanoseconds: u64, ready: &mut Vec<u16>) -> io::Result<()> {
        // epoll counts in milliseconds, which is too coarse for pacing; but it takes one system call instead of two.
        let coarse = nanoseconds >= COARSE;
        if nanoseconds > 0 && !coarse {
            let most = TimeSpec::new((nanoseconds / 1_000_000_000) as i64, (nanoseconds % 1_000_000_000) as i64);
            let mut fds = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(most), None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear();
        let most =
            if coarse { EpollTimeout::from((nanoseconds / 1_000_000).min(60_000) as u16) } else { EpollTimeout::ZERO };
        match self.epoll.wait(&mut self.events, most) {
            Ok(count) => ready.extend(self.events[..count].iter().map(|event| event.data() as u16)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Receive buffer that the kernel gave each socket (octets).
    pub(super) fn kernel_buffer(&self) -> usize {
        self.lanes.first().map_or(0, |lane| SockRef::from(&lane.socket).recv_buffer_size().unwrap_or(0))
    }
}

/// The n-th local address. On loopback it is 127.0.1.1 and up, otherwise the address that routes to the server.
fn local_address(target: SocketAddr, n: u16) -> SocketAddr {
    let ip: IpAddr = match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::new(127, 0, 1 + (n / 250) as u8, 1 + (n % 250) as u8).into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => ip.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// Raises the limit of open files. If that is refused, opening the sockets reports the error.
fn allow_files(count: u64) {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < count
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, count.min(hard), hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_arrive_whole_and_in_order() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut net = Net::open(server.local_addr().unwrap(), 2, 2).unwrap();
        assert_ne!(net.lanes[0].name.split(':').next(), net.lanes[1].name.split(':').next(), "addresses of their own");
        for n in 0..100u8 {
            net.lanes[1].post(|out, _| out.extend_from_slice(&vec![n; usize::from(n) + 1]));
        }
        net.flush();
        let mut buffer = [0; 256];
        let mut peer = None;
        for n in 0..100u8 {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((length, buffer[0]), (usize::from(n) + 1, n));
            peer = Some(from);
        }
        for n in 0..40u8 {
            server.send_to(&[n], peer.unwrap()).unwrap();
        }
        let (mut inbox, mut ready, mut seen) = (Inbox::new(), Vec::new(), Vec::new());
        while seen.len() < 40 {
            net.wait(1_000_000_000, &mut ready).unwrap();
            assert_eq!(ready, [1]);
            for i in 0..inbox.fill(&net.lanes[1]) {
                seen.extend_from_slice(inbox.get(i));
            }
        }
        assert_eq!(seen, (0..40).collect::<Vec<u8>>());
    }
}

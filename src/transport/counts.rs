//! What passes the sockets, counted: by each thread for itself, or read from the kernel when somebody asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use crate::count::{Sizes, Spread, more, one_more, sum};
use crate::per_thread::PerThread;
use crate::sip::Transport;

/// The transports, in the order in which they are counted.
pub const TRANSPORTS: [&str; 5] = ["udp", "tcp", "tls", "ws", "wss"];
/// Upper bounds of how many datagrams pass in one system call; there are never more than the last.
static BATCHES: [u64; 5] = [1, 2, 4, 8, 16];

/// The place of a transport in [`TRANSPORTS`].
pub(crate) fn place(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp | Transport::Sctp => 1,
        Transport::Tls | Transport::TlsSctp => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    }
}

/// What has passed in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that came; for datagrams, whatever came in one.
    pub received: u64,
    /// Octets that came.
    pub received_octets: u64,
    /// Messages that left.
    pub sent: u64,
    /// Octets that left.
    pub sent_octets: u64,
}

/// Counts it.
#[derive(Debug, Default)]
pub(super) struct Passing {
    received: AtomicU64,
    received_octets: AtomicU64,
    sent: AtomicU64,
    sent_octets: AtomicU64,
}

impl Passing {
    pub(super) fn message_came(&self) {
        one_more(&self.received);
    }

    pub(super) fn came(&self, octets: usize) {
        more(&self.received_octets, octets);
    }

    pub(super) fn left(&self, messages: usize, octets: usize) {
        more(&self.sent, messages);
        more(&self.sent_octets, octets);
    }
}

/// What is counted of connections, by transport.
pub(super) type Streams = [Passing; TRANSPORTS.len()];

/// Adds up what all threads have counted of a transport.
pub(super) fn traffic(counts: &PerThread<Streams>, transport: usize) -> Traffic {
    Traffic {
        received: sum(counts, |streams| &streams[transport].received),
        received_octets: sum(counts, |streams| &streams[transport].received_octets),
        sent: sum(counts, |streams| &streams[transport].sent),
        sent_octets: sum(counts, |streams| &streams[transport].sent_octets),
    }
}

/// What is counted of one datagram socket.
#[derive(Debug)]
pub struct DatagramCounts {
    address: SocketAddr,
    /// By which the kernel's table names the socket.
    inode: Option<u64>,
    passing: Passing,
    unsent: AtomicU64,
    taken: Sizes<6>,
    given: Sizes<6>,
}

impl DatagramCounts {
    pub(super) fn of(socket: &impl AsRawFd, address: SocketAddr) -> DatagramCounts {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.as_deref().and_then(|link| link.to_str()).and_then(inode_in);
        DatagramCounts {
            address,
            inode,
            passing: Passing::default(),
            unsent: AtomicU64::new(0),
            taken: Sizes::new(&BATCHES),
            given: Sizes::new(&BATCHES),
        }
    }

    /// A system call has taken so many.
    pub(super) fn took(&self, datagrams: usize, octets: usize) {
        more(&self.passing.received, datagrams);
        self.passing.came(octets);
        self.taken.count(datagrams as u64);
    }

    /// A system call has sent so many.
    pub(super) fn gave(&self, datagrams: usize, octets: usize) {
        self.passing.left(datagrams, octets);
        self.given.count(datagrams as u64);
    }

    /// One could not be sent.
    pub(super) fn lost(&self) {
        one_more(&self.unsent);
    }
}

/// The number in what the name of an open socket refers to.
fn inode_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// All datagram sockets together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// What has passed.
    pub traffic: Traffic,
    /// Datagrams that could not be sent.
    pub unsent: u64,
    /// How many datagrams a system call took.
    pub taken: Spread,
    /// How many datagrams a system call sent.
    pub given: Spread,
    /// What the kernel says of the sockets of each listener.
    pub kernel: Vec<KernelQueue>,
}

/// What waits in the kernel for us, at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelQueue {
    /// Where we listen.
    pub address: SocketAddr,
    /// Memory that is taken by what waits to be read.
    pub waiting: u64,
    /// Datagrams that were dropped for want of room.
    pub dropped: u64,
}

impl DatagramStats {
    /// Reads all sockets, and the kernel's tables about them.
    pub(super) fn of<'a>(sockets: impl Iterator<Item = &'a DatagramCounts>) -> DatagramStats {
        let mut stats = DatagramStats::default();
        let mut tables: HashMap<bool, HashMap<u64, (u64, u64)>> = HashMap::new();
        for socket in sockets {
            let read = |count: &AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
            stats.traffic.received += read(&socket.passing.received);
            stats.traffic.received_octets += read(&socket.passing.received_octets);
            stats.traffic.sent += read(&socket.passing.sent);
            stats.traffic.sent_octets += read(&socket.passing.sent_octets);
            stats.unsent += read(&socket.unsent);
            stats.taken.add(&socket.taken.read());
            stats.given.add(&socket.given.read());
            let table = tables.entry(socket.address.is_ipv4()).or_insert_with_key(|v4| {
                let file = if *v4 { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
                // Where there is none, nothing is known of the kernel's queues, and nothing is said of them.
                kernel_table(&std::fs::read_to_string(file).unwrap_or_default())
            });
            let Some((waiting, dropped)) = socket.inode.and_then(|inode| table.get(&inode)) else { continue };
            match stats.kernel.iter_mut().find(|queue| queue.address == socket.address) {
                Some(queue) => (queue.waiting, queue.dropped) = (queue.waiting + waiting, queue.dropped + dropped),
                None => {
                    stats.kernel.push(KernelQueue { address: socket.address, waiting: *waiting, dropped: *dropped });
                }
            }
        }
        stats
    }
}

/// Reads the kernel's table of UDP sockets (proc(5)): of each inode what waits and what was dropped.
fn kernel_table(text: &str) -> HashMap<u64, (u64, u64)> {
    let row = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let (_, waiting) = columns.get(4)?.split_once(':')?;
        let inode = columns.get(9)?.parse().ok()?;
        Some((inode, (u64::from_str_radix(waiting, 16).ok()?, columns.get(12)?.parse().ok()?)))
    };
    text.lines().filter_map(row).collect()
}

/// All connections together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// What has passed, by [`TRANSPORTS`].
    pub traffic: [Traffic; TRANSPORTS.len()],
    /// How many are open, by [`TRANSPORTS`].
    pub open: [usize; TRANSPORTS.len()],
    /// Messages that wait to be written.
    pub waiting: usize,
    /// Octets that wait to be written ...
    pub waiting_octets: usize,
    /// ... and on the connection where there are most of them.
    pub waiting_octets_most: usize,
    /// Connections that were closed as soon as they came, by the limit that was reached.
    pub refused: [(&'static str, u64); 4],
    /// Connections that were closed because their peer did not read.
    pub not_reading: u64,
    /// NOTIFYs over whatever transport that did not leave because a newer one of their dialog had been made.
    pub superseded: u64,
}

/// What has passed the sockets, and what waits there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams.
    pub datagrams: DatagramStats,
    /// Connections.
    pub streams: StreamStats,
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_kernels_table_is_read_by_inode() {
        let table = kernel_table(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             26477: 0100007F:13C4 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 15443 2 0000000000000000 17\n\
             nonsense\n",
        );
        assert_eq!(table, HashMap::from([(15_443, (0x300, 17))]));
    }

    #[test]
    fn what_waits_for_a_socket_is_found_there() {
        let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = ours.local_addr().unwrap();
        let counts = DatagramCounts::of(&ours, address);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0; 500], address).unwrap();
        let stats = DatagramStats::of([&counts].into_iter());
        assert_eq!((stats.kernel.len(), stats.kernel[0].address, stats.kernel[0].dropped), (1, address, 0));
        assert!(stats.kernel[0].waiting >= 500, "{stats:?}");
    }
}

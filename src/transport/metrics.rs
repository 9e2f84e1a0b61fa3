//! Counters of the sockets. Each thread counts for itself; the kernel's queues are read when statistics are requested.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use crate::sip::Transport;
use crate::util::counters::{Histogram, HistogramSnapshot, add, increment, total};
use crate::util::per_thread::PerThread;

/// Names of the transports, in the order of the counters.
pub const TRANSPORTS: [&str; 5] = ["udp", "tcp", "tls", "ws", "wss"];
/// Upper bounds of the histogram of datagrams per system call. The last bucket has no bound; a call moves at most
/// [`super::BATCH`].
static BATCHES: [u64; 5] = [1, 2, 4, 8, 16];

/// Index of a transport in [`TRANSPORTS`].
pub(crate) fn place(transport: Transport) -> usize {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp | Transport::Sctp => 1,
        Transport::Tls | Transport::TlsSctp => 2,
        Transport::Ws => 3,
        Transport::Wss => 4,
    }
}

/// Traffic in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages received; for UDP, datagrams.
    pub received: u64,
    /// Octets received.
    pub received_octets: u64,
    /// Messages sent.
    pub sent: u64,
    /// Octets sent.
    pub sent_octets: u64,
}

/// Counters of [`Traffic`].
#[derive(Debug, Default)]
pub(super) struct StreamCounters {
    received: AtomicU64,
    received_octets: AtomicU64,
    sent: AtomicU64,
    sent_octets: AtomicU64,
}

impl StreamCounters {
    pub(super) fn record_received(&self) {
        increment(&self.received);
    }

    pub(super) fn came(&self, octets: usize) {
        add(&self.received_octets, octets);
    }

    pub(super) fn left(&self, messages: usize, octets: usize) {
        add(&self.sent, messages);
        add(&self.sent_octets, octets);
    }
}

/// Counters of the stream transports, by index in [`TRANSPORTS`].
pub(super) type Streams = [StreamCounters; TRANSPORTS.len()];

/// Traffic of a transport, summed over all threads.
pub(super) fn traffic(counts: &PerThread<Streams>, transport: usize) -> Traffic {
    Traffic {
        received: total(counts, |streams| &streams[transport].received),
        received_octets: total(counts, |streams| &streams[transport].received_octets),
        sent: total(counts, |streams| &streams[transport].sent),
        sent_octets: total(counts, |streams| &streams[transport].sent_octets),
    }
}

/// Counters of one UDP socket.
#[derive(Debug)]
pub struct DatagramCounts {
    address: SocketAddr,
    /// Inode of the socket, by which it is found in /proc/net/udp; none if it could not be read.
    inode: Option<u64>,
    passing: StreamCounters,
    unsent: AtomicU64,
    taken: Histogram<6>,
    given: Histogram<6>,
}

impl DatagramCounts {
    pub(super) fn of(socket: &impl AsRawFd, address: SocketAddr) -> DatagramCounts {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.as_deref().and_then(|link| link.to_str()).and_then(inode_in);
        DatagramCounts {
            address,
            inode,
            passing: StreamCounters::default(),
            unsent: AtomicU64::new(0),
            taken: Histogram::new(&BATCHES),
            given: Histogram::new(&BATCHES),
        }
    }

    /// Records a system call that received this many datagrams.
    pub(super) fn took(&self, datagrams: usize, octets: usize) {
        add(&self.passing.received, datagrams);
        self.passing.came(octets);
        self.taken.count(datagrams as u64);
    }

    /// Records a system call that sent this many datagrams.
    pub(super) fn gave(&self, datagrams: usize, octets: usize) {
        self.passing.left(datagrams, octets);
        self.given.count(datagrams as u64);
    }

    /// Records a datagram that could not be sent.
    pub(super) fn lost(&self) {
        increment(&self.unsent);
    }
}

/// Parses the inode from a link such as `socket:[12345]` in /proc/self/fd.
fn inode_in(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Statistics of all UDP sockets together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// Traffic.
    pub traffic: Traffic,
    /// Datagrams that could not be sent.
    pub unsent: u64,
    /// Histogram of datagrams received per system call.
    pub taken: HistogramSnapshot,
    /// Histogram of datagrams sent per system call.
    pub given: HistogramSnapshot,
    /// Receive queues in the kernel, by listen address.
    pub kernel: Vec<KernelQueue>,
}

/// Receive queue in the kernel of the sockets at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelQueue {
    /// Listen address.
    pub address: SocketAddr,
    /// Memory of the datagrams that wait to be read (octets).
    pub waiting: u64,
    /// Datagrams that the kernel dropped because the queue was full.
    pub dropped: u64,
}

impl DatagramStats {
    /// Reads the counters of all sockets, and the kernel's tables of UDP sockets.
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
                // If the table cannot be read, no kernel queues are reported.
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

/// Parses the kernel's table of UDP sockets (proc(5)): receive queue (octets) and drops by inode.
fn kernel_table(text: &str) -> HashMap<u64, (u64, u64)> {
    let row = |line: &str| {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        let (_, waiting) = columns.get(4)?.split_once(':')?;
        let inode = columns.get(9)?.parse().ok()?;
        Some((inode, (u64::from_str_radix(waiting, 16).ok()?, columns.get(12)?.parse().ok()?)))
    };
    text.lines().filter_map(row).collect()
}

/// Statistics of all connections together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Traffic, by [`TRANSPORTS`].
    pub traffic: [Traffic; TRANSPORTS.len()],
    /// Open connections, by [`TRANSPORTS`].
    pub open: [usize; TRANSPORTS.len()],
    /// Messages in the write queues.
    pub waiting: usize,
    /// Octets in the write queues of all connections.
    pub waiting_octets: usize,
    /// Octets in the longest write queue.
    pub waiting_octets_most: usize,
    /// Connections that were refused, by the limit that was reached.
    pub refused: [(&'static str, u64); 4],
    /// Connections that were closed because the peer did not read.
    pub not_reading: u64,
    /// NOTIFYs over any transport (UDP too) that were not sent because a newer one of the same dialog existed.
    pub superseded: u64,
}

/// Statistics of all sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// UDP sockets.
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

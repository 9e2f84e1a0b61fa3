//! Capture: copies of the SIP traffic for Homer and similar servers, sent by HEP version 3. An operator who records the
//! calls of a network there can see the traffic of its lamps beside them.
//!
//! Input: messages that pass the sockets, with addresses and time. Output: datagrams to one capture server. The I/O
//! threads only put a message into a bounded queue. If that is full, the copy is dropped and counted; no thread waits.
//! A separate thread filters and encodes. The module parses SIP heads, but knows nothing of the server's sockets,
//! dialogs or accounts.

mod exporter;
mod filter;
mod hep;
pub mod settings;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use self::settings::Hep;
use crate::util::counters::increment;
use exporter::Exporter;
use filter::Filter;
use hep::HepEncoder;

/// Most messages in the queue ...
const QUEUE: usize = 16_384;
/// ... and most octets in it.
const QUEUE_OCTETS: usize = 32 * 1024 * 1024;

/// Local socket as it appears in captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Address that peers see, as far as the server knows it.
    pub address: SocketAddr,
    /// True for UDP, false for stream transports.
    pub datagrams: bool,
}

/// Captured message.
#[derive(Debug)]
struct CapturedMessage {
    at: SystemTime,
    from: SocketAddr,
    to: SocketAddr,
    datagram: bool,
    bytes: Bytes,
}

/// Command for the exporter thread.
enum CaptureCommand {
    CapturedMessage(CapturedMessage),
    /// Signals on the channel once everything queued before is done.
    Flush(SyncSender<()>),
}

/// Counters of captured messages by outcome.
#[derive(Debug, Default)]
struct Counts {
    octets: AtomicUsize,
    waiting: AtomicUsize,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    filtered: AtomicU64,
}

/// Statistics of captured messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sent to the capture server.
    pub sent: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Not sent because of an error, of the system or reported by the network (ICMP), or because the packet was too
    /// large.
    pub failed: u64,
    /// Not selected by `hep.traffic`.
    pub filtered: u64,
    /// Waiting in the queue.
    pub waiting: usize,
}

/// Input of the capture, usable from any thread.
#[derive(Debug)]
pub struct Capture {
    here: Box<[LocalEndpoint]>,
    queue: SyncSender<CaptureCommand>,
    counts: Arc<Counts>,
}

impl Capture {
    /// Starts the exporter thread. `here` are the listeners, by their numbers.
    ///
    /// # Errors
    /// If no socket or no thread can be created.
    pub fn start(config: &Hep, here: Vec<LocalEndpoint>) -> std::io::Result<Arc<Capture>> {
        let agent =
            HepEncoder::new(config.agent_id, config.password.as_ref().map(|password| password.expose().as_bytes()));
        let choice = Filter::of(&config.traffic);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(config.server, agent, choice, Arc::clone(&counts))?;
        let (queue, told) = sync_channel(QUEUE);
        let run = move || exporter.run(&told);
        std::thread::Builder::new().name("hep".into()).spawn(run)?;
        Ok(Arc::new(Capture { here: here.into(), queue, counts }))
    }

    /// Captures a message that a listener has received.
    pub fn on_received(&self, listener: u8, peer: SocketAddr, bytes: &[u8]) {
        if let Some(here) = self.here.get(usize::from(listener)) {
            self.enqueue(peer, here.address, *here, || Bytes::copy_from_slice(bytes), bytes.len());
        }
    }

    /// Captures a message that a listener sends.
    pub fn left(&self, listener: u8, peer: SocketAddr, bytes: &Bytes) {
        if let Some(here) = self.here.get(usize::from(listener)) {
            self.enqueue(here.address, peer, *here, || bytes.clone(), bytes.len());
        }
    }

    fn enqueue(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        here: LocalEndpoint,
        bytes: impl FnOnce() -> Bytes,
        octets: usize,
    ) {
        let counts = &*self.counts;
        let held = counts.octets.fetch_add(octets, Relaxed);
        counts.waiting.fetch_add(1, Relaxed);
        let room = held + octets <= QUEUE_OCTETS;
        let passed = || CapturedMessage { at: SystemTime::now(), from, to, datagram: here.datagrams, bytes: bytes() };
        if !room || self.queue.try_send(CaptureCommand::CapturedMessage(passed())).is_err() {
            counts.octets.fetch_sub(octets, Relaxed);
            counts.waiting.fetch_sub(1, Relaxed);
            increment(&counts.dropped);
        }
    }

    /// Waits until all messages queued so far are handled, but not longer than `within`.
    pub fn flush(&self, within: Duration) {
        let (done, seen_to) = sync_channel(1);
        // If the queue is full there is no room for this command either; the server stops without waiting then.
        if self.queue.try_send(CaptureCommand::Flush(done)).is_ok() {
            let _ = seen_to.recv_timeout(within);
        }
    }

    /// Statistics so far.
    pub fn stats(&self) -> Stats {
        let Counts { waiting, sent, dropped, failed, filtered: left_out, .. } = &*self.counts;
        Stats {
            sent: sent.load(Relaxed),
            dropped: dropped.load(Relaxed),
            failed: failed.load(Relaxed),
            filtered: left_out.load(Relaxed),
            waiting: waiting.load(Relaxed),
        }
    }
}

/// Address that peers of a listener see: its listen address or, if that is unspecified, the address of `sip.advertise`
/// with the same port.
pub fn seen_address(listens: SocketAddr, advertised: Option<&str>) -> SocketAddr {
    let said = advertised.map(|host| host.trim_matches(['[', ']'])).and_then(|host| host.parse::<IpAddr>().ok());
    match said.filter(|said| listens.ip().is_unspecified() && said.is_ipv4() == listens.is_ipv4()) {
        Some(ip) => SocketAddr::new(ip, listens.port()),
        None => listens,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn tap(server: SocketAddr) -> Arc<Capture> {
        let config = Hep { server, agent_id: 7, password: None, traffic: vec!["all".into()] };
        let here = LocalEndpoint { address: "192.0.2.1:5060".parse().unwrap(), datagrams: true };
        Capture::start(&config, vec![here]).unwrap()
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_counted_and_nobody_waits() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tap = tap(server.local_addr().unwrap());
        let peer = "192.0.2.9:5060".parse().unwrap();
        let huge = Bytes::from(vec![b'x'; QUEUE_OCTETS + 1]);
        tap.left(0, peer, &huge);
        assert_eq!((tap.stats().dropped, tap.stats().waiting), (1, 0));
        tap.on_received(9, peer, b"to a listener that there is not");
        tap.on_received(0, peer, b"OPTIONS sip:a SIP/2.0\r\n\r\n");
        tap.flush(Duration::from_secs(60));
        let stats = tap.stats();
        assert_eq!((stats.sent, stats.dropped, stats.failed, stats.waiting), (1, 1, 0, 0));
    }

    #[test]
    fn a_server_that_is_not_there_is_a_count_and_no_more() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tap = tap(gone);
        for _ in 0..3 {
            tap.on_received(0, "192.0.2.9:5060".parse().unwrap(), b"OPTIONS sip:a SIP/2.0\r\n\r\n");
            tap.flush(Duration::from_secs(60));
        }
        // The system reports the error only after the first datagram was sent.
        assert!(tap.stats().failed >= 1, "{:?}", tap.stats());
    }

    #[test]
    fn a_wildcard_is_called_by_what_it_says_of_itself() {
        let any = "0.0.0.0:5060".parse().unwrap();
        assert_eq!(seen_address(any, Some("192.0.2.1")).to_string(), "192.0.2.1:5060");
        assert_eq!(seen_address(any, Some("sip.acme.test")), any);
        assert_eq!(seen_address(any, Some("[2001:db8::1]")), any);
        assert_eq!(seen_address("[::]:5060".parse().unwrap(), Some("[2001:db8::1]")).to_string(), "[2001:db8::1]:5060");
        assert_eq!(seen_address("127.0.0.1:5060".parse().unwrap(), Some("192.0.2.1")).to_string(), "127.0.0.1:5060");
    }
}

//! Exporter thread: filters, encodes and sends captured messages.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use super::filter::{Filter, head_of};
use super::hep::HepEncoder;
use super::{CaptureCommand, CapturedMessage, Counts};
use crate::sip::wire::Name;
use crate::util::counters::increment;
use crate::util::log_limit::LogLimiter;

/// Longest Call-ID (octets) that is sent as correlation id; longer ones are omitted.
const LONGEST_ID: usize = 512;

pub(super) struct Exporter {
    socket: UdpSocket,
    server: SocketAddr,
    agent: HepEncoder,
    choice: Filter,
    counts: Arc<Counts>,
    unreachable: LogLimiter,
}

impl Exporter {
    pub(super) fn new(
        server: SocketAddr,
        agent: HepEncoder,
        choice: Filter,
        counts: Arc<Counts>,
    ) -> io::Result<Exporter> {
        let any = match server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // A connected socket reports ICMP errors, so an unreachable server is noticed.
        socket.connect(server)?;
        Ok(Exporter { socket, server, agent, choice, counts, unreachable: LogLimiter::new() })
    }

    /// Sends until all senders of the channel are dropped.
    pub(super) fn run(self, told: &Receiver<CaptureCommand>) {
        let mut out = Vec::with_capacity(4_096);
        while let Ok(told) = told.recv() {
            match told {
                CaptureCommand::CapturedMessage(passed) => {
                    self.export(&passed, &mut out);
                    self.counts.waiting.fetch_sub(1, Relaxed);
                    self.counts.octets.fetch_sub(passed.bytes.len(), Relaxed);
                }
                // The caller may have stopped waiting for it.
                CaptureCommand::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn export(&self, passed: &CapturedMessage, out: &mut Vec<u8>) {
        // Keep-alives are not messages.
        if passed.bytes.iter().all(|c| matches!(c, b'\r' | b'\n')) {
            return;
        }
        let head = head_of(&passed.bytes);
        if !self.choice.wants(head.as_ref()) {
            return increment(&self.counts.filtered);
        }
        let id = head.as_ref().and_then(|head| head.first(Name::CallId)).filter(|id| id.len() <= LONGEST_ID);
        if !self.agent.write(out, passed, id) {
            return increment(&self.counts.failed);
        }
        match self.socket.send(out) {
            Ok(_) => increment(&self.counts.sent),
            Err(error) => {
                increment(&self.counts.failed);
                self.complain(&error);
            }
        }
    }

    fn complain(&self, error: &io::Error) {
        if let Some(more) = self.unreachable.check() {
            tracing::warn!(server = %self.server, %error, more, "the capture server of [hep] cannot be reached");
        }
    }
}

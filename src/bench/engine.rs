//! Event loop of the phones and the PBX, in one thread: it sends, receives and retransmits.
//!
//! A scenario starts requests ([`Engine::start`]), runs the loop ([`Engine::turn`]) and reads the results (`done`,
//! `tally`). Requests that a scenario starts between two turns leave in one batch with the responses to messages that
//! arrived before.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::book::Book;
use super::lamps::Lamps;
use super::login::Login;
use super::net::{Inbox, Net};
use super::ops::{Due, Kind, MS, Ops};
use super::scan::{self, Scan};
use super::settings::Settings;
use super::tally::Tally;
use super::text::Names;
use crate::sip::wire;

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) kind: Kind,
    /// Number of the dialog, or of the extension of a PUBLISH.
    pub(super) number: u32,
    pub(super) ok: bool,
    /// Status of the response; 0 if there was none.
    pub(super) status: u16,
    /// Retry-After of a refusal (seconds).
    pub(super) retry_after: Option<u32>,
}

pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) names: Names,
    pub(super) net: Net,
    pub(super) book: Book,
    pub(super) lamps: Lamps,
    pub(super) ops: Ops,
    /// Digest challenges that phones remember, by dialog; the PBX has [`super::book::NOTHING`].
    pub(super) logins: HashMap<u32, Login>,
    pub(super) tally: Tally,
    /// Requests that have ended since this was last read.
    pub(super) done: Vec<Done>,
    /// True if the scenario handles refusals itself, so that they are no violations.
    pub(super) refusals_are_expected: bool,
    /// True after a crash of the server: CSeq and version may skip ahead, but never fall.
    pub(super) skips_are_expected: bool,
    /// Time of the event being processed (ns since the start).
    pub(super) now: u64,
    clock: Instant,
    /// File descriptor for SIGINT and SIGTERM, and the time at which it was last read.
    signals: SignalFd,
    heeded: u64,
    /// Number of received messages.
    taken: u64,
    inbox: Option<Inbox>,
    ready: Vec<u16>,
    pub(super) scratch: Vec<u8>,
    pub(super) contact: String,
    pub(super) routes: String,
}

/// One message in this many is also checked with the strict SIP parser; the others only with the fast one.
const THOROUGHLY: u64 = 64;
/// Longest wait before control returns to the scenario (ns).
const LOOK_AROUND: u64 = 100 * MS;

impl Engine {
    pub(super) fn new(settings: Settings, run: u32) -> io::Result<Engine> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGTERM);
        // Child processes do not inherit this mask: the standard library resets it.
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // One more socket, for the PBX.
        let net = Net::open(settings.target, settings.sockets + 1, settings.addresses)?;
        let names = Names { domain: settings.domain.clone(), run: format!("{run:08x}") };
        let ops = Ops::new(u64::from(settings.give_up) * 1_000 * MS);
        Ok(Engine {
            settings,
            names,
            net,
            book: Book::default(),
            lamps: Lamps::default(),
            ops,
            logins: HashMap::new(),
            tally: Tally::default(),
            done: Vec::new(),
            refusals_are_expected: false,
            skips_are_expected: false,
            now: 0,
            clock: Instant::now(),
            signals,
            heeded: 0,
            taken: 0,
            inbox: Some(Inbox::new()),
            ready: Vec::new(),
            scratch: Vec::new(),
            contact: String::new(),
            routes: String::new(),
        })
    }

    /// Reads the clock (ns since the start).
    pub(super) fn tick(&mut self) -> u64 {
        self.now = self.clock.elapsed().as_nanos() as u64;
        self.now
    }

    /// Socket of a dialog's phone.
    pub(super) fn lane_of(&self, watcher: u32) -> usize {
        watcher as usize % usize::from(self.settings.sockets)
    }

    /// Socket of the PBX.
    pub(super) fn pbx_lane(&self) -> usize {
        usize::from(self.settings.sockets)
    }

    /// Handles SIGINT and SIGTERM: ends the run, and with it the server that was started for it.
    fn heed_signals(&mut self) -> io::Result<()> {
        match self.signals.read_signal()? {
            Some(_) => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            None => Ok(()),
        }
    }

    /// Sends pending messages, receives until this time (ns since the start), and runs the timers.
    pub(super) fn turn(&mut self, until: u64) -> io::Result<()> {
        self.net.flush();
        let now = self.tick();
        if now > self.heeded + LOOK_AROUND {
            self.heeded = now;
            self.heed_signals()?;
        }
        let wake = self.ops.next_due().map_or(until, |due| due.min(until)).min(now + LOOK_AROUND);
        let mut ready = std::mem::take(&mut self.ready);
        self.net.wait(wake.saturating_sub(now), &mut ready)?;
        let mut inbox = self.inbox.take().unwrap_or_else(Inbox::new);
        for &lane in &ready {
            let count = inbox.fill(&self.net.lanes[usize::from(lane)]);
            self.tick();
            for i in 0..count {
                self.take(usize::from(lane), inbox.get(i));
            }
        }
        (self.inbox, self.ready) = (Some(inbox), ready);
        let now = self.tick();
        while let Some(due) = self.ops.due(now) {
            match due {
                Due::Repeat(slot) => {
                    self.tally.repeated += 1;
                    self.send(slot);
                }
                Due::GiveUp(slot) => self.give_up(slot),
            }
        }
        Ok(())
    }

    /// Answers NOTIFYs and does nothing else for this time (ns).
    pub(super) fn listen(&mut self, nanoseconds: u64) -> io::Result<()> {
        let until = self.tick() + nanoseconds;
        while self.now < until {
            self.turn(until)?;
        }
        Ok(())
    }

    fn take(&mut self, lane: usize, bytes: &[u8]) {
        self.taken += 1;
        // A keep-alive.
        if bytes.iter().all(|c| matches!(c, b'\r' | b'\n' | 0)) {
            return;
        }
        let unfolded;
        let scan = match Scan::read(bytes) {
            None => {
                unfolded = scan::unfold(bytes);
                Scan::read(&unfolded)
            }
            scan => scan,
        };
        let (Some(scan), false) = (scan, self.taken % THOROUGHLY == 1 && wire::read(bytes).is_err()) else {
            let detail = || {
                let fault = wire::read(bytes).err().map_or("no reason".into(), |refused| refused.fault.to_string());
                format!("{fault}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)]))
            };
            return self.tally.faults.note("a message cannot be read", detail);
        };
        match scan.status {
            0 => self.take_request(lane, &scan),
            _ => self.take_answer(&scan),
        }
    }
}

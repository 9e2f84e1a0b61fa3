//! A peer that sends messages to a notifier, and checks everything that comes back.

use bytes::Bytes;
use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::presence::Tick;
use lamplighter::sip::wire::{self, Message, ParseError, StartLine};
use lamplighter::transport::{Destination, OutboundMessage, Remote, Source};

use super::sound::{fits, ours_is_sound, unfolded};

/// Most clock ticks until a notifier has removed all state of a few messages, whatever they are.
const MOST_MOMENTS: usize = 2_000;

/// Start time of a conversation (ms): a realistic clock value, because the server never creates anything at time zero.
const START: u64 = 1_700_000_000_000;

pub(crate) struct Talk<'a> {
    notifier: &'a Notifier,
    source: Source,
    /// True if the source may name other addresses as destinations.
    trusted: bool,
    now: u64,
    /// Earlier responses may be sent again, for a request that counts as a retransmission.
    said: Vec<Bytes>,
    /// From values of the requests so far: a NOTIFY may be sent only to these.
    watchers: Vec<String>,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(notifier: &'a Notifier, source: Source, trusted: bool) -> Talk<'a> {
        Talk { notifier, source, trusted, now: START, said: Vec::new(), watchers: Vec::new() }
    }

    /// Sends one message; returns the messages sent in return.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Vec<OutboundMessage> {
        let mut out = Outbox::default();
        self.notifier.receive(Tick(self.now), self.source, bytes, &mut out);
        assert_eq!(self.notifier.panics(), 0, "a panic on {:?}", String::from_utf8_lossy(bytes));
        let message = wire::read(bytes).ok().flatten();
        // Unreadable messages get at most one response.
        assert!(message.is_some() || out.messages.len() <= 1);
        let request = message.filter(|message| message.request().is_some());
        if let Some(request) = &request {
            self.watchers.push(unfolded(request.from.text));
        }
        self.check(&out, request.as_ref());
        out.messages
    }

    /// Sends bytes on a stream that cannot be separated from the bytes after them.
    pub(crate) fn say_broken(&mut self, fault: ParseError, bytes: &[u8]) {
        let mut out = Outbox::default();
        self.notifier.receive_malformed(Tick(self.now), self.source, fault, bytes, &mut out);
        assert_eq!(self.notifier.panics(), 0, "a panic on {:?}", String::from_utf8_lossy(bytes));
        assert!(out.messages.len() <= 1);
        self.check(&out, None);
    }

    fn check(&mut self, out: &Outbox, request: Option<&Message<'_>>) {
        assert!(out.messages.len() <= 1 + self.watchers.len(), "{} messages for one", out.messages.len());
        assert!(out.pending_fan_outs.is_empty());
        for packet in &out.messages {
            let head = ours_is_sound(&packet.bytes);
            self.goes_nowhere_else(packet);
            if self.said.contains(&packet.bytes) {
                continue;
            }
            self.said.push(packet.bytes.clone());
            let is_notify = matches!(head.start, StartLine::Request { method: "NOTIFY", .. });
            // The response may be to an unreadable message, and then need not be readable either.
            let Some(request) = request else { continue };
            let ours = wire::read(&packet.bytes).unwrap_or_else(|refused| {
                panic!("{}: {}", refused.fault, String::from_utf8_lossy(&packet.bytes));
            });
            let ours = ours.expect("a message");
            match is_notify {
                true => assert!(self.watchers.contains(&unfolded(ours.to.text)), "{:?}", ours.to.text),
                false => fits(&ours, request),
            }
        }
    }

    /// Checks that an unverified source cannot make the server send to any address but its own.
    fn goes_nowhere_else(&self, packet: &OutboundMessage) {
        let to = match packet.to.clone() {
            Destination::Datagram { peer, .. } | Destination::Connection(Remote { peer, .. }) => Some(peer),
            Destination::Flow { flow, otherwise } => {
                assert_eq!(Some(flow), self.source.flow);
                otherwise.map(|remote| remote.peer)
            }
        };
        let own = to.is_none_or(|peer| peer.ip() == self.source.peer.ip());
        assert!(own || self.trusted, "{:?}: {:?}", packet.to, String::from_utf8_lossy(&packet.bytes));
    }

    /// Advances the time without a message.
    pub(crate) fn wait(&mut self, ms: u64) {
        self.now += ms;
        let mut out = Outbox::default();
        self.notifier.pass_time(Tick(self.now), &mut out);
        assert_eq!(self.notifier.panics(), 0);
        for packet in &out.messages {
            ours_is_sound(&packet.bytes);
            self.goes_nowhere_else(packet);
        }
    }

    /// Leaves for good: in bounded time no state of the peer must remain, whatever it has sent.
    pub(crate) fn leave(mut self) {
        let mut moments = 0;
        while let Some(Tick(next)) = self.notifier.next_deadline() {
            self.wait(next.saturating_sub(self.now).max(1));
            moments += 1;
            assert!(moments < MOST_MOMENTS, "still busy at {} ms", self.now - START);
        }
        assert_eq!(self.notifier.subscriptions(), 0, "at {} ms", self.now - START);
    }
}

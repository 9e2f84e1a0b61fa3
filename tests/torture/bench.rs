//! Notifier without sockets, and its responses.

use std::net::SocketAddr;

use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::presence::Tick;
use lamplighter::sip::wire::{Frame, Framer, Head, Name, ParseError, StartLine};
use lamplighter::transport::{Destination, Source};

use crate::notifier::{notifier, tcp_source, udp_source};

/// A notifier and its clock.
pub(crate) struct Bench {
    pub(crate) notifier: Notifier,
    now: u64,
}

/// One message that the server sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) text: String,
    pub(crate) to: Destination,
}

impl Sent {
    fn head(&self) -> Head<'_> {
        Head::find(&self.text).unwrap_or_else(|fault| panic!("{fault}: we sent {}", self.text)).0
    }

    /// Status of a response; 0 for a request.
    pub(crate) fn status(&self) -> u16 {
        match self.head().start {
            StartLine::Response { status } => status,
            StartLine::Request { .. } => 0,
        }
    }

    /// Request-URI of a NOTIFY.
    pub(crate) fn request_uri(&self) -> &str {
        match self.head().start {
            StartLine::Request { uri, .. } => uri,
            StartLine::Response { .. } => panic!("no request: {}", self.text),
        }
    }

    /// Values of a header.
    pub(crate) fn all(&self, name: Name) -> Vec<&str> {
        self.head().all(name).collect()
    }

    /// Value of any header by its written name; panics if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    /// Peer of a datagram.
    pub(crate) fn peer(&self) -> SocketAddr {
        match &self.to {
            Destination::Datagram { peer, .. } => *peer,
            other => panic!("{other:?} is no datagram"),
        }
    }
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let notifier = notifier();
        Bench { notifier, now: 0 }
    }

    pub(crate) fn send_from(&self, source: Source, bytes: &[u8]) -> Vec<Sent> {
        let mut out = Outbox::default();
        self.notifier.receive(Tick(self.now), source, bytes, &mut out);
        self.collect(out)
    }

    fn collect(&self, out: Outbox) -> Vec<Sent> {
        assert_eq!(self.notifier.panics(), 0, "handling a message panicked");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("we write UTF-8");
        out.messages.iter().map(|packet| Sent { text: text(&packet.bytes), to: packet.to.clone() }).collect()
    }

    /// Delivers a datagram from a trusted phone.
    pub(crate) fn udp(&self, bytes: impl AsRef<[u8]>) -> Vec<Sent> {
        self.send_from(udp_source("192.0.2.99:5070"), bytes.as_ref())
    }

    /// Delivers a stream, cut into messages as a connection would; returns true if it has to be closed.
    pub(crate) fn tcp(&self, bytes: impl AsRef<[u8]>) -> (Vec<Sent>, bool) {
        let source = tcp_source("192.0.2.99:40000");
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(bytes.as_ref());
        let mut out = Outbox::default();
        let closed = loop {
            match framer.next_frame() {
                Ok(None) => break false,
                Ok(Some(Frame::Ping)) => {}
                Ok(Some(Frame::TooLarge(head))) => {
                    self.notifier.receive_malformed(Tick(self.now), source, ParseError::TooLarge, &head, &mut out);
                }
                Ok(Some(Frame::Message(message))) => {
                    self.notifier.receive(Tick(self.now), source, &message, &mut out);
                }
                Err((fault, head)) => {
                    self.notifier.receive_malformed(Tick(self.now), source, fault, &head, &mut out);
                    break true;
                }
            }
        };
        (self.collect(out), closed)
    }

    /// Advances the time; returns the messages that are due.
    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Sent> {
        self.now += ms;
        let mut out = Outbox::default();
        self.notifier.pass_time(Tick(self.now), &mut out);
        self.collect(out)
    }
}

/// Expected result of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// No response.
    Silence,
    /// One response with one of these statuses.
    Answer(&'static [u16]),
    /// 200, and a NOTIFY after it.
    Subscribed,
}

/// Compares the messages sent with the expectation of a case.
pub(crate) fn compare(case: &str, sent: &[Sent], expected: Expected) {
    let statuses: Vec<u16> = sent.iter().map(Sent::status).collect();
    let texts = || sent.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join("\n");
    let good = match expected {
        Expected::Silence => statuses.is_empty(),
        Expected::Answer(allowed) => matches!(*statuses, [status] if allowed.contains(&status)),
        Expected::Subscribed => statuses == [200, 0],
    };
    assert!(good, "{case}: expected {expected:?}, sent {statuses:?}\n{}", texts());
    if sent.iter().any(|s| s.status() == 405) {
        assert!(texts().contains("\r\nAllow: OPTIONS, SUBSCRIBE, PUBLISH\r\n"), "{case}: a 405 lists what is served");
    }
}

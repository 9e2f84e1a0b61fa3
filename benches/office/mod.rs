//! Test kit of the core's benches: a notifier without sockets and without a journal, and phones that answer at once.
#![allow(dead_code)] // each bench uses what it needs

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lamplighter::config::{Config, Durability};
use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::presence::Tick;
use lamplighter::sip::Transport;
use lamplighter::transport::{Listener, ListenerId, Source};
use nix::time::{ClockId, clock_gettime};

/// Watchers of each extension.
pub(crate) const WATCHERS: usize = 10;

/// CPU time of this thread. It uses libc, because rustix needs the vDSO, which does not exist under valgrind.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock").into()
}

/// The notifier, its output and its virtual clock.
pub(crate) struct Office {
    pub(crate) notifier: Notifier,
    pub(crate) now: u64,
    pub(crate) out: Outbox,
}

/// Source address of phone `i`.
pub(crate) fn source(i: usize) -> Source {
    let port = 20_000 + (i % 4) as u16;
    let peer = SocketAddr::from(([127, 0, 0, 1], port));
    Source { transport: Transport::Udp, listener: ListenerId(0), peer, flow: None, certified: false }
}

/// Value of a header that this bench or the server wrote.
pub(crate) fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let at = message.find(name).expect("the header") + name.len();
    message[at..].split("\r\n").next().expect("its line")
}

/// The server's tag in a response.
pub(crate) fn tag_of(answer: &[u8]) -> String {
    let answer = std::str::from_utf8(answer).expect("text");
    assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
    header(answer, "\r\nTo: ").rsplit_once(";tag=").expect("our tag").1.to_string()
}

/// Writes the SUBSCRIBE of phone `i`.
pub(crate) fn subscribe(request: &mut String, i: usize, cseq: u32, tag: Option<&str>, expires: u32) {
    let (user, port) = (i / WATCHERS, 20_000 + i % 4);
    let to_tag = tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    request.clear();
    let _ = write!(
        request,
        "SUBSCRIBE sip:{user}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{i:x}x{cseq};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:w{i}@acme.test>;tag=f{i:x}\r\nTo: <sip:{user}@acme.test>{to_tag}\r\n\
         Call-ID: cycle-{i:08x}@127.0.0.1\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <sip:w{i}@127.0.0.1:{port}>\r\n\
         Event: dialog\r\nAccept: application/dialog-info+xml\r\nExpires: {expires}\r\nUser-Agent: bench/1.0\r\n\
         Content-Length: 0\r\n\r\n"
    );
}

/// Writes the 200 to a NOTIFY.
pub(crate) fn reply(reply: &mut String, notify: &[u8]) {
    let notify = std::str::from_utf8(notify).expect("text");
    reply.clear();
    reply.push_str("SIP/2.0 200 OK\r\n");
    for name in ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "] {
        let _ = write!(reply, "{name}{}\r\n", header(notify, &format!("\r\n{name}")));
    }
    reply.push_str("Content-Length: 0\r\n\r\n");
}

impl Office {
    pub(crate) fn new() -> Office {
        let text = "[access]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[limits]\nsubscriptions = 10000000\n\
             subscriptions_per_account = 10000000\npresentities_per_account = 10000000\n[[account]]\nid = \"a\"\n\
             name = \"A\"\nrealm = \"acme.test\"\n";
        let mut config = Config::parse(text, "bench.toml").expect("the configuration");
        config.data.durability = Durability::Memory;
        let directory = Arc::new(config.directory());
        let listener = Listener {
            transport: Transport::Udp,
            address: SocketAddr::from(([127, 0, 0, 1], 5060)),
            sent_by: "127.0.0.1:5060".into(),
        };
        let notifier = Notifier::new(config.notifier(directory, vec![listener], [7; 16]));
        Office { notifier, now: 1_000, out: Outbox::default() }
    }

    /// Delivers messages that arrived in one batch, each with the number of its phone.
    pub(crate) fn hear_all<'m>(&mut self, messages: impl Iterator<Item = (usize, &'m str)>) {
        let mut messages = messages.map(|(i, message)| (source(i), message.as_bytes()));
        self.notifier.receive_all(Tick(self.now), &mut messages, &mut self.out);
    }

    /// Delivers a message from the address of phone `i`.
    pub(crate) fn hear(&mut self, i: usize, message: &[u8]) {
        self.notifier.receive(Tick(self.now), source(i), message, &mut self.out);
    }
}

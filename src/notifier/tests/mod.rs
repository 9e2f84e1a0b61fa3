//! Scenario tests: a notifier with many phones and publishers, on a virtual clock and without sockets.
//!
//! Test names are sentences of the specification. Comments such as `F-010` name rows of docs/conformance.md.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Notifier, Outbox};
use crate::config::Config;
use crate::directory::AccountNo;
use crate::package;
use crate::presence::Tick;
use crate::sip::Transport;
use crate::sip::headers::param;
use crate::sip::wire::{self, Name};
use crate::transport::{DeliveryToken, Destination, FlowId, Listener, ListenerId, Remote, Source};

mod large;
mod notify;
mod subscribe;
mod together;

const ACME: AccountNo = AccountNo(0);
const UMBRELLA: AccountNo = AccountNo(1);

/// Configuration with two accounts.
const CONFIG: &str = r#"
[sip]
listen = ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]
[[account]]
id = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
name = "Acme"
realm = "acme.test"
[[account]]
id = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
name = "Umbrella"
realm = "umbrella.test"
"#;

/// The notifier with a virtual clock, and all messages that it has sent.
struct Office {
    notifier: Notifier,
    now: u64,
    /// NOTIFYs that the test has not taken out yet.
    notifies: Vec<Notify>,
    /// All other messages that it sent, in order.
    replies: Vec<Reply>,
    /// Kinds of all messages sent so far, in order: `200`, `NOTIFY`.
    log: Vec<String>,
    serial: u32,
}

/// A response of the server.
#[derive(Clone, Debug)]
struct Reply {
    status: u16,
    text: String,
}

/// A NOTIFY or a retransmission of one.
#[derive(Clone, Debug)]
struct Notify {
    at: u64,
    to: Destination,
    ticket: Option<DeliveryToken>,
    cseq: u32,
    call_id: String,
    /// Value of `Subscription-State`.
    state: String,
    body: String,
    text: String,
}

impl Reply {
    fn header(&self, name: Name) -> Option<String> {
        let message = wire::read(self.text.as_bytes()).unwrap().unwrap();
        message.first(name).map(String::from)
    }

    /// Returns the value of a header that the server itself does not parse.
    fn line(&self, name: &str) -> Option<&str> {
        line_of(&self.text, name)
    }
}

fn line_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = text.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

impl Notify {
    fn line(&self, name: &str) -> Option<&str> {
        line_of(&self.text, name)
    }

    /// Returns the `version` of a dialog-info document.
    fn version(&self) -> u32 {
        between(&self.body, "dialog-info\" version=\"", "\"").parse().unwrap()
    }

    fn is_last(&self) -> bool {
        self.state.starts_with("terminated")
    }

    /// Returns the states of the dialogs, in order.
    fn states(&self) -> Vec<String> {
        self.body.split("<state>").skip(1).map(|rest| rest.split('<').next().unwrap().to_string()).collect()
    }

    /// Returns the only state, which is all that a lamp shows.
    fn lamp(&self) -> String {
        self.states().join(" ")
    }
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{from} in {text}"));
    rest.split(to).next().unwrap()
}

fn source(transport: Transport, peer: &str, flow: Option<u64>) -> Source {
    let listener = ListenerId(u8::from(transport == Transport::Tcp));
    Source { transport, listener, peer: peer.parse().unwrap(), flow: flow.map(FlowId), certified: false }
}

/// A watcher of one presentity in one dialog.
#[derive(Clone, Debug)]
struct Phone {
    source: Source,
    /// Watched presentity: `sip:user@realm`.
    whom: String,
    event: String,
    call_id: String,
    tag: String,
    /// Tag of the server, once it is known.
    to_tag: Option<String>,
    cseq: u32,
    /// Additional header lines of the next SUBSCRIBE, each with its CRLF.
    more: String,
    expires_line: bool,
}

impl Phone {
    fn new(name: &str, whom: &str) -> Phone {
        let port = 10_000 + name.bytes().fold(0u32, |sum, b| (sum * 31 + u32::from(b)) % 50_000);
        Phone {
            source: source(Transport::Udp, &format!("127.0.0.1:{port}"), None),
            whom: format!("sip:{whom}"),
            event: "dialog".into(),
            call_id: format!("call-of-{name}"),
            tag: format!("tag-of-{name}"),
            to_tag: None,
            cseq: 0,
            more: String::new(),
            expires_line: true,
        }
    }

    fn of_event(mut self, event: &str) -> Phone {
        self.event = event.into();
        self
    }

    fn over_tcp(mut self, flow: u64) -> Phone {
        self.source = source(Transport::Tcp, &self.source.peer.to_string(), Some(flow));
        self
    }

    fn contact(&self) -> String {
        let parameter = if self.source.flow.is_some() { ";transport=tcp" } else { "" };
        format!("<sip:watcher@{}{parameter}>", self.source.peer)
    }
}

/// A publisher for one presentity with one entity-tag.
#[derive(Clone, Debug)]
struct Publisher {
    whom: String,
    event: &'static str,
    etag: Option<String>,
}

impl Publisher {
    fn new(whom: &str) -> Publisher {
        Publisher { whom: format!("sip:{whom}"), event: "dialog", etag: None }
    }
}

/// Builds a dialog-info document with these calls, each given as Call-ID and state.
fn calls_document(calls: &[(&str, &str)]) -> String {
    document("full", calls)
}

fn document(kind: &str, calls: &[(&str, &str)]) -> String {
    let dialogs: String = calls
        .iter()
        .map(|(id, state)| {
            format!("<dialog id=\"{id}\" call-id=\"{id}\" direction=\"recipient\"><state>{state}</state></dialog>")
        })
        .collect();
    format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
         state=\"{kind}\" entity=\"sip:whoever@acme.test\">{dialogs}</dialog-info>"
    )
}

impl Office {
    fn new() -> Office {
        Office::with(CONFIG)
    }

    fn with(config: &str) -> Office {
        let config = Config::parse(config, "test.toml").unwrap();
        let listener = |transport| Listener {
            transport,
            address: "127.0.0.1:5060".parse().unwrap(),
            sent_by: "127.0.0.1:5060".into(),
        };
        let directory = Arc::new(config.directory());
        let listeners = vec![listener(Transport::Udp), listener(Transport::Tcp)];
        let notifier = Notifier::new(config.notifier(directory, listeners, [7; 16]));
        Office {
            notifier,
            now: 1_700_000_001_000,
            notifies: Vec::new(),
            replies: Vec::new(),
            log: Vec::new(),
            serial: 0,
        }
    }

    /// Sorts the output of the notifier, and continues its fan-outs.
    fn post(&mut self, mut out: Outbox) {
        loop {
            for packet in out.messages.drain(..) {
                let text = String::from_utf8(packet.bytes.to_vec()).unwrap();
                let message = wire::read(&packet.bytes).unwrap().unwrap();
                match message.status() {
                    Some(status) => {
                        self.log.push(status.to_string());
                        self.replies.push(Reply { status, text: text.clone() });
                    }
                    None => {
                        self.log.push("NOTIFY".into());
                        self.notifies.push(Notify {
                            at: self.now,
                            to: packet.to,
                            ticket: packet.ticket,
                            cseq: message.cseq.number,
                            call_id: message.call_id.into(),
                            state: line_of(&text, "Subscription-State").unwrap().into(),
                            body: String::from_utf8(message.body.to_vec()).unwrap(),
                            text: text.clone(),
                        });
                    }
                }
            }
            let Some(number) = out.pending_fan_outs.pop() else { break };
            self.notifier.continue_fan_out(Tick(self.now), number, &mut out);
        }
        assert_eq!(self.notifier.panics(), 0);
    }

    fn receive(&mut self, source: Source, text: &str) {
        let mut out = Outbox::default();
        self.notifier.receive(Tick(self.now), source, text.as_bytes(), &mut out);
        self.post(out);
    }

    /// Sends a request and returns its response.
    fn ask(&mut self, source: Source, text: &str) -> Option<Reply> {
        let before = self.replies.len();
        self.receive(source, text);
        assert!(self.replies.len() <= before + 1, "one answer at most");
        self.replies.get(before).cloned()
    }

    /// Advances the clock, and runs each timer at its due time.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Tick(at)) = self.notifier.next_deadline().filter(|at| at.0 <= end) {
            self.now = at.max(self.now);
            let mut out = Outbox::default();
            self.notifier.pass_time(Tick(self.now), &mut out);
            self.post(out);
        }
        self.now = end;
    }

    fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// Builds the text of a SUBSCRIBE of a phone, and increases the CSeq of the phone.
    fn subscribe_text(&mut self, phone: &mut Phone, expires: u32) -> String {
        phone.cseq += 1;
        let transport = phone.source.transport.to_string().to_uppercase();
        let to_tag = phone.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let expires = if phone.expires_line { format!("Expires: {expires}\r\n") } else { String::new() };
        let (whom, peer) = (&phone.whom, phone.source.peer);
        format!(
            "SUBSCRIBE {whom} SIP/2.0\r\nVia: SIP/2.0/{transport} {peer};branch=z9hG4bKs{};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:watcher@acme.test>;tag={}\r\nTo: <{whom}>{to_tag}\r\nCall-ID: {}\r\nCSeq: {} SUBSCRIBE\r\n\
             Contact: {}\r\nEvent: {}\r\n{expires}{}Content-Length: 0\r\n\r\n",
            self.serial(),
            phone.tag,
            phone.call_id,
            phone.cseq,
            phone.contact(),
            phone.event,
            phone.more,
        )
    }

    /// Subscribes or refreshes; with 0 unsubscribes, or fetches if outside a dialog.
    fn subscribe(&mut self, phone: &mut Phone, expires: u32) -> Reply {
        let text = self.subscribe_text(phone, expires);
        let reply = self.ask(phone.source, &text).expect("an answer");
        if reply.status == 200 && phone.to_tag.is_none() {
            phone.to_tag = reply.header(Name::To).and_then(|to| param(&to, "tag").map(String::from));
        }
        reply
    }

    /// Creates a phone that has subscribed for this number of seconds and has answered its first NOTIFY.
    fn watcher(&mut self, name: &str, whom: &str, expires: u32) -> Phone {
        let mut phone = Phone::new(name, whom);
        self.settle_in(&mut phone, expires);
        phone
    }

    fn settle_in(&mut self, phone: &mut Phone, expires: u32) {
        assert_eq!(self.subscribe(phone, expires).status, 200);
        let first = self.only(phone);
        self.answer(&first, 200);
    }

    /// Takes out the NOTIFYs to a phone since the last call.
    fn heard(&mut self, phone: &Phone) -> Vec<Notify> {
        let (mine, others) = self.notifies.drain(..).partition(|n| n.call_id == phone.call_id);
        self.notifies = others;
        mine
    }

    /// Takes out the NOTIFY to a phone; there must be exactly one.
    fn only(&mut self, phone: &Phone) -> Notify {
        let mut all = self.heard(phone);
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    /// Takes out the NOTIFY to a phone, exactly one, and answers it with 200.
    fn accept(&mut self, phone: &Phone) -> Notify {
        let notify = self.only(phone);
        self.answer(&notify, 200);
        notify
    }

    fn answer(&mut self, notify: &Notify, status: u16) {
        self.answer_with(notify, status, "");
    }

    fn answer_with(&mut self, notify: &Notify, status: u16, more: &str) {
        let text = answer_text(notify, status, more);
        self.receive(source(Transport::Udp, "127.0.0.1:9", None), &text);
    }

    fn publish_text(&mut self, publisher: &Publisher, expires: u32, body: Option<&str>) -> String {
        let serial = self.serial();
        let condition = publisher.etag.as_ref().map(|e| format!("SIP-If-Match: {e}\r\n")).unwrap_or_default();
        let kind = package::by_name(publisher.event).map_or("text/plain", |id| package::get(id).content_type());
        let kind = body.map(|_| format!("Content-Type: {kind}\r\n")).unwrap_or_default();
        let (whom, body) = (&publisher.whom, body.unwrap_or_default());
        format!(
            "PUBLISH {whom} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:7000;branch=z9hG4bKp{serial};rport\r\n\
             From: <{whom}>;tag=p{serial}\r\nTo: <{whom}>\r\nCall-ID: p{serial}\r\nCSeq: 1 PUBLISH\r\n\
             Event: {}\r\nExpires: {expires}\r\n{condition}{kind}Content-Length: {}\r\n\r\n{body}",
            publisher.event,
            body.len(),
        )
    }

    /// Publishes a new state, modifies it, refreshes it (no body) or removes it (0).
    fn publish(&mut self, publisher: &mut Publisher, expires: u32, body: Option<&str>) -> Reply {
        let text = self.publish_text(publisher, expires, body);
        let reply = self.ask(publishing_source(), &text).expect("an answer");
        if reply.status == 200 {
            publisher.etag = reply.line("SIP-ETag").map(String::from);
        }
        reply
    }

    /// Publishes these calls as the full list of calls.
    fn report(&mut self, publisher: &mut Publisher, calls: &[(&str, &str)]) {
        assert_eq!(self.publish(publisher, 3600, Some(&calls_document(calls))).status, 200);
    }

    fn reset(&mut self, account: AccountNo, user: &str) {
        let mut out = Outbox::default();
        self.notifier.reset(Tick(self.now), account, user, &mut out);
        self.post(out);
    }

    fn undeliverable(&mut self, notify: &Notify) {
        let mut out = Outbox::default();
        self.notifier.undeliverable(Tick(self.now), notify.ticket.unwrap(), &mut out);
        self.post(out);
    }

    fn listed(&self, account: AccountNo) -> usize {
        self.notifier.list_subscriptions(account, None).len()
    }

    /// Returns true if nothing is left of any account, not even a timer.
    fn is_empty(&self) -> bool {
        self.notifier.table.is_empty()
            && self.notifier.next_deadline().is_none()
            && (self.notifier.subscriptions(), self.listed(ACME), self.listed(UMBRELLA)) == (0, 0, 0)
    }
}

fn publishing_source() -> Source {
    source(Transport::Udp, "127.0.0.1:7000", None)
}

fn answer_text(notify: &Notify, status: u16, more: &str) -> String {
    let lines: String = ["Via", "From", "To", "Call-ID", "CSeq"]
        .iter()
        .map(|name| format!("{name}: {}\r\n", notify.line(name).unwrap()))
        .collect();
    format!("SIP/2.0 {status} Whatever\r\n{lines}{more}Content-Length: 0\r\n\r\n")
}

fn datagram(peer: &str) -> Destination {
    let peer: SocketAddr = peer.parse().unwrap();
    Destination::Datagram { listener: ListenerId(0), peer }
}

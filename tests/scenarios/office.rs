//! Test kit in virtual time: one notifier, a clock that the test moves, and its phones and publishers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lamplighter::config::Config;
use lamplighter::directory::AccountNo;
use lamplighter::journal::Key;
use lamplighter::notifier::control::SubscriptionRecord;
use lamplighter::notifier::dns_cache::{DnsAnswer, DnsError, DnsQuery};
use lamplighter::notifier::explain::report::LampReport;
use lamplighter::notifier::{Notifier, Outbox, Restored};
use lamplighter::presence::Tick;
use lamplighter::presence::state::CallState;
use lamplighter::sip::Transport;
use lamplighter::sip::headers::param;
use lamplighter::sip::wire::{self, Message, Name};
use lamplighter::transport::{DeliveryToken, Destination, Listener, ListenerId, Source};

pub(crate) const ACME: AccountNo = AccountNo(0);

/// Journal key of the count of starts.
const COUNT_OF_STARTS: Key = Key(1 << 33, 0);

/// One message that the server sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) text: String,
    pub(crate) to: Destination,
    pub(crate) ticket: Option<DeliveryToken>,
}

impl Sent {
    pub(crate) fn message(&self) -> Message<'_> {
        wire::read(self.text.as_bytes()).expect("readable").expect("a message")
    }

    /// Status of a response; 0 for a NOTIFY.
    pub(crate) fn status(&self) -> u16 {
        self.message().status().unwrap_or_default()
    }

    pub(crate) fn is_notify(&self) -> bool {
        self.text.starts_with("NOTIFY ")
    }

    pub(crate) fn cseq(&self) -> u32 {
        self.message().cseq.number
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    pub(crate) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// Version of a dialog-info document.
    pub(crate) fn version(&self) -> u32 {
        let (_, root) = self.body().split_once("<dialog-info").expect("a dialog-info document");
        attribute(root, "version").parse().expect("a version")
    }

    /// Id and state of each dialog in a dialog-info document.
    pub(crate) fn dialogs(&self) -> Vec<(String, String)> {
        let state = |d: &str| d.split("<state>").nth(1).unwrap().split('<').next().unwrap().to_string();
        self.body().split("<dialog ").skip(1).map(|d| (attribute(d, "id").to_string(), state(d))).collect()
    }

    /// The states alone.
    pub(crate) fn states(&self) -> Vec<String> {
        self.dialogs().into_iter().map(|(_, state)| state).collect()
    }
}

fn attribute<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.find(&format!(" {name}=\"")).or_else(|| text.starts_with(&format!("{name}=\"")).then_some(0));
    let rest = &text[start.unwrap_or_else(|| panic!("no {name} in {text}"))..];
    rest.split('"').nth(1).expect("a value")
}

/// A notifier as the server would make it.
fn notifier(config: &str, secret: [u8; 16]) -> Notifier {
    let config = Config::parse(config, "office.toml").unwrap();
    let listener = |transport| Listener {
        transport,
        address: "192.0.2.1:5060".parse().unwrap(),
        sent_by: "192.0.2.1:5060".into(),
    };
    let listeners = vec![listener(Transport::Udp), listener(Transport::Tcp)];
    Notifier::new(config.notifier(Arc::new(config.directory()), listeners, secret))
}

pub(crate) struct Office {
    pub(crate) notifier: Notifier,
    pub(crate) now: u64,
    /// Contents of the journal, except the count of starts.
    pub(crate) disk: BTreeMap<Key, Bytes>,
    /// The count of starts, which is always in the journal.
    starts: Option<(Key, Bytes)>,
    /// DNS queries of the notifier.
    pub(crate) questions: Vec<DnsQuery>,
    config: String,
    next: u32,
}

impl Office {
    pub(crate) fn open() -> Office {
        Office::with("")
    }

    /// A server with more configuration.
    pub(crate) fn with(more: &str) -> Office {
        Office::with_people(more, "")
    }

    /// A server with users and devices of acme.test.
    pub(crate) fn with_people(more: &str, people: &str) -> Office {
        let config = format!(
            "{more}\n[[account]]\nid = \"acme\"\nname = \"Acme\"\nrealm = \"acme.test\"\n{people}\n\
             [[account]]\nid = \"umbrella\"\nname = \"Umbrella\"\nrealm = \"umbrella.test\"\n"
        );
        Office {
            notifier: notifier(&config, [7; 16]),
            now: 1_000_000,
            disk: BTreeMap::new(),
            starts: None,
            questions: Vec::new(),
            config,
            next: 0,
        }
    }

    /// Kills the server and starts it again, with another secret, from the contents of the journal.
    pub(crate) fn crash(&mut self) -> Restored {
        self.notifier = notifier(&self.config, [8; 16]);
        let records = self.disk.clone().into_iter().chain(self.starts.take());
        let mut restored = self.notifier.restore(Tick(self.now), records);
        self.starts = restored.starts.take().and_then(|starts| Some((starts.key, starts.value?)));
        restored
    }

    /// The same with other tenants: each an id and a realm.
    pub(crate) fn crash_into(&mut self, tenants: &[(&str, &str)]) -> Restored {
        let account =
            |(id, realm): &(&str, &str)| format!("[[account]]\nid = \"{id}\"\nname = \"{id}\"\nrealm = \"{realm}\"\n");
        self.config = tenants.iter().map(account).collect();
        self.crash()
    }

    /// Replaces the contents of the journal by a snapshot of the current state.
    pub(crate) fn compact(&mut self) {
        let mut image = BTreeMap::new();
        self.notifier.snapshot(|key, value| assert!(image.insert(key, value).is_none()));
        self.starts = image.remove_entry(&COUNT_OF_STARTS);
        assert!(self.starts.is_some());
        self.disk = image;
    }

    /// Makes a decision that waits for the journal.
    pub(crate) fn decide(&self, f: impl FnOnce(&Notifier, Tick, &mut Outbox)) -> Outbox {
        let mut out = Outbox::default();
        f(&self.notifier, Tick(self.now), &mut out);
        out
    }

    /// Lets the journal refuse a decision.
    pub(crate) fn refuse(&mut self, mut out: Outbox) -> Vec<Sent> {
        out.take_records();
        self.sent(|notifier, now, left| notifier.roll_back(now, out, None, left))
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn sent(&mut self, f: impl FnOnce(&Notifier, Tick, &mut Outbox)) -> Vec<Sent> {
        let mut out = Outbox::default();
        f(&self.notifier, Tick(self.now), &mut out);
        while let Some(number) = out.pending_fan_outs.pop() {
            self.notifier.continue_fan_out(Tick(self.now), number, &mut out);
        }
        self.questions.append(&mut out.dns_queries);
        for record in out.records.drain(..).chain(out.deferred_records.drain(..)) {
            match record.value {
                Some(value) => self.disk.insert(record.key, value),
                None => self.disk.remove(&record.key),
            };
        }
        self.notifier.on_committed(Tick(self.now), &mut out);
        assert_eq!(self.notifier.panics(), 0);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        out.messages
            .iter()
            .map(|packet| Sent { text: text(&packet.bytes), to: packet.to.clone(), ticket: packet.ticket })
            .collect()
    }

    /// Delivers a message.
    pub(crate) fn receive(&mut self, source: Source, text: &str) -> Vec<Sent> {
        self.sent(|notifier, now, out| notifier.receive(now, source, text.as_bytes(), out))
    }

    /// Reports that a message could not be sent.
    pub(crate) fn undeliverable(&mut self, sent: &Sent) -> Vec<Sent> {
        let ticket = sent.ticket.expect("a NOTIFY");
        self.sent(|notifier, now, out| notifier.undeliverable(now, ticket, out))
    }

    /// Answers the first open DNS query.
    pub(crate) fn learn(&mut self, answer: Result<DnsAnswer, DnsError>) -> Vec<Sent> {
        let question = self.questions.remove(0);
        self.sent(|notifier, now, out| {
            notifier.on_dns_answer(now, question, answer, out);
        })
    }

    /// Advances the time; returns the messages sent meanwhile, each with its time.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<(u64, Sent)> {
        let (start, end) = (self.now, self.now + ms);
        let mut all = Vec::new();
        while let Some(Tick(at)) = self.notifier.next_deadline().filter(|at| at.0 <= end) {
            self.now = at.max(self.now);
            let sent = self.sent(|notifier, now, out| notifier.pass_time(now, out));
            all.extend(sent.into_iter().map(|sent| (self.now - start, sent)));
        }
        self.now = end;
        all
    }

    /// The same without the times.
    pub(crate) fn pass_quietly(&mut self, ms: u64) -> Vec<Sent> {
        self.pass(ms).into_iter().map(|(_, sent)| sent).collect()
    }

    pub(crate) fn reset(&mut self, user: &str) -> Vec<Sent> {
        self.sent(|notifier, now, out| notifier.reset(now, ACME, user, out))
    }

    pub(crate) fn set(&mut self, user: &str, state: CallState) -> Vec<Sent> {
        self.sent(|notifier, now, out| notifier.set(now, ACME, user, state, out).unwrap())
    }

    pub(crate) fn list(&self) -> Vec<SubscriptionRecord> {
        self.notifier.list_subscriptions(ACME, None)
    }

    /// Report on one extension of acme.test.
    pub(crate) fn story(&self, user: &str) -> LampReport {
        self.notifier.lamp_story(Tick(self.now), ACME, user).expect("something is known of it")
    }

    /// A new phone that watches `target`, and the messages caused by its SUBSCRIBE.
    pub(crate) fn watch(&mut self, target: &str, event: &str) -> (Phone, Vec<Sent>) {
        let mut phone = self.phone(target, event);
        let sent = phone.subscribe(self, 600);
        (phone, sent)
    }

    /// A new phone with a subscription whose first NOTIFY is answered.
    pub(crate) fn settled(&mut self, target: &str, event: &str) -> Phone {
        let (phone, sent) = self.watch(target, event);
        assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
        assert_eq!(phone.answer(self, &sent[1], 200), []);
        phone
    }

    pub(crate) fn phone(&mut self, target: &str, event: &str) -> Phone {
        let n = self.number();
        let target = if target.contains('@') { format!("sip:{target}") } else { format!("sip:{target}@acme.test") };
        Phone {
            source: udp(&format!("198.51.{}.{}:5060", 100 + n / 250, n % 250 + 1)),
            target,
            event: event.into(),
            call_id: format!("call{n}"),
            tag: format!("tag{n}"),
            to_tag: None,
            cseq: 0,
            more: String::new(),
            instance: String::new(),
        }
    }

    /// Publishes a dialog-info document with these dialogs.
    pub(crate) fn publish(&mut self, user: &str, etag: Option<&str>, dialogs: &str) -> Vec<Sent> {
        self.publish_body(user, etag, 3600, "dialog", "application/dialog-info+xml", &document(user, dialogs))
    }

    /// A PUBLISH of these dialogs, which the test can send any number of times with [`Office::receive`].
    pub(crate) fn publish_request(&mut self, user: &str, etag: Option<&str>, expires: u32, dialogs: &str) -> String {
        let body = if dialogs.is_empty() { String::new() } else { document(user, dialogs) };
        self.request_with(user, etag, expires, "dialog", "application/dialog-info+xml", &body)
    }

    /// The same from another sender, with more header lines.
    pub(crate) fn publish_as(&mut self, from: &str, user: &str, more: &str, dialogs: &str) -> Vec<Sent> {
        let n = self.number();
        let body = format!(
            "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
             state=\"full\" entity=\"sip:{user}@acme.test\">{dialogs}</dialog-info>"
        );
        let request = format!(
            "PUBLISH sip:{user}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKq{n}\r\n{more}\
             From: <sip:{from}@acme.test>;tag=q{n}\r\nTo: <sip:{user}@acme.test>\r\nCall-ID: q{n}\r\nCSeq: 1 PUBLISH\r\n\
             Event: dialog\r\nExpires: 3600\r\nContent-Type: application/dialog-info+xml\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.receive(udp("203.0.113.9:5060"), &request)
    }

    pub(crate) fn publish_body(
        &mut self,
        user: &str,
        etag: Option<&str>,
        expires: u32,
        event: &str,
        content_type: &str,
        body: &str,
    ) -> Vec<Sent> {
        let request = self.request_with(user, etag, expires, event, content_type, body);
        self.receive(udp("203.0.113.9:5060"), &request)
    }

    fn request_with(
        &mut self,
        user: &str,
        etag: Option<&str>,
        expires: u32,
        event: &str,
        content_type: &str,
        body: &str,
    ) -> String {
        let n = self.number();
        let condition = etag.map(|etag| format!("SIP-If-Match: {etag}\r\n")).unwrap_or_default();
        let content = if body.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        format!(
            "PUBLISH sip:{user}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKp{n}\r\n\
             From: <sip:{user}@acme.test>;tag=p{n}\r\nTo: <sip:{user}@acme.test>\r\nCall-ID: p{n}\r\nCSeq: 1 PUBLISH\r\n\
             Event: {event}\r\nExpires: {expires}\r\n{condition}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn document(user: &str, dialogs: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
         state=\"full\" entity=\"sip:{user}@acme.test\">{dialogs}</dialog-info>"
    )
}

/// One dialog element.
pub(crate) fn dialog(call_id: &str, state: &str) -> String {
    format!(
        "<dialog id=\"{call_id}\" call-id=\"{call_id}\" direction=\"recipient\"><state>{state}</state>\
         <remote><identity>sip:bob@acme.test</identity></remote></dialog>"
    )
}

pub(crate) fn udp(peer: &str) -> Source {
    Source {
        transport: Transport::Udp,
        listener: ListenerId(0),
        peer: peer.parse().unwrap(),
        flow: None,
        certified: false,
    }
}

/// A phone with one subscription.
#[derive(Clone)]
pub(crate) struct Phone {
    pub(crate) source: Source,
    pub(crate) target: String,
    pub(crate) event: String,
    pub(crate) call_id: String,
    pub(crate) tag: String,
    pub(crate) to_tag: Option<String>,
    pub(crate) cseq: u32,
    /// Further header lines.
    pub(crate) more: String,
    /// Further parameters of its Contact.
    pub(crate) instance: String,
}

impl Phone {
    pub(crate) fn request(&self, expires: u32) -> String {
        let to_tag = self.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        format!(
            "SUBSCRIBE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {peer};branch=z9hG4bK{call_id}x{cseq}\r\n{more}\
             From: <sip:1002@acme.test>;tag={tag}\r\nTo: <{target}>{to_tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:1002@{peer}>{instance}\r\nEvent: {event}\r\nExpires: {expires}\r\n\
             Content-Length: 0\r\n\r\n",
            target = self.target,
            peer = self.source.peer,
            call_id = self.call_id,
            cseq = self.cseq,
            more = self.more,
            instance = self.instance,
            tag = self.tag,
            event = self.event,
        )
    }

    /// Subscribes or refreshes; with 0 it unsubscribes or fetches.
    pub(crate) fn subscribe(&mut self, office: &mut Office, expires: u32) -> Vec<Sent> {
        self.cseq += 1;
        let sent = office.receive(self.source, &self.request(expires));
        if let Some(answer) = sent.first().filter(|sent| sent.status() == 200) {
            self.to_tag = param(answer.message().to.params, "tag").map(String::from);
        }
        sent
    }

    /// Refreshes, and answers the NOTIFY.
    pub(crate) fn refresh(&mut self, office: &mut Office) {
        let sent = self.subscribe(office, 600);
        assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
        assert_eq!(self.answer(office, &sent[1], 200), []);
    }

    /// Answers a NOTIFY; returns the messages that the server sends because of it.
    pub(crate) fn answer(&self, office: &mut Office, notify: &Sent, status: u16) -> Vec<Sent> {
        self.answer_with(office, notify, status, "")
    }

    pub(crate) fn answer_with(&self, office: &mut Office, notify: &Sent, status: u16, more: &str) -> Vec<Sent> {
        let message = notify.message();
        let mut answer = format!("SIP/2.0 {status} X\r\n{more}");
        for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            for value in message.all(name) {
                answer += &format!("{}: {value}\r\n", name.text());
            }
        }
        answer += "Content-Length: 0\r\n\r\n";
        office.receive(self.source, &answer)
    }
}

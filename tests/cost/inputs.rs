//! The most expensive known messages of a given length, for each header and body that is a list.

use std::sync::Arc;

use lamplighter::config::Config;
use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::presence::Tick;
use lamplighter::sip::Transport;
use lamplighter::transport::{Listener, ListenerId, Source};

/// Approximate length of the longest header line that is parsed to its end.
const LINE: usize = 8_000;

/// Variable parts of one message.
pub(crate) struct Filling {
    /// `SUBSCRIBE` or `PUBLISH`.
    pub(crate) method: &'static str,
    /// Header lines.
    pub(crate) lines: String,
    /// Event package, which defines the type of the body.
    pub(crate) event: &'static str,
    /// The body.
    pub(crate) body: String,
}

/// One kind of message: its name, and a function that makes this many octets of it.
pub(crate) type Kind = (&'static str, fn(usize) -> Filling);

/// Items without repetition, up to this many octets, in header lines called `name`.
fn lines(name: &str, octets: usize, separator: &str, item: impl Fn(usize) -> String) -> String {
    let (mut all, mut line, mut number) = (String::new(), String::new(), 0);
    while all.len() + line.len() + LINE / 8 < octets {
        line += if line.is_empty() { "" } else { separator };
        line += &item(number);
        number += 1;
        if line.len() + LINE / 8 > LINE {
            all += &format!("{name}: {line}\r\n");
            line.clear();
        }
    }
    if line.is_empty() { all } else { all + &format!("{name}: {line}\r\n") }
}

/// Pieces without repetition, up to this many octets.
fn pieces(octets: usize, piece: impl Fn(usize) -> String) -> String {
    let mut all = String::new();
    let mut number = 0;
    while all.len() + 200 < octets {
        all += &piece(number);
        number += 1;
    }
    all
}

fn head(lines: String) -> Filling {
    Filling { method: "SUBSCRIBE", lines, event: "dialog", body: String::new() }
}

fn publish(event: &'static str, body: String) -> Filling {
    Filling { method: "PUBLISH", lines: String::new(), event, body }
}

fn dialogs(octets: usize, dialog: impl Fn(usize) -> String) -> Filling {
    let inner = pieces(octets, dialog);
    publish(
        "dialog",
        format!(
            "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='0' state='partial' entity='x'>{inner}</dialog-info>"
        ),
    )
}

fn pidf(octets: usize, attributes: &str, piece: impl Fn(usize) -> String) -> Filling {
    let inner = pieces(octets.saturating_sub(attributes.len()), piece);
    publish(
        "presence",
        format!("<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='x'{attributes}>{inner}</presence>"),
    )
}

/// Every kind.
pub(crate) const KINDS: &[Kind] = &[
    ("Authorization, other parameters", |n| {
        head(lines(
            "Authorization",
            n,
            ",",
            |i| if i % 2_000 == 0 { format!("Digest a{i}=") } else { format!("a{i}=") },
        ))
    }),
    ("Authorization, quoted parameters", |n| {
        head(pieces(n, |i| {
            format!("Authorization: Digest {}\r\n", (0..30).map(|p| format!("p{i}x{p}=\"\\\"\",")).collect::<String>())
        }))
    }),
    ("Authorization, whole answers", |n| {
        head(pieces(n, |i| {
            format!(
                "Authorization: Digest username=\"{i}\",realm=\"acme.test\",nonce=\"{i}\",uri=\"sip:1001@acme.test\",response=\"{i}\"\r\n"
            )
        }))
    }),
    ("P-Asserted-Identity", |n| head(lines("P-Asserted-Identity", n, ",", |i| format!("<tel:+49{i}>")))),
    ("P-Asserted-Identity, lines", |n| head(pieces(n, |i| format!("P-Asserted-Identity: <tel:+49{i}>\r\n")))),
    ("Via", |n| head(lines("Via", n, ",", |i| format!("SIP/2.0/UDP h{i};branch=z9hG4bK{i}")))),
    ("Via, parameters", |n| {
        head(lines("Via", n, "", |i| if i % 500 == 0 { "SIP/2.0/UDP h;branch=z9".into() } else { format!(";p{i}=1") }))
    }),
    ("Route", |n| head(lines("Route", n, ",", |i| format!("<sip:h{i};lr>")))),
    ("Record-Route", |n| head(lines("Record-Route", n, ",", |i| format!("<sip:h{i};lr>")))),
    ("Contact", |n| head(lines("Contact", n, ",", |i| format!("<sip:1@h{i}>")))),
    ("Contact, parameters", |n| {
        head(lines("Contact", n, "", |i| if i == 0 { "<sip:1@192.0.2.9>".into() } else { format!(";p{i}=1") }))
    }),
    ("Event, parameters", |n| {
        head(lines("Event", n, "", |i| if i == 0 { "dialog".into() } else { format!(";p{i}=\"\\\"\"") }))
    }),
    ("Accept", |n| head(lines("Accept", n, ",", |i| format!("a{i}/b;q=0.1")))),
    ("Require", |n| head(lines("Require", n, ",", |i| format!("r{i}")))),
    ("Supported", |n| head(lines("Supported", n, ",", |i| format!("s{i}")))),
    ("Allow-Events", |n| head(lines("Allow-Events", n, ",", |i| format!("e{i}")))),
    ("SIP-If-Match", |n| Filling {
        lines: lines("SIP-If-Match", n, ",", |i| format!("{i:x}.0.0000000000000000")),
        ..publish("dialog", String::new())
    }),
    ("Content-Encoding", |n| Filling {
        lines: lines("Content-Encoding", n, ",", |i| format!("c{i}")),
        ..publish("dialog", "x".into())
    }),
    ("Content-Type, parameters", |n| Filling {
        lines: lines("Content-Type", n, "", |i| {
            if i == 0 { "application/dialog-info+xml".into() } else { format!(";p{i}=1") }
        }),
        ..publish("dialog", "x".into())
    }),
    ("unknown headers", |n| head(pieces(n, |i| format!("X{i}:\r\n")))),
    ("From, quotes", |n| head(lines("X-From", n, "", |_| "\"\\\"<>\",".into()))),
    ("attributes", |n| {
        publish(
            "dialog",
            format!("<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' {}/>", pieces(n, |i| format!(" a{i}=''"))),
        )
    }),
    ("attributes of many elements", |n| {
        dialogs(n, |i| format!("<a{}/>", (0..60).map(|a| format!(" a{i}x{a}=''")).collect::<String>()))
    }),
    ("namespaces", |n| {
        let names: String = (0..62).map(|i| format!(" xmlns:n{i}='u{i}'")).collect();
        pidf(n, &names, |_| "<n0:b/>".into())
    }),
    ("namespaces of attributes", |n| {
        let names: String = (0..62).map(|i| format!(" xmlns:n{i}='u{i}'")).collect();
        pidf(n, &names, |_| "<n0:b n1:c='' n2:d='' n3:e=''/>".into())
    }),
    ("elements", |n| pidf(n, "", |_| "<a/>".into())),
    ("elements, nested", |n| pidf(n, "", |_| "<a>".repeat(25) + &"</a>".repeat(25))),
    ("text in pieces", |n| pidf(n, "", |_| "&amp;<!---->".into())),
    ("tuples", |n| {
        pidf(n, "", |i| format!("<tuple id='{i}'><status><basic>open</basic></status><note>n</note></tuple>"))
    }),
    ("notes", |n| pidf(n, "", |i| format!("<note>{i}</note>"))),
    ("activities", |n| {
        pidf(n, " xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'", |_| "<r:activities><r:away/></r:activities>".into())
    }),
    ("dialogs", |n| dialogs(n, |i| format!("<dialog id='{i}'><state>early</state></dialog>"))),
    ("dialogs with a Call-ID", |n| {
        dialogs(n, |i| format!("<dialog id='{i}' call-id='c{i}'><state>early</state></dialog>"))
    }),
    ("dialogs of one id", |n| dialogs(n, |i| format!("<dialog id='a' call-id='c{i}'><state>early</state></dialog>"))),
    ("branches of one call", |n| {
        dialogs(n, |i| {
            format!("<dialog id='{i}' call-id='c' local-tag='l' remote-tag='{i}'><state>early</state></dialog>")
        })
    }),
    ("branches of one call by one tag", |n| {
        dialogs(n, |i| format!("<dialog id='{i}' call-id='c' remote-tag='x{i}'><state>early</state></dialog>"))
    }),
    ("branches of one call without tags", |n| {
        dialogs(n, |i| format!("<dialog id='{i}' call-id='c'><state>early</state></dialog>"))
    }),
    ("ends of branches", |n| {
        dialogs(n, |i| format!("<dialog id='{i}' call-id='c' remote-tag='{i}'><state>terminated</state></dialog>"))
    }),
    ("ends of unknown calls", |n| {
        dialogs(n, |i| format!("<dialog id='{i}' call-id='u{i}'><state>terminated</state></dialog>"))
    }),
    ("lines of a message summary", |n| {
        publish("message-summary", format!("Messages-Waiting: yes\r\n{}", pieces(n, |i| format!("X{i}: 1/1\r\n"))))
    }),
    ("folded lines of a message summary", |n| {
        publish("message-summary", format!("Messages-Waiting: yes\r\nX: {}", pieces(n, |_| "x\r\n ".into())))
    }),
];

/// Server that receives the messages, with an extension that has the most calls it can have, all of them branches of
/// one.
pub(crate) struct Target {
    notifier: Notifier,
    out: Outbox,
    sent: usize,
}

impl Target {
    /// A server that has received no message yet.
    pub(crate) fn new() -> Target {
        let config = "[access]\nauthenticate = \"digest\"\ntrusted_proxies = [\"192.0.2.9\"]\n\
            [rate_limits]\nverified_source = 0\nunverified_source = 1000000\nper_address = 1000000\nunverified_total = 1000000\n\
            [[account]]\nid = \"acme\"\nname = \"Acme\"\nrealm = \"acme.test\"\n";
        let config = Config::parse(config, "cost.toml").expect("a configuration");
        let listener = |transport| Listener {
            transport,
            address: ([192, 0, 2, 1], 5060).into(),
            sent_by: "192.0.2.1:5060".into(),
        };
        let listeners = vec![listener(Transport::Udp), listener(Transport::Tcp)];
        let notifier = Notifier::new(config.notifier(Arc::new(config.directory()), listeners, [7; 16]));
        let mut target = Target { notifier, out: Outbox::default(), sent: 0 };
        let branches = |state: &str, name: &str, count: usize| {
            let branch = |i| {
                format!(
                    "<dialog id='{name}{i}' call-id='c' local-tag='l' remote-tag='{name}{i}'><state>{state}</state></dialog>"
                )
            };
            let inner: String = (0..count).map(branch).collect();
            publish(
                "dialog",
                format!(
                    "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='0' state='partial' entity='x'>{inner}</dialog-info>"
                ),
            )
        };
        for filling in [branches("early", "e", 250), branches("terminated", "e", 250), branches("early", "l", 250)] {
            target.send(&filling);
        }
        target
    }

    /// Sends a message from a trusted source, or from an unverified one where that costs more.
    pub(crate) fn send(&mut self, filling: &Filling) -> usize {
        self.sent += 1;
        let (n, Filling { method, lines, event, body }) = (self.sent, filling);
        let given = |name: &str| lines.starts_with(&format!("{name}: "));
        let line = |name: &str, value: &str| if given(name) { String::new() } else { format!("{name}: {value}\r\n") };
        let content = match *event {
            "dialog" => "application/dialog-info+xml",
            "presence" => "application/pidf+xml",
            _ => "application/simple-message-summary",
        };
        let text = format!(
            "{method} sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKcost{n}\r\n\
             From: <sip:1001@acme.test>;tag=f{n}\r\nTo: <sip:1001@acme.test>\r\nCall-ID: {n}\r\nCSeq: 1 {method}\r\n\
             {}{}{}{lines}Expires: 600\r\nContent-Length: {}\r\n\r\n{body}",
            line("Contact", "<sip:1001@192.0.2.9:5060>"),
            line("Event", event),
            if body.is_empty() { String::new() } else { line("Content-Type", content) },
            body.len(),
        );
        let address = if given("Authorization") { [203, 0, 113, 9] } else { [192, 0, 2, 9] };
        let peer = (address, 5060).into();
        let source = Source { transport: Transport::Udp, listener: ListenerId(0), peer, flow: None, certified: false };
        self.notifier.receive(Tick(1_000_000 + n as u64), source, text.as_bytes(), &mut self.out);
        self.out.messages.clear();
        self.out.records.clear();
        self.out.deferred_records.clear();
        text.len()
    }
}

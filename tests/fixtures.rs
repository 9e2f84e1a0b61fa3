//! Fixtures: every file in `fixtures/` is fed to the core. The output is compared twice: with the expectation in
//! `fixtures/README.md`, and with a snapshot of the exact bytes.
//!
//! A changed response shows as a changed snapshot: review it, and accept it with `INSTA_UPDATE=always cargo test`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamplighter::config::Config;
use lamplighter::notifier::{Notifier, Outbox, Settings};
use lamplighter::presence::Tick;
use lamplighter::sip::Transport;
use lamplighter::sip::headers::Event;
use lamplighter::sip::wire::{self, Frame, Framer, Name, ParseError, StartLine};
use lamplighter::transport::{Destination, FlowId, Listener, ListenerId, Remote, Source};

const CONFIG: &str = r#"
[[account]]
id = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
name = "Acme"
realm = "acme.test"
"#;

fn notifier() -> Notifier {
    let config = Config::parse(CONFIG, "fixtures.toml").expect("the configuration is good");
    let listener = |transport, address: &str| Listener {
        transport,
        address: address.parse().expect("an address"),
        sent_by: address.into(),
    };
    let listeners = vec![
        listener(Transport::Udp, "192.0.2.1:5060"),
        listener(Transport::Tcp, "192.0.2.1:5060"),
        listener(Transport::Udp, "[2001:db8::1]:5060"),
        listener(Transport::Tcp, "[2001:db8::1]:5060"),
    ];
    // It trusts 127.0.0.0/8, which contains the edge proxy of the Kamailio fixtures.
    let settings = config.notifier(Arc::new(config.directory()), listeners, *b"fixed for tests!");
    Notifier::new(Settings { journal: false, ..settings })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Rows of the README: file name (with its folder), and the expectation.
fn expectations() -> BTreeMap<String, String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("fixtures/README.md");
    let mut rows = BTreeMap::new();
    let mut folder = "";
    for line in readme.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            folder = heading.split('/').next().unwrap_or_default();
        } else if let Some(row) = line.strip_prefix("| `") {
            let file = row.split('`').next().unwrap_or_default();
            let expected = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            rows.insert(format!("{folder}/{file}"), expected.to_string());
        }
    }
    rows
}

/// Files of one folder, by name.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(root().join(folder))
        .expect("a folder of fixtures")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "sip"))
        .map(|path| {
            let name = format!("{folder}/{}", path.file_name().and_then(|n| n.to_str()).expect("a plain name"));
            (name, std::fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {folder}");
    files
}

/// Source address of a fixture: the address in its top Via, if there is one.
fn source_of(name: &str, bytes: &[u8]) -> Source {
    let via = wire::read(bytes).ok().flatten().map(|m| (m.via.host.ip(), m.via.port, m.via.transport));
    let (ip, port, transport) = via.unwrap_or((None, None, None));
    let ip = ip.unwrap_or_else(|| "192.0.2.99".parse().expect("an address"));
    let tcp = name.ends_with("-tcp.sip") || transport == Some(Transport::Tcp);
    let listener = ListenerId(match (tcp, ip.is_ipv4()) {
        (false, true) => 0,
        (true, true) => 1,
        (false, false) => 2,
        (true, false) => 3,
    });
    Source {
        transport: if tcp { Transport::Tcp } else { Transport::Udp },
        listener,
        peer: (ip, port.unwrap_or(5060)).into(),
        flow: tcp.then_some(FlowId(7)),
        certified: false,
    }
}

/// Feeds a fixture to the notifier as its transport would.
fn feed(notifier: &Notifier, source: Source, bytes: &[u8], out: &mut Outbox) {
    if source.flow.is_none() {
        return notifier.receive(Tick(1_000), source, bytes, out);
    }
    let mut framer = Framer::default();
    framer.buffer().extend_from_slice(bytes);
    loop {
        match framer.next_frame() {
            Ok(Some(Frame::Message(message))) => notifier.receive(Tick(1_000), source, &message, out),
            Ok(Some(Frame::Ping)) => {}
            Ok(Some(Frame::TooLarge(head))) => {
                notifier.receive_malformed(Tick(1_000), source, ParseError::TooLarge, &head, out)
            }
            Ok(None) => return,
            Err((fault, rest)) => return notifier.receive_malformed(Tick(1_000), source, fault, &rest, out),
        }
    }
}

/// Formats the messages sent, for people.
fn show(out: &Outbox) -> String {
    let mut text = String::new();
    for packet in &out.messages {
        let to = match packet.to {
            Destination::Datagram { peer, .. } => format!("udp to {peer}"),
            Destination::Flow { otherwise: None, .. } => "on the same connection".to_string(),
            Destination::Flow { otherwise: Some(Remote { peer, .. }), .. } => {
                format!("on the same connection, else tcp to {peer}")
            }
            Destination::Connection(Remote { peer, .. }) => format!("tcp to {peer}"),
        };
        let message = String::from_utf8_lossy(&packet.bytes).replace("\r\n", "\n");
        let _ = writeln!(text, "--- {to}\n{message}");
    }
    if text.is_empty() { "(silence)\n".into() } else { text }
}

/// Statuses of the responses, and number of NOTIFYs among the messages sent.
fn statuses(out: &Outbox) -> (Vec<u16>, usize) {
    let (mut statuses, mut notifies) = (Vec::new(), 0);
    for packet in &out.messages {
        // Only the head is parsed: a response copies From and To unchanged, and they may be invalid.
        let text = std::str::from_utf8(&packet.bytes).expect("our answers are UTF-8");
        match wire::Head::find(text).expect("our answers have a head").0.start {
            StartLine::Response { status } => statuses.push(status),
            StartLine::Request { .. } => notifies += 1,
        }
    }
    (statuses, notifies)
}

/// Checks the messages sent against the text of the README.
fn check(name: &str, expected: &str, out: &Outbox) {
    let (statuses, notifies) = statuses(out);
    // Status codes stand before the first explanation; the other possible expectations are "silence" and "CRLF".
    let head = expected.split(" with Retry-After").next().unwrap_or_default();
    let allowed: Vec<u16> = head
        .split(|c: char| !c.is_ascii_digit())
        .filter(|word| word.len() == 3)
        .filter_map(|word| word.parse().ok())
        .filter(|code| (200..700).contains(code))
        .collect();
    let silence = expected.contains("silence") || expected.starts_with("CRLF") && allowed.is_empty();
    match statuses[..] {
        [] => assert!(silence, "{name}: silence, but expected: {expected}"),
        [status] => assert!(allowed.contains(&status), "{name}: {status}, but expected: {expected}"),
        _ => panic!("{name}: more than one answer: {statuses:?}"),
    }
    if expected.contains("then NOTIFY") || expected.contains("then one NOTIFY") {
        assert!(notifies == 1 || !statuses.contains(&200), "{name}: {notifies} NOTIFYs, but expected: {expected}");
    }
}

fn snapshot(name: &str, text: &str) {
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers");
    insta::with_settings!({ snapshot_path => snapshots, prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name.trim_end_matches(".sip").replace('/', "--"), text);
    });
}

#[test]
fn every_fixture_has_a_row_in_the_readme_and_every_row_a_fixture() {
    let mut present: Vec<_> = ["phones", "publish", "bad"].into_iter().flat_map(files).map(|(name, _)| name).collect();
    present.sort();
    let described: Vec<_> = expectations().into_keys().collect();
    assert_eq!(present, described);
}

#[test]
fn phones_and_bad_input_are_answered_as_expected() {
    let expectations = expectations();
    for (name, bytes) in ["phones", "bad"].into_iter().flat_map(files) {
        let notifier = notifier();
        let mut out = Outbox::default();
        feed(&notifier, source_of(&name, &bytes), &bytes, &mut out);
        assert_eq!(notifier.panics(), 0, "{name}");
        check(&name, &expectations[&name], &out);
        snapshot(&name, &show(&out));
    }
}

#[test]
fn publishers_are_answered_and_their_watcher_sees_what_they_say() {
    let expectations = expectations();
    for (name, bytes) in files("publish") {
        let notifier = notifier();
        let mut out = Outbox::default();
        watch(&notifier, &bytes, &mut out);
        let before = out.messages.len();
        feed(&notifier, source_of(&name, &bytes), &bytes, &mut out);
        out.messages.drain(..before);
        assert_eq!(notifier.panics(), 0, "{name}");
        check(&name, &expectations[&name], &out);
        snapshot(&name, &show(&out));
    }
}

/// Subscribes a phone to the presentity of the PUBLISH, and answers the first NOTIFY.
fn watch(notifier: &Notifier, publish: &[u8], out: &mut Outbox) {
    let Some(message) = wire::read(publish).ok().flatten() else { return };
    let Some(uri) = message.uri.map(|uri| uri.text) else { return };
    let event = message.first(Name::Event).and_then(Event::read).map_or("dialog", |event| event.package);
    let subscribe = format!(
        "SUBSCRIBE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.50;branch=z9hG4bKwatch\r\nFrom: <sip:1002@acme.test>;tag=w\r\n\
         To: <{uri}>\r\nCall-ID: watch\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:1002@192.0.2.50>\r\nEvent: {event}\r\n\
         Expires: 600\r\nContent-Length: 0\r\n\r\n"
    );
    let source = source_of("watch", subscribe.as_bytes());
    notifier.receive(Tick(0), source, subscribe.as_bytes(), out);
    let notify = out.messages.last().expect("a NOTIFY").bytes.clone();
    let notify = wire::read(&notify).expect("readable").expect("a message");
    let mut answer = Vec::new();
    let peer = "192.0.2.1:5060".parse().expect("an address");
    wire::reply(&mut answer, &lamplighter::sip::StatusCode::OK, "OK", &notify.head, peer, None).end();
    notifier.receive(Tick(10), source, &answer, out);
}

//! Bytes from strangers cannot make us panic, loop, lose our place in a stream, or say what they want said.
//!
//! As plain tests these get the same inputs every time; docs/fuzzing.md tells how to run them on new ones, longer and
//! led by coverage.

#[path = "torture/inputs.rs"]
mod inputs;
#[path = "torture/mutation.rs"]
mod mutation;
#[path = "torture/notifier.rs"]
mod notifier;

use bytes::Bytes;
use inputs::fuzz;
use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::presence::Tick;
use lamplighter::sip::headers::{self, CSeq, Event, NameAddr, Via};
use lamplighter::sip::uri::{Scheme, Uri, percent_decode};
use lamplighter::sip::wire::{self, Frame, Framer, Head, Message, Name, Writer};
use lamplighter::transport::Source;
use mutation::{Change, Mutation, SEEDS, TOKENS, mutate, mutated, speckled};

/// Every header that we ever write. Anything else in a message of ours was smuggled in.
const OURS: [&str; 28] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Allow",
    "Allow-Events",
    "Call-ID",
    "Contact",
    "Content-Length",
    "Content-Type",
    "CSeq",
    "Event",
    "Expires",
    "From",
    "Max-Forwards",
    "Min-Expires",
    "Record-Route",
    "Retry-After",
    "Route",
    "Server",
    "SIP-ETag",
    "Subscription-State",
    "Supported",
    "To",
    "Unsupported",
    "User-Agent",
    "Via",
    "Warning",
    "WWW-Authenticate",
];

/// A message of ours is whole, in itself right, and holds nothing that we did not mean to say.
fn ours_is_sound(bytes: &[u8]) -> Head<'_> {
    let shown = || String::from_utf8_lossy(bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line");
    let text = std::str::from_utf8(&bytes[..end + 4]).expect("we write UTF-8");
    for line in text[..end].split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {}", shown()));
        assert!(OURS.contains(&name), "{name:?} in {}", shown());
        assert!(!value.contains(|c: char| c < ' ' || c == '\x7f'), "{line:?}");
    }
    let (head, body_at) = Head::find(text).unwrap_or_else(|fault| panic!("{fault}: {}", shown()));
    assert_eq!(head.fault, None, "{}", shown());
    let length = head.first(Name::ContentLength).expect("Content-Length");
    assert_eq!(length.parse(), Ok(bytes.len() - body_at), "{}", shown());
    head
}

/// Without what the writer may change: blanks, and control characters, which become blanks.
fn unfolded(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !c.is_ascii_control()).collect()
}

/// The answer to a request that can be read can be read too, and finds its way back to it.
fn fits(answer: &Message<'_>, request: &Message<'_>) {
    assert_eq!((answer.call_id, answer.cseq), (request.call_id, request.cseq));
    assert_eq!(answer.from.tag(), request.from.tag(), "{:?} became {:?}", request.from.text, answer.from.text);
    assert_eq!(answer.via.branch().map(unfolded), request.via.branch().map(unfolded));
    assert_eq!(unfolded(answer.via.sent_by), unfolded(request.via.sent_by));
    let vias = |message: &Message<'_>| message.all(Name::Via).flat_map(headers::list).skip(1).map(unfolded).collect();
    let (asked, answered): (Vec<String>, Vec<String>) = (vias(request), vias(answer));
    assert_eq!(asked, answered);
    assert!(answer.to.tag().is_some());
    assert!(request.to.tag().is_none_or(|tag| answer.to.tag() == Some(tag)));
}

/// Feeds a notifier and checks all that it says.
fn feed(notifier: &Notifier, source: Source, bytes: &[u8]) -> Outbox {
    feed_again(notifier, source, bytes, &mut Vec::new())
}

/// The same for one that was fed before: what it has said then it may say again, to what it takes for a repetition.
fn feed_again(notifier: &Notifier, source: Source, bytes: &[u8], said: &mut Vec<Bytes>) -> Outbox {
    let mut out = Outbox::default();
    notifier.receive(Tick(0), source, bytes, &mut out);
    assert_eq!(notifier.panics(), 0, "a panic on {:?}", String::from_utf8_lossy(bytes));
    assert!(out.messages.len() <= 2, "{} messages for one", out.messages.len());
    let request = wire::read(bytes).ok().flatten().filter(|message| message.request().is_some());
    for packet in &out.messages {
        let head = ours_is_sound(&packet.bytes);
        if said.contains(&packet.bytes) {
            continue;
        }
        said.push(packet.bytes.clone());
        let is_notify = matches!(head.start, wire::StartLine::Request { method: "NOTIFY", .. });
        match &request {
            // It answers something that could not be read, so what it copies need not be readable either.
            None => assert!(!is_notify),
            Some(request) => {
                let ours = wire::read(&packet.bytes).unwrap_or_else(|refused| {
                    panic!("{}: {}", refused.fault, String::from_utf8_lossy(&packet.bytes));
                });
                let ours = ours.expect("a message");
                match is_notify {
                    true => assert_eq!(unfolded(ours.to.text), unfolded(request.from.text)),
                    false => fits(&ours, request),
                }
            }
        }
    }
    out
}

/// A 200 to a message of ours.
fn ok_to(notify: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(notify);
    let kept = |line: &&str| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| line.starts_with(name));
    let lines: Vec<_> = text.split("\r\n").take_while(|line| !line.is_empty()).filter(kept).collect();
    format!("SIP/2.0 200 OK\r\n{}\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// What can be read holds together.
fn read_is_sound(bytes: &[u8]) {
    let Ok(Some(message)) = wire::read(bytes) else { return };
    assert!(message.head.fault.is_none() && !message.head.headers.is_empty());
    assert!(message.head.headers.len() <= wire::MAX_HEADERS + 1 && message.body.len() <= bytes.len());
    assert_ne!(message.request().is_some(), message.status().is_some());
    assert!(message.cseq.number < 1 << 31);
    if let Some((_, uri)) = message.request() {
        assert!(Uri::read(uri).is_some());
    }
}

#[test]
fn arbitrary_bytes_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        read_is_sound(bytes);
        feed(&notifier::notifier(), notifier::udp_source("203.0.113.9:5060"), bytes);
    });
}

#[test]
fn arbitrary_heads_behind_a_start_line_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        let message = [b"SUBSCRIBE sip:1@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n", &**bytes].concat();
        read_is_sound(&message);
        feed(&notifier::notifier(), notifier::udp_source("203.0.113.9:5060"), &message);
    });
}

#[test]
fn mutated_messages_are_read_or_refused() {
    fuzz!(Mutation, |mutation| read_is_sound(&mutated(mutation)));
}

#[test]
fn whatever_a_notifier_gets_it_says_only_what_it_means_to_say() {
    fuzz!((Mutation, Mutation, bool), |(first, second, stream)| {
        let notifier = notifier::notifier();
        let source = match stream {
            true => notifier::tcp_source("203.0.113.9:5060"),
            false => notifier::udp_source("192.0.2.99:5070"),
        };
        let mut said = Vec::new();
        for bytes in [mutated(first), mutated(second)] {
            let out = feed_again(&notifier, source, &bytes, &mut said);
            for notify in out.messages.iter().skip(1) {
                feed(&notifier, source, &ok_to(&notify.bytes));
            }
        }
    });
}

#[test]
fn mutated_answers_to_a_notify_are_taken_or_not() {
    let seed = ordinary(b"SUBSCRIBE");
    fuzz!(Vec<Change>, |changes| {
        let notifier = notifier::notifier();
        let source = notifier::udp_source("192.0.2.99:5070");
        let out = feed(&notifier, source, seed);
        let answer = mutate(&ok_to(&out.messages[1].bytes), &changes[..changes.len().min(3)]);
        let mut out = Outbox::default();
        notifier.receive(Tick(10), source, &answer, &mut out);
        notifier.pass_time(Tick(600), &mut out);
        assert_eq!(notifier.panics(), 0);
        out.messages.iter().for_each(|packet| drop(ours_is_sound(&packet.bytes)));
    });
}

/// The shortest fixture of this method that is taken.
fn ordinary(method: &[u8]) -> &'static [u8] {
    let source = notifier::udp_source("192.0.2.99:5070");
    let taken = |seed: &&Vec<u8>| {
        seed.starts_with(method)
            && feed(&notifier::notifier(), source, seed)
                .messages
                .first()
                .is_some_and(|m| m.bytes.starts_with(b"SIP/2.0 200"))
    };
    SEEDS.iter().filter(taken).min_by_key(|seed| seed.len()).expect("one that is taken")
}

/// What a stream holds: messages and pings up to the fault that ends it.
fn frames(stream: &[u8], chunks: &[u8]) -> Vec<Result<Frame, wire::Fault>> {
    let (mut framer, mut found, mut rest) = (Framer::default(), Vec::new(), stream);
    let mut sizes = chunks.iter().map(|size| usize::from(*size)).chain(std::iter::repeat(4096));
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        framer.buffer().extend_from_slice(now);
        rest = later;
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => found.push(Ok(frame)),
                Ok(None) => break,
                Err((fault, _)) => {
                    found.push(Err(fault));
                    return found;
                }
            }
        }
    }
    found
}

#[test]
fn a_stream_holds_the_same_messages_whatever_the_chunks() {
    fuzz!((Vec<Mutation>, Vec<u8>), |(mutations, chunks)| {
        let stream: Vec<u8> = mutations.iter().take(4).flat_map(mutated).collect();
        let (whole, cut) = (frames(&stream, &[]), frames(&stream, chunks));
        assert_eq!(whole, cut);
        for frame in &whole {
            let Ok(Frame::Message(bytes)) = frame else { continue };
            // The reader and the framer agree on where the message ends, or somebody smuggles one inside another.
            if let Ok(Some(message)) = wire::read(bytes) {
                let head = &bytes[..bytes.len() - message.body.len()];
                assert!(head.ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(bytes));
            }
        }
    });
}

fn values_are_sound(text: &str) {
    if let Some(uri) = Uri::read(text) {
        assert_eq!(uri.text, text);
        if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            let address = uri.address();
            assert!(text.starts_with(address), "{text:?}");
            let plain = Uri::read(address).unwrap_or_else(|| panic!("{address:?} of {text:?}"));
            assert_eq!((plain.user, plain.host, plain.port), (uri.user, uri.host, uri.port), "{text:?}");
            assert_eq!((plain.params, plain.headers), ("", ""), "{text:?}");
        }
    }
    if let Some(item) = NameAddr::read(text) {
        assert!(text.contains(item.text) && item.text.contains(item.uri) && item.text.contains(item.params));
        assert_eq!(NameAddr::read(item.text), Some(item), "{text:?}");
        // We add parameters behind it: they have to be parameters.
        let tagged = format!("{};tag=ours", item.text);
        let tagged = NameAddr::read(&tagged).unwrap_or_else(|| panic!("{tagged:?}"));
        assert_eq!(tagged.uri, item.uri);
        // Messages with an empty tag are refused before they get there.
        if headers::param(item.params, "tag") != Some("") {
            assert_eq!(tagged.tag(), item.tag().or(Some("ours")), "{text:?}");
        }
    }
    if let Some(via) = Via::first_of(text) {
        assert!(text.contains(via.text) && via.text.contains(via.sent_by), "{text:?}");
    }
    if let Some(cseq) = CSeq::read(text) {
        assert!(cseq.number < 1 << 31 && text.contains(cseq.method));
    }
    if let Some(event) = Event::read(text) {
        assert!(text.contains(event.package) && event.id.is_none_or(|id| text.contains(id)));
    }
    let (first, rest) = headers::split_first(text);
    assert_eq!([first, rest].concat(), text);
    assert_eq!(headers::list(text).next(), Some(first.trim_matches([' ', '\t', '\r', '\n'])));
    assert!(headers::list(text).count() <= text.matches(',').count() + 1);
    headers::accepts([text].into_iter(), "application/dialog-info+xml");
    headers::media_type(text);
    headers::seconds(text);
    headers::retry_after(text);
    assert!(percent_decode(text).len() <= text.len());
}

#[test]
fn values_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| values_are_sound(&String::from_utf8_lossy(bytes)));
}

#[test]
fn values_full_of_separators_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        let text = speckled(bytes);
        for prefix in ["", "sip:", "sip:a@", "<sip:a@b>", "\"a\" <sip:b>;", "SIP/2.0/UDP h;", "SIP/2.0/UDP ", "1 "] {
            values_are_sound(&format!("{prefix}{text}"));
        }
    });
}

#[test]
fn no_value_whatever_it_holds_adds_a_header_or_ends_the_head() {
    fuzz!((Vec<u8>, Vec<u8>, Vec<u8>), |(uri, value, body)| {
        let mut out = Vec::new();
        let mut writer = Writer::request(&mut out, "NOTIFY", &format!("sip:{}", speckled(uri)));
        writer.header("Subject", String::from_utf8_lossy(value)).header("Server", speckled(value));
        writer.body("text/plain", body);
        let end = out.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line") + 4;
        assert_eq!(&out[end..], body);
        let lines: Vec<_> = std::str::from_utf8(&out[..end - 4]).expect("UTF-8").split("\r\n").collect();
        let names: Vec<_> = lines.iter().skip(1).filter_map(|line| line.split_once(": ").map(|(n, _)| n)).collect();
        assert_eq!(names, ["Subject", "Server", "Content-Type", "Content-Length"]);
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| !line.contains(|c: char| c < ' ' || c == '\x7f')));
    });
}

#[test]
fn fixtures_cut_at_every_byte_are_read_or_refused() {
    for seed in SEEDS.iter() {
        (0..=seed.len()).for_each(|at| read_is_sound(&seed[..at]));
    }
}

#[test]
fn a_request_with_every_token_at_every_byte_is_answered_soundly() {
    for start in [&b"SUBSCRIBE"[..], b"OPTIONS"] {
        let seed = ordinary(start);
        for token in TOKENS {
            for at in 0..=seed.len() {
                // A new one each time: one that has seen the branch would repeat the answer that it gave.
                let notifier = notifier::notifier();
                let bytes = [&seed[..at], token, &seed[at..]].concat();
                let out = feed(&notifier, notifier::udp_source("192.0.2.99:5070"), &bytes);
                for notify in out.messages.iter().skip(1) {
                    feed(&notifier, notifier::udp_source("192.0.2.99:5070"), &ok_to(&notify.bytes));
                }
            }
        }
    }
}

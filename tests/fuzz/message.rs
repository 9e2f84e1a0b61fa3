//! Target `message`: a sequence of arbitrary messages to a complete notifier.
//!
//! An input is the text of one peer, with [`BETWEEN`] between two messages. It is sent to three notifiers: by a
//! trusted proxy whose phone answers, by an unverified source that never answers, and on a connection by a peer that
//! has to authenticate and can. `{tag}` stands for the To tag of the last response to a SUBSCRIBE, `{etag}` for the
//! last entity-tag; without them random inputs would never get into a dialog.

use std::sync::LazyLock;

use lamplighter::sip::wire::{self, Message};
use lamplighter::transport::OutboundMessage;
use md5::{Digest as _, Md5};

use super::fixtures::{FIXTURES, PUBLISH, SUBSCRIBE, fixtures};
use super::notifier::{House, notifier, tcp_source, udp_source};
use super::sound::{ok_to, read_is_sound};
use super::talk::Talk;
use super::target::Target;

/// Separator of two messages in an input.
const BETWEEN: &[u8] = b"\n~\n";
/// Most messages taken from one input.
const MOST: usize = 6;
/// Pause between two messages (ms): long enough for a NOTIFY to be retransmitted.
const PAUSE: u64 = 600;

/// Configuration that requires authentication and has low rate limits. 1002 is in most of the fixtures.
const GUARDED: &str = r#"
[access]
authenticate = "digest"
trusted_proxies = []
[rate_limits]
verified_source = 2
[[account]]
id = "acc00000000000000000000000000001"
realm = "acme.test"
  [[account.device]]
  id = "d1"
  sip = { username = "1001", password = "p", publishes = "account" }
  [[account.device]]
  id = "d2"
  sip = { username = "1002", password = "p", publishes = "account" }
"#;

/// Behaviour of a peer on received messages.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    Silent,
    Proves,
}

pub(crate) const TARGET: Target = Target { name: "message", run: message, seeds, words: WORDS };

fn message(bytes: &[u8]) {
    answers(bytes);
}

/// Status of the last response to each message of an input, by each of the three notifiers.
pub(crate) fn answers(bytes: &[u8]) -> [Vec<u16>; 3] {
    static GUARDED_HOUSE: LazyLock<House> = LazyLock::new(|| House::new(GUARDED));
    let (open, strange, guarded) = (notifier(), notifier(), GUARDED_HOUSE.notifier());
    [
        said(bytes, Talk::new(&open, udp_source("192.0.2.99:5070"), true), Manner::Answers),
        said(bytes, Talk::new(&strange, udp_source("203.0.113.9:5060"), false), Manner::Silent),
        said(bytes, Talk::new(&guarded, tcp_source("203.0.113.9:5060"), false), Manner::Proves),
    ]
}

fn said(mut rest: &[u8], mut talk: Talk<'_>, manner: Manner) -> Vec<u16> {
    let (mut tag, mut etag, mut statuses) = (String::new(), String::new(), Vec::new());
    for _ in 0..MOST {
        let end = memchr::memmem::find(rest, BETWEEN);
        let bytes = filled(&filled(&rest[..end.unwrap_or(rest.len())], b"{tag}", &tag), b"{etag}", &etag);
        read_is_sound(&bytes);
        let mut got = talk.say(&bytes);
        if manner == Manner::Proves
            && let Some(proven) = got.first().and_then(|answer| proof(&bytes, &answer.bytes))
        {
            got = talk.say(&proven);
        }
        if let Some(answer) = got.first().and_then(|answer| wire::read(&answer.bytes).ok().flatten()) {
            statuses.push(answer.status().unwrap_or_default());
            if answer.cseq.method == "SUBSCRIBE" {
                tag = answer.to.tag().unwrap_or_default().to_owned();
            }
            etag = header(&answer, "SIP-ETag").map_or(etag, str::to_owned);
        }
        if manner != Manner::Silent {
            got.iter().filter(|packet| is_notify(packet)).for_each(|notify| drop(talk.say(&ok_to(&notify.bytes))));
        }
        talk.wait(PAUSE);
        let Some(end) = end else { break };
        rest = &rest[end + BETWEEN.len()..];
    }
    talk.leave();
    statuses
}

fn is_notify(packet: &OutboundMessage) -> bool {
    packet.bytes.starts_with(b"NOTIFY ")
}

fn header<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
    message.head.headers.iter().find(|header| header.written == name).map(|header| header.value)
}

fn filled(bytes: &[u8], place: &[u8], value: &str) -> Vec<u8> {
    let (mut filled, mut from) = (Vec::with_capacity(bytes.len()), 0);
    for at in memchr::memmem::find_iter(bytes, place) {
        filled.extend_from_slice(&bytes[from..at]);
        filled.extend_from_slice(value.as_bytes());
        from = at + place.len();
    }
    filled.extend_from_slice(&bytes[from..]);
    filled
}

/// The same request with credentials for the challenge, of the user in From.
fn proof(request: &[u8], challenge: &[u8]) -> Option<Vec<u8>> {
    let challenge = wire::read(challenge).ok()??;
    let message = wire::read(request).ok()??;
    let (uri, method) = (message.uri?.text, message.cseq.method);
    if challenge.status() != Some(401) {
        return None;
    }
    let nonce = header(&challenge, "WWW-Authenticate")?.split("nonce=\"").nth(1)?.split('"').next()?;
    let user = message.from.uri.split_once(':')?.1.split('@').next()?;
    let hash = |text: String| format!("{:x}", Md5::digest(text));
    let (a1, a2) = (hash(format!("{user}:acme.test:p")), hash(format!("{method}:{uri}")));
    let response = hash(format!("{a1}:{nonce}:00000001:c:auth:{a2}"));
    let line = format!(
        "Authorization: Digest username=\"{user}\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c\"\r\n"
    );
    let at = memchr::memchr(b'\n', request)? + 1;
    Some([&request[..at], line.as_bytes(), &request[at..]].concat())
}

fn seeds() -> Vec<Vec<u8>> {
    let phones = fixtures("phones").into_iter().zip(fixtures("publish"));
    let pairs = phones.map(|(phone, publish)| [phone, publish].join(BETWEEN));
    FIXTURES.iter().cloned().chain(conversations()).chain(pairs).collect()
}

/// Conversations within a dialog, and between a publisher and a watcher.
pub(crate) fn conversations() -> Vec<Vec<u8>> {
    let in_dialog = |cseq: u32, more: &str| {
        SUBSCRIBE
            .replace("To: <sip:1001@acme.test>", "To: <sip:1001@acme.test>;tag={tag}")
            .replace("CSeq: 1 ", &format!("CSeq: {cseq} "))
            .replace("z9hG4bK1", &format!("z9hG4bKs{cseq}"))
            .replace("Expires: 600\r\n", more)
    };
    let again = PUBLISH
        .replace("z9hG4bK2", "z9hG4bK3")
        .replace("CSeq: 1 ", "CSeq: 2 ")
        .replace("Event: dialog\r\n", "Event: dialog\r\nSIP-If-Match: {etag}\r\n");
    let (head, _) = PUBLISH.split_once("Content-Type").unwrap_or_default();
    let withdrawn = format!("{head}SIP-If-Match: {{etag}}\r\nContent-Length: 0\r\n\r\n")
        .replace("Expires: 600", "Expires: 0")
        .replace("z9hG4bK2", "z9hG4bK4")
        .replace("CSeq: 1 ", "CSeq: 3 ");
    let talking = again.replace("early</state>", "confirmed</state>").replace("Length: 222", "Length: 226");
    let talks: [Vec<String>; 4] = [
        vec![SUBSCRIBE.into(), in_dialog(2, "Expires: 300\r\n"), PUBLISH.into(), in_dialog(3, "Expires: 0\r\n")],
        vec![SUBSCRIBE.into(), in_dialog(2, "Expires: 300\r\nSuppress-If-Match: *\r\n")],
        vec![SUBSCRIBE.replace("dialog\r\n", "dialog;max-rate=0.5\r\n"), PUBLISH.into(), talking, withdrawn],
        vec![SUBSCRIBE.replace("dialog\r\n", "dialog;call-id=c\r\n"), PUBLISH.into(), again],
    ];
    talks.map(|talk| talk.join(std::str::from_utf8(BETWEEN).unwrap_or_default()).into_bytes()).into()
}

/// Dictionary of SIP messages.
pub(crate) const WORDS: &[&[u8]] = &[
    BETWEEN,
    b"{tag}",
    b"{etag}",
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b";tag=",
    b";branch=z9hG4bK",
    b";rport",
    b";received=",
    b"SIP-If-Match: ",
    b"Suppress-If-Match: ",
    b"Record-Route: <sip:",
    b"Route: <sip:",
    b"Expires: 0\r\n",
    b";lr>",
    b"Event: presence\r\n",
    b"Event: message-summary\r\n",
    b"SIP/2.0 200 OK\r\n",
    b"SIP/2.0 481 \r\n",
    b"NOTIFY",
    b"SUBSCRIBE",
    b"PUBLISH",
    b"OPTIONS",
    b"CANCEL",
    b"sips:",
    b"tel:",
    b"%0d%0a",
    b"[::1]",
    b"z9hG4bK",
    b";max-rate=",
    b";call-id=",
    b"Require: ",
    b"Accept: ",
    b"\xff",
    b"Retry-After: 5\r\n",
    b"Authorization: Digest ",
    b";transport=tcp",
    b"Contact: *",
];

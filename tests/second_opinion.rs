//! Second opinion: rsip must find the same facts as our parser in the messages that it can parse.
//!
//! rsip misreads a large part of the messages of real phones (README). Each file that it misreads stands in a list
//! here with the reason, and an entry that is no longer needed fails the test as well.

#[path = "torture/notifier.rs"]
mod notifier;

use std::path::Path;

use lamplighter::notifier::Outbox;
use lamplighter::presence::Tick;
use lamplighter::sip::uri::{Host, Uri};
use lamplighter::sip::wire;
use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::{HasHeaders, HeadersExt};

/// Facts on which both parsers have to agree.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    method: Option<String>,
    /// Request-URI in lower case, because rsip writes the scheme in lower and the transport in upper case.
    uri: Option<String>,
    /// User, host and port of the Request-URI.
    uri_parts: Option<(Option<String>, String, Option<u16>)>,
    status: Option<u16>,
    call_id: String,
    cseq: (u32, String),
    from_tag: Option<String>,
    to_tag: Option<String>,
    headers: usize,
    body: Vec<u8>,
}

fn ours(bytes: &[u8]) -> Option<Facts> {
    let message = wire::read(bytes).ok()??;
    let uri = message.request().map(|(_, uri)| uri);
    let host = |host: Host<'_>| match host {
        Host::Name(name) => name.to_owned(),
        Host::Ip(ip) => ip.to_string(),
    };
    let parts = |uri: Uri<'_>| (uri.user.map(str::to_owned), host(uri.host), uri.port);
    Some(Facts {
        method: match message.head.start {
            wire::StartLine::Request { method, .. } => Some(method.to_owned()),
            wire::StartLine::Response { .. } => None,
        },
        uri: uri.map(|uri| uri.text.to_lowercase()),
        uri_parts: uri.map(parts),
        status: message.status(),
        call_id: message.call_id.to_owned(),
        cseq: (message.cseq.number, message.cseq.method.to_owned()),
        from_tag: message.from.tag().map(str::to_owned),
        to_tag: message.to.tag().map(str::to_owned),
        headers: message.head.headers.len(),
        body: message.body.to_vec(),
    })
}

fn theirs(bytes: &[u8]) -> Result<Facts, String> {
    let said = |error: rsip::Error| error.to_string().chars().take(60).collect::<String>();
    let message = rsip::SipMessage::try_from(bytes).map_err(said)?;
    let cseq = message.cseq_header().map_err(said)?.clone().typed().map_err(said)?;
    let tag = |tag: Option<&rsip::common::uri::param::Tag>| tag.map(|tag| tag.value().to_owned());
    let from = message.from_header().map_err(said)?.clone().typed().map_err(said)?;
    let to = message.to_header().map_err(said)?.clone().typed().map_err(said)?;
    let call_id = message.call_id_header().map_err(said)?;
    let (method, uri, status) = match &message {
        rsip::SipMessage::Request(r) => (Some(r.method.to_string()), Some(r.uri.clone()), None),
        rsip::SipMessage::Response(r) => (None, None, Some(r.status_code.code())),
    };
    Ok(Facts {
        method,
        uri_parts: uri.as_ref().map(|uri| {
            let user = uri.auth.as_ref().map(|auth| auth.user.clone());
            (user, uri.host_with_port.host.to_string(), uri.host_with_port.port.map(|port| *port.value()))
        }),
        uri: uri.map(|uri| uri.to_string().to_lowercase()),
        status,
        call_id: call_id.value().to_owned(),
        cseq: (cseq.seq, cseq.method.to_string()),
        from_tag: tag(from.tag()),
        to_tag: tag(to.tag()),
        headers: message.headers().iter().count(),
        body: message.body().clone(),
    })
}

/// Fixtures that our parser reads and rsip misreads, with the reason.
const FIXTURES: [(&str, &str); 12] = [
    ("bad/frobnicate.sip", "its methods are a closed list"),
    ("bad/method-lower-case.sip", "it takes methods of any case for the same"),
    ("bad/method-odd-characters.sip", "its methods are a closed list"),
    ("bad/request-uri-http.sip", "it takes the slashes of other schemes away"),
    ("bad/request-uri-tel.sip", "it has no tel and takes the number for a port"),
    ("bad/request-uri-with-headers.sip", "it knows no headers in a URI"),
    ("bad/torture-semicolon-user.sip", "no semicolon in its users"),
    ("phones/compact-forms.sip", "it has no compact names"),
    ("phones/folded-headers.sip", "it does not unfold"),
    ("phones/keep-alive-before-request-tcp.sip", "it does not skip line ends before the start line"),
    ("phones/quoted-display-names.sip", "it cuts quoted names at the first bracket"),
    ("publish/trailing-bytes.sip", "it does not look at Content-Length"),
];

/// Fixtures for which rsip misreads the server's output, with the reason.
const SENT: [(&str, &str); 8] = [
    ("bad/frobnicate.sip", "its methods are a closed list, in CSeq too"),
    ("bad/method-lower-case.sip", "it takes methods of any case for the same, in CSeq too"),
    ("bad/method-odd-characters.sip", "its methods are a closed list, in CSeq too"),
    ("bad/request-uri-tel.sip", "it takes the number in To for a port"),
    ("phones/folded-headers.sip", "it takes no blanks round the separators, which is what folds become"),
    ("phones/ipv6-tcp.sip", "it has no IPv6 in a Request-URI"),
    ("phones/ipv6.sip", "it has no IPv6 in a Request-URI"),
    ("phones/quoted-display-names.sip", "it cuts quoted names at the first bracket"),
];

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut found = Vec::new();
    for dir in ["bad", "phones", "publish"] {
        for entry in std::fs::read_dir(root.join(dir)).expect("the fixtures") {
            let path = entry.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            found.push((format!("{dir}/{name}"), std::fs::read(&path).expect("a fixture")));
        }
    }
    found.sort();
    found
}

/// rsip's disagreement about a message that our parser accepts; none if it agrees or our parser rejects the message.
fn objection(bytes: &[u8]) -> Option<String> {
    let ours = ours(bytes)?;
    match theirs(bytes) {
        Ok(theirs) if theirs == ours => None,
        Ok(theirs) => Some(format!("we see {ours:?}\nrsip sees {theirs:?}")),
        Err(refusal) => Some(format!("we see {ours:?}\nrsip refuses it: {refusal}")),
    }
}

/// Checks that disagreements come exactly from the files in the list.
fn judge(name: &str, objection: Option<String>, list: &[(&str, &str)]) {
    let reason = list.iter().find(|(file, _)| *file == name).map(|(_, reason)| *reason);
    match (objection, reason) {
        (Some(objection), None) => panic!("{name}: {objection}"),
        (None, Some(reason)) => panic!("{name}: rsip agrees now, so the entry \"{reason}\" is needed no more"),
        _ => {}
    }
}

#[test]
fn rsip_sees_what_we_see_in_the_fixtures() {
    let fixtures = fixtures();
    for (name, bytes) in &fixtures {
        judge(name, objection(bytes), &FIXTURES);
    }
    let gone = |(file, _): &&(&str, &str)| !fixtures.iter().any(|(name, _)| name == file);
    assert_eq!(FIXTURES.iter().find(gone), None, "a fixture that is there no more");
    let read = fixtures.iter().filter(|(_, bytes)| ours(bytes).is_some()).count();
    assert!(read - FIXTURES.len() > 120, "rsip was asked of {read} fixtures only");
}

#[test]
fn rsip_sees_what_we_see_in_what_we_send() {
    let mut sent = 0;
    for (name, bytes) in fixtures() {
        let mut out = Outbox::default();
        let source = match name.ends_with("-tcp.sip") {
            true => notifier::tcp_source("192.0.2.99:40000"),
            false => notifier::udp_source("192.0.2.99:5070"),
        };
        notifier::notifier().receive(Tick(0), source, &bytes, &mut out);
        sent += out.messages.len();
        judge(&name, out.messages.iter().find_map(|packet| objection(&packet.bytes)), &SENT);
    }
    assert!(sent > 150, "{sent} messages only");
}

#[test]
fn rsip_sees_what_we_see_in_ordinary_messages() {
    let methods = ["SUBSCRIBE", "PUBLISH", "NOTIFY", "OPTIONS", "REGISTER", "INVITE", "MESSAGE", "BYE"];
    let targets =
        ["sip:acme.test", "sip:1001@acme.test", "sips:al-ice_1@192.0.2.7:5061", "sip:1001@192.0.2.7;user=phone;lr"];
    let parties = ["<sip:1002@acme.test>", "\"Jo Doe\" <sip:1002@acme.test:5070;x=y>", "Jo <sip:acme.test>"];
    let tags = ["", ";tag=a1.b-2", ";x=1;tag=Zz~9"];
    let bodies: [&[u8]; 3] = [b"", b"v=0\r\n\r\nSIP/2.0 200 OK\r\n\r\n", b"\0\xff\xfe\r"];
    let (mut asked, mut number) = (0, 1_u32);
    for start in methods.iter().map(Some).chain([None]) {
        for case in 0..targets.len() * parties.len() * tags.len() * bodies.len() {
            let (target, party) = (targets[case % 4], parties[case / 4 % 3]);
            let (tag, body) = (tags[case / 12 % 3], bodies[case / 36]);
            number = number.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            let (line, method) = match start {
                Some(method) => (format!("{method} {target} SIP/2.0"), *method),
                None => {
                    (format!("SIP/2.0 {} So be it", [100, 200, 202, 404, 423, 481, 503][number as usize % 7]), "NOTIFY")
                }
            };
            let head = format!(
                "{line}\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{number}\r\nFrom: {party}{tag}\r\n\
                 To: {party}\r\nCall-ID: {number}-x@192.0.2.9\r\nCSeq: {number} {method}\r\nX-Any: a: b; c, d\r\n\
                 Contact: <sip:1002@192.0.2.9:5060>\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let message = [head.as_bytes(), body].concat();
            assert!(ours(&message).is_some(), "we refuse {head}");
            assert_eq!(objection(&message), None, "{head}");
            asked += 1;
        }
    }
    assert!(asked > 900);
}

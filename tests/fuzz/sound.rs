//! Invariants of every message: of those that can be parsed, and of those that the server writes.

use lamplighter::sip::headers;
use lamplighter::sip::wire::{self, Head, Message, Name, Reply};

/// Every header that the server writes. Any other header in its messages was injected.
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

/// Compact header names, used where a NOTIFY would be too large with the long ones (RFC 3261 section 7.3.3).
const SHORT: [(&str, &str); 8] = [
    ("c", "Content-Type"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("o", "Event"),
    ("t", "To"),
    ("v", "Via"),
];

/// Checks that a message of the server is complete and consistent, and contains nothing unintended.
pub(crate) fn ours_is_sound(bytes: &[u8]) -> Head<'_> {
    let shown = || String::from_utf8_lossy(bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line");
    let text = std::str::from_utf8(&bytes[..end + 4]).expect("we write UTF-8");
    for line in text[..end].split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {}", shown()));
        match text.contains("\r\nv: ") {
            true => assert!(!SHORT.iter().any(|(_, long)| *long == name), "{name:?} in {}", shown()),
            false => assert!(OURS.contains(&name), "{name:?} in {}", shown()),
        }
        let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| *long);
        assert!(OURS.contains(&name), "{name:?} in {}", shown());
        assert!(!value.contains(|c: char| c < ' ' || c == '\x7f'), "{line:?}");
    }
    let (head, body_at) = Head::find(text).unwrap_or_else(|fault| panic!("{fault}: {}", shown()));
    assert_eq!(head.fault, None, "{}", shown());
    let length = head.first(Name::ContentLength).expect("Content-Length");
    assert_eq!(length.parse(), Ok(bytes.len() - body_at), "{}", shown());
    head
}

/// Removes everything that the writer may change: blanks, and control characters, which become blanks.
pub(crate) fn unfolded(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !c.is_ascii_control()).collect()
}

/// Checks that the response to a readable request is readable, and matches the request.
pub(crate) fn fits(answer: &Message<'_>, request: &Message<'_>) {
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

/// The 200 to a message of the server.
pub(crate) fn ok_to(notify: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(notify);
    let kept = |line: &&str| ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|name| line.starts_with(name));
    let lines: Vec<_> = text.split("\r\n").take_while(|line| !line.is_empty()).filter(kept).collect();
    format!("SIP/2.0 200 OK\r\n{}\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n")).into_bytes()
}

/// Checks that a readable message is consistent.
pub(crate) fn read_is_sound(bytes: &[u8]) {
    let Ok(Some(message)) = wire::read(bytes) else { return };
    assert!(message.head.fault.is_none() && !message.head.headers.is_empty());
    assert!(message.head.headers.len() <= wire::MAX_HEADERS + 1 && message.body.len() <= bytes.len());
    assert_ne!(message.request().is_some(), message.status().is_some());
    assert!(message.cseq.number < 1 << 31);
    assert_eq!(message.uri.is_some(), message.request().is_some());
    // The fast parser of responses must find the same as the full one.
    if let Some(glanced) = Reply::glance(bytes) {
        assert_eq!(Some(glanced), Reply::of(&message));
    }
}

//! Writing messages.

use std::net::SocketAddr;

use super::Value;
use super::head::{Head, Name};
use crate::sip::StatusCode;
use crate::sip::headers::{NameAddr, Via, name_and_value, split_first};
use crate::sip::scan::split;

/// Appends one message to a buffer.
///
/// Values are cleaned as they go in: a line break becomes a blank (which unfolds what a peer folded) and so does every
/// other control character, so that no string from anywhere can add a header. None is left out: a backslash before it
/// would escape the quote behind it.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Writer<'b> {
    /// Starts a request.
    pub fn request(out: &'b mut Vec<u8>, method: &str, uri: &str) -> Writer<'b> {
        let mut writer = Writer { out };
        writer.line((method, " ", uri, " SIP/2.0"));
        writer
    }

    /// Starts a response.
    pub fn response(out: &'b mut Vec<u8>, status: &StatusCode, reason: &str) -> Writer<'b> {
        let mut writer = Writer { out };
        writer.line(("SIP/2.0 ", status.code(), " ", reason));
        writer
    }

    fn line(&mut self, line: impl Value) {
        let start = self.out.len();
        line.put(self.out);
        // The whole line at once: nearly always there is nothing to replace.
        if !self.out[start..].iter().fold(true, |clean, c| clean & (*c >= b' ') & (*c != 0x7f)) {
            let written = self.out.split_off(start);
            clean(&written, self.out);
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Appends a header.
    pub fn header(&mut self, name: &str, value: impl Value) -> &mut Self {
        self.line((name, ": ", value));
        self
    }

    /// Ends the message with a body, which is given in parts.
    pub fn body(mut self, content_type: &str, body: &[&[u8]]) {
        let length: usize = body.iter().map(|part| part.len()).sum();
        self.header("Content-Type", content_type).header("Content-Length", length);
        self.out.extend_from_slice(b"\r\n");
        body.iter().for_each(|part| self.out.extend_from_slice(part));
    }

    /// Appends header lines that were written before.
    pub fn lines(&mut self, lines: &HeaderLines) -> &mut Self {
        self.out.extend_from_slice(&lines.0);
        self
    }

    /// Ends the message without a body.
    pub fn end(self) {
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }
}

/// Appends a line with blanks in the place of control characters; those of a fold become one together.
fn clean(line: &[u8], out: &mut Vec<u8>) {
    let mut blank = false;
    for c in line.iter().copied() {
        match c {
            b'\r' | b'\n' | b'\t' => blank = true,
            _ => {
                if std::mem::take(&mut blank) && c != b' ' {
                    out.push(b' ');
                }
                out.push(if c < b' ' || c == 0x7f { b' ' } else { c });
            }
        }
    }
}

/// Header lines that wait for the message that they go into.
#[derive(Clone, Debug, Default)]
pub struct HeaderLines(Vec<u8>);

impl HeaderLines {
    /// Appends a header.
    pub fn add(&mut self, name: &str, value: impl Value) {
        if self.0.is_empty() {
            // All of them at once, nearly always.
            self.0.reserve(192);
        }
        Writer { out: &mut self.0 }.header(name, value);
    }
}

/// Starts the response to a request: status line, all Vias, From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2).
///
/// The top Via gets `received`, and `rport` where it asked for it (RFC 3261 section 18.2.1, RFC 3581 section 4). A To
/// without a tag gets `to_tag`. Headers that the request lacks are left out: it may be the reason for the answer.
pub fn reply<'b>(
    out: &'b mut Vec<u8>,
    status: &StatusCode,
    reason: &str,
    request: &Head<'_>,
    source: SocketAddr,
    to_tag: Option<&dyn Value>,
) -> Writer<'b> {
    let mut writer = Writer::response(out, status, reason);
    let mut top = true;
    for value in request.all(Name::Via) {
        if std::mem::take(&mut top) {
            let (via, rest) = split_first(value);
            writer.header("Via", StampedVia { via, rest, source });
        } else {
            writer.header("Via", value);
        }
    }
    if let Some(from) = request.first(Name::From) {
        writer.header("From", from);
    }
    if let Some(to) = request.first(Name::To) {
        match NameAddr::read(to) {
            Some(to) if !to.has_tag() => match to_tag {
                Some(tag) => writer.header("To", (to.text, ";tag=", tag)),
                None => writer.header("To", to.text),
            },
            _ => writer.header("To", to),
        };
    }
    for name in [Name::CallId, Name::CSeq] {
        if let Some(value) = request.first(name) {
            writer.header(name.text(), value);
        }
    }
    writer
}

/// The top Via with the address that the request really came from.
struct StampedVia<'a> {
    via: &'a str,
    rest: &'a str,
    source: SocketAddr,
}

impl Value for StampedVia<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let source = self.source.ip().to_canonical();
        let mut parts = split(self.via, b';');
        parts.next().unwrap_or_default().put(out);
        let mut rport = false;
        for part in parts {
            let (name, _) = name_and_value(part);
            if name.eq_ignore_ascii_case("rport") {
                rport = true;
            } else if !name.eq_ignore_ascii_case("received") {
                (";", part).put(out);
            }
        }
        if rport || Via::first_of(self.via).and_then(|via| via.host.ip()) != Some(source) {
            (";received=", source).put(out);
        }
        if rport {
            (";rport=", self.source.port()).put(out);
        }
        self.rest.put(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_value_can_add_a_header_or_hold_a_control_character() {
        let message = text(|out| {
            let mut w = Writer::request(out, "NOTIFY", "sip:a@b\r\nEvil: 1");
            w.header("Subject", "x\r\n\r\nbody\0\x07\u{e9}");
            w.end();
        });
        assert_eq!(message, "NOTIFY sip:a@b Evil: 1 SIP/2.0\r\nSubject: x body  é\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn content_length_counts_octets() {
        let message = text(|out| Writer::request(out, "NOTIFY", "sip:a@b").body("text/plain", &["é!".as_bytes()]));
        assert!(message.ends_with("Content-Type: text/plain\r\nContent-Length: 3\r\n\r\né!"), "{message}");
    }

    fn reply_to(via: &str, source: &str) -> String {
        let request = format!("OPTIONS sip:a SIP/2.0\r\nVia: {via}\r\nTo: <sip:a>\r\nFrom: <sip:b>;tag=1\r\n\r\n");
        let (head, _) = Head::find(&request).unwrap();
        text(|out| reply(out, &StatusCode::OK, "OK", &head, source.parse().unwrap(), Some(&"t")).end())
    }

    #[test]
    fn the_top_via_is_stamped_and_the_others_come_back_untouched() {
        let answer = reply_to(
            "SIP/2.0/UDP h.invalid:5060;rport;branch=z9hG4bK1;x, SIP/2.0/FOO second;i=2\r\nVia: SIP/2.0/TCP third",
            "192.0.2.1:999",
        );
        assert!(
            answer.starts_with(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h.invalid:5060;branch=z9hG4bK1;x;received=192.0.2.1;rport=999, \
                 SIP/2.0/FOO second;i=2\r\nVia: SIP/2.0/TCP third\r\nFrom: <sip:b>;tag=1\r\nTo: <sip:a>;tag=t\r\n"
            ),
            "{answer}"
        );
    }

    #[test]
    fn parameters_of_the_top_via_that_are_quoted_or_folded_come_back_whole() {
        let answer = reply_to("SIP/2.0/UDP h;x=\"a;rport;received=b,c\" ;\r\n Rport = 5 ;branch = b", "192.0.2.1:9");
        let via = "Via: SIP/2.0/UDP h;x=\"a;rport;received=b,c\" ;branch = b;received=192.0.2.1;rport=9\r\n";
        assert!(answer.contains(via), "{answer}");
    }

    fn to_of_reply_to(to: &str) -> String {
        let request = format!("OPTIONS sip:a SIP/2.0\r\nTo: {to}\r\n\r\n");
        let (head, _) = Head::find(&request).unwrap();
        let answer =
            text(|out| reply(out, &StatusCode::OK, "OK", &head, "192.0.2.1:1".parse().unwrap(), Some(&"t")).end());
        answer.lines().find_map(|line| line.strip_prefix("To: ")).unwrap().to_owned()
    }

    #[test]
    fn a_to_gets_a_tag_where_it_has_none_and_is_copied_otherwise() {
        for (to, answered) in [
            ("<sip:a>", "<sip:a>;tag=t"),
            ("sip:a;x=\"tag=1\"", "sip:a;x=\"tag=1\";tag=t"),
            ("<sip:a;tag=1>", "<sip:a;tag=1>;tag=t"),
            ("<sip:a>; ;", "<sip:a>;tag=t"),
            ("<sip:a> ;\r\n TAG = 1", "<sip:a> ; TAG = 1"),
            ("<sip:a>;tag=", "<sip:a>;tag="),
            ("\"a <sip:a>", "\"a <sip:a>"),
            ("\"DEL\\\x7f\" <sip:a>", "\"DEL\\ \" <sip:a>;tag=t"),
        ] {
            assert_eq!(to_of_reply_to(to), answered);
        }
    }

    #[test]
    fn received_is_added_only_where_it_says_something_new() {
        assert!(!reply_to("SIP/2.0/UDP 192.0.2.1;branch=b", "192.0.2.1:5060").contains("received"));
        assert!(reply_to("SIP/2.0/UDP 192.0.2.2;branch=b", "192.0.2.1:5060").contains(";received=192.0.2.1"));
        assert!(reply_to("SIP/2.0/UDP 192.0.2.1;received=6.6.6.6", "192.0.2.1:1").contains("192.0.2.1\r\n"));
        assert!(reply_to("SIP/2.0/UDP h;branch=b", "[2001:db8::9]:1").contains(";received=2001:db8::9\r\n"));
    }
}

//! Writer for messages.

use std::net::SocketAddr;

use super::head::{Head, Name};
use super::{Message, Value};
use crate::sip::StatusCode;
use crate::sip::headers::{NameAddr, Via, name_and_value, split_first};
use crate::sip::scan::split;
use crate::sip::simd::count_odd;

/// Appends one message to a buffer.
///
/// Values are cleaned, so that no string from anywhere can add a header. A line break becomes a blank (which unfolds
/// a folded value), and so does every other control character. None is left out: a backslash in front of it would
/// then escape the quote that follows.
///
/// Checking each line costs as much as writing it, so many lines are checked at once. Nearly always there is nothing
/// to replace: then the number of octets that are not printable equals that of the line ends written here.
#[derive(Debug)]
#[must_use = "a message has to be ended"]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    /// Start of the lines that have not been checked.
    begun: usize,
    /// End of each of these lines.
    ends: [usize; LINES],
    lines: usize,
}

/// Number of lines that are checked together.
const LINES: usize = 24;

impl<'b> Writer<'b> {
    /// Starts a request.
    pub fn request(out: &'b mut Vec<u8>, method: &str, uri: &str) -> Writer<'b> {
        let mut writer = Writer::behind(out);
        writer.line((method, " ", uri, " SIP/2.0"));
        writer
    }

    /// Starts a response.
    pub fn response(out: &'b mut Vec<u8>, status: &StatusCode, reason: &str) -> Writer<'b> {
        let mut writer = Writer::behind(out);
        writer.line(("SIP/2.0 ", status.code(), " ", reason));
        writer
    }

    fn behind(out: &'b mut Vec<u8>) -> Writer<'b> {
        Writer { begun: out.len(), out, ends: [0; LINES], lines: 0 }
    }

    #[inline(always)]
    fn line(&mut self, line: impl Value) {
        if self.lines == LINES {
            self.look();
        }
        line.put(self.out);
        self.ends[self.lines] = self.out.len();
        self.lines += 1;
        self.out.extend_from_slice(b"\r\n");
    }

    /// Checks the lines written since the last check, and replaces the characters that they must not hold.
    fn look(&mut self) {
        if count_odd(&self.out[self.begun..]) != "\r\n".len() * self.lines {
            self.clean();
        }
        (self.begun, self.lines) = (self.out.len(), 0);
    }

    #[cold]
    fn clean(&mut self) {
        let written = self.out.split_off(self.begun);
        let mut from = 0;
        for end in &self.ends[..self.lines] {
            let end = end - self.begun;
            clean(&written[from..end], self.out);
            self.out.extend_from_slice(b"\r\n");
            from = end + "\r\n".len();
        }
    }

    /// Appends a header.
    #[inline(always)]
    pub fn header(&mut self, name: &str, value: impl Value) -> &mut Self {
        self.line((name, ": ", value));
        self
    }

    /// Ends the message with a body, given in parts.
    pub fn body(mut self, content_type: &str, body: &[&[u8]]) {
        let length: usize = body.iter().map(|part| part.len()).sum();
        self.header("Content-Type", content_type).header("Content-Length", length);
        self.look();
        self.out.extend_from_slice(b"\r\n");
        body.iter().for_each(|part| self.out.extend_from_slice(part));
    }

    /// Appends header lines that were written before.
    pub fn lines(&mut self, lines: &HeaderLines) -> &mut Self {
        if let Some(lines) = &lines.0 {
            self.look();
            self.out.extend_from_slice(lines);
            self.begun = self.out.len();
        }
        self
    }

    /// Ends the message without a body.
    pub fn end(mut self) {
        self.look();
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }
}

/// Appends a line with control characters replaced by blanks. The characters of one fold become one blank.
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

/// Header lines that are kept for a later message. In one word, as most messages have none.
#[derive(Clone, Debug, Default)]
#[allow(clippy::box_collection)]
pub struct HeaderLines(Option<Box<Vec<u8>>>);

impl HeaderLines {
    /// Appends a header.
    pub fn add(&mut self, name: &str, value: impl Value) {
        // Enough for all lines, nearly always.
        let mut writer = Writer::behind(self.0.get_or_insert_with(|| Box::new(Vec::with_capacity(192))));
        writer.header(name, value);
        writer.look();
    }
}

/// Request to be answered.
#[derive(Clone, Copy)]
pub enum RequestView<'m, 'a> {
    /// A parsed request.
    Read(&'m Message<'a>),
    /// A rejected request, of which the head could be parsed.
    Refused(&'m Head<'a>),
}

impl<'m, 'a> From<&'m Message<'a>> for RequestView<'m, 'a> {
    fn from(message: &'m Message<'a>) -> Self {
        RequestView::Read(message)
    }
}

impl<'m, 'a> From<&'m Head<'a>> for RequestView<'m, 'a> {
    fn from(head: &'m Head<'a>) -> Self {
        RequestView::Refused(head)
    }
}

impl<'m, 'a> RequestView<'m, 'a> {
    /// Head of the request.
    pub fn head(self) -> &'m Head<'a> {
        match self {
            RequestView::Read(message) => &message.head,
            RequestView::Refused(head) => head,
        }
    }

    /// Top Via; `value` is its header value.
    fn via(self, value: &'a str) -> Option<Via<'a>> {
        match self {
            RequestView::Read(message) => Some(message.via),
            RequestView::Refused(_) => Via::first_of(value),
        }
    }

    /// To; `value` is its header value.
    fn to(self, value: &'a str) -> Option<NameAddr<'a>> {
        match self {
            RequestView::Read(message) => Some(message.to),
            RequestView::Refused(_) => NameAddr::read(value),
        }
    }
}

/// Starts the response to a request: status line, all Vias, From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2).
///
/// The top Via gets `received`, and `rport` if it asks for it (RFC 3261 section 18.2.1, RFC 3581 section 4). A To
/// without a tag gets `to_tag`. Headers that the request lacks are left out, as that may be the reason for the
/// response.
pub fn reply<'b, 'm, 'a: 'm>(
    out: &'b mut Vec<u8>,
    status: &StatusCode,
    reason: &str,
    request: impl Into<RequestView<'m, 'a>>,
    source: SocketAddr,
    to_tag: Option<&dyn Value>,
) -> Writer<'b> {
    let asked = request.into();
    let request = asked.head();
    let mut writer = Writer::response(out, status, reason);
    let mut top = true;
    for value in request.all(Name::Via) {
        if std::mem::take(&mut top) {
            writer.header("Via", StampedVia { value, via: asked.via(value), source });
        } else {
            writer.header("Via", value);
        }
    }
    if let Some(from) = request.first(Name::From) {
        writer.header("From", from);
    }
    if let Some(to) = request.first(Name::To) {
        match asked.to(to) {
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

/// Top Via, stamped with the source address of the request.
struct StampedVia<'a> {
    /// Complete header value, which may hold further Vias.
    value: &'a str,
    /// Top Via, if it could be parsed.
    via: Option<Via<'a>>,
    source: SocketAddr,
}

impl Value for StampedVia<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        if let Some((via, (before, behind))) = self.via.and_then(|via| Some((via, via.around_rport()?))) {
            (before, behind).put(out);
            return self.stamp(via.wants_rport(), out);
        }
        let (via, rest) = split_first(self.value);
        let mut parts = split(via, b';');
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
        self.stamp(rport, out);
        rest.put(out);
    }
}

impl StampedVia<'_> {
    fn stamp(&self, rport: bool, out: &mut Vec<u8>) {
        let source = self.source.ip().to_canonical();
        if rport || self.via.and_then(|via| via.host.ip()) != Some(source) {
            (";received=", source).put(out);
        }
        if rport {
            (";rport=", self.source.port()).put(out);
        }
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
    fn whichever_of_many_lines_holds_what_it_must_not_all_others_stay_as_they_are() {
        for odd in 0..60 {
            let message = text(|out| {
                out.extend_from_slice(b"\x07\r\nnot ours\r\n");
                let mut w = Writer::response(out, &StatusCode::OK, "OK");
                for line in 0..60 {
                    w.header("A", (line, if line == odd { "\x01\r\n" } else { "" }, "."));
                }
                w.end();
            });
            let lines: String =
                (0..60).map(|line| format!("A: {line}{}.\r\n", if line == odd { "  " } else { "" })).collect();
            let expected = format!("\x07\r\nnot ours\r\nSIP/2.0 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
            assert_eq!(message, expected);
        }
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

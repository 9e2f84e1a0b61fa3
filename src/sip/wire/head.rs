//! The head of a message: start line and header lines, found but not yet interpreted.

use memchr::{memchr, memchr3};

use super::{Fault, MAX_HEADERS, MAX_LINE};
use crate::sip::Method;
use crate::sip::scan::trim;

/// The headers that we look at, whatever form of the name was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Name {
    Accept,
    Authorization,
    CallId,
    Contact,
    ContentEncoding,
    ContentLength,
    ContentType,
    CSeq,
    Event,
    Expires,
    From,
    MaxForwards,
    MinExpires,
    RecordRoute,
    Require,
    RetryAfter,
    Route,
    SipIfMatch,
    SubscriptionState,
    SuppressIfMatch,
    To,
    UserAgent,
    Via,
    Other,
}

/// Long form, compact form (RFC 3261 section 7.3.3; RFC 6665 section 8.2), and whether it may stand only once.
type Entry = (&'static str, &'static str, Name, bool);

const NAMES: [Entry; 23] = [
    ("Via", "v", Name::Via, false),
    ("From", "f", Name::From, true),
    ("To", "t", Name::To, true),
    ("Call-ID", "i", Name::CallId, true),
    ("CSeq", "", Name::CSeq, true),
    ("Contact", "m", Name::Contact, false),
    ("Event", "o", Name::Event, true),
    ("Expires", "", Name::Expires, true),
    ("Accept", "", Name::Accept, false),
    ("Authorization", "", Name::Authorization, false),
    ("Content-Length", "l", Name::ContentLength, true),
    ("Content-Type", "c", Name::ContentType, true),
    ("Content-Encoding", "e", Name::ContentEncoding, false),
    ("Max-Forwards", "", Name::MaxForwards, true),
    ("Min-Expires", "", Name::MinExpires, false),
    ("Record-Route", "", Name::RecordRoute, false),
    ("Route", "", Name::Route, false),
    ("Require", "", Name::Require, false),
    ("Retry-After", "", Name::RetryAfter, false),
    ("SIP-If-Match", "", Name::SipIfMatch, true),
    ("Subscription-State", "", Name::SubscriptionState, true),
    ("Suppress-If-Match", "", Name::SuppressIfMatch, true),
    ("User-Agent", "", Name::UserAgent, false),
];

impl Name {
    /// The header of this name, and whether it may stand only once.
    fn of(text: &str) -> (Name, bool) {
        let long = |entry: &&Entry| entry.0.len() == text.len() && entry.0.eq_ignore_ascii_case(text);
        let short = |entry: &&Entry| entry.1.eq_ignore_ascii_case(text);
        let found = if text.len() == 1 { NAMES.iter().find(short) } else { NAMES.iter().find(long) };
        found.map_or((Name::Other, false), |(_, _, name, once)| (*name, *once))
    }

    /// The header's full name, as written.
    pub fn text(self) -> &'static str {
        NAMES.iter().find(|(_, _, name, _)| *name == self).map_or("Other", |(long, ..)| long)
    }
}

/// The method of a request. Method names are case-sensitive (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb<'a> {
    /// One that an RFC defines.
    Known(Method),
    /// Any other token.
    Unknown(&'a str),
}

impl<'a> Verb<'a> {
    /// Reads a method name.
    pub fn of(text: &'a str) -> Verb<'a> {
        use Method::*;
        const KNOWN: [(&str, Method); 14] = [
            ("SUBSCRIBE", Subscribe),
            ("PUBLISH", Publish),
            ("NOTIFY", Notify),
            ("OPTIONS", Options),
            ("ACK", Ack),
            ("BYE", Bye),
            ("CANCEL", Cancel),
            ("INFO", Info),
            ("INVITE", Invite),
            ("MESSAGE", Message),
            ("PRACK", PRack),
            ("REFER", Refer),
            ("REGISTER", Register),
            ("UPDATE", Update),
        ];
        KNOWN.iter().find(|(name, _)| *name == text).map_or(Verb::Unknown(text), |(_, method)| Verb::Known(*method))
    }
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// Of a request.
    Request {
        /// Its method.
        verb: Verb<'a>,
        /// The method as written, for comparing with CSeq.
        method: &'a str,
        /// The Request-URI as written.
        uri: &'a str,
    },
    /// Of a response.
    Response {
        /// 100 to 699.
        status: u16,
    },
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Which header it is.
    pub name: Name,
    /// Its name as written.
    pub written: &'a str,
    /// Its value without blanks at the ends; folds are still in it.
    pub value: &'a str,
}

/// A head whose lines have been found. With a fault in it, it is still good enough to address an answer.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// The first line.
    pub start: StartLine<'a>,
    /// The header lines in order.
    pub headers: Vec<Header<'a>>,
    /// For every name one more than where its first line is, 0 where there is none.
    first: [u8; Name::Other as usize + 1],
    /// The first thing found wrong, or the first that hides the end.
    pub fault: Option<Fault>,
    /// True if the fault makes it doubtful where the message ends; nothing behind it in a stream can be trusted then.
    pub end_hidden: bool,
}

/// The version at the end of a request line or the start of a status line.
fn version(text: &str) -> Result<(), Fault> {
    let Some((name, number)) = text.split_once('/') else { return Err(Fault::NotSip) };
    let shaped = number.split_once('.').is_some_and(|(a, b)| {
        [a, b].iter().all(|n| !n.is_empty() && n.len() < 4 && n.bytes().all(|c| c.is_ascii_digit()))
    });
    match name.eq_ignore_ascii_case("SIP") && shaped {
        true if number == "2.0" => Ok(()),
        true => Err(Fault::Version),
        false => Err(Fault::NotSip),
    }
}

/// What a token is made of (RFC 3261 section 25.1).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 128 {
        table[c] = (c as u8).is_ascii_alphanumeric()
            || matches!(c as u8, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        c += 1;
    }
    table
};

/// Whether a text is a token.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| TOKEN[usize::from(c)])
}

fn start_line(line: &str) -> Result<(StartLine<'_>, Option<Fault>), Fault> {
    if line.len() >= 4 && line.as_bytes()[..4].eq_ignore_ascii_case(b"SIP/") {
        let mut parts = line.splitn(3, ' ');
        version(parts.next().unwrap_or_default())?;
        let code = parts.next().unwrap_or_default();
        let status = code.parse().ok().filter(|s| code.len() == 3 && (100..700).contains(s)).ok_or(Fault::NotSip)?;
        return Ok((StartLine::Response { status }, None));
    }
    // Blanks too many are the peer's fault, not a reason to leave him without an answer (RFC 4475 section 3.1.2.9).
    let trimmed = line.trim_end_matches(' ');
    let mut fault = (trimmed.len() != line.len()).then_some(Fault::StartLine);
    let (rest, last) = trimmed.rsplit_once(' ').ok_or(Fault::NotSip)?;
    let (method, uri) = rest.split_once(' ').ok_or(Fault::NotSip)?;
    if !is_token(method) {
        return Err(Fault::NotSip);
    }
    match version(last) {
        Ok(()) => {}
        Err(Fault::Version) => fault = Some(Fault::Version),
        Err(other) => return Err(other),
    }
    if uri.is_empty() || uri.bytes().any(|c| c == b' ' || c == b'\t' || c == b'<' || c == b'>') {
        fault = fault.or(Some(Fault::StartLine));
    }
    Ok((StartLine::Request { verb: Verb::of(method), method, uri }, fault))
}

impl<'a> Head<'a> {
    /// Finds the lines of `text`, which starts at the start line and may go on after the empty line; says where
    /// the body starts.
    pub fn find(text: &'a str) -> Result<(Head<'a>, usize), Fault> {
        let bytes = text.as_bytes();
        let line = next_line(text, 0).ok_or(Fault::NotSip)?;
        let first = line.text.strip_suffix('\r').unwrap_or(line.text);
        let (start, fault) = start_line(first)?;
        let mut head = Head {
            start,
            headers: Vec::with_capacity(20),
            first: [0; Name::Other as usize + 1],
            fault,
            end_hidden: false,
        };
        if !line.clean {
            head.check_octets(&text[..line.end]);
        }
        if line.text.len() > MAX_LINE {
            head.note(Fault::HeaderTooLong);
        }
        let (mut at, mut complete, mut seen) = (line.end, false, 0_u32);
        while let Some(Line { text: line, mut end, mut clean }) = next_line(text, at) {
            let empty = matches!(line, "" | "\r");
            // Lines that start with a blank continue the one before (RFC 3261 section 7.3.1).
            while !empty && matches!(bytes.get(end), Some(b' ' | b'\t')) {
                match next_line(text, end) {
                    Some(more) => (end, clean) = (more.end, clean & more.clean),
                    None => break,
                }
            }
            let whole = &text[at..end];
            at = end;
            if !clean {
                head.check_octets(whole);
            }
            if empty {
                complete = true;
                break;
            }
            head.take(whole, &mut seen);
        }
        if !complete {
            head.note(Fault::Incomplete);
        }
        Ok((head, at))
    }

    /// Takes one header line with its folds. `seen` has a bit for every name that stood before.
    fn take(&mut self, line: &'a str, seen: &mut u32) {
        let Some((written, value)) = name_and_value(line) else { return self.note(Fault::HeaderLine) };
        let (name, once) = Name::of(written);
        let bit = 1 << name as u32;
        if once && *seen & bit != 0 {
            let fault = Fault::Repeated(name);
            return match name {
                Name::ContentLength => self.note_hidden_end(fault),
                _ => self.note(fault),
            };
        }
        *seen |= bit;
        if line.len() > MAX_LINE {
            return self.note(Fault::HeaderTooLong);
        }
        if self.headers.len() >= MAX_HEADERS {
            self.note(Fault::TooManyHeaders);
            // Where the message ends has to be known even so: a proxy's connection carries others' messages too.
            if name != Name::ContentLength {
                return;
            }
        }
        self.headers.push(Header { name, written, value: trim(value) });
        let first = &mut self.first[name as usize];
        if *first == 0 {
            // There are never so many lines that it does not fit.
            *first = self.headers.len() as u8;
        }
    }

    fn note(&mut self, fault: Fault) {
        self.fault = self.fault.or(Some(fault));
    }

    fn note_hidden_end(&mut self, fault: Fault) {
        if !std::mem::replace(&mut self.end_hidden, true) {
            self.fault = Some(fault);
        }
    }

    /// Looks for a CR or LF on its own and for NUL. Others may see the end of a line where there is half of one, so
    /// from there on we and they would read different messages.
    fn check_octets(&mut self, line: &str) {
        let line = line.as_bytes();
        let half = |i: usize| match line[i] {
            b'\r' => line.get(i + 1) != Some(&b'\n'),
            _ => i == 0 || line[i - 1] != b'\r',
        };
        if memchr::memchr2_iter(b'\r', b'\n', line).any(half) {
            self.note_hidden_end(Fault::ControlCharacter);
        }
        // Behind a backslash it is a legal character of a quoted string (RFC 4475 section 3.1.1.2).
        if memchr::memchr_iter(0, line).any(|i| i == 0 || line[i - 1] != b'\\') {
            self.note(Fault::ControlCharacter);
        }
    }

    /// The values of all lines of this name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a str> {
        let from = match self.first[name as usize] {
            0 => self.headers.len(),
            first => usize::from(first) - 1,
        };
        self.headers[from..].iter().filter(move |h| h.name == name).map(|h| h.value)
    }

    /// The value of the first line of this name.
    pub fn first(&self, name: Name) -> Option<&'a str> {
        match self.first[name as usize] {
            0 => None,
            first => self.headers.get(usize::from(first) - 1).map(|header| header.value),
        }
    }
}

/// A line of text.
struct Line<'a> {
    /// What stands before its LF, or before its CRLF if it is `clean`.
    text: &'a str,
    /// Where the next one starts.
    end: usize,
    /// It ends with CRLF, and there is no other CR, LF or NUL in it.
    clean: bool,
}

/// The line that starts at `at`.
fn next_line(text: &str, at: usize) -> Option<Line<'_>> {
    let rest = text.as_bytes().get(at..)?;
    let special = memchr3(b'\r', b'\n', 0, rest)?;
    if rest[special..].starts_with(b"\r\n") {
        return Some(Line { text: &text[at..at + special], end: at + special + 2, clean: true });
    }
    let length = special + memchr(b'\n', &rest[special..])?;
    Some(Line { text: &text[at..at + length], end: at + length + 1, clean: false })
}

/// Name and value of a header line, not trimmed; none if there is no name.
fn name_and_value(line: &str) -> Option<(&str, &str)> {
    let end = line.bytes().position(|c| !TOKEN[usize::from(c)]).filter(|end| *end > 0)?;
    let value = line[end..].trim_start_matches([' ', '\t']).strip_prefix(':')?;
    Some((&line[..end], value))
}

/// Where the head ends that `bytes` starts with: behind its empty line, be that rightly `CRLF` or wrongly `LF`. What
/// lies before `from` has been searched. One answer for datagrams and streams, so that both see the same message.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find_map(|after| match &bytes[after..] {
        [b'\n', ..] => Some(after + 1),
        [b'\r', b'\n', ..] => Some(after + 2),
        _ => None,
    })
}

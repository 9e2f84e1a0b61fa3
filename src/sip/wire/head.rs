//! The head of a message: start line and header lines, found but not yet interpreted.

use memchr::memchr;

use super::{MAX_HEADERS, MAX_LINE, ParseError};
use crate::sip::Method;
use crate::sip::scan::{cut, trim};
use crate::sip::simd::NonPrintable;

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

/// Long form, compact form (RFC 3261 section 7.3.3; RFC 6665 section 8.2), and whether it may stand only once. In the order
/// of [`Name`].
const NAMES: [(&str, &str, bool); Name::Other as usize] = [
    ("Accept", "", false),
    ("Authorization", "", false),
    ("Call-ID", "i", true),
    ("Contact", "m", false),
    ("Content-Encoding", "e", false),
    ("Content-Length", "l", true),
    ("Content-Type", "c", true),
    ("CSeq", "", true),
    ("Event", "o", true),
    ("Expires", "", true),
    ("From", "f", true),
    ("Max-Forwards", "", true),
    ("Min-Expires", "", false),
    ("Record-Route", "", false),
    ("Require", "", false),
    ("Retry-After", "", false),
    ("Route", "", false),
    ("SIP-If-Match", "", true),
    ("Subscription-State", "", true),
    ("Suppress-If-Match", "", true),
    ("To", "t", true),
    ("User-Agent", "", false),
    ("Via", "v", false),
];

impl Name {
    /// The header of this name.
    pub(super) fn of(text: &str) -> Name {
        let guess = Name::guess(text.as_bytes());
        match NAMES.get(guess as usize) {
            // Nearly everybody writes it as the RFCs do.
            Some((long, ..)) if *long == text => guess,
            Some((long, short, _)) if long.eq_ignore_ascii_case(text) || short.eq_ignore_ascii_case(text) => guess,
            _ => Name::Other,
        }
    }

    /// The header of a line and where its colon is, if its name is one of those that nearly all lines have, written as nearly
    /// everybody writes it. A comparison with a constant is a few instructions, so these are tried before the name is looked
    /// for.
    #[inline]
    pub(super) fn at_start_of(line: &[u8]) -> Option<(Name, usize)> {
        let is = |name: Name| {
            let text = NAMES[name as usize].0.as_bytes();
            (line.len() > text.len() && line[text.len()] == b':' && line.starts_with(text))
                .then_some((name, text.len()))
        };
        match line.first()? {
            b'V' => is(Name::Via),
            b'F' => is(Name::From),
            b'T' => is(Name::To),
            b'C' => is(Name::CallId)
                .or_else(|| is(Name::CSeq))
                .or_else(|| is(Name::Contact))
                .or_else(|| is(Name::ContentLength))
                .or_else(|| is(Name::ContentType)),
            b'M' => is(Name::MaxForwards),
            b'E' => is(Name::Event).or_else(|| is(Name::Expires)),
            b'U' => is(Name::UserAgent),
            b'A' => is(Name::Accept),
            b'R' => is(Name::RecordRoute).or_else(|| is(Name::Route)),
            _ => None,
        }
    }

    /// The only header that a name can be, by its length and its first letters: there is one to compare with, not 23.
    fn guess(text: &[u8]) -> Name {
        let letter = |i: usize| text.get(i).map_or(0, u8::to_ascii_lowercase);
        match (text.len(), letter(0)) {
            (1, b'v') | (3, b'v') => Name::Via,
            (1, b'f') | (4, b'f') => Name::From,
            (1, b't') | (2, b't') => Name::To,
            (7, b'c') if letter(1) == b'a' => Name::CallId,
            (1, b'i') => Name::CallId,
            (1, b'm') | (7, b'c') => Name::Contact,
            (4, b'c') => Name::CSeq,
            (1, b'o') | (5, b'e') => Name::Event,
            (7, b'e') => Name::Expires,
            (6, b'a') => Name::Accept,
            (13, b'a') => Name::Authorization,
            (1, b'l') | (14, b'c') => Name::ContentLength,
            (1, b'c') | (12, b'c') => Name::ContentType,
            (1, b'e') | (16, b'c') => Name::ContentEncoding,
            (12, b'm') => Name::MaxForwards,
            (11, b'm') => Name::MinExpires,
            (12, b'r') => Name::RecordRoute,
            (5, b'r') => Name::Route,
            (7, b'r') => Name::Require,
            (11, b'r') => Name::RetryAfter,
            (12, b's') => Name::SipIfMatch,
            (18, b's') => Name::SubscriptionState,
            (17, b's') => Name::SuppressIfMatch,
            (10, b'u') => Name::UserAgent,
            _ => Name::Other,
        }
    }

    /// Whether it may stand only once.
    pub(super) fn stands_once(self) -> bool {
        NAMES.get(self as usize).is_some_and(|(_, _, once)| *once)
    }

    /// The header's full name, as written.
    pub fn text(self) -> &'static str {
        NAMES.get(self as usize).map_or("Other", |(long, ..)| long)
    }
}

/// The method of a request. Method names are case-sensitive (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMethod<'a> {
    /// One that an RFC defines.
    Known(Method),
    /// Any other token.
    Unknown(&'a str),
}

impl<'a> RequestMethod<'a> {
    /// Reads a method name.
    pub fn of(text: &'a str) -> RequestMethod<'a> {
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
        KNOWN
            .iter()
            .find(|(name, _)| *name == text)
            .map_or(RequestMethod::Unknown(text), |(_, method)| RequestMethod::Known(*method))
    }
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// Of a request.
    Request {
        /// Its method.
        verb: RequestMethod<'a>,
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
    pub fault: Option<ParseError>,
    /// True if the fault makes it doubtful where the message ends; nothing behind it in a stream can be trusted then.
    pub end_hidden: bool,
}

/// The version at the end of a request line or the start of a status line.
fn version(text: &str) -> Result<(), ParseError> {
    if text == "SIP/2.0" {
        return Ok(());
    }
    let Some((name, number)) = text.split_once('/') else { return Err(ParseError::NotSip) };
    let shaped = number.split_once('.').is_some_and(|(a, b)| {
        [a, b].iter().all(|n| !n.is_empty() && n.len() < 4 && n.bytes().all(|c| c.is_ascii_digit()))
    });
    match name.eq_ignore_ascii_case("SIP") && shaped {
        true if number == "2.0" => Ok(()),
        true => Err(ParseError::Version),
        false => Err(ParseError::NotSip),
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

fn start_line(line: &str) -> Result<(StartLine<'_>, Option<ParseError>), ParseError> {
    if line.len() >= 4 && line.as_bytes()[..4].eq_ignore_ascii_case(b"SIP/") {
        let mut parts = line.splitn(3, ' ');
        version(parts.next().unwrap_or_default())?;
        let code = parts.next().unwrap_or_default();
        let status =
            code.parse().ok().filter(|s| code.len() == 3 && (100..700).contains(s)).ok_or(ParseError::NotSip)?;
        return Ok((StartLine::Response { status }, None));
    }
    // Blanks too many are the peer's fault, not a reason to leave him without an answer (RFC 4475 section 3.1.2.9).
    let trimmed = if line.ends_with(' ') { line.trim_end_matches(' ') } else { line };
    let mut fault = (trimmed.len() != line.len()).then_some(ParseError::StartLine);
    let blank = trimmed.bytes().rposition(|c| c == b' ').ok_or(ParseError::NotSip)?;
    let (rest, last) = (&trimmed[..blank], &trimmed[blank + 1..]);
    let (method, uri) = cut(rest, b' ').ok_or(ParseError::NotSip)?;
    if !is_token(method) {
        return Err(ParseError::NotSip);
    }
    match version(last) {
        Ok(()) => {}
        Err(ParseError::Version) => fault = Some(ParseError::Version),
        Err(other) => return Err(other),
    }
    if uri.is_empty() || uri.bytes().any(|c| c == b' ' || c == b'\t' || c == b'<' || c == b'>') {
        fault = fault.or(Some(ParseError::StartLine));
    }
    Ok((StartLine::Request { verb: RequestMethod::of(method), method, uri }, fault))
}

impl<'a> Head<'a> {
    /// Finds the lines of `text`, which starts at the start line and may go on after the empty line; says where
    /// the body starts.
    pub fn find(text: &'a str) -> Result<(Head<'a>, usize), ParseError> {
        let bytes = text.as_bytes();
        let mut odd = NonPrintable::of(bytes);
        let line = next_line(text, 0, &mut odd).ok_or(ParseError::NotSip)?;
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
            head.note(ParseError::HeaderTooLong);
        }
        let (mut at, mut complete, mut seen) = (line.end, false, 0_u32);
        loop {
            // As most are: a usual name, no fold, and nothing odd but the end.
            if let Some(end) = odd.next(at)
                && let [b'\r', b'\n', next, ..] = bytes[end..]
                && !matches!(next, b' ' | b'\t')
                && let Some((name, colon)) = Name::at_start_of(&bytes[at..end])
            {
                let line = &text[at..end];
                head.take(name, &line[..colon], &line[colon + 1..], end + 2 - at, &mut seen);
                at = end + 2;
                continue;
            }
            let Some(mut line) = next_line(text, at, &mut odd) else { break };
            let empty = matches!(line.text, "" | "\r");
            // Lines that start with a blank continue the one before (RFC 3261 section 7.3.1).
            while !empty && matches!(bytes.get(line.end), Some(b' ' | b'\t')) {
                let Some(more) = next_line(text, line.end, &mut odd) else { break };
                line = Line { text: &text[at..more.end], end: more.end, clean: line.clean & more.clean };
            }
            if !line.clean {
                head.check_octets(&text[at..line.end]);
            }
            if empty {
                (complete, at) = (true, line.end);
                break;
            }
            head.take_any(line.text, line.end - at, &mut seen);
            at = line.end;
        }
        if !complete {
            head.note(ParseError::Incomplete);
        }
        Ok((head, at))
    }

    /// Takes one header line with its folds, `length` octets with its end.
    fn take_any(&mut self, line: &'a str, length: usize, seen: &mut u32) {
        let (name, written, value) = match Name::at_start_of(line.as_bytes()) {
            Some((name, colon)) => (name, &line[..colon], &line[colon + 1..]),
            None => {
                let Some((written, value)) = name_and_value(line) else { return self.note(ParseError::HeaderLine) };
                (Name::of(written), written, value)
            }
        };
        self.take(name, written, value, length, seen);
    }

    /// Takes one header. `seen` has a bit for every name that stood before.
    #[inline(always)]
    fn take(&mut self, name: Name, written: &'a str, value: &'a str, length: usize, seen: &mut u32) {
        let bit = 1 << name as u32;
        if *seen & bit != 0 && name.stands_once() {
            let fault = ParseError::Repeated(name);
            return match name {
                Name::ContentLength => self.note_hidden_end(fault),
                _ => self.note(fault),
            };
        }
        *seen |= bit;
        if length > MAX_LINE {
            return self.note(ParseError::HeaderTooLong);
        }
        if self.headers.len() >= MAX_HEADERS {
            self.note(ParseError::TooManyHeaders);
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

    fn note(&mut self, fault: ParseError) {
        self.fault = self.fault.or(Some(fault));
    }

    fn note_hidden_end(&mut self, fault: ParseError) {
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
            self.note_hidden_end(ParseError::ControlCharacter);
        }
        // Behind a backslash it is a legal character of a quoted string (RFC 4475 section 3.1.1.2).
        if memchr::memchr_iter(0, line).any(|i| i == 0 || line[i - 1] != b'\\') {
            self.note(ParseError::ControlCharacter);
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

/// The line that starts at `at`; `odd` is of the whole text.
#[inline]
fn next_line<'a>(text: &'a str, at: usize, odd: &mut NonPrintable<'_>) -> Option<Line<'a>> {
    let (bytes, mut from) = (text.as_bytes(), at);
    let end = loop {
        let special = odd.next(from)?;
        match bytes[special..] {
            [b'\r', b'\n', ..] => return Some(Line { text: &text[at..special], end: special + 2, clean: true }),
            [b'\r' | b'\n' | 0, ..] => break special + memchr(b'\n', &bytes[special..])?,
            // A tab, a letter beyond ASCII, or a control character that parts nothing.
            _ => from = special + 1,
        }
    };
    Some(Line { text: &text[at..end], end: end + 1, clean: false })
}

/// Name and value of a header line, not trimmed; none if there is no name.
fn name_and_value(line: &str) -> Option<(&str, &str)> {
    let end = line.bytes().position(|c| !TOKEN[usize::from(c)]).filter(|end| *end > 0)?;
    let mut colon = end;
    while matches!(line.as_bytes().get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    (line.as_bytes().get(colon) == Some(&b':')).then(|| (&line[..end], &line[colon + 1..]))
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

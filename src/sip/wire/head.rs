//! Head of a message: start line and header lines, found but not yet interpreted.

use memchr::memchr;

use super::{MAX_HEADERS, MAX_LINE, ParseError};
use crate::sip::Method;
use crate::sip::scan::{cut, trim};
use crate::sip::simd::NonPrintable;

/// Headers that this server uses, in their long or compact form.
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

/// Long form, compact form (RFC 3261 section 7.3.3; RFC 6665 section 8.2), and whether the header may occur only
/// once. In the order of [`Name`].
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
    /// Header with this name.
    pub(super) fn of(text: &str) -> Name {
        let guess = Name::guess(text.as_bytes());
        match NAMES.get(guess as usize) {
            // Nearly every sender writes the long form as the RFCs do.
            Some((long, ..)) if *long == text => guess,
            Some((long, short, _)) if long.eq_ignore_ascii_case(text) || short.eq_ignore_ascii_case(text) => guess,
            _ => Name::Other,
        }
    }

    /// Header of a line and the position of its colon, if the name is a common one in its usual spelling. A
    /// comparison with a constant costs a few instructions, so these names are tried before the colon is searched.
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

    /// Only header that a name can be, by its length and its first letters. So there is one name to compare with, not
    /// 23.
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

    /// Returns true if the header may occur only once.
    pub(super) fn stands_once(self) -> bool {
        NAMES.get(self as usize).is_some_and(|(_, _, once)| *once)
    }

    /// Long form of the name, in its usual spelling.
    pub fn text(self) -> &'static str {
        NAMES.get(self as usize).map_or("Other", |(long, ..)| long)
    }
}

/// Method of a request. Method names are case-sensitive (RFC 3261 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMethod<'a> {
    /// A method that an RFC defines.
    Known(Method),
    /// Any other token.
    Unknown(&'a str),
}

impl<'a> RequestMethod<'a> {
    /// Parses a method name.
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

/// Start line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// Request line.
    Request {
        /// Method.
        verb: RequestMethod<'a>,
        /// Method as written, to compare with CSeq.
        method: &'a str,
        /// Request-URI as written.
        uri: &'a str,
    },
    /// Status line.
    Response {
        /// Status, 100 to 699.
        status: u16,
    },
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Header that the name stands for.
    pub name: Name,
    /// Name as written.
    pub written: &'a str,
    /// Value without blanks at its ends. Folds are still in it.
    pub value: &'a str,
}

/// Head whose lines have been found. One with a fault is still good enough to address a response.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// Start line.
    pub start: StartLine<'a>,
    /// Header lines in order.
    pub headers: Vec<Header<'a>>,
    /// For each name, one more than the position of its first line; 0 if there is none.
    first: [u8; Name::Other as usize + 1],
    /// First fault found, or the first that makes the end of the message uncertain.
    pub fault: Option<ParseError>,
    /// True if the fault makes the end of the message uncertain. In a stream, nothing after it can be trusted.
    pub end_hidden: bool,
}

/// Checks the version at the end of a request line or the start of a status line.
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

/// Characters of a token (RFC 3261 section 25.1).
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

/// Returns true if a text is a token.
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
    // A request with surplus blanks is malformed, but still gets a response (RFC 4475 section 3.1.2.9).
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
    /// Finds the lines of `text`, which begins with the start line and may continue after the empty line. Returns the
    /// start of the body as well.
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
            // Fast path for most lines: a common name, no fold, and only printable characters before the line end.
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
            // A line that starts with a blank continues the line before it (RFC 3261 section 7.3.1).
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

    /// Adds one header line with its folds. `length` is in octets and includes the line end.
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

    /// Adds one header. `seen` has a bit for every name that occurred before.
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
            // Content-Length is taken even so, because the end of the message must be known: a proxy's connection
            // carries the messages of other peers, too.
            if name != Name::ContentLength {
                return;
            }
        }
        self.headers.push(Header { name, written, value: trim(value) });
        let first = &mut self.first[name as usize];
        if *first == 0 {
            // The limit on header lines is below 255.
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

    /// Checks for NUL and for a CR or LF on its own. Other implementations may take half a line end for a whole one,
    /// and would then see another message than we do.
    fn check_octets(&mut self, line: &str) {
        let line = line.as_bytes();
        let half = |i: usize| match line[i] {
            b'\r' => line.get(i + 1) != Some(&b'\n'),
            _ => i == 0 || line[i - 1] != b'\r',
        };
        if memchr::memchr2_iter(b'\r', b'\n', line).any(half) {
            self.note_hidden_end(ParseError::ControlCharacter);
        }
        // After a backslash, NUL is a legal character of a quoted string (RFC 4475 section 3.1.1.2).
        if memchr::memchr_iter(0, line).any(|i| i == 0 || line[i - 1] != b'\\') {
            self.note(ParseError::ControlCharacter);
        }
    }

    /// Values of all header lines with this name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a str> {
        let from = match self.first[name as usize] {
            0 => self.headers.len(),
            first => usize::from(first) - 1,
        };
        self.headers[from..].iter().filter(move |h| h.name == name).map(|h| h.value)
    }

    /// Value of the first header line with this name.
    pub fn first(&self, name: Name) -> Option<&'a str> {
        match self.first[name as usize] {
            0 => None,
            first => self.headers.get(usize::from(first) - 1).map(|header| header.value),
        }
    }
}

/// A line of text.
struct Line<'a> {
    /// Text before its LF, or before its CRLF if the line is `clean`.
    text: &'a str,
    /// Start of the next line.
    end: usize,
    /// True if it ends with CRLF and holds no other CR, LF or NUL.
    clean: bool,
}

/// Line that starts at `at`. `odd` must belong to the same text.
#[inline]
fn next_line<'a>(text: &'a str, at: usize, odd: &mut NonPrintable<'_>) -> Option<Line<'a>> {
    let (bytes, mut from) = (text.as_bytes(), at);
    let end = loop {
        let special = odd.next(from)?;
        match bytes[special..] {
            [b'\r', b'\n', ..] => return Some(Line { text: &text[at..special], end: special + 2, clean: true }),
            [b'\r' | b'\n' | 0, ..] => break special + memchr(b'\n', &bytes[special..])?,
            // A tab, an octet outside ASCII, or a control character that does not end a line.
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

/// End of the head that `bytes` starts with: after the empty line, which may end with `CRLF` or, wrongly, with `LF`.
/// The octets before `from` have been searched.
///
/// Datagrams and streams share this function, so that both see the same message.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find_map(|after| match &bytes[after..] {
        [b'\n', ..] => Some(after + 1),
        [b'\r', b'\n', ..] => Some(after + 2),
        _ => None,
    })
}

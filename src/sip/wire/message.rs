//! A whole message: its head, what every message must have, and its body.

use super::head::{StartLine, head_end};
use super::{Head, MAX_MESSAGE, Name, ParseError, RequestMethod};
use crate::sip::headers::{CSeq, NameAddr, Via};
use crate::sip::simd::is_printable;
use crate::sip::uri::Uri;

/// A message with everything in it that RFC 3261 section 8.1.1 demands, borrowed from the bytes it came in.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Start line and header lines.
    pub head: Head<'a>,
    /// The Request-URI; none in a response.
    pub uri: Option<Uri<'a>>,
    /// The topmost Via.
    pub via: Via<'a>,
    /// The From value.
    pub from: NameAddr<'a>,
    /// The To value.
    pub to: NameAddr<'a>,
    /// The Call-ID; compared byte by byte.
    pub call_id: &'a str,
    /// The CSeq value.
    pub cseq: CSeq<'a>,
    /// The body, as long as Content-Length says.
    pub body: &'a [u8],
}

/// A message that cannot be taken.
#[derive(Debug)]
pub struct ParseFailure<'a> {
    /// What is wrong with it.
    pub fault: ParseError,
    /// Its head, if enough could be read to address an answer to it.
    pub head: Option<Box<Head<'a>>>,
}

/// Reads one datagram, or one message that a [`super::Framer`] has cut out of a stream.
///
/// `Ok(None)` is a keep-alive: nothing but line ends and NULs. In a datagram, bytes after Content-Length are dropped
/// and a missing Content-Length means all that is there (RFC 3261 section 18.3).
pub fn read(bytes: &[u8]) -> Result<Option<Message<'_>>, ParseFailure<'_>> {
    let refuse = |fault| ParseFailure { fault, head: None };
    let start = bytes.iter().position(|c| !matches!(c, b'\r' | b'\n' | 0)).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() > MAX_MESSAGE {
        return Err(refuse(ParseError::TooLarge));
    }
    // Only the head has to be text; the body may hold anything, but seldom does.
    let head = || std::str::from_utf8(&bytes[..head_end(bytes, 0).unwrap_or(bytes.len())]);
    let text = match std::str::from_utf8(bytes).or_else(|_| head()) {
        Ok(text) => text,
        // The lines up to the bad byte may be enough to answer.
        Err(e) => {
            let good = std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default();
            let head = Head::find(good).ok().map(|(head, _)| Box::new(head));
            return Err(ParseFailure { fault: ParseError::NotUtf8, head });
        }
    };
    let (head, body_at) = Head::find(text).map_err(refuse)?;
    if let Some(fault) = head.fault {
        return Err(ParseFailure { fault, head: Some(Box::new(head)) });
    }
    match Message::check(&head, &bytes[body_at..]) {
        Ok(Parts { uri, via, from, to, call_id, cseq, body }) => {
            Ok(Some(Message { head, uri, via, from, to, call_id, cseq, body }))
        }
        Err(fault) => Err(ParseFailure { fault, head: Some(Box::new(head)) }),
    }
}

/// What is in a [`Message`] besides its head.
struct Parts<'a> {
    uri: Option<Uri<'a>>,
    via: Via<'a>,
    from: NameAddr<'a>,
    to: NameAddr<'a>,
    call_id: &'a str,
    cseq: CSeq<'a>,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    fn check(head: &Head<'a>, rest: &'a [u8]) -> Result<Parts<'a>, ParseError> {
        let need = |name: Name| head.first(name).ok_or(ParseError::Missing(name));
        let via = Via::first_of(need(Name::Via)?).ok_or(ParseError::Invalid(Name::Via))?;
        for value in head.all(Name::Via) {
            if !Via::list_is_sound(value) {
                return Err(ParseError::Invalid(Name::Via));
            }
        }
        let party =
            |name: Name| NameAddr::read(need(name)?).filter(NameAddr::tag_is_sound).ok_or(ParseError::Invalid(name));
        let (from, to) = (party(Name::From)?, party(Name::To)?);
        let call_id = need(Name::CallId)?;
        // What the writer would have to change could not be given back as it came.
        let printable = is_printable(call_id.as_bytes(), b'!', []);
        if call_id.is_empty() || (!printable && call_id.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return Err(ParseError::Invalid(Name::CallId));
        }
        let cseq = CSeq::read(need(Name::CSeq)?).ok_or(ParseError::Invalid(Name::CSeq))?;
        let body = match head.first(Name::ContentLength) {
            None => rest,
            Some(text) => {
                let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
                let length = text.parse::<usize>().ok().filter(|_| digits).ok_or(ParseError::ContentLength)?;
                rest.get(..length).ok_or(ParseError::ContentLength)?
            }
        };
        let uri = match head.start {
            StartLine::Request { method, .. } if cseq.method != method => return Err(ParseError::CSeqMethod),
            StartLine::Request { uri, .. } => Some(Uri::read(uri).ok_or(ParseError::RequestUri)?),
            StartLine::Response { .. } => None,
        };
        Ok(Parts { uri, via, from, to, call_id, cseq, body })
    }

    /// Method and Request-URI of a request; none for a response.
    pub fn request(&self) -> Option<(RequestMethod<'a>, Uri<'a>)> {
        match self.head.start {
            StartLine::Request { verb, .. } => Some((verb, self.uri?)),
            StartLine::Response { .. } => None,
        }
    }

    /// Status of a response; none for a request.
    pub fn status(&self) -> Option<u16> {
        match self.head.start {
            StartLine::Request { .. } => None,
            StartLine::Response { status } => Some(status),
        }
    }

    /// The value of the first line of this name.
    pub fn first(&self, name: Name) -> Option<&'a str> {
        self.head.first(name)
    }

    /// The values of all lines of this name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a str> {
        self.head.all(name)
    }
}

//! A complete message: its head, the headers that every message must have, and its body.

use super::head::{StartLine, head_end};
use super::{Head, MAX_MESSAGE, Name, ParseError, RequestMethod};
use crate::sip::headers::{CSeq, NameAddr, Via};
use crate::sip::simd::is_printable;
use crate::sip::uri::Uri;

/// Message with all headers that RFC 3261 section 8.1.1 demands, borrowed from the received octets.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Start line and header lines.
    pub head: Head<'a>,
    /// Request-URI; none in a response.
    pub uri: Option<Uri<'a>>,
    /// Topmost Via.
    pub via: Via<'a>,
    /// From value.
    pub from: NameAddr<'a>,
    /// To value.
    pub to: NameAddr<'a>,
    /// Call-ID. Compared byte by byte.
    pub call_id: &'a str,
    /// CSeq value.
    pub cseq: CSeq<'a>,
    /// Body, as long as Content-Length says.
    pub body: &'a [u8],
}

/// Message that was rejected.
#[derive(Debug)]
pub struct ParseFailure<'a> {
    /// Reason of the rejection.
    pub fault: ParseError,
    /// Head of the message, if enough of it could be parsed to address a response.
    pub head: Option<Box<Head<'a>>>,
}

/// Parses one datagram, or one message that a [`super::Framer`] has cut out of a stream.
///
/// `Ok(None)` is a keep-alive: only line ends and NULs. In a datagram, octets after Content-Length are dropped, and
/// without a Content-Length the body is all that follows the head (RFC 3261 section 18.3).
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
    // Only the head has to be text. The body may hold anything, but rarely does.
    let head = || std::str::from_utf8(&bytes[..head_end(bytes, 0).unwrap_or(bytes.len())]);
    let text = match std::str::from_utf8(bytes).or_else(|_| head()) {
        Ok(text) => text,
        // The lines before the bad octet may be enough for a response.
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

/// Fields of a [`Message`] besides its head.
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
        // The writer would replace these characters, so the Call-ID could not be sent back unchanged.
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

    /// Value of the first header line with this name.
    pub fn first(&self, name: Name) -> Option<&'a str> {
        self.head.first(name)
    }

    /// Values of all header lines with this name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a str> {
        self.head.all(name)
    }
}

//! Responses to our own requests, parsed for the client transaction.
//!
//! Every second message is such a response, and nearly all have the same plain form. For those, [`Reply::glance`]
//! finds the few fields that are needed at a tenth of the cost of a complete [`Message`]. Any other form is parsed
//! completely.

use super::head::{Name, is_token};
use super::{MAX_HEADERS, MAX_LINE, Message};
use crate::sip::headers::{CSeq, list, name_and_value, retry_after};
use crate::sip::scan::{cut, trim};
use crate::sip::simd::{NonPrintable, is_printable};

/// Response to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Status, 100 to 699.
    pub status: u16,
    /// Branch of its only Via, which identifies the transaction (RFC 3261 section 17.1.3).
    pub branch: &'a str,
    /// Host and port of that Via, as written.
    pub sent_by: &'a str,
    /// Call-ID.
    pub call_id: &'a str,
    /// CSeq.
    pub cseq: CSeq<'a>,
    /// Retry-After, in seconds.
    pub retry_after: Option<u32>,
}

impl<'a> Reply<'a> {
    /// Takes the fields of a parsed message. None for a request, and for a response that is not for us: without a
    /// branch, or with more Vias than ours (RFC 3261 section 8.1.3.3).
    pub fn of(message: &Message<'a>) -> Option<Reply<'a>> {
        let only_one = message.all(Name::Via).flat_map(list).count() == 1;
        Some(Reply {
            status: message.status()?,
            branch: message.via.branch().filter(|_| only_one)?,
            sent_by: message.via.sent_by,
            call_id: message.call_id,
            cseq: message.cseq,
            retry_after: message.first(Name::RetryAfter).and_then(retry_after),
        })
    }

    /// Parses a datagram fast, if it is a response of the plain form: printable ASCII, every line ended by CRLF and
    /// none folded, one Via, whose value holds no quotes.
    ///
    /// The result equals that of [`Reply::of`]. From and To must be present, and are not parsed.
    pub fn glance(bytes: &'a [u8]) -> Option<Reply<'a>> {
        let status = match bytes.strip_prefix(b"SIP/2.0 ")? {
            [a @ b'1'..=b'6', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                [a, b, c].iter().fold(0, |status, digit| 10 * status + u16::from(**digit - b'0'))
            }
            _ => return None,
        };
        let text = std::str::from_utf8(bytes).ok()?;
        let (mut via, mut call_id, mut cseq, mut again, mut length) = (None, None, None, None, None);
        let (mut lines, mut seen) = (Lines { text, at: 0, odd: NonPrintable::of(bytes) }, 0_u32);
        lines.next()?;
        for _ in 0..=MAX_HEADERS {
            let line = lines.next()?;
            if line.is_empty() {
                const NEEDED: u32 = 1 << Name::From as u32 | 1 << Name::To as u32;
                if seen & NEEDED != NEEDED || length.is_some_and(|length| length > text.len() - lines.at) {
                    return None;
                }
                let (sent_by, branch) = via?;
                let (call_id, cseq) = (call_id?, cseq?);
                return Some(Reply { status, branch, sent_by, call_id, cseq, retry_after: again });
            }
            if line.len() + "\r\n".len() > MAX_LINE {
                return None;
            }
            let (name, value) = match Name::at_start_of(line.as_bytes()) {
                Some((name, colon)) => (name, &line[colon + 1..]),
                None => {
                    let (name, value) = cut(line, b':').filter(|(name, _)| is_token(name))?;
                    (Name::of(name), value)
                }
            };
            let value = trim(value);
            let known = seen & 1 << name as u32 != 0;
            if known && (name.stands_once() || matches!(name, Name::Via | Name::RetryAfter)) {
                return None;
            }
            seen |= 1 << name as u32;
            match name {
                Name::Via => via = Some(plain_via(value)?),
                Name::CallId => call_id = Some(value).filter(|id| !id.is_empty() && !id.contains(' ')),
                Name::CSeq => cseq = CSeq::read(value),
                Name::RetryAfter => again = retry_after(value),
                Name::ContentLength => length = Some(digits(value)?),
                _ => {}
            }
        }
        None
    }
}

/// Iterator over lines of printable ASCII.
struct Lines<'a> {
    text: &'a str,
    /// Start of the next line.
    at: usize,
    odd: NonPrintable<'a>,
}

impl<'a> Lines<'a> {
    /// Next line; none unless it is complete and plain.
    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let (from, end) = (self.at, self.odd.next(self.at)?);
        self.at = end + 2;
        match self.text.as_bytes()[end..] {
            // A folded line.
            [b'\r', b'\n', b' ', ..] => None,
            [b'\r', b'\n', ..] => Some(&self.text[from..end]),
            _ => None,
        }
    }
}

fn digits(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Host and port, and the branch, of a Via value that is one plain item.
fn plain_via(value: &str) -> Option<(&str, &str)> {
    let (transport, rest) = cut(value.strip_prefix("SIP/2.0/")?, b' ')?;
    let (sent_by, params) = cut(rest, b';')?;
    if !is_token(transport) || sent_by.is_empty() || !is_printable(rest.as_bytes(), b'!', *b"\"<,") {
        return None;
    }
    // Our Via starts with the branch, and nearly all peers leave it there.
    let (mut branch, params) = match params.strip_prefix("branch=") {
        Some(params) => {
            let (branch, rest) = cut(params, b';').map_or((params, None), |(branch, rest)| (branch, Some(rest)));
            (Some(branch), rest)
        }
        None => (None, Some(params)),
    };
    for (name, value) in params.into_iter().flat_map(|params| params.split(';')).map(name_and_value) {
        if name.is_empty() || (name.eq_ignore_ascii_case("branch") && branch.replace(value).is_some()) {
            return None;
        }
    }
    Some((sent_by, branch.filter(|branch| !branch.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire;

    const PLAIN: &str = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1.0.1;rport=5060;received=127.0.0.1\r\n\
         From: <sip:1001@acme.test>;tag=1.0.9\r\nTo: \"Bob, the\" <sip:1002@acme.test>;tag=x\r\nCall-ID: c@1\r\n\
         CSeq: 7 NOTIFY\r\nUser-Agent: Desk/1 (x; y)\r\nContent-Length: 0\r\n\r\n";

    fn whole(text: &str) -> Option<Reply<'_>> {
        Reply::of(&wire::read(text.as_bytes()).ok()??)
    }

    #[test]
    fn a_glance_sees_what_reading_finds() {
        let reply = Reply::glance(PLAIN.as_bytes()).unwrap();
        assert_eq!((reply.status, reply.branch, reply.sent_by), (200, "z9hG4bK1.0.1", "127.0.0.1:5060"));
        assert_eq!(
            (reply.call_id, reply.cseq.number, reply.cseq.method, reply.retry_after),
            ("c@1", 7, "NOTIFY", None)
        );
        for (from, to) in [
            ("200 OK", "481 Gone\u{20}"),
            ("200 OK", "503 "),
            ("Via: ", "v:"),
            ("CSeq: 7 NOTIFY", "cseq:  7   NOTIFY "),
            ("Content-Length: 0", "l: 0\r\nRetry-After: 30 (busy);duration=5"),
            ("Content-Length: 0\r\n", ""),
            ("\r\n\r\n", "\r\n\r\nmore than it says"),
            ("User-Agent: Desk/1 (x; y)", "Odd-Header: a\r\nOdd-Header: b\r\nContact:"),
            (";rport=5060", ";RPORT;Branch2=x;"),
        ] {
            let text = PLAIN.replacen(from, to, 1);
            assert_ne!(text, PLAIN);
            let glanced = Reply::glance(text.as_bytes());
            if !text.contains(";Branch2=x;;") {
                assert!(glanced.is_some(), "{text}");
            }
            assert!(glanced.is_none() || glanced == whole(&text), "{text}");
        }
    }

    #[test]
    fn whatever_is_not_plain_goes_the_long_way() {
        for (from, to) in [
            ("SIP/2.0 200", "sip/2.0 200"),
            ("200 OK", "700 OK"),
            ("200 OK", "20 OK"),
            ("200 OK", "200"),
            ("SIP/2.0/UDP 127", "SIP / 2.0 / UDP 127"),
            (";received=127.0.0.1\r\n", ";received=127.0.0.1, SIP/2.0/UDP h;branch=z\r\n"),
            (";received=127.0.0.1\r\n", ";received=127.0.0.1\r\nVia: SIP/2.0/UDP h;branch=z\r\n"),
            (";received=127.0.0.1\r\n", ";x=\"branch=y\"\r\n"),
            (";rport=5060", ";branch=z9hG4bK2"),
            ("branch=z9hG4bK1.0.1", "branch"),
            ("Call-ID: c@1", "Call-ID: c @1"),
            ("Call-ID: c@1", "Call-ID: c@1\r\ni: c@1"),
            ("Call-ID: c@1", "Call-ID : c@1"),
            ("Call-ID: c@1", "Call-ID:\r\n c@1"),
            ("Call-ID: c@1\r\n", ""),
            ("To: ", "Too: "),
            ("From: ", "X: "),
            ("CSeq: 7", "CSeq: 2147483648"),
            ("CSeq: 7", "CSeq: -7"),
            ("Content-Length: 0", "Content-Length: 1"),
            ("Content-Length: 0", "Content-Length: +0"),
            ("Desk/1", "D\u{e9}sk/1"),
            ("Desk/1", "Desk\t/1"),
            ("Desk/1", "Desk\0/1"),
            ("Desk/1", "Desk\r/1"),
            ("User-Agent: Desk/1", "User-Agent Desk/1"),
            ("\r\nContent-Length", "\nContent-Length"),
            ("\r\n\r\n", "\r\n"),
        ] {
            let text = PLAIN.replacen(from, to, 1);
            assert_ne!(text, PLAIN);
            assert_eq!(Reply::glance(text.as_bytes()), None, "{text}");
        }
        let many =
            PLAIN.replacen("User-Agent: x\r\n", "", 1).replacen("Call-ID", &("A: b\r\n".repeat(130) + "Call-ID"), 1);
        assert_eq!(Reply::glance(many.as_bytes()), None);
        assert_eq!(Reply::glance(b"SUBSCRIBE sip:a SIP/2.0\r\n\r\n"), None);
    }
}

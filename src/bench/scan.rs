//! Fast parser for the server's messages: one pass, no copies, and only the fields that the bench checks.
//!
//! The server's parser (`sip/wire`) validates every line, which costs as much as everything else that the generator
//! does with a message. So it checks only a sample, and this one parses the rest without validation.

use memchr::memchr;

/// One message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// Status of a response; 0 for a request.
    pub(super) status: u16,
    /// Method of a request.
    pub(super) method: &'a str,
    /// The first Via line, which may hold several values.
    pub(super) via: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) call_id: &'a str,
    pub(super) cseq: u32,
    pub(super) contact: &'a str,
    pub(super) event: &'a str,
    pub(super) expires: &'a str,
    pub(super) state: &'a str,
    pub(super) content_type: &'a str,
    /// All header lines.
    head: &'a str,
    pub(super) body: &'a [u8],
}

/// Header lines of a head with their names and values.
fn lines(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest.as_bytes())?;
        let (line, after) = rest.split_at(end + 1);
        rest = after;
        let colon = memchr(b':', line.as_bytes())?;
        Some((trim(&line[..colon]), trim(&line[colon + 1..])))
    })
}

/// Trims blanks and line ends. Most values have one blank before them and CRLF behind, and nothing else.
fn trim(text: &str) -> &str {
    let is_blank = |c: &u8| matches!(c, b' ' | b'\t' | b'\r' | b'\n');
    let bytes = text.as_bytes();
    let from = bytes.iter().position(|c| !is_blank(c)).unwrap_or(bytes.len());
    let upto = bytes.iter().rposition(|c| !is_blank(c)).map_or(from, |last| last + 1);
    &text[from..upto]
}

impl<'a> Scan<'a> {
    /// Parses a datagram; none if it is not a complete SIP message, or has folded lines (see [`unfold`]).
    pub(super) fn read(datagram: &'a [u8]) -> Option<Scan<'a>> {
        let end = memchr::memmem::find(datagram, b"\r\n\r\n")?;
        let text = std::str::from_utf8(&datagram[..end + 2]).ok()?;
        let (first, head) = text.split_at(memchr(b'\n', text.as_bytes())? + 1);
        let rest = &datagram[end + 4..];
        let mut scan = Scan { head, body: rest, ..Scan::default() };
        match first.strip_prefix("SIP/2.0 ") {
            Some(status) => scan.status = status.get(..3)?.parse().ok().filter(|status| (100..700).contains(status))?,
            None => scan.method = first.strip_suffix(" SIP/2.0\r\n")?.split(' ').next()?,
        }
        let mut at = 0;
        while at < head.len() {
            let end = at + memchr(b'\n', &head.as_bytes()[at..])? + 1;
            let line = &head[at..end];
            at = end;
            let colon = memchr(b':', line.as_bytes())?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            scan.take(name, value, rest)?;
        }
        let whole = !scan.via.is_empty() && !scan.from.is_empty() && !scan.to.is_empty() && !scan.call_id.is_empty();
        (whole && scan.cseq > 0).then_some(scan)
    }

    fn take(&mut self, name: &str, value: &'a str, rest: &'a [u8]) -> Option<()> {
        let is = |long: &str| name.eq_ignore_ascii_case(long);
        let field = match name.len() {
            1 => match name.as_bytes()[0] | 0x20 {
                b'v' if self.via.is_empty() => &mut self.via,
                b'f' => &mut self.from,
                b't' => &mut self.to,
                b'i' => &mut self.call_id,
                b'm' => &mut self.contact,
                b'o' => &mut self.event,
                b'c' => &mut self.content_type,
                b'l' => return self.cut(value, rest),
                _ => return Some(()),
            },
            2 if is("To") => &mut self.to,
            3 if is("Via") && self.via.is_empty() => &mut self.via,
            4 if is("From") => &mut self.from,
            4 if is("CSeq") => {
                self.cseq = trim(value).split(' ').next()?.parse().ok()?;
                return Some(());
            }
            5 if is("Event") => &mut self.event,
            7 if is("Call-ID") => &mut self.call_id,
            7 if is("Contact") => &mut self.contact,
            7 if is("Expires") => &mut self.expires,
            12 if is("Content-Type") => &mut self.content_type,
            14 if is("Content-Length") => return self.cut(value, rest),
            18 if is("Subscription-State") => &mut self.state,
            // A folded line, or a blank before the colon, which this parser does not support.
            _ if name.starts_with([' ', '\t']) || name.ends_with([' ', '\t']) => return None,
            _ => return Some(()),
        };
        *field = trim(value);
        Some(())
    }

    fn cut(&mut self, length: &str, rest: &'a [u8]) -> Option<()> {
        self.body = rest.get(..trim(length).parse().ok()?)?;
        Some(())
    }

    /// Values of all lines with this name.
    pub(super) fn all(&self, long: &str, short: &str) -> impl Iterator<Item = &'a str> {
        let wanted = move |name: &str| name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(short);
        lines(self.head).filter(move |(name, _)| wanted(name)).map(|(_, value)| value)
    }

    /// Value of the first line with this name, which has no compact form.
    pub(super) fn first(&self, long: &str) -> Option<&'a str> {
        self.all(long, long).next()
    }

    /// Tag of a From or To value.
    pub(super) fn tag(value: &'a str) -> Option<&'a str> {
        let params = value.rsplit_once('>').map_or(value, |(_, params)| params);
        parameter(params, "tag")
    }

    /// Branch of the first Via.
    pub(super) fn branch(&self) -> &'a str {
        parameter(self.via.split(',').next().unwrap_or_default(), "branch").unwrap_or_default()
    }
}

/// Value of an unquoted parameter.
pub(super) fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut params = text.split(';').skip(1).filter_map(|param| param.split_once('='));
    params.find(|(known, _)| trim(known).eq_ignore_ascii_case(name)).map(|(_, value)| trim(value))
}

/// Returns the message with its folded lines joined (RFC 3261 section 7.3.1).
pub(super) fn unfold(datagram: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(datagram, b"\r\n\r\n").unwrap_or(datagram.len());
    let mut out = datagram.to_vec();
    for at in 2..end {
        if matches!(datagram[at], b' ' | b'\t') && &datagram[at - 2..at] == b"\r\n" {
            out[at - 2..=at].fill(b' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire::{self, Name};

    const NOTIFY: &str = "NOTIFY sip:p1@127.0.1.1:4000 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:5060;rport;branch=z9hG4bK1, SIP/2.0/UDP 127.0.0.9\r\nv: SIP/2.0/UDP 127.0.0.8\r\n\
        From: \"A >\" <sip:e1@acme.test;tag=no>;x=y;tag=theirs\r\nt: <sip:p1@acme.test>;tag=ours\r\n\
        Call-ID: abc\r\nCSeq: 7 NOTIFY\r\nSubscription-State: active;expires=99\r\nevent: dialog\r\n\
        Content-Type: application/dialog-info+xml\r\nContent-Length: 4\r\n\r\n<a/>junk";

    #[test]
    fn it_sees_what_the_thorough_reader_sees() {
        let scan = Scan::read(NOTIFY.as_bytes()).unwrap();
        let message = wire::read(NOTIFY.as_bytes()).unwrap().unwrap();
        assert_eq!((scan.method, scan.status, scan.body), ("NOTIFY", 0, message.body));
        assert_eq!((scan.call_id, scan.cseq), (message.call_id, message.cseq.number));
        assert_eq!((Scan::tag(scan.from), Scan::tag(scan.to)), (message.from.tag(), message.to.tag()));
        assert_eq!(Some(scan.branch()), message.via.branch());
        assert_eq!((Some(scan.state), Some(scan.event)), (message.first(Name::SubscriptionState), Some("dialog")));
        assert!(scan.all("Via", "v").eq(message.all(Name::Via)));
        assert_eq!((scan.first("call-id"), scan.first("Route")), (Some("abc"), None));
    }

    #[test]
    fn folds_are_made_whole() {
        let folded = NOTIFY.replace("7 NOTIFY", "7\r\n\tNOTIFY").replace(" active", "\r\n active");
        assert_eq!(Scan::read(folded.as_bytes()), None);
        let whole = unfold(folded.as_bytes());
        let scan = Scan::read(&whole).unwrap();
        assert_eq!((scan.cseq, scan.state), (7, "active;expires=99"));
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let whole = NOTIFY.len() - "junk".len();
        for end in 0..whole {
            assert_eq!(Scan::read(&NOTIFY.as_bytes()[..end]), None, "{end}");
        }
        assert!(Scan::read(&NOTIFY.as_bytes()[..whole]).is_some());
        assert_eq!(Scan::read(b"SIP/2.0 99 x\r\n\r\n"), None);
    }
}

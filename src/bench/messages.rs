//! Messages that the phones and the PBX send. They are always the same for a given number, so that nothing has to be
//! stored for a retransmission.

use super::fast_parse::Scan;
use crate::sip::headers::MAGIC_COOKIE;

/// Appends text and numbers. The formatting macros would be the largest cost of the generator.
pub(super) trait AppendText {
    fn text(&mut self, text: &str) -> &mut Self;
    fn number(&mut self, number: u64) -> &mut Self;
}

impl AppendText for Vec<u8> {
    fn text(&mut self, text: &str) -> &mut Self {
        self.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.extend_from_slice(&digits[at..]);
        self
    }
}

/// Names shared by all messages of one run.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Realm in all addresses.
    pub(super) domain: String,
    /// Prefix that distinguishes this run's dialogs from those of an earlier run, which a server may still know.
    pub(super) run: String,
}

/// Sender of a request, as encoded in Call-ID, tags and branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A dialog: its number, and how often that number was given out before.
    Watcher(u32, u16),
    /// The PBX, for an extension.
    Lamp(u32),
}

/// The variable parts of a SUBSCRIBE.
pub(super) struct Subscribe<'a> {
    pub(super) who: Party,
    pub(super) phone: u32,
    pub(super) extension: u32,
    pub(super) cseq: u32,
    pub(super) expires: u32,
    /// The server's tag, once there is a dialog.
    pub(super) to_tag: &'a str,
    /// Request-URI, if it is not the extension itself.
    pub(super) target: &'a str,
    /// Route header lines.
    pub(super) routes: &'a str,
    /// Authorization header line.
    pub(super) proof: &'a str,
}

/// The variable parts of a PUBLISH.
pub(super) struct Publish<'a> {
    pub(super) extension: u32,
    pub(super) cseq: u32,
    pub(super) expires: u32,
    /// Entity-tag of the publication that it replaces.
    pub(super) etag: &'a str,
    pub(super) proof: &'a str,
    pub(super) body: &'a [u8],
}

impl Names {
    fn identify(&self, out: &mut Vec<u8>, who: Party) {
        out.text(&self.run);
        match who {
            Party::Watcher(number, epoch) => out.text(".w").number(epoch.into()).text(".").number(number.into()),
            Party::Lamp(number) => out.text(".p.").number(number.into()),
        };
    }

    /// Sender encoded in a Call-ID; none if it is not of this run.
    pub(super) fn who(&self, call_id: &str) -> Option<Party> {
        let rest = call_id.strip_prefix(&*self.run)?.strip_prefix('.')?;
        let (kind, number) = rest.split_once('.')?;
        match kind.split_at_checked(1)? {
            ("w", epoch) => Some(Party::Watcher(number.parse().ok()?, epoch.parse().ok()?)),
            ("p", "") => Some(Party::Lamp(number.parse().ok()?)),
            _ => None,
        }
    }

    /// Writes the head down to Call-ID, with To and From.
    fn begin(&self, out: &mut Vec<u8>, who: Party, cseq: u32, lane: &str, method: &str) {
        out.text(" SIP/2.0\r\nVia: SIP/2.0/UDP ").text(lane).text(";branch=").text(MAGIC_COOKIE);
        self.identify(out, who);
        out.text(".").number(cseq.into()).text(";rport\r\nMax-Forwards: 70\r\nCSeq: ").number(cseq.into());
        out.text(" ").text(method).text("\r\nCall-ID: ");
        self.identify(out, who);
        out.text("\r\n");
    }

    pub(super) fn subscribe(&self, out: &mut Vec<u8>, lane: &str, s: &Subscribe<'_>) {
        out.text("SUBSCRIBE ");
        match s.target {
            "" => out.text("sip:e").number(s.extension.into()).text("@").text(&self.domain),
            target => out.text(target),
        };
        self.begin(out, s.who, s.cseq, lane, "SUBSCRIBE");
        out.text("From: <sip:p").number(s.phone.into()).text("@").text(&self.domain).text(">;tag=");
        self.identify(out, s.who);
        out.text("\r\nTo: <sip:e").number(s.extension.into()).text("@").text(&self.domain).text(">");
        if !s.to_tag.is_empty() {
            out.text(";tag=").text(s.to_tag);
        }
        out.text("\r\n").text(s.routes).text(s.proof);
        out.text("Contact: <sip:p").number(s.phone.into()).text("@").text(lane);
        out.text(">\r\nEvent: dialog\r\nAccept: application/dialog-info+xml\r\nExpires: ").number(s.expires.into());
        out.text("\r\nUser-Agent: lamplighter-bench\r\nContent-Length: 0\r\n\r\n");
    }

    pub(super) fn publish(&self, out: &mut Vec<u8>, lane: &str, p: &Publish<'_>) {
        out.text("PUBLISH sip:e").number(p.extension.into()).text("@").text(&self.domain);
        self.begin(out, Party::Lamp(p.extension), p.cseq, lane, "PUBLISH");
        out.text("From: <sip:pbx@").text(&self.domain).text(">;tag=");
        self.identify(out, Party::Lamp(p.extension));
        out.text("\r\nTo: <sip:e").number(p.extension.into()).text("@").text(&self.domain).text(">\r\n");
        if !p.etag.is_empty() {
            out.text("SIP-If-Match: ").text(p.etag).text("\r\n");
        }
        out.text(p.proof).text("Event: dialog\r\nExpires: ").number(p.expires.into());
        if !p.body.is_empty() {
            out.text("\r\nContent-Type: application/dialog-info+xml");
        }
        out.text("\r\nContent-Length: ").number(p.body.len() as u64).text("\r\n\r\n").extend_from_slice(p.body);
    }
}

/// Writes the response to a request.
pub(super) fn answer(out: &mut Vec<u8>, request: &Scan<'_>, status: &str) {
    out.text("SIP/2.0 ").text(status).text("\r\n");
    for via in request.all("Via", "v") {
        out.text("Via: ").text(via).text("\r\n");
    }
    out.text("From: ").text(request.from).text("\r\nTo: ").text(request.to).text("\r\nCall-ID: ").text(request.call_id);
    out.text("\r\nCSeq: ").number(request.cseq.into()).text(" ").text(request.method);
    out.text("\r\nContent-Length: 0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire::{self, Name};

    fn names() -> Names {
        Names { domain: "acme.test".into(), run: "b00c".into() }
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        let mut out = Vec::new();
        out.number(0).text(" ").number(10).text(" ").number(u64::MAX);
        assert_eq!(out, format!("0 10 {}", u64::MAX).into_bytes());
    }

    #[test]
    fn what_is_written_can_be_read_and_says_who_it_is() {
        let who = Party::Watcher(999_999, 3);
        let subscribe = Subscribe {
            who,
            phone: 7,
            extension: 12,
            cseq: 2,
            expires: 3600,
            to_tag: "theirs",
            target: "sip:e12@127.0.0.1:5060",
            routes: "Route: <sip:127.0.0.1:5070;lr>\r\n",
            proof: "Authorization: Digest username=\"p7\"\r\n",
        };
        let mut out = Vec::new();
        names().subscribe(&mut out, "127.0.1.1:4000", &subscribe);
        let message = wire::read(&out).unwrap().unwrap();
        assert!(out.starts_with(b"SUBSCRIBE sip:e12@127.0.0.1:5060 SIP/2.0\r\n"));
        assert_eq!((names().who(message.call_id), message.cseq.number), (Some(who), 2));
        assert_eq!((message.to.tag(), message.from.tag()), (Some("theirs"), Some(message.call_id)));
        assert_eq!((message.first(Name::Expires), message.first(Name::Event)), (Some("3600"), Some("dialog")));

        let publish = Publish { extension: 5, cseq: 1, expires: 60, etag: "x", proof: "", body: b"<a/>" };
        let mut out = Vec::new();
        names().publish(&mut out, "127.0.1.1:4000", &publish);
        let message = wire::read(&out).unwrap().unwrap();
        assert_eq!((names().who(message.call_id), message.body), (Some(Party::Lamp(5)), &b"<a/>"[..]));
        assert_eq!(message.first(Name::SipIfMatch), Some("x"));

        let mut back = Vec::new();
        answer(&mut back, &Scan::read(&out).unwrap(), "200 OK");
        let back = wire::read(&back).unwrap().unwrap();
        assert_eq!((back.status(), back.via.branch()), (Some(200), message.via.branch()));
    }

    #[test]
    fn a_call_id_of_another_run_is_nobodys() {
        for other in ["b00d.w0.1", "b00c.w.1", "b00c.x0.1", "b00c.w0.x", "b00c", "", "b00c.é.1"] {
            assert_eq!(names().who(other), None, "{other}");
        }
    }
}

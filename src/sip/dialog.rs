//! Dialogs from the side of the UAS, which was called (RFC 3261 section 12).

use super::headers::{NameAddr, items, list};
use super::uri::{Scheme, Uri};
use super::wire::{Message, Name, Value, Writer};
use crate::util::prefetch;

/// Limit on the text of a dialog (octets). Without it, each dialog could keep as much as the largest message holds.
pub const MAX_TEXT: usize = 8 * 1024;

/// State of a dialog that a request from a peer created, kept as text that is sent back. There are a million of
/// these, so the text is in one piece. Our own tag is not in it: the owner of the dialog has it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(try_from = "Parts<'_>")]
pub struct Dialog {
    /// Call-ID, local party, remote party, route set and remote target, one after the other.
    text: Box<str>,
    /// End of each of these but the last.
    ends: [u16; 4],
    /// CSeq number of our last request. The first will have one more.
    pub local_cseq: u32,
    /// CSeq number of the peer's last request.
    pub remote_cseq: u32,
}

/// Error: a dialog would keep more than [`MAX_TEXT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dialog keeps no more than {MAX_TEXT} octets of its headers")]
pub struct TooLong;

/// Layout of a dialog in the journal.
#[derive(serde::Serialize, serde::Deserialize)]
struct Parts<'a> {
    call_id: &'a str,
    local: &'a str,
    /// Always empty now; earlier journals kept our tag here.
    local_tag: &'a str,
    remote: &'a str,
    remote_tag: &'a str,
    route_set: &'a str,
    target: &'a str,
    local_cseq: u32,
    remote_cseq: u32,
}

impl TryFrom<Parts<'_>> for Dialog {
    type Error = TooLong;

    fn try_from(parts: Parts<'_>) -> Result<Dialog, TooLong> {
        let Parts { call_id, local, remote, route_set, target, local_cseq, remote_cseq, .. } = parts;
        Dialog::new([call_id, local, remote, route_set, target], (local_cseq, remote_cseq))
    }
}

impl Dialog {
    /// Creates the dialog of a request without To tag (RFC 3261 section 12.1.1).
    pub fn of(request: &Message<'_>, target: &str) -> Result<Dialog, TooLong> {
        let route_set = items(request, Name::RecordRoute).join(", ");
        let texts = [request.call_id, request.to.text, request.from.text, &route_set, target];
        Dialog::new(texts, (0, request.cseq.number))
    }

    /// Creates a dialog from Call-ID, local party, remote party, route set and remote target, and the CSeq numbers of
    /// both sides.
    fn new(texts: [&str; 5], (local_cseq, remote_cseq): (u32, u32)) -> Result<Dialog, TooLong> {
        let (mut ends, mut end) = ([0; 5], 0);
        for (place, text) in ends.iter_mut().zip(texts) {
            end += text.len();
            *place = u16::try_from(end).ok().filter(|end| usize::from(*end) <= MAX_TEXT).ok_or(TooLong)?;
        }
        let [ends @ .., _] = ends;
        Ok(Dialog { text: texts.concat().into(), ends, local_cseq, remote_cseq })
    }

    /// Journal form of the dialog. `local_cseq` is a number that our later requests will exceed even after a crash.
    pub fn kept(&self, local_cseq: u32) -> impl serde::Serialize + '_ {
        Parts {
            call_id: self.call_id(),
            local: self.local(),
            local_tag: "",
            remote: self.remote(),
            remote_tag: self.remote_tag(),
            route_set: self.route_set(),
            target: self.target(),
            local_cseq,
            remote_cseq: self.remote_cseq,
        }
    }

    /// Dialog with a route set and a remote target only.
    #[cfg(test)]
    pub(crate) fn towards(route_set: &str, target: &str) -> Dialog {
        Dialog::new(["c", "", "", route_set, target], (0, 0)).unwrap()
    }

    fn part(&self, number: usize) -> &str {
        let end = |number: usize| self.ends.get(number).map_or(self.text.len(), |end| usize::from(*end));
        let from = number.checked_sub(1).map_or(0, end);
        self.text.get(from..end(number)).unwrap_or_default()
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        self.part(0)
    }

    /// Local party: the To of the request, without tag.
    pub fn local(&self) -> &str {
        self.part(1)
    }

    /// Remote party: the From of the request with its tag, sent back unchanged.
    pub fn remote(&self) -> &str {
        self.part(2)
    }

    /// Remote tag; empty for a peer of RFC 2543.
    pub fn remote_tag(&self) -> &str {
        NameAddr::read(self.remote()).and_then(|remote| remote.tag()).unwrap_or_default()
    }

    /// Route set: the Record-Route items of the request in order, separated by commas; empty if there were none.
    pub fn route_set(&self) -> &str {
        self.part(3)
    }

    /// Remote target: the peer's Contact URI, to which requests are sent.
    pub fn target(&self) -> &str {
        self.part(4)
    }

    /// Changes the remote target to the peer's new Contact (RFC 3261 section 12.2.2).
    pub fn set_target(&mut self, target: &str) -> Result<(), TooLong> {
        if target != self.target() {
            let texts = [self.call_id(), self.local(), self.remote(), self.route_set(), target];
            *self = Dialog::new(texts, (self.local_cseq, self.remote_cseq))?;
        }
        Ok(())
    }

    /// Size of the text that it keeps (octets).
    pub fn text(&self) -> usize {
        self.text.len()
    }

    /// Prefetches its text.
    pub fn fetch(&self) {
        prefetch::prefetch_str(&self.text);
    }

    /// Returns true if a request with a To tag of ours belongs to this dialog. Tags compare byte by byte: the peer
    /// sends our tag as we issued it, and its own as it chose it.
    pub fn is_of(&self, request: &Message<'_>) -> bool {
        // Nearly every peer repeats the whole From unchanged.
        let same_peer =
            || self.remote() == request.from.text || self.remote_tag() == request.from.tag().unwrap_or_default();
        self.call_id() == request.call_id && same_peer()
    }

    /// URI of the first route, if there is a route set.
    pub fn first_route(&self) -> Option<&str> {
        if self.route_set().is_empty() {
            return None;
        }
        list(self.route_set()).next().and_then(NameAddr::read).map(|route| route.uri)
    }

    /// Starts a request in the dialog: request line, top Via, and the headers that the dialog and our tag determine
    /// (RFC 3261 section 12.2.1.1). The CSeq must have been incremented for it.
    pub fn request<'b>(&self, out: &'b mut Vec<u8>, method: &str, via: impl Value, tag: impl Value) -> Writer<'b> {
        let strict = self.first_route().filter(|route| Uri::read(route).is_some_and(is_strict));
        let aimed_at = strict.and_then(Uri::read).map(|route| route.without_method_and_headers());
        let mut writer = Writer::request(out, method, aimed_at.as_deref().unwrap_or(self.target()));
        writer.header("Via", via).header("Max-Forwards", 70);
        match strict {
            None if self.route_set().is_empty() => {}
            None => {
                writer.header("Route", self.route_set());
            }
            // A strict router takes its own URI from the Request-URI and finds the target at the end of the Route.
            Some(_) => {
                let mut rest: String = list(self.route_set()).skip(1).map(|route| format!("{route}, ")).collect();
                rest.push_str(&format!("<{}>", self.target()));
                writer.header("Route", rest);
            }
        }
        writer
            .header("From", (self.local(), ";tag=", tag))
            .header("To", self.remote())
            .header("Call-ID", self.call_id())
            .header("CSeq", (self.local_cseq, " ", method));
        writer
    }
}

/// Returns true for the URI of a strict router, which becomes the Request-URI. A URI that cannot be one (neither sip
/// nor sips) stays in the Route.
fn is_strict(route: Uri<'_>) -> bool {
    matches!(route.scheme, Scheme::Sip | Scheme::Sips) && route.param("lr").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::wire;

    fn dialog(record_route: &str) -> Dialog {
        let request = format!(
            "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n{record_route}\
             f: \"Bob\" <sip:1002@acme.test>;tag=r1;x=y\r\nTo: <sip:1001@acme.test>\r\ni: c1\r\nCSeq: 7 SUBSCRIBE\r\n\r\n"
        );
        Dialog::of(&wire::read(request.as_bytes()).unwrap().unwrap(), "sip:1002@192.0.2.9:5062;alias=1~2~1").unwrap()
    }

    fn notify(dialog: &Dialog) -> String {
        let mut out = Vec::new();
        dialog.request(&mut out, "NOTIFY", "SIP/2.0/UDP us", "l1").end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_routes_the_target_is_the_request_uri_as_the_peer_wrote_it() {
        assert_eq!(
            notify(&dialog("")),
            "NOTIFY sip:1002@192.0.2.9:5062;alias=1~2~1 SIP/2.0\r\nVia: SIP/2.0/UDP us\r\nMax-Forwards: 70\r\n\
             From: <sip:1001@acme.test>;tag=l1\r\nTo: \"Bob\" <sip:1002@acme.test>;tag=r1;x=y\r\nCall-ID: c1\r\n\
             CSeq: 0 NOTIFY\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn the_route_set_is_the_record_route_in_order() {
        let d = dialog(
            "Record-Route: <sip:p1;transport=tcp;r2=on;lr=on>\r\nRecord-Route: <sip:p1;r2=on;lr>, <sip:p2;lr>\r\n",
        );
        assert_eq!(d.first_route(), Some("sip:p1;transport=tcp;r2=on;lr=on"));
        let text = notify(&d);
        assert!(text.starts_with("NOTIFY sip:1002@192.0.2.9:5062;alias=1~2~1 SIP/2.0\r\n"), "{text}");
        assert!(
            text.contains("\r\nRoute: <sip:p1;transport=tcp;r2=on;lr=on>, <sip:p1;r2=on;lr>, <sip:p2;lr>\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_strict_router_becomes_the_request_uri() {
        let text = notify(&dialog("Record-Route: <sip:strict>, <sip:p2;lr>\r\n"));
        assert!(text.starts_with("NOTIFY sip:strict SIP/2.0\r\n"), "{text}");
        assert!(text.contains("\r\nRoute: <sip:p2;lr>, <sip:1002@192.0.2.9:5062;alias=1~2~1>\r\n"), "{text}");
    }

    #[test]
    fn a_route_that_is_no_sip_uri_does_not_become_the_request_uri() {
        for route in ["<sip:127.0.=tcp;r2=on>", "<tel:+1555>", "<sip:a b>", "nonsense"] {
            let text = notify(&dialog(&format!("Record-Route: {route}\r\n")));
            assert!(text.starts_with("NOTIFY sip:1002@192.0.2.9:5062;alias=1~2~1 SIP/2.0\r\n"), "{text}");
            assert!(text.contains(&format!("\r\nRoute: {route}\r\n")), "{text}");
        }
    }

    #[test]
    fn its_parts_survive_the_disk_and_a_new_contact() {
        let mut d = dialog("Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n");
        let parts = |d: &Dialog| {
            [d.call_id(), d.local(), d.remote(), d.remote_tag(), d.route_set(), d.target()].map(String::from)
        };
        let expected = [
            "c1",
            "<sip:1001@acme.test>",
            "\"Bob\" <sip:1002@acme.test>;tag=r1;x=y",
            "r1",
            "<sip:p1;lr>, <sip:p2;lr>",
            "sip:1002@192.0.2.9:5062;alias=1~2~1",
        ];
        let back: Dialog = postcard::from_bytes(&postcard::to_allocvec(&d.kept(0)).unwrap()).unwrap();
        assert_eq!((parts(&d), parts(&back)), (expected.map(String::from), expected.map(String::from)));
        d.set_target("sip:new").unwrap();
        assert_eq!((d.target(), &parts(&d)[..5], d.remote_cseq), ("sip:new", &parts(&back)[..5], 7));
        assert_eq!(d.set_target(&"x".repeat(MAX_TEXT)), Err(TooLong));
        assert_eq!(d.target(), "sip:new");
    }
}

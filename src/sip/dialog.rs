//! A dialog from the side that was called (RFC 3261 section 12).

use super::headers::{NameAddr, items, list};
use super::uri::{Scheme, Uri};
use super::wire::{Message, Name, Value, Writer};

/// The most text that a dialog keeps (octets). Without this limit each could keep as much as the largest message has.
pub const MAX_TEXT: usize = 8 * 1024;

/// The state of a dialog that a request from a peer made, kept as text that goes back on the wire.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: Box<str>,
    /// The request's To, without tag: our side.
    pub local: Box<str>,
    /// Our tag.
    pub local_tag: Box<str>,
    /// The request's From with its tag: the peer's side, given back unchanged.
    pub remote: Box<str>,
    /// The peer's tag; empty for a peer of RFC 2543.
    pub remote_tag: Box<str>,
    /// The Record-Route items of the request in order, commas between them; empty if there were none.
    pub route_set: Box<str>,
    /// The peer's Contact URI: where requests are aimed.
    pub target: Box<str>,
    /// CSeq number of our last request; the first will be one more.
    pub local_cseq: u32,
    /// CSeq number of the peer's last request.
    pub remote_cseq: u32,
}

impl Dialog {
    /// The dialog that a request without To tag makes (RFC 3261 section 12.1.1).
    pub fn of(request: &Message<'_>, target: &str, local_tag: &str) -> Dialog {
        Dialog {
            call_id: request.call_id.into(),
            local: request.to.text.into(),
            local_tag: local_tag.into(),
            remote: request.from.text.into(),
            remote_tag: request.from.tag().unwrap_or_default().into(),
            route_set: items(request, Name::RecordRoute).join(", ").into(),
            target: target.into(),
            local_cseq: 0,
            remote_cseq: request.cseq.number,
        }
    }

    /// How much of the peer's text it keeps (octets).
    pub fn text(&self) -> usize {
        [&self.call_id, &self.local, &self.remote, &self.route_set, &self.target].iter().map(|part| part.len()).sum()
    }

    /// Whether a request with a To tag of ours belongs to this dialog. Tags compare as they are: we gave one and got
    /// the other from the peer himself.
    pub fn is_of(&self, request: &Message<'_>) -> bool {
        *self.call_id == *request.call_id && *self.remote_tag == *request.from.tag().unwrap_or_default()
    }

    /// The URI of the first route, if there is a route set.
    pub fn first_route(&self) -> Option<&str> {
        if self.route_set.is_empty() {
            return None;
        }
        list(&self.route_set).next().and_then(NameAddr::read).map(|route| route.uri)
    }

    /// Starts a request in the dialog: request line, top Via, and all that the dialog determines
    /// (RFC 3261 section 12.2.1.1), with the CSeq that has been counted up for it.
    pub fn request<'b>(&self, out: &'b mut Vec<u8>, method: &str, via: impl Value) -> Writer<'b> {
        let strict = self.first_route().filter(|route| Uri::read(route).is_some_and(is_strict));
        let aimed_at = strict.and_then(Uri::read).map(|route| route.without_method_and_headers());
        let mut writer = Writer::request(out, method, aimed_at.as_deref().unwrap_or(&self.target));
        writer.header("Via", via).header("Max-Forwards", 70);
        match strict {
            None if self.route_set.is_empty() => {}
            None => {
                writer.header("Route", &self.route_set);
            }
            // A strict router takes the Request-URI for itself and finds the target at the end of the Route.
            Some(_) => {
                let mut rest: String = list(&self.route_set).skip(1).map(|route| format!("{route}, ")).collect();
                rest.push_str(&format!("<{}>", self.target));
                writer.header("Route", rest);
            }
        }
        writer
            .header("From", (&self.local, ";tag=", &self.local_tag))
            .header("To", &self.remote)
            .header("Call-ID", &self.call_id)
            .header("CSeq", (self.local_cseq, " ", method));
        writer
    }
}

/// A strict router's URI becomes a Request-URI, so it must be one that can be: what is neither is passed on as given.
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
        Dialog::of(&wire::read(request.as_bytes()).unwrap().unwrap(), "sip:1002@192.0.2.9:5062;alias=1~2~1", "l1")
    }

    fn notify(dialog: &Dialog) -> String {
        let mut out = Vec::new();
        dialog.request(&mut out, "NOTIFY", format_args!("SIP/2.0/UDP us")).end();
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
}

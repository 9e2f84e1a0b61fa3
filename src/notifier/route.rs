//! Where a NOTIFY goes (design.md, "Where a NOTIFY goes").
//!
//! The Request-URI is the Contact, always. The message itself goes to the first Route; else down the connection that
//! the SUBSCRIBE last came on; else to the Contact; else, and whenever Route or Contact name an address other than the
//! source of the SUBSCRIBE and that source is not trusted, to the source, which is where a phone behind NAT listens.
//! So an address that never sent us anything is never sent anything either, unless a trusted proxy names it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::sip::Transport;
use crate::sip::dialog::Dialog;
use crate::sip::uri::Uri;
use crate::transport::{Destination, Listener, ListenerNo, Source};

/// What routing needs to know of this server.
#[derive(Clone, Debug)]
pub struct Routing {
    /// The listeners, in configured order.
    pub listeners: Vec<Listener>,
    /// Sources whose word is taken for addresses other than their own.
    pub trusted: Vec<IpNet>,
}

impl Routing {
    /// A listener as peers see it.
    pub fn listener(&self, no: ListenerNo) -> &Listener {
        &self.listeners[no.0 as usize]
    }

    /// True if this source is trusted.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// Where the next request of a dialog goes, whose last request came from `source`.
    pub(super) fn next_hop(&self, dialog: &Dialog, source: &Source) -> Destination {
        let believed = |uri: &Uri<'_>| self.may_name(source, uri);
        if let Some(route) = dialog.first_route().and_then(Uri::read) {
            return Some(route)
                .filter(believed)
                .and_then(|uri| self.towards(&uri, source))
                .unwrap_or_else(|| self.back_to(source));
        }
        let contact = Uri::read(&dialog.target).filter(believed);
        if let Some(flow) = source.flow {
            let otherwise = contact.and_then(|uri| self.connection(&uri, source));
            return Destination::Flow { flow, otherwise };
        }
        contact.and_then(|uri| self.towards(&uri, source)).unwrap_or_else(|| self.back_to(source))
    }

    /// Whether a source may have something sent to the host of a URI: to itself always, elsewhere if it is trusted.
    fn may_name(&self, source: &Source, uri: &Uri<'_>) -> bool {
        uri.host.ip() == Some(source.peer.ip().to_canonical()) || self.trusts(source.peer.ip())
    }

    /// The way to the host of a URI; none if it is a name, an address that nobody may be sent to, or a transport that
    /// we do not speak.
    fn towards(&self, uri: &Uri<'_>, source: &Source) -> Option<Destination> {
        match transport_of(uri)? {
            Transport::Udp => {
                let peer = address_of(uri)?;
                let listener = self.listener_for(Transport::Udp, peer, source)?;
                Some(Destination::Datagram { listener, peer })
            }
            Transport::Tcp => {
                let otherwise = self.connection(uri, source);
                match (source.flow, otherwise) {
                    // The connection that the proxy itself opened is as good as a new one to it.
                    (Some(flow), _) if uri.host.ip().is_none_or(|ip| ip == source.peer.ip().to_canonical()) => {
                        Some(Destination::Flow { flow, otherwise })
                    }
                    (_, Some((listener, peer))) => Some(Destination::Connection { listener, peer }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn connection(&self, uri: &Uri<'_>, source: &Source) -> Option<(ListenerNo, SocketAddr)> {
        let peer = address_of(uri)?;
        Some((self.listener_for(Transport::Tcp, peer, source)?, peer))
    }

    /// The way that the last request came.
    fn back_to(&self, source: &Source) -> Destination {
        match source.flow {
            Some(flow) => Destination::Flow { flow, otherwise: None },
            None => Destination::Datagram { listener: source.listener, peer: source.peer },
        }
    }

    /// The listener to go by: the one that the request came to if it fits, else the first of the kind.
    fn listener_for(&self, transport: Transport, peer: SocketAddr, source: &Source) -> Option<ListenerNo> {
        let fits = |l: &Listener| l.transport == transport && l.address.is_ipv4() == peer.is_ipv4();
        if fits(self.listener(source.listener)) {
            return Some(source.listener);
        }
        self.listeners.iter().position(fits).map(|i| ListenerNo(i as u8))
    }
}

fn transport_of(uri: &Uri<'_>) -> Option<Transport> {
    match uri.param("transport") {
        None => Some(Transport::Udp),
        Some(t) if t.eq_ignore_ascii_case("udp") => Some(Transport::Udp),
        Some(t) if t.eq_ignore_ascii_case("tcp") => Some(Transport::Tcp),
        Some(_) => None,
    }
}

/// The address that a URI names, if it is one and can belong to a single host (RFC 4475 section 3.3.10).
fn address_of(uri: &Uri<'_>) -> Option<SocketAddr> {
    let ip = uri.host.ip()?;
    let everybody = ip.is_multicast() || ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    let port = uri.port.unwrap_or(5060);
    (!everybody && port != 0).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::FlowId;

    fn routing() -> Routing {
        let listener = |transport, address: &str| Listener {
            transport,
            address: address.parse().unwrap(),
            sent_by: address.into(),
        };
        Routing {
            listeners: vec![
                listener(Transport::Udp, "192.0.2.1:5060"),
                listener(Transport::Tcp, "192.0.2.1:5060"),
                listener(Transport::Udp, "[2001:db8::1]:5060"),
            ],
            trusted: vec!["198.51.100.0/24".parse().unwrap()],
        }
    }

    fn dialog(route_set: &str, target: &str) -> Dialog {
        Dialog {
            call_id: "c".into(),
            local: "".into(),
            local_tag: "".into(),
            remote: "".into(),
            remote_tag: "".into(),
            route_set: route_set.into(),
            target: target.into(),
            local_cseq: 0,
            remote_cseq: 0,
        }
    }

    fn udp(peer: &str) -> Source {
        Source { transport: Transport::Udp, listener: ListenerNo(0), peer: peer.parse().unwrap(), flow: None }
    }

    fn tcp(peer: &str) -> Source {
        let peer = peer.parse().unwrap();
        Source { transport: Transport::Tcp, listener: ListenerNo(1), peer, flow: Some(FlowId(9)) }
    }

    fn datagram(listener: u8, peer: &str) -> Destination {
        Destination::Datagram { listener: ListenerNo(listener), peer: peer.parse().unwrap() }
    }

    #[test]
    fn the_first_route_wins() {
        let d = dialog("<sip:203.0.113.7:5070;lr>, <sip:x;lr>", "sip:a@10.0.0.1");
        assert_eq!(routing().next_hop(&d, &udp("203.0.113.7:5060")), datagram(0, "203.0.113.7:5070"));
        assert_eq!(routing().next_hop(&d, &udp("198.51.100.3:5060")), datagram(0, "203.0.113.7:5070"));
    }

    #[test]
    fn a_stranger_cannot_have_notifies_sent_to_somebody_else() {
        for d in [dialog("<sip:203.0.113.7:5070;lr>", "sip:a@203.0.113.8"), dialog("", "sip:a@203.0.113.7:5070")] {
            assert_eq!(routing().next_hop(&d, &udp("203.0.113.8:999")), datagram(0, "203.0.113.8:999"));
        }
    }

    #[test]
    fn a_tcp_route_uses_the_connection_that_its_host_opened() {
        let d = dialog("<sip:203.0.113.7:5070;transport=tcp;r2=on;lr=on>", "sip:a@10.0.0.1");
        let otherwise = Some((ListenerNo(1), "203.0.113.7:5070".parse().unwrap()));
        let flow = Destination::Flow { flow: FlowId(9), otherwise };
        assert_eq!(routing().next_hop(&d, &tcp("203.0.113.7:58780")), flow);
        let peer = "203.0.113.7:5070".parse().unwrap();
        let new = Destination::Connection { listener: ListenerNo(1), peer };
        assert_eq!(routing().next_hop(&d, &tcp("198.51.100.3:58780")), new);
    }

    #[test]
    fn without_route_a_connection_is_used_again() {
        let d = dialog("", "sip:a@10.0.0.1:5062");
        let otherwise = Some((ListenerNo(1), "10.0.0.1:5062".parse().unwrap()));
        assert_eq!(routing().next_hop(&d, &tcp("198.51.100.3:1")), Destination::Flow { flow: FlowId(9), otherwise });
        let alone = Destination::Flow { flow: FlowId(9), otherwise: None };
        assert_eq!(routing().next_hop(&d, &tcp("203.0.113.7:1")), alone);
    }

    #[test]
    fn the_contact_is_used_where_it_is_the_source_s_own_or_a_trusted_source_says_so() {
        let own = dialog("", "sip:a@203.0.113.7:5062");
        assert_eq!(routing().next_hop(&own, &udp("203.0.113.7:999")), datagram(0, "203.0.113.7:5062"));
        assert_eq!(routing().next_hop(&own, &udp("198.51.100.3:5060")), datagram(0, "203.0.113.7:5062"));
    }

    #[test]
    fn a_phone_behind_nat_is_reached_where_its_request_came_from() {
        let private = dialog("", "sip:a@10.0.0.1:5062");
        assert_eq!(routing().next_hop(&private, &udp("203.0.113.7:999")), datagram(0, "203.0.113.7:999"));
        let name = dialog("", "sip:a@phone.invalid");
        assert_eq!(routing().next_hop(&name, &udp("198.51.100.3:999")), datagram(0, "198.51.100.3:999"));
    }

    #[test]
    fn nothing_is_ever_sent_to_everybody() {
        for host in ["255.255.255.255", "224.0.1.75", "0.0.0.0", "[ff02::1]"] {
            let d = dialog(&format!("<sip:{host};lr>"), "sip:a@10.0.0.1");
            assert_eq!(routing().next_hop(&d, &udp("198.51.100.3:5060")), datagram(0, "198.51.100.3:5060"), "{host}");
        }
    }

    #[test]
    fn the_listener_fits_the_address_family() {
        let d = dialog("<sip:[2001:db8::7];lr>", "sip:a@b");
        assert_eq!(routing().next_hop(&d, &udp("198.51.100.3:5060")), datagram(2, "[2001:db8::7]:5060"));
    }
}

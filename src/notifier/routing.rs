//! Routing of NOTIFYs.
//!
//! The Request-URI is always the Contact. The message itself goes to the first Route; else down the connection that
//! the latest SUBSCRIBE came on; else to the Contact.
//!
//! Exception: if the Route or the Contact names an address other than the source of the SUBSCRIBE, and that source is
//! not trusted, the NOTIFY goes to the source. A phone behind NAT listens there. So nothing is sent to an address
//! that never sent us anything, unless a trusted proxy names it. For the same reason a host name written by an
//! untrusted source is not resolved.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::dns_cache::{DnsQuery, ResolvedTarget};
use crate::sip::Transport;
use crate::sip::dialog::Dialog;
use crate::sip::uri::{Host, Scheme, Uri};
use crate::transport::{Destination, Listener, ListenerId, Remote, Source};

/// The part of the configuration that routing needs.
#[derive(Clone, Debug)]
pub struct Routing {
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<Listener>,
    /// Trusted sources: they may name addresses other than their own.
    pub trusted: Vec<IpNet>,
}

impl Routing {
    /// Returns the listener with this number.
    pub fn listener(&self, no: ListenerId) -> &Listener {
        &self.listeners[no.0 as usize]
    }

    /// Returns true if this source is trusted: by its address, or by a client certificate issued by `tls.client_ca`.
    pub fn trusts(&self, source: &Source) -> bool {
        let ip = source.peer.ip().to_canonical();
        source.certified || self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// Returns the next hop of a dialog whose latest request came from `source`. If that is a host name, also returns
    /// the DNS query for it; the destination is then the one to use if the name cannot be resolved.
    pub(super) fn next_hop(&self, dialog: &Dialog, source: &Source) -> (Destination, Option<DnsQuery>) {
        let believed = |uri: &Uri<'_>| self.may_redirect_to(source, uri);
        if let Some(route) = dialog.first_route().and_then(Uri::read) {
            return match Some(route).filter(believed) {
                Some(uri) => self.resolve_or_query(&uri, source, false),
                None => (return_path(*source), None),
            };
        }
        let contact = Uri::read(dialog.target()).filter(believed);
        if let Some(flow) = source.flow {
            // A WebSocket cannot be opened from our side. A dialog that began over TLS continues over TLS or not at
            // all.
            let otherwise = contact.as_ref().and_then(|uri| self.connection(uri, source.transport, source));
            // A host name that would lead to another transport is not resolved, either.
            let question = contact.and_then(|uri| dns_query_of(&uri, source.is_secure()));
            let question = question.filter(|question| question.default_transport() == source.transport);
            return (Destination::Flow { flow, otherwise }, question);
        }
        match contact {
            Some(uri) => self.resolve_or_query(&uri, source, source.is_secure()),
            None => (return_path(*source), None),
        }
    }

    fn resolve_or_query(&self, uri: &Uri<'_>, source: &Source, secure: bool) -> (Destination, Option<DnsQuery>) {
        match self.route_to_uri(uri, source) {
            // The existing connection is used now; the DNS query only matters once that connection is gone.
            Some(to @ Destination::Flow { otherwise: None, .. }) => (to, dns_query_of(uri, secure)),
            Some(to) => (to, None),
            None => (return_path(*source), dns_query_of(uri, secure)),
        }
    }

    /// Returns the destination for one target of the host name `host`. Returns `None` for an address that is not that
    /// of a single host, and for a transport or an address family without a listener.
    pub(super) fn route_to_target(
        &self,
        target: ResolvedTarget,
        host: &Arc<str>,
        source: &Source,
    ) -> Option<Destination> {
        let ResolvedTarget { transport, address: peer } = target;
        let peer = Some(peer).filter(|peer| !is_multicast_or_unspecified(peer.ip()) && peer.port() != 0)?;
        let listener = self.listener_for(transport, peer, source)?;
        match transport {
            Transport::Udp => Some(Destination::Datagram { listener, peer }),
            Transport::Tcp => Some(Destination::Connection(Remote { listener, peer, name: None })),
            Transport::Tls => Some(Destination::Connection(Remote { listener, peer, name: Some(Arc::clone(host)) })),
            _ => None,
        }
    }

    /// Returns a TCP connection to `peer`, the address to which the next request of a dialog would go by datagram.
    ///
    /// Returns `None` if TCP must not be used: a URI demands a transport, or the address is only the source of a
    /// request through NAT, where a connection would not arrive.
    pub(super) fn next_hop_by_tcp(&self, dialog: &Dialog, source: &Source, peer: SocketAddr) -> Option<Remote> {
        let uri = Uri::read(dialog.first_route().unwrap_or(dialog.target()))?;
        let open = uri.scheme == Scheme::Sip && uri.param("transport").is_none() && self.may_redirect_to(source, &uri);
        let there = match uri.host.ip() {
            Some(_) => address_of(&uri, Transport::Tcp) == Some(peer),
            // `peer` is one of the addresses that the host name resolves to.
            None => true,
        };
        let listener = self.listener_for(Transport::Tcp, peer, source).filter(|_| open && there)?;
        Some(Remote { listener, peer, name: None })
    }

    /// Returns true if a source may direct messages to the host of a URI: to its own address always, to other
    /// addresses only if the source is trusted.
    fn may_redirect_to(&self, source: &Source, uri: &Uri<'_>) -> bool {
        uri.host.ip() == Some(source.peer.ip().to_canonical()) || self.trusts(source)
    }

    /// Returns the destination for the host of a URI. Returns `None` for a host name, for an address that is not that
    /// of a single host, and for a transport that is not supported.
    fn route_to_uri(&self, uri: &Uri<'_>, source: &Source) -> Option<Destination> {
        let transport = transport_of(uri)?;
        if transport == Transport::Udp {
            let peer = address_of(uri, transport)?;
            let listener = self.listener_for(transport, peer, source)?;
            return Some(Destination::Datagram { listener, peer });
        }
        let otherwise = self.connection(uri, transport, source);
        match (source.flow.filter(|_| source.transport == transport), otherwise.clone()) {
            // The proxy opened this connection itself, so it is as good as a new one to the same host.
            (Some(flow), _) if uri.host.ip().is_none_or(|ip| ip == source.peer.ip().to_canonical()) => {
                Some(Destination::Flow { flow, otherwise })
            }
            (_, Some(remote)) => Some(Destination::Connection(remote)),
            _ => None,
        }
    }

    /// Returns the address to connect to for the host of a URI. Only the peer can open a WebSocket, so there is none
    /// for it.
    fn connection(&self, uri: &Uri<'_>, transport: Transport, source: &Source) -> Option<Remote> {
        let peer = address_of(uri, transport).filter(|_| matches!(transport, Transport::Tcp | Transport::Tls))?;
        Some(Remote { listener: self.listener_for(transport, peer, source)?, peer, name: None })
    }

    /// Returns the listener of a subscription that is restored after a restart: the earlier one, unless the
    /// configuration now has a different listener under that number. Then it is the first that fits.
    pub(super) fn restore_listener(
        &self,
        transport: Transport,
        no: ListenerId,
        peer: SocketAddr,
    ) -> Option<ListenerId> {
        let fits = |l: &Listener| l.transport == transport && l.address.is_ipv4() == peer.is_ipv4();
        match self.listeners.get(no.0 as usize) {
            Some(same) if fits(same) => Some(no),
            _ => self.listeners.iter().position(fits).map(|i| ListenerId(i as u8)),
        }
    }

    /// Returns the listener to send from: the one that received the request if it fits, else the first with that
    /// transport and address family.
    fn listener_for(&self, transport: Transport, peer: SocketAddr, source: &Source) -> Option<ListenerId> {
        let fits = |l: &Listener| l.transport == transport && l.address.is_ipv4() == peer.is_ipv4();
        if fits(self.listener(source.listener)) {
            return Some(source.listener);
        }
        self.listeners.iter().position(fits).map(|i| ListenerId(i as u8))
    }
}

/// Returns the destination that leads back to the source of a message.
pub(super) fn return_path(source: Source) -> Destination {
    match source.flow {
        Some(flow) => Destination::Flow { flow, otherwise: None },
        None => Destination::Datagram { listener: source.listener, peer: source.peer },
    }
}

/// Returns the transport that a URI names (RFC 3263 section 4.1, RFC 7118 section 5.2); `None` if it is not
/// supported.
fn transport_of(uri: &Uri<'_>) -> Option<Transport> {
    let secure = uri.scheme == Scheme::Sips;
    let named = uri.param("transport").map(str::to_ascii_lowercase);
    match (named.as_deref(), secure) {
        (None | Some("udp"), false) => Some(Transport::Udp),
        (Some("tcp"), false) => Some(Transport::Tcp),
        (None | Some("tcp"), true) | (Some("tls"), _) => Some(Transport::Tls),
        (Some("ws"), false) => Some(Transport::Ws),
        (Some("ws"), true) | (Some("wss"), _) => Some(Transport::Wss),
        _ => None,
    }
}

/// Returns the address that a URI names, if its host is an IP address that can belong to a single host (RFC 4475
/// section 3.3.10).
fn address_of(uri: &Uri<'_>, transport: Transport) -> Option<SocketAddr> {
    let ip = uri.host.ip()?;
    let port = uri.port.unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
    (!is_multicast_or_unspecified(ip) && port != 0).then_some(SocketAddr::new(ip, port))
}

fn is_multicast_or_unspecified(ip: IpAddr) -> bool {
    ip.is_multicast() || ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
}

/// Returns the DNS query that is needed before a message can be sent to a URI. Returns `None` if its host is an IP
/// address, or a name in `.invalid`, which never resolves (RFC 6761 section 6.4). Web browsers use such names in
/// their Contacts, because no connection to them can be opened anyway.
fn dns_query_of(uri: &Uri<'_>, secure: bool) -> Option<DnsQuery> {
    let Host::Name(host) = uri.host else { return None };
    let transport = transport_of(uri).filter(|t| matches!(t, Transport::Udp | Transport::Tcp | Transport::Tls))?;
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if matches!(uri.scheme, Scheme::Other(_)) || host.is_empty() || host.rsplit('.').next() == Some("invalid") {
        return None;
    }
    let named = uri.param("transport").is_some();
    let secure = secure || transport == Transport::Tls;
    Some(DnsQuery { host: host.into(), port: uri.port, transport: named.then_some(transport), secure })
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
                listener(Transport::Tls, "192.0.2.1:5061"),
                listener(Transport::Wss, "192.0.2.1:443"),
            ],
            trusted: vec!["198.51.100.0/24".parse().unwrap()],
        }
    }

    fn remote(listener: u8, peer: &str) -> Remote {
        Remote { listener: ListenerId(listener), peer: peer.parse().unwrap(), name: None }
    }

    fn next_hop(dialog: &Dialog, source: &Source) -> Destination {
        routing().next_hop(dialog, source).0
    }

    fn dialog(route_set: &str, target: &str) -> Dialog {
        Dialog::towards(route_set, target)
    }

    fn udp(peer: &str) -> Source {
        Source {
            transport: Transport::Udp,
            listener: ListenerId(0),
            peer: peer.parse().unwrap(),
            flow: None,
            certified: false,
        }
    }

    fn tcp(peer: &str) -> Source {
        let peer = peer.parse().unwrap();
        Source { transport: Transport::Tcp, listener: ListenerId(1), peer, flow: Some(FlowId(9)), certified: false }
    }

    fn stream(transport: Transport, listener: u8, peer: &str) -> Source {
        Source { transport, listener: ListenerId(listener), ..tcp(peer) }
    }

    fn datagram(listener: u8, peer: &str) -> Destination {
        Destination::Datagram { listener: ListenerId(listener), peer: peer.parse().unwrap() }
    }

    #[test]
    fn the_first_route_wins() {
        let d = dialog("<sip:203.0.113.7:5070;lr>, <sip:x;lr>", "sip:a@10.0.0.1");
        assert_eq!(next_hop(&d, &udp("203.0.113.7:5060")), datagram(0, "203.0.113.7:5070"));
        assert_eq!(next_hop(&d, &udp("198.51.100.3:5060")), datagram(0, "203.0.113.7:5070"));
    }

    #[test]
    fn a_stranger_cannot_have_notifies_sent_to_somebody_else() {
        for d in [dialog("<sip:203.0.113.7:5070;lr>", "sip:a@203.0.113.8"), dialog("", "sip:a@203.0.113.7:5070")] {
            assert_eq!(next_hop(&d, &udp("203.0.113.8:999")), datagram(0, "203.0.113.8:999"));
        }
    }

    #[test]
    fn a_tcp_route_uses_the_connection_that_its_host_opened() {
        let d = dialog("<sip:203.0.113.7:5070;transport=tcp;r2=on;lr=on>", "sip:a@10.0.0.1");
        let otherwise = Some(remote(1, "203.0.113.7:5070"));
        let flow = Destination::Flow { flow: FlowId(9), otherwise };
        assert_eq!(next_hop(&d, &tcp("203.0.113.7:58780")), flow);
        let new = Destination::Connection(remote(1, "203.0.113.7:5070"));
        assert_eq!(next_hop(&d, &tcp("198.51.100.3:58780")), new);
    }

    #[test]
    fn without_route_a_connection_is_used_again() {
        let d = dialog("", "sip:a@10.0.0.1:5062");
        let otherwise = Some(remote(1, "10.0.0.1:5062"));
        assert_eq!(next_hop(&d, &tcp("198.51.100.3:1")), Destination::Flow { flow: FlowId(9), otherwise });
        let alone = Destination::Flow { flow: FlowId(9), otherwise: None };
        assert_eq!(next_hop(&d, &tcp("203.0.113.7:1")), alone);
    }

    #[test]
    fn the_contact_is_used_where_it_is_the_source_s_own_or_a_trusted_source_says_so() {
        let own = dialog("", "sip:a@203.0.113.7:5062");
        assert_eq!(next_hop(&own, &udp("203.0.113.7:999")), datagram(0, "203.0.113.7:5062"));
        assert_eq!(next_hop(&own, &udp("198.51.100.3:5060")), datagram(0, "203.0.113.7:5062"));
    }

    #[test]
    fn a_phone_behind_nat_is_reached_where_its_request_came_from() {
        let private = dialog("", "sip:a@10.0.0.1:5062");
        assert_eq!(next_hop(&private, &udp("203.0.113.7:999")), datagram(0, "203.0.113.7:999"));
        let name = dialog("", "sip:a@phone.invalid");
        assert_eq!(next_hop(&name, &udp("198.51.100.3:999")), datagram(0, "198.51.100.3:999"));
    }

    #[test]
    fn nothing_is_ever_sent_to_everybody() {
        for host in ["255.255.255.255", "224.0.1.75", "0.0.0.0", "[ff02::1]"] {
            let d = dialog(&format!("<sip:{host};lr>"), "sip:a@10.0.0.1");
            assert_eq!(next_hop(&d, &udp("198.51.100.3:5060")), datagram(0, "198.51.100.3:5060"), "{host}");
        }
    }

    #[test]
    fn the_listener_fits_the_address_family() {
        let d = dialog("<sip:[2001:db8::7];lr>", "sip:a@b");
        assert_eq!(next_hop(&d, &udp("198.51.100.3:5060")), datagram(2, "[2001:db8::7]:5060"));
    }

    #[test]
    fn what_began_over_tls_never_goes_on_without() {
        let tls = stream(Transport::Tls, 3, "203.0.113.7:58780");
        let again = remote(3, "203.0.113.7:5061");
        for contact in ["sips:a@203.0.113.7", "sip:a@203.0.113.7:5061;transport=tcp", "sip:a@203.0.113.7:5061"] {
            let flow = Destination::Flow { flow: FlowId(9), otherwise: Some(again.clone()) };
            assert_eq!(next_hop(&dialog("", contact), &tls), flow, "{contact}");
        }
        for route in ["<sips:203.0.113.7;lr>", "<sip:203.0.113.7;transport=tls;lr>"] {
            // The existing connection of the proxy is not used, because it has no TLS.
            let new = Destination::Connection(again.clone());
            assert_eq!(next_hop(&dialog(route, "sip:a@b"), &tcp("203.0.113.7:58780")), new, "{route}");
        }
    }

    #[test]
    fn a_websocket_is_used_for_as_long_as_it_is_there_and_never_opened() {
        let wss = stream(Transport::Wss, 4, "203.0.113.7:58780");
        let alone = Destination::Flow { flow: FlowId(9), otherwise: None };
        for contact in ["sip:a@df7jal23ls0d.invalid;transport=ws", "sip:a@203.0.113.7:58780;transport=ws"] {
            assert_eq!(next_hop(&dialog("", contact), &wss), alone, "{contact}");
        }
        let edge = dialog("<sip:203.0.113.7:443;transport=wss;lr>", "sip:a@x.invalid;transport=ws");
        assert_eq!(next_hop(&edge, &wss), alone);
        assert_eq!(next_hop(&edge, &udp("203.0.113.7:5060")), datagram(0, "203.0.113.7:5060"));
    }

    #[test]
    fn a_certificate_is_as_good_as_a_trusted_address() {
        let d = dialog("<sip:203.0.113.9;lr>", "sip:a@10.0.0.1");
        let stranger = stream(Transport::Tls, 3, "203.0.113.7:58780");
        assert_eq!(next_hop(&d, &stranger), Destination::Flow { flow: FlowId(9), otherwise: None });
        let edge = Source { certified: true, ..stranger };
        assert_eq!(next_hop(&d, &edge), datagram(0, "203.0.113.9:5060"));
    }

    #[test]
    fn after_a_restart_the_listener_is_found_again_wherever_it_stands_now() {
        let peer = "203.0.113.7:58780".parse().unwrap();
        let found = |transport, no| routing().restore_listener(transport, ListenerId(no), peer);
        assert_eq!(found(Transport::Tls, 3), Some(ListenerId(3)));
        assert_eq!(found(Transport::Tls, 1), Some(ListenerId(3)));
        assert_eq!(found(Transport::Udp, 9), Some(ListenerId(0)));
        assert_eq!(found(Transport::Ws, 0), None);
    }

    #[test]
    fn a_name_is_a_question_only_if_a_trusted_source_has_written_it() {
        let asked = |route: &str, contact: &str, source: &str| {
            routing().next_hop(&dialog(route, contact), &udp(source)).1.map(|question| question.host.to_string())
        };
        let (edge, stranger) = ("198.51.100.3:5060", "203.0.113.7:5060");
        assert_eq!(asked("<sip:Proxy.acme.test.;lr>", "sip:a@b.test", edge).as_deref(), Some("proxy.acme.test"));
        assert_eq!(asked("", "sip:a@b.test", edge).as_deref(), Some("b.test"));
        for (route, contact, source) in [
            ("<sip:proxy.acme.test;lr>", "sip:a@b.test", stranger),
            ("", "sip:a@b.test", stranger),
            ("<sip:203.0.113.7;lr>", "sip:a@b.test", edge),
            ("", "sip:a@df7jal23ls0d.invalid", edge),
            ("", "sip:a@b.test;transport=ws", edge),
            ("", "tel:b.test", edge),
        ] {
            assert_eq!(asked(route, contact, source), None, "{route} {contact} {source}");
        }
    }

    #[test]
    fn a_question_says_what_the_uri_says() {
        let asked = |contact: &str| routing().next_hop(&dialog("", contact), &udp("198.51.100.3:5060")).1.unwrap();
        let question = |port, transport, secure| DnsQuery { host: "b.test".into(), port, transport, secure };
        assert_eq!(asked("sip:a@b.test"), question(None, None, false));
        assert_eq!(asked("sip:a@b.test:5070;transport=tcp"), question(Some(5070), Some(Transport::Tcp), false));
        assert_eq!(asked("sips:a@b.test"), question(None, None, true));
        assert_eq!(asked("sip:a@b.test;transport=tls"), question(None, Some(Transport::Tls), true));
    }

    #[test]
    fn a_contact_s_name_matters_to_a_connection_only_where_it_leads_to_the_same_transport() {
        let asked = |contact: &str, source: &Source| {
            let (to, question) = routing().next_hop(&dialog("", contact), source);
            assert_eq!(to, Destination::Flow { flow: FlowId(9), otherwise: None }, "{contact}");
            question.is_some()
        };
        let (tcp, peer) = (tcp("198.51.100.3:5060"), "198.51.100.3:5060");
        let (tls, wss) = (stream(Transport::Tls, 3, peer), stream(Transport::Wss, 4, peer));
        assert!(asked("sip:a@b.test;transport=tcp", &tcp) && asked("sip:a@b.test", &tls));
        assert!(!asked("sip:a@b.test", &tcp) && !asked("sip:a@b.test;transport=ws", &wss));
        assert!(!asked("sips:a@b.test", &wss) && !asked("sip:a@b.test;transport=tcp", &stream(Transport::Ws, 4, peer)));
    }

    #[test]
    fn a_connection_that_the_proxy_has_opened_is_used_whatever_its_name() {
        let d = dialog("<sip:proxy.acme.test;transport=tcp;lr>", "sip:a@b");
        let edge = tcp("198.51.100.3:5060");
        let alone = Destination::Flow { flow: FlowId(9), otherwise: None };
        assert_eq!(next_hop(&d, &edge), alone);
    }

    #[test]
    fn targets_of_a_name_are_held_to_what_we_speak() {
        let reach = |transport, address: &str| {
            let target = ResolvedTarget { transport, address: address.parse().unwrap() };
            routing().route_to_target(target, &"a.test".into(), &udp("198.51.100.3:5060"))
        };
        assert_eq!(reach(Transport::Udp, "203.0.113.7:5070"), Some(datagram(0, "203.0.113.7:5070")));
        assert_eq!(reach(Transport::Udp, "[2001:db8::7]:5060"), Some(datagram(2, "[2001:db8::7]:5060")));
        let connection = remote(1, "203.0.113.7:5070");
        assert_eq!(reach(Transport::Tcp, "203.0.113.7:5070"), Some(Destination::Connection(connection)));
        let named = Remote { name: Some("a.test".into()), ..remote(3, "203.0.113.7:5070") };
        assert_eq!(reach(Transport::Tls, "203.0.113.7:5070"), Some(Destination::Connection(named)));
        for (transport, address) in [
            (Transport::Tcp, "[2001:db8::7]:5060"),
            (Transport::Wss, "203.0.113.7:443"),
            (Transport::Udp, "224.0.1.75:5060"),
            (Transport::Udp, "203.0.113.7:0"),
        ] {
            assert_eq!(reach(transport, address), None, "{address}");
        }
    }
}

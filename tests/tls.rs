//! SIP over TLS on real sockets (RFC 3261 section 26.2, RFC 5922): handshakes, trust, and renewed certificates.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use dns::{A, Dns};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use secure::{Authority, Folder, House, Identity, Line, NAME, PATIENCE, file, provider, subscribe, tls_section};
use sockets::{hear, ok, options};

#[allow(dead_code)] // tests/sockets.rs uses the rest
#[path = "sockets/dns.rs"]
mod dns;
mod secure;
#[allow(dead_code)] // tests/sockets.rs uses the rest
#[path = "sockets/office.rs"]
mod sockets;

/// A server with a certificate of its own authority.
fn house(more: impl Fn(&Folder) -> String) -> (House, Authority, Folder) {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(NAME).install(&folder);
    let house = House::open(&["tls", "udp", "tcp"], &tls_section(&folder, &more(&folder)));
    (house, authority, folder)
}

fn plain_house() -> (House, Authority, Folder) {
    house(|_| String::new())
}

#[test]
fn both_versions_of_today_are_spoken_and_the_certificate_names_the_domain() {
    let (house, authority, _folder) = plain_house();
    for version in [&TLS12, &TLS13] {
        // The client checks that the certificate is for acme.test.
        let mut line = Line::of(house.tls("tls", authority.client(None, &[version])));
        line.send(&options("SIP/2.0/TLS h.invalid", 1));
        line.receive_start("SIP/2.0 200");
        assert_eq!(line.stream.conn.protocol_version(), Some(version.version));
    }
}

#[test]
fn a_sips_phone_is_notified_over_the_connection_that_it_subscribed_on() {
    let (house, authority, _folder) = plain_house();
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    let here = house.address("tls");
    let request = subscribe("TLS 10.0.0.1:5061", "sips:1002@10.0.0.1:5061", "");
    line.send(&request.replace("sip:1001@", "sips:1001@"));
    let answer = line.receive_start("SIP/2.0 200");
    assert!(answer.contains(&format!("Contact: <sips:1001@{here}>\r\n")), "{answer}");
    let notify = line.receive_start("NOTIFY sips:1002@10.0.0.1:5061 SIP/2.0\r\n");
    assert!(notify.contains(&format!("Via: SIP/2.0/TLS {here};")), "{notify}");
    assert!(notify.contains(&format!("Contact: <sips:1001@{here}>\r\n")), "{notify}");
    line.send(&ok(&notify));
    for state in ["early", "confirmed"] {
        house.set(state);
        let notify = line.receive_start("NOTIFY ");
        assert!(notify.contains(&format!("<state>{state}</state>")), "{notify}");
        line.send(&ok(&notify));
    }
}

#[test]
fn a_sip_phone_over_tls_is_told_to_come_back_over_tls() {
    let (house, authority, _folder) = plain_house();
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    line.send(&subscribe("TLS 10.0.0.1:5061", "sip:1002@10.0.0.1:5061;transport=tls", ""));
    let answer = line.receive_start("SIP/2.0 200");
    assert!(answer.contains(&format!("<sip:1001@{};transport=tls>\r\n", house.address("tls"))), "{answer}");
    line.receive_start("NOTIFY sip:1002@10.0.0.1:5061;transport=tls ");
}

#[test]
fn sips_without_tls_is_refused() {
    let (house, ..) = house(|_| "[access]\ntrusted_proxies = []\n".into());
    let mut line = Line::of(house.tcp("tcp"));
    line.send(&subscribe("TCP h.invalid", "sips:1002@10.0.0.1", ""));
    line.receive_start("SIP/2.0 416");
    line.send(&subscribe("TCP h.invalid", "sip:1002@10.0.0.1", "").replace("sip:1001@", "sips:1001@"));
    line.receive_start("SIP/2.0 416");
}

/// Sends an OPTIONS and returns true if it was answered.
fn is_served(house: &House, authority: &Authority, own: Option<&Identity>) -> bool {
    let mut stream = house.tls("tls", authority.client(own, &[&TLS13]));
    let sent = stream.write_all(options("SIP/2.0/TLS h.invalid", 1).as_bytes());
    // With TLS 1.3 the refusal arrives after the handshake has ended for the client.
    let mut answer = [0; 12];
    let outcome = sent.and_then(|()| stream.read_exact(&mut answer));
    assert!(!outcome.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)));
    outcome.is_ok() && answer == *b"SIP/2.0 200 "
}

#[test]
fn certificates_of_peers_can_be_demanded() {
    let edges = Authority::new();
    let demand = |folder: &Folder| file(folder, "client_ca", &edges.pem) + "require_client_certificate = true\n";
    let (house, authority, _folder) = house(demand);
    assert!(is_served(&house, &authority, Some(&edges.issue("edge.test"))));
    assert!(!is_served(&house, &authority, None));
    assert!(!is_served(&house, &authority, Some(&Authority::new().issue("edge.test"))), "of another authority");
}

#[test]
fn whoever_holds_a_certificate_of_the_client_ca_is_trusted_to_name_other_addresses() {
    let edges = Authority::new();
    let offer = |folder: &Folder| file(folder, "client_ca", &edges.pem) + "[access]\ntrusted_proxies = []\n";
    let (house, authority, _folder) = house(offer);
    // An address other than the connection's source.
    let named = UdpSocket::bind("127.0.0.2:0").unwrap();
    named.set_read_timeout(Some(PATIENCE)).unwrap();
    let route = format!("Record-Route: <sip:{};lr>\r\n", named.local_addr().unwrap());
    let request = |n: u32| subscribe("TLS h.invalid", &format!("sip:{n}@10.0.0.1"), &route);

    let mut stranger = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    stranger.send(&request(1));
    stranger.receive_start("SIP/2.0 200");
    stranger.receive_start("NOTIFY sip:1@10.0.0.1 ");

    let edge = edges.issue("edge.test");
    let mut edge = Line::of(house.tls("tls", authority.client(Some(&edge), &[&TLS13])));
    edge.send(&request(2));
    edge.receive_start("SIP/2.0 200");
    let notify = hear(&named).0;
    assert!(notify.starts_with("NOTIFY sip:2@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP "), "{notify}");
}

/// Certificate that the server presents on a new connection.
fn shown(house: &House, authority: &Authority) -> Vec<u8> {
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    line.send(&options("SIP/2.0/TLS h.invalid", 1));
    line.receive_start("SIP/2.0 200");
    line.stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_live_on() {
    let (house, authority, folder) = plain_house();
    let first = shown(&house, &authority);
    let mut old = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    old.send(&subscribe("TLS h.invalid", "sip:1002@10.0.0.1;transport=tls", ""));
    old.receive_start("SIP/2.0 200");
    let notify = old.receive_start("NOTIFY ");
    old.send(&ok(&notify));
    let next = authority.issue(NAME);
    // An incomplete renewal is ignored: the new certificate does not match the old key.
    std::fs::write(folder.path("certificate.pem"), &next.certificate).unwrap();
    house.server().reload_certificates();
    assert_eq!(shown(&house, &authority), first);
    next.install(&folder);
    house.server().reload_certificates();
    assert_eq!(shown(&house, &authority), next.chain()[0].to_vec());
    house.set("early");
    assert!(old.receive_start("NOTIFY ").contains("<state>early</state>"));
}

#[test]
fn a_new_certificate_is_noticed_without_being_told() {
    let (house, authority, folder) = plain_house();
    let next = authority.issue(NAME);
    next.install(&folder);
    let deadline = Instant::now() + PATIENCE;
    while shown(&house, &authority) != next.chain()[0].to_vec() {
        assert!(Instant::now() < deadline, "the files have changed");
    }
}

/// A phone's own TLS listener: accepts one connection and completes the handshake.
fn accept(listener: &TcpListener, identity: &Identity) -> Option<Line<StreamOwned<ServerConnection, TcpStream>>> {
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(identity.chain(), identity.private()).unwrap();
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).ok()?;
    }
    Some(Line::of(StreamOwned::new(connection, stream)))
}

/// A watcher over TLS that closes its connection before the next change; its Contact is `contact`.
fn watch_and_leave(house: &House, authority: &Authority, contact: impl std::fmt::Display) {
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    line.send(&subscribe("TLS h.invalid", &format!("sip:1002@{contact};transport=tls"), ""));
    line.receive_start("SIP/2.0 200");
    let notify = line.receive_start("NOTIFY ");
    line.send(&ok(&notify));
    line.stream.conn.send_close_notify();
    line.stream.flush().unwrap();
    line.stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(line.receive(), None);
}

#[test]
fn a_connection_that_is_gone_is_opened_anew_to_a_contact_whose_certificate_names_it() {
    let phones = Authority::new();
    let (house, authority, _folder) = house(|folder| file(folder, "server_ca", &phones.pem));
    let contact = TcpListener::bind("127.0.0.1:0").unwrap();
    watch_and_leave(&house, &authority, contact.local_addr().unwrap());
    house.set("early");
    let mut new = accept(&contact, &phones.issue("127.0.0.1")).unwrap();
    let notify = new.receive_start("NOTIFY ");
    assert!(notify.contains("Via: SIP/2.0/TLS ") && notify.contains("<state>early</state>"), "{notify}");
    new.send(&ok(&notify));
    house.set("confirmed");
    assert!(new.receive_start("NOTIFY ").contains("<state>confirmed</state>"));
}

#[test]
fn nothing_is_sent_to_a_contact_whose_certificate_names_somebody_else() {
    let phones = Authority::new();
    let (house, authority, _folder) = house(|folder| file(folder, "server_ca", &phones.pem));
    let contact = TcpListener::bind("127.0.0.1:0").unwrap();
    watch_and_leave(&house, &authority, contact.local_addr().unwrap());
    house.set("early");
    let connected = accept(&contact, &phones.issue("127.0.0.2"));
    assert!(connected.is_none_or(|mut line| {
        let mut octet = [0];
        !matches!(line.stream.read(&mut octet), Ok(1))
    }));
}

/// A proxy's phone whose Contact is a name, with a certificate for `certified`; returns the NOTIFY it receives for the
/// next change.
fn hear_by_name(certified: &str) -> Option<String> {
    let phones = Authority::new();
    let dns = Dns::open(vec![("phone.acme.test", A, vec![127, 0, 0, 1])]);
    let more = format!("[access]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}\n", dns.config());
    let (house, authority, _folder) = house(|folder| format!("{}{more}", file(folder, "server_ca", &phones.pem)));
    let contact = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = contact.local_addr().unwrap().port();
    watch_and_leave(&house, &authority, format_args!("phone.acme.test:{port}"));
    // The name is resolved by the time of the first change or soon after; until then there is no route to the phone.
    house.set("early");
    let mut line = accept(&contact, &phones.issue(certified))?;
    line.stream.conn.complete_io(&mut line.stream.sock).ok()?;
    let mut octets = [0; 65_536];
    let length = line.stream.read(&mut octets).ok()?;
    Some(String::from_utf8(octets[..length].to_vec()).unwrap()).filter(|heard| !heard.is_empty())
}

/// RFC 5922 section 7.2: the certificate has to name the host in the URI, not the host that DNS resolved it to.
#[test]
fn a_contact_that_is_a_name_has_a_certificate_of_that_name() {
    let notify = hear_by_name("phone.acme.test").unwrap();
    assert!(notify.starts_with("NOTIFY ") && notify.contains("<state>early</state>"), "{notify}");
    for other in ["127.0.0.1", "*.acme.test", "acme.test"] {
        assert_eq!(hear_by_name(other), None, "{other}");
    }
}

#[test]
fn a_handshake_that_is_not_finished_is_given_up_and_garbage_harms_nobody() {
    let (house, authority, _folder) = plain_house();
    let mut half = house.tcp("tls");
    half.write_all(b"\x16\x03\x01").unwrap();
    let mut garbage = house.tcp("tls");
    garbage.write_all(options("SIP/2.0/TCP h.invalid", 1).as_bytes()).unwrap();
    // An alert at most, then the end of the stream.
    let has_ended = |stream: &mut TcpStream| {
        let outcome = stream.read_to_end(&mut Vec::new());
        !outcome.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    };
    assert!(has_ended(&mut garbage));
    assert!(is_served(&house, &authority, None));
    assert!(has_ended(&mut half));
}

#[test]
fn the_limit_of_connections_counts_those_over_tls() {
    let (house, authority, _folder) = house(|_| "[limits]\ntcp_connections = 1\n".into());
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    line.send(&options("SIP/2.0/TLS h.invalid", 1));
    line.receive_start("SIP/2.0 200");
    assert!(!is_served(&house, &authority, None));
    assert_eq!(Line::of(house.tcp("tcp")).receive(), None);
}

#[test]
fn keep_alives_and_idleness_are_those_of_any_stream() {
    let (house, authority, _folder) = house(|_| "[limits]\ntcp_idle_seconds = 1\n".into());
    let mut line = Line::of(house.tls("tls", authority.client(None, &[&TLS13])));
    line.send("\r\n\r\n");
    let mut pong = [0; 2];
    line.stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
    assert_eq!(line.receive(), None);
}

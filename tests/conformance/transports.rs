//! Group D: transports, and the routes of responses and NOTIFYs. Tests use sockets only where that is necessary.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use lamplighter::config::Config;
use lamplighter::notifier::Outbox;
use lamplighter::presence::Tick;
use lamplighter::server::Server;
use lamplighter::sip::headers::NameAddr;
use lamplighter::sip::uri::Uri;
use lamplighter::sip::wire::{self, Name, ParseError};
use lamplighter::transport::{Destination, FlowId, Remote};

use crate::bench::Expected::{Answer, Silence, Subscribed};
use crate::bench::{Bench, Sent, compare};
use crate::loopback::{self, Line, Office, PATIENCE, hear, ok};
use crate::notifier::{tcp_source, udp_source};
use crate::request::Request;
use crate::{URI, answered, options, publish, subscribe, subscribed};

const TCP_PHONE: &str = "192.0.2.99:40000";

/// The response to an OPTIONS with this top Via from 192.0.2.99:5070.
fn via(value: &str) -> Sent {
    answered(value, &options().put(&format!("Via: {value}")), &[200])
}

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn udp_and_tcp_share_a_port() {
    // D-001: the default configuration; an operator may remove a transport.
    let listen: Vec<String> = Config::parse("", "none").unwrap().sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp://127.0.0.1:5060", "tcp://127.0.0.1:5060"]);
    let office = Office::open("127.0.0.1", "");
    let datagrams = loopback::phone(office.address.ip());
    datagrams.send_to(loopback::options("SIP/2.0/UDP h.invalid;rport", 1).as_bytes(), office.address).unwrap();
    assert_eq!(hear(&datagrams).1, office.address);
    let mut line = office.connect();
    line.send(&loopback::options("SIP/2.0/TCP h.invalid", 2));
    line.receive_start("SIP/2.0 200");
}

#[test]
fn an_answer_says_where_its_request_came_from_and_goes_where_the_via_says() {
    // D-002, D-003, D-004, D-007
    for (top, stamped, to) in [
        ("SIP/2.0/UDP client.invalid:5082;branch=z9hG4bK1", ";received=192.0.2.99", "192.0.2.99:5082"),
        ("SIP/2.0/UDP 198.51.100.1:5082;branch=z9hG4bK1", ";received=192.0.2.99", "192.0.2.99:5082"),
        ("SIP/2.0/UDP client.invalid;branch=z9hG4bK1", ";received=192.0.2.99", "192.0.2.99:5060"),
        ("SIP/2.0/UDP 192.0.2.99:5082;branch=z9hG4bK1", "", "192.0.2.99:5082"),
        ("SIP/2.0/UDP h.invalid:5082;branch=z9hG4bK1;rport", ";received=192.0.2.99;rport=5070", "192.0.2.99:5070"),
        ("SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bK1;rport", ";received=192.0.2.99;rport=5070", "192.0.2.99:5070"),
        // With maddr a client could redirect responses to any other host.
        ("SIP/2.0/UDP 192.0.2.99:5082;maddr=198.51.100.1;branch=z9hG4bK1", "", "192.0.2.99:5082"),
        ("SIP/2.0/UDP 192.0.2.99:5082;maddr=224.0.1.75;branch=z9hG4bK1", "", "192.0.2.99:5082"),
    ] {
        let answer = via(top);
        assert_eq!(answer.header("Via"), format!("{}{stamped}", top.trim_end_matches(";rport")));
        assert_eq!(answer.peer(), peer(to), "{top}");
    }
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    // D-005: with an address for each listener. With a wildcard address the system chooses (docs/conformance.md).
    let free = |ip: &str| UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
    let start = || {
        let addresses = [free("127.0.0.1"), free("127.0.0.2")];
        let config = format!(
            "data.durability = \"memory\"\nhttp.listen = \"127.0.0.1:0\"\nsip.listen = [\"udp://{}\", \"udp://{}\"]\n\
             [[account]]\nid = \"a1\"\nname = \"Acme\"\nrealm = \"acme.test\"\n",
            addresses[0], addresses[1]
        );
        Server::start(&Config::parse(&config, "two.toml").unwrap()).ok().map(|server| (server, addresses))
    };
    // Another process may take a port between the check and the server's bind.
    let (server, addresses) = (0..10).find_map(|_| start()).expect("free ports");
    let phone = loopback::phone("127.0.0.3".parse().unwrap());
    for address in addresses {
        phone.send_to(loopback::options("SIP/2.0/UDP h.invalid;rport", 1).as_bytes(), address).unwrap();
        assert_eq!(hear(&phone).1, address);
        let local = phone.local_addr().unwrap();
        let request = loopback::subscribe("UDP", local, local).replace("s@", &address.to_string());
        phone.send_to(request.as_bytes(), address).unwrap();
        let (answer, notify) = (hear(&phone), hear(&phone));
        assert_eq!((answer.1, notify.1), (address, address));
        assert!(notify.0.contains(&format!("Via: SIP/2.0/UDP {address};")), "{}", notify.0);
        phone.send_to(ok(&notify.0).as_bytes(), address).unwrap();
    }
    server.stop();
}

#[test]
fn a_notify_asks_for_the_answer_to_where_it_comes_from() {
    // D-006
    let [_, notify] = subscribed("D-006", &subscribe());
    assert!(notify.header("Via").starts_with("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK"), "{}", notify.text);
    assert!(notify.header("Via").ends_with(";rport"), "{}", notify.text);
}

#[test]
fn on_a_stream_the_answer_takes_the_connection_and_no_other() {
    // D-008, D-009: if the connection is gone, the response is dropped.
    let request = options().put("Via: SIP/2.0/TCP client.invalid:5082;branch=z9hG4bK1");
    let sent = Bench::new().send_from(tcp_source(TCP_PHONE), &request.bytes());
    assert_eq!(sent[0].to, Destination::Flow { flow: FlowId(1), otherwise: None });
}

#[test]
fn a_connection_that_closes_before_its_answer_harms_nobody() {
    // C-029, D-009
    let office = Office::open("127.0.0.1", "");
    for n in 1..20 {
        let mut line = office.connect();
        line.send(&loopback::options("SIP/2.0/TCP h.invalid", n));
        drop(line);
    }
    let mut line = office.connect();
    line.send(&loopback::options("SIP/2.0/TCP h.invalid", 99));
    line.receive_start("SIP/2.0 200");
}

#[test]
fn what_keeps_a_binding_alive_is_not_answered() {
    // D-014, D-015
    let stun = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";
    let keep_alives: [&[u8]; 8] = [stun, b"\r\n", b"\r\n\r\n", b"\0", b"\0\0\0\0", b"jaK", b" ", b""];
    for keep_alive in keep_alives {
        compare("D-015", &Bench::new().udp(keep_alive), Silence);
    }
}

/// A subscription with an event id over this connection, its first NOTIFY answered.
fn watch(line: &mut Line, contact: SocketAddr, id: u32) {
    let local = line.stream.local_addr().unwrap();
    let request =
        loopback::subscribe("TCP", local, contact).replace("Event: dialog", &format!("Event: dialog;id={id}"));
    line.send(&request.replace("s@", &format!("s{id}@")).replace("z9hG4bKs", &format!("z9hG4bKs{id}")));
    line.receive_start("SIP/2.0 200");
    let notify = line.receive_start("NOTIFY ");
    line.send(&ok(&notify));
}

#[test]
fn one_new_connection_serves_all_that_goes_to_its_address() {
    // D-017, D-018
    let office = Office::open("127.0.0.1", "");
    let contact = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut line = office.connect();
    for id in [1, 2] {
        watch(&mut line, contact.local_addr().unwrap(), id);
    }
    line.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(line.receive(), None);
    office.set("early");
    let mut new = Line::of(contact.accept().unwrap().0);
    let mut events: Vec<String> = (0..2)
        .map(|_| {
            let notify = new.receive_start("NOTIFY ");
            new.send(&ok(&notify));
            let message = wire::read(notify.as_bytes()).unwrap().unwrap();
            message.first(Name::Event).unwrap().to_owned()
        })
        .collect();
    events.sort();
    assert_eq!(events, ["dialog;id=1", "dialog;id=2"]);
    contact.set_nonblocking(true).unwrap();
    assert!(contact.accept().is_err(), "there is no other");
}

#[test]
fn a_long_answer_goes_back_as_its_request_came() {
    // D-021
    let request = subscribe().put(&format!("From: \"{}\" <sip:1002@acme.test>;tag=1", "long".repeat(500)));
    let [answer, _] = subscribed("D-021", &request);
    assert!(answer.text.len() > 2_000);
    assert_eq!(answer.peer(), peer("192.0.2.99:5070"));
}

#[test]
fn what_we_say_of_ourselves_leads_back_to_us() {
    // D-022, D-023: the response to a NOTIFY goes to its sent-by, a refresh to the Contact.
    let office = Office::open("127.0.0.1", "");
    let phone = loopback::phone(office.address.ip());
    let local = phone.local_addr().unwrap();
    phone.send_to(loopback::subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
    let (answer, notify) = (hear(&phone).0, hear(&phone).0);
    let sent_by = wire::read(notify.as_bytes()).unwrap().unwrap().via.sent_by.to_owned();
    phone.send_to(ok(&notify).as_bytes(), peer(&sent_by)).unwrap();
    phone.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
    assert!(phone.recv(&mut [0; 1]).is_err(), "no copy comes after 500 ms");
    phone.set_read_timeout(Some(PATIENCE)).unwrap();

    let message = wire::read(answer.as_bytes()).unwrap().unwrap();
    let contact = NameAddr::read(message.first(Name::Contact).unwrap()).unwrap().uri;
    let uri = Uri::read(contact).unwrap();
    let address = SocketAddr::new(uri.host.ip().unwrap(), uri.port.unwrap_or(5060));
    let refresh = loopback::subscribe("UDP", local, local)
        .replace("SUBSCRIBE sip:1001@acme.test", &format!("SUBSCRIBE {contact}"))
        .replace("To: <sip:1001@acme.test>", &format!("To: {}", message.to.text))
        .replace("CSeq: 1", "CSeq: 2")
        .replace("z9hG4bKs", "z9hG4bKr");
    phone.send_to(refresh.as_bytes(), address).unwrap();
    assert!(hear(&phone).0.starts_with("SIP/2.0 200"));
}

#[test]
fn a_contact_says_by_port_and_transport_where_a_notify_goes() {
    // D-024, D-029, D-030 (an unsupported transport is not tried: the NOTIFY returns on the path of the SUBSCRIBE)
    for (uri, to) in [
        ("sip:1002@192.0.2.99", "UDP 192.0.2.99:5060"),
        ("sip:1002@192.0.2.99:5099", "UDP 192.0.2.99:5099"),
        ("sip:1002@192.0.2.99:5099;transport=UDP", "UDP 192.0.2.99:5099"),
        ("sip:1002@192.0.2.99;transport=tcp", "TCP 192.0.2.99:5060"),
        ("sip:1002@192.0.2.99:5099;transport=TCP", "TCP 192.0.2.99:5099"),
        ("sip:1002@192.0.2.99:5099;transport=sctp", "UDP 192.0.2.99:5070"),
        ("sip:1002@192.0.2.99:5099;transport=", "UDP 192.0.2.99:5070"),
    ] {
        let [_, notify] = subscribed(uri, &subscribe().put(&format!("Contact: <{uri}>")));
        let (transport, peer) = match notify.to {
            Destination::Datagram { peer, .. } => ("UDP", peer),
            Destination::Connection(Remote { peer, .. }) => ("TCP", peer),
            other => panic!("{other:?}"),
        };
        assert_eq!((format!("{transport} {peer}"), notify.request_uri()), (to.to_owned(), uri));
        assert!(notify.header("Via").starts_with(&format!("SIP/2.0/{transport} ")), "{}", notify.text);
    }
}

#[test]
fn a_watcher_behind_a_connection_hears_on_it_whatever_its_contact_says() {
    // D-016
    let request = subscribe()
        .put("Via: SIP/2.0/TCP 10.0.0.7:5060;branch=z9hG4bKnat")
        .put("Contact: <sip:1002@10.0.0.7:5060;transport=tcp>");
    let mut source = tcp_source("203.0.113.9:40000");
    source.flow = Some(FlowId(7));
    let sent = Bench::new().send_from(source, &request.bytes());
    compare("D-016", &sent, Subscribed);
    assert_eq!(sent[1].to, Destination::Flow { flow: FlowId(7), otherwise: None });
    assert_eq!(sent[1].request_uri(), "sip:1002@10.0.0.7:5060;transport=tcp");
    let request = request.put("Via: SIP/2.0/UDP 10.0.0.7:5060;branch=z9hG4bKnat;rport");
    let sent = Bench::new().send_from(udp_source("203.0.113.9:40000"), &request.bytes());
    assert_eq!(sent[1].peer(), peer("203.0.113.9:40000"));
}

#[test]
fn what_is_too_large_counts_at_the_gate_like_anything_else() {
    // B-047: the connection stays open, and its rate limit applies (rule 7).
    let bench = Bench::new();
    let head = options().put("Via: SIP/2.0/TCP h.invalid;branch=z9hG4bKlarge").put("Content-Length: 90000").bytes();
    let mut out = Outbox::default();
    for _ in 0..12_000 {
        bench.notifier.receive_malformed(
            Tick(0),
            tcp_source("203.0.113.9:40000"),
            ParseError::TooLarge,
            &head,
            &mut out,
        );
    }
    assert!((1..=10_000).contains(&out.messages.len()), "{} answers", out.messages.len());
}

#[test]
fn a_port_that_nobody_listens_on_any_more_concerns_nobody_else() {
    // D-042
    let office = Office::open("127.0.0.1", "");
    let (gone, stays) = (loopback::phone(office.address.ip()), loopback::phone(office.address.ip()));
    for phone in [&gone, &stays] {
        let local = phone.local_addr().unwrap();
        phone.send_to(loopback::subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
        assert!(hear(phone).0.starts_with("SIP/2.0 200"));
        phone.send_to(ok(&hear(phone).0).as_bytes(), office.address).unwrap();
    }
    drop(gone);
    for state in ["early", "confirmed", "terminated"] {
        office.set(state);
        let notify = hear(&stays).0;
        assert!(notify.contains("NOTIFY "), "{state}: {notify}");
        stays.send_to(ok(&notify).as_bytes(), office.address).unwrap();
    }
}

#[test]
fn a_datagram_of_60_kilobytes_is_taken() {
    //
    let office = Office::open("127.0.0.1", "");
    let phone = loopback::phone(office.address.ip());
    let request = publish("confirmed").put("Via: SIP/2.0/UDP h.invalid;branch=z9hG4bKlarge;rport");
    let body = String::from_utf8(request.bytes()).unwrap();
    let body = body.split_once("\r\n\r\n").unwrap().1.replace("</dialog-info>", "");
    let request = request.body("application/dialog-info+xml", format!("{body}{}</dialog-info>", " ".repeat(60_000)));
    phone.send_to(&request.bytes(), office.address).unwrap();
    assert!(hear(&phone).0.starts_with("SIP/2.0 200"));
    let local = phone.local_addr().unwrap();
    phone.send_to(loopback::subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
    hear(&phone);
    assert!(hear(&phone).0.contains("<state>confirmed</state>"));
}

#[test]
fn a_message_may_come_in_one_piece_with_others_or_in_many() {
    // D-010, D-011, B-047
    let office = Office::open("127.0.0.1", "");
    let mut line = office.connect();
    let inner = loopback::options("SIP/2.0/TCP h.invalid", 7);
    let tcp = |request: Request, id: &str| {
        request.put("Via: SIP/2.0/TCP h.invalid;branch=z9hG4bKt").put(&format!("Call-ID: {id}")).bytes()
    };
    let with_body = tcp(Request::new("MESSAGE", URI).body("message/sip", format!("\r\n\r\n{inner}")), "body");
    let large = tcp(Request::new("PUBLISH", URI).body("text/plain", inner.repeat(1_000)), "large");
    line.stream.write_all(&[b"\r\n", &*with_body, b"\r\n", &*large, inner.as_bytes()].concat()).unwrap();
    line.receive_start("SIP/2.0 405");
    line.receive_start("SIP/2.0 513");
    line.receive_start("SIP/2.0 200");
    line.send(&inner.replace("Content-Length: 0\r\n", ""));
    line.receive_start("SIP/2.0 400");
    assert_eq!(line.receive(), None, "where it ends nobody knows");
    compare("A-053", &Bench::new().udp(options().without("Content-Length").bytes()), Answer(&[200]));
}

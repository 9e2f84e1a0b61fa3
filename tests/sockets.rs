//! The server on real loopback sockets: behaviour that only sockets can show (RFC 3261 section 18, RFC 3581, RFC
//! 5626).
//!
//! The protocol rules are tested without sockets, beside the notifier. Ports are free ones; every wait has a deadline
//! and no test sleeps.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "sockets/office.rs"]
mod office;

#[path = "sockets/dns.rs"]
mod dns;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use dns::{A, Dns, NAPTR, SRV};
use lamplighter::config::Config;
use lamplighter::server::Server;
use office::{Line, Office, PATIENCE, hear, ok, options, phone, subscribe};

#[test]
fn an_answer_goes_to_the_source_port_with_rport_and_to_the_sent_by_port_without() {
    let office = Office::open("127.0.0.1", "");
    let (sender, other) = (phone(office.address.ip()), phone(office.address.ip()));
    let other_port = other.local_addr().unwrap().port();
    sender
        .send_to(options(&format!("SIP/2.0/UDP h.invalid:{other_port};rport"), 1).as_bytes(), office.address)
        .unwrap();
    let (answer, from) = hear(&sender);
    assert_eq!(from, office.address);
    let port = sender.local_addr().unwrap().port();
    assert!(answer.contains(&format!(";received=127.0.0.1;rport={port}")), "{answer}");
    sender.send_to(options(&format!("SIP/2.0/UDP h.invalid:{other_port}"), 2).as_bytes(), office.address).unwrap();
    assert!(hear(&other).0.contains("CSeq: 2 OPTIONS"));
}

#[test]
fn a_stream_may_bring_many_messages_at_once_or_one_octet_at_a_time() {
    let office = Office::open("127.0.0.1", "");
    let mut line = office.connect();
    let both = options("SIP/2.0/TCP h.invalid", 1) + &options("SIP/2.0/TCP h.invalid", 2);
    line.send(&both);
    assert!(line.receive_start("SIP/2.0 200").contains("CSeq: 1 "));
    assert!(line.receive_start("SIP/2.0 200").contains("CSeq: 2 "));
    for octet in options("SIP/2.0/TCP h.invalid", 3).bytes() {
        line.stream.write_all(&[octet]).unwrap();
    }
    assert!(line.receive_start("SIP/2.0 200").contains("CSeq: 3 "));
}

#[test]
fn a_double_crlf_is_answered_with_a_single_one() {
    let office = Office::open("127.0.0.1", "");
    let mut line = office.connect();
    line.send("\r\n\r\n");
    let mut pong = [0; 2];
    line.stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
}

#[test]
fn a_stream_that_cannot_be_cut_into_messages_is_answered_and_closed() {
    let office = Office::open("127.0.0.1", "");
    let mut line = office.connect();
    line.send(&options("SIP/2.0/TCP h.invalid", 1).replace("Content-Length: 0\r\n", ""));
    line.receive_start("SIP/2.0 400 Missing Content-Length header");
    assert_eq!(line.receive(), None);
}

#[test]
fn notifies_come_on_the_connection_of_the_subscribe_and_on_a_new_one_when_it_is_gone() {
    let office = Office::open("127.0.0.1", "");
    let contact = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut line = office.connect();
    let local = line.stream.local_addr().unwrap();
    line.send(&subscribe("TCP", local, contact.local_addr().unwrap()));
    line.receive_start("SIP/2.0 200");
    let notify = line.receive_start("NOTIFY ");
    line.send(&ok(&notify));
    office.set("early");
    let notify = line.receive_start("NOTIFY ");
    assert!(notify.contains("<state>early</state>"), "{notify}");
    line.send(&ok(&notify));
    // The server must have noticed the end of the connection before the next change, which it shows by closing its
    // side.
    line.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(line.receive(), None);
    office.set("confirmed");
    let mut new = Line::of(contact.accept().unwrap().0);
    let notify = new.receive_start("NOTIFY ");
    assert!(notify.contains("<state>confirmed</state>"), "{notify}");
    new.send(&ok(&notify));
    // The new connection is used again, and a response on it counts like one on the first.
    office.set("terminated");
    let notify = new.receive_start("NOTIFY ");
    assert!(notify.contains("CSeq: 4 NOTIFY"), "{notify}");
}

#[test]
fn a_watcher_whose_connection_cannot_be_opened_harms_nobody() {
    let office = Office::open("127.0.0.1", "");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut line = office.connect();
    line.send(&subscribe("TCP", line.stream.local_addr().unwrap(), nobody));
    line.receive_start("SIP/2.0 200");
    line.receive_start("NOTIFY ");
    drop(line);
    let watcher = phone(office.address.ip());
    let local = watcher.local_addr().unwrap();
    watcher.send_to(subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
    assert!(hear(&watcher).0.starts_with("SIP/2.0 200"));
    let notify = hear(&watcher).0;
    watcher.send_to(ok(&notify).as_bytes(), office.address).unwrap();
    office.set("early");
    assert!(hear(&watcher).0.contains("<state>early</state>"));
}

#[test]
fn ipv6_serves_as_well_as_ipv4() {
    let office = Office::open("::1", "");
    let watcher = phone(office.address.ip());
    let local = watcher.local_addr().unwrap();
    watcher.send_to(subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
    let answer = hear(&watcher).0;
    assert!(answer.contains(&format!("Contact: <sip:1001@{}>", office.address)), "{answer}");
    let notify = hear(&watcher).0;
    assert!(
        notify.starts_with(&format!("NOTIFY sip:1002@{local} SIP/2.0\r\nVia: SIP/2.0/UDP {}", office.address)),
        "{notify}"
    );
    let mut line = office.connect();
    line.send(&options("SIP/2.0/TCP [::1]", 1));
    line.receive_start("SIP/2.0 200");
}

#[test]
fn a_lifetime_counts_from_when_its_request_came_however_quiet_it_was_before() {
    let office = Office::open("127.0.0.1", "[presence]\nmin_expires = 1");
    let watcher = phone(office.address.ip());
    let local = watcher.local_addr().unwrap();
    // Wakes the socket once; then it stays idle for longer than the subscription will last.
    watcher.send_to(options(&format!("SIP/2.0/UDP {local};rport"), 1).as_bytes(), office.address).unwrap();
    hear(&watcher);
    watcher.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    assert!(watcher.recv_from(&mut [0; 1]).is_err(), "nothing comes unasked");
    watcher.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = subscribe("UDP", local, local).replace("Expires: 600", "Expires: 1");
    watcher.send_to(request.as_bytes(), office.address).unwrap();
    assert!(hear(&watcher).0.starts_with("SIP/2.0 200"));
    let granted = Instant::now();
    let first = hear(&watcher).0;
    watcher.send_to(ok(&first).as_bytes(), office.address).unwrap();
    assert!(hear(&watcher).0.contains("Subscription-State: terminated;reason=timeout"));
    assert!(granted.elapsed() > Duration::from_millis(900), "{:?}", granted.elapsed());
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let office = Office::open("127.0.0.1", "[limits]\ntcp_connections = 2");
    let mut lines = [office.connect(), office.connect()];
    for (n, line) in (1..).zip(&mut lines) {
        line.send(&options("SIP/2.0/TCP h.invalid", n));
        line.receive_start("SIP/2.0 200");
    }
    assert_eq!(office.connect().receive(), None);
}

#[test]
fn an_address_has_a_share_of_the_connections_unless_it_is_trusted() {
    let limits = "[limits]\ntcp_connections_per_address = 2\n[access]\ntrusted_proxies = []";
    let office = Office::open("127.0.0.1", limits);
    let mut lines = [office.connect(), office.connect()];
    for (n, line) in (1..).zip(&mut lines) {
        line.send(&options("SIP/2.0/TCP h.invalid", n));
        line.receive_start("SIP/2.0 200");
    }
    assert_eq!(office.connect().receive(), None);
    // Closing makes room, but only once the server has noticed it.
    let [first, _second] = &mut lines;
    first.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(first.receive(), None);
    let deadline = Instant::now() + PATIENCE;
    let is_served = || {
        let mut stream = office.connect().stream;
        let asked = stream.write_all(options("SIP/2.0/TCP h.invalid", 9).as_bytes());
        asked.is_ok() && stream.read(&mut [0; 16]).is_ok_and(|length| length > 0)
    };
    while !is_served() {
        assert!(Instant::now() < deadline, "its place is not given to another");
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let office = Office::open("127.0.0.1", "[limits]\ntcp_idle_seconds = 1");
    assert_eq!(office.connect().receive(), None);
}

/// D-012: a message must be completed in time, and an octet now and then does not extend that time.
#[test]
fn a_message_that_never_ends_does_not_keep_its_connection_open() {
    let office = Office::open("127.0.0.1", "[limits]\ntcp_idle_seconds = 1");
    let mut line = office.connect();
    let began = Instant::now();
    line.stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let closed = options("SIP/2.0/TCP h.invalid", 1).bytes().take(60).any(|octet| {
        // Each octet comes long before the connection would count as idle.
        line.stream.write_all(&[octet]).is_err() || !matches!(line.stream.read(&mut [0; 1]), Err(e) if timed_out(&e))
    });
    assert!(closed && began.elapsed() < Duration::from_secs(5), "{closed} after {:?}", began.elapsed());
    let mut other = office.connect();
    other.send(&options("SIP/2.0/TCP h.invalid", 2));
    other.receive_start("SIP/2.0 200");
}

fn timed_out(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn a_second_server_does_not_share_the_ports_of_the_first() {
    let office = Office::open("127.0.0.1", "");
    let config = format!("[sip]\nlisten = [\"udp://{}\"]\n[http]\nlisten = \"127.0.0.1:0\"\n", office.address);
    let error = Server::start(&Config::parse(&config, "x.toml").unwrap()).unwrap_err().to_string();
    assert!(error.contains("cannot listen on udp://"), "{error}");
}

#[test]
fn an_address_in_use_is_named_when_the_server_cannot_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!("[sip]\nlisten = [\"tcp://{address}\"]\n[http]\nlisten = \"127.0.0.1:0\"\n");
    let error = Server::start(&Config::parse(&config, "x.toml").unwrap()).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on tcp://{address}")), "{error}");
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_dropped_and_others_are_served() {
    let office = Office::open("127.0.0.1", "");
    let mut deaf = office.connect();
    deaf.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut n = 0;
    let dropped = loop {
        n += 1;
        let wrote = deaf.stream.write_all(options("SIP/2.0/TCP h.invalid", n).as_bytes());
        match wrote.map_err(|error| error.kind()) {
            Err(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break true,
            Err(ErrorKind::WouldBlock) | Ok(()) if Instant::now() < deadline => {}
            _ => break false,
        }
    };
    assert!(dropped, "after {n} requests");
    let mut other = office.connect();
    other.send(&options("SIP/2.0/TCP h.invalid", 1_000_000));
    other.receive_start("SIP/2.0 200");
}

/// A SUBSCRIBE over UDP, with this Contact, from a source that may name other hosts.
fn subscribe_as(office: &Office, contact: &str) -> std::net::UdpSocket {
    let watcher = phone(office.address.ip());
    let local = watcher.local_addr().unwrap();
    let request = subscribe("UDP", local, local).replace(&format!("1002@{local}>"), &format!("{contact}>"));
    assert!(request.contains(&format!("Contact: <sip:{contact}>")), "{request}");
    watcher.send_to(request.as_bytes(), office.address).unwrap();
    assert!(hear(&watcher).0.starts_with("SIP/2.0 200"));
    watcher
}

/// A port without a listener.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// D-026, D-027: NAPTR and SRV lead to a host that does not answer, then to the next.
#[test]
fn a_name_is_looked_up_and_the_next_target_tried_when_the_first_refuses() {
    let live = TcpListener::bind("127.0.0.1:0").unwrap();
    let dns = Dns::open(vec![
        ("phone.acme.test", NAPTR, dns::naptr(20, "SIP+D2U", "_sip._udp.phone.acme.test")),
        ("phone.acme.test", NAPTR, dns::naptr(10, "SIP+D2T", "_sip._tcp.phone.acme.test")),
        ("_sip._tcp.phone.acme.test", SRV, dns::srv(2, live.local_addr().unwrap().port(), "live.acme.test")),
        ("_sip._tcp.phone.acme.test", SRV, dns::srv(1, nobody(), "dead.acme.test")),
        ("dead.acme.test", A, vec![127, 0, 0, 1]),
        ("live.acme.test", A, vec![127, 0, 0, 1]),
    ]);
    let office = Office::open("127.0.0.1", &dns.config());
    let _watcher = subscribe_as(&office, "1002@phone.acme.test");
    let mut line = Line::of(live.accept().unwrap().0);
    let notify = line.receive_start("NOTIFY sip:1002@phone.acme.test SIP/2.0");
    assert!(notify.contains("CSeq: 2 NOTIFY") && notify.contains("Via: SIP/2.0/TCP "), "{notify}");
    line.send(&ok(&notify));
    // Cached records are not queried again.
    let asked = dns.asked().len();
    office.set("early");
    let notify = line.receive_start("NOTIFY ");
    assert!(notify.contains("<state>early</state>"), "{notify}");
    line.send(&ok(&notify));
    assert_eq!(dns.asked().len(), asked);
}

/// D-026, D-027: without NAPTR, and a target that answers 503.
#[test]
fn a_target_that_answers_503_is_left_for_the_next() {
    let (busy, free) = (phone("127.0.0.1".parse().unwrap()), phone("127.0.0.1".parse().unwrap()));
    let port = |socket: &std::net::UdpSocket| socket.local_addr().unwrap().port();
    let dns = Dns::open(vec![
        ("_sip._udp.phone.acme.test", SRV, dns::srv(2, port(&free), "host.acme.test")),
        ("_sip._udp.phone.acme.test", SRV, dns::srv(1, port(&busy), "host.acme.test")),
        ("host.acme.test", A, vec![127, 0, 0, 1]),
    ]);
    let office = Office::open("127.0.0.1", &dns.config());
    let _watcher = subscribe_as(&office, "1002@phone.acme.test");
    let first = hear(&busy).0;
    let refusal = ok(&first).replace("200 OK", "503 Service Unavailable");
    busy.send_to(refusal.as_bytes(), office.address).unwrap();
    let second = hear(&free).0;
    let branch = |notify: &str| notify.split("branch=").nth(1).unwrap().split(';').next().unwrap().to_string();
    assert_ne!(branch(&first), branch(&second));
    assert!(second.contains("CSeq: 2 NOTIFY"), "{second}");
    free.send_to(ok(&second).as_bytes(), office.address).unwrap();
}

/// D-025, D-028: a name with a port causes queries for addresses only, and all addresses are tried.
#[test]
fn a_name_with_a_port_has_addresses_only_and_all_are_tried() {
    // The port has no listener on 127.0.0.1, because it was free on both addresses.
    let (port, live) = (0..100)
        .map(|_| nobody())
        .find_map(|port| Some((port, TcpListener::bind(("127.0.0.2", port)).ok()?)))
        .expect("a free port");
    let dns = Dns::open(vec![
        ("phone.acme.test", A, vec![127, 0, 0, 1]),
        ("phone.acme.test", A, vec![127, 0, 0, 2]),
        ("_sip._tcp.phone.acme.test", SRV, dns::srv(1, 9, "phone.acme.test")),
    ]);
    let office = Office::open("127.0.0.1", &dns.config());
    let _watcher = subscribe_as(&office, &format!("1002@phone.acme.test:{port};transport=tcp"));
    let mut line = Line::of(live.accept().unwrap().0);
    let notify = line.receive_start("NOTIFY ");
    assert!(notify.contains("CSeq: 2 NOTIFY"), "{notify}");
    line.send(&ok(&notify));
    assert!(dns.asked().iter().all(|(name, kind)| name == "phone.acme.test" && *kind == A), "{:?}", dns.asked());
}

#[test]
fn without_an_answer_of_the_dns_a_notify_goes_back_to_the_source() {
    let silent = phone("127.0.0.1".parse().unwrap());
    let servers = format!("[dns]\nservers = [\"{}\"]", silent.local_addr().unwrap());
    let office = Office::open("127.0.0.1", &servers);
    let began = Instant::now();
    let watcher = subscribe_as(&office, "1002@phone.acme.test");
    // Other phones are served meanwhile.
    let other = phone(office.address.ip());
    other
        .send_to(options(&format!("SIP/2.0/UDP {};rport", other.local_addr().unwrap()), 1).as_bytes(), office.address)
        .unwrap();
    assert!(hear(&other).0.starts_with("SIP/2.0 200"));
    let notify = hear(&watcher).0;
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    watcher.send_to(ok(&notify).as_bytes(), office.address).unwrap();
}

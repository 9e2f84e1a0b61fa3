//! NOTIFYs that are too large for a datagram, on real sockets (RFC 3261 section 18.1.1). The choice of the transport
//! is tested without sockets, beside the notifier.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::net::{TcpListener, UdpSocket};

use sockets::{Line, Office, PATIENCE, hear, ok, phone, subscribe};

#[allow(dead_code)] // tests/sockets.rs uses the rest
#[path = "sockets/office.rs"]
mod sockets;

/// Publishes many calls of 1001.
fn publish_many_calls(office: &Office) {
    let call =
        |n| format!("<dialog id=\"c{n}\" call-id=\"c{n}\" direction=\"recipient\"><state>early</state></dialog>");
    let body = format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
         entity=\"sip:1001@acme.test\">{}</dialog-info>",
        (0..12).map(call).collect::<String>()
    );
    let pbx = phone(office.address.ip());
    let request = format!(
        "PUBLISH sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKp;rport\r\nFrom: <sip:1001@acme.test>;tag=p\r\n\
         To: <sip:1001@acme.test>\r\nCall-ID: p\r\nCSeq: 1 PUBLISH\r\nEvent: dialog\r\nExpires: 600\r\n\
         Content-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{body}",
        pbx.local_addr().unwrap(),
        body.len()
    );
    pbx.send_to(request.as_bytes(), office.address).unwrap();
    assert!(hear(&pbx).0.starts_with("SIP/2.0 200"));
}

/// Subscribes a phone over UDP; its first NOTIFY shows no call.
fn watch(office: &Office, phone: &UdpSocket) {
    let local = phone.local_addr().unwrap();
    phone.send_to(subscribe("UDP", local, local).as_bytes(), office.address).unwrap();
    assert!(hear(phone).0.starts_with("SIP/2.0 200"));
    let notify = hear(phone).0;
    phone.send_to(ok(&notify).as_bytes(), office.address).unwrap();
}

#[test]
fn it_comes_over_tcp_to_a_phone_that_listens_there() {
    let office = Office::open("127.0.0.1", "");
    let (udp, tcp) = both();
    watch(&office, &udp);
    publish_many_calls(&office);
    let mut line = Line::of(tcp.accept().unwrap().0);
    let notify = line.receive_start("NOTIFY ");
    assert!(notify.len() > 1_300 && notify.contains("\r\nVia: SIP/2.0/TCP "), "{notify}");
    line.send(&ok(&notify));
    office.set("confirmed");
    // The same connection is used again.
    let notify = line.receive_start("NOTIFY ");
    assert!(notify.contains("<state>confirmed</state>"), "{notify}");
}

#[test]
fn it_comes_in_a_datagram_to_a_phone_that_does_not() {
    let office = Office::open("127.0.0.1", "");
    let udp = phone(office.address.ip());
    watch(&office, &udp);
    publish_many_calls(&office);
    let notify = hear(&udp).0;
    assert!(notify.len() > 1_300 && notify.contains("\r\nVia: SIP/2.0/UDP "), "{notify}");
    assert!(notify.contains("\r\nCSeq: 3 NOTIFY"), "the second was for the connection: {notify}");
}

/// A port that is open for both datagrams and connections.
fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            udp.set_read_timeout(Some(PATIENCE)).unwrap();
            return (udp, tcp);
        }
    }
    panic!("no free port");
}

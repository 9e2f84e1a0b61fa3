//! SIP over WebSocket on real sockets (RFC 7118, RFC 6455).

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::version::TLS13;
use secure::{Authority, Folder, House, Line, NAME, PATIENCE, subscribe, tls_section};
use sockets::{ok, options};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Message, WebSocket};

mod secure;
#[allow(dead_code)] // tests/sockets.rs uses the rest
#[path = "sockets/office.rs"]
mod sockets;

const CONTACT: &str = "sip:k3j4@df7jal23ls0d.invalid;transport=ws";

/// A browser's side of a WebSocket.
struct Page<S>(WebSocket<S>);

impl<S: Read + Write> Page<S> {
    fn open(stream: S) -> Page<S> {
        let mut request = "ws://acme.test/ws".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "sip".parse().unwrap());
        let (socket, answer) = tungstenite::client(request, stream).map_err(|e| e.to_string()).unwrap();
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "sip");
        Page(socket)
    }

    fn send(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).unwrap();
    }

    /// Returns the next message as text; the server sends only text.
    fn receive(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn receive_start(&mut self, start: &str) -> String {
        let message = self.receive();
        assert!(message.starts_with(start), "expected {start}, got {message}");
        message
    }

    /// Code of the Close frame that comes next.
    fn closed(&mut self) -> CloseCode {
        loop {
            match self.0.read().unwrap() {
                Message::Close(frame) => return frame.unwrap().code,
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn house(more: &str) -> House {
    House::open(&["ws", "tcp"], more)
}

fn page(house: &House) -> Page<TcpStream> {
    Page::open(house.tcp("ws"))
}

#[test]
fn a_lamp_lights_over_the_websocket_that_the_subscription_came_on() {
    let house = house("");
    let mut page = page(&house);
    // Without Content-Length, and with a sent-by that does not resolve.
    let request = subscribe("WS df7jal23ls0d.invalid", CONTACT, "").replace("Content-Length: 0\r\n", "");
    page.send(request);
    let answer = page.receive_start("SIP/2.0 200");
    assert!(
        answer.contains("Via: SIP/2.0/WS df7jal23ls0d.invalid;branch=z9hG4bKs;received=127.0.0.1;rport="),
        "{answer}"
    );
    assert!(answer.contains(&format!("Contact: <sip:1001@{};transport=ws>\r\n", house.address("ws"))), "{answer}");
    let notify = page.receive_start(&format!("NOTIFY {CONTACT} SIP/2.0\r\nVia: SIP/2.0/WS {};", house.address("ws")));
    page.send(ok(&notify));
    for state in ["early", "confirmed", "terminated"] {
        house.set(state);
        let notify = page.receive_start("NOTIFY ");
        let expected = if state == "terminated" { "</dialog-info>" } else { state };
        assert!(notify.contains(expected), "{notify}");
        page.send(ok(&notify));
    }
}

#[test]
fn wss_is_the_same_over_tls() {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.issue(NAME).install(&folder);
    let house = House::open(&["wss"], &tls_section(&folder, ""));
    let mut page = Page::open(house.tls("wss", authority.client(None, &[&TLS13])));
    page.send(subscribe("WSS df7jal23ls0d.invalid", CONTACT, ""));
    page.receive_start("SIP/2.0 200");
    let notify = page.receive_start(&format!("NOTIFY {CONTACT} SIP/2.0\r\nVia: SIP/2.0/WSS "));
    page.send(ok(&notify));
    house.set("early");
    assert!(page.receive().contains("<state>early</state>"));
    page.send(subscribe("WSS df7jal23ls0d.invalid", "sips:a@x.invalid;transport=ws", "").replace("CSeq: 1", "CSeq: 2"));
    page.receive_start("SIP/2.0 200");
}

#[test]
fn a_message_may_be_text_or_binary_whole_or_in_fragments() {
    let house = house("");
    let mut page = page(&house);
    page.send(options("SIP/2.0/WS h.invalid", 1).into_bytes());
    page.receive_start("SIP/2.0 200");
    let request = options("SIP/2.0/WS h.invalid", 2).into_bytes();
    let pieces: Vec<_> = request.chunks(60).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let opcode = OpCode::Data(if i == 0 { Data::Text } else { Data::Continue });
        page.send(Message::Frame(Frame::message(piece.to_vec(), opcode, i + 1 == pieces.len())));
        if i == 1 {
            // Control frames may come between fragments (RFC 6455 section 5.4).
            page.send(Message::Ping("between".into()));
            assert_eq!(page.0.read().unwrap(), Message::Pong("between".into()));
        }
    }
    assert!(page.receive_start("SIP/2.0 200").contains("CSeq: 2 "));
    // A WebSocket message holds one SIP message (RFC 7118 section 5): text after the first counts as its body, which
    // OPTIONS ignores.
    let both = options("SIP/2.0/WS h.invalid", 3) + &options("SIP/2.0/WS h.invalid", 4);
    page.send(both);
    assert!(page.receive_start("SIP/2.0 200").contains("CSeq: 3 "));
    page.send(options("SIP/2.0/WS h.invalid", 5));
    assert!(page.receive_start("SIP/2.0 200").contains("CSeq: 5 "));
}

#[test]
fn pings_of_both_kinds_are_answered_and_so_is_a_close() {
    let house = house("");
    let mut page = page(&house);
    page.send(Message::Ping("there?".into()));
    assert_eq!(page.0.read().unwrap(), Message::Pong("there?".into()));
    page.send("\r\n\r\n");
    assert_eq!(page.receive(), "\r\n");
    // This would be the reply to a ping of the server, and needs none.
    page.send("\r\n");
    page.0.close(None).unwrap();
    assert_eq!(page.0.read().unwrap(), Message::Close(None));
    assert_eq!(page.0.get_mut().read(&mut [0]).unwrap(), 0);
}

#[test]
fn whoever_breaks_the_protocol_or_a_limit_is_told_which() {
    let house = house("");
    let mut unmasked = page(&house);
    unmasked.0.get_mut().write_all(b"\x81\x02hi").unwrap();
    assert_eq!(unmasked.closed(), CloseCode::Protocol);

    let mut reserved = page(&house);
    reserved.0.get_mut().write_all(b"\x8b\x80mask").unwrap();
    assert_eq!(reserved.closed(), CloseCode::Protocol);

    let mut endless = page(&house);
    for opcode in [Data::Binary, Data::Continue] {
        endless.send(Message::Frame(Frame::message(vec![b'x'; 40_000], OpCode::Data(opcode), false)));
    }
    assert_eq!(endless.closed(), CloseCode::Size);

    let mut no_text = page(&house);
    no_text.send(Message::Frame(Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true)));
    assert_eq!(no_text.closed(), CloseCode::Invalid);

    // The head of one frame without its payload.
    let mut huge = page(&house);
    huge.0.get_mut().write_all(b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00mask").unwrap();
    assert_eq!(huge.closed(), CloseCode::Size);
}

#[test]
fn what_is_no_sip_is_answered_or_ignored_as_in_a_datagram_and_the_websocket_stays() {
    let house = house("");
    let mut page = page(&house);
    page.send("GET / HTTP/1.1\r\n\r\n");
    page.send(options("SIP/2.0/WS h.invalid", 1).replace("Call-ID: o1\r\n", ""));
    page.receive_start("SIP/2.0 400");
    page.send(options("SIP/2.0/WS h.invalid", 2));
    page.receive_start("SIP/2.0 200");
}

/// The whole response to a request; it ends with the connection.
fn ask(house: &House, request: &str) -> String {
    let mut stream = house.tcp("ws");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: acme.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, SIP\r\n";

#[test]
fn the_request_for_a_websocket_is_answered_as_rfc_6455_computes_it() {
    let house = house("");
    let mut stream = house.tcp("ws");
    // The first frame, a ping, follows immediately.
    stream.write_all(format!("{UPGRADE}\r\n").as_bytes()).unwrap();
    stream.write_all(b"\x89\x80mask").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\x8a\x00") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        answer.push(octet[0]);
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    for header in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
        "sec-websocket-protocol: sip",
    ] {
        assert!(answer.contains(&format!("{header}\r\n")), "{answer}");
    }
}

#[test]
fn what_is_no_request_for_a_sip_websocket_gets_an_answer_of_http() {
    let house = house("");
    let without = |header: &str| -> String {
        UPGRADE.lines().filter(|l| !l.starts_with(header)).map(|l| format!("{l}\r\n")).collect()
    };
    for (request, status, said) in [
        ("GET / HTTP/1.1\r\nHost: acme.test\r\n".into(), "426", "upgrade: websocket"),
        (without("Upgrade"), "426", "upgrade: websocket"),
        (UPGRADE.replace("Version: 13", "Version: 8"), "426", "sec-websocket-version: 13"),
        (UPGRADE.replace("GET / ", "GET /v2/accounts "), "404", "/ws"),
        (UPGRADE.replace("GET", "POST"), "405", "allow: get"),
        (without("Sec-WebSocket-Key"), "400", "sec-websocket-key"),
        (UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400", "sec-websocket-key"),
        (without("Sec-WebSocket-Protocol"), "400", "rfc 7118"),
        (UPGRADE.replace("chat, SIP", "chat"), "400", "rfc 7118"),
        (format!("{UPGRADE}X: {}\r\n", "x".repeat(20_000)), "431", ""),
        ("nonsense\r\n".into(), "400", ""),
        (options("SIP/2.0/WS h.invalid", 1), "400", ""),
    ] {
        let answer = ask(&house, &format!("{request}\r\n")).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{request}\n{answer}");
        assert!(answer.contains(said) && !answer.contains("sec-websocket-accept"), "{request}\n{answer}");
    }
}

#[test]
fn foreign_web_pages_are_turned_away_where_that_is_configured() {
    let from = |house: &House, origin: &str| {
        let mut stream = house.tcp("ws");
        stream.write_all(format!("{UPGRADE}{origin}\r\n").as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    };
    let anybody = house("");
    assert_eq!(from(&anybody, "Origin: https://elsewhere.test\r\n"), "HTTP/1.1 101");
    let ours = house("sip.ws_origins = [\"https://phone.acme.test\"]");
    assert_eq!(from(&ours, "Origin: https://elsewhere.test\r\n"), "HTTP/1.1 403");
    assert_eq!(from(&ours, "Origin: https://phone.acme.test\r\n"), "HTTP/1.1 101");
    assert_eq!(from(&ours, ""), "HTTP/1.1 101", "no browser");
}

#[test]
fn a_page_that_comes_back_refreshes_over_its_new_websocket_and_is_told_at_once() {
    let house = house("");
    let mut old = page(&house);
    let request = subscribe("WS df7jal23ls0d.invalid", CONTACT, "");
    old.send(request.clone());
    let answer = old.receive_start("SIP/2.0 200");
    let notify = old.receive_start("NOTIFY ");
    old.send(ok(&notify));
    old.0.close(None).unwrap();
    assert_eq!(old.0.read().unwrap(), Message::Close(None));
    assert_eq!(old.0.get_mut().read(&mut [0]).unwrap(), 0);
    // There is no route to the phone now: the NOTIFY fails, and the subscription is suspended until the phone returns
    // (rule 6).
    house.set("early");
    let to = answer.lines().find(|line| line.starts_with("To: ")).unwrap();
    let refresh = request.replace("To: <sip:1001@acme.test>", to).replace("CSeq: 1", "CSeq: 2").replace("bKs", "bKt");
    let mut new = page(&house);
    new.send(refresh);
    new.receive_start("SIP/2.0 200");
    let notify = new.receive_start("NOTIFY ");
    assert!(notify.contains("<state>early</state>"), "{notify}");
}

#[test]
fn a_websocket_is_asked_whether_it_is_there_and_closed_when_it_does_not_say_so() {
    // The server sends a ping after a third of the idle limit, or after half a minute.
    let house = house("[limits]\ntcp_idle_seconds = 1\n");
    let mut page = page(&house);
    // Reading replies to the ping.
    for _ in 0..3 {
        assert_eq!(page.0.read().unwrap(), Message::Ping(Default::default()));
        page.0.flush().unwrap();
    }
    // A client that does not read sends no reply.
    let mut octets = Vec::new();
    let silent = page.0.get_mut();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.read_to_end(&mut octets).unwrap();
    assert_eq!(octets, b"\x89\x00\x88\x02\x03\xe9", "a ping, then a Close that says: going away");
}

#[test]
fn the_limit_of_connections_counts_websockets() {
    let house = house("[limits]\ntcp_connections = 1\n");
    let mut page = page(&house);
    page.send(options("SIP/2.0/WS h.invalid", 1));
    page.receive_start("SIP/2.0 200");
    assert_eq!(Line::of(house.tcp("tcp")).receive(), None);
}

#[test]
fn a_request_that_never_ends_is_given_up() {
    let house = house("");
    let mut stream = house.tcp("ws");
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
}

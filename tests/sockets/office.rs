//! Loopback server of a test, and its clients.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lamplighter::config::Config;
use lamplighter::server::Server;
use lamplighter::sip::wire::{self, Frame, Framer, Name};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A server of the test, on both transports of one address family.
pub(crate) struct Office {
    pub(crate) address: SocketAddr,
    http: SocketAddr,
    server: Option<Server>,
}

impl Office {
    pub(crate) fn open(ip: &str, more: &str) -> Office {
        // One at a time, or two servers of this process might get the same free port.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let ip: IpAddr = ip.parse().unwrap();
        // Another process may take a port between here and the server's bind; then other ports are tried.
        for _ in 0..10 {
            let port = |_| TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
            let (address, http) = (port(0), port(1));
            let config = format!(
                "[sip]\nlisten = [\"udp://{address}\", \"tcp://{address}\"]\n[http]\nlisten = \"{http}\"\n\
                 [data]\ndurability = \"memory\"\n{more}\n[[token]]\nvalue = \"t\"\nsuperuser = true\n\
                 [[account]]\nid = \"a1\"\nname = \"Acme\"\nrealm = \"acme.test\"\n"
            );
            if let Ok(server) = Server::start(&Config::parse(&config, "office.toml").unwrap()) {
                return Office { address, http, server: Some(server) };
            }
        }
        panic!("no free ports");
    }

    pub(crate) fn connect(&self) -> Line {
        Line::of(TcpStream::connect(self.address).unwrap())
    }

    /// Sets the manual state of 1001, over HTTP as an operator would.
    pub(crate) fn set(&self, state: &str) {
        let body = format!("{{\"data\":{{\"action\":\"set\",\"state\":\"{state}\"}}}}");
        let mut http = TcpStream::connect(self.http).unwrap();
        write!(
            http,
            "POST /v2/accounts/a1/presence/1001 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// A TCP connection that reads messages.
pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    framer: Framer,
}

impl Line {
    pub(crate) fn of(stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Line { stream, framer: Framer::default() }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The next message; none when the peer has closed.
    pub(crate) fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(Frame::Message(bytes)) = self.framer.next_frame().unwrap() {
                return Some(String::from_utf8(bytes.to_vec()).unwrap());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).expect("something within the deadline") {
                0 => return None,
                length => self.framer.buffer().extend_from_slice(&chunk[..length]),
            }
        }
    }

    pub(crate) fn receive_start(&mut self, start: &str) -> String {
        let message = self.receive().expect("a message");
        assert!(message.starts_with(start), "expected {start}, got {message}");
        message
    }
}

pub(crate) fn phone(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn hear(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram within the deadline");
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}

pub(crate) fn options(via: &str, n: u32) -> String {
    format!(
        "OPTIONS sip:acme.test SIP/2.0\r\nVia: {via};branch=z9hG4bKo{n}\r\nFrom: <sip:p@acme.test>;tag=1\r\n\
         To: <sip:acme.test>\r\nCall-ID: o{n}\r\nCSeq: {n} OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

pub(crate) fn subscribe(transport: &str, local: SocketAddr, contact: SocketAddr) -> String {
    let parameter = if transport == "TCP" { ";transport=tcp" } else { "" };
    format!(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bKs;rport\r\n\
         From: <sip:1002@acme.test>;tag=p\r\nTo: <sip:1001@acme.test>\r\nCall-ID: s@{local}\r\nCSeq: 1 SUBSCRIBE\r\n\
         Contact: <sip:1002@{contact}{parameter}>\r\nEvent: dialog\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The 200 to a NOTIFY.
pub(crate) fn ok(notify: &str) -> String {
    let message = wire::read(notify.as_bytes()).unwrap().unwrap();
    assert!(message.first(Name::SubscriptionState).is_some(), "{notify}");
    let mut answer = b"SIP/2.0 200 OK\r\n".to_vec();
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
        for value in message.all(name) {
            answer.extend_from_slice(format!("{}: {value}\r\n", name.text()).as_bytes());
        }
    }
    answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    String::from_utf8(answer).unwrap()
}

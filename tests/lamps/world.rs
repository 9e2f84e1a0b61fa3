//! A real server of two accounts, phones and a publisher on loopback, and a reader of event streams.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use lamplighter::config::Config;
use lamplighter::server::Server;
use serde_json::Value;

use crate::ports;

pub(crate) const ACME: &str = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5";
pub(crate) const UMBRELLA: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) sip: SocketAddr,
    http: SocketAddr,
    /// In a lock, so that several threads may use the server.
    server: Mutex<Option<Server>>,
}

impl World {
    pub(crate) fn new(more: &str) -> World {
        World::with(more, "")
    }

    /// Starts a server with more keys of the server, and more of account Acme.
    pub(crate) fn with(more: &str, of_acme: &str) -> World {
        let [sip, http] = [ports::free(), ports::free()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let data = if more.contains("data = ") { "" } else { "data = { durability = \"memory\" }" };
        let config = format!(
            r#"
sip = {{ listen = ["udp://{sip}", "tcp://{sip}"] }}
http = {{ listen = "{http}" }}
{data}
{more}
[[token]]
value = "acme-token"
account = "{ACME}"
[[token]]
value = "root-token"
superuser = true
[[token]]
value = "umbrella-token"
account = "{UMBRELLA}"
[[account]]
id = "{ACME}"
realm = "acme.test"
  [[account.user]]
  id = "u1"
  username = "Alice"
  [[account.device]]
  id = "d1"
  owner_id = "u1"
  sip = {{ username = "1001" }}
  [[account.device]]
  id = "d2"
  sip = {{ username = "1002" }}
{of_acme}
[[account]]
id = "{UMBRELLA}"
realm = "umbrella.test"
"#
        );
        let server = Server::start(&Config::parse(&config, "lamps.toml").unwrap()).unwrap();
        World { sip, http, server: Mutex::new(Some(server)) }
    }

    /// Sends a request for account Acme with its token; returns status and body.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_as("acme-token", method, &format!("/v2/accounts/{ACME}/{path}"), body)
    }

    pub(crate) fn ask_as(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut text = String::new();
        self.open(token, method, path, "Connection: close\r\n", body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    /// Head and body of a response that is not JSON.
    pub(crate) fn text_as(&self, token: &str, path: &str, headers: &str) -> (String, String) {
        let mut text = String::new();
        let headers = format!("Connection: close\r\n{headers}");
        self.open(token, "GET", path, &headers, "").read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    pub(crate) fn data(&self, path: &str) -> Value {
        let (status, json) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{json}");
        json["data"].clone()
    }

    pub(crate) fn set(&self, extension: &str, state: &str) {
        let body = format!(r#"{{"data":{{"action":"set","state":"{state}"}}}}"#);
        assert_eq!(self.ask("POST", &format!("presence/{extension}"), &body).0, 200);
    }

    fn open(&self, token: &str, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        stream
    }

    /// Opens the event stream of account Acme.
    pub(crate) fn listen(&self, headers: &str) -> Events {
        let path = format!("/v2/accounts/{ACME}/lamp_events");
        let mut reader = BufReader::new(self.open("acme-token", "GET", &path, headers, ""));
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Events { reader, last_id: String::new() }
    }

    /// Stops the server, as SIGTERM does.
    pub(crate) fn stop(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.stop();
        }
    }

    /// Address of a dashboard page.
    pub(crate) fn page(&self, fragment: &str) -> String {
        format!("http://{}/{fragment}", self.http)
    }

    /// Repeats a request until the response is the awaited one.
    pub(crate) fn until<T>(&self, path: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let data = self.data(path);
            if let Some(found) = wanted(&data) {
                return found;
            }
            assert!(std::time::Instant::now() < deadline, "not in time: {data:#}");
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.get_mut().unwrap().take() {
            server.stop();
        }
    }
}

/// An event stream, as a browser reads it.
pub(crate) struct Events {
    reader: BufReader<TcpStream>,
    pub(crate) last_id: String,
}

impl Events {
    /// The next event: its name and data.
    pub(crate) fn next(&mut self) -> (String, Value) {
        let (mut name, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            assert_ne!(self.reader.read_line(&mut line).expect("an event in time"), 0, "the stream has ended");
            if let Some(id) = line.strip_prefix("id: ") {
                self.last_id = id.trim().to_owned();
            } else if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }

    pub(crate) fn next_named(&mut self, name: &str) -> Value {
        loop {
            match self.next() {
                (found, data) if found == name => return data,
                _ => {}
            }
        }
    }

    /// Reads until the lamp of an extension is in a state.
    pub(crate) fn until_lamp(&mut self, extension: &str, state: &str) -> Value {
        loop {
            let lamp = self.next_named("lamp");
            if lamp["extension"] == extension && lamp["state"] == state {
                return lamp;
            }
        }
    }
}

/// A phone or a publisher.
pub(crate) struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Phone {
    pub(crate) fn new(world: &World) -> Phone {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Phone { socket, server: world.sip }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    pub(crate) fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.server).unwrap();
    }

    pub(crate) fn hear(&self) -> String {
        let mut buffer = [0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("a datagram within the deadline");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    pub(crate) fn hear_start(&self, start: &str) -> String {
        let text = self.hear();
        assert!(text.starts_with(start), "expected {start}, got {text}");
        text
    }

    /// Subscribes to an extension, and answers the first NOTIFY.
    pub(crate) fn subscribe(&self, extension: &str, realm: &str) {
        self.send_subscribe(extension, realm);
        self.hear_start("SIP/2.0 200");
        self.answer(&self.hear_start("NOTIFY"), "200 OK");
    }

    pub(crate) fn send_subscribe(&self, extension: &str, realm: &str) {
        let local = self.socket.local_addr().unwrap();
        self.send(&format!(
            "SUBSCRIBE sip:{extension}@{realm} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKs{extension};rport\r\n\
             From: <sip:1002@{realm}>;tag=p\r\nTo: <sip:{extension}@{realm}>\r\nCall-ID: {extension}@{local}\r\n\
             CSeq: 1 SUBSCRIBE\r\nContact: <sip:1002@{local}>\r\nEvent: dialog\r\nExpires: 600\r\n\
             User-Agent: Yealink SIP-T46U 108.86\r\nContent-Length: 0\r\n\r\n"
        ));
    }

    pub(crate) fn answer(&self, notify: &str, status: &str) {
        let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let head: String = notify
            .split("\r\n\r\n")
            .next()
            .unwrap()
            .split("\r\n")
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}\r\n"))
            .collect();
        self.send(&format!("SIP/2.0 {status}\r\n{head}Content-Length: 0\r\n\r\n"));
    }

    /// Publishes one call of an extension, under a new entity-tag.
    pub(crate) fn publish(&self, n: u32, extension: &str, state: &str, more: &str) {
        let local = self.socket.local_addr().unwrap();
        let body = format!(
            "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='{n}' state='full' \
             entity='sip:{extension}@acme.test'><dialog id='c' call-id='c' direction='recipient'><state>{state}</state>\
             <remote><identity display='Carol'>sip:1003@acme.test</identity></remote>{more}</dialog></dialog-info>"
        );
        self.send(&format!(
            "PUBLISH sip:{extension}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKp{n};rport\r\n\
             From: <sip:pbx@acme.test>;tag=b\r\nTo: <sip:{extension}@acme.test>\r\nCall-ID: p{n}@{local}\r\n\
             CSeq: {n} PUBLISH\r\nEvent: dialog\r\nExpires: 600\r\nUser-Agent: pbx/1\r\n\
             Content-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        self.hear_start("SIP/2.0 200");
    }
}

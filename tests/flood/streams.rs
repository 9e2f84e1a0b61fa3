//! The worst that one address can do over streams: what it sends, over how many connections, as fast as it is taken.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::secure::NAME;
use crate::server::Server;

/// How long a write may take before it is looked whether the attack is over.
const WRITE_WITHIN: Duration = Duration::from_millis(100);
/// Octets written at once.
const CHUNK: usize = 64 * 1024;

/// One way to attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// CR LF CR LF without end.
    KeepAlives,
    /// Pings of WebSocket.
    Pings,
    /// WebSocket messages of nothing.
    Empty,
    /// An octet at a time, or frames of an octet, of messages that never end.
    Slivers,
    /// Messages that lack their last octet, on many connections.
    Halves,
    /// Requests whose answers are not read.
    Options,
    /// SUBSCRIBEs without credentials on many connections; their answers are not read.
    Subscribes,
    /// The same, but all that comes back is read.
    Read,
    /// What is no message.
    Garbage,
    /// Connections that are closed as soon as they are open.
    Storm,
}

impl Attack {
    /// What can be done over a transport.
    pub(crate) fn over(transport: &str) -> Vec<Attack> {
        use Attack::*;
        let all = [KeepAlives, Slivers, Halves, Options, Subscribes, Read, Garbage, Storm];
        let framed = [Pings, Empty].into_iter().filter(|_| is_framed(transport));
        all.into_iter().chain(framed).collect()
    }

    /// How many connections it takes.
    fn connections(self) -> usize {
        match self {
            Attack::Halves => 200,
            Attack::Subscribes | Attack::Read => 100,
            _ => 4,
        }
    }

    /// What is sent over one connection, again and again.
    fn chunk(self, transport: &str, connection: usize, round: usize) -> Vec<u8> {
        let request = |method: &str, n: usize| {
            format!(
                "{method} sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/TCP h.invalid;branch=z9hG4bKf{connection}r{round}n{n}\r\n\
                 From: <sip:1001@acme.test>;tag=f\r\nTo: <sip:1001@acme.test>\r\nCall-ID: {connection}-{round}-{n}\r\n\
                 CSeq: 1 {method}\r\nContact: <sip:f@h.invalid>\r\nEvent: dialog\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
            )
            .into_bytes()
        };
        let many = |method: &str| (0..CHUNK / 400).map(|n| request(method, n)).collect::<Vec<_>>();
        let messages = match self {
            Attack::KeepAlives => vec![b"\r\n\r\n".to_vec(); CHUNK / 4],
            Attack::Options => many("OPTIONS"),
            Attack::Subscribes | Attack::Read => many("SUBSCRIBE"),
            Attack::Garbage => vec![b"\0\x01 no message \xff\r\n\r\n".to_vec(); CHUNK / 20],
            Attack::Slivers if is_framed(transport) => {
                // The first begins a message, none of those after it ends it.
                return [frame(u8::from(round == 0), b"a"), frame(0x00, b"b").repeat(CHUNK / 7)].concat();
            }
            Attack::Slivers => return b"O".to_vec(),
            // One message, never its end, and then the connection is only held.
            Attack::Halves if round > 0 => return Vec::new(),
            Attack::Halves => {
                let body = "x".repeat(59_999);
                vec![format!("OPTIONS sip:a SIP/2.0\r\nContent-Length: 60000\r\n\r\n{body}").into_bytes()]
            }
            Attack::Pings => return [frame(0x89, b""), frame(0x89, &[b'p'; 125])].concat().repeat(CHUNK / 140),
            Attack::Empty => return frame(0x81, b"").repeat(CHUNK / 6),
            Attack::Storm => Vec::new(),
        };
        match is_framed(transport) {
            true => messages.iter().flat_map(|message| frame(0x82, message)).collect(),
            false => messages.concat(),
        }
    }

    /// One connection's part of it, until it is told to stop. Returns how many octets were taken.
    pub(crate) fn run(self, server: &Server, transport: &str, connection: usize, stop: &AtomicBool) -> usize {
        let mut taken = 0;
        // Made once: what it takes to make them would be taken from the server, too. None is made for others.
        let chunks = [0, 1].map(|round| self.chunk(transport, connection, round));
        while !stop.load(Ordering::Relaxed) {
            let Some(mut line) = connect(server, transport) else { continue };
            if self == Attack::Storm {
                continue;
            }
            let mut waste = [0; 16 * 1024];
            'line: for round in 0.. {
                let mut rest = &chunks[usize::min(round, 1)][..];
                loop {
                    if stop.load(Ordering::Relaxed) {
                        return taken;
                    }
                    if self == Attack::Read {
                        match line.read(&mut waste) {
                            Ok(0) => break 'line,
                            Ok(_) => {}
                            Err(error) if is_late(&error) => {}
                            Err(_) => break 'line,
                        }
                    }
                    if rest.is_empty() {
                        if self == Attack::Halves {
                            std::thread::sleep(WRITE_WITHIN);
                            continue;
                        }
                        break;
                    }
                    match line.write(rest) {
                        Ok(length) => {
                            taken += length;
                            rest = &rest[length..];
                        }
                        Err(error) if is_late(&error) => {}
                        Err(_) => break 'line,
                    }
                }
            }
        }
        taken
    }

    /// Runs all of it until `work`, which is done meanwhile, has ended. Returns what that returned and the octets taken.
    pub(crate) fn during<R>(self, server: &Server, transport: &str, work: impl FnOnce() -> R) -> (R, usize) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let attackers: Vec<_> = (0..self.connections())
                .map(|connection| {
                    scope.spawn({
                        let stop = &stop;
                        move || self.run(server, transport, connection, stop)
                    })
                })
                .collect();
            let over = Over(&stop);
            let result = work();
            drop(over);
            (result, attackers.into_iter().map(|attacker| attacker.join().unwrap()).sum())
        })
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_framed(transport: &str) -> bool {
    transport.starts_with("ws")
}

/// A frame as a client sends it (RFC 6455 section 5.2), under a mask that changes nothing. `first`: FIN and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

/// A connection that carries SIP; none if the server does not want another.
fn connect(server: &Server, transport: &str) -> Option<Box<dyn Line>> {
    let stream = TcpStream::connect(server.stream(transport)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_write_timeout(Some(WRITE_WITHIN)).unwrap();
    let control = stream.try_clone().ok()?;
    let mut line: Box<dyn Line> = match transport {
        "tls" | "wss" => {
            let name = ServerName::try_from(NAME).unwrap();
            let mut line = StreamOwned::new(ClientConnection::new(server.client().clone(), name).unwrap(), stream);
            while line.conn.is_handshaking() {
                line.conn.complete_io(&mut line.sock).ok()?;
            }
            Box::new(line)
        }
        _ => Box::new(stream),
    };
    if is_framed(transport) {
        let request = "GET / HTTP/1.1\r\nHost: acme.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Protocol: sip\r\n\r\n";
        line.write_all(request.as_bytes()).ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            line.read_exact(&mut octet).ok()?;
            head.push(octet[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }
    control.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    Some(line)
}

/// Says that an attack is over, be it because what was done meanwhile has panicked.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

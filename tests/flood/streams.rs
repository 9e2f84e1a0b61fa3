//! Worst-case attacks of one address over streams: their content, their number of connections, as fast as the server
//! reads.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::secure::NAME;
use crate::server::Server;

/// Time-out of a write, after which the thread checks whether the attack is over.
const WRITE_WITHIN: Duration = Duration::from_millis(100);
/// Octets written at once.
const CHUNK: usize = 64 * 1024;

/// Kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// CR LF CR LF without end.
    KeepAlives,
    /// WebSocket pings.
    Pings,
    /// Empty WebSocket messages.
    Empty,
    /// Messages that never end, one octet or one frame of one octet at a time.
    Slivers,
    /// Messages without their last octet, on many connections.
    Halves,
    /// Requests whose responses are not read.
    Options,
    /// SUBSCRIBEs without credentials on many connections; the responses are not read.
    Subscribes,
    /// The same, but all responses are read.
    Read,
    /// Octets that are no SIP message.
    Garbage,
    /// Connections that are closed as soon as they are open.
    Storm,
}

impl Attack {
    /// Attacks that are possible over a transport.
    pub(crate) fn over(transport: &str) -> Vec<Attack> {
        use Attack::*;
        let all = [KeepAlives, Slivers, Halves, Options, Subscribes, Read, Garbage, Storm];
        let framed = [Pings, Empty].into_iter().filter(|_| is_framed(transport));
        all.into_iter().chain(framed).collect()
    }

    /// Number of connections of the attack.
    fn connections(self) -> usize {
        match self {
            Attack::Halves => 200,
            Attack::Subscribes | Attack::Read => 100,
            _ => 4,
        }
    }

    /// Octets that one connection sends repeatedly.
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
                // The first frame begins a message, and no later frame ends it.
                return [frame(u8::from(round == 0), b"a"), frame(0x00, b"b").repeat(CHUNK / 7)].concat();
            }
            Attack::Slivers => return b"O".to_vec(),
            // One message without its end; after that the connection is only held open.
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

    /// Runs the attack on one connection until `stop` is set. Returns the number of octets written.
    pub(crate) fn run(self, server: &Server, transport: &str, connection: usize, stop: &AtomicBool) -> usize {
        let mut taken = 0;
        // Made once, because the work would take CPU time from the server too. The other attacks have no such octets.
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

    /// Runs the attack on all connections while `work` runs. Returns the result of `work` and the number of octets
    /// written.
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

/// A client's frame (RFC 6455 section 5.2) with a mask of zeros. `first`: FIN and opcode.
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

/// A connection that carries SIP; none if the server refuses another.
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

/// Ends an attack when it is dropped, even if the work has panicked.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

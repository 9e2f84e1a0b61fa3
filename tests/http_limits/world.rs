//! A real server of two accounts, and clients of its HTTP API that behave well or not.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lamplighter::config::Config;
use lamplighter::server::Server;
use serde_json::Value;

use crate::ports;

pub(crate) const ACME: &str = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5";
pub(crate) const UMBRELLA: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// Longest wait for something that must happen eventually.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a request that other clients must not delay. The promised time is a second, or two for a listing;
/// this leaves room for other load on the machine. Without the limits under test it took thirty seconds and more.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// One server at a time: each test holds many connections, and one measures memory.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) struct World {
    pub(crate) http: SocketAddr,
    pub(crate) sip: SocketAddr,
    server: Option<Server>,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Starts a server with further keys in its configuration.
    pub(crate) fn new(ip: &str, more: &str) -> World {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let ip: IpAddr = ip.parse().unwrap();
        let http = SocketAddr::new(ip, ports::free());
        let sip = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = format!(
            r#"
sip = {{ listen = ["udp://{sip}", "tcp://{sip}"] }}
http = {{ listen = "{http}" }}
data = {{ durability = "memory" }}
{more}
[[token]]
value = "acme-token"
account = "{ACME}"
[[token]]
value = "umbrella-token"
account = "{UMBRELLA}"
[[token]]
value = "root-token"
superuser = true
[[account]]
id = "{ACME}"
realm = "acme.test"
[[account]]
id = "{UMBRELLA}"
realm = "umbrella.test"
"#
        );
        let server = Server::start(&Config::parse(&config, "limits.toml").unwrap()).unwrap();
        World { http, sip, server: Some(server), _alone: alone }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request and does not read the response.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        // The server may refuse a body and close the connection; the response can be read nevertheless.
        let _ = write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n{body}");
        stream
    }

    /// Sends a request with an account's token; returns the response and the time it took. Status 0 if it did not come
    /// in time.
    pub(crate) fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = match token {
            "" => format!("Content-Length: {}\r\n", body.len()),
            token => format!("X-Auth-Token: {token}\r\nContent-Length: {}\r\n", body.len()),
        };
        let began = Instant::now();
        Answer::read(self.begin(method, path, &headers, body), began)
    }

    /// Checks that the health probes, the metrics and the other account are served at once.
    pub(crate) fn serves_others(&self, when: &str) {
        for (token, method, path) in [
            ("", "GET", "/readyz".to_owned()),
            ("", "GET", "/healthz".to_owned()),
            ("root-token", "GET", "/metrics".to_owned()),
            ("umbrella-token", "POST", format!("/v2/accounts/{UMBRELLA}/presence/2001")),
            ("umbrella-token", "GET", format!("/v2/accounts/{UMBRELLA}/presence")),
            ("umbrella-token", "GET", format!("/v2/accounts/{UMBRELLA}/lamps")),
        ] {
            self.ask(token, method, &path, "").is_served(&format!("{method} {path} {when}"));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl Answer {
    /// Reads until the server closes.
    fn read(mut stream: TcpStream, began: Instant) -> Answer {
        let (mut octets, mut piece) = (Vec::new(), [0; 65_536]);
        loop {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => octets.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&octets).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, text, took: began.elapsed() }
    }

    pub(crate) fn is_served(&self, what: &str) {
        let start: String = self.text.chars().take(2_000).collect();
        assert!(self.status == 200 && self.took < SOON, "{what}: {} after {:?}: {start}", self.status, self.took);
    }

    /// Checks for a refusal in the envelope that names the limit and has a Retry-After.
    pub(crate) fn is_refused_by(&self, key: &str) {
        assert_eq!(self.status, 503, "{}", self.text);
        let (head, body) = self.text.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains("\r\nretry-after: "), "{head}");
        let json: Value = serde_json::from_str(body).unwrap();
        let cause = json["data"]["cause"].as_str().unwrap();
        assert!(cause.contains(&format!("({key})")) && json["error"] == "503", "{json}");
    }
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Resident memory of this process (octets).
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1_024
}

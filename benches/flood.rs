//! Flood: garbage and valid-looking SUBSCRIBEs from thousands of addresses, as fast as one thread can send, while
//! known phones refresh and receive NOTIFYs. It prints what passed and the cost; there is no time limit that could
//! fail.
//!
//! `cargo bench --bench flood -- [SECONDS]`. Linux only: every address of 127.0.0.0/8 is this machine.
//!
//! `cargo bench --bench flood -- streams [SECONDS]` is the long form of tests/flood.rs. It runs each of its attacks
//! over each transport and both address families for this time (60 s by default), and prints the growth of memory, the
//! CPU cost, and the waiting time of a well-behaved phone. A further word (`tcp`, `wss`, `udp`, `ipv6`, `idle`)
//! selects some of them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lamplighter::sip::headers::param;
use lamplighter::sip::wire::{self, Name};
use md5::{Digest as _, Md5};

#[allow(clippy::unwrap_used, dead_code)] // what cannot go on ends the run, and the test uses the rest
#[path = "flood/streams.rs"]
mod long;
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../tests/flood/phone.rs"]
mod phone;
#[allow(clippy::unwrap_used)]
#[path = "../tests/secure/mod.rs"]
mod secure;
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../tests/flood/server.rs"]
mod server;
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../tests/flood/streams.rs"]
mod streams;

/// Number of known phones, each with its own address.
const PHONES: usize = 200;
/// Number of source addresses of the flood.
const FORGED: usize = 4_096;
/// Datagrams of the flood per second.
const RATE: u64 = 50_000;

struct Server {
    child: Child,
    sip: SocketAddr,
    http: SocketAddr,
}

impl Server {
    fn start() -> Server {
        let free = || TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let (sip, http) = (free(), free());
        let folder = std::env::temp_dir().join(format!("lamplighter-flood-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let devices: String = (0..PHONES)
            .map(|n| {
                format!(
                    "[[account.device]]\nid = \"d{n}\"\nsip = {{ username = \"{}\", password = \"p\" }}\n",
                    1000 + n
                )
            })
            .collect();
        let config = format!(
            "[sip]\nlisten = [\"udp://{sip}\"]\n[http]\nlisten = \"{http}\"\n[data]\ndurability = \"memory\"\n\
             [access]\nauthenticate = \"digest\"\ntrusted_proxies = []\n[[token]]\nvalue = \"t\"\nsuperuser = true\n\
             [[account]]\nid = \"a\"\nname = \"Acme\"\nrealm = \"acme.test\"\n{devices}"
        );
        std::fs::write(folder.join("c.toml"), config).expect("the configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
        command.args(["serve", "--config"]).arg(folder.join("c.toml")).stdout(Stdio::null());
        let child = command.spawn().expect("the server");
        while TcpStream::connect(http).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Server { child, sip, http }
    }

    fn set(&self, user: usize, state: &str) {
        let body = format!("{{\"data\":{{\"action\":\"set\",\"state\":\"{state}\"}}}}");
        let mut stream = TcpStream::connect(self.http).expect("the API");
        let head = format!("POST /v2/accounts/a/presence/{user} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\n");
        let rest = format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all((head + &rest).as_bytes()).expect("the API");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Resident memory in KiB, and CPU seconds so far.
    fn cost(&self) -> (u64, f64) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("/proc");
        let rss = read("status").lines().find_map(|l| l.strip_prefix("VmRSS:").map(str::to_owned)).expect("VmRSS");
        let rss = rss.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        let stat = read("stat");
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split(' ')
            .skip(12)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok())
            .sum();
        (rss, ticks as f64 / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A phone that refreshes without pause and answers the requests it receives.
struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    user: usize,
    to_tag: String,
    nonce: String,
    count: u32,
    cseq: u32,
    notified: HashMap<u32, String>,
}

#[derive(Default)]
struct Tally {
    requests: u64,
    repeated: u64,
    lost: u64,
    notified: u64,
}

impl Phone {
    fn new(n: usize, server: SocketAddr) -> Phone {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, n as u8), 0)).expect("an address");
        Phone {
            socket,
            server,
            user: 1000 + n,
            to_tag: String::new(),
            nonce: String::new(),
            count: 0,
            cseq: 0,
            notified: HashMap::new(),
        }
    }

    fn request(&mut self) -> String {
        self.cseq += 1;
        self.count += 1;
        let (user, local, cseq) = (self.user, self.socket.local_addr().expect("bound"), self.cseq);
        let tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let uri = "sip:1000@acme.test";
        let proof = match self.nonce.as_str() {
            "" => String::new(),
            nonce => {
                let (a1, a2) = (md5(&format!("{user}:acme.test:p")), md5(&format!("SUBSCRIBE:{uri}")));
                let count = format!("{:08x}", self.count);
                let response = md5(&format!("{a1}:{nonce}:{count}:c:auth:{a2}"));
                format!(
                    "Authorization: Digest username=\"{user}\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"{uri}\", \
                     response=\"{response}\", algorithm=MD5, qop=auth, nc={count}, cnonce=\"c\"\r\n"
                )
            }
        };
        format!(
            "SUBSCRIBE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{user}x{cseq};rport\r\n{proof}\
             From: <sip:{user}@acme.test>;tag=p\r\nTo: <{uri}>{tag}\r\nCall-ID: c{user}\r\nCSeq: {cseq} SUBSCRIBE\r\n\
             Contact: <sip:{user}@{local}>\r\nEvent: dialog\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Sends one SUBSCRIBE, and retransmits it by RFC 3261 until it is answered.
    fn ask(&mut self, tally: &mut Tally) -> u16 {
        let request = self.request();
        tally.requests += 1;
        let mut wait = Duration::from_millis(500);
        for copy in 0..7 {
            tally.repeated += u64::from(copy > 0);
            self.socket.send_to(request.as_bytes(), self.server).expect("sent");
            if let Some(status) = self.hear_until(Instant::now() + wait, tally) {
                return status;
            }
            wait = (wait * 2).min(Duration::from_secs(4));
        }
        tally.lost += 1;
        0
    }

    /// Answers NOTIFYs until the response to the latest request arrives.
    fn hear_until(&mut self, deadline: Instant, tally: &mut Tally) -> Option<u16> {
        let mut buffer = [0; 8_192];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).expect("a time-out");
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let Ok(Some(message)) = wire::read(&buffer[..length]) else { continue };
            match message.status() {
                Some(status) if message.cseq.number == self.cseq => {
                    if status == 401 {
                        let text = String::from_utf8_lossy(&buffer[..length]);
                        self.nonce = text.split("nonce=\"").nth(1)?.split('"').next()?.to_string();
                        self.count = 0;
                    } else if self.to_tag.is_empty() {
                        self.to_tag = param(message.to.params, "tag").unwrap_or_default().to_string();
                    }
                    return Some(status);
                }
                Some(_) => {}
                None => {
                    let mut answer = b"SIP/2.0 200 OK\r\n".to_vec();
                    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
                        for value in message.all(name) {
                            answer.extend_from_slice(format!("{}: {value}\r\n", name.text()).as_bytes());
                        }
                    }
                    answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
                    let state = String::from_utf8_lossy(message.body).split("<state>").nth(1).map(str::to_owned);
                    let state = state.unwrap_or_default().split('<').next().unwrap_or_default().to_string();
                    tally.notified += u64::from(self.notified.insert(message.cseq.number, state).is_none());
                    self.socket.send_to(&answer, self.server).expect("sent");
                }
            }
        }
    }

    fn settle(&mut self) {
        let mut tally = Tally::default();
        assert_eq!(self.ask(&mut tally), 401);
        assert_eq!(self.ask(&mut tally), 200);
        self.hear_until(Instant::now() + Duration::from_millis(50), &mut tally);
    }
}

/// Sends until `stop` is set; counts the messages.
fn flood(server: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let sockets: Vec<_> = (0..FORGED)
        .map(|n| UdpSocket::bind((Ipv4Addr::new(127, 7, (n / 250) as u8, (n % 250 + 1) as u8), 0)).expect("an address"))
        .collect();
    let began = Instant::now();
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if count >= RATE * began.elapsed().as_millis() as u64 / 1_000 {
            std::thread::yield_now();
            continue;
        }
        let socket = &sockets[(count.wrapping_mul(2_654_435_761) % FORGED as u64) as usize];
        let message = match count % 2 {
            0 => format!("{count} is no SIP at all, but takes a place in the queue all the same\r\n\r\n"),
            _ => format!(
                "SUBSCRIBE sip:1000@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bKf{count};rport\r\n\
                 From: <sip:{count}@acme.test>;tag=f\r\nTo: <sip:1000@acme.test>\r\nCall-ID: f{count}\r\n\
                 CSeq: 1 SUBSCRIBE\r\nContact: <sip:f@x>\r\nEvent: dialog\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
            ),
        };
        // A full send queue of this socket is part of the flood.
        let _ = socket.send_to(message.as_bytes(), server);
        count += 1;
        sent.store(count, Ordering::Relaxed);
    }
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let seconds = words.iter().filter_map(|word| word.parse().ok()).next();
    if words.iter().any(|word| word == "streams") {
        return long::run(Duration::from_secs(seconds.unwrap_or(60)), &words);
    }
    let seconds = seconds.unwrap_or(10);
    let server = Server::start();
    let mut phones: Vec<_> = (1..=PHONES.min(250)).map(|n| Phone::new(n - 1, server.sip)).collect();
    phones.iter_mut().for_each(Phone::settle);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let before = server.cost();
    let attacker = {
        let (stop, sent, sip) = (Arc::clone(&stop), Arc::clone(&sent), server.sip);
        std::thread::spawn(move || flood(sip, &stop, &sent))
    };
    let mut tally = Tally::default();
    let mut changes = 0u64;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        server.set(1000, if changes.is_multiple_of(2) { "early" } else { "confirmed" });
        changes += 1;
        for phone in &mut phones {
            phone.ask(&mut tally);
        }
    }
    let flooded = sent.load(Ordering::Relaxed);
    let after = server.cost();
    // A correct lamp shows the state that was set last, once all phones have received it.
    server.set(1000, "early");
    let mut wrong = 0;
    for phone in &mut phones {
        let settled = Instant::now() + Duration::from_secs(20);
        let right = |phone: &Phone| {
            phone.notified.iter().max_by_key(|(cseq, _)| **cseq).is_some_and(|(_, state)| state == "early")
        };
        while !right(phone) && Instant::now() < settled {
            phone.hear_until(Instant::now() + Duration::from_millis(20), &mut tally);
        }
        wrong += usize::from(!right(phone));
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().expect("the flood ends");
    println!("flood          {:>10} datagrams, {}/s from {FORGED} addresses", flooded, flooded / seconds);
    println!(
        "refreshes      {:>10}, {} repeated ({:.2} %), {} lost for good",
        tally.requests,
        tally.repeated,
        tally.repeated as f64 * 100.0 / tally.requests as f64,
        tally.lost
    );
    println!(
        "NOTIFYs        {:>10} to {} phones after {changes} changes, {wrong} wrong lamps in the end",
        tally.notified,
        phones.len()
    );
    println!("server         {:>10} KiB before, {} KiB after, {:.2} CPU s", before.0, after.0, after.1 - before.1);
}

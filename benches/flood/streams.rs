//! The long form of tests/flood.rs.

use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::phone::Phone;
use crate::server::{STREAMS, Server};
use crate::streams::{Attack, Over};

const GUARDED: &str = "data.durability = \"strict\"\n[access]\nauthenticate = \"digest\"\ntrusted_proxies = []\n";
const TRUSTED: &str = "data.durability = \"strict\"\n[access]\ntrusted_proxies = [\"127.0.0.0/8\", \"::1/128\"]\n\
                       [limits]\ntcp_connections = 30000\n";
/// Number of idle connections, in the attack that opens them. Server and client need a file descriptor for each, and
/// some more (`ulimit -n`).
const IDLE: usize = 19_500;
/// Interval between the phone's requests: without a pause they would be a load of their own.
const APART: Duration = Duration::from_millis(5);

/// Measurements during a flood.
struct Seen {
    /// Resident memory (KiB).
    rss: u64,
    waits: Vec<Duration>,
    unanswered: usize,
}

fn watch(server: &Server, phone: &mut Phone, lasts: Duration) -> Seen {
    let mut seen = Seen { rss: 0, waits: Vec::new(), unanswered: 0 };
    let deadline = Instant::now() + lasts;
    while Instant::now() < deadline {
        match phone.refresh() {
            Some(wait) => seen.waits.push(wait),
            None => seen.unanswered += 1,
        }
        phone.hear_until(Instant::now() + APART);
        seen.rss = seen.rss.max(server.cost().rss);
    }
    seen
}

/// Measures one flood, against its own server.
fn measure(name: &str, ip: &str, config: &str, lasts: Duration, flood: impl FnOnce(&Server, &mut dyn FnMut())) {
    let server = Server::start(ip.parse().expect("an address"), config);
    let mut phone = Phone::settled(server.udp());
    let before = server.cost();
    let mut seen = None;
    flood(&server, &mut || seen = Some(watch(&server, &mut phone, lasts)));
    let Some(mut seen) = seen else { return println!("{name:<28} was not made") };
    let cpu = server.cost().cpu.saturating_sub(before.cpu).as_secs_f64() / lasts.as_secs_f64();
    seen.waits.sort_unstable();
    let at = |share: f64| seen.waits.get((seen.waits.len() as f64 * share) as usize).map_or(f64::NAN, ms);
    println!(
        "{name:<28} {:>7.1} MiB more, phone p50 {:>7.2} p99 {:>7.2} max {:>8.2} ms of {:>6}, {} unanswered; {cpu:.2} cores",
        seen.rss.saturating_sub(before.rss) as f64 / 1024.0,
        at(0.5),
        at(0.99),
        seen.waits.last().map_or(f64::NAN, ms),
        seen.waits.len(),
        seen.unanswered,
    );
}

fn ms(time: &Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

pub(crate) fn run(lasts: Duration, words: &[String]) {
    let all = ["tcp", "tls", "ws", "wss", "udp", "ipv6", "idle"];
    let picked = |what: &str| words.iter().any(|word| word == what) || !words.iter().any(|word| all.contains(&&**word));
    let families = [("ipv4", "127.0.0.1"), ("ipv6", "::1")];
    for (family, ip) in families.into_iter().filter(|(family, _)| *family == "ipv4" || picked("ipv6")) {
        for transport in STREAMS.into_iter().filter(|transport| picked(transport)) {
            for attack in Attack::over(transport) {
                let name = format!("{family} {transport} {attack:?}");
                measure(&name, ip, GUARDED, lasts, |server, watch| {
                    attack.during(server, transport, watch);
                });
            }
        }
        if picked("udp") {
            measure(&format!("{family} udp OPTIONS, trusted"), ip, TRUSTED, lasts, |server, watch| {
                options(server, watch)
            });
        }
    }
    if picked("idle") {
        measure("19,500 idle connections", "127.0.0.1", TRUSTED, lasts, |server, watch| {
            let held: Vec<_> = (0..IDLE).map_while(|_| TcpStream::connect(server.stream("tcp")).ok()).collect();
            println!("{} connections are open", held.len());
            Attack::Options.during(server, "tcp", watch);
        });
    }
}

/// Sends OPTIONS over UDP as fast as one thread can.
fn options(server: &Server, watch: &mut dyn FnMut()) {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let socket = UdpSocket::bind((server.udp().ip(), 0)).expect("a socket");
            while !stop.load(Ordering::Relaxed) {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                let request = format!(
                    "OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h.invalid;branch=z9hG4bKf{n};rport\r\n\
                     From: <sip:f@acme.test>;tag=f\r\nTo: <sip:acme.test>\r\nCall-ID: {n}\r\nCSeq: 1 OPTIONS\r\n\
                     Content-Length: 0\r\n\r\n"
                );
                // A full send queue is part of the flood.
                let _ = socket.send_to(request.as_bytes(), server.udp());
            }
        });
        let _over = Over(&stop);
        watch();
    });
    println!("{} OPTIONS were sent", sent.load(Ordering::Relaxed));
}

//! What the core spends on SUBSCRIBE -> 200 -> NOTIFY -> 200, on a refresh and on the end: no sockets, no journal.
//!
//! `cargo bench --bench cycle -- [SUBSCRIPTIONS [RUNS]] [listened]` prints CPU nanoseconds for each, the median of all runs; `listened`:
//! while somebody reads a live stream, what has changed being taken as often as its pump does under 20,000 cycles a second. For
//! instructions by function: `valgrind --tool=callgrind BINARY 5000 1`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use lamplighter::config::Config;
use lamplighter::directory::Directory;
use lamplighter::notifier::{Notifier, Outbox, Settings};
use lamplighter::presence::Tick;
use lamplighter::sip::Transport;
use lamplighter::transport::{Listener, ListenerNo, Source};

/// Cycles between two looks of the pump.
const LOOK: usize = 1_000;
/// Watchers of each extension.
const WATCHERS: usize = 10;

struct Bench {
    notifier: Notifier,
    now: u64,
    request: String,
    reply: String,
    out: Outbox,
}

fn source(i: usize) -> Source {
    let port = 20_000 + (i % 4) as u16;
    let peer = SocketAddr::from(([127, 0, 0, 1], port));
    Source { transport: Transport::Udp, listener: ListenerNo(0), peer, flow: None, certified: false }
}

/// The value of a header that we write ourselves.
fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let at = message.find(name).expect("the header") + name.len();
    message[at..].split("\r\n").next().expect("its line")
}

impl Bench {
    fn new() -> Bench {
        let config =
            "[access]\ntrusted = [\"127.0.0.0/8\"]\n[[account]]\nid = \"a\"\nname = \"A\"\nrealm = \"acme.test\"\n";
        let mut config = Config::parse(config, "bench.toml").expect("the configuration");
        config.data.durability = lamplighter::config::Durability::Memory;
        let directory = Arc::new(Directory::new(&config));
        let listener = Listener {
            transport: Transport::Udp,
            address: SocketAddr::from(([127, 0, 0, 1], 5060)),
            sent_by: "127.0.0.1:5060".into(),
        };
        let notifier = Notifier::new(Settings::of(&config, directory, vec![listener], [7; 16]));
        Bench { notifier, now: 1_000, request: String::new(), reply: String::new(), out: Outbox::default() }
    }

    /// One SUBSCRIBE with all that it brings; gives our tag.
    fn subscribe(&mut self, i: usize, cseq: u32, tag: Option<&str>, expires: u32) -> String {
        if i.is_multiple_of(LOOK) {
            self.notifier.changes();
        }
        let Bench { notifier, request, reply, out, .. } = self;
        let (user, port) = (i / WATCHERS, 20_000 + i % 4);
        let to_tag = tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        request.clear();
        let _ = write!(
            request,
            "SUBSCRIBE sip:{user}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{i:x}x{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:w{i}@acme.test>;tag=f{i:x}\r\nTo: <sip:{user}@acme.test>{to_tag}\r\n\
             Call-ID: cycle-{i:08x}@127.0.0.1\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <sip:w{i}@127.0.0.1:{port}>\r\n\
             Event: dialog\r\nAccept: application/dialog-info+xml\r\nExpires: {expires}\r\nUser-Agent: bench/1.0\r\n\
             Content-Length: 0\r\n\r\n"
        );
        notifier.receive(Tick(self.now), source(i), request.as_bytes(), out);
        assert_eq!(out.messages.len(), 2, "an answer and a NOTIFY");
        let answer = std::str::from_utf8(&out.messages[0].bytes).expect("text");
        assert!(answer.starts_with("SIP/2.0 200 "), "{answer}");
        let ours = header(answer, "\r\nTo: ").rsplit_once(";tag=").expect("our tag").1.to_string();
        let notify = std::str::from_utf8(&out.messages[1].bytes).expect("text");
        reply.clear();
        reply.push_str("SIP/2.0 200 OK\r\n");
        for name in ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "] {
            let _ = write!(reply, "{name}{}\r\n", header(notify, &format!("\r\n{name}")));
        }
        reply.push_str("Content-Length: 0\r\n\r\n");
        out.messages.clear();
        notifier.receive(Tick(self.now), source(i), reply.as_bytes(), out);
        assert!(out.messages.is_empty());
        ours
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (subscriptions, runs) = (*numbers.first().unwrap_or(&50_000), *numbers.get(1).unwrap_or(&5));
    let listened = std::env::args().any(|argument| argument == "listened");
    let mut figures: [Vec<u128>; 3] = Default::default();
    for _ in 0..runs {
        let mut bench = Bench::new();
        bench.notifier.listen(listened);
        let mut tags = Vec::with_capacity(subscriptions);
        let time = |figures: &mut Vec<u128>, work: &mut dyn FnMut()| {
            let begun = Instant::now();
            work();
            figures.push(begun.elapsed().as_nanos() / subscriptions as u128);
        };
        time(&mut figures[0], &mut || (0..subscriptions).for_each(|i| tags.push(bench.subscribe(i, 1, None, 3_600))));
        bench.now += 40_000;
        time(&mut figures[1], &mut || {
            (0..subscriptions).for_each(|i| _ = bench.subscribe(i, 2, Some(&tags[i]), 3_600))
        });
        bench.now += 40_000;
        time(&mut figures[2], &mut || (0..subscriptions).for_each(|i| _ = bench.subscribe(i, 3, Some(&tags[i]), 0)));
        assert_eq!(bench.notifier.subscriptions(), 0);
    }
    println!("{subscriptions} subscriptions, median of {runs}, the client's part (about 1 us) included:");
    for (name, figures) in ["subscribe", "refresh", "unsubscribe"].iter().zip(&mut figures) {
        figures.sort_unstable();
        println!("{name:12} {:6} ns (least {})", figures[figures.len() / 2], figures[0]);
    }
}

//! Cost of the parts: `cargo bench --bench parts`. It prints nanoseconds for each, and the ratio to one pass over
//! every octet of a SUBSCRIBE, which no parser can avoid. There is no time limit that could fail.
//!
//! Then it prints the cost of the most expensive known messages of 62 kB, one for each kind of list. `CPU/octet` is
//! the constant in "the cost of input is linear" (`tests/cost.rs` checks that it is linear). No message may take more
//! than a millisecond.
//!
//! Other benches measure the journal (`journal`), the core as a whole (`cycle`), and table and timers as the number of
//! subscriptions grows (`flat`).

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[path = "../tests/cost/inputs.rs"]
mod inputs;

use inputs::{KINDS, Target};
use lamplighter::package::{self, dialog_info};
use lamplighter::sip::StatusCode;
use lamplighter::sip::digest::{Algorithm, Credentials, Verifier, challenge};
use lamplighter::sip::wire::{self, Writer};

/// Duration of a run, and number of runs; the median counts.
const SPAN: Duration = Duration::from_millis(100);
const RUNS: usize = 5;
/// Number of times that each expensive message is sent; the shortest time counts.
const LEAST_OF: usize = 20;

const BODY: &str = "<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"7\" \
    state=\"full\" entity=\"sip:1001@acme.test\">\n<dialog id=\"a84b4c76e66710\" call-id=\"a84b4c76e66710@pbx\" \
    local-tag=\"l\" remote-tag=\"r\" direction=\"recipient\"><state>early</state><remote><identity>sip:2002@acme.test\
    </identity><target uri=\"sip:2002@acme.test\"/></remote><local><identity>sip:1001@acme.test</identity>\
    <target uri=\"sip:1001@acme.test\"/></local></dialog>\n</dialog-info>\n";

fn subscribe(n: usize, cseq: u32, tag: &str) -> String {
    format!(
        "SUBSCRIBE sip:{}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:4000;branch=z9hG4bK{n}x{cseq};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:w{n}@acme.test>;tag=f{n}\r\nTo: <sip:{}@acme.test>{tag}\r\nCall-ID: parts-{n}\r\n\
         CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:w{n}@127.0.0.1:4000>\r\nEvent: dialog\r\n\
         Accept: application/dialog-info+xml\r\nExpires: 3600\r\nUser-Agent: parts\r\nContent-Length: 0\r\n\r\n",
        n / 10,
        n / 10
    )
}

/// Time that `work` takes (ns).
fn time(mut work: impl FnMut()) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (began, mut count) = (Instant::now(), 0u64);
            while began.elapsed() < SPAN {
                (0..64).for_each(|_| work());
                count += 64;
            }
            began.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

fn main() {
    let message = subscribe(12_345, 1, "");
    let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
    let baseline = time(|| _ = black_box(black_box(message.as_bytes()).iter().fold(0u8, |a, b| a ^ b.rotate_left(1))));
    let show = |name: &str, ns: f64| println!("{name:<52} {ns:>9.0} ns {:>8.1} x", ns / baseline);
    show("look at every octet of a SUBSCRIBE", baseline);

    show("read a SUBSCRIBE", time(|| drop(black_box(wire::read(black_box(message.as_bytes()))))));
    let request = wire::read(message.as_bytes()).ok().flatten().expect("a message");
    let mut out = Vec::new();
    let answer = |out: &mut Vec<u8>| {
        out.clear();
        wire::reply(out, &StatusCode::OK, "OK", &request.head, peer, Some(&"tag")).end();
    };
    show("write the answer to a SUBSCRIBE", time(|| answer(black_box(&mut out))));
    show("read that answer", time(|| drop(black_box(wire::read(black_box(&out))))));
    let mut written = Vec::new();
    let write = |written: &mut Vec<u8>| {
        written.clear();
        let mut writer = Writer::request(written, "NOTIFY", "sip:w@127.0.0.1:4000");
        for (name, value) in [("Via", "SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1;rport"), ("Call-ID", "parts-1")] {
            writer.header(name, value);
        }
        writer.header("From", "<sip:1001@acme.test>;tag=b").header("To", "<sip:w@acme.test>;tag=a");
        writer.header("CSeq", (7u32, " NOTIFY")).header("Event", "dialog");
        writer.header("Subscription-State", ("active;expires=", 3_600u32));
        writer.body("application/dialog-info+xml", &[BODY.as_bytes()]);
    };
    show("write a NOTIFY around its body", time(|| write(black_box(&mut written))));

    let package = package::get(package::by_name(dialog_info::NAME).expect("the package"));
    show("read a dialog-info document", time(|| drop(black_box(package.read(black_box(BODY.as_bytes()))))));
    let mut document = String::new();
    let head = |document: &mut String| {
        document.clear();
        package.write_head(7, "sip:1001@acme.test", document);
    };
    show("write a watcher's own part of a document", time(|| head(black_box(&mut document))));

    for algorithm in Algorithm::ALL {
        let nonce = "0123456789abcdef0123456789abcdef";
        let credentials = format!(
            "Digest username=\"p1\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"sip:e1@acme.test\", algorithm={}, \
             qop=auth, nc=00000001, cnonce=\"c\", response=\"00\"",
            algorithm.name()
        );
        let verifier = Verifier::new("p1", "acme.test", "a password");
        let check = || Credentials::read(&credentials).is_some_and(|c| c.prove(black_box(&verifier), "SUBSCRIBE"));
        show(&format!("check a proof, {}", algorithm.name()), time(|| _ = black_box(check())));
        let ask = || drop(black_box(challenge(algorithm, "acme.test", black_box(nonce), false)));
        show(&format!("write a challenge, {}", algorithm.name()), time(ask));
    }

    println!("\nmessages of 62 kB, the least of {LEAST_OF}");
    for (name, fill) in KINDS {
        let (mut target, filling) = (Target::new(), fill(62_000));
        let once = |target: &mut Target| {
            let began = Instant::now();
            let octets = target.send(&filling);
            (began.elapsed(), octets)
        };
        let (took, octets) = (0..LEAST_OF).map(|_| once(&mut target)).min().unwrap_or_default();
        let (us, each) = (took.as_secs_f64() * 1e6, took.as_secs_f64() * 1e9 / octets.max(1) as f64);
        println!("{name:<52} {us:>9.0} us {each:>8.1} ns/octet");
    }
}

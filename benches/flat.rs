//! Cost of each operation as the number of subscriptions grows: `cargo bench --bench flat -- [FEW [MANY]]`.
//!
//! The core alone, without sockets and journal; the phones' part is not counted. Each figure is CPU time of the thread
//! for one operation, as the median of the rounds. Each operation of a round is on another extension, in an order that
//! caches cannot predict. Rounds of both sizes take turns, and `times` is the median of the ratios of each pair. The
//! steps are the same at both sizes, so the remaining growth is cache misses.

mod office;

use lamplighter::directory::AccountNo;
use lamplighter::notifier::Outbox;
use lamplighter::presence::Tick;
use office::{Office, WATCHERS, cpu_time, reply, subscribe, tag_of};

/// Operations in a round, each on another extension, and number of rounds. With twice as many, subscriptions that are
/// not refreshed would expire.
const ROUND: usize = 100;
const ROUNDS: usize = 27;
/// Granted lifetime of all subscriptions (seconds), and of those that are to expire.
const LONG: u32 = 3_600;
const SHORT: u32 = 60;

const OPERATIONS: [&str; 7] = [
    "refresh",
    "publish, told to 10",
    "explain an extension",
    "reset, told to 10",
    "unsubscribe",
    "subscribe",
    "expire",
];

struct Bench {
    office: Office,
    tags: Vec<String>,
    cseq: Vec<u32>,
    extensions: usize,
    walk: usize,
}

impl Bench {
    fn new(subscriptions: usize) -> Bench {
        let extensions = subscriptions / WATCHERS;
        let mut bench =
            Bench { office: Office::new(), tags: Vec::new(), cseq: vec![1; subscriptions], extensions, walk: 0 };
        let mut text = String::new();
        for i in 0..subscriptions {
            subscribe(&mut text, i, 1, None, LONG);
            bench.office.hear(i, text.as_bytes());
            bench.tags.push(tag_of(&bench.office.out.messages[0].bytes));
            bench.answer_all();
            if i % 400_000 == 399_999 {
                eprintln!("{} of {subscriptions} subscriptions", i + 1);
            }
        }
        bench.pass(40_000);
        bench
    }

    /// Next extension, in a walk that visits each once.
    fn next(&mut self) -> usize {
        self.walk = (self.walk + 61_799) % self.extensions;
        self.walk
    }

    /// Advances the clock in steps, as the server does.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.office.now += 50;
            let now = Tick(self.office.now);
            self.office.notifier.pass_time(now, &mut self.office.out);
        }
    }

    /// Answers all NOTIFYs in the outbox; returns the cost of processing the responses (ns).
    fn answer_all(&mut self) -> u128 {
        let mut replies = Vec::new();
        for packet in self.office.out.messages.drain(..).filter(|packet| packet.bytes.starts_with(b"NOTIFY ")) {
            let mut text = String::new();
            reply(&mut text, &packet.bytes);
            replies.push(text);
        }
        let began = cpu_time();
        self.office.hear_all(replies.iter().map(|text| (0, text.as_str())));
        (cpu_time() - began).as_nanos()
    }

    /// A round of SUBSCRIBEs, which are written before the measurement; returns the cost (ns).
    fn subscribe_round(&mut self, anew: bool, expires: u32) -> u128 {
        let phones: Vec<usize> = (0..ROUND).map(|n| self.next() * WATCHERS + n % WATCHERS).collect();
        let requests: Vec<String> = phones.iter().map(|i| self.request(*i, anew, expires)).collect();
        let began = cpu_time();
        self.office.hear_all(phones.iter().copied().zip(requests.iter().map(String::as_str)));
        let took = (cpu_time() - began).as_nanos();
        assert_eq!(self.office.out.messages.len(), 2 * ROUND, "an answer and a NOTIFY each");
        if anew {
            for (i, packet) in phones.iter().zip(self.office.out.messages.iter().step_by(2)) {
                self.tags[*i] = tag_of(&packet.bytes);
            }
        }
        took + self.answer_all()
    }

    fn request(&mut self, i: usize, anew: bool, expires: u32) -> String {
        let mut text = String::new();
        self.cseq[i] += 1;
        subscribe(&mut text, i, self.cseq[i], Some(&self.tags[i]).filter(|_| !anew).map(String::as_str), expires);
        text
    }

    fn publish_round(&mut self) -> u128 {
        let (now, walk) = (self.office.now, self.walk);
        let requests: Vec<String> = (0..ROUND).map(|_| publish(self.next(), now)).collect();
        let began = cpu_time();
        self.office.hear_all(requests.iter().map(|text| (0, text.as_str())));
        let took = (cpu_time() - began).as_nanos();
        assert_eq!(self.office.out.messages.len(), (1 + WATCHERS) * ROUND);
        // The resets of the same round use the same extensions.
        self.walk = walk;
        took + self.answer_all()
    }

    fn explain_round(&mut self) -> u128 {
        let users: Vec<String> = (0..ROUND).map(|_| self.next().to_string()).collect();
        let began = cpu_time();
        for user in &users {
            let story = self.office.notifier.lamp_story(Tick(self.office.now), AccountNo(0), user);
            assert!(std::hint::black_box(story).is_some());
        }
        (cpu_time() - began).as_nanos()
    }

    fn reset_round(&mut self) -> u128 {
        let users: Vec<String> = (0..ROUND).map(|_| self.next().to_string()).collect();
        let began = cpu_time();
        for user in &users {
            self.office.notifier.reset(Tick(self.office.now), AccountNo(0), user, &mut self.office.out);
        }
        let took = (cpu_time() - began).as_nanos();
        assert_eq!(self.office.out.messages.len(), WATCHERS * ROUND);
        took + self.answer_all()
    }

    /// One round of every operation; returns nanoseconds per operation.
    fn round(&mut self) -> [u128; OPERATIONS.len()] {
        let refresh = self.subscribe_round(false, LONG);
        let publish = self.publish_round();
        let walk = self.walk;
        let explain = self.explain_round();
        self.walk = walk;
        let reset = self.reset_round();
        self.walk = walk;
        let unsubscribe = self.subscribe_round(false, 0);
        self.walk = walk;
        let subscribe = self.subscribe_round(true, LONG);
        // Some subscriptions get a short lifetime, to measure the cost of finding them and of their final NOTIFY.
        self.walk = walk;
        self.subscribe_round(false, SHORT);
        self.pass(u64::from(SHORT) * 1_000 - 1_000);
        // The time goes on until the last has expired, and not so far that the first final NOTIFY would be
        // retransmitted.
        let (end, mut out) = (self.office.now + 1_300, Outbox::default());
        let began = cpu_time();
        while self.office.now < end {
            self.office.now += 50;
            self.office.notifier.pass_time(Tick(self.office.now), &mut out);
        }
        let expire = (cpu_time() - began).as_nanos();
        assert_eq!(out.messages.len(), ROUND, "each is told that it has ended");
        self.office.out.messages.append(&mut out.messages);
        let expire = expire + self.answer_all();
        // They subscribe again, so that the next round finds the same number.
        self.walk = walk;
        self.subscribe_round(true, LONG);
        [refresh, publish, explain, reset, unsubscribe, subscribe, expire].map(|took| took / ROUND as u128)
    }
}

fn publish(user: usize, now: u64) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
         entity=\"sip:{user}@acme.test\"><dialog id=\"c{now}\" call-id=\"c{now}-{user}\" direction=\"recipient\">\
         <state>early</state></dialog></dialog-info>"
    );
    format!(
        "PUBLISH sip:{user}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:20000;branch=z9hG4bKp{user}x{now};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:pbx@acme.test>;tag=p{user}\r\nTo: <sip:{user}@acme.test>\r\n\
         Call-ID: p{user}-{now}\r\nCSeq: 1 PUBLISH\r\nEvent: dialog\r\nExpires: 30\r\n\
         Content-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn median<T: PartialOrd + Copy>(mut figures: Vec<T>) -> T {
    figures.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    figures[figures.len() / 2]
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (few, many) = (*numbers.first().unwrap_or(&1_000), *numbers.get(1).unwrap_or(&1_000_000));
    let mut benches = [few, many].map(Bench::new);
    // The sizes take turns, because the speed of a shared machine changes; the compared values were measured at nearly
    // the same time.
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            benches.each_mut().map(|bench| {
                // The first round only warms the caches up after the other size.
                let [_, round] = [(), ()].map(|()| {
                    let round = bench.round();
                    bench.pass(1_000);
                    round
                });
                round
            })
        })
        .collect();
    println!("{:24} {:>14} {:>14} {:>8}", "CPU ns for one", few, many, "times");
    for (operation, name) in OPERATIONS.iter().enumerate() {
        let [of_few, of_many] = [0, 1].map(|size| median(rounds.iter().map(|round| round[size][operation]).collect()));
        let times = median(rounds.iter().map(|[few, many]| many[operation] as f64 / few[operation] as f64).collect());
        println!("{name:24} {of_few:>14} {of_many:>14} {times:>8.2}");
    }
}

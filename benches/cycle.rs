//! CPU time of the core for SUBSCRIBE -> 200 -> NOTIFY -> 200, for a refresh and for the end of a subscription,
//! without sockets and journal.
//!
//! `cargo bench --bench cycle -- [SUBSCRIPTIONS [RUNS]] [listened]` prints CPU nanoseconds for each, as the median of
//! all runs. `listened`: with one reader of a live event stream, which takes the changes as often as the server does
//! at 20,000 cycles per second. For instructions by function: `valgrind --tool=callgrind BINARY 5000 1`.

mod office;

use office::{Office, cpu_time, reply, subscribe, tag_of};

/// Cycles between two reads of the event stream.
const LOOK: usize = 1_000;

/// One SUBSCRIBE with all messages that it causes; returns the server's tag.
fn cycle(office: &mut Office, text: &mut String, i: usize, cseq: u32, tag: Option<&str>, expires: u32) -> String {
    if i.is_multiple_of(LOOK) {
        office.notifier.changes();
    }
    subscribe(text, i, cseq, tag, expires);
    office.hear(i, text.as_bytes());
    assert_eq!(office.out.messages.len(), 2, "an answer and a NOTIFY");
    let tag = tag_of(&office.out.messages[0].bytes);
    reply(text, &office.out.messages[1].bytes);
    office.out.messages.clear();
    office.hear(i, text.as_bytes());
    assert!(office.out.messages.is_empty());
    tag
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (subscriptions, runs) = (*numbers.first().unwrap_or(&50_000), *numbers.get(1).unwrap_or(&5));
    let listened = std::env::args().any(|argument| argument == "listened");
    let mut figures: [Vec<u128>; 3] = Default::default();
    for _ in 0..runs {
        let (mut office, mut text) = (Office::new(), String::new());
        office.notifier.listen(listened);
        let mut tags = Vec::with_capacity(subscriptions);
        for (step, figures) in figures.iter_mut().enumerate() {
            let began = cpu_time();
            for i in 0..subscriptions {
                match step {
                    0 => tags.push(cycle(&mut office, &mut text, i, 1, None, 3_600)),
                    1 => _ = cycle(&mut office, &mut text, i, 2, Some(&tags[i]), 3_600),
                    _ => _ = cycle(&mut office, &mut text, i, 3, Some(&tags[i]), 0),
                }
            }
            figures.push((cpu_time() - began).as_nanos() / subscriptions as u128);
            office.now += 40_000;
        }
        assert_eq!(office.notifier.subscriptions(), 0);
    }
    println!("{subscriptions} subscriptions, median of {runs}, the client's part (about 1 us) included:");
    for (name, figures) in ["subscribe", "refresh", "unsubscribe"].iter().zip(&mut figures) {
        figures.sort_unstable();
        println!("{name:12} {:6} ns (least {})", figures[figures.len() / 2], figures[0]);
    }
}

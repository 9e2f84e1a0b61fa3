//! The cost of a message is linear in its length, whatever it is filled with.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

#[path = "cost/inputs.rs"]
mod inputs;

use inputs::{Filling, KINDS, Target};

/// A datagram, less what stands in it anyway.
const LARGE: usize = 62_000;
/// How often each is sent. The least of the times counts: what a machine does besides only adds to one.
const TIMES: usize = 5;
/// What a message of [`LARGE`] octets may cost in a build without optimisation, on a slow machine: some twenty times as
/// much as it does in a release, which is at most a millisecond (`cargo bench --bench parts`). Quadratic work costs more.
const MOST: Duration = Duration::from_millis(150);

/// The CPU time of this thread: it does not count what others on the machine do.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn least(target: &mut Target, filling: &Filling) -> Duration {
    let once = |target: &mut Target| {
        let began = cpu_time();
        target.send(filling);
        cpu_time() - began
    };
    (0..TIMES).map(|_| once(target)).min().unwrap()
}

#[test]
fn no_message_costs_more_than_its_length() {
    let mut wrong = Vec::new();
    for (name, fill) in KINDS {
        let (small, large) = (fill(LARGE / 4), fill(LARGE));
        let (mut one, mut four) = (Target::new(), Target::new());
        let (one, four) = (least(&mut one, &small), least(&mut four, &large));
        // Four times as long: sixteen times as dear if it is quadratic. What costs little is not worth a comparison.
        if four > MOST || four > 9 * one && four > MOST / 15 {
            wrong.push(format!("{name}: {one:?} for a quarter, {four:?} for the whole"));
        }
        println!("{name}: {one:?} {four:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_they_are_filled_with_is_read() {
    // Of a message that is refused at its first octet it is not hard to be cheap.
    for (name, fill) in KINDS {
        let filling = fill(LARGE);
        let octets = Target::new().send(&filling);
        assert!((50_000..=65_535).contains(&octets), "{name}: {octets}");
    }
}

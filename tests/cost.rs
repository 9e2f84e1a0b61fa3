//! The cost of a message is linear in its length, whatever its content.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

#[path = "cost/inputs.rs"]
mod inputs;

use inputs::{Filling, KINDS, Target};

/// Length of a maximal datagram, without its fixed header lines.
const LARGE: usize = 62_000;
/// Number of times each message is sent. The shortest time counts, because other load on the machine only adds time.
const TIMES: usize = 5;
/// Largest allowed cost of a message of [`LARGE`] octets, in a build without optimisation on a slow machine. It is
/// some twenty times the cost in a release build, which is at most a millisecond (`cargo bench --bench parts`).
/// Quadratic work would exceed it.
const MOST: Duration = Duration::from_millis(150);

/// CPU time of this thread, which excludes other load on the machine.
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
        // Four times the length costs sixteen times as much if the work is quadratic. Very small costs are not
        // compared.
        if four > MOST || four > 9 * one && four > MOST / 15 {
            wrong.push(format!("{name}: {one:?} for a quarter, {four:?} for the whole"));
        }
        println!("{name}: {one:?} {four:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_they_are_filled_with_is_read() {
    // A message that is rejected at its first octet would be cheap in any case, so each one must be accepted.
    for (name, fill) in KINDS {
        let filling = fill(LARGE);
        let octets = Target::new().send(&filling);
        assert!((50_000..=65_535).contains(&octets), "{name}: {octets}");
    }
}

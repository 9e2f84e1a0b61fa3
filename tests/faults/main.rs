//! Fault run: the real binary is killed again and again under load, on a network that loses datagrams. At the end
//! every phone must show the true state, no phone may have lost its subscription, and no CSeq or version may ever have
//! fallen.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

mod office;
#[allow(dead_code)] // tests/lifecycle.rs uses the rest
mod server;

use std::time::{Duration, Instant};

use office::Office;
use server::Server;

/// Presentities, watchers of each, and rounds of load that end in `kill -9`.
const PRESENTITIES: usize = 200;
const WATCHERS: usize = 10;
const ROUNDS: usize = 20;
/// Share of datagrams lost in each direction (percent).
const LOSS: u64 = 5;
/// Duration of each round. The test waits for nothing here: this is the load.
const ROUND: Duration = Duration::from_millis(600);
/// Time within which all lamps show the true state once the network is healthy. A lost NOTIFY is retransmitted within
/// 4 s; a failed one is retried within 40 s.
const CONVERGES_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_lost_and_no_lamp_lies_after_twenty_kills() {
    let mut server = Server::start();
    let mut office = Office::open(server.address(), PRESENTITIES, WATCHERS);
    office.subscribe_all(Instant::now() + CONVERGES_WITHIN);
    office.loss = LOSS;
    for _ in 0..ROUNDS {
        office.work_until(Instant::now() + ROUND);
        server.kill();
        server.start_again();
    }
    office.loss = 0;
    office.settle(Instant::now() + CONVERGES_WITHIN);
    let wrong = office.wrong_lamps();
    assert!(wrong.is_empty(), "{} wrong lamps, such as {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    office.refresh_all(Instant::now() + CONVERGES_WITHIN);
    assert_eq!(office.lost, 0, "subscriptions that the server has forgotten");
    assert_eq!(office.regressions, 0, "CSeq numbers or versions that fell or stood");
    assert!(office.changes > 20 * 20, "the load was real: {} changes", office.changes);
    eprintln!(
        "{} subscriptions, {} changes acknowledged, {} NOTIFYs, {ROUNDS} kills: nothing lost, nothing wrong",
        PRESENTITIES * WATCHERS,
        office.changes,
        office.notifies
    );
}

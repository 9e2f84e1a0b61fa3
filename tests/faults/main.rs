//! The fault run: the real binary is killed again and again under load, on a network that loses datagrams. In the end
//! every phone has to show the truth, none may have lost its subscription, and no number may ever have fallen.

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
/// The share of datagrams lost, each way (percent).
const LOSS: u64 = 5;
/// How long each round of load lasts. Not a wait for anything: it is the load.
const ROUND: Duration = Duration::from_millis(600);
/// How long the lamps may take to tell the truth once the network is well. A NOTIFY that was lost is repeated within
/// 4 s, one that failed is tried again within 40 s.
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

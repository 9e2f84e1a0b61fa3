//! A phone that neither refreshes nor unsubscribes receives the final NOTIFY when its subscription expires.

use crate::harness::{Phones, Server, Settings, Transport, skip_without, wait_for};

#[test]
fn a_subscription_that_runs_out_ends_with_a_last_notify() {
    if skip_without("sipp") || skip_without("curl") {
        return;
    }
    let server = Server::start("expiry", &Settings { min_expires: 1, ..Settings::default() });
    let (event, transport) = ("dialog", Transport::Udp);
    let phones = Phones { name: "phones", count: 5, watched: "1001", event, transport, notifies: 2 };
    let mut phones = phones.watch_until_expiry(2, server.sip_port(), server.folder());
    phones.succeed();
    let seen = phones.notifies();
    assert_eq!(seen.len(), 10, "a first and a last one each: {seen:?}");
    for last in seen.iter().filter(|notify| notify.subscription_state.starts_with("terminated")) {
        assert_eq!(last.subscription_state, "terminated;reason=timeout");
    }
    assert_eq!(seen.iter().filter(|notify| notify.subscription_state.starts_with("active;")).count(), 5);
    wait_for("empty listing", || server.listed("1001", "dialog").is_empty().then_some(()));
}

//! Rate control (RFC 6446): a watcher is notified no more often than it asks for, and then with the current state.

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, Phone};

const SLOW: &str = "dialog;max-rate=0.2";

/// A phone with this Event, a second after its first NOTIFY.
fn settled(event: &str) -> (Office, Phone) {
    let mut office = Office::open();
    let phone = office.settled("1001", event);
    office.pass(1_000);
    (office, phone)
}

#[test]
fn with_a_max_rate_of_a_fifth_five_seconds_lie_between_notifies_and_the_latest_state_is_told() {
    let (mut office, phone) = settled(SLOW);
    for state in [Early, Confirmed, Early] {
        assert_eq!(office.set("1001", state), []);
    }
    let told = office.pass(10_000);
    assert!((4_000..=4_250).contains(&told[0].0), "five after the first NOTIFY: {}", told[0].0);
    assert_eq!(told[0].1.states(), ["early"]);
    phone.answer(&mut office, &told[0].1, 200);
    office.pass(30_000);
    // After a pause the first change is sent at once, and the next one waits.
    let at_once = office.set("1001", Confirmed);
    assert_eq!(at_once[0].states(), ["confirmed"]);
    phone.answer(&mut office, &at_once[0], 200);
    assert_eq!(office.set("1001", Terminated), []);
    let later = office.pass(5_300);
    assert_eq!((later.len(), later[0].1.states(), later[0].1.version()), (1, vec!["terminated".to_string()], 3));
    assert!((5_000..=5_250).contains(&later[0].0), "{}", later[0].0);
}

#[test]
fn a_state_that_went_and_came_back_while_it_waited_costs_one_notify() {
    let (mut office, _) = settled(SLOW);
    assert_eq!(office.set("1001", Early), []);
    assert_eq!(office.set("1001", Terminated), []);
    let told = office.pass_quietly(4_250);
    assert_eq!((told.len(), told[0].states()), (1, vec!["terminated".to_string()]));
}

#[test]
fn one_watcher_s_rate_is_not_another_s() {
    let (mut office, _) = settled(SLOW);
    let quick = office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    assert_eq!((sent.len(), sent[0].message().call_id), (1, &*quick.call_id));
}

#[test]
fn the_rate_in_force_is_told_in_subscription_state() {
    let mut office = Office::open();
    for (event, state) in [
        (SLOW, "active;expires=600;max-rate=0.2"),
        ("dialog;id=7;MAX-RATE=10.25", "active;expires=600;max-rate=10.25"),
        ("dialog", "active;expires=600"),
        ("dialog;min-rate=0.1;adaptive-min-rate=0.1", "active;expires=600"),
    ] {
        assert_eq!(office.watch("1001", event).1[1].header("Subscription-State"), state);
    }
}

#[test]
fn what_is_no_rate_is_ignored_like_any_unknown_parameter() {
    for event in ["", "=", "=x", "=-1", "=1e3", "=.5", "=1.", "=100", "=1.12345678901", "=\"1\""] {
        let (mut office, _) = settled(&format!("dialog;max-rate{event}"));
        assert_eq!(office.set("1001", Early)[0].header("Subscription-State"), "active;expires=599", "{event}");
    }
}

#[test]
fn a_rate_of_nothing_leaves_what_subscribes_bring() {
    for rate in ["0", "00.0000000000", "0.0000000001"] {
        let (mut office, mut phone) = settled(&format!("dialog;max-rate={rate}"));
        office.set("1001", Early);
        assert_eq!(office.pass_quietly(500_000), []);
        assert_eq!(phone.subscribe(&mut office, 600)[1].states(), ["early"]);
    }
}

#[test]
fn what_a_subscribe_brings_and_the_last_notify_are_not_held_back() {
    let (mut office, mut phone) = settled("dialog;max-rate=0.01");
    office.set("1001", Early);
    for _ in 0..3 {
        let sent = phone.subscribe(&mut office, 60);
        assert_eq!(sent[1].states(), ["early"]);
        phone.answer(&mut office, &sent[1], 200);
    }
    assert_eq!(office.set("1001", Confirmed), []);
    let (at, last) = office.pass(60_300).remove(0);
    assert!((60_000..=60_250).contains(&at), "{at}");
    assert_eq!(
        (last.header("Subscription-State"), last.states()),
        ("terminated;reason=timeout", vec!["confirmed".to_string()])
    );
    phone.answer(&mut office, &last, 200);
    let (mut office, mut phone) = settled("dialog;max-rate=0.01");
    assert_eq!(phone.subscribe(&mut office, 0)[1].header("Subscription-State"), "terminated;reason=timeout");
}

#[test]
fn a_refresh_changes_the_rate_and_without_one_takes_it_away() {
    let (mut office, mut phone) = settled("dialog;max-rate=0.01");
    phone.event = "dialog;max-rate=1".into();
    phone.refresh(&mut office);
    assert_eq!(office.set("1001", Early), []);
    let sent = office.pass(1_250);
    assert!((1_000..=1_250).contains(&sent[0].0), "{}", sent[0].0);
    phone.answer(&mut office, &sent[0].1, 200);
    phone.event = "dialog".into();
    phone.refresh(&mut office);
    for state in [Confirmed, Early, Terminated] {
        let sent = office.set("1001", state);
        assert_eq!(sent.len(), 1);
        phone.answer(&mut office, &sent[0], 200);
    }
}

#[test]
fn a_lost_notify_is_repeated_and_a_newer_state_waits_for_its_time() {
    let (mut office, phone) = settled(SLOW);
    office.pass(9_000);
    let lost = office.set("1001", Early);
    assert_eq!(office.pass_quietly(600), lost, "a repetition is no new NOTIFY");
    assert_eq!(office.set("1001", Confirmed), []);
    // The old NOTIFY is not retransmitted any more, and the new one is sent after five seconds.
    let sent = office.pass(4_700);
    assert_eq!((sent.len(), sent[0].1.states()), (1, vec!["confirmed".to_string()]));
    assert!((4_400..=4_650).contains(&sent[0].0), "{}", sent[0].0);
    // A late response to the old NOTIFY does not acknowledge the new one.
    assert_eq!(phone.answer(&mut office, &lost[0], 200), []);
    assert_eq!(phone.answer(&mut office, &sent[0].1, 200), []);
    assert_eq!(office.pass_quietly(60_000), []);
}

#[test]
fn neither_a_failure_nor_a_sign_of_life_makes_it_faster() {
    let (mut office, phone) = settled("dialog;max-rate=0.05");
    office.pass(29_000);
    let failed = office.set("1001", Early);
    phone.answer(&mut office, &failed[0], 500);
    assert_eq!(office.set("1001", Confirmed), []);
    assert_eq!(office.pass_quietly(19_700), []);
    let again = office.pass_quietly(500);
    assert_eq!(again[0].states(), ["confirmed"]);

    // The phone was silent for longer than a transaction lasts; its late response to the old NOTIFY shows that it is
    // reachable.
    let (mut office, phone) = settled("dialog;max-rate=0.01");
    office.pass(100_000);
    let lost = office.set("1001", Early);
    office.pass(33_000);
    assert_eq!(phone.answer(&mut office, &lost[0], 200), []);
    assert_eq!(office.pass_quietly(66_000), []);
    assert_eq!(office.pass_quietly(1_500)[0].states(), ["early"]);
}

#[test]
fn a_rate_outlives_a_restart() {
    let (mut office, phone) = settled(SLOW);
    office.pass(10_000);
    let sent = office.set("1001", Early);
    phone.answer(&mut office, &sent[0], 200);
    office.crash();
    assert_eq!(office.set("1001", Confirmed), []);
    let sent = office.pass(5_300);
    assert!((5_000..=5_250).contains(&sent[0].0), "{}", sent[0].0);
    assert!(sent[0].1.header("Subscription-State").ends_with(";max-rate=0.2"));
}

#[test]
fn whoever_has_no_rate_of_his_own_has_that_of_the_configuration() {
    let mut office = Office::with("[presence]\nmin_notify_interval_ms = 1000\n");
    let (calm, quick) = (office.settled("1001", "dialog"), office.settled("1001", "dialog;max-rate=99"));
    office.pass(5_000);
    let first = office.set("1001", Early);
    assert_eq!(first.len(), 2, "after a pause at once");
    calm.answer(&mut office, &first[0], 200);
    quick.answer(&mut office, &first[1], 200);
    office.pass(20);
    let second = office.set("1001", Confirmed);
    assert_eq!((second.len(), second[0].message().call_id), (1, &*quick.call_id));
    quick.answer(&mut office, &second[0], 200);
    let later = office.pass(1_250);
    assert_eq!(
        (later.len(), later[0].1.message().call_id, later[0].1.states()),
        (1, &*calm.call_id, vec!["confirmed".into()])
    );
    assert!((980..=1_240).contains(&later[0].0), "{}", later[0].0);
}

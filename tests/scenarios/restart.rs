//! State after a crash: everything acknowledged is restored (rule 5), and no watcher is notified of a state that it
//! has.

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, dialog};

#[test]
fn a_subscription_goes_on_with_its_remaining_time_and_higher_numbers() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    let (cseq, version) = (sent[0].cseq(), sent[0].version());
    phone.answer(&mut office, &sent[0], 200);
    office.pass(100_000);
    let restored = office.crash();
    assert_eq!((restored.subscriptions, restored.behind, restored.unusable()), (1, 0, 0));
    assert_eq!(office.pass_quietly(60_000), [], "he knows the state of the moment");
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]));
    assert!(sent[1].cseq() > cseq && sent[1].version() > version, "{}", sent[1].text);
    phone.answer(&mut office, &sent[1], 200);
    office.crash();
    let sent = office.pass(601_000);
    assert_eq!(sent[0].1.header("Subscription-State"), "terminated;reason=timeout");
    assert!((600_000..=600_250).contains(&sent[0].0), "{}", sent[0].0);
}

#[test]
fn only_those_who_are_behind_are_told_after_a_restart() {
    let mut office = Office::open();
    let knows = office.settled("1001", "dialog");
    let (unanswered, sent) = office.watch("1003", "dialog");
    let missed = office.settled("1004", "dialog");
    assert_eq!(office.set("1004", Confirmed).len(), 1, "never answered");
    assert_eq!(office.crash().behind, 2);
    let told = office.pass_quietly(400);
    let mut dialogs: Vec<_> = told.iter().map(|s| s.message().call_id.to_string()).collect();
    dialogs.sort();
    assert_eq!(dialogs, [unanswered.call_id.clone(), missed.call_id.clone()]);
    assert!(told.iter().all(|s| s.cseq() > sent[1].cseq()));
    let late = told.iter().find(|s| s.message().call_id == missed.call_id).unwrap();
    assert_eq!(late.states(), ["confirmed"]);
    drop(knows);
}

#[test]
fn a_state_that_went_and_came_back_is_told_to_who_may_have_seen_it_gone() {
    // The phone acknowledged idle and received a NOTIFY of ringing, and its response to that was lost in the crash:
    // idle is a change for it.
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    let etag = sent[0].header("SIP-ETag").to_string();
    assert_eq!(sent[1].states(), ["early"]);
    office.publish_body("1001", Some(&etag), 0, "dialog", "", "");
    assert_eq!(office.crash().behind, 1);
    assert_eq!(office.pass_quietly(100)[0].states(), ["terminated"]);
    drop(phone);
}

#[test]
fn no_number_is_used_twice_however_often_it_crashes() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let mut last = (1, 0);
    for round in 0..200 {
        for notify in office.set("1001", if round % 2 == 0 { Early } else { Confirmed }) {
            assert!(notify.cseq() > last.0 && notify.version() > last.1, "round {round}");
            last = (notify.cseq(), notify.version());
            phone.answer(&mut office, &notify, 200);
        }
        if round % 7 == 0 {
            office.crash();
        }
    }
    assert!(last.0 > 200);
}

#[test]
fn publications_calls_ended_calls_and_manual_states_come_back() {
    let mut office = Office::open();
    let sent = office.publish("1001", None, &(dialog("c1", "confirmed") + &dialog("c2", "early")));
    let etag = sent[0].header("SIP-ETag").to_string();
    let sent = office.publish("1001", Some(&etag), &(dialog("c1", "confirmed") + &dialog("c2", "terminated")));
    let etag = sent[0].header("SIP-ETag").to_string();
    office.set("1003", Confirmed);
    office.set("1004", Early);
    office.set("1004", Terminated);
    assert_eq!(office.crash().states, 2);
    assert_eq!(office.watch("1001", "dialog").1[1].states(), ["confirmed"]);
    assert_eq!(office.watch("1003", "dialog").1[1].states(), ["confirmed"]);
    assert_eq!(office.watch("1004", "dialog").1[1].states(), ["terminated"]);
    let sent = office.publish("1001", None, &dialog("c2", "early"));
    assert_eq!((sent.len(), sent[0].status()), (1, 200), "late early, also after a restart");
    assert_eq!(office.publish_body("1001", Some(&etag), 60, "dialog", "", "")[0].status(), 200);
    let sent = office.pass_quietly(61_000);
    assert!(sent.iter().any(|s| s.is_notify() && s.states() == ["terminated"]), "its expiry came back, too");
}

#[test]
fn a_subscription_that_an_earlier_version_has_kept_goes_on() {
    // Conditions, rates, named dialogs and the count of starts stand at the end of the record. The first version had
    // none of them, and its records had no layout version. The second version lacked only the count of starts.
    for (unknown, head) in [(4, &[][..]), (1, &[0, 2])] {
        let mut office = Office::open();
        let mut phone = office.settled("1001", "dialog");
        let record = office.disk.iter_mut().find(|(key, _)| key.0 >> 32 == 0 && key.1 == 0).unwrap().1;
        let (fields, added) = record[2..].split_at(record.len() - 2 - unknown);
        assert_eq!((&record[..2], added), (&[0, 4][..], &[0; 4][..unknown]));
        *record = [head, fields].concat().into();
        assert_eq!(office.crash().unusable(), 0);
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
    }
}

#[test]
fn what_has_ended_does_not_come_back() {
    let mut office = Office::open();
    let mut gone = office.settled("1001", "dialog");
    let sent = gone.subscribe(&mut office, 0);
    gone.answer(&mut office, &sent[1], 200);
    let (refused, sent) = office.watch("1001", "dialog");
    refused.answer(&mut office, &sent[1], 481);
    let mut fetched = office.phone("1001", "dialog");
    let sent = fetched.subscribe(&mut office, 0);
    fetched.answer(&mut office, &sent[1], 200);
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    let etag = sent[0].header("SIP-ETag").to_string();
    office.publish_body("1001", Some(&etag), 0, "dialog", "", "");
    assert_eq!((office.crash().subscriptions, office.list().len()), (0, 0));
    // The responses kept for retransmissions of the requests that ended them are removed too.
    office.pass(65_000);
    office.compact();
    assert!(office.disk.is_empty(), "{:?}", office.disk.keys());
    assert_eq!(office.crash(), Default::default());
    assert_eq!(gone.subscribe(&mut office, 600)[0].status(), 481);
}

#[test]
fn a_reset_survives() {
    let mut office = Office::open();
    office.publish("1001", None, &dialog("c1", "confirmed"));
    office.reset("1001");
    office.crash();
    assert_eq!(office.watch("1001", "dialog").1[1].states(), ["terminated"]);
}

#[test]
fn a_compacted_journal_says_the_same_as_the_long_one() {
    let mut office = Office::open();
    for i in 0..20 {
        office.settled(&format!("10{i:02}"), "dialog");
        office.publish(&format!("10{i:02}"), None, &dialog(&format!("c{i}"), "early"));
    }
    office.pass(400);
    let mut long = office.disk.clone();
    office.compact();
    // Stale watchers have an old acknowledgement in the long journal, and none in the other.
    long.retain(|key, _| office.disk.contains_key(key));
    assert_eq!(long, office.disk);
    let before = office.list();
    office.crash();
    let quiet = |list: Vec<_>| {
        list.into_iter()
            .map(|r: lamplighter::notifier::control::SubscriptionRecord| (r.call_id, r.expires, r.subscribed_at))
            .collect::<Vec<_>>()
    };
    assert_eq!(quiet(office.list()), quiet(before));
}

#[test]
fn numbers_go_up_over_crashes_also_where_the_disk_had_refused_to_reserve_them() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let mut highest = (1, 0);
    for start in 0..3 {
        // None of this is journaled.
        let disk = office.disk.clone();
        for n in 0..100 {
            let state = if n % 2 == 0 { Early } else { Confirmed };
            let sent = office.set("1001", state);
            // The first NOTIFY after a crash is paced.
            let sent = if sent.is_empty() { office.pass_quietly(1_000) } else { sent };
            let notify = sent.first().expect("a NOTIFY");
            let numbers = (notify.cseq(), notify.version());
            assert!(numbers.0 > highest.0 && numbers.1 > highest.1, "{numbers:?} after {highest:?}, start {start}");
            highest = numbers;
            phone.answer(&mut office, notify, 200);
            office.now += 1_000;
        }
        office.disk = disk;
        if start == 1 {
            office.compact();
        }
        office.crash();
    }
}

//! Delivery of NOTIFYs: retransmission, superseding, and the handling of failures (RFC 3261 section 17.1.2, RFC 6665
//! section 4.2.2, rules 1, 2 and 6).

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, Sent, dialog};

#[test]
fn an_unanswered_notify_is_repeated_to_the_letter_at_the_intervals_of_timer_e() {
    let mut office = Office::open();
    office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    let copies = office.pass(31_900);
    let moments: Vec<_> = copies.iter().map(|(at, _)| *at).collect();
    assert_eq!(moments, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert!(copies.iter().all(|(_, copy)| *copy == sent[0]));
}

#[test]
fn an_answer_stops_the_repetitions_and_a_late_copy_of_it_does_nothing() {
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    office.pass(600);
    assert_eq!(phone.answer(&mut office, &sent[1], 200), []);
    assert_eq!(phone.answer(&mut office, &sent[1], 200), []);
    assert_eq!(office.pass_quietly(60_000), []);
}

#[test]
fn a_change_while_a_notify_is_under_way_waits_for_its_answer() {
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    assert_eq!(office.set("1001", Early), [], "one NOTIFY under way");
    assert_eq!(office.set("1001", Confirmed), []);
    let next = phone.answer(&mut office, &sent[1], 200);
    assert_eq!((next.len(), next[0].cseq(), next[0].version()), (1, 2, 1), "a burst costs one NOTIFY");
    assert_eq!(next[0].states(), ["confirmed"]);
}

#[test]
fn a_repetition_that_is_due_gives_way_to_the_newer_state() {
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    office.set("1001", Early);
    let due = office.pass_quietly(500);
    assert_eq!((due.len(), due[0].cseq(), due[0].states()), (1, 2, vec!["early".to_string()]));
    // A late response to the first does not acknowledge the second.
    assert_eq!(phone.answer(&mut office, &sent[1], 200), []);
    assert_eq!(office.pass_quietly(1_000), due, "the second is repeated");
    phone.answer(&mut office, &due[0], 200);
    assert_eq!(office.pass_quietly(60_000), []);
}

#[test]
fn a_silent_phone_is_not_flooded_by_changes() {
    let mut office = Office::open();
    office.watch("1001", "dialog");
    let mut sent = 0;
    for i in 0..60 {
        sent += office.set("1001", if i % 2 == 0 { Early } else { Confirmed }).len();
        sent += office.pass(500).len();
    }
    assert!(sent <= 11, "{sent} in 30 seconds");
}

#[test]
fn the_answers_that_end_a_dialog_remove_the_subscription() {
    for status in [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604] {
        let mut office = Office::open();
        let (mut phone, sent) = office.watch("1001", "dialog");
        phone.answer(&mut office, &sent[1], status);
        assert_eq!((office.list(), office.notifier.next_deadline()), (vec![], None), "{status}");
        assert_eq!(office.set("1001", Early), [], "{status}");
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481, "{status}");
    }
}

#[test]
fn every_other_failure_is_that_notify_s_alone() {
    for status in [400, 401, 403, 406, 407, 413, 415, 420, 486, 488, 491, 500, 502, 503, 505, 600, 603, 606] {
        let mut office = Office::open();
        let (mut phone, sent) = office.watch("1001", "dialog");
        assert_eq!(phone.answer(&mut office, &sent[1], status), [], "{status}");
        assert_eq!(office.list()[0].last.as_ref().unwrap().reply, status);
        let next = office.set("1001", Early);
        assert_eq!((next.len(), next[0].states()), (1, vec!["early".to_string()]), "{status}: the next change is told");
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200, "{status}");
    }
}

#[test]
fn a_failed_notify_is_tried_again_later_and_later() {
    let mut office = Office::open();
    let (phone, mut sent) = office.watch("1001", "dialog");
    let mut waits = Vec::new();
    for _ in 0..4 {
        phone.answer(&mut office, sent.last().unwrap(), 500);
        let before = office.now;
        while sent.iter().all(|s| !s.is_notify() || s.cseq() as usize != waits.len() + 2) {
            sent = office.pass_quietly(10);
        }
        waits.push((office.now - before) / 1_000);
    }
    assert_eq!(waits, [5, 10, 20, 40]);
    phone.answer(&mut office, sent.last().unwrap(), 200);
    assert_eq!(office.pass_quietly(100_000), []);
}

#[test]
fn retry_after_is_respected_even_when_the_state_changes() {
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    phone.answer_with(&mut office, &sent[1], 503, "Retry-After: 7\r\n");
    assert_eq!(office.set("1001", Early), []);
    let later = office.pass(8_000);
    assert_eq!((later.len(), later[0].0 / 1_000, later[0].1.states()), (2, 7, vec!["early".to_string()]));
}

#[test]
fn silence_does_not_end_a_subscription_and_any_subscribe_resumes_it() {
    let mut office = Office::open();
    let (mut phone, _) = office.watch("1001", "dialog");
    office.pass(33_000);
    assert_eq!(office.list()[0].last.as_ref().unwrap().reply, 408);
    assert_eq!(office.set("1001", Early), [], "a silent phone is left alone until the next try");
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.set("1001", Confirmed).len(), 1);
}

#[test]
fn a_subscription_that_expires_while_its_phone_is_silent_just_goes() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.subscribe(&mut office, 60);
    let sent = office.pass_quietly(400_000);
    assert!(sent.iter().all(|s| !s.text.contains("terminated;reason")), "{sent:?}");
    assert_eq!((office.list(), office.notifier.next_deadline()), (vec![], None));
}

#[test]
fn an_answer_has_to_fit_in_every_respect() {
    let mut office = Office::open();
    let (phone, sent) = office.watch("1001", "dialog");
    let notify = &sent[1];
    let place = phone.to_tag.as_deref().and_then(|tag| tag.rsplit_once('.')).map_or("", |(place, _)| place);
    let branch = format!("branch=z9hG4bK{place}.");
    let bend = |from: &str, to: &str| Sent { text: notify.text.replace(from, to), ..notify.clone() };
    for wrong in [
        bend("CSeq: 1 NOTIFY", "CSeq: 2 NOTIFY"),
        bend("CSeq: 1 NOTIFY", "CSeq: 1 SUBSCRIBE"),
        bend("Call-ID: call1", "Call-ID: call2"),
        bend("SIP/2.0/UDP 192.0.2.1:5060", "SIP/2.0/UDP 192.0.2.2:5060"),
        bend("Max-Forwards: 70", "Via: SIP/2.0/UDP 192.0.2.9"),
        bend(&branch, &format!("{branch}0")),
    ] {
        // The request is altered so that the response copied from it is invalid.
        let message = wrong.text.replacen("NOTIFY sip", "X sip", 1).replacen("X sip", "NOTIFY sip", 1);
        let bent = Sent { text: message, ..wrong.clone() };
        if lamplighter::sip::wire::read(bent.text.as_bytes()).is_ok() {
            phone.answer(&mut office, &bent, 481);
        }
        assert_eq!(office.list().len(), 1, "{}", bent.text);
    }
    phone.answer(&mut office, notify, 481);
    assert_eq!(office.list(), []);
}

#[test]
fn thousands_of_watchers_are_told_in_slices_and_none_is_left_out() {
    let mut office = Office::open();
    let phones: Vec<_> = (0..3_000).map(|_| office.settled("1001", "dialog")).collect();
    let sent = office.set("1001", Early);
    assert_eq!(sent.len(), phones.len());
    let mut dialogs: Vec<_> = sent.iter().map(|s| s.message().call_id.to_string()).collect();
    dialogs.sort();
    dialogs.dedup();
    assert_eq!(dialogs.len(), phones.len());
}

#[test]
fn the_end_of_a_call_is_shown_once_under_its_own_id() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let first = office.publish("1001", None, &dialog("c1", "confirmed"));
    phone.answer(&mut office, &first[1], 200);
    let etag = first[0].header("SIP-ETag").to_string();
    let over = office.publish("1001", Some(&etag), &dialog("c1", "terminated"));
    assert_eq!(over[1].dialogs(), [("c1".to_string(), "terminated".to_string())]);
    phone.answer(&mut office, &over[1], 200);
    let refreshed = phone.subscribe(&mut office, 600);
    assert_eq!(refreshed[1].dialogs(), [("idle".to_string(), "terminated".to_string())]);
    phone.answer(&mut office, &refreshed[1], 200);
    assert_eq!(office.set("1001", Terminated), [], "nothing new");
}

//! NOTIFY: delivery, retransmission, superseding, failures and suspension (rules 1, 2 and 6).

use super::*;

const ENDING: [u16; 13] = [404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604];
const HARMLESS: [u16; 25] = [
    300, 400, 401, 403, 406, 407, 413, 414, 415, 420, 421, 423, 486, 487, 488, 499, 500, 502, 503, 504, 505, 600, 603,
    606, 699,
];

/// Creates a notifier with one phone that watches and one publisher.
fn pair() -> (Office, Phone, Publisher) {
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 3600);
    (office, phone, Publisher::new("1001@acme.test"))
}

#[test]
fn a_change_is_told_at_once_and_counts_one_up() {
    // F-043, G-019, E-008, C-022
    let (mut office, phone, mut publisher) = pair();
    let mut branches = Vec::new();
    for (i, state) in ["trying", "early", "confirmed", "terminated"].into_iter().enumerate() {
        office.report(&mut publisher, &[("c1", state)]);
        let notify = office.accept(&phone);
        assert_eq!((notify.lamp(), notify.cseq, notify.version()), (state.into(), i as u32 + 2, i as u32 + 1));
        branches.push(between(&notify.text, "branch=", ";").to_string());
    }
    branches.dedup();
    assert_eq!(branches.len(), 4);
}

#[test]
fn a_notify_is_repeated_over_udp_in_ever_longer_gaps_with_the_same_bytes() {
    // C-011, C-012, C-014
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let start = office.now;
    office.pass(60_000);
    // The probe that is sent after a while (rule 6) is a new NOTIFY.
    let copies: Vec<_> = office.heard(&phone).into_iter().filter(|n| n.at < start + 32_000).collect();
    let at: Vec<_> = copies.iter().map(|n| n.at - start).collect();
    assert_eq!(at, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert!(copies.iter().all(|n| n.text == copies[0].text));
}

#[test]
fn a_provisional_answer_slows_the_repetitions_down() {
    // C-012, C-024
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let first = office.only(&phone);
    office.answer(&first, 100);
    office.pass(3_990);
    assert!(office.heard(&phone).is_empty());
    office.pass(20);
    assert_eq!(office.only(&phone).text, first.text);
    office.answer(&first, 299);
    office.pass(60_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn nothing_is_repeated_on_streams() {
    // C-013
    let mut office = Office::new();
    let mut phone = Phone::new("a", "1001@acme.test").over_tcp(1);
    office.subscribe(&mut phone, 600);
    office.pass(31_990);
    assert_eq!(office.heard(&phone).len(), 1);
}

#[test]
fn a_final_answer_stops_the_repetitions_and_a_second_one_does_nothing() {
    // C-015, C-016
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    office.pass(1_600);
    let copies = office.heard(&phone);
    assert_eq!(copies.len(), 3);
    for status in [200, 500, 481] {
        office.answer(&copies[2], status);
    }
    office.pass(60_000);
    assert_eq!((office.heard(&phone).len(), office.listed(ACME)), (0, 1));
}

#[test]
fn an_answer_counts_only_if_it_fits_in_every_respect() {
    // C-017 to C-020
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let notify = office.only(&phone);
    let via = format!("Via: {}\r\n", notify.line("Via").unwrap());
    let good = answer_text(&notify, 481, "");
    for bad in [
        good.replace(" NOTIFY\r\n", " SUBSCRIBE\r\n"),
        good.replace("branch=z9hG4bK", "branch=z9hG4bK1"),
        good.replace("CSeq: 2 ", "CSeq: 3 "),
        good.replace("call-of-a", "call-of-b"),
        good.replace(" 127.0.0.1:5060;", " 127.0.0.1:5061;"),
        good.replace(&via, &format!("{via}{via}")),
    ] {
        assert_ne!(bad, good);
        office.receive(phone.source, &bad);
    }
    assert_eq!(office.listed(ACME), 1);
    office.pass(500);
    assert_eq!(office.only(&phone).text, notify.text, "the repetitions go on");
    office.receive(phone.source, &good);
    assert_eq!(office.listed(ACME), 0);
}

#[test]
fn changes_wait_for_the_answer_and_then_cost_one_notify() {
    // rules 1 and 2, C-030
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "trying")]);
    let first = office.only(&phone);
    for state in ["proceeding", "early", "confirmed"] {
        office.report(&mut publisher, &[("c1", state)]);
    }
    assert!(office.heard(&phone).is_empty());
    office.answer(&first, 200);
    let second = office.accept(&phone);
    assert_eq!((second.lamp(), second.cseq), ("confirmed".into(), first.cseq + 1));
    office.pass(60_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn when_the_state_has_moved_on_a_repetition_carries_the_new_one() {
    // rule 2
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let stale = office.only(&phone);
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.pass(490);
    assert!(office.heard(&phone).is_empty());
    office.pass(10);
    let fresh = office.only(&phone);
    assert_eq!((fresh.lamp(), fresh.cseq, fresh.version()), ("confirmed".into(), 3, 2));
    // The late response to the old NOTIFY does not count for the new one, which is retransmitted at the times of the
    // old one.
    office.answer(&stale, 200);
    office.pass(990);
    assert!(office.heard(&phone).is_empty());
    office.pass(10);
    assert_eq!(office.accept(&phone).text, fresh.text);
    office.pass(60_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn a_state_that_comes_back_while_the_notify_is_out_is_told_all_the_same() {
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let first = office.only(&phone);
    office.report(&mut publisher, &[]);
    office.answer(&first, 200);
    assert_eq!(office.accept(&phone).lamp(), "terminated");
}

#[test]
fn statuses_that_end_the_dialog_end_the_subscription_without_a_word() {
    // F-037, F-042, L-038
    for status in ENDING {
        let (mut office, mut phone, mut publisher) = pair();
        let other = office.watcher("b", "1001@acme.test", 3600);
        office.report(&mut publisher, &[("c1", "early")]);
        let notify = office.only(&phone);
        office.answer(&notify, status);
        assert_eq!((office.listed(ACME), office.notifier.subscriptions()), (1, 1), "{status}");
        office.accept(&other);
        office.report(&mut publisher, &[("c1", "confirmed")]);
        assert_eq!((office.heard(&phone).len(), office.heard(&other).len()), (0, 1));
        assert_eq!(office.subscribe(&mut phone, 600).status, 481);
    }
}

#[test]
fn every_other_failure_is_that_notify_s_alone() {
    // F-039, F-040, C-023, C-025, rule 6
    for status in HARMLESS {
        let (mut office, mut phone, mut publisher) = pair();
        office.report(&mut publisher, &[("c1", "early")]);
        let failed = office.only(&phone);
        office.answer(&failed, status);
        // The same state is not sent again at once, but a change is.
        assert_eq!((office.heard(&phone).len(), office.listed(ACME)), (0, 1), "{status}");
        office.report(&mut publisher, &[("c1", "confirmed")]);
        assert_eq!(office.accept(&phone).lamp(), "confirmed");
        assert_eq!(office.subscribe(&mut phone, 600).status, 200);
        assert_eq!(office.accept(&phone).lamp(), "confirmed");
    }
}

#[test]
fn what_failed_is_tried_again_after_ever_longer_waits_until_it_arrives() {
    // rule 6
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "confirmed")]);
    let mut last = office.only(&phone);
    for wait in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
        office.answer(&last, 500);
        office.pass(wait - 10);
        assert!(office.heard(&phone).is_empty(), "{wait}");
        office.pass(260);
        last = office.only(&phone);
        assert_eq!(last.lamp(), "confirmed");
    }
    office.answer(&last, 200);
    office.pass(600_000);
    assert!(office.heard(&phone).is_empty());
    // The back-off starts again with the next failure.
    office.report(&mut publisher, &[("c1", "terminated")]);
    let failed = office.only(&phone);
    office.answer(&failed, 500);
    office.pass(5_010);
    assert_eq!(office.accept(&phone).lamp(), "terminated");
}

#[test]
fn a_phone_that_asks_to_be_left_alone_is_for_that_long() {
    // F-041
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let failed = office.only(&phone);
    office.answer_with(&failed, 503, "Retry-After: 20 (busy)\r\n");
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.pass(19_990);
    assert!(office.heard(&phone).is_empty());
    office.pass(260);
    assert_eq!(office.accept(&phone).lamp(), "confirmed");
}

#[test]
fn a_silent_phone_is_suspended_probed_and_resumed() {
    // rule 6 (F-038 and C-014 are listed deviations)
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    office.pass(32_100);
    office.heard(&phone);
    assert_eq!(office.listed(ACME), 1);
    assert_eq!(office.notifier.list_subscriptions(ACME, None)[0].last.as_ref().unwrap().reply, 408);
    // Nothing is sent to the phone until the probe, which has the state of that moment.
    office.report(&mut publisher, &[("c1", "confirmed")]);
    assert!(office.heard(&phone).is_empty());
    office.pass(5_000);
    let probe = office.accept(&phone);
    assert_eq!((probe.lamp(), probe.version()), ("confirmed".into(), 2));
    office.report(&mut publisher, &[]);
    assert_eq!(office.accept(&phone).lamp(), "terminated");
}

#[test]
fn a_refresh_of_a_suspended_subscription_brings_the_state_at_once() {
    // rule 6
    let (mut office, mut phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.pass(32_100);
    office.heard(&phone);
    assert_eq!(office.subscribe(&mut phone, 3600).status, 200);
    assert_eq!(office.accept(&phone).lamp(), "confirmed");
    office.pass(600_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn a_late_answer_is_a_sign_of_life_that_resumes() {
    // rule 6: "resume at any sign of life from that phone"
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    office.pass(32_100);
    let lost = office.heard(&phone).remove(0);
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.answer(&lost, 200);
    assert_eq!(office.accept(&phone).lamp(), "confirmed");
    office.pass(600_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn a_suspended_subscription_ends_at_its_expiry_without_a_word() {
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 60);
    let mut publisher = Publisher::new("1001@acme.test");
    office.pass(25_000);
    office.report(&mut publisher, &[("c1", "early")]);
    office.pass(37_000);
    assert!(office.heard(&phone).iter().all(|n| !n.is_last()));
    assert_eq!((office.listed(ACME), office.notifier.subscriptions()), (0, 0));
    office.publish(&mut publisher, 0, None);
    office.pass(3_600_000);
    assert!(office.is_empty());
}

#[test]
fn an_expiry_during_a_notify_waits_for_its_answer_before_it_is_told() {
    // rule 2, F-022
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 60);
    office.pass(59_900);
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "early")]);
    let pending = office.only(&phone);
    office.pass(350);
    assert_eq!((office.heard(&phone).len(), office.listed(ACME)), (0, 0));
    office.answer(&pending, 200);
    let last = office.accept(&phone);
    assert_eq!((last.is_last(), last.lamp(), last.cseq), (true, "early".into(), pending.cseq + 1));
    office.pass(40_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn an_expiry_during_a_lost_notify_is_told_when_its_repetition_is_due() {
    // rule 2
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 60);
    office.pass(59_900);
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "early")]);
    office.pass(500);
    let heard = office.heard(&phone);
    assert_eq!(heard.iter().map(Notify::is_last).collect::<Vec<_>>(), [false, true]);
    // A response to the superseded NOTIFY does not conclude the final one.
    office.answer(&heard[0], 200);
    office.pass(1_000);
    assert_eq!(office.accept(&phone).text, heard[1].text);
    office.pass(40_000);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn a_481_to_a_superseded_notify_ends_the_dialog() {
    let (mut office, phone, mut publisher) = pair();
    office.report(&mut publisher, &[("c1", "early")]);
    let stale = office.only(&phone);
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.pass(500);
    office.only(&phone);
    office.answer(&stale, 481);
    assert_eq!(office.listed(ACME), 0);
}

#[test]
fn a_481_from_before_a_refresh_or_a_newer_200_is_out_of_date() {
    // A NOTIFY may overtake the 200 to the SUBSCRIBE, and the phone refuses it. The refresh proves that the phone has
    // the dialog.
    let (mut office, mut phone) = (Office::new(), Phone::new("a", "1001@acme.test"));
    office.subscribe(&mut phone, 600);
    let first = office.only(&phone);
    office.subscribe(&mut phone, 600);
    office.answer(&first, 481);
    assert_eq!(office.listed(ACME), 1);
    office.accept(&phone);
    let mut publisher = Publisher::new("1001@acme.test");
    office.report(&mut publisher, &[("c1", "early")]);
    let stale = office.only(&phone);
    office.report(&mut publisher, &[("c1", "confirmed")]);
    office.pass(500);
    office.accept(&phone);
    office.answer(&stale, 481);
    assert_eq!(office.listed(ACME), 1);
}

#[test]
fn what_cannot_be_sent_at_all_fails_at_once() {
    // C-021
    let mut office = Office::new();
    let mut phone = Phone::new("a", "1001@acme.test").over_tcp(1);
    office.settle_in(&mut phone, 3600);
    let mut publisher = Publisher::new("1001@acme.test");
    office.report(&mut publisher, &[("c1", "early")]);
    let failed = office.only(&phone);
    office.undeliverable(&failed);
    office.undeliverable(&failed);
    office.pass(5_100);
    assert_eq!(office.accept(&phone).lamp(), "early");
    // If the final NOTIFY cannot be sent, the subscription ends without it.
    office.subscribe(&mut phone, 0);
    let last = office.only(&phone);
    office.publish(&mut publisher, 0, None);
    office.undeliverable(&last);
    office.pass(3_600_000);
    assert!(office.is_empty());
}

#[test]
fn whoever_gets_a_slot_after_another_is_not_concerned_by_his_answers_and_timers() {
    let mut office = Office::new();
    let stay = office.watcher("stay", "1001@acme.test", 3600);
    let mut old = Phone::new("old", "1001@acme.test");
    office.subscribe(&mut old, 60);
    let notify = office.only(&old);
    office.answer(&notify, 481);
    let new = office.watcher("new", "1001@acme.test", 3600);
    office.answer(&notify, 481);
    office.undeliverable(&notify);
    assert_eq!(office.subscribe(&mut old, 60).status, 481);
    office.pass(120_000);
    assert_eq!((office.listed(ACME), office.heard(&new).len(), office.heard(&stay).len()), (2, 0, 0));
}

#[test]
fn timers_of_those_who_left_do_not_pile_up() {
    // rule 7, L-038: phones that come and go leave no more behind than those of one minute.
    let mut office = Office::new();
    let mut most = 0;
    for i in 0..3_000 {
        let mut phone = office.watcher(&i.to_string(), "1001@acme.test", 3600);
        office.subscribe(&mut phone, 0);
        office.accept(&phone);
        office.pass(100);
        most = most.max(office.notifier.wheel.len());
    }
    assert!(most < 800, "{most}");
}

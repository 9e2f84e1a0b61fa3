//! Notifier (RFC 6665): the rows that no other suite checks.

use std::collections::BTreeSet;

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, Phone, Sent, dialog, udp};

/// Subscribes with a changed request.
fn subscribe_changed(office: &mut Office, phone: &mut Phone, from: &str, to: &str) -> Vec<Sent> {
    phone.cseq += 1;
    let request = phone.request(600);
    assert!(request.contains(from), "{request}");
    office.receive(phone.source, &request.replace(from, to))
}

/// The response to a new phone's SUBSCRIBE with another Expires line.
fn answer_to_expires(office: &mut Office, line: &str) -> Sent {
    let mut phone = office.phone("1001", "dialog");
    subscribe_changed(office, &mut phone, "Expires: 600\r\n", line).remove(0)
}

#[test]
fn event_and_id_compare_octet_by_octet() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog;id=a");
    for (event, status) in [("dialog;id=A", 403), ("Dialog;id=a", 489), ("dialog; ID = a ;y", 200), ("dialog", 403)] {
        phone.event = event.into();
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), status, "{event}");
    }
    assert_eq!(office.list().len(), 1);
}

#[test]
fn an_interval_is_too_brief_only_below_the_minimum_and_never_from_an_hour_on() {
    let mut office = Office::with("[presence]\nmin_expires = 3600\n");
    for (asked, status) in [(1, 423), (3_599, 423), (3_600, 200), (7_200, 200)] {
        let answer = answer_to_expires(&mut office, &format!("Expires: {asked}\r\n"));
        assert_eq!(answer.status(), status, "{asked}");
        assert!(status != 423 || answer.header("Min-Expires") == "3600");
    }
    assert_eq!(answer_to_expires(&mut office, "").header("Expires"), "3600");
}

#[test]
fn an_expires_that_is_no_number_of_32_bits_is_refused() {
    let mut office = Office::open();
    for value in ["99999999999", "4294967296", "abc", "-1", "6 0", ""] {
        assert_eq!(answer_to_expires(&mut office, &format!("Expires: {value}\r\n")).status(), 400, "{value}");
    }
    assert_eq!(answer_to_expires(&mut office, "Expires: 4294967295\r\n").header("Expires"), "3600");
    assert_eq!(office.list().len(), 1);
}

#[test]
fn every_subscribe_is_answered_200_and_has_its_notify_though_the_phone_has_had_too_many_already() {
    let mut office = Office::open();
    let mut keys = Vec::new();
    let first = office.phone("1001", "dialog;max-rate=0.01");
    for i in 0..100 {
        let mut key = Phone { target: format!("sip:{i}@acme.test"), call_id: format!("key{i}"), ..first.clone() };
        for expires in [600, 300, 0] {
            if expires == 0 && i % 2 == 0 {
                continue;
            }
            let sent = key.subscribe(&mut office, expires);
            assert_eq!((sent.len(), sent[0].status(), sent[1].is_notify()), (2, 200, true), "{i} {expires}");
            key.answer(&mut office, &sent[1], 200);
        }
        keys.push(key);
    }
    let mut fetch = Phone { call_id: "fetch".into(), ..first };
    assert_eq!(fetch.subscribe(&mut office, 0).len(), 2);
}

#[test]
fn every_end_of_a_subscription_is_told_with_its_reason_and_without_expires() {
    let mut office = Office::open();
    let (mut ended, mut fetched) = (office.settled("1001", "dialog"), office.phone("1001", "dialog"));
    office.settled("1003", "dialog");
    let mut last = vec![ended.subscribe(&mut office, 0).remove(1), fetched.subscribe(&mut office, 0).remove(1)];
    last.push(office.pass_quietly(600_300).into_iter().find(|sent| sent.text.contains("sip:1003@")).unwrap());
    for notify in last {
        assert_eq!(notify.header("Subscription-State"), "terminated;reason=timeout");
    }
}

#[test]
fn two_servers_behind_a_fork_make_two_dialogs() {
    let (mut one, mut other) = (Office::open(), Office::open());
    other.crash();
    let mut phone = one.phone("1001", "dialog");
    let mut copy = phone.clone();
    let (sent, forked) = (phone.subscribe(&mut one, 600), copy.subscribe(&mut other, 600));
    assert_ne!(sent[0].header("To"), forked[0].header("To"));
    assert_eq!(copy.subscribe(&mut one, 600)[0].status(), 481, "neither takes the other's");
    // A forked SUBSCRIBE arrives twice with two branches through one server: it creates one dialog, and the second is
    // refused with a reason.
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.cseq = 1;
    let request = phone.request(600);
    assert_eq!(office.receive(phone.source, &request)[0].status(), 200);
    let merged = office.receive(phone.source, &request.replace("branch=z9hG4bK", "branch=z9hG4bKfork"));
    assert_eq!((merged.len(), merged[0].status(), office.list().len()), (1, 482, 1));
}

#[test]
fn a_dialog_ends_with_its_subscription() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let options = |phone: &Phone, n: u32| {
        let request = phone.request(600).replace("SUBSCRIBE", "OPTIONS");
        request.replace("branch=z9hG4bK", &format!("branch=z9hG4bKo{n}"))
    };
    assert_eq!(office.receive(phone.source, &options(&phone, 1))[0].status(), 200);
    phone.subscribe(&mut office, 0);
    assert_eq!(office.receive(phone.source, &options(&phone, 2))[0].status(), 481);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);
}

#[test]
fn our_contact_leads_to_this_instance() {
    let mut office = Office::open();
    let (_, sent) = office.watch("1001", "dialog");
    for message in &sent {
        assert_eq!(message.header("Contact"), "<sip:1001@192.0.2.1:5060>");
        assert_eq!(message.text.matches("\r\nContact: ").count(), 1);
    }
}

#[test]
fn allow_events_names_what_is_served_and_nothing_else() {
    let mut office = Office::with("[presence]\npackages = [\"message-summary\", \"dialog\"]\n");
    let (phone, sent) = office.watch("1001", "dialog");
    let options = phone.request(600).replace("SUBSCRIBE", "OPTIONS").replace("branch=z9hG4bK", "branch=z9hG4bKo");
    let refused = office.watch("1001", "presence").1;
    assert_eq!((refused.len(), refused[0].status()), (1, 489));
    for answer in [&sent[0], &office.receive(phone.source, &options)[0], &refused[0]] {
        assert_eq!(answer.header("Allow-Events"), "message-summary, dialog", "{}", answer.text);
    }
}

#[test]
fn a_cancel_does_nothing_to_a_subscribe() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    let sent = phone.subscribe(&mut office, 600);
    let first = Phone { to_tag: None, ..phone.clone() }.request(600);
    let cancel = office.receive(phone.source, &first.replace("SUBSCRIBE", "CANCEL"));
    assert_eq!(cancel[0].status(), 200);
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!((office.list().len(), office.set("1001", Early).len()), (1, 1));
}

#[test]
fn a_notify_to_us_is_not_allowed() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let notify = phone.request(600).replace("SUBSCRIBE", "NOTIFY").replace("branch=z9hG4bK", "branch=z9hG4bKn");
    let sent = office.receive(phone.source, &notify);
    assert_eq!((sent.len(), sent[0].status()), (1, 405));
    assert_eq!(sent[0].header("Allow"), "OPTIONS, SUBSCRIBE, PUBLISH");
}

#[test]
fn nobody_is_told_who_has_not_subscribed() {
    let mut office = Office::open();
    assert_eq!(office.publish("1001", None, &dialog("c1", "early")).len(), 1);
    assert_eq!(office.set("1001", Confirmed), []);
    assert_eq!(office.reset("1001"), []);
    assert_eq!(office.set("1001", Terminated), []);
    let summary = "Messages-Waiting: yes\r\n";
    let sent = office.publish_body("1001", None, 60, "message-summary", "application/simple-message-summary", summary);
    assert_eq!(sent.len(), 1);
    assert_eq!(office.pass_quietly(7_200_000), []);
}

#[test]
fn the_accept_of_a_refresh_counts_for_what_follows() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.more = "Accept: application/pidf+xml\r\n".into();
    let refused = phone.subscribe(&mut office, 600);
    assert_eq!((refused.len(), refused[0].status()), (1, 406));
    assert_eq!(refused[0].header("Accept"), "application/dialog-info+xml");
    // There is one content type per package, so the one accepted before is still sent.
    assert_eq!(office.set("1001", Early)[0].header("Content-Type"), "application/dialog-info+xml");
}

#[test]
fn a_filter_is_refused_with_what_is_understood_and_one_without_words_is_none() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    let head = "Content-Type: application/simple-filter+xml\r\nContent-Length: ";
    let refused =
        subscribe_changed(&mut office, &mut phone, "Content-Length: 0\r\n\r\n", &format!("{head}3\r\n\r\n<a>"));
    assert_eq!((refused.len(), refused[0].status()), (1, 415));
    assert_eq!(refused[0].header("Accept"), "application/dialog-info+xml");
    let sent = subscribe_changed(&mut office, &mut phone, "Content-Length: 0\r\n\r\n", &format!("{head}0\r\n\r\n"));
    assert_eq!(sent[0].status(), 200);
}

#[test]
fn ten_thousand_subscriptions_with_one_contact_are_told_apart_by_their_dialogs() {
    let mut office = Office::open();
    // The subscriptions of a proxy are not counted per address.
    let one = Phone { source: udp("127.0.0.7:5060"), ..office.phone("1001", "dialog") };
    for i in 0..10_000 {
        let user = i % 100;
        let mut phone = Phone { target: format!("sip:{user}@acme.test"), call_id: format!("c{i}"), ..one.clone() };
        let sent = phone.subscribe(&mut office, 600);
        phone.answer(&mut office, &sent[1], 200);
    }
    assert_eq!(office.list().len(), 10_000);
    let mut told = BTreeSet::new();
    let mut sent = office.set("7", Early);
    for _ in 0..60 {
        for notify in &sent {
            assert_eq!(notify.states(), ["early"]);
            assert!(told.insert(notify.message().call_id.to_string()));
            one.answer(&mut office, notify, 200);
        }
        sent = office.pass_quietly(200);
    }
    assert_eq!(told, (0..100).map(|n| format!("c{}", n * 100 + 7)).collect());
}

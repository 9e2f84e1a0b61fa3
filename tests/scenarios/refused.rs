//! A change that the journal refuses has not happened (rule 5): memory, lamp, watchers and entity-tag are as before.

use lamplighter::notifier::Outbox;
use lamplighter::presence::state::CallState::{Confirmed, Early};

use crate::office::{ACME, Office, Phone, Sent, dialog, udp};

const PUBLISHER: &str = "203.0.113.9:5060";

/// State of an extension that a new watcher sees.
fn lamp(office: &mut Office, user: &str) -> Vec<String> {
    let mut phone = office.phone(user, "dialog");
    let sent = phone.subscribe(office, 0);
    phone.answer(office, &sent[1], 200);
    sent[1].states()
}

fn statuses(sent: &[Sent]) -> Vec<u16> {
    sent.iter().map(Sent::status).collect()
}

/// A PUBLISH is decided, and the journal refuses it.
fn refused_publish(office: &mut Office, request: &str) -> Vec<Sent> {
    let out = office.decide(|notifier, now, out| notifier.receive(now, udp(PUBLISHER), request.as_bytes(), out));
    assert!(!out.records.is_empty());
    office.refuse(out)
}

fn refused_subscribe(office: &mut Office, phone: &mut Phone, expires: u32) -> Vec<Sent> {
    phone.cseq += 1;
    let request = phone.request(expires);
    let out = office.decide(|notifier, now, out| notifier.receive(now, phone.source, request.as_bytes(), out));
    office.refuse(out)
}

#[test]
fn a_refused_publish_leaves_lamp_watchers_and_entity_tag_as_they_were() {
    let mut office = Office::open();
    let etag = office.publish("1001", None, &dialog("c1", "terminated"))[0].header("SIP-ETag").to_string();
    let phone = office.settled("1001", "dialog");
    let request = office.publish_request("1001", Some(&etag), 3600, &dialog("c2", "confirmed"));
    let sent = refused_publish(&mut office, &request);
    assert_eq!(statuses(&sent), [503], "and no watcher is told");
    assert!(sent[0].header("Retry-After").parse::<u32>().unwrap() > 0);
    assert_eq!(lamp(&mut office, "1001"), ["terminated"]);
    assert_eq!(office.pass_quietly(40_000), [], "nothing that was under way comes later");
    // The publisher continues with its previous entity-tag.
    let sent = office.publish("1001", Some(&etag), &dialog("c2", "confirmed"));
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["confirmed".to_string()]));
    phone.answer(&mut office, &sent[1], 200);
    let etag = sent[0].header("SIP-ETag").to_string();
    let sent = office.publish("1001", Some(&etag), &dialog("c2", "terminated"));
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["terminated".to_string()]));
}

#[test]
fn a_refused_first_publish_has_made_no_publication() {
    let mut office = Office::open();
    let request = office.publish_request("1001", None, 3600, &dialog("c1", "early"));
    assert_eq!(statuses(&refused_publish(&mut office, &request)), [503]);
    assert_eq!(lamp(&mut office, "1001"), ["terminated"]);
    assert!(office.notifier.list_publications(ACME, None).is_empty());
    office.compact();
    assert!(office.crash().states == 0 && office.notifier.list_publications(ACME, None).is_empty());
}

#[test]
fn a_refused_removal_leaves_the_publication_and_its_expiry() {
    let mut office = Office::open();
    let etag = office.publish("1001", None, &dialog("c1", "early"))[0].header("SIP-ETag").to_string();
    let request = office.publish_request("1001", Some(&etag), 0, "");
    assert_eq!(statuses(&refused_publish(&mut office, &request)), [503]);
    assert_eq!(lamp(&mut office, "1001"), ["early"]);
    let refreshed = office.publish_body("1001", Some(&etag), 60, "dialog", "", "");
    assert_eq!(refreshed[0].status(), 200);
    office.pass(61_000);
    assert_eq!(lamp(&mut office, "1001"), ["terminated"], "its timer is there as well");
}

#[test]
fn changes_that_were_made_one_upon_the_other_are_undone_together_in_whichever_order_they_are_refused() {
    for later_first in [false, true] {
        let mut office = Office::open();
        let phone = office.settled("1001", "dialog");
        let decide = |office: &mut Office, call: &str| {
            let request = office.publish_request("1001", None, 3600, &dialog(call, "confirmed"));
            office.decide(|notifier, now, out| notifier.receive(now, udp(PUBLISHER), request.as_bytes(), out))
        };
        let mut outs: Vec<Outbox> = ["c1", "c2"].iter().map(|call| decide(&mut office, call)).collect();
        if later_first {
            outs.reverse();
        }
        let sent: Vec<_> = outs.into_iter().flat_map(|out| office.refuse(out)).collect();
        assert_eq!(statuses(&sent), [503, 503], "later first: {later_first}");
        assert_eq!(lamp(&mut office, "1001"), ["terminated"]);
        assert!(office.notifier.list_publications(ACME, None).is_empty());
        assert_eq!(office.pass_quietly(40_000), []);
        drop(phone);
    }
}

#[test]
fn a_refused_change_whose_record_a_later_one_has_kept_has_happened() {
    let mut office = Office::open();
    let request = office.publish_request("1001", None, 3600, &dialog("c1", "confirmed"));
    let out = office.decide(|notifier, now, out| notifier.receive(now, udp(PUBLISHER), request.as_bytes(), out));
    // Its records were appended before those of the change that it depends on.
    office.publish("1001", None, &dialog("c2", "confirmed"));
    assert_eq!(office.refuse(out), [], "it is not known yet whether the later one will be refused, too");
    office.now += 1_000;
    let mut out = Outbox::default();
    assert!(!office.notifier.finish_rollbacks(lamplighter::presence::Tick(office.now), &mut out));
    let answer = lamplighter::sip::wire::read(&out.messages[0].bytes).unwrap().unwrap().status();
    assert_eq!((answer, lamp(&mut office, "1001").len()), (Some(200), 2));
}

#[test]
fn a_refused_set_and_a_refused_reset_change_nothing() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let out = office.decide(|notifier, now, out| notifier.set(now, ACME, "1001", Confirmed, out).unwrap());
    assert_eq!(office.refuse(out), []);
    assert_eq!(lamp(&mut office, "1001"), ["terminated"]);
    let sent = office.set("1001", Early);
    phone.answer(&mut office, &sent[0], 200);
    let out = office.decide(|notifier, now, out| notifier.reset(now, ACME, "1001", out));
    office.refuse(out);
    assert_eq!(lamp(&mut office, "1001"), ["early"]);
    office.reset("1001");
    let out = office.decide(|notifier, now, out| notifier.set(now, ACME, "1003", Confirmed, out).unwrap());
    assert_eq!(office.refuse(out), []);
    assert_eq!(lamp(&mut office, "1003"), ["terminated"], "nothing else was known of it");
}

#[test]
fn a_refused_subscription_is_not_there() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    assert_eq!(statuses(&refused_subscribe(&mut office, &mut phone, 600)), [503]);
    assert_eq!((office.notifier.subscriptions(), office.list().len()), (0, 0));
    assert_eq!(office.set("1001", Early), []);
    assert_eq!(office.pass_quietly(700_000), []);
    assert_eq!(phone.subscribe(&mut office, 600)[1].states(), ["early"]);
}

#[test]
fn a_refused_refresh_leaves_the_time_that_was_granted_and_a_refused_end_the_subscription() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    office.pass(100_000);
    assert_eq!(statuses(&refused_subscribe(&mut office, &mut phone, 3600)), [503]);
    assert_eq!(office.list()[0].expires, 600);
    assert_eq!(statuses(&refused_subscribe(&mut office, &mut phone, 0)), [503]);
    assert_eq!(office.list().len(), 1);
    let sent = office.set("1001", Early);
    assert_eq!(sent[0].header("Subscription-State"), "active;expires=500");
    phone.answer(&mut office, &sent[0], 200);
    let sent = office.pass(501_000);
    assert_eq!(sent[0].1.header("Subscription-State"), "terminated;reason=timeout");
    assert!((499_000..=500_500).contains(&sent[0].0), "{}", sent[0].0);
}

#[test]
fn a_phone_that_subscribes_anew_and_is_refused_keeps_the_subscription_that_it_had() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.instance = ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"".into();
    let sent = phone.subscribe(&mut office, 600);
    phone.answer(&mut office, &sent[1], 200);
    let mut rebooted = Phone { call_id: "again".into(), to_tag: None, cseq: 0, ..phone.clone() };
    assert_eq!(statuses(&refused_subscribe(&mut office, &mut rebooted, 600)), [503]);
    assert_eq!(office.list().iter().map(|s| s.call_id.clone()).collect::<Vec<_>>(), [phone.call_id.clone()]);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
    assert_eq!(office.notifier.subscriptions(), 1);
}

#[test]
fn a_subscription_that_a_rollback_brings_back_has_its_notify_under_way() {
    let subscribed_anew = |office: &mut Office| {
        let mut phone = office.phone("1001", "dialog");
        phone.instance = ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"".into();
        let sent = phone.subscribe(office, 600);
        phone.answer(office, &sent[1], 200);
        let notify = office.set("1001", Early).remove(0);
        let mut rebooted = Phone { call_id: "again".into(), to_tag: None, cseq: 0, ..phone.clone() };
        assert_eq!(statuses(&refused_subscribe(office, &mut rebooted, 600)), [503]);
        (phone, notify)
    };
    let mut office = Office::open();
    let (phone, notify) = subscribed_anew(&mut office);
    let sent = office.pass(600);
    assert_eq!(sent.iter().map(|(at, sent)| (*at, &sent.text)).collect::<Vec<_>>(), [(500, &notify.text)]);
    assert_eq!(phone.answer(&mut office, &notify, 200), []);
    assert_eq!(office.pass_quietly(40_000), [], "it is acknowledged");
    office.compact();
    assert_eq!(office.crash().behind, 0, "and that is kept");

    let mut office = Office::open();
    let (phone, notify) = subscribed_anew(&mut office);
    assert_eq!(phone.answer(&mut office, &notify, 481), []);
    assert_eq!(office.notifier.subscriptions(), 0, "its phone does not have it any more");
}

#[test]
fn what_has_expired_before_a_rollback_is_shown_to_nobody_again() {
    let mut office = Office::open();
    let request = office.publish_request("1001", None, 60, &dialog("c1", "confirmed"));
    office.receive(udp(PUBLISHER), &request);
    let phone = office.settled("1001", "dialog");
    office.pass(59_000);
    let request = office.publish_request("1001", None, 3600, &dialog("c2", "early"));
    let out = office.decide(|notifier, now, out| notifier.receive(now, udp(PUBLISHER), request.as_bytes(), out));
    office.pass(2_000);
    let sent = [office.refuse(out), office.pass_quietly(10_000)].concat();
    let shown = sent.into_iter().filter(Sent::is_notify).map(|sent| sent.states());
    assert!(shown.flatten().all(|state| state != "confirmed"), "the first call is over");
    assert_eq!(lamp(&mut office, "1001"), ["terminated"]);
    drop(phone);
}

#[test]
fn an_end_by_hand_that_is_refused_leaves_the_subscription() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let id = phone.to_tag.clone().unwrap();
    let out = office.decide(|notifier, now, out| assert!(notifier.end(now, ACME, &id, out)));
    assert_eq!(office.refuse(out), []);
    assert_eq!(office.set("1001", Early)[0].states(), ["early"]);
}

#[test]
fn an_expiry_that_is_refused_has_happened_and_is_kept_later() {
    let mut office = Office::open();
    office.publish_body("1001", None, 60, "message-summary", "application/simple-message-summary", MAIL);
    office.disk.clear();
    let phone = office.settled("1001", "message-summary");
    office.now += 60_500;
    let out = office.decide(|notifier, now, out| notifier.pass_time(now, out));
    assert!(!out.records.is_empty());
    let keys: Vec<_> = out.records.iter().map(|record| record.key).collect();
    let told = office.refuse(out);
    assert!(told[0].body().contains("Messages-Waiting: no"), "{}", told[0].text);
    assert!(keys.iter().any(|key| office.disk.contains_key(key)), "what holds is written when the journal can");
    drop(phone);
}

const MAIL: &str = "Messages-Waiting: yes\r\nVoice-Message: 1/0\r\n";

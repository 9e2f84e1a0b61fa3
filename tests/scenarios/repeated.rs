//! A request that is repeated across a crash, because its response was lost, gets the response that it would have had,
//! and has one effect (RFC 3261 section 17.2).

use lamplighter::presence::state::CallState::Early;

use crate::office::{ACME, Office, dialog, udp};

const PUBLISHER: &str = "203.0.113.9:5060";

fn publications(office: &Office) -> Vec<String> {
    office.notifier.list_publications(ACME, None).into_iter().map(|p| p.etag).collect()
}

fn lamp(office: &mut Office) -> Vec<String> {
    let mut phone = office.phone("1001", "dialog");
    phone.subscribe(office, 0)[1].states()
}

/// Sends a PUBLISH, loses the response, crashes the server this many times (with compactions in between), and sends it
/// again; returns both entity-tags.
fn over_crashes(office: &mut Office, request: &str, crashes: usize) -> (String, String) {
    let first = office.receive(udp(PUBLISHER), request)[0].header("SIP-ETag").to_string();
    for crash in 0..crashes {
        office.crash();
        office.now += 700;
        if crash % 2 == 0 {
            office.compact();
        }
    }
    let again = office.receive(udp(PUBLISHER), request);
    assert_eq!(again[0].status(), 200, "{}", again[0].text);
    (first, again[0].header("SIP-ETag").to_string())
}

#[test]
fn a_first_publish_makes_one_publication() {
    for crashes in 1..=3 {
        let mut office = Office::open();
        let request = office.publish_request("1001", None, 3600, &asterisk("confirmed"));
        let (first, again) = over_crashes(&mut office, &request, crashes);
        assert_eq!((first == again, publications(&office)), (true, vec![again.clone()]));
        let ended = office.publish("1001", Some(&again), &asterisk("terminated"));
        assert_eq!((ended[0].status(), lamp(&mut office)), (200, vec!["terminated".to_string()]));
    }
}

#[test]
fn a_change_and_a_refresh_are_answered_with_the_present_entity_tag() {
    for body in [asterisk("confirmed"), String::new()] {
        let mut office = Office::open();
        let etag = office.publish("1001", None, &asterisk("early"))[0].header("SIP-ETag").to_string();
        let request = office.publish_request("1001", Some(&etag), 3600, &body);
        let (first, again) = over_crashes(&mut office, &request, 2);
        assert_eq!((first, publications(&office)), (again.clone(), vec![again]));
    }
}

#[test]
fn a_removal_is_answered_200_again_and_only_for_as_long_as_it_may_be_repeated() {
    let mut office = Office::open();
    let etag = office.publish("1001", None, &asterisk("early"))[0].header("SIP-ETag").to_string();
    let request = office.publish_request("1001", Some(&etag), 0, "");
    let (first, again) = over_crashes(&mut office, &request, 2);
    assert_eq!((first, publications(&office).len()), (again, 0));
    assert_eq!(office.publish("1001", Some(&etag), &asterisk("early"))[0].status(), 412, "another request");
    office.pass(65_000);
    office.compact();
    office.crash();
    assert_eq!(office.receive(udp(PUBLISHER), &request)[0].status(), 412);
    assert!(office.disk.is_empty(), "nothing of it is left");
}

#[test]
fn the_entity_tag_before_is_accepted_until_the_present_one_was_used() {
    let mut office = Office::open();
    let old = office.publish("1001", None, &asterisk("early"))[0].header("SIP-ETag").to_string();
    office.publish("1001", Some(&old), &asterisk("confirmed"));
    assert_eq!(
        office.publish("1001", Some(&old), &asterisk("early"))[0].status(),
        412,
        "without a restart it is stale"
    );
    office.crash();
    // The publisher never got the response, gave that request up and publishes something new.
    let sent = office.publish("1001", Some(&old), &asterisk("terminated"));
    assert_eq!((sent[0].status(), lamp(&mut office)), (200, vec!["terminated".to_string()]));
    assert_eq!(office.publish("1001", Some(&old), &asterisk("early"))[0].status(), 412);
    assert_eq!(publications(&office).len(), 1);
}

#[test]
fn a_copy_of_the_first_publish_that_comes_when_its_publication_has_moved_on_makes_no_other() {
    let mut office = Office::open();
    let first = office.publish_request("1001", None, 3600, &asterisk("confirmed"));
    let etag = office.receive(udp(PUBLISHER), &first)[0].header("SIP-ETag").to_string();
    let etag = office.publish("1001", Some(&etag), &asterisk("terminated"))[0].header("SIP-ETag").to_string();
    office.crash();
    assert_eq!(office.receive(udp(PUBLISHER), &first)[0].header("SIP-ETag"), etag);
    assert_eq!((publications(&office).len(), lamp(&mut office)), (1, vec!["terminated".to_string()]));
}

#[test]
fn another_request_is_no_repetition() {
    let mut office = Office::open();
    office.publish("1001", None, &dialog("c1", "early"));
    office.crash();
    office.publish("1001", None, &dialog("c2", "early"));
    assert_eq!(publications(&office).len(), 2);
}

#[test]
fn a_subscribe_makes_one_subscription_with_one_tag() {
    for instance in ["", ";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\""] {
        let mut office = Office::open();
        let mut phone = office.phone("1001", "dialog");
        phone.instance = instance.into();
        phone.subscribe(&mut office, 600);
        let (request, tag) = (phone.clone(), phone.to_tag.take());
        office.crash();
        office.now += 1_000;
        let unanswered = crate::office::Phone { to_tag: None, ..request };
        let sent = office.receive(unanswered.source, &unanswered.request(600));
        assert_eq!((sent[0].status(), sent[0].header("Expires")), (200, "600"));
        assert!(sent[0].header("To").ends_with(&format!(";tag={}", tag.unwrap())), "{}", sent[0].text);
        assert_eq!((office.list().len(), office.notifier.subscriptions()), (1, 1));
        let told = office.pass_quietly(2_000);
        assert_eq!(told[0].states(), ["terminated"], "and the state: it may not have been told");
    }
}

#[test]
fn a_refresh_and_an_end_are_answered_again() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.subscribe(&mut office, 900);
    office.crash();
    office.now += 1_000;
    let sent = office.receive(phone.source, &phone.request(900));
    assert_eq!((sent[0].status(), sent[0].header("Expires"), office.list()[0].expires), (200, "900", 900));
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200, "and goes on");
    office.receive(phone.source, &phone.request(600));
    let older = crate::office::Phone { cseq: phone.cseq - 1, ..phone.clone() };
    office.crash();
    assert_eq!(office.receive(older.source, &older.request(600))[0].status(), 500, "out of order");
    phone.subscribe(&mut office, 0);
    office.crash();
    office.now += 1_000;
    let sent = office.receive(phone.source, &phone.request(0));
    assert_eq!((sent[0].status(), sent[0].header("Expires"), sent.len()), (200, "0", 1));
    phone.cseq += 1;
    assert_eq!(office.receive(phone.source, &phone.request(600))[0].status(), 481, "another request");
}

#[test]
fn a_lamp_is_right_after_a_call_whose_publisher_saw_a_crash() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let request = office.publish_request("1001", None, 3600, &asterisk("confirmed"));
    let (_, etag) = over_crashes(&mut office, &request, 1);
    office.publish("1001", Some(&etag), &asterisk("terminated"));
    let last = office.pass_quietly(3_000);
    assert_eq!(last.iter().rev().find(|sent| sent.is_notify()).unwrap().states(), ["terminated"]);
    assert_eq!(office.set("1001", Early).len(), 0, "the NOTIFY under way is not answered yet");
    drop(phone);
}

/// A dialog as Asterisk publishes it, without a Call-ID.
fn asterisk(state: &str) -> String {
    format!("<dialog id=\"1001\"><state>{state}</state></dialog>")
}

#[test]
fn a_publish_that_is_repeated_when_its_publication_has_expired_makes_no_other() {
    let mut office = Office::open();
    let request = office.publish_request("1001", None, 10, &asterisk("confirmed"));
    let etag = office.receive(udp(PUBLISHER), &request)[0].header("SIP-ETag").to_string();
    office.pass(8_000);
    office.crash();
    office.pass(4_000);
    let again = office.receive(udp(PUBLISHER), &request);
    assert_eq!((again[0].header("SIP-ETag"), again[0].header("Expires")), (etag.as_str(), "10"));
    assert_eq!((publications(&office).len(), lamp(&mut office)), (0, vec!["terminated".to_string()]));
}

#[test]
fn a_late_repetition_of_a_phone_that_has_moved_makes_no_second_subscription() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    let sent = phone.subscribe(&mut office, 600);
    let request = phone.request(600).replace(&format!(";tag={}", phone.to_tag.clone().unwrap()), "");
    phone.answer(&mut office, &sent[1], 200);
    // The first retransmission came quickly, the last one after five seconds.
    office.pass(36_900);
    let moved = udp("198.51.100.77:5060");
    let again = office.receive(moved, &request);
    assert_eq!((again[0].status(), office.notifier.subscriptions()), (200, 1), "{}", again[0].text);
    assert_eq!(again[0].header("To"), sent[0].header("To"));
}

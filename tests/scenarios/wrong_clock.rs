//! A clock that was wrong before or after a restart can only shorten lifetimes: none exceeds the granted one.

use crate::office::{Office, dialog};

const TEN_DAYS: u64 = 864_000_000;

#[test]
fn what_was_granted_when_the_clock_was_ahead_ends_in_time() {
    let mut office = Office::open();
    office.now += TEN_DAYS;
    let phone = office.settled("1001", "dialog");
    office.publish_body("1001", None, 10, "dialog", "application/dialog-info+xml", &document("c1"));
    office.publish_body("1003", None, 5, "dialog", "application/dialog-info+xml", &document("c2"));
    office.now -= TEN_DAYS;
    office.crash();
    let told = office.pass(1_000).remove(0).1;
    let expires = told.header("Subscription-State").strip_prefix("active;expires=").unwrap().to_string();
    assert!(expires.parse::<u32>().unwrap() <= 600, "{expires}");
    phone.answer(&mut office, &told, 200);
    let states: Vec<_> = office.pass_quietly(10_000).iter().map(|sent| sent.states()).collect();
    assert_eq!(states.last(), Some(&vec!["terminated".to_string()]), "{states:?}");
    assert!(office.notifier.list_publications(crate::office::ACME, None).is_empty());
    assert_eq!(office.list().len(), 1);
    office.pass(600_000);
    assert_eq!(office.list(), []);
}

#[test]
fn ringing_calls_and_ended_ones_do_not_stay_longer_either() {
    let mut office = Office::open();
    office.now += TEN_DAYS;
    let ringing = office.publish("1001", None, &dialog("c1", "early"))[0].header("SIP-ETag").to_string();
    let ended = office.publish("1003", None, &dialog("c2", "early"))[0].header("SIP-ETag").to_string();
    office.publish("1003", Some(&ended), &dialog("c2", "terminated"));
    office.now -= TEN_DAYS;
    office.crash();
    office.pass(601_000);
    let refreshed = office.publish_body("1001", Some(&ringing), 3600, "dialog", "", "");
    assert_eq!(refreshed[0].status(), 200);
    let mut phone = office.phone("1001", "dialog");
    assert_eq!(phone.subscribe(&mut office, 0)[1].states(), ["terminated"], "it has rung for ten minutes");
    office.publish("1003", None, &dialog("c2", "early"));
    let mut phone = office.phone("1003", "dialog");
    assert_eq!(phone.subscribe(&mut office, 0)[1].states(), ["early"], "its tombstone lasts five minutes");
}

#[test]
fn a_clock_that_goes_ahead_over_a_restart_ends_what_it_says_has_ended() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    office.publish("1001", None, &dialog("c1", "early"));
    office.now += TEN_DAYS;
    office.crash();
    let sent = office.pass_quietly(1_000);
    assert!(sent.iter().any(|sent| sent.header("Subscription-State") == "terminated;reason=timeout"));
    drop(phone);
}

#[test]
fn dormant_records_and_remembered_requests_do_not_stay_longer_either() {
    let mut office = Office::open();
    office.now += TEN_DAYS;
    let mut phone = office.settled("1001", "dialog");
    let etag = office.publish("1003", None, &dialog("c1", "early"))[0].header("SIP-ETag").to_string();
    office.publish_body("1003", Some(&etag), 0, "dialog", "", "");
    phone.subscribe(&mut office, 0);
    office.settled("1004", "dialog");
    office.now -= TEN_DAYS;
    office.crash_into(&[("umbrella", "umbrella.test")]);
    office.pass(700_000);
    assert_eq!(office.notifier.dormant_records(), 0);
    office.compact();
    assert!(office.disk.is_empty(), "{:?}", office.disk.keys());
}

fn document(call: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" \
         state=\"full\" entity=\"sip:1001@acme.test\">{}</dialog-info>",
        dialog(call, "confirmed")
    )
}

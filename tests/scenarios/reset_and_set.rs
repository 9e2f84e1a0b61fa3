//! Reset and set, as Kazoo's presence API requests them.

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, dialog};

#[test]
fn a_reset_brings_every_watcher_of_every_package_exactly_one_notify() {
    let mut office = Office::open();
    let phones: Vec<_> = ["dialog", "presence", "message-summary"]
        .iter()
        .flat_map(|event| [*event; 3])
        .map(|event| office.settled("1001", event))
        .collect();
    for (phone, notify) in phones.iter().zip(office.reset("1001")) {
        phone.answer(&mut office, &notify, 200);
    }
    let sent = office.reset("1001");
    assert_eq!(sent.len(), phones.len(), "also where nothing has changed");
    for notify in &sent {
        let phone = phones.iter().find(|p| p.call_id == notify.message().call_id).unwrap();
        assert_eq!(phone.answer(&mut office, notify, 200), []);
    }
    assert_eq!(office.pass_quietly(60_000), []);
}

#[test]
fn a_reset_darkens_the_lamp_keeps_notes_and_counts_and_revives_nothing() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "confirmed"));
    let etag = sent[0].header("SIP-ETag").to_string();
    phone.answer(&mut office, &sent[1], 200);
    let note = "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:1001@acme.test\"><tuple id=\"a\"><status>\
                <basic>open</basic></status><note>In the lab</note></tuple></presence>";
    office.publish_body("1001", None, 600, "presence", "application/pidf+xml", note);
    let summary = "Messages-Waiting: yes\r\nVoice-Message: 2/1\r\n";
    office.publish_body("1001", None, 600, "message-summary", "application/simple-message-summary", summary);

    let sent = office.reset("1001");
    assert_eq!((sent.len(), sent[0].dialogs()), (1, vec![("idle".to_string(), "terminated".to_string())]));
    phone.answer(&mut office, &sent[0], 200);
    let (_, presence) = office.watch("1001", "presence");
    assert!(presence[1].body().contains("<basic>open</basic>") && presence[1].body().contains("In the lab"));
    let (_, messages) = office.watch("1001", "message-summary");
    assert!(messages[1].body().contains("Voice-Message: 2/1"));

    // The entity-tag is still valid, but a refresh without body does not restore the call.
    let refreshed = office.publish_body("1001", Some(&etag), 600, "dialog", "", "");
    assert_eq!((refreshed.len(), refreshed[0].status()), (1, 200));
    // The next full document with the live call lights the lamp again.
    let etag = refreshed[0].header("SIP-ETag").to_string();
    let again = office.publish("1001", Some(&etag), &dialog("c1", "confirmed"));
    assert_eq!(again[1].states(), ["confirmed"]);
}

#[test]
fn a_reset_leaves_subscriptions_alone_and_an_unknown_extension_is_nothing() {
    let mut office = Office::open();
    office.settled("1001", "dialog");
    let before = office.list();
    assert_eq!(office.reset("1001").len(), 1);
    let after = office.list();
    assert_eq!((&before[0].call_id, before[0].expires), (&after[0].call_id, after[0].expires));
    assert_eq!(office.reset("4711"), []);
}

#[test]
fn a_manual_state_stands_beside_the_calls_and_hides_none() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    assert_eq!(sent[0].dialogs(), [("manual".to_string(), "early".to_string())]);
    phone.answer(&mut office, &sent[0], 200);
    let sent = office.publish("1001", None, &dialog("c1", "confirmed"));
    let ids: Vec<_> = sent[1].dialogs().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["manual", "c1"]);
    phone.answer(&mut office, &sent[1], 200);
    let sent = office.set("1001", Terminated);
    assert_eq!(sent[0].dialogs(), [("c1".to_string(), "confirmed".to_string())], "it masks nothing");
}

#[test]
fn a_manual_state_is_there_for_who_comes_later_and_ends_with_a_reset() {
    let mut office = Office::open();
    office.set("1001", Confirmed);
    office.pass(100_000_000);
    let (phone, sent) = office.watch("1001", "presence");
    assert!(sent[1].body().contains("<rpid:on-the-phone/>"));
    phone.answer(&mut office, &sent[1], 200);
    let sent = office.reset("1001");
    assert!(!sent[0].body().contains("on-the-phone"));
}

#[test]
fn extensions_compare_without_case_and_the_listing_shows_what_was_answered() {
    let mut office = Office::open();
    let phone = office.settled("abc", "dialog");
    let sent = office.reset("ABC");
    assert_eq!(office.list()[0].last.as_ref().map(|last| last.cseq), Some(1), "not answered yet");
    phone.answer(&mut office, &sent[0], 200);
    let record = office.list().remove(0);
    let last = record.last.unwrap();
    assert_eq!((last.cseq, last.reply, &*last.body), (2, 200, sent[0].body()));
    assert_eq!((&*record.user, &*record.from, record.expires), ("abc", "1002@acme.test", 600));
}

//! Publications (RFC 3903) and the calls composed from them (rule 4).

use crate::office::{Office, Sent, dialog};

fn etag(sent: &[Sent]) -> String {
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    sent[0].header("SIP-ETag").to_string()
}

/// States in the only NOTIFY among the messages sent; none if there is none.
fn told(sent: &[Sent]) -> Option<Vec<String>> {
    assert!(sent.len() <= 2, "{sent:?}");
    sent.get(1).map(Sent::states)
}

fn some(states: &[&str]) -> Option<Vec<String>> {
    Some(states.iter().map(ToString::to_string).collect())
}

#[test]
fn a_publication_is_made_changed_refreshed_and_withdrawn_under_ever_new_entity_tags() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    let first = etag(&sent);
    assert_eq!(told(&sent), some(&["early"]));
    phone.answer(&mut office, &sent[1], 200);
    let sent = office.publish("1001", Some(&first), &dialog("c1", "confirmed"));
    let second = etag(&sent);
    assert_eq!(told(&sent), some(&["confirmed"]));
    phone.answer(&mut office, &sent[1], 200);
    let sent = office.publish_body("1001", Some(&second), 600, "dialog", "", "");
    let third = etag(&sent);
    assert_eq!((told(&sent), sent[0].header("Expires")), (None, "600"), "a refresh changes nothing");
    for old in [&first, &second] {
        assert_eq!(office.publish_body("1001", Some(old), 600, "dialog", "", "")[0].status(), 412);
    }
    let sent = office.publish_body("1001", Some(&third), 0, "dialog", "", "");
    assert_eq!(told(&sent), some(&["terminated"]));
    assert_eq!(office.publish_body("1001", Some(&third), 600, "dialog", "", "")[0].status(), 412);
}

#[test]
fn an_entity_tag_belongs_to_one_resource_and_package() {
    let mut office = Office::open();
    let tag = etag(&office.publish("1001", None, &dialog("c1", "early")));
    assert_eq!(office.publish_body("1003", Some(&tag), 600, "dialog", "", "")[0].status(), 412);
    assert_eq!(office.publish_body("1001", Some(&tag), 600, "presence", "", "")[0].status(), 412);
    assert_eq!(office.publish_body("1001", Some("a, b"), 600, "dialog", "", "")[0].status(), 400);
    assert_eq!(office.publish_body("1001", Some("*"), 600, "dialog", "", "")[0].status(), 412);
    assert_eq!(office.publish_body("1001", Some(&tag), 600, "dialog", "", "")[0].status(), 200);
}

#[test]
fn a_refused_publish_changes_nothing() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    phone.answer(&mut office, &sent[1], 200);
    let tag = etag(&sent);
    let broken = office.publish_body("1001", Some(&tag), 600, "dialog", "application/dialog-info+xml", "<dialog-info");
    assert_eq!((broken.len(), broken[0].status()), (1, 400));
    assert_eq!(office.publish_body("1001", Some(&tag), 600, "dialog", "text/plain", "x")[0].status(), 415);
    assert_eq!(
        office.publish_body("1001", Some(&tag), 600, "dialog", "", "")[0].status(),
        200,
        "the tag is still good"
    );
    assert_eq!(office.watch("1001", "dialog").1[1].states(), ["early"]);
}

#[test]
fn a_publication_that_is_not_refreshed_takes_its_calls_with_it() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let one = office.publish("1001", None, &dialog("c1", "early"));
    phone.answer(&mut office, &one[1], 200);
    let body = format!(
        "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
         entity=\"sip:1001@acme.test\">{}</dialog-info>",
        dialog("c2", "confirmed")
    );
    let two = office.publish_body("1001", None, 60, "dialog", "application/dialog-info+xml", &body);
    assert_eq!(told(&two), some(&["early", "confirmed"]));
    phone.answer(&mut office, &two[1], 200);
    let sent = office.pass(61_000);
    assert!((60_000..=60_250).contains(&sent[0].0), "{}", sent[0].0);
    assert_eq!(sent[0].1.dialogs()[0], ("c1".to_string(), "early".to_string()));
}

#[test]
fn the_same_state_twice_costs_no_notify() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(told(&office.publish("1001", None, &dialog("c1", "early"))), None, "another publisher, the same call");
    assert_eq!(told(&office.publish("1001", Some(&etag(&sent)), &dialog("c1", "early"))), None);
}

#[test]
fn kamailio_s_orphan_does_not_relight_a_call_that_is_over() {
    // pua_dialoginfo publishes Trying and early of one call as two publications, ends one of them, and refreshes the
    // other for an hour.
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let trying = office.publish("1001", None, &dialog("c1", "Trying"));
    phone.answer(&mut office, &trying[1], 200);
    let early = office.publish("1001", None, &dialog("c1", "early"));
    assert_eq!(told(&early), some(&["early"]), "one call, whoever reports it");
    phone.answer(&mut office, &early[1], 200);
    let over = office.publish("1001", Some(&etag(&early)), &dialog("c1", "terminated"));
    assert_eq!(told(&over), some(&["terminated"]));
    phone.answer(&mut office, &over[1], 200);
    assert_eq!(office.pass_quietly(15_000), []);
    let sent = office.publish_body("1001", Some(&etag(&trying)), 3600, "dialog", "", "");
    assert_eq!(told(&sent), None);
    assert_eq!(told(&office.publish("1001", None, &dialog("c1", "early"))), None, "late early");
}

#[test]
fn of_two_calls_the_one_that_rings_comes_first() {
    let mut office = Office::open();
    office.publish("1001", None, &(dialog("c1", "confirmed") + &dialog("c2", "early")));
    let (_, sent) = office.watch("1001", "dialog");
    let ids: Vec<_> = sent[1].dialogs().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["c2", "c1"]);
}

#[test]
fn calls_show_in_presence_and_messages_do_not() {
    let mut office = Office::open();
    let presence = office.settled("1001", "presence");
    let summary = "Messages-Waiting: yes\r\nVoice-Message: 2/1\r\n";
    let sent = office.publish_body("1001", None, 600, "message-summary", "application/simple-message-summary", summary);
    assert_eq!(sent.len(), 1, "nobody watches messages");
    let sent = office.publish("1001", None, &dialog("c1", "confirmed"));
    assert!(sent[1].body().contains("<rpid:on-the-phone/>"), "{}", sent[1].body());
    presence.answer(&mut office, &sent[1], 200);
    let (_, sent) = office.watch("1001", "message-summary");
    assert!(sent[1].body().contains("Voice-Message: 2/1"), "{}", sent[1].body());
}

#[test]
fn a_repeated_publish_is_not_applied_twice() {
    let mut office = Office::open();
    let publish = |office: &mut Office| {
        let body = "Messages-Waiting: no\r\n";
        let text = format!(
            "PUBLISH sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKsame\r\n\
             From: <sip:1001@acme.test>;tag=p\r\nTo: <sip:1001@acme.test>\r\nCall-ID: p\r\nCSeq: 1 PUBLISH\r\n\
             Event: message-summary\r\nContent-Type: application/simple-message-summary\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        office.receive(crate::office::udp("203.0.113.9:5060"), &text)
    };
    let first = publish(&mut office);
    office.pass(20_000);
    assert_eq!(publish(&mut office), first);
}

#[test]
fn publications_are_capped_and_a_presentity_that_nobody_uses_is_forgotten() {
    let mut office = Office::with("[limits]\npublications_per_presentity = 3");
    let tags: Vec<_> =
        (0..3).map(|i| etag(&office.publish("1001", None, &dialog(&format!("c{i}"), "early")))).collect();
    assert_eq!(office.publish("1001", None, &dialog("c9", "early"))[0].status(), 480);
    for tag in tags {
        office.publish_body("1001", Some(&tag), 0, "dialog", "", "");
    }
    office.pass(64_000);
    assert_eq!(office.notifier.next_deadline(), None, "what answers the same requests again is forgotten");
    let tag = etag(&office.publish("1001", None, &dialog("c1", "terminated")));
    office.publish_body("1001", Some(&tag), 0, "dialog", "", "");
    office.pass(3_600_000);
    assert_eq!(office.notifier.next_deadline(), None, "ended calls are forgotten, too");
}

#[test]
fn a_ringing_call_whose_end_was_lost_goes_dark_after_ten_minutes_though_its_publication_is_refreshed() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    phone.answer(&mut office, &sent[1], 200);
    office.pass(300_000);
    phone.refresh(&mut office);
    let sent = office.publish_body("1001", Some(&etag(&sent)), 3600, "dialog", "", "");
    assert_eq!(sent.len(), 1, "a refresh says nothing new");
    assert_eq!(office.pass_quietly(295_000), []);
    let sent = office.pass_quietly(10_000);
    assert_eq!(sent[0].dialogs(), [("c1".to_string(), "terminated".to_string())]);
}

#[test]
fn a_lease_counts_on_over_a_restart() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let sent = office.publish("1001", None, &dialog("c1", "early"));
    phone.answer(&mut office, &sent[1], 200);
    office.pass(200_000);
    phone.refresh(&mut office);
    assert_eq!(office.crash().behind, 0);
    assert_eq!(office.pass_quietly(395_000), []);
    assert_eq!(office.pass_quietly(10_000)[0].states(), ["terminated"]);
}

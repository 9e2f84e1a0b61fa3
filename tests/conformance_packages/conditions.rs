//! Conditional notification (RFC 5839): a watcher that has the state is not notified of it again.

use lamplighter::presence::state::CallState::{Confirmed, Early};

use crate::office::{Office, Phone, Sent};

const TAG_OF_NOTHING: &str = "1.0000000000000000";

fn tag(notify: &Sent) -> String {
    notify.header("SIP-ETag").to_string()
}

impl Phone {
    /// Adds this condition to its next SUBSCRIBE.
    fn unless(&mut self, tag: &str) -> &mut Phone {
        self.more = format!("Suppress-If-Match: {tag}\r\n");
        self
    }

    fn without_condition(&mut self) -> &mut Phone {
        self.more.clear();
        self
    }

    /// Subscribes a phone, answers the NOTIFY, and returns the tag of the state it received.
    fn informed(office: &mut Office, event: &str) -> (Phone, String) {
        let (phone, sent) = office.watch("1001", event);
        phone.answer(office, &sent[1], 200);
        (phone, tag(&sent[1]))
    }
}

fn has_body(notify: &Sent) -> bool {
    assert_eq!(notify.text.contains("Content-Type: "), !notify.body().is_empty());
    !notify.body().is_empty()
}

#[test]
fn every_notify_bears_the_entity_tag_of_its_state() {
    for event in ["dialog", "presence"] {
        let mut office = Office::open();
        let (mut phone, first) = Phone::informed(&mut office, event);
        assert!(first.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.'), "a token: {first}");
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!(tag(&sent[1]), first, "the same state");
        phone.answer(&mut office, &sent[1], 200);
        let changed = office.set("1001", Early);
        assert_ne!(tag(&changed[0]), first);
        phone.answer(&mut office, &changed[0], 200);
        assert_eq!(tag(&phone.subscribe(&mut office, 0)[1]), tag(&changed[0]), "the last one, too");
        let (_, sent) = office.watch("1001", event);
        assert_eq!(tag(&sent[1]), tag(&changed[0]), "it is the state's, whoever watches");
    }
}

#[test]
fn packages_have_tags_of_their_own() {
    let mut office = Office::open();
    let (_, dialog) = Phone::informed(&mut office, "dialog");
    let mut phone = office.phone("1001", "presence");
    assert!(has_body(&phone.unless(&dialog).subscribe(&mut office, 600)[1]));
}

#[test]
fn a_refresh_by_who_has_the_state_is_answered_204_and_brings_nothing() {
    let mut office = Office::open();
    let (mut phone, known) = Phone::informed(&mut office, "dialog");
    office.pass(300_000);
    let sent = phone.unless(&known).subscribe(&mut office, 500);
    assert_eq!((sent.len(), sent[0].status(), sent[0].header("Expires")), (1, 204, "500"));
    assert_eq!(office.pass_quietly(499_000), [], "its time counts from here");
    assert_eq!(office.list()[0].expires, 500);
    let told = office.set("1001", Early);
    assert_eq!((told[0].cseq(), told[0].version(), told[0].states()), (2, 1, vec!["early".to_string()]));
}

#[test]
fn to_have_the_state_is_to_have_acknowledged_it() {
    for compacted in [false, true] {
        let mut office = Office::open();
        let (mut phone, sent) = office.watch("1001", "dialog");
        // Its response to the first NOTIFY was lost; the retransmissions stop now.
        assert_eq!(phone.unless(&tag(&sent[1])).subscribe(&mut office, 600)[0].status(), 204);
        assert_eq!(office.pass_quietly(60_000), []);
        if compacted {
            office.disk.clear();
            office.notifier.snapshot(|key, value| _ = office.disk.insert(key, value));
        }
        assert_eq!(office.crash().behind, 0, "nor is it told after a restart");
    }
}

#[test]
fn an_old_tag_brings_the_full_state() {
    let mut office = Office::open();
    let (mut phone, known) = Phone::informed(&mut office, "dialog");
    let told = office.set("1001", Early);
    phone.answer(&mut office, &told[0], 200);
    for old in [&known, TAG_OF_NOTHING, "nonsense", "\"*\""] {
        let sent = phone.unless(old).subscribe(&mut office, 600);
        assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]), "{old}");
        phone.answer(&mut office, &sent[1], 200);
    }
}

#[test]
fn a_state_that_went_and_came_back_has_another_tag() {
    let mut office = Office::open();
    let (phone, first) = Phone::informed(&mut office, "dialog");
    let mut tags = vec![first];
    for state in [Early, Confirmed, Early] {
        let sent = office.set("1001", state);
        tags.push(tag(&sent[0]));
        phone.answer(&mut office, &sent[0], 200);
    }
    let reset = office.reset("1001");
    tags.push(tag(&reset[0]));
    let all = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), all);
}

#[test]
fn a_new_subscription_with_the_tag_gets_its_notify_without_a_body() {
    let mut office = Office::open();
    let (_, known) = Phone::informed(&mut office, "dialog");
    let mut again = office.phone("1001", "dialog");
    let sent = again.unless(&known).subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), has_body(&sent[1]), tag(&sent[1])), (200, false, known));
    assert_eq!(sent[1].header("Subscription-State"), "active;expires=600");
    again.answer(&mut office, &sent[1], 200);
    assert_eq!(office.list().iter().find(|r| r.call_id == again.call_id).unwrap().last.as_ref().unwrap().body, "");
    let told = office.set("1001", Early);
    let told = told.iter().find(|notify| notify.message().call_id == again.call_id).unwrap();
    assert_eq!((told.cseq(), told.version(), told.states()), (2, 0, vec!["early".to_string()]), "the first document");
}

#[test]
fn a_fetch_with_the_tag_brings_no_body_either() {
    let mut office = Office::open();
    let (_, known) = Phone::informed(&mut office, "message-summary");
    let mut visitor = office.phone("1001", "message-summary");
    let sent = visitor.unless(&known).subscribe(&mut office, 0);
    assert_eq!((sent[0].status(), has_body(&sent[1])), (200, false));
    assert_eq!(sent[1].header("Subscription-State"), "terminated;reason=timeout");
}

#[test]
fn who_ends_his_subscription_with_the_tag_hears_no_more() {
    for condition in [None, Some("*")] {
        let mut office = Office::open();
        let (mut phone, known) = Phone::informed(&mut office, "dialog");
        let sent = phone.unless(condition.unwrap_or(&known)).subscribe(&mut office, 0);
        assert_eq!((sent.len(), sent[0].status(), sent[0].header("Expires")), (1, 204, "0"));
        assert_eq!(
            (office.list(), office.notifier.subscriptions(), office.notifier.next_deadline()),
            (vec![], 0, None)
        );
        // The remaining record only serves to answer a retransmission of that request, and the next compaction removes
        // it.
        office.compact();
        assert!(office.disk.is_empty());
        assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);
    }
}

#[test]
fn with_an_asterisk_no_state_is_told_until_another_subscribe() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    let sent = phone.unless("*").subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), has_body(&sent[1])), (200, false));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.set("1001", Early), []);
    assert_eq!(office.reset("1001"), []);
    assert_eq!(office.set("1001", Confirmed), []);
    assert_eq!(phone.unless("*").subscribe(&mut office, 600)[0].status(), 204);
    assert_eq!(office.crash().behind, 0, "a restart does not forget it");
    assert_eq!(office.pass_quietly(1_000), []);
    assert_eq!(office.set("1001", Early), []);
    let sent = phone.without_condition().subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["early".to_string()]));
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.set("1001", Confirmed).len(), 1);
}

#[test]
fn what_expires_says_so_but_not_the_state_that_was_not_wanted() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    let sent = phone.unless("*").subscribe(&mut office, 600);
    phone.answer(&mut office, &sent[1], 200);
    let (_, last) = office.pass(600_300).remove(0);
    assert_eq!((last.header("Subscription-State"), has_body(&last)), ("terminated;reason=timeout", false));
}

#[test]
fn a_tag_from_before_a_restart_means_the_same_or_nothing() {
    let mut office = Office::open();
    let (mut phone, known) = Phone::informed(&mut office, "dialog");
    office.crash();
    assert_eq!(phone.unless(&known).subscribe(&mut office, 600)[0].status(), 204);
    // A publication that ended while no watcher was subscribed: the tag of its call is no longer valid.
    let sent = office.publish("1001", None, &crate::office::dialog("c1", "early"));
    let etag = sent[0].header("SIP-ETag").to_string();
    let sent = office.publish_body("1001", Some(&etag), 60, "dialog", "", "");
    assert_eq!(sent[0].status(), 200);
    let told = phone.without_condition().subscribe(&mut office, 600);
    phone.answer(&mut office, &told[1], 200);
    let ringing = tag(&told[1]);
    office.now += 61_000;
    office.crash();
    office.pass_quietly(300);
    let sent = phone.unless(&ringing).subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["terminated".to_string()]));
}

#[test]
fn no_cseq_is_used_twice_where_a_notify_went_out_without_a_document() {
    // CSeq numbers are reserved in blocks of 64. A NOTIFY without a document uses a CSeq but no version, and must be
    // counted at the end of a block too.
    for changes in 60..68 {
        let mut office = Office::open();
        let mut phone = office.phone("1001", "dialog");
        let sent = phone.unless("*").subscribe(&mut office, 600);
        phone.answer(&mut office, &sent[1], 200);
        phone.without_condition().refresh(&mut office);
        let mut last = 0;
        for i in 0..changes {
            office.pass(1_000);
            let sent = office.set("1001", if i % 2 == 0 { Early } else { Confirmed });
            last = sent[0].cseq();
            phone.answer(&mut office, &sent[0], 200);
        }
        office.crash();
        assert!(phone.subscribe(&mut office, 600)[1].cseq() > last, "after {last}");
    }
}

//! Watchers of one named dialog (RFC 4235 sections 3.2 and 3.4).

use lamplighter::presence::state::CallState::Early;

use crate::office::{Office, Phone, Sent};

/// A dialog of 1001 with both tags.
fn branch(id: &str, call_id: &str, remote_tag: &str, state: &str) -> String {
    format!(
        "<dialog id=\"{id}\" call-id=\"{call_id}\" local-tag=\"mine\" remote-tag=\"{remote_tag}\" direction=\"initiator\">\
         <state>{state}</state></dialog>"
    )
}

fn etag(sent: &[Sent]) -> String {
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    sent[0].header("SIP-ETag").to_string()
}

fn ids(notify: &Sent) -> Vec<String> {
    notify.dialogs().into_iter().map(|(id, _)| id).collect()
}

/// 1001 has one answered call, and another that has forked to two phones.
fn busy() -> (Office, String) {
    let mut office = Office::open();
    let calls =
        branch("a", "one", "x", "confirmed") + &branch("b", "two", "y", "early") + &branch("c", "two", "z", "early");
    let tag = etag(&office.publish("1001", None, &calls));
    (office, tag)
}

/// Dialogs in the first NOTIFY to a new watcher with this Event.
fn told(office: &mut Office, event: &str) -> Vec<String> {
    let (_, sent) = office.watch("1001", event);
    assert_eq!((sent[0].status(), sent[1].header("Event")), (200, "dialog"));
    ids(&sent[1])
}

#[test]
fn who_names_a_dialog_is_told_of_that_alone() {
    let (mut office, tag) = busy();
    assert_eq!(told(&mut office, "dialog;call-id=two;to-tag=mine;from-tag=z"), ["c"]);
    assert_eq!(told(&mut office, "dialog;call-id=one"), ["a"]);
    assert_eq!(told(&mut office, "dialog;to-tag=mine;from-tag=z").len(), 3, "without a Call-ID nothing is named");
    let phone = office.settled("1001", "dialog;call-id=one");
    let mut sent = office.set("1001", Early);
    let calls = branch("a", "one", "x", "confirmed") + &branch("b", "two", "y", "confirmed");
    sent.extend(office.publish("1001", Some(&tag), &calls));
    sent.extend(office.pass_quietly(600));
    sent.retain(|notify| notify.message().call_id == phone.call_id);
    assert_eq!(sent.iter().map(ids).collect::<Vec<_>>(), [["a"], ["a"]]);
}

#[test]
fn the_to_tag_is_the_watched_side_s_and_the_from_tag_the_other_s() {
    let (mut office, _) = busy();
    assert_eq!(told(&mut office, "dialog;call-id=one;to-tag=mine;from-tag=x"), ["a"]);
    assert_eq!(told(&mut office, "dialog;call-id=one;to-tag=x;from-tag=mine"), ["idle"]);
    assert_eq!(told(&mut office, "dialog;call-id=One"), ["idle"]);
}

#[test]
fn without_the_from_tag_all_branches_of_a_call_are_meant() {
    let (mut office, _) = busy();
    assert_eq!(told(&mut office, "dialog;call-id=two;to-tag=mine"), ["b", "c"]);
}

#[test]
fn a_quoted_call_id_is_taken_for_what_it_says() {
    let mut office = Office::open();
    office.publish("1001", None, &(branch("a", "a@b&quot;c;d\\", "x", "early") + &branch("b", "other", "y", "early")));
    assert_eq!(told(&mut office, "dialog;call-id=\"a@b\\\"c;d\\\\\""), ["a"]);
    assert_eq!(told(&mut office, "dialog;call-id=\"other\""), ["b"]);
}

#[test]
fn the_subscription_ends_with_the_dialog_that_it_named() {
    let (mut office, tag) = busy();
    let all = office.settled("1001", "dialog");
    let mut phone = office.settled("1001", "dialog;call-id=two");
    let calls = branch("a", "one", "x", "confirmed")
        + &branch("b", "two", "y", "confirmed")
        + &branch("c", "two", "z", "terminated");
    let sent = office.publish("1001", Some(&tag), &calls);
    let of_phone =
        |sent: &[Sent]| sent.iter().find(|n| n.is_notify() && n.message().call_id == phone.call_id).unwrap().clone();
    let one_left = of_phone(&sent);
    assert_eq!((ids(&one_left), one_left.header("Subscription-State")), (vec!["b".to_string()], "active;expires=600"));
    for notify in &sent[1..] {
        all.answer(&mut office, notify, 200);
    }
    let calls = branch("a", "one", "x", "confirmed") + &branch("b", "two", "y", "terminated");
    let last = of_phone(&office.publish("1001", Some(&etag(&sent)), &calls));
    assert_eq!(last.header("Subscription-State"), "terminated;reason=noresource");
    assert_eq!(last.dialogs(), [("b".to_string(), "terminated".to_string())]);
    phone.answer(&mut office, &last, 200);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);
    assert_eq!(office.list().len(), 1, "the other watcher goes on");
    office.crash();
    assert_eq!(office.list().len(), 1);
}

#[test]
fn it_waits_for_a_dialog_that_is_not_there_yet_and_goes_at_once_where_it_has_ended() {
    let mut office = Office::open();
    let (early_bird, sent) = office.watch("1001", "dialog;call-id=one");
    assert_eq!((ids(&sent[1]), sent[1].header("Subscription-State")), (vec!["idle".to_string()], "active;expires=600"));
    early_bird.answer(&mut office, &sent[1], 200);
    let sent = office.publish("1001", None, &branch("a", "one", "x", "early"));
    assert_eq!(sent[1].states(), ["early"]);
    early_bird.answer(&mut office, &sent[1], 200);
    // Its publication is removed: no document states that the dialog has ended, but it does not exist any more.
    let gone = office.publish_body("1001", Some(&etag(&sent)), 0, "dialog", "", "");
    assert_eq!(gone[1].header("Subscription-State"), "terminated;reason=noresource");
    early_bird.answer(&mut office, &gone[1], 200);
    let tag = etag(&office.publish("1001", None, &branch("b", "two", "x", "early")));
    office.publish("1001", Some(&tag), &branch("b", "two", "x", "terminated"));
    let (_, sent) = office.watch("1001", "dialog;call-id=two");
    assert_eq!((sent[0].status(), sent[1].header("Subscription-State")), (200, "terminated;reason=noresource"));
    assert_eq!(office.list(), []);
    assert_eq!(office.disk.keys().filter(|key| key.1 != u32::MAX).count(), 0, "nothing of them is kept");
}

#[test]
fn what_is_named_outlives_a_restart() {
    let (mut office, tag) = busy();
    let phone: Phone = office.settled("1001", "dialog;call-id=one");
    office.crash();
    let calls = branch("a", "one", "x", "confirmed") + &branch("b", "two", "y", "confirmed");
    let sent = office.publish("1001", Some(&tag), &calls);
    assert_eq!((sent[1].message().call_id, ids(&sent[1])), (&*phone.call_id, vec!["a".to_string()]));
}

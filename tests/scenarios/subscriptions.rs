//! Subscriptions (RFC 6665): their lifetime, their dialogs, and refusals.

use lamplighter::transport::Destination;

use crate::office::{Office, udp};

#[test]
fn the_200_comes_first_and_the_notify_with_the_full_state_right_behind_it() {
    let mut office = Office::open();
    let (_, sent) = office.watch("1001", "dialog");
    assert_eq!((sent.len(), sent[0].status(), sent[1].is_notify()), (2, 200, true));
    assert_eq!((sent[0].header("Expires"), sent[1].header("Subscription-State")), ("600", "active;expires=600"));
    assert_eq!((sent[1].version(), sent[1].states()), (0, vec!["terminated".to_string()]));
    let tag = |text: &str| text.split(";tag=").nth(1).unwrap().to_string();
    assert_eq!(tag(sent[0].header("To")), tag(sent[1].header("From")));
    assert!(sent[1].body().contains(" entity=\"sip:1001@acme.test\""));
}

#[test]
fn each_package_has_its_neutral_first_document() {
    let mut office = Office::open();
    assert!(office.watch("1001", "presence").1[1].body().contains("<basic>open</basic>"));
    assert!(office.watch("1001", "message-summary").1[1].body().starts_with("Messages-Waiting: no\r\n"));
}

#[test]
fn a_refresh_moves_the_expiry_and_brings_a_notify_one_higher() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    office.pass(300_000);
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[1].cseq(), sent[1].version()), (2, 1));
    assert_eq!(sent[1].header("Subscription-State"), "active;expires=600");
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(office.pass_quietly(599_000), []);
    assert_eq!(office.list().len(), 1);
}

#[test]
fn without_a_refresh_it_ends_at_its_expiry_with_a_last_notify() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let sent = office.pass(601_000);
    assert_eq!(sent.len(), 2, "the last NOTIFY and its first repetition");
    let (at, last) = &sent[0];
    assert!((600_000..=600_250).contains(at), "{at}");
    assert_eq!(last.header("Subscription-State"), "terminated;reason=timeout");
    assert_eq!(office.list(), []);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);
    phone.answer(&mut office, last, 200);
    assert_eq!((office.notifier.subscriptions(), office.notifier.next_deadline()), (0, None), "nothing is left behind");
}

#[test]
fn expires_0_ends_it_at_once_and_a_fetch_leaves_nothing() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let sent = phone.subscribe(&mut office, 0);
    assert_eq!((sent[0].status(), sent[0].header("Expires")), (200, "0"));
    assert_eq!(sent[1].header("Subscription-State"), "terminated;reason=timeout");
    assert_eq!(office.list(), []);
    phone.answer(&mut office, &sent[1], 200);
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);

    let mut visitor = office.phone("1001", "dialog");
    let sent = visitor.subscribe(&mut office, 0);
    assert_eq!((sent[0].status(), sent[1].header("Subscription-State")), (200, "terminated;reason=timeout"));
    assert_eq!(sent[1].states(), ["terminated"]);
    visitor.answer(&mut office, &sent[1], 200);
    assert_eq!((office.notifier.subscriptions(), office.notifier.next_deadline()), (0, None));
}

#[test]
fn a_last_notify_that_nobody_answers_is_given_up_after_32_seconds() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.subscribe(&mut office, 0);
    let copies = office.pass(100_000);
    assert_eq!((copies.len(), copies.last().unwrap().0), (10, 31_500));
    assert_eq!((office.notifier.subscriptions(), office.notifier.next_deadline()), (0, None));
}

#[test]
fn a_repeated_subscribe_gets_the_same_answer_and_makes_no_second_subscription() {
    let mut office = Office::open();
    let phone = office.phone("1001", "dialog");
    let request = phone.request(600);
    let first = office.receive(phone.source, &request);
    assert_eq!(office.receive(phone.source, &request), first[..1]);
    assert_eq!(office.list().len(), 1);
    let merged = request.replace("z9hG4bK", "z9hG4bKother");
    assert_eq!(office.receive(phone.source, &merged)[0].status(), 482);
}

#[test]
fn inside_a_dialog_a_cseq_that_is_not_higher_is_500_and_changes_nothing() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.cseq = 10;
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
    phone.cseq = 4;
    assert_eq!(phone.subscribe(&mut office, 60).iter().map(|s| s.status()).collect::<Vec<_>>(), [500]);
    assert_eq!(office.list()[0].expires, 600);
    phone.cseq = 5_000;
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
}

#[test]
fn a_dialog_is_known_by_call_id_and_both_tags() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let mut other = phone.clone();
    other.tag = "else".into();
    assert_eq!(other.subscribe(&mut office, 600)[0].status(), 481);
    let mut other = phone.clone();
    other.call_id = "CALL1".into();
    assert_eq!(other.subscribe(&mut office, 600)[0].status(), 481);
    let mut other = phone.clone();
    other.to_tag = phone.to_tag.as_ref().map(|tag| tag[..tag.len() - 1].to_string() + "0");
    assert_eq!(other.subscribe(&mut office, 600)[0].status(), 481);
}

#[test]
fn another_event_or_id_is_another_subscription_and_a_dialog_has_one() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.event = "dialog;id=7".into();
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 403);
    phone.event = "dialog;x=1".into();
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
}

#[test]
fn the_id_of_an_event_comes_back_in_every_notify() {
    let mut office = Office::open();
    let (_, sent) = office.watch("1001", "dialog;sla;id=7");
    assert_eq!(sent[1].header("Event"), "dialog;id=7");
}

#[test]
fn a_refresh_from_another_port_moves_the_notifies_there() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    phone.source = udp("198.51.100.77:6000");
    let sent = phone.subscribe(&mut office, 600);
    let Destination::Datagram { peer, .. } = sent[1].to else { panic!("{:?}", sent[1].to) };
    assert_eq!(peer, phone.source.peer);
    assert!(sent[1].text.starts_with("NOTIFY sip:1002@198.51.100.77:6000 SIP/2.0\r\n"));
}

#[test]
fn a_route_set_is_made_by_the_first_request_only() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog");
    phone.more = "Record-Route: <sip:198.51.100.9;lr;x=1>\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(sent[0].header("Record-Route"), "<sip:198.51.100.9;lr;x=1>");
    assert_eq!(sent[1].header("Route"), "<sip:198.51.100.9;lr;x=1>");
    phone.answer(&mut office, &sent[1], 200);
    phone.more = "Record-Route: <sip:198.51.100.10;lr>\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert!(!sent[0].text.contains("Record-Route"));
    assert_eq!(sent[1].header("Route"), "<sip:198.51.100.9;lr;x=1>");
}

#[test]
fn users_and_realms_compare_without_case_and_documents_say_what_was_asked_for() {
    let mut office = Office::open();
    office.settled("abc@acme.test", "dialog");
    let (_, sent) = office.watch("ABC@ACME.test", "dialog");
    assert!(sent[1].body().contains(" entity=\"sip:ABC@ACME.test\""), "{}", sent[1].body());
    let users: Vec<_> = office.list().into_iter().map(|record| record.user).collect();
    assert_eq!(users, ["abc", "abc"]);
}

#[test]
fn the_limits_of_one_answer_480_and_that_of_all_503_each_with_a_spread_retry_after() {
    let seconds = |sent: &crate::office::Sent| sent.header("Retry-After").parse::<u32>().unwrap();
    for (limit, status) in [
        ("watchers_per_presentity", 480),
        ("subscriptions_per_account", 480),
        ("presentities_per_account", 480),
        ("subscriptions", 503),
    ] {
        let mut office = Office::with(&format!("[limits]\n{limit} = 1"));
        office.settled("1001", "dialog");
        let target = if limit == "presentities_per_account" { "1003" } else { "1001" };
        let refused: Vec<_> = (0..8).map(|_| office.watch(target, "dialog").1.remove(0)).collect();
        assert!(refused.iter().all(|sent| sent.status() == status), "{limit}: {}", refused[0].text);
        assert!(refused[0].header("Warning").contains(&format!("limits.{limit}")), "{}", refused[0].text);
        assert!(refused.iter().any(|sent| seconds(sent) != seconds(&refused[0])), "spread");
        assert_eq!(office.list().len(), 1);
    }
}

#[test]
fn a_realm_is_a_wall() {
    let mut office = Office::open();
    office.settled("1001@umbrella.test", "dialog");
    let acme = office.settled("1001", "dialog");
    assert_eq!(office.list().len(), 1);
    assert_eq!(office.reset("1001").len(), 1, "the watcher in the other realm is not concerned");
    drop(acme);
    assert_eq!(office.watch("1001@nowhere.test", "dialog").1[0].status(), 404);
}

//! Message waiting (RFC 3842): the rows that no other suite checks.

use crate::office::{Office, Sent};

const TYPE: &str = "application/simple-message-summary";

fn publish(office: &mut Office, summary: &str) -> Vec<Sent> {
    let sent = office.publish_body("1001", None, 600, "message-summary", TYPE, summary);
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    sent
}

#[test]
fn the_package_is_served_for_an_hour_with_a_summary_at_once() {
    let mut office = Office::open();
    publish(&mut office, "Messages-Waiting: yes\r\nVoice-Message: 2/8 (0/2)\r\n");
    let mut phone = office.phone("1001", "message-summary");
    phone.cseq = 1;
    let request = phone.request(600).replace("Expires: 600\r\n", "");
    let sent = office.receive(phone.source, &request);
    assert_eq!((sent[0].status(), sent[0].header("Expires")), (200, "3600"));
    assert_eq!((sent[1].header("Event"), sent[1].header("Content-Type")), ("message-summary", TYPE));
    let expected = "Messages-Waiting: yes\r\nMessage-Account: sip:1001@acme.test\r\nVoice-Message: 2/8 (0/2)\r\n";
    assert_eq!(sent[1].body(), expected);
}

#[test]
fn headers_of_single_messages_are_told_to_nobody() {
    let mut office = Office::open();
    let phone = office.settled("1001", "message-summary");
    let headers = "\r\nTo: <sip:1001@acme.test>\r\nFrom: <sip:eve@acme.test>\r\nSubject: secret\r\n";
    let sent = publish(&mut office, &format!("Messages-Waiting: yes\r\nVoice-Message: 1/0\r\n{headers}"));
    assert!(sent[1].body().contains("Voice-Message: 1/0\r\n") && !sent[1].body().contains("eve"), "{}", sent[1].body());
    phone.answer(&mut office, &sent[1], 200);
    assert!(!office.watch("1001", "message-summary").1[1].body().contains("Subject"));
}

#[test]
fn a_change_of_the_counts_is_told_and_the_same_counts_are_not() {
    let mut office = Office::open();
    let phone = office.settled("1001", "message-summary");
    for (new, told) in [(1, true), (1, false), (2, true), (0, true)] {
        let waiting = if new > 0 { "yes" } else { "no" };
        let sent = publish(&mut office, &format!("Messages-Waiting: {waiting}\r\nVoice-Message: {new}/3\r\n"));
        assert_eq!(sent.len() == 2, told, "{new}");
        if told {
            assert!(sent[1].body().starts_with(&format!("Messages-Waiting: {waiting}\r\n")), "{}", sent[1].body());
            phone.answer(&mut office, &sent[1], 200);
        }
    }
}

#[test]
fn whoever_has_not_subscribed_is_not_told() {
    let mut office = Office::open();
    office.settled("1001", "dialog");
    assert_eq!(publish(&mut office, "Messages-Waiting: yes\r\nVoice-Message: 1/0\r\n").len(), 1);
}

#[test]
fn with_a_max_rate_a_burst_of_messages_costs_one_notify() {
    let mut office = Office::open();
    let phone = office.settled("1001", "message-summary;max-rate=1");
    for new in 1..10 {
        assert_eq!(publish(&mut office, &format!("Messages-Waiting: yes\r\nVoice-Message: {new}/0\r\n")).len(), 1);
    }
    let sent = office.pass_quietly(1_300);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].body().contains("Voice-Message: 9/0"), "{}", sent[0].body());
    phone.answer(&mut office, &sent[0], 200);
}

#[test]
fn an_account_of_its_own_is_told_as_a_bare_uri() {
    let mut office = Office::open();
    publish(&mut office, "Messages-Waiting: no\r\nMessage-Account: <sip:sales@acme.test>\r\n");
    let (_, sent) = office.watch("1001", "message-summary");
    assert!(sent[1].body().contains("\r\nMessage-Account: sip:sales@acme.test\r\n"), "{}", sent[1].body());
}

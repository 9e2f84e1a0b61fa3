//! Event state compositor (RFC 3903): the rows that no other suite checks.

use std::collections::BTreeSet;

use lamplighter::journal::Acceptance;

use crate::office::{Office, Sent, dialog, udp};

const TYPE: &str = "application/dialog-info+xml";

fn document(dialogs: &str) -> String {
    format!(
        "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
         entity=\"sip:1001@acme.test\">{dialogs}</dialog-info>"
    )
}

/// A PUBLISH, in parts that a test can change.
#[derive(Clone)]
struct Publish {
    uri: &'static str,
    from: &'static str,
    event: &'static str,
    /// Header lines.
    more: String,
    content_type: &'static str,
    body: String,
}

fn publish(dialogs: &str) -> Publish {
    Publish {
        uri: "sip:1001@acme.test",
        from: "sip:pbx@acme.test",
        event: "Event: dialog\r\n",
        more: "Expires: 600\r\n".into(),
        content_type: TYPE,
        body: if dialogs.is_empty() { String::new() } else { document(dialogs) },
    }
}

impl Publish {
    fn with(self, more: &str) -> Publish {
        Publish { more: more.into(), ..self }
    }

    /// The request with this number, which makes it a new transaction.
    fn text(&self, n: u32) -> String {
        let Publish { uri, from, event, more, content_type, body } = self;
        let kind = if body.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        format!(
            "PUBLISH {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKq{n}\r\nFrom: <{from}>;tag=q{n}\r\n\
             To: <{from}>\r\nCall-ID: q{n}\r\nCSeq: {n} PUBLISH\r\n{event}{more}{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn send(&self, office: &mut Office, n: u32) -> Vec<Sent> {
        office.receive(udp("203.0.113.9:5060"), &self.text(n))
    }
}

fn etag(sent: &Sent) -> String {
    assert_eq!(sent.status(), 200, "{}", sent.text);
    sent.header("SIP-ETag").to_string()
}

/// States of 1001, from a fetch.
fn states(office: &mut Office) -> Vec<String> {
    office.phone("1001", "dialog").subscribe(office, 0)[1].states()
}

#[test]
fn the_checks_come_in_the_order_of_the_rfc() {
    let mut office = Office::open();
    // Each also has every fault of those after it.
    let bad = Publish { content_type: "text/plain", body: "x".into(), ..publish("") };
    let brief_and_wrong = "Expires: 1\r\nSIP-If-Match: 1.0.0000000000000000\r\n";
    let cases = [
        (404, Publish { uri: "sip:1001@nowhere.test", event: "Event: nope\r\n", ..bad.clone().with(brief_and_wrong) }),
        (489, Publish { event: "Event: nope\r\n", ..bad.clone().with(brief_and_wrong) }),
        (489, Publish { event: "", ..bad.clone().with(brief_and_wrong) }),
        (400, bad.clone().with("Expires: 1\r\nSIP-If-Match: a, b\r\n")),
        (412, bad.clone().with(brief_and_wrong)),
        (423, bad.clone().with("Expires: 1\r\n")),
        (415, bad.clone().with("")),
        (400, Publish { body: "x".into(), ..publish("") }),
        (400, publish("")),
    ];
    for (n, (status, request)) in (1..).zip(cases) {
        let sent = request.send(&mut office, n);
        assert_eq!((sent.len(), sent[0].status()), (1, status), "{n}: {}", sent[0].text);
        match status {
            489 => assert_eq!(sent[0].header("Allow-Events"), "dialog, presence, message-summary"),
            423 => assert_eq!(sent[0].header("Min-Expires"), "5"),
            415 => assert_eq!(sent[0].header("Accept"), TYPE),
            _ => {}
        }
    }
    assert_eq!(states(&mut office), ["terminated"]);
}

#[test]
fn a_200_has_expires_and_one_entity_tag_and_nothing_of_a_dialog() {
    let mut office = Office::open();
    let more = "Record-Route: <sip:203.0.113.9;lr>\r\nContact: <sip:pbx@203.0.113.9>, <sip:other@203.0.113.9>\r\n";
    let first = publish(&dialog("c1", "early")).with(more).send(&mut office, 1);
    assert_eq!((first[0].status(), first[0].header("Expires")), (200, "3600"), "the default");
    let refresh =
        publish("").with(&format!("Expires: 7200\r\nSIP-If-Match: {}\r\n", etag(&first[0]))).send(&mut office, 2);
    assert_eq!(refresh[0].header("Expires"), "3600", "never more");
    for answer in [&first[0], &refresh[0]] {
        assert_eq!(answer.text.matches("\r\nSIP-ETag: ").count(), 1);
        assert_eq!(answer.text.matches("\r\nExpires: ").count(), 1);
        for absent in ["Record-Route: ", "Contact: ", "Accept: "] {
            assert!(!answer.text.contains(&format!("\r\n{absent}")), "{}", answer.text);
        }
        let tag = answer.header("SIP-ETag");
        assert!(tag.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.'), "{tag}");
    }
}

#[test]
fn every_success_has_a_tag_that_was_never_there_before() {
    let mut office = Office::open();
    let mut tags = vec![etag(&publish(&dialog("c1", "early")).send(&mut office, 1)[0])];
    for n in 2..8 {
        let last = tags.last().unwrap().clone();
        tags.push(etag(&publish("").with(&format!("SIP-If-Match: {last}\r\n")).send(&mut office, n)[0]));
        if n == 5 {
            office.crash();
        }
    }
    for (n, old) in (10..).zip(&tags[..tags.len() - 1]) {
        assert_eq!(publish("").with(&format!("SIP-If-Match: {old}\r\n")).send(&mut office, n)[0].status(), 412);
    }
    let another = etag(&publish(&dialog("c2", "early")).send(&mut office, 30)[0]);
    tags.push(another);
    assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), 8);
}

#[test]
fn tags_that_are_wrong_expired_or_another_s_are_412_and_so_is_an_asterisk() {
    let mut office = Office::open();
    let tag = etag(&publish(&dialog("c1", "early")).send(&mut office, 1)[0]);
    let condition = format!("SIP-If-Match: {tag}\r\n");
    let elsewhere = Publish { uri: "sip:1003@acme.test", ..publish("").with(&condition) };
    assert_eq!(elsewhere.send(&mut office, 2)[0].status(), 412);
    let other_package = Publish { event: "Event: presence\r\n", ..publish("").with(&condition) };
    assert_eq!(other_package.send(&mut office, 3)[0].status(), 412);
    for (n, wrong) in (4..).zip(["*", "\"x\"", "nonsense", &format!("{tag}0")]) {
        let sent = publish("").with(&format!("SIP-If-Match: {wrong}\r\n")).send(&mut office, n);
        assert_eq!((sent.len(), sent[0].status()), (1, 412), "{wrong}");
    }
    office.pass(600_300);
    assert_eq!(publish("").with(&condition).send(&mut office, 20)[0].status(), 412, "expired");
}

#[test]
fn what_is_published_for_no_time_is_not_kept() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let sent = publish(&dialog("c1", "early")).with("Expires: 0\r\n").send(&mut office, 1);
    assert_eq!((sent.len(), sent[0].status(), sent[0].header("Expires")), (1, 200, "0"));
    let tag = etag(&sent[0]);
    assert_eq!(publish("").with(&format!("SIP-If-Match: {tag}\r\n")).send(&mut office, 2)[0].status(), 412);
    assert_eq!(states(&mut office), ["terminated"]);
    drop(phone);
}

#[test]
fn a_body_replaces_all_that_its_publication_said() {
    let mut office = Office::open();
    let tag = etag(&publish(&(dialog("c1", "early") + &dialog("c2", "confirmed"))).send(&mut office, 1)[0]);
    assert_eq!(states(&mut office), ["early", "confirmed"]);
    let condition = format!("SIP-If-Match: {tag}\r\n");
    assert_eq!(publish(&dialog("c3", "confirmed")).with(&condition).send(&mut office, 2)[0].status(), 200);
    assert_eq!(states(&mut office), ["confirmed"]);
}

#[test]
fn of_two_quick_changes_the_later_wins() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let first = publish(&dialog("c1", "trying")).send(&mut office, 1);
    let second =
        publish(&dialog("c1", "early")).with(&format!("SIP-If-Match: {}\r\n", etag(&first[0]))).send(&mut office, 2);
    let third = publish(&dialog("c1", "confirmed")).with(&format!("SIP-If-Match: {}\r\n", etag(&second[0])));
    assert_eq!(third.send(&mut office, 3)[0].status(), 200);
    // The same condition again is out of date.
    assert_eq!(third.send(&mut office, 4)[0].status(), 412);
    let told = phone.answer(&mut office, &first[1], 200);
    assert_eq!(told[0].states(), ["confirmed"]);
}

#[test]
fn while_nothing_can_be_kept_a_publish_is_told_to_come_back_and_changes_nothing() {
    let mut office = Office::open();
    let tag = etag(&publish(&dialog("c1", "early")).send(&mut office, 1)[0]);
    let change = publish(&dialog("c1", "confirmed")).with(&format!("SIP-If-Match: {tag}\r\n"));
    office.notifier.set_journal_acceptance(Acceptance::Failing);
    let refused = change.send(&mut office, 2);
    assert_eq!((refused.len(), refused[0].status()), (1, 503));
    assert!(refused[0].header("Retry-After").parse::<u32>().unwrap() >= 30);
    office.notifier.set_journal_acceptance(Acceptance::Accepting);
    assert_eq!(states(&mut office), ["early"]);
    assert_eq!(change.send(&mut office, 3)[0].status(), 200, "the tag is as good as before");
}

#[test]
fn the_resource_is_the_request_uri_whatever_from_to_and_entity_say() {
    let mut office = Office::open();
    let (watched, other) = (office.settled("1001", "dialog"), office.settled("1003", "dialog"));
    let mut request = publish(&dialog("c1", "early"));
    request.from = "sip:1003@acme.test";
    request.body = request.body.replace("entity=\"sip:1001@", "entity=\"sip:1003@");
    let sent = request.send(&mut office, 1);
    assert_eq!((sent.len(), sent[1].message().call_id), (2, &*watched.call_id));
    assert!(sent[1].body().contains(" entity=\"sip:1001@acme.test\""));
    drop(other);
}

#[test]
fn a_repeated_publish_has_the_same_answer_and_tag() {
    let mut office = Office::open();
    let request = publish(&dialog("c1", "early"));
    let first = request.send(&mut office, 1);
    assert_eq!(request.send(&mut office, 1), first);
}

#[test]
fn publications_compose_and_each_lives_its_own_time() {
    let mut office = Office::open();
    publish(&dialog("c1", "early")).with("Expires: 60\r\n").send(&mut office, 1);
    publish(&dialog("c2", "confirmed")).send(&mut office, 2);
    assert_eq!(states(&mut office), ["early", "confirmed"]);
    let phone = office.settled("1001", "dialog");
    let mut sent = office.pass_quietly(60_300);
    sent.retain(|notify| notify.message().call_id == phone.call_id);
    assert_eq!(sent[0].states(), ["confirmed", "terminated"], "what is left, and what has ended");
    phone.answer(&mut office, &sent[0], 200);
    assert_eq!(states(&mut office), ["confirmed"]);
}

#[test]
fn a_thousand_publishers_of_one_resource_meet_a_limit() {
    let mut office = Office::with("[access]\ntrusted_proxies = [\"203.0.113.9\"]\n");
    let statuses: Vec<_> =
        (0..1_000).map(|n| publish(&dialog(&format!("c{n}"), "confirmed")).send(&mut office, n)[0].status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 64);
    assert!(statuses[64..].iter().all(|status| *status == 480));
    let other = Publish { uri: "sip:1003@acme.test", ..publish(&dialog("c", "early")) };
    assert_eq!(other.send(&mut office, 2_000)[0].status(), 200, "nobody else is concerned");
}

#[test]
fn a_partial_pidf_is_not_understood() {
    let mut office = Office::open();
    let tuple = "<tuple id=\"t\"><status><basic>open</basic></status></tuple>";
    let pidf =
        format!("<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" entity=\"sip:1001@acme.test\">{tuple}</presence>");
    let event = "Event: presence\r\n";
    let whole = Publish { event, content_type: "application/pidf+xml", body: pidf, ..publish("") };
    let tag = etag(&whole.send(&mut office, 1)[0]);
    let diff = Publish { content_type: "application/pidf-diff+xml", body: "<p:pidf-diff/>".into(), ..whole };
    let sent = diff.with(&format!("SIP-If-Match: {tag}\r\n")).send(&mut office, 2);
    assert_eq!((sent[0].status(), sent[0].header("Accept")), (415, "application/pidf+xml"));
}

#[test]
fn a_body_of_another_package_is_an_unsupported_media_type() {
    let mut office = Office::open();
    for (n, content_type) in (1..).zip(["application/pidf+xml", "text/plain", "application/sdp"]) {
        let sent = Publish { content_type, ..publish(&dialog("c1", "early")) }.send(&mut office, n);
        assert_eq!((sent[0].status(), sent[0].header("Accept")), (415, TYPE), "{content_type}");
    }
}

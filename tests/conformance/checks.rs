//! Group B: checks of every request before its method is considered (RFC 3261 section 8.2).

use lamplighter::sip::wire::{self, Name};

use crate::bench::Expected::{Answer, Silence, Subscribed};
use crate::bench::{Bench, compare};
use crate::office::{Office, udp};
use crate::request::Request;
use crate::{URI, answered, options, publish, say, subscribe, subscribed};

#[test]
fn an_answer_copies_what_tells_whose_it_is() {
    // B-001, B-003, B-005
    let vias =
        ["SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKcopy;x=1", "SIP/2.0/TCP second.example", "SIP/2.0/UDP third"];
    for method in ["OPTIONS", "SUBSCRIBE", "PUBLISH", "INVITE", "CANCEL", "FROBNICATE"] {
        let request = Request::new(method, URI).put("Event: dialog").put(&format!("Via: {}", vias[0]));
        let request = vias[1..].iter().fold(request, |request, via| request.add(&format!("Via: {via}")));
        let sent = say(&request.put("To: \"Ann\" <sip:1001@acme.test>;x=y;tag=TheirOwn"));
        let answer = &sent[0];
        assert_eq!(answer.all(Name::Via), vias, "{method}");
        assert_eq!(answer.header("From"), "\"Phone\" <sip:1002@acme.test>;tag=phone1", "{method}");
        assert_eq!(answer.header("To"), "\"Ann\" <sip:1001@acme.test>;x=y;tag=TheirOwn", "{method}");
        assert_eq!(answer.header("Call-ID"), "ordinary@192.0.2.99", "{method}");
        assert_eq!(answer.header("CSeq"), format!("1 {method}"));
        assert_eq!(answer.header("Content-Length"), "0", "{method}");
    }
}

#[test]
fn an_answer_has_a_to_tag_and_its_repetition_the_same() {
    // B-002
    for (n, request) in [subscribe(), publish("early"), options(), Request::new("INVITE", URI)].into_iter().enumerate()
    {
        let bench = Bench::new();
        let first = bench.udp(request.bytes());
        let again = bench.udp(request.bytes());
        let message = wire::read(first[0].text.as_bytes()).unwrap().unwrap();
        assert!(message.to.tag().is_some_and(|tag| tag.len() >= 16), "{n}: {}", first[0].text);
        assert_eq!(again[0].text, first[0].text, "{n}");
    }
}

#[test]
fn the_first_answer_is_the_last() {
    // B-004: no 100 precedes it.
    subscribed("B-004", &subscribe());
    answered("B-004", &publish("early"), &[200]);
}

#[test]
fn a_request_without_what_it_needs_is_told_what_that_is() {
    // B-006, B-046
    for name in ["To", "From", "CSeq", "Call-ID"] {
        for request in [subscribe(), options()] {
            let answer = answered(name, &request.without(name), &[400]);
            assert!(answer.text.starts_with(&format!("SIP/2.0 400 Missing {name} header\r\n")), "{}", answer.text);
        }
    }
    compare("B-006, no Via, so no way back", &say(&subscribe().without("Via")), Silence);
}

#[test]
fn a_peer_of_rfc_2543_has_no_tag_and_is_served() {
    // B-007
    answered("B-007", &options().put("From: <sip:1002@acme.test>"), &[200]);
    let [answer, notify] = subscribed("B-007", &subscribe().put("From: <sip:1002@acme.test>"));
    assert_eq!((answer.header("From"), notify.header("To")), ("<sip:1002@acme.test>", "<sip:1002@acme.test>"));
}

#[test]
fn what_finds_a_transaction_dialog_or_subscription_stands_once() {
    // B-008
    for line in [
        "From: <sip:1002@acme.test>;tag=a;tag=b",
        "To: <sip:1001@acme.test>;tag=a;Tag=b",
        "Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKa;branch=z9hG4bKb",
        "Event: dialog;id=a;id=b",
    ] {
        answered(line, &subscribe().put(line), &[400]);
    }
}

#[test]
fn methods_that_are_not_served_get_405_and_unknown_ones_501_with_those_that_are() {
    // B-011, B-012, B-013, B-044, C-026
    let known = ["INVITE", "MESSAGE", "REGISTER", "BYE", "INFO", "NOTIFY", "PRACK", "REFER", "UPDATE"];
    for (method, status) in known.map(|method| (method, &[405])).into_iter().chain([("FROBNICATE", &[501])]) {
        let answer = answered(method, &Request::new(method, URI), status);
        assert_eq!(answer.header("Allow"), "OPTIONS, SUBSCRIBE, PUBLISH", "{method}");
    }
    answered("B-044", &Request::new("BYE", URI).put("To: <sip:1001@acme.test>;tag=nobody"), &[405, 481]);
}

#[test]
fn the_request_uri_says_who_is_watched_and_the_to_does_not() {
    // B-016, B-017
    let bench = Bench::new();
    compare("B-016", &bench.udp(publish("confirmed").bytes()), Answer(&[200]));
    for (n, to) in ["<sip:1003@acme.test>", "<sip:x@elsewhere.example>", "<tel:+1555>", "<urn:x:y>"].iter().enumerate()
    {
        let request = subscribe().put(&format!("To: {to}")).put(&format!("Call-ID: {n}"));
        let sent = bench.udp(request.bytes());
        compare(to, &sent, Subscribed);
        assert!(sent[1].text.contains("<state>confirmed</state>"), "{to}: {}", sent[1].text);
    }
    let other = Request::subscribe("sip:1003@acme.test").put("Call-ID: other");
    assert!(!bench.udp(other.bytes())[1].text.contains("confirmed"));
}

#[test]
fn who_is_not_served_here_is_not_found() {
    // B-020, B-038
    for uri in ["sip:1001@elsewhere.test", "sip:1001@192.0.2.1", "sip:1001@acme.test.elsewhere"] {
        answered(uri, &Request::subscribe(uri), &[404]);
    }
    for uri in ["sip:1001@elsewhere.test", "sip:nobody@acme.test", "sip:acme.test"] {
        answered(uri, &Request::new("OPTIONS", uri), &[200, 404]);
    }
}

#[test]
fn nothing_that_asks_for_tls_is_served_in_the_clear() {
    // B-021
    answered("B-021", &Request::subscribe("sips:1001@acme.test"), &[403, 416, 480]);
    answered("B-021", &subscribe().put("Contact: <sips:1002@192.0.2.99>"), &[403, 416, 480]);
}

#[test]
fn a_request_that_comes_by_two_ways_is_taken_once() {
    // B-022
    let bench = Bench::new();
    compare("B-022", &bench.udp(subscribe().bytes()), Subscribed);
    let other_way = subscribe().put("Via: SIP/2.0/UDP 192.0.2.98;branch=z9hG4bKother");
    compare("B-022", &bench.udp(other_way.bytes()), Answer(&[482]));
    assert_eq!(bench.notifier.subscriptions(), 1);
    // A similar request of another client is a request of its own.
    let alike = subscribe().put("From: <sip:1002@acme.test>;tag=phone2").put("Via: SIP/2.0/UDP h;branch=z9hG4bK3");
    compare("B-022", &bench.udp(alike.bytes()), Subscribed);
}

#[test]
fn what_ack_and_cancel_require_does_not_count() {
    // B-024, B-040, B-043
    answered("B-024", &Request::new("CANCEL", URI).add("Require: x"), &[481]);
    answered("B-040", &Request::new("CANCEL", URI), &[481]);
    compare("B-043", &say(&Request::new("ACK", URI)), Silence);
    compare("B-024", &say(&Request::new("ACK", URI).add("Require: x")), Silence);
    compare("B-043, malformed", &say(&Request::new("ACK", URI).without("Call-ID")), Silence);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_what_can() {
    // B-026, B-027, B-028, B-029
    let accept = "application/dialog-info+xml";
    let multipart =
        "--b\r\nContent-Type: application/x\r\nContent-Disposition: x;handling=optional\r\n\r\nx\r\n--b--\r\n";
    for (row, request) in [
        ("B-026", publish("early").put("Content-Type: application/unknown")),
        ("B-028", publish("early").body("multipart/mixed;boundary=b", multipart)),
        ("B-029", publish("early").without("Content-Type")),
    ] {
        assert_eq!(answered(row, &request, &[415]).header("Accept"), accept, "{row}");
    }
    for request in [publish("early"), subscribe()] {
        let answer = answered("B-027", &request.add("Content-Encoding: x-foo"), &[415]);
        assert_eq!(answer.header("Accept-Encoding"), "identity");
    }
    answered("B-027", &publish("early").add("Content-Encoding: Identity"), &[200]);
}

#[test]
fn an_accept_that_admits_nothing_is_refused() {
    // B-030, B-032
    for accept in ["application/x", "", "application/dialog-info+xml;q=0", "*/*;q=0.0"] {
        let answer = answered(accept, &subscribe().put(&format!("Accept: {accept}")), &[406]);
        assert_eq!(answer.header("Accept"), "application/dialog-info+xml");
    }
}

#[test]
fn max_forwards_is_for_those_who_forward() {
    // B-033, B-034, B-035
    for value in ["0", "300", "abc", "-1"] {
        subscribed(value, &subscribe().put(&format!("Max-Forwards: {value}")));
    }
    subscribed("B-034", &subscribe().without("Max-Forwards"));
}

#[test]
fn options_tells_what_can_be_had_here() {
    // B-014, B-036, B-037, B-049
    let answer = answered("B-036", &options(), &[200]);
    for (name, value) in [
        ("Allow", "OPTIONS, SUBSCRIBE, PUBLISH"),
        ("Allow-Events", "dialog, presence, message-summary"),
        ("Accept", "application/dialog-info+xml, application/pidf+xml, application/simple-message-summary"),
        ("Accept-Encoding", "identity"),
        ("Accept-Language", "en"),
        ("Supported", ""),
    ] {
        assert_eq!(answer.header(name), value);
    }
    for name in ["Server", "User-Agent"] {
        assert!(!answer.text.contains(&format!("\r\n{name}:")), "{}", answer.text);
    }
}

#[test]
fn an_options_inside_a_dialog_changes_nothing_in_it() {
    // B-039
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let before = office.list();
    let ask = |phone: &crate::office::Phone, tag: &str| {
        let text = phone.request(0).replace("SUBSCRIBE", "OPTIONS").replace("Event:", "X-Event:");
        text.replacen("z9hG4bK", "z9hG4bKo", 1).replace(phone.to_tag.as_deref().unwrap(), tag)
    };
    let inside = ask(&phone, phone.to_tag.as_deref().unwrap());
    assert_eq!(office.receive(phone.source, &inside).iter().map(|sent| sent.status()).collect::<Vec<_>>(), [200]);
    let outside = ask(&phone, "0.0.0123456789abcdef").replacen("z9hG4bK", "z9hG4bKo", 1);
    assert_eq!(office.receive(phone.source, &outside)[0].status(), 481);
    assert_eq!(office.list(), before);
    phone.refresh(&mut office);
}

#[test]
fn a_cancel_comes_too_late_and_is_told_so_kindly() {
    // B-042
    for request in [subscribe(), publish("early")] {
        let bench = Bench::new();
        let first = bench.udp(request.bytes());
        let cancel =
            String::from_utf8(request.clone().without("Content-Type").put("Content-Length: 0").bytes()).unwrap();
        let head = cancel.split_once("\r\n\r\n").unwrap().0;
        let method = head.split(' ').next().unwrap();
        let cancel =
            format!("{}\r\n\r\n", head.replace(&format!(" {method}"), " CANCEL").replacen(method, "CANCEL", 1));
        let sent = bench.udp(cancel);
        compare("B-042", &sent, Answer(&[200]));
        assert_eq!((sent[0].header("To"), sent[0].header("CSeq")), (first[0].header("To"), "1 CANCEL"));
        assert_eq!(bench.udp(request.bytes())[0].text, first[0].text, "it stands");
    }
}

#[test]
fn a_stranger_is_challenged_but_not_for_his_ack_or_cancel() {
    // B-041, T-040: an unknown scheme in the credentials does not bypass authentication either.
    let mut office = Office::with("[access]\nauthenticate = \"digest\"\n");
    let mut ask = |request: &Request| {
        let sent = office.receive(udp("203.0.113.7:5070"), &String::from_utf8(request.bytes()).unwrap());
        sent.iter().map(|sent| (sent.status(), sent.text.contains("WWW-Authenticate: Digest "))).collect::<Vec<_>>()
    };
    let unknown_scheme = subscribe().add("Authorization: NoOneKnowsThisScheme opaque-data=here");
    assert_eq!(ask(&unknown_scheme), [(401, true)]);
    assert_eq!(ask(&Request::new("CANCEL", URI).put("Via: SIP/2.0/UDP h;branch=z9hG4bKnone")), [(481, false)]);
    assert_eq!(ask(&Request::new("CANCEL", URI)), [(481, false)], "who was challenged is not remembered");
    assert_eq!(ask(&Request::new("ACK", URI)), []);
}

#[test]
fn nobody_is_required_to_know_an_extension() {
    // B-045
    for message in subscribed("B-045", &subscribe()) {
        assert!(!message.text.contains("\r\nRequire:"), "{}", message.text);
    }
}

#[test]
fn who_cannot_be_taken_on_is_told_when_to_come_back() {
    // B-048
    let mut office = Office::open();
    let mut known = office.settled("1001", "dialog");
    office.notifier.drain();
    let (_, sent) = office.watch("1001", "dialog");
    assert_eq!((sent.len(), sent[0].status()), (1, 503));
    let wait: u32 = sent[0].header("Retry-After").parse().unwrap();
    assert!((10..=20).contains(&wait), "{wait}");
    known.refresh(&mut office);
    let options = String::from_utf8(options().bytes()).unwrap();
    assert_eq!(office.receive(udp("192.0.2.99:5070"), &options)[0].status(), 200);
}

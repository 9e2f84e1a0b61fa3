//! Group A: variants of syntax that must be accepted, and the responses to invalid messages.

use lamplighter::sip::headers::{NameAddr, items};
use lamplighter::sip::wire::{self, Name};

use crate::bench::Expected::{Answer, Subscribed};
use crate::bench::{Bench, compare};
use crate::request::Request;
use crate::{URI, answered, options, publish, subscribe, subscribed};

#[test]
fn the_version_may_be_in_any_case_and_is_answered_in_upper_case() {
    //
    let answer = answered("A-007", &options().start("OPTIONS sip:acme.test sip/2.0"), &[200]);
    assert!(answer.text.starts_with("SIP/2.0 200 OK\r\n"), "{}", answer.text);
}

#[test]
fn a_method_in_lower_case_is_another_method() {
    //
    let request = subscribe().start("subscribe sip:1001@acme.test SIP/2.0").put("CSeq: 1 subscribe");
    answered("A-008", &request, &[405, 501]);
}

#[test]
fn names_in_any_case_short_forms_and_blanks_round_the_colon_change_nothing() {
    //
    let odd_case = Request::bare("SUBSCRIBE sip:1001@acme.test SIP/2.0")
        .add("vIA: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKa")
        .add("fROM: <sip:1002@acme.test>;tag=a")
        .add("TO: <sip:1001@acme.test>")
        .add("cALL-iD: a")
        .add("CSEQ: 1 SUBSCRIBE")
        .add("cONTACT: <sip:1002@192.0.2.99>")
        .add("EVENT: dialog")
        .add("EXPIRES: 600");
    let short = Request::bare("SUBSCRIBE sip:1001@acme.test SIP/2.0")
        .add("v: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKa")
        .add("Via: SIP/2.0/UDP low.example;branch=z9hG4bKlow")
        .add("V: SIP/2.0/UDP lower.example;branch=z9hG4bKlower")
        .add("f: <sip:1002@acme.test>;tag=a")
        .add("t: <sip:1001@acme.test>")
        .add("i: a")
        .add("CSeq: 1 SUBSCRIBE")
        .add("m: <sip:1002@192.0.2.99>")
        .add("o: dialog")
        .add("Expires: 600")
        .add("k: eventlist")
        .add("u: dialog")
        .add("s: x")
        .add("l: 0");
    let blanks = subscribe().without("To").add("To\t :\t<sip:1001@acme.test>").without("Event").add("Event:dialog");
    for (row, request) in [("A-009", odd_case), ("A-010", short), ("A-011", blanks)] {
        let [answer, notify] = subscribed(row, &request);
        assert_eq!((answer.header("Expires"), notify.header("Event")), ("600", "dialog"), "{row}");
        let vias = answer.all(Name::Via).len();
        assert_eq!(vias, if row == "A-010" { 3 } else { 1 }, "{row}");
    }
}

#[test]
fn what_is_folded_comes_back_whole() {
    //
    let request = subscribe()
        .put("CSeq:\r\n 1\r\n\tSUBSCRIBE")
        .put("Via: SIP/2.0/UDP\r\n 192.0.2.99:5070\r\n ;branch=z9hG4bKfolded;x=1")
        .put("From: \"A\r\n B\"\r\n <sip:1002@acme.test>\r\n ;tag=folded")
        .put("Contact:\r\n <sip:1002@192.0.2.99:5099>");
    let [answer, notify] = subscribed("A-012", &request);
    assert_eq!(answer.header("CSeq"), "1 SUBSCRIBE");
    assert_eq!(answer.header("Via"), "SIP/2.0/UDP 192.0.2.99:5070 ;branch=z9hG4bKfolded;x=1");
    assert_eq!(answer.header("From"), "\"A B\" <sip:1002@acme.test> ;tag=folded");
    assert_eq!((notify.request_uri(), notify.header("To")), ("sip:1002@192.0.2.99:5099", answer.header("From")));
}

#[test]
fn blanks_round_separators_change_nothing() {
    // the same request again is a retransmission, blanks included.
    let bench = Bench::new();
    let request = subscribe()
        .put("Via: SIP / 2.0 / UDP 192.0.2.99:5070 ; branch = z9hG4bKblank , SIP / 2.0 / TCP low.example ; x = y");
    let first = bench.udp(request.bytes());
    compare("A-013", &first, Subscribed);
    let again = bench.udp(request.bytes());
    assert_eq!((again.len(), &again[0].text), (1, &first[0].text));
    let text = &first[0].text;
    assert!(text.contains("Via: SIP / 2.0 / UDP 192.0.2.99:5070 ; branch = z9hG4bKblank"), "{text}");
    assert!(text.contains(", SIP / 2.0 / TCP low.example ; x = y\r\n"), "{text}");
}

#[test]
fn a_list_in_one_line_or_in_many_is_the_same() {
    //
    let one = subscribe()
        .add("Record-Route: <sip:192.0.2.7;lr>, <sip:192.0.2.8;lr>")
        .add("Accept: text/plain, application/dialog-info+xml")
        .put("Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKtop, SIP/2.0/UDP low.example;branch=z9hG4bKlow");
    let many = subscribe()
        .add("Record-Route: <sip:192.0.2.7;lr>")
        .add("Record-Route: <sip:192.0.2.8;lr>")
        .add("Accept: text/plain")
        .add("Accept: application/dialog-info+xml")
        .put("Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKtop")
        .add("Via: SIP/2.0/UDP low.example;branch=z9hG4bKlow");
    for request in [one, many] {
        let [answer, notify] = subscribed("A-014", &request);
        let message = wire::read(answer.text.as_bytes()).unwrap().unwrap();
        let vias: Vec<_> = items(&message, Name::Via);
        assert_eq!(vias[1], "SIP/2.0/UDP low.example;branch=z9hG4bKlow");
        assert_eq!(items(&message, Name::RecordRoute), ["<sip:192.0.2.7;lr>", "<sip:192.0.2.8;lr>"]);
        assert_eq!(notify.header("Route"), "<sip:192.0.2.7;lr>, <sip:192.0.2.8;lr>");
        assert_eq!(notify.peer(), "192.0.2.7:5060".parse().unwrap());
    }
    let refused = options().add("Require: a, b").add("Require: c");
    assert_eq!(answered("A-014", &refused, &[420]).header("Unsupported"), "a, b, c");
}

#[test]
fn a_display_name_comes_back_to_the_octet_and_hides_what_is_in_it() {
    //
    for (from, tag) in [
        ("\"Jo \\\"x\\\" \\\\\" <sip:1002@acme.test>;tag=1", "1"),
        ("\"a;tag=evil, <sip:e@x>\" <sip:1002@acme.test>;tag=ok", "ok"),
        ("\"a\\\", <sip:e@x>;tag=evil\" <sip:1002@acme.test>;tag=ok", "ok"),
        ("caller<sip:1002@acme.test>;tag=2", "2"),
        ("\"J\u{f6}rg \u{65e5}\u{672c}\" <sip:1002@acme.test>;tag=3", "3"),
    ] {
        let [answer, notify] = subscribed("A-016", &subscribe().put(&format!("From: {from}")));
        assert_eq!((answer.header("From"), notify.header("To")), (from, from));
        assert_eq!(NameAddr::read(notify.header("To")).unwrap().tag(), Some(tag));
    }
}

#[test]
fn without_brackets_what_follows_the_uri_belongs_to_the_header() {
    //
    let request = subscribe().put("Contact: sip:1002@192.0.2.99:5071;transport=tcp");
    let [_, notify] = subscribed("A-022", &request);
    assert_eq!((notify.request_uri(), notify.peer().port()), ("sip:1002@192.0.2.99:5071", 5071));
}

#[test]
fn scheme_and_host_compare_without_case_and_escapes_are_what_they_stand_for() {
    // A-025 (users are compared case-insensitively as well: a listed deviation), A-026
    for uri in ["SIP:1001@ACME.TEST", "sip:%31%300%31@acme.test", "sip:1001@Acme.Test.", "sip:1001@acme.test;x=y"] {
        let bench = Bench::new();
        compare(uri, &bench.udp(publish("confirmed").bytes()), Answer(&[200]));
        let sent = bench.udp(Request::subscribe(uri).bytes());
        compare(uri, &sent, Subscribed);
        assert!(sent[1].text.contains("<state>confirmed</state>"), "{uri}: {}", sent[1].text);
    }
}

#[test]
fn an_escaped_nul_is_no_end() {
    //
    let bench = Bench::new();
    compare("A-027", &bench.udp(Request::subscribe("sip:null-%00-null@acme.test").bytes()), Answer(&[404]));
    let prefix = Request::subscribe("sip:null-@acme.test").put("Call-ID: prefix");
    compare("A-027", &bench.udp(prefix.bytes()), Subscribed);
}

#[test]
fn a_from_tag_in_another_case_is_another_tag() {
    // our tag may be returned in any case; the phone's tag must be the same as before.
    let bench = Bench::new();
    let first = bench.udp(subscribe().bytes());
    compare("A-032", &first, Subscribed);
    let to = first[0].header("To");
    let refresh = |from: &str, to: &str, n: u32| {
        subscribe()
            .put(&format!("Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bKr{n}"))
            .put(&format!("From: \"Phone\" <sip:1002@acme.test>;tag={from}"))
            .put(&format!("To: {to}"))
            .put(&format!("CSeq: {n} SUBSCRIBE"))
            .bytes()
    };
    compare("A-032", &bench.udp(refresh("PHONE1", to, 2)), Answer(&[481]));
    let (uri, tag) = to.split_once(";tag=").unwrap();
    compare("A-032", &bench.udp(refresh("phone1", &format!("{uri};tag={}", tag.to_uppercase()), 3)), Subscribed);
}

#[test]
fn what_nobody_knows_is_ignored_wherever_it_stands() {
    // B-015
    let request = subscribe()
        .put("Via: SIP/2.0/UDP 192.0.2.99:5070;x;y=z;z=\"a;b,c\";branch=z9hG4bKparams")
        .put("From: <sip:1002@acme.test>;x;y=z;tag=params;z=\"a;tag=b\"")
        .put("Contact: <sip:1002@192.0.2.99:5070>;x;y=z;z=\"a;b,c\"")
        .put("Event: dialog;x;y=z;z=\"a;id=b\"");
    let [_, notify] = subscribed("A-034", &request);
    assert_eq!((notify.request_uri(), notify.header("Event")), ("sip:1002@192.0.2.99:5070", "dialog"));
    for line in
        ["X: ;;,,;;,;", "Foo:", "Subject:", "Supported:", "Date: Sat, x", "Warning: xx", "P-Preferred-Identity: ;"]
    {
        subscribed(line, &subscribe().add(line));
    }
    // The identity named by a trusted source decides its rights: an unreadable one counts as unknown.
    answered("B-015", &subscribe().add("P-Asserted-Identity: ;"), &[403]);
}

#[test]
fn separators_that_part_nothing_are_refused_in_via_and_contact() {
    //
    for line in [
        "Via: SIP/2.0/UDP 192.0.2.99:5070;;branch=z9hG4bK1",
        "Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bK1,",
        "Contact: <sip:1002@192.0.2.99>;;;;",
        "Contact: <sip:1002@192.0.2.99>,",
        "Contact: , <sip:1002@192.0.2.99>",
    ] {
        answered(line, &subscribe().put(line), &[400]);
    }
    subscribed("one separator at the end parts nothing", &subscribe().put("Contact: <sip:1002@192.0.2.99>;"));
}

#[test]
fn what_is_no_header_is_refused_in_words() {
    //
    let mut not_utf8 = subscribe().put("From: \"XY\" <sip:1002@acme.test>;tag=1").bytes();
    let at = not_utf8.windows(2).position(|two| two == b"XY").unwrap();
    not_utf8[at..at + 2].copy_from_slice(b"\xff\xfe");
    let half_lines = String::from_utf8(subscribe().bytes()).unwrap().replace("\r\n", "\n").into_bytes();
    let no_header = subscribe().add("garbage line").bytes();
    for (row, bytes, reason) in [
        ("A-040", not_utf8, "Header is not UTF-8"),
        ("A-041", half_lines, "Control character in header"),
        ("A-042", no_header, "Malformed header line"),
    ] {
        let sent = Bench::new().udp(&bytes);
        compare(row, &sent, Answer(&[400]));
        assert!(sent[0].text.starts_with(&format!("SIP/2.0 400 {reason}\r\n")), "{row}: {}", sent[0].text);
        // On a stream the result is the same.
        let stream = String::from_utf8_lossy(&bytes).replace("/UDP", "/TCP");
        if row != "A-040" {
            assert_eq!(Bench::new().tcp(&stream).0[0].status(), 400, "{row}");
        }
    }
}

#[test]
fn long_values_are_taken_whole_as_long_as_a_dialog_can_keep_them() {
    // A-044; rule 7: the memory that a subscription keeps of its requests is bounded.
    let long = |n: usize| "long".repeat(n / 4);
    let from = |n: usize| format!("From: \"{}\" <sip:1002@acme.test>;tag={}", long(2_000), long(n));
    let vias = (0..30).fold(subscribe().put(&from(4_000)), |request, i| {
        request.add(&format!("Via: SIP/2.0/TCP proxy{i}.example;branch=z9hG4bK{}", long(100)))
    });
    let [answer, notify] = subscribed("A-044", &vias);
    assert_eq!((answer.all(Name::Via).len(), answer.text.matches(&long(100)).count() >= 30), (31, true));
    assert!(notify.header("To").contains(&long(2_000)) && notify.header("To").ends_with(&long(4_000)));

    let routes = |n: usize| {
        (0..n).fold(subscribe(), |request, i| {
            request.add(&format!("Record-Route: <sip:192.0.2.7;lr;i={i};x={}>", long(1_000)))
        })
    };
    subscribed("seven long routes", &routes(7));
    let refused = answered("eight long routes", &routes(8), &[513]);
    assert!(refused.text.starts_with("SIP/2.0 513 Dialog Headers Too Long\r\n"), "{}", refused.text);
    let id = format!("Event: dialog;id={}", long(2_000));
    answered("a long event id", &routes(6).put(&id), &[513]);
    let bench = Bench::new();
    let first = bench.udp(routes(6).bytes());
    let refresh = routes(0)
        .put("CSeq: 2 SUBSCRIBE")
        .put("Via: SIP/2.0/UDP h;branch=z9hG4bKrefresh")
        .put(&format!("To: {}", first[0].header("To")))
        .put(&format!("Contact: <sip:1002@192.0.2.99;x={}>", long(3_000)));
    compare("a long Contact in a refresh", &bench.udp(refresh.bytes()), Answer(&[513]));
}

#[test]
fn media_types_compare_without_case_and_may_have_parameters() {
    //
    answered("A-047", &publish("early").put("Content-Type: Application/Dialog-Info+XML;charset=UTF-8"), &[200]);
}

#[test]
fn in_a_datagram_the_body_ends_with_it_or_where_content_length_says() {
    //
    let whole = publish("confirmed");
    let behind = Request::new("PUBLISH", URI).put("Event: dialog").put("Call-ID: behind").put("Expires: 0").bytes();
    for (row, bytes) in
        [("A-048", whole.clone().without("Content-Length").bytes()), ("A-049", [whole.bytes(), behind].concat())]
    {
        let bench = Bench::new();
        compare(row, &bench.udp(&bytes), Answer(&[200]));
        let sent = bench.udp(subscribe().bytes());
        assert!(sent[1].text.contains("<state>confirmed</state>"), "{row}: {}", sent[1].text);
    }
    answered("A-050", &whole.put("Content-Length: 1200"), &[400]);
}

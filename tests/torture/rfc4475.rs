//! Group T: the invalid and odd messages of RFC 4475, and the same in a SUBSCRIBE, which is processed further.

use crate::bench::Expected::{Answer, Silence, Subscribed};
use crate::bench::{Bench, Expected, Sent, compare};
use crate::request::Request;

/// A row of the conformance list.
pub(crate) struct Case {
    pub(crate) row: &'static str,
    pub(crate) request: Vec<u8>,
    pub(crate) expected: Expected,
    pub(crate) then: fn(&[Sent]),
}

pub(crate) fn case(row: &'static str, request: Request, expected: Expected) -> Case {
    Case { row, request: request.bytes(), expected, then: |_| {} }
}

pub(crate) fn checked(row: &'static str, request: Request, expected: Expected, then: fn(&[Sent])) -> Case {
    Case { then, ..case(row, request, expected) }
}

pub(crate) fn response(row: &'static str, text: &str) -> Case {
    Case { row, request: text.replace('\n', "\r\n").into_bytes(), expected: Silence, then: |_| {} }
}

pub(crate) fn run(cases: Vec<Case>) {
    for Case { row, request, expected, then } in cases {
        let sent = Bench::new().udp(&request);
        compare(row, &sent, expected);
        then(&sent);
    }
}

pub(crate) const URI: &str = "sip:1001@acme.test";

pub(crate) fn options() -> Request {
    Request::new("OPTIONS", URI)
}

pub(crate) fn subscribe() -> Request {
    Request::subscribe(URI)
}

#[test]
fn invalid_messages_are_refused_or_taken_as_the_list_allows() {
    let in_invite_and_subscribe =
        |row: &'static str, subscribe_row: &'static str, line: &str, allowed: &'static [u16]| {
            [
                case(row, Request::new("INVITE", URI).put(line), Answer(allowed)),
                case(subscribe_row, subscribe().put(line), Answer(allowed)),
            ]
        };
    let mut cases = vec![
        case(
            "T-014 badinv01",
            Request::new("INVITE", URI)
                .put("Via: SIP/2.0/UDP 192.0.2.15;;,;,,")
                .put("Contact: \"Joe\" <sip:joe@192.0.2.99>;;;;"),
            Answer(&[400]),
        ),
        case("T-014 badinv01, only Via", subscribe().put("Via: SIP/2.0/UDP 192.0.2.15;;,;,,"), Answer(&[400])),
        case("T-017 scalar02, Max-Forwards", subscribe().put("Max-Forwards: 300"), Subscribed),
        case("T-017 scalar02, Expires", subscribe().put("Expires: 10000000000000"), Answer(&[400])),
        response(
            "T-018 scalarlg",
            "SIP/2.0 503 Service Unavailable\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nTo: <sip:a@acme.test>;tag=1\nFrom: <sip:b@acme.test>;tag=2\nCall-ID: u\nCSeq: 9292394834772304023312 OPTIONS\nRetry-After: 949302838503028349304023988\nWarning: 1812 overture \"x\"\nContent-Length: 0\n\n",
        ),
        case("T-020 ltgtruri", Request::new("INVITE", "<sip:1001@acme.test>"), Answer(&[400])),
        case("T-020 ltgtruri as SUBSCRIBE", Request::subscribe("<sip:1001@acme.test>"), Answer(&[400])),
        case("T-021 lwsruri", Request::new("INVITE", "sip:1001@acme.test; lr"), Answer(&[400])),
        case("T-021 lwsruri as SUBSCRIBE", Request::subscribe("sip:1001@acme.test; lr"), Answer(&[400])),
        case("T-022 lwsstart", Request::new("INVITE", " sip:1001@acme.test "), Answer(&[400, 405])),
        case("T-023 trws", options().start("OPTIONS sip:1001@acme.test SIP/2.0  "), Answer(&[200, 400])),
        case(
            "T-024 escruri",
            Request::new("INVITE", "sip:1001@acme.test?Route=%3Csip:evil.example%3E"),
            Answer(&[400, 405]),
        ),
        checked(
            "T-024 escruri as SUBSCRIBE",
            Request::subscribe("sip:1001@acme.test?Route=%3Csip:evil.example%3E"),
            Subscribed,
            |sent| assert!(!sent.iter().any(|s| s.text.contains("evil") || s.text.contains("\r\nRoute:"))),
        ),
        case("T-025 baddate", Request::new("INVITE", URI).put("Date: Fri, 01 Jan 2010 16:00:00 EST"), Answer(&[405])),
        case("T-025 baddate as SUBSCRIBE", subscribe().put("Date: Fri, 01 Jan 2010 16:00:00 EST"), Subscribed),
        case(
            "T-026 regbadct",
            Request::new("REGISTER", "sip:acme.test").put("Contact: sip:u@acme.test?Route=%3Csip:evil.example%3E"),
            Answer(&[400, 405]),
        ),
        case(
            "T-026 regbadct as SUBSCRIBE",
            subscribe().put("Contact: sip:u@192.0.2.99?Route=%3Csip:evil.example%3E"),
            Answer(&[400]),
        ),
        case("T-027 badaspec", options().put("To: \"Watson\" < sip:1001@acme.test >"), Answer(&[400, 200])),
        case("T-028 baddn", options().put("To: Bell, Alexander <sip:1001@acme.test>"), Answer(&[400, 200])),
        case(
            "T-029 badvers",
            options().start("OPTIONS sip:1001@acme.test SIP/7.0").put("Via: SIP/7.0/UDP h;branch=z9hG4bK1"),
            Answer(&[505]),
        ),
        case("T-029 badvers as SUBSCRIBE", subscribe().start("SUBSCRIBE sip:1001@acme.test SIP/7.0"), Answer(&[505])),
        case("T-030 mismatch01", options().put("CSeq: 8 INVITE"), Answer(&[400])),
        case("T-030 mismatch01 as SUBSCRIBE", subscribe().put("CSeq: 8 INVITE"), Answer(&[400])),
        case("T-031 mismatch02", Request::new("NEWMETHOD", URI).put("CSeq: 8 INVITE"), Answer(&[400, 501])),
        response(
            "T-032 bigcode",
            "SIP/2.0 4294967301 better not break the receiver\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nTo: <sip:a@acme.test>;tag=1\nFrom: <sip:b@acme.test>;tag=2\nCall-ID: u\nCSeq: 35 NOTIFY\nContent-Length: 0\n\n",
        ),
    ];
    cases.extend(in_invite_and_subscribe("T-015 clerr", "T-015 clerr as SUBSCRIBE", "Content-Length: 9999", &[400]));
    cases.extend(in_invite_and_subscribe("T-016 ncl", "T-016 ncl as SUBSCRIBE", "Content-Length: -999", &[400]));
    cases.extend(in_invite_and_subscribe(
        "T-019 quotbal",
        "T-019 quotbal as SUBSCRIBE",
        "To: \"Mr J User <sip:j@acme.test>",
        &[400],
    ));
    cases.push(case(
        "T-017 scalar02, CSeq",
        Request::new("REGISTER", URI).put("CSeq: 36893488147419103232 REGISTER"),
        Answer(&[400]),
    ));
    cases.push(case(
        "T-017 scalar02 as SUBSCRIBE",
        subscribe().put("CSeq: 36893488147419103232 SUBSCRIBE"),
        Answer(&[400]),
    ));
    run(cases);
}

#[test]
fn what_is_well_formed_and_odd_is_taken_for_what_it_is() {
    let route: fn(&[Sent]) = |sent| assert!(!sent.iter().any(|s| s.text.contains("\r\nRoute:")));
    let without_ids = |request: Request| request.without("Call-ID").without("From").without("To").without("Contact");
    let of_2543 = |request: Request| {
        request
            .put("Via: SIP/2.0/UDP 192.0.2.99")
            .put("From: <sip:1002@acme.test>")
            .without("Content-Length")
            .without("Max-Forwards")
    };
    let unknown_schemes = |request: Request| {
        request.put("To: isbn:2983792873").put("From: <http://www.example.com>;tag=3").put("Contact: <name:John_Smith>")
    };
    run(vec![
        case("T-034 insuf", without_ids(Request::new("INVITE", URI)), Answer(&[400])),
        case("T-034 insuf as SUBSCRIBE", without_ids(subscribe()), Answer(&[400])),
        case("T-035 unkscm", Request::new("OPTIONS", "nobodyKnowsThisScheme:totallyopaquecontent"), Answer(&[416])),
        case(
            "T-035 unkscm as SUBSCRIBE",
            Request::subscribe("nobodyKnowsThisScheme:totallyopaquecontent"),
            Answer(&[416]),
        ),
        case("T-036 novelsc", Request::new("OPTIONS", "soap.beep://192.0.2.103:3002"), Answer(&[416, 404])),
        case("T-036 novelsc as SUBSCRIBE", Request::subscribe("soap.beep://192.0.2.103:3002"), Answer(&[416, 404])),
        case("T-037 unksm2", unknown_schemes(Request::new("REGISTER", "sip:acme.test")), Answer(&[405, 400])),
        case("T-037 unksm2 as SUBSCRIBE", unknown_schemes(subscribe()), Answer(&[400, 416])),
        case(
            "T-037 unksm2 as SUBSCRIBE, Contact aside",
            unknown_schemes(subscribe()).put("Contact: <sip:1002@192.0.2.99>"),
            Subscribed,
        ),
        checked(
            "T-038 bext01",
            options()
                .add("Require: nothingSupportsThis, nothingSupportsThisEither")
                .add("Proxy-Require: noProxiesSupportThis"),
            Answer(&[420]),
            |sent| assert_eq!(sent[0].header("Unsupported"), "nothingSupportsThis, nothingSupportsThisEither"),
        ),
        checked(
            "T-038 bext01 as SUBSCRIBE, in two lines",
            subscribe().add("Require: a , b").add("Require:c"),
            Answer(&[420]),
            |sent| assert_eq!(sent[0].header("Unsupported"), "a, b, c"),
        ),
        case("T-038 bext01, Proxy-Require alone", subscribe().add("Proxy-Require: noProxiesSupportThis"), Subscribed),
        case("T-039 invut", Request::new("INVITE", URI).body("application/unknownformat", "<audio/>"), Answer(&[405])),
        checked(
            "T-039 invut as PUBLISH",
            Request::new("PUBLISH", URI).put("Event: dialog").body("application/unknownformat", "<audio/>"),
            Answer(&[415]),
            |sent| assert_eq!(sent[0].header("Accept"), "application/dialog-info+xml"),
        ),
        case(
            "T-040 regaut01",
            Request::new("REGISTER", "sip:acme.test").add("Authorization: NoOneKnowsThisScheme opaque-data=here"),
            Answer(&[405]),
        ),
        case(
            "T-040 regaut01 as SUBSCRIBE",
            subscribe().add("Authorization: NoOneKnowsThisScheme opaque-data=here"),
            Subscribed,
        ),
        case(
            "T-041 multi01",
            Request::new("INVITE", URI)
                .add("CSeq: 5 INVITE")
                .add("Call-ID: other")
                .add("Max-Forwards: 5")
                .add("From: <sip:x@y>;tag=2"),
            Answer(&[400]),
        ),
        case("T-042 mcl01", Request::new("OPTIONS", URI).add("Content-Length: 5"), Answer(&[400])),
        case("T-042 mcl01 as SUBSCRIBE", subscribe().add("l: 0"), Answer(&[400])),
        response(
            "T-043 bcast",
            "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2\nTo: <sip:a@acme.test>;tag=1\nFrom: <sip:b@acme.test>;tag=2\nCall-ID: u\nCSeq: 35 NOTIFY\nContent-Length: 0\n\n",
        ),
        case("T-044 zeromf", options().put("Max-Forwards: 0"), Answer(&[200])),
        case("T-044 zeromf as SUBSCRIBE", subscribe().put("Max-Forwards: 0"), Subscribed),
        case(
            "T-045 cparam01",
            Request::new("REGISTER", URI).put("Contact: sip:1002@192.0.2.99:5070;unknownparam"),
            Answer(&[405]),
        ),
        checked(
            "T-045 cparam01 as SUBSCRIBE",
            subscribe().put("Contact: sip:1002@192.0.2.99:5070;unknownparam"),
            Subscribed,
            |sent| assert_eq!(sent[1].request_uri(), "sip:1002@192.0.2.99:5070"),
        ),
        checked(
            "T-046 cparam02 as SUBSCRIBE",
            subscribe().put("Contact: <sip:1002@192.0.2.99:5070;unknownparam>"),
            Subscribed,
            |sent| assert_eq!(sent[1].request_uri(), "sip:1002@192.0.2.99:5070;unknownparam"),
        ),
        checked(
            "T-047 regescrt as SUBSCRIBE",
            subscribe().put("Contact: <sip:1002@192.0.2.99?Route=%3Csip:evil.example%3E>"),
            Answer(&[400]),
            route,
        ),
        case("T-048 sdp01", Request::new("INVITE", URI).put("Accept: text/nobodyKnowsThis"), Answer(&[405])),
        case("T-048 sdp01 as SUBSCRIBE", subscribe().put("Accept: text/nobodyKnowsThis"), Answer(&[406])),
        case(
            "T-049 inv2543",
            of_2543(Request::new("INVITE", URI)).body("application/sdp", "v=0\r\n").without("Content-Length"),
            Answer(&[405]),
        ),
        checked("T-049 inv2543 as SUBSCRIBE", of_2543(subscribe()), Subscribed, |sent| {
            assert_eq!(sent[1].header("To"), "<sip:1002@acme.test>", "a peer without tag gets none");
        }),
    ]);
}

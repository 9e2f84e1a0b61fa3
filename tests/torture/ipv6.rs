//! Group V: RFC 5118, IPv6 addresses in every place where they may stand.

use lamplighter::sip::wire::Name;

use crate::bench::Expected::{Answer, Subscribed};
use crate::bench::{Bench, Expected, Sent, compare};
use crate::notifier::udp_source;
use crate::request::Request;

/// Row, request, source, expected result, and a further check.
type Case = (&'static str, Request, &'static str, Expected, fn(&[Sent]));

const URI: &str = "sip:1001@acme.test";
const PHONE: &str = "[2001:db8::9]:5070";
const V4: &str = "192.0.2.99:5070";

fn from_v6(request: Request) -> Request {
    request.put("Via: SIP/2.0/UDP [2001:db8::9:1]:5061;branch=z9hG4bKv6").put("Contact: <sip:1002@[2001:db8::9]>")
}

fn contact(uri: &str) -> Request {
    from_v6(Request::subscribe(URI)).put(&format!("Contact: <{uri}>"))
}

#[test]
fn ipv6_is_read_where_the_grammar_allows_it_and_refused_elsewhere() {
    let nothing: fn(&[Sent]) = |_| {};
    let cases: Vec<Case> = vec![
        (
            "V-001 ipv6-good, OPTIONS",
            from_v6(Request::new("OPTIONS", "sip:[2001:db8::10]")),
            PHONE,
            Answer(&[200, 404]),
            nothing,
        ),
        ("V-001 ipv6-good", from_v6(Request::subscribe(URI)), PHONE, Subscribed, |sent| {
            assert_eq!(sent[0].peer(), "[2001:db8::9]:5061".parse().expect("an address"), "the port of sent-by");
            let via = "SIP/2.0/UDP [2001:db8::9:1]:5061;branch=z9hG4bKv6;received=2001:db8::9";
            assert_eq!(sent[0].header("Via"), via);
            assert_eq!(sent[1].request_uri(), "sip:1002@[2001:db8::9]");
            assert_eq!(sent[1].peer(), "[2001:db8::9]:5060".parse().expect("an address"));
            assert!(sent[1].header("Via").starts_with("SIP/2.0/UDP [2001:db8::1]:5060;"), "{}", sent[1].text);
        }),
        ("V-002 ipv6-bad", from_v6(Request::new("REGISTER", "sip:2001:db8::10")), PHONE, Answer(&[400]), nothing),
        (
            "V-002 ipv6-bad as SUBSCRIBE",
            from_v6(Request::subscribe("sip:2001:db8::10")),
            PHONE,
            Answer(&[400]),
            nothing,
        ),
        ("V-002 ipv6-bad in Contact", contact("sip:1002@2001:db8::10"), PHONE, Answer(&[400]), nothing),
        (
            "V-003 port-ambiguous",
            contact("sip:1002@[2001:db8::9:5070]"),
            "[2001:db8::9:5070]:999",
            Subscribed,
            |sent| {
                assert_eq!(sent[1].peer(), "[2001:db8::9:5070]:5060".parse().expect("an address"));
            },
        ),
        ("V-004 port-unambiguous", contact("sip:1002@[2001:db8::9]:5070"), "[2001:db8::9]:999", Subscribed, |sent| {
            assert_eq!(sent[1].peer(), "[2001:db8::9]:5070".parse().expect("an address"));
        }),
        (
            "V-005 received with delimiters",
            Request::subscribe(URI)
                .add("Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKlow"),
            V4,
            Subscribed,
            |sent| {
                let low = "SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKlow";
                assert_eq!(sent[0].all(Name::Via)[1], low);
            },
        ),
        (
            "V-005 received with delimiters on top",
            Request::subscribe(URI)
                .put("Via: SIP/2.0/UDP h.example;received=[2001:db8::9:255];branch=z9hG4bKtop;rport"),
            PHONE,
            Subscribed,
            |sent| {
                let top = "SIP/2.0/UDP h.example;branch=z9hG4bKtop;received=2001:db8::9;rport=5070";
                assert_eq!(sent[0].header("Via"), top, "what we saw stands there, and not what was said");
            },
        ),
        (
            "V-006 received without delimiters",
            Request::subscribe(URI).put("Via: SIP/2.0/UDP h.example;received=2001:db8::9:255;branch=z9hG4bKtop"),
            PHONE,
            Subscribed,
            |sent| assert_eq!(sent[0].header("Via"), "SIP/2.0/UDP h.example;branch=z9hG4bKtop;received=2001:db8::9"),
        ),
        (
            "V-007 ipv6-in-sdp",
            from_v6(Request::new("INVITE", URI)).body("application/sdp", "v=0\r\no=a 1 1 IN IP6 2001:db8::20\r\n"),
            PHONE,
            Answer(&[405]),
            nothing,
        ),
        (
            "V-008 mult-ip-in-header",
            from_v6(Request::new("OPTIONS", URI))
                .add("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK2, SIP/2.0/TCP [2001:db8::3]:5060;branch=z9hG4bK3")
                .add("Via: SIP/2.0/UDP [2001:db8::4];received=192.0.2.4;branch=z9hG4bK4"),
            PHONE,
            Answer(&[200]),
            |sent| {
                let vias = sent[0].all(Name::Via);
                assert_eq!(
                    vias[1],
                    "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK2, SIP/2.0/TCP [2001:db8::3]:5060;branch=z9hG4bK3"
                );
                assert_eq!(vias[2], "SIP/2.0/UDP [2001:db8::4];received=192.0.2.4;branch=z9hG4bK4");
            },
        ),
        (
            "V-009 mult-ip-in-sdp",
            Request::new("INVITE", URI)
                .body("application/sdp", "v=0\r\nc=IN IP6 2001:db8::1\r\nc=IN IP4 192.0.2.1\r\n"),
            V4,
            Answer(&[405]),
            nothing,
        ),
        (
            "V-010 ipv4-mapped-ipv6",
            Request::subscribe(URI).put("Contact: <sip:1002@[::ffff:192.0.2.10]:5064>"),
            V4,
            Subscribed,
            |sent| {
                assert_eq!(sent[1].peer(), "192.0.2.10:5064".parse().expect("an address"));
                assert_eq!(sent[1].request_uri(), "sip:1002@[::ffff:192.0.2.10]:5064");
            },
        ),
        ("V-011 three colons", Request::subscribe("sip:1001@[2001:db8:::192.0.2.1]"), V4, Answer(&[400]), nothing),
        ("V-011 three colons in Contact", contact("sip:1002@[2001:db8:::192.0.2.1]"), PHONE, Answer(&[400]), nothing),
        ("V-011 two colons in Contact", contact("sip:1002@[2001:db8::192.0.2.1]"), PHONE, Subscribed, nothing),
        ("V-012 zone", Request::subscribe("sip:1001@[fe80::1%25eth0]"), V4, Answer(&[400]), nothing),
        ("V-012 zone in Contact", contact("sip:1002@[fe80::1%eth0]"), PHONE, Answer(&[400]), nothing),
        (
            "V-012 zone in Via",
            Request::subscribe(URI).put("Via: SIP/2.0/UDP [fe80::1%eth0];branch=z9hG4bK1"),
            V4,
            Answer(&[400]),
            nothing,
        ),
        ("V-012 blank inside", Request::subscribe("sip:1001@[2001:db8:: 1]"), V4, Answer(&[400]), nothing),
    ];
    for (row, request, peer, expected, then) in cases {
        let sent = Bench::new().send_from(udp_source(peer), &request.bytes());
        compare(row, &sent, expected);
        then(&sent);
    }
}

/// V-005 and V-006 in the response to a NOTIFY, where a client writes the address that it saw.
#[test]
fn a_received_of_either_form_in_an_answer_to_a_notify_is_read() {
    for received in ["[2001:db8::1]", "2001:db8::1", "192.0.2.1"] {
        let mut bench = Bench::new();
        let sent = bench.send_from(udp_source(PHONE), &from_v6(Request::subscribe(URI)).bytes());
        let (sent_by, branch) = sent[1].header("Via").split_once(';').expect("parameters");
        let answer = format!(
            "SIP/2.0 200 OK\r\nVia: {sent_by};received={received};{branch}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {}\r\n\r\n",
            sent[1].header("From"),
            sent[1].header("To"),
            sent[1].header("Call-ID"),
            sent[1].header("CSeq")
        );
        bench.send_from(udp_source(PHONE), answer.as_bytes());
        assert_eq!(bench.wait(40_000).len(), 0, "the NOTIFY is answered: {received}");
    }
}

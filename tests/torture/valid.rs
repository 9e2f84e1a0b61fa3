//! Group T: the valid messages of RFC 4475, however odd they look.

use lamplighter::sip::headers::NameAddr;
use lamplighter::sip::wire::Name;

use crate::bench::Expected::{Answer, Subscribed};
use crate::bench::{Bench, Sent, compare};
use crate::request::Request;
use crate::rfc4475::{Case, URI, case, checked, options, response, run, subscribe};

/// Headers of wsinv, without its method.
fn tortuous(request: Request) -> Request {
    request
        .put("Via: SIP  /   2.0\r\n /UDP\r\n    192.0.2.99;branch=390old")
        .without("Max-Forwards")
        .without("To")
        .add("TO :\r\n sip:1001@acme.test ;   x    = 1918181833n")
        .add("MaX-fOrWaRdS: 0068")
        .put("From   : \"J \\\\\\\"Q\\\\\" <sip:1002@acme.test>\r\n  ;\r\n  tag = 98asj")
        .add("s :")
        .add("NewFangled:   one value\r\n goes on and on")
        .add("OddlyValued: ;;,,;;,;")
        .add("v:  SIP  / 2.0  / TCP     low.example   ;\r\n  branch  =   z9hG4bK9 ,\r\n SIP  /    2.0   / UDP  10.2.3.4 ; branch=\r\n z9hG4bK30")
        .without("Contact")
        .add("m:\"Quoted \\\"\\\"\" <sip:1002@192.0.2.99;x=y> ; newparam =\r\n      newvalue ;\r\n  second ; q = 0.33")
        .without("Content-Length")
        .add("Content-Length   : 0")
}

/// Every legal character in every place.
fn all_legal_characters(request: Request) -> Request {
    request
        .put("Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bK-.!%66*_+`'~")
        .put("To: \"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\" <sip:1_un.us%2aAl;'~!@acme.test;p=_~-.!*')>")
        .put("From: tok1~` tok2'+_ tok3%!.*- <sip:mundane@acme.test>;fromParam''~+*_!.-%=\"\u{440}\u{430}\u{431}\";tag=_tok'~+*%!-.")
        .put("Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{")
        .add("extensionHeader-!.%*+_`'~:\u{ef}\u{bb}")
}

#[test]
fn valid_messages_are_understood() {
    let long = |n: usize| "long".repeat(n / 4);
    let tortuous_answer: fn(&[Sent]) = |sent| {
        assert!(sent[0].header("CSeq").starts_with("0009 "), "{}", sent[0].text);
        assert_eq!(sent[0].all(Name::Via).len(), 2, "{}", sent[0].text);
        assert!(sent[0].all(Name::Via)[1].ends_with("branch= z9hG4bK30"), "{}", sent[0].text);
        assert!(!sent[0].text.contains("\r\n "), "what was folded goes back unfolded: {}", sent[0].text);
    };
    let legal_answer: fn(&[Sent]) = |sent| {
        assert_eq!(sent[0].header("Call-ID"), "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
        assert_eq!(NameAddr::read(sent[0].header("From")).and_then(|from| from.tag()), Some("_tok'~+*%!-."));
        let to = NameAddr::read(sent[0].header("To")).expect("a To that can be read");
        assert_eq!((to.uri, to.tag().is_some()), ("sip:1_un.us%2aAl;'~!@acme.test;p=_~-.!*')", true));
        assert!(sent[0].header("Via").contains(";branch=z9hG4bK-.!%66*_+`'~"), "{}", sent[0].text);
    };
    let odd_method = "!interesting-Method0123456789_*+`.%indeed'~";
    let semicolon: fn(&[Sent]) = |sent| {
        assert!(sent[1].text.contains("entity=\"sip:user;par=u%40example.net@acme.test\""), "{}", sent[1].text);
    };
    run(vec![
        checked(
            "T-001 wsinv",
            tortuous(Request::new("INVITE", URI)).put("CSeq: 0009\r\n  INVITE"),
            Answer(&[405]),
            tortuous_answer,
        ),
        checked(
            "T-001 wsinv as SUBSCRIBE",
            tortuous(subscribe()).put("CSeq: 0009\r\n  SUBSCRIBE"),
            Subscribed,
            tortuous_answer,
        ),
        checked("T-002 intmeth", all_legal_characters(Request::new(odd_method, URI)), Answer(&[501]), legal_answer),
        checked("T-002 intmeth as SUBSCRIBE", all_legal_characters(subscribe()), Subscribed, legal_answer),
        case("T-003 esc01", Request::new("INVITE", "sip:sips%3Auser%40example.com@acme.test"), Answer(&[405])),
        checked(
            "T-003 esc01 as SUBSCRIBE",
            Request::subscribe("sip:sips%3Auser%40example.com@acme.test")
                .put("Contact: <sip:cal%6Cer@192.0.2.99;%6C%72;n%61me=v%61lue%25%34%31>"),
            Subscribed,
            |sent| {
                assert_eq!(sent[1].request_uri(), "sip:cal%6Cer@192.0.2.99;%6C%72;n%61me=v%61lue%25%34%31");
                assert!(
                    sent[1].text.contains("entity=\"sip:sips%3Auser%40example.com@acme.test\""),
                    "{}",
                    sent[1].text
                );
            },
        ),
        case(
            "T-004 escnull",
            Request::new("REGISTER", "sip:acme.test")
                .put("To: <sip:null-%00-null@acme.test>")
                .put("Contact: <sip:%00@192.0.2.99>")
                .add("Contact: <sip:%00%00@192.0.2.99>"),
            Answer(&[405]),
        ),
        case("T-004 escnull as SUBSCRIBE", Request::subscribe("sip:null-%00-null@acme.test"), Answer(&[400, 404])),
        checked(
            "T-005 esc02",
            Request::new("RE%47IST%45R", "sip:acme.test")
                .put("From: \"%Z%45\" <sip:%72esource@acme.test>;tag=f232jadfj23"),
            Answer(&[501]),
            |sent| assert_eq!(sent[0].header("From"), "\"%Z%45\" <sip:%72esource@acme.test>;tag=f232jadfj23"),
        ),
        case("T-006 lwsdisp", options().put("From: caller<sip:caller@acme.test>;tag=323"), Answer(&[200])),
        case("T-006 lwsdisp as SUBSCRIBE", subscribe().put("From: caller<sip:caller@acme.test>;tag=323"), Subscribed),
        checked(
            "T-007 longreq",
            (0..34).fold(
                Request::new("INVITE", &format!("sip:1001@acme.test;{}=x", long(400)))
                    .put(&format!("From: sip:{}@acme.test;tag=12{};u{}=1", long(120), long(4000), long(200)))
                    .put(&format!("To: \"I have a {} name\" <sip:1001@acme.test>", long(2000)))
                    .put(&format!("Call-ID: {}@192.0.2.99", long(400)))
                    .add(&format!("{}: x", long(300))),
                |request, i| request.add(&format!("Via: SIP/2.0/TCP sip{i}.example")),
            ),
            Answer(&[405]),
            |sent| {
                assert_eq!(sent[0].all(Name::Via).len(), 35);
                assert!(sent[0].header("To").contains(&format!("{} name", "long".repeat(500))));
                assert!(sent[0].header("From").contains(&"long".repeat(1000)));
                assert_eq!(sent[0].header("Call-ID").len(), 400 + "@192.0.2.99".len());
            },
        ),
        checked(
            "T-007 longreq as SUBSCRIBE",
            subscribe().put(&format!("From: \"{}\" <sip:1002@acme.test>;tag={}", long(2000), long(4000))),
            Subscribed,
            |sent| assert!(sent[1].header("To").ends_with(&"long".repeat(1000)), "nothing is cut"),
        ),
        Case {
            request: [Request::new("REGISTER", "sip:acme.test").bytes(), Request::new("INVITE", URI).bytes()].concat(),
            ..case("T-008 dblreq", options(), Answer(&[405]))
        },
        Case {
            request: [subscribe().bytes(), Request::new("INVITE", URI).bytes()].concat(),
            ..case("T-008 dblreq as SUBSCRIBE", options(), Subscribed)
        },
        case("T-009 semiuri", Request::new("OPTIONS", "sip:user;par=u%40example.net@acme.test"), Answer(&[200])),
        checked(
            "T-009 semiuri as SUBSCRIBE",
            Request::subscribe("sip:user;par=u%40example.net@acme.test"),
            Subscribed,
            semicolon,
        ),
        checked(
            "T-010 transports",
            ["UDP t1", "SCTP t2;branch=z9hG4bK2", "TLS t3", "UNKNOWN t4;x", "TCP t5"]
                .iter()
                .fold(options(), |request, via| request.add(&format!("Via: SIP/2.0/{via}"))),
            Answer(&[200]),
            |sent| {
                let vias = sent[0].all(Name::Via);
                let lower = [
                    "SIP/2.0/UDP t1",
                    "SIP/2.0/SCTP t2;branch=z9hG4bK2",
                    "SIP/2.0/TLS t3",
                    "SIP/2.0/UNKNOWN t4;x",
                    "SIP/2.0/TCP t5",
                ];
                assert_eq!(vias[1..], lower);
            },
        ),
        case(
            "T-011 mpart01",
            Request::new("MESSAGE", URI)
                .body("multipart/mixed;boundary=7a9cbec", b"--7a9cbec\r\n\r\n\0\xff\xfe\r\n\r\n\x80--7a9cbec--\r\n"),
            Answer(&[405]),
        ),
        response(
            "T-012 unreason",
            "SIP/2.0 200 = 2**3 * 5**2 \u{43d}\u{43e} \u{441}\u{442}\u{43e}\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nTo: <sip:a@acme.test>;tag=1\nFrom: <sip:b@acme.test>;tag=2\nCall-ID: u\nCSeq: 35 NOTIFY\nContent-Length: 0\n\n",
        ),
        response(
            "T-013 noreason",
            "SIP/2.0 100 \nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\nTo: <sip:a@acme.test>;tag=1\nFrom: <sip:b@acme.test>;tag=2\nCall-ID: u\nCSeq: 35 NOTIFY\nContent-Length: 0\n\n",
        ),
    ]);
}

/// T-033 badbranch: two requests whose branch is only the cookie are two transactions, and a copy of each belongs to
/// its own.
#[test]
fn a_branch_that_is_only_the_cookie_makes_no_endless_transaction() {
    let bench = Bench::new();
    let request = |call_id: &str| {
        options().put("Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bK").put(&format!("Call-ID: {call_id}")).bytes()
    };
    for call_id in ["one", "two", "one"] {
        let sent = bench.udp(request(call_id));
        compare("T-033 badbranch", &sent, Answer(&[200]));
        assert_eq!(sent[0].header("Call-ID"), call_id);
    }
}

/// T-012, T-013 and C-019 as responses to a NOTIFY: the reason phrase is ignored.
#[test]
fn the_reason_phrase_of_an_answer_to_a_notify_may_be_anything() {
    for (line, more, repeated) in [
        ("SIP/2.0 200 ", "", 0),
        ("SIP/2.0 200", "", 0),
        ("sip/2.0 299 \u{43d}\u{43e} = 2**3", "", 0),
        ("SIP/2.0 2000 OK", "", 1),
        ("SIP/7.0 200 OK", "", 1),
        ("SIP/2.0  200 OK", "", 1),
        ("SIP/2.0 200 OK", "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2\r\n", 1),
    ] {
        let mut bench = Bench::new();
        let sent = bench.udp(subscribe().bytes());
        let [via, from, to] = ["Via", "From", "To"].map(|name| sent[1].header(name).to_owned());
        let answer = format!(
            "{line}\r\nVia: {via}\r\n{more}From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n\r\n",
            sent[1].header("Call-ID"),
            sent[1].header("CSeq")
        );
        assert_eq!(bench.udp(answer).len(), 0, "an answer is not answered");
        assert_eq!(bench.wait(600).len(), repeated, "NOTIFYs half a second after {line:?}");
    }
}

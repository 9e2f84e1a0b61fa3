//! Forms in which a message is accepted, and forms in which it is rejected (conformance group A).

use std::time::Duration;

use super::*;
use crate::sip::Method;
use crate::test_util::thread_cpu_time;

/// Request with these header lines beside the mandatory ones.
fn with(lines: &str) -> String {
    format!("{}{lines}\r\n", needed("Via: SIP/2.0/UDP h;branch=z9hG4bK1", "Call-ID: c", "CSeq: 1 OPTIONS"))
}

fn needed(via: &str, call_id: &str, cseq: &str) -> String {
    format!(
        "OPTIONS sip:acme.test SIP/2.0\r\n{via}\r\nFrom: <sip:b@acme.test>;tag=1\r\nTo: <sip:a@acme.test>\r\n\
         {call_id}\r\n{cseq}\r\n"
    )
}

fn start(line: &str) -> String {
    with("").replacen("OPTIONS sip:acme.test SIP/2.0", line, 1)
}

fn taken(text: &str) -> Message<'_> {
    match read(text.as_bytes()) {
        Ok(Some(message)) => message,
        other => panic!("{text:?} should be read: {other:?}"),
    }
}

fn fault(bytes: impl AsRef<[u8]>) -> ParseError {
    match read(bytes.as_ref()) {
        Err(refused) => refused.fault,
        other => panic!("{:?} should be refused: {other:?}", String::from_utf8_lossy(bytes.as_ref())),
    }
}

#[test]
fn a_001_the_request_line_is_method_uri_version() {
    let text = with("");
    assert_eq!(
        taken(&text).request().map(|(verb, uri)| (verb, uri.text)),
        Some((RequestMethod::Known(Method::Options), "sip:acme.test"))
    );
    assert_eq!(taken(&text).status(), None);
    for line in
        ["OPTIONS", "OPTIONS sip:a", "OPTIONS sip:a HTTP/1.1", "OPTIONS sip:a SIP", "OPT(IONS sip:a SIP/2.0", ""]
    {
        assert_eq!(fault(start(line)), ParseError::NotSip, "{line}");
    }
}

#[test]
fn a_002_to_a_005_blanks_and_brackets_in_the_request_line_are_answered_400() {
    for line in [
        "OPTIONS  sip:acme.test SIP/2.0",
        "OPTIONS sip:acme.test  SIP/2.0",
        "OPTIONS sip:acme.test SIP/2.0 ",
        "OPTIONS <sip:acme.test> SIP/2.0",
        "OPTIONS sip:acme.test; lr SIP/2.0",
        "OPTIONS sip:acme\ttest SIP/2.0",
    ] {
        let text = start(line);
        let refused = read(text.as_bytes()).unwrap_err();
        assert_eq!((refused.fault, refused.fault.status().code()), (ParseError::StartLine, 400), "{line}");
        assert!(refused.head.is_some_and(|head| head.first(Name::Via).is_some()), "{line} can be answered");
    }
}

#[test]
fn a_006_another_version_is_told_from_what_is_no_sip() {
    for line in ["OPTIONS sip:acme.test SIP/7.0", "OPTIONS sip:acme.test SIP/2.1", "OPTIONS sip:acme.test SIP/2.00"] {
        assert_eq!((fault(start(line)), fault(start(line)).status().code()), (ParseError::Version, 505), "{line}");
    }
}

#[test]
fn a_007_and_a_008_the_version_folds_case_and_the_method_does_not() {
    assert!(taken(&start("OPTIONS sip:acme.test sip/2.0")).request().is_some());
    let text = start("options sip:acme.test SIP/2.0").replace("1 OPTIONS", "1 options");
    assert_eq!(taken(&text).request().map(|(verb, _)| verb), Some(RequestMethod::Unknown("options")));
    assert_eq!(fault(start("options sip:acme.test SIP/2.0")), ParseError::CSeqMethod);
}

#[test]
fn a_009_to_a_011_names_fold_case_have_short_forms_and_blanks_before_the_colon() {
    let long = [
        ("Via", Name::Via, "v"),
        ("From", Name::From, "f"),
        ("To", Name::To, "t"),
        ("Call-ID", Name::CallId, "i"),
        ("Contact", Name::Contact, "m"),
        ("Event", Name::Event, "o"),
        ("Content-Length", Name::ContentLength, "l"),
        ("Content-Type", Name::ContentType, "c"),
        ("Content-Encoding", Name::ContentEncoding, "e"),
    ];
    for (name, expected, short) in long {
        for written in [name, short, &name.to_uppercase(), &short.to_uppercase(), &name.to_lowercase()] {
            for colon in [":", " :", "\t : \t", ":\r\n\t"] {
                let text = format!("OPTIONS sip:a SIP/2.0\r\n{written}{colon}x\r\n\r\n");
                let (head, _) = Head::find(&text).unwrap();
                assert_eq!((head.fault, head.first(expected)), (None, Some("x")), "{text:?}");
            }
        }
    }
    // The compact forms k, u, s, r and x exist as well; we need none of them.
    for line in ["k: x\r\n", "u: x\r\n", "s: x\r\n", "r: x\r\n", "b: x\r\n", "x: x\r\n"] {
        assert_eq!(taken(&with(line)).head.headers.last().map(|h| (h.name, h.value)), Some((Name::Other, "x")));
    }
}

#[test]
fn every_name_is_found_by_what_it_is_called() {
    let names = "Accept Call-ID Contact Content-Encoding Content-Length Content-Type CSeq Event Expires From Max-Forwards \
                 Min-Expires Record-Route Require Retry-After Route SIP-If-Match Subscription-State To User-Agent Via";
    for name in names.split_whitespace() {
        let text = format!("OPTIONS sip:a SIP/2.0\r\n{name}: x\r\n\r\n");
        assert_eq!(Head::find(&text).unwrap().0.headers[0].name.text(), name);
    }
}

#[test]
fn a_012_folded_lines_are_one_value() {
    let text = needed("Via: SIP/2.0/UDP\r\n h\r\n\t;branch=z9hG4bK1", "Call-ID:\r\n c", "CSeq: 1\r\n  OPTIONS");
    let text = text.replace("From: ", "From: \"a\r\n b\"\r\n  ") + "Subject: x\r\n \r\n y\r\n\r\n";
    let message = taken(&text);
    assert_eq!((message.call_id, message.cseq.number, message.from.tag()), ("c", 1, Some("1")));
    assert_eq!((message.via.sent_by, message.via.branch()), ("h", Some("z9hG4bK1")));
    assert_eq!(message.head.headers.len(), 6, "an empty-looking fold does not end the head");
    assert_eq!(fault(with("Subject\r\n : x\r\n")), ParseError::HeaderLine, "a name is not folded");
    assert_eq!(fault(with("").replacen("SIP/2.0\r\n", "SIP/2.0\r\n folded\r\n", 1)), ParseError::HeaderLine);
}

#[test]
fn a_014_and_a_015_lines_keep_their_order_and_their_commas() {
    let text = with("Route: <sip:a>, <sip:b>\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\nRoute: <sip:c>\r\n");
    assert_eq!(taken(&text).all(Name::Route).collect::<Vec<_>>(), ["<sip:a>, <sip:b>", "<sip:c>"]);
    assert_eq!(taken(&text).head.headers[6].value, "Sat, 13 Nov 2010 23:29:00 GMT");
}

#[test]
fn a_016_to_a_020_quotes_hide_what_is_in_them_and_have_to_close() {
    for (from, tag) in [
        ("\"Jo \\\"x\\\" \\\\\" <sip:w@h>;tag=1", "1"),
        ("\"a;tag=evil, <sip:e@x>\" <sip:w@h>;tag=ok", "ok"),
        ("caller<sip:c@h>;tag=2", "2"),
        ("\"J\u{f6}rg \u{65e5}\u{672c}\" <sip:c@h>;tag=4", "4"),
    ] {
        let text = with("").replace("<sip:b@acme.test>;tag=1", from);
        assert_eq!((taken(&text).from.tag(), taken(&text).from.text), (Some(tag), from));
    }
    let comma = "Bell, Alexander <sip:c@h>;tag=3";
    for bad in
        [comma, "\"Mr J <sip:u@h>", "<sip:u@h", "\"W\" < sip:u@h >", "<sip:u@h>;tag=", "<sip:u@h>;tag=1, <sip:v@h>"]
    {
        assert_eq!(fault(with("").replace("<sip:b@acme.test>;tag=1", bad)), ParseError::Invalid(Name::From), "{bad}");
        assert_eq!(fault(with("").replace("<sip:a@acme.test>", bad)), ParseError::Invalid(Name::To), "{bad}");
    }
}

#[test]
fn a_027_to_a_030_odd_characters_are_read_where_they_are_legal() {
    let text = start("!Odd-0_*+`.%'~ sip:null-%00-null;x=y@acme.test SIP/2.0").replace("1 OPTIONS", "1 !Odd-0_*+`.%'~");
    let text = text.replace("Call-ID: c", "Call-ID: w%Z-!.*_+'`~)(><:\\/\"][?}{@h");
    let message = taken(&text);
    assert_eq!(
        message.request().map(|(verb, uri)| (verb, uri.text)),
        Some((RequestMethod::Unknown("!Odd-0_*+`.%'~"), "sip:null-%00-null;x=y@acme.test"))
    );
    assert_eq!(message.call_id, "w%Z-!.*_+'`~)(><:\\/\"][?}{@h");
    assert!(read(with("!Odd-0_*+`.%'~: x\r\n").as_bytes()).is_ok());
    assert!(read(with("Subject: \"BEL \\\x07 NUL \\\0 DEL \\\x7f\"\r\n").as_bytes()).is_ok());
}

#[test]
fn a_033_to_a_035_what_nobody_needs_may_hold_anything() {
    for line in ["X: ;;,,;;,;\r\n", "Foo:\r\n", "Subject:\r\n", "Supported: \r\n", "Date: EST\r\n", "Warning: xx\r\n"] {
        assert!(read(with(line).as_bytes()).is_ok(), "{line}");
    }
}

#[test]
fn a_036_stray_separators_in_any_via_are_refused() {
    for via in [
        "SIP/2.0/UDP h;;,;,,",
        "SIP/2.0/UDP h,,SIP/2.0/UDP i",
        "SIP/2.0/UDP h\r\nVia: ",
        "SIP/2.0/UDP h\r\nv: SIP/2.0/UDP i,",
    ] {
        let text = with("").replace("SIP/2.0/UDP h;branch=z9hG4bK1", via);
        assert_eq!(fault(text), ParseError::Invalid(Name::Via), "{via}");
    }
}

#[test]
fn a_037_leading_zeros_count_for_nothing() {
    let text = with("Content-Length: 0002\r\n").replace("CSeq: 1 ", "CSeq: 0009 ") + "abc";
    assert_eq!((taken(&text).cseq.number, taken(&text).body), (9, &b"ab"[..]));
}

#[test]
fn a_040_octets_that_are_no_utf_8_are_refused_by_what_was_read_before_them() {
    let mut text = with("Subject: x\r\n").into_bytes();
    let at = text.len() - 5;
    text[at] = 0xff;
    let refused = read(&text).unwrap_err();
    assert_eq!(refused.fault, ParseError::NotUtf8);
    assert!(refused.head.is_some_and(|head| head.first(Name::CSeq).is_some()));
    let body = [with("Content-Length: 2\r\n").as_bytes(), b"\xff\xfe"].concat();
    assert!(read(&body).is_ok(), "a body is no text");
}

#[test]
fn a_041_half_a_line_end_or_nul_is_refused_and_can_be_answered() {
    for text in [
        with("X: y\r\n").replace("\r\n", "\n"),
        with("X: y\n"),
        with("X: y\rz\r\n"),
        with("X: y\0\r\n"),
        with("").replacen("SIP/2.0\r\n", "SIP/2.0\n", 1),
    ] {
        let refused = read(text.as_bytes()).unwrap_err();
        assert_eq!(refused.fault, ParseError::ControlCharacter, "{text:?}");
        assert!(refused.head.is_some_and(|head| head.first(Name::CSeq).is_some()), "{text:?}");
    }
    let text = needed("Via: SIP/2.0/UDP h;branch=z9hG4bK1", "Call-ID: a\x07b", "CSeq: 1 OPTIONS") + "\r\n";
    assert_eq!(fault(text), ParseError::Invalid(Name::CallId), "it could not be given back as it came");
}

#[test]
fn a_042_a_line_that_is_no_header_is_refused() {
    for line in ["garbage line\r\n", ": x\r\n", "a b: x\r\n", "\u{e9}: x\r\n", "(x): y\r\n"] {
        assert_eq!(fault(with(line)), ParseError::HeaderLine, "{line}");
    }
}

#[test]
fn a_043_and_a_052_what_may_stand_once_stands_once() {
    for (line, name) in [
        ("i: d\r\n", Name::CallId),
        ("CSEQ: 1 OPTIONS\r\n", Name::CSeq),
        ("t: <sip:a@b>\r\n", Name::To),
        ("From: <sip:a@b>\r\n", Name::From),
        ("Max-Forwards: 1\r\nMax-Forwards: 1\r\n", Name::MaxForwards),
        ("o: dialog\r\nEvent: dialog\r\n", Name::Event),
        ("Expires: 1\r\nExpires: 1\r\n", Name::Expires),
        ("Content-Type: a/b\r\nc: a/b\r\n", Name::ContentType),
        ("SIP-If-Match: a\r\nSIP-If-Match: b\r\n", Name::SipIfMatch),
        ("l: 0\r\nContent-Length: 1\r\n", Name::ContentLength),
    ] {
        assert_eq!(fault(with(line)), ParseError::Repeated(name), "{line}");
    }
    assert_eq!(ParseError::Repeated(Name::CallId).to_string(), "Repeated Call-ID header");
}

#[test]
fn b_006_and_b_046_what_is_missing_is_named() {
    for (line, name) in [
        ("Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\n", "Via"),
        ("From: <sip:b@acme.test>;tag=1\r\n", "From"),
        ("To: <sip:a@acme.test>\r\n", "To"),
        ("Call-ID: c\r\n", "Call-ID"),
        ("CSeq: 1 OPTIONS\r\n", "CSeq"),
    ] {
        assert_eq!(fault(with("").replacen(line, "", 1)).to_string(), format!("Missing {name} header"));
    }
}

#[test]
fn a_044_long_values_are_whole_up_to_8_kilobytes_a_line() {
    for length in [2_000, MAX_LINE - "Subject: \r\n".len()] {
        let text = with(&format!("Subject: {}\r\n", "x".repeat(length)));
        assert_eq!(taken(&text).head.headers[5].value.len(), length);
    }
    assert_eq!(fault(with(&format!("Subject: {}\r\n", "x".repeat(MAX_LINE)))), ParseError::HeaderTooLong);
    assert_eq!(fault(with(&format!("Subject: x{}\r\n", "\r\n y".repeat(MAX_LINE / 4)))), ParseError::HeaderTooLong);
    let text = start(&format!("OPTIONS sip:{} SIP/2.0", "x".repeat(MAX_LINE)));
    assert!(read(text.as_bytes()).unwrap_err().head.is_some(), "a Request-URI too long is answered");
}

#[test]
fn a_message_has_128_headers_at_most() {
    let most = MAX_HEADERS - 5;
    assert_eq!(taken(&with(&"X: y\r\n".repeat(most))).head.headers.len(), MAX_HEADERS);
    assert_eq!(fault(with(&"X: y\r\n".repeat(most + 1))), ParseError::TooManyHeaders);
}

#[test]
fn a_045_a_datagram_of_65535_octets_is_read_and_more_is_not() {
    let head = with("");
    let text = format!("{head}{}", "b".repeat(MAX_MESSAGE - head.len()));
    assert_eq!(taken(&text).body.len(), MAX_MESSAGE - head.len());
    assert_eq!((fault(format!("{text}b")), ParseError::TooLarge.status().code()), (ParseError::TooLarge, 513));
}

#[test]
fn a_046_and_d_015_keep_alives_are_nothing_and_line_ends_before_a_message_do_not_count() {
    for nothing in ["", "\r\n", "\r\n\r\n", "\0", "\0\0\0\0", "\n"] {
        assert!(matches!(read(nothing.as_bytes()), Ok(None)), "{nothing:?}");
    }
    let text = format!("\r\n\r\n{}", with(""));
    assert_eq!(taken(&text).call_id, "c");
    for noise in ["jaK", "\x00\x01\x00\x00!\x12\u{a4}B", "GET / HTTP/1.1\r\n\r\n", "OPTIONS", "\u{1}\r\n"] {
        let refused = read(noise.as_bytes()).unwrap_err();
        assert!(refused.fault == ParseError::NotSip && refused.head.is_none(), "{noise:?}");
    }
}

#[test]
fn a_048_to_a_051_the_body_is_what_content_length_says() {
    let body = |lines: &str| with(lines) + "12345";
    assert_eq!(taken(&body("")).body, b"12345", "all there is");
    assert_eq!(taken(&body("Content-Length: 5\r\n")).body, b"12345");
    assert_eq!(taken(&body("Content-Length: 3\r\n")).body, b"123", "the rest is dropped");
    for bad in ["6", "-1", "+5", "five", "", "5 5", "18446744073709551616"] {
        assert_eq!(fault(body(&format!("Content-Length: {bad}\r\n"))), ParseError::ContentLength, "{bad}");
    }
}

#[test]
fn a_head_without_end_is_incomplete() {
    let text = with("");
    for length in text.find("\r\n").unwrap() + 2..text.len() {
        assert!(matches!(fault(&text[..length]), ParseError::Incomplete), "{:?}", &text[..length]);
    }
}

#[test]
fn a_status_is_three_digits_from_100_to_699() {
    let response = |line: &str| with("").replacen("OPTIONS sip:acme.test SIP/2.0", line, 1);
    for (line, status) in [("SIP/2.0 200 OK", 200), ("SIP/2.0 699 ", 699), ("sip/2.0 100", 100)] {
        assert_eq!((taken(&response(line)).status(), taken(&response(line)).request()), (Some(status), None));
    }
    for line in ["SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 4294967301 x", "SIP/2.0 +20 x", "SIP/2.0  200 OK", "SIP/2.0"]
    {
        assert_eq!(fault(response(line)), ParseError::NotSip, "{line}");
    }
}

/// Parsing takes time proportional to the length, whichever element is repeated in 64 kB. Quadratic work would take
/// more than four thousand million steps, and this test more than a minute.
#[test]
fn no_message_costs_more_than_its_length() {
    let began = thread_cpu_time();
    for unit in [
        "l:1\r\n",
        "i:\r\n",
        "X:\r\n",
        "\r\n ",
        "X: y\r\n \r\n",
        ",",
        ";",
        "\"",
        "<",
        "\\",
        ":",
        " ",
        "\t",
        "@",
        "%41",
        "v:,\r\n",
    ] {
        for before in ["", "Subject: ", "Via: SIP/2.0/UDP h", "From: ", "Contact: \"", "Accept: a/b;"] {
            let filler = unit.repeat((MAX_MESSAGE - 1_000) / unit.len());
            let short = unit.repeat((MAX_LINE - 100) / unit.len());
            for filler in [filler, short] {
                let text = with(&format!("{before}{filler}\r\n"));
                drop(read(text.as_bytes()));
                let text = format!("OPTIONS sip:{filler} SIP/2.0\r\n{before}{filler}\r\n\r\n");
                drop(read(text.as_bytes()));
                crate::sip::uri::Uri::read(&filler);
                crate::sip::headers::list(&filler).for_each(drop);
                crate::sip::headers::accepts([&*filler].into_iter(), "a/b");
                crate::sip::headers::NameAddr::read(&filler);
            }
        }
    }
    let took = thread_cpu_time() - began;
    assert!(took < Duration::from_secs(20), "{took:?}");
}

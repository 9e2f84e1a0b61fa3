use super::*;

#[test]
fn quotes_and_brackets_hide_commas_and_semicolons() {
    let items: Vec<_> = list("\"a;tag=evil, <sip:e@x>\" <sip:w@h;x=1,2>;tag=ok , <sip:b@h>").collect();
    assert_eq!(items, ["\"a;tag=evil, <sip:e@x>\" <sip:w@h;x=1,2>;tag=ok", "<sip:b@h>"]);
    let first = NameAddr::read(items[0]).unwrap();
    assert_eq!((first.uri, first.tag()), ("sip:w@h;x=1,2", Some("ok")));
}

#[test]
fn without_brackets_parameters_belong_to_the_header() {
    let n = NameAddr::read("sip:w@h:5070;transport=tcp;tag=1").unwrap();
    assert_eq!((n.uri, n.params, n.tag()), ("sip:w@h:5070", "transport=tcp;tag=1", Some("1")));
    assert!(NameAddr::read("sip:w@h?Route=%3Cx%3E").is_none());
}

#[test]
fn tags_survive_escaped_quotes_blanks_and_folds() {
    let n = NameAddr::read("\"Jo \\\"x\\\" \\\\\" <sip:w@h>\r\n ; TAG = 1").unwrap();
    assert_eq!(n.tag(), Some("1"));
    assert_eq!(NameAddr::read("caller<sip:c@h>;tag=1").unwrap().uri, "sip:c@h");
}

#[test]
fn broken_name_addrs_are_refused() {
    for bad in [
        "\"Mr J <sip:u@h>",
        "<sip:u@h",
        "< sip:u@h >",
        "<sip:u@h> x",
        "",
        "nobody",
        "\"W\" <>",
        "<sip:u@h>;x=\"y;tag=1",
        "<sip:u@h>;x=<y;tag=1",
        "<sip:u@h>;tag=1, <sip:v@h>;tag=2",
        "sip:u@h;tag=1,sip:v@h",
    ] {
        assert!(NameAddr::read(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_tag_that_is_none_is_noticed() {
    for bad in ["<sip:u@h>;tag=", "<sip:u@h>;tag", "sip:u@h; tag = ", "<sip:u@h>;tag=a b", "<sip:u@h>;tag=\"a\""] {
        assert!(!NameAddr::read(bad).unwrap().tag_is_sound(), "{bad}");
    }
    for good in ["<sip:u@h>", "<sip:u@h>;tag=a:b/c", "<sip:u@h>;x=\";tag=\";tag=1"] {
        assert!(NameAddr::read(good).unwrap().tag_is_sound(), "{good}");
    }
}

#[test]
fn separators_at_the_end_are_no_part_of_the_item() {
    let n = NameAddr::read(" <sip:u@h>;x=1; ;").unwrap();
    assert_eq!((n.text, n.params), ("<sip:u@h>;x=1", "x=1"));
}

#[test]
fn separators_that_stand_together_are_noticed() {
    for bad in ["<sip:u@h>;;", "<sip:u@h>;;x", "sip:u@h;x; ;y", "\"a\" <sip:u@h>;;;;"] {
        assert!(has_stray_separators(bad), "{bad}");
    }
    for good in ["<sip:u@h>", "<sip:u@h>;", "<sip:u@h;;>;x=\";;\";y", "sip:u@h;x;y;"] {
        assert!(!has_stray_separators(good), "{good}");
    }
}

#[test]
fn a_via_may_have_blanks_everywhere() {
    let v = Via::first_of("SIP / 2.0 / UDP [2001:db8::9]:5061 ; branch = z9hG4bKx;rport, SIP/2.0/FOO x").unwrap();
    assert_eq!((v.transport, v.port, v.branch()), (Some(Transport::Udp), Some(5061), Some("z9hG4bKx")));
    assert!(v.wants_rport());
    assert_eq!(Via::first_of("SIP/2.0/UDP h:1;branch=b;received=[2001:db8::9]").unwrap().branch(), Some("b"));
    assert_eq!(Via::first_of("SIP/2.0/UDP h;received=2001:db8::9:255;branch=b").unwrap().branch(), Some("b"));
}

#[test]
fn stray_separators_in_a_via_are_refused() {
    for bad in [
        "SIP/2.0/UDP h;;,;,,",
        "SIP/2.0/UDP",
        "SIP/3.0/UDP h",
        "HTTP/2.0/UDP h",
        "SIP/2.0/UDP h:x",
        "SIP/2.0/UDP h;branch=z9hG4bK1\x0f",
        "SIP/2.0/UDP h;branch=z9hG4bK1;BRANCH=z9hG4bK2",
    ] {
        assert!(Via::first_of(bad).is_none(), "{bad}");
    }
    for bad in [
        "SIP/2.0/UDP h,,SIP/2.0/UDP i",
        "SIP/2.0/UDP h,",
        "SIP/2.0/UDP h;x=\"y;branch=b",
        "SIP/2.0/UDP h;x=<y;branch=b",
    ] {
        assert!(!Via::list_is_sound(bad), "{bad}");
    }
}

#[test]
fn cseq_numbers_stay_below_two_to_the_31() {
    assert_eq!(CSeq::read("0009\r\n SUBSCRIBE"), Some(CSeq { number: 9, method: "SUBSCRIBE" }));
    for bad in ["2147483648 X", "36893488147419103232 X", "-1 X", "x X", "1", "1 X Y"] {
        assert!(CSeq::read(bad).is_none(), "{bad}");
    }
}

#[test]
fn an_event_has_a_package_and_perhaps_an_id() {
    let event = Event::read("dialog;sla; id=7").unwrap();
    assert_eq!((event.package, event.id, event.max_rate), ("dialog", Some("7"), None));
    assert_eq!(Event::read("dialog, presence"), None);
    for bad in ["", ";id=7", "dialog;id=", "dialog;id=\"7\"", "dialog;id=a b", "dialog;id=7;id=8"] {
        assert_eq!(Event::read(bad), None, "{bad}");
    }
}

#[test]
fn accept_knows_wildcards_lists_and_refusals() {
    let admits = |lines: &[&str]| accepts(lines.iter().copied(), "application/dialog-info+xml");
    assert!(admits(&[]));
    assert!(admits(&["text/plain, Application/Dialog-Info+XML;q=0.5"]));
    assert!(admits(&["application/*"]) && admits(&["*/*"]));
    assert!(!admits(&["application/x"]) && !admits(&["text/*"]));
    assert!(!admits(&["application/dialog-info+xml;q=0.0"]) && !admits(&["*/*;q=0"]) && !admits(&[""]));
    assert!(!admits(&["*/*", "application/dialog-info+xml;q=0"]));
    assert!(admits(&["text/plain;x=\",\", application / *"]) && !admits(&["app*"]) && !admits(&["application/d*"]));
}

#[test]
fn numbers_are_digits_only() {
    assert_eq!((seconds("3600"), seconds("+5"), seconds("99999999999"), seconds("")), (Some(3600), None, None, None));
    assert_eq!(retry_after("18000 (busy);duration=60"), Some(18000));
}

#[test]
fn a_parameter_that_could_not_be_given_back_as_it_came_is_refused() {
    // Our response would have a tag where the request has none.
    for bad in ["<sip:a@b>;\x1ftag=1", "<sip:a@b>;x=\"\x07\"", "sip:a@b;tag\x7f=1"] {
        assert_eq!(NameAddr::read(bad), None, "{bad:?}");
    }
    assert!(NameAddr::read("\"\\\x07\" <sip:a@b>;\r\n\ttag=1").is_some(), "a display name may hold anything");
}

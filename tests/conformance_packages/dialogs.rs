//! Dialogs created by SUBSCRIBE (RFC 3261 section 12): the rows that no other suite checks.

use std::collections::BTreeSet;

use lamplighter::presence::state::CallState::Early;
use lamplighter::transport::Destination;

use crate::office::{Office, Phone, Sent, udp};

/// A phone behind a trusted proxy, whose Record-Route is honoured.
fn behind_proxy(office: &mut Office, record_route: &str) -> Phone {
    let mut phone = office.phone("1001", "dialog");
    phone.source = udp("127.0.0.7:5060");
    phone.more = record_route.into();
    phone
}

fn lines<'a>(sent: &'a Sent, name: &str) -> Vec<&'a str> {
    sent.text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

fn peer(sent: &Sent) -> String {
    match &sent.to {
        Destination::Datagram { peer, .. } => peer.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn record_routes_come_back_in_order_with_every_parameter_and_are_the_route_of_notifies() {
    let mut office = Office::open();
    let routes = ["<sip:127.0.0.8:5070;lr;x=yz>;foo=bar, <sip:127.0.0.9;lr=on>", "\"A, B\" <sip:[2001:db8::9];lr;r2>"];
    let more = routes.map(|route| format!("Record-Route: {route}\r\n")).concat();
    let mut phone = behind_proxy(&mut office, &more);
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!(lines(&sent[0], "Record-Route"), routes);
    assert_eq!(sent[0].text.matches("\r\nContact: ").count(), 1);
    // A loose first route: the Request-URI is the Contact, and the request goes to the route.
    assert_eq!(sent[1].header("Route"), routes.join(", "));
    assert!(sent[1].text.starts_with("NOTIFY sip:1002@127.0.0.7:5060 SIP/2.0\r\n"), "{}", sent[1].text);
    assert_eq!(peer(&sent[1]), "127.0.0.8:5070");
}

#[test]
fn a_strict_first_route_is_the_request_uri_without_what_may_not_stand_there() {
    let mut office = Office::open();
    let more = "Record-Route: <sip:127.0.0.8:5070;method=INVITE;x=y?Subject=z>, <sip:127.0.0.9;lr>\r\n";
    let mut phone = behind_proxy(&mut office, more);
    let notify = phone.subscribe(&mut office, 600).remove(1);
    assert!(notify.text.starts_with("NOTIFY sip:127.0.0.8:5070;x=y SIP/2.0\r\n"), "{}", notify.text);
    assert_eq!(notify.header("Route"), "<sip:127.0.0.9;lr>, <sip:1002@127.0.0.7:5060>");
    assert_eq!(peer(&notify), "127.0.0.8:5070");
}

#[test]
fn cseq_rises_by_one_from_notify_to_notify() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    for expected in 2..=6 {
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!(sent[1].cseq(), expected);
        phone.answer(&mut office, &sent[1], 200);
    }
}

#[test]
fn a_first_subscribe_has_one_contact_with_a_sip_uri() {
    let mut office = Office::open();
    let contact = "Contact: <sip:1002@";
    for other in [
        "X: <sip:1002@",
        "Contact: *\r\nX: <",
        "Contact: <mailto:1002@",
        "Contact: <sip:a@192.0.2.3>\r\nContact: <sip:1002@",
    ] {
        let mut phone = office.phone("1001", "dialog");
        phone.cseq = 1;
        let request = phone.request(600);
        assert!(request.contains(contact));
        let sent = office.receive(phone.source, &request.replace(contact, other));
        assert_eq!((sent.len(), sent[0].status()), (1, 400), "{other}");
    }
    assert_eq!(office.list(), []);
}

#[test]
fn our_tags_are_all_different_and_hard_to_guess() {
    let mut office = Office::open();
    let tags = |office: &mut Office| -> Vec<String> {
        let tag = |phone: Phone| phone.to_tag.unwrap();
        (0..1_000).map(|_| tag(office.watch("1001", "dialog").0)).collect()
    };
    let mut all = tags(&mut office);
    // Another server, or the same one after a restart without its journal, has another secret.
    office.disk.clear();
    office.crash();
    all.extend(tags(&mut office));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 2_000);
    // 64 bits of each tag are a keyed hash: consecutive tags differ in about half of them.
    let secret = |tag: &String| u64::from_str_radix(tag.rsplit('.').next().unwrap(), 16).unwrap();
    let flips: u32 = all.windows(2).map(|pair| (secret(&pair[0]) ^ secret(&pair[1])).count_ones()).sum();
    assert!((30..34).contains(&(flips / 1_999)), "{flips}");
}

#[test]
fn subscriptions_of_one_call_id_with_other_from_tags_live_and_die_apart() {
    let mut office = Office::open();
    let mut one = office.settled("1001", "dialog");
    let mut two = Phone { tag: "second".into(), to_tag: None, cseq: 0, ..one.clone() };
    two.refresh(&mut office);
    assert_eq!(office.set("1001", Early).len(), 2);
    assert_eq!(one.subscribe(&mut office, 0)[0].status(), 200);
    assert_eq!(two.subscribe(&mut office, 600)[0].status(), 200);
    assert_eq!(one.subscribe(&mut office, 600)[0].status(), 481);
}

#[test]
fn a_route_that_names_us_or_somebody_else_is_not_followed() {
    let mut office = Office::open();
    for route in ["<sip:192.0.2.1:5060;lr>", "<sip:203.0.113.200;lr>"] {
        let mut phone = office.phone("1001", "dialog");
        phone.more = format!("Route: {route}\r\n");
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!((sent.len(), sent[0].status()), (2, 200), "{route}");
        assert!(!sent[1].text.contains("\r\nRoute: "), "{}", sent[1].text);
        assert_eq!(peer(&sent[1]), phone.source.peer.to_string());
    }
}

#[test]
fn a_restart_that_forgets_answers_481_and_one_that_remembers_goes_on() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    office.crash();
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 200);
    office.disk.clear();
    office.crash();
    assert_eq!(phone.subscribe(&mut office, 600)[0].status(), 481);
}

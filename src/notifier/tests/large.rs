//! NOTIFYs that are too large for a datagram (RFC 3261 section 18.1.1): none may be lost because of its size.

use super::*;
use crate::notifier::OversizeNotifies;

const MANY: [(&str, &str); 9] = [
    ("c1", "early"),
    ("c2", "confirmed"),
    ("c3", "early"),
    ("c4", "confirmed"),
    ("c5", "early"),
    ("c6", "confirmed"),
    ("c7", "early"),
    ("c8", "early"),
    ("c9", "early"),
];

/// A phone that watches 1001, and a publisher that will report many calls of 1001.
fn pair(config: &str, change: impl Fn(&mut Phone)) -> (Office, Phone, Publisher) {
    let mut office = Office::with(&format!("{config}{CONFIG}"));
    let mut phone = Phone::new("a", "1001@acme.test");
    change(&mut phone);
    office.settle_in(&mut phone, 3600);
    (office, phone, Publisher::new("1001@acme.test"))
}

/// Destination of a new TCP connection to the Contact address of a phone.
fn connection(phone: &Phone) -> Destination {
    Destination::Connection(Remote { listener: ListenerId(1), peer: phone.source.peer, name: None })
}

fn is_datagram(notify: &Notify) -> bool {
    matches!(notify.to, Destination::Datagram { .. }) && notify.text.contains("\r\nVia: SIP/2.0/UDP ")
}

#[test]
fn a_large_notify_goes_over_tcp_and_says_so() {
    // D-019, D-021
    let (mut office, phone, mut publisher) = pair("", |_| {});
    office.report(&mut publisher, &MANY);
    let large = office.only(&phone);
    assert!(large.text.len() > 1_300 && large.states().len() == MANY.len());
    assert_eq!(large.to, connection(&phone));
    assert!(large.text.contains("\r\nVia: SIP/2.0/TCP 127.0.0.1:5060;"), "{}", large.text);
    assert!(large.text.contains("\r\nContact: <sip:1001@127.0.0.1:5060>\r\n"), "the dialog goes on over UDP");
    office.pass(31_000);
    assert!(office.heard(&phone).is_empty(), "nothing is repeated there");
    office.answer(&large, 200);
    office.reset(ACME, "1001");
    office.pass(1_000);
    let small = office.heard(&phone);
    assert!(small.len() > 1 && small.iter().all(is_datagram), "small again, and repeated as datagrams are");
    assert_eq!(office.notifier.large_notifies(), OversizeNotifies { on_connection: 1, ..OversizeNotifies::default() });
}

#[test]
fn a_phone_that_takes_no_connection_gets_the_same_news_in_a_datagram_at_once_and_from_then_on() {
    // D-020
    let (mut office, phone, mut publisher) = pair("", |_| {});
    office.report(&mut publisher, &MANY);
    let vain = office.only(&phone);
    office.undeliverable(&vain);
    let datagram = office.only(&phone);
    assert!(is_datagram(&datagram));
    assert_eq!((datagram.at, datagram.cseq, datagram.states()), (vain.at, vain.cseq + 1, vain.states()));
    office.pass(500);
    assert_eq!(office.accept(&phone).text, datagram.text, "and is repeated");
    office.report(&mut publisher, &MANY[1..]);
    assert!(is_datagram(&office.accept(&phone)));
    assert_eq!(
        office.notifier.large_notifies(),
        OversizeNotifies { on_connection: 1, fragmented: 2, ..OversizeNotifies::default() }
    );
}

#[test]
fn a_connection_that_swallows_a_notify_is_found_out_and_the_last_word_gets_through_as_well() {
    let (mut office, mut phone, mut publisher) = pair("", |_| {});
    office.report(&mut publisher, &MANY);
    assert_eq!(office.only(&phone).to, connection(&phone));
    office.pass(32_010);
    let datagram = office.accept(&phone);
    assert!(is_datagram(&datagram) && datagram.states().len() == MANY.len());
    assert_eq!(office.subscribe(&mut phone, 0).status, 200);
    let last = office.only(&phone);
    assert!(last.is_last() && is_datagram(&last));

    let (mut office, mut phone, mut publisher) = pair("", |_| {});
    office.report(&mut publisher, &MANY);
    office.accept(&phone);
    assert_eq!(office.subscribe(&mut phone, 0).status, 200);
    let vain = office.only(&phone);
    assert!(vain.is_last() && vain.to == connection(&phone));
    office.undeliverable(&vain);
    let last = office.accept(&phone);
    assert!(last.is_last() && is_datagram(&last));
}

#[test]
fn a_repetition_that_has_become_large_leaves_over_tcp_and_is_not_repeated() {
    let (mut office, phone, mut publisher) = pair("", |_| {});
    office.report(&mut publisher, &MANY[..1]);
    let small = office.only(&phone);
    assert!(is_datagram(&small));
    office.report(&mut publisher, &MANY);
    office.pass(500);
    let large = office.only(&phone);
    assert_eq!((large.to.clone(), large.cseq), (connection(&phone), small.cseq + 1));
    office.pass(30_000);
    assert!(office.heard(&phone).is_empty());
    office.undeliverable(&large);
    assert!(is_datagram(&office.only(&phone)));
}

#[test]
fn no_connection_is_tried_where_that_is_not_meant() {
    let udp = "presence.oversize_notify = \"udp\"\n";
    let explicit = |phone: &mut Phone| phone.more = "Record-Route: <sip:127.0.0.1:5099;transport=udp;lr>\r\n".into();
    // Behind NAT: a response reaches the source of the request, but a new connection does not.
    let nat = |phone: &mut Phone| {
        phone.more = "Record-Route: <sip:203.0.113.9;lr>\r\n".into();
        phone.source.peer = "192.0.2.5:4000".parse().unwrap();
    };
    for (config, change) in [(udp, (|_| {}) as fn(&mut Phone)), ("", explicit), ("", nat)] {
        let (mut office, phone, mut publisher) = pair(config, change);
        office.report(&mut publisher, &MANY);
        let notify = office.only(&phone);
        assert!(is_datagram(&notify) && notify.text.len() > 1_300, "{}", notify.text);
        assert_eq!(office.notifier.large_notifies(), OversizeNotifies { fragmented: 1, ..OversizeNotifies::default() });
    }
}

#[test]
fn no_connection_is_opened_to_an_address_that_may_be_forged() {
    let mut office = Office::new();
    office.report(&mut Publisher::new("1001@acme.test"), &MANY);
    let mut phone = Phone::new("a", "1001@acme.test");
    phone.source.peer = "192.0.2.5:4000".parse().unwrap();
    assert_eq!(office.subscribe(&mut phone, 3600).status, 200);
    assert!(is_datagram(&office.accept(&phone)), "who knows who that is");
    assert_eq!(office.subscribe(&mut phone, 3600).status, 200);
    assert_eq!(office.only(&phone).to, connection(&phone), "the phone has answered there");
}

#[test]
fn short_header_names_are_enough_for_what_is_hardly_too_large() {
    let (mut office, phone, mut publisher) = pair("", |_| {});
    // Pads the NOTIFY to slightly more than the limit of 1,300 octets.
    let calls = &MANY[..2];
    office.report(&mut publisher, calls);
    let length = office.accept(&phone).text.len();
    assert!((1_000..1_290).contains(&length), "{length}");
    let padding = "x".repeat(1_310 - length);
    let (mut office, phone, mut publisher) = pair("", |phone| phone.call_id = format!("call-of-a{padding}"));
    office.report(&mut publisher, calls);
    let text = &office.notifies[0].text;
    assert!((1_260..=1_300).contains(&text.len()), "{}", text.len());
    assert!(text.contains("\r\nv: SIP/2.0/UDP ") && text.contains("\r\no: dialog\r\n"), "{text}");
    let message = wire::read(text.as_bytes()).unwrap().unwrap();
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::Contact, Name::Event, Name::ContentLength] {
        assert!(message.first(name).is_some(), "{text}");
    }
    assert_eq!(office.only(&phone).states().len(), 2);
    assert_eq!(office.notifier.large_notifies(), OversizeNotifies { compacted: 1, ..OversizeNotifies::default() });
}

#[test]
fn a_connection_that_the_phone_has_anyway_is_used() {
    let mut office = Office::new();
    let subscribe = |office: &mut Office, mut phone: Phone| {
        let instance = ">;+sip.instance=\"<urn:uuid:1>\"\r\nEvent";
        let text = office.subscribe_text(&mut phone, 3600).replace(">\r\nEvent", instance);
        assert_eq!(office.ask(phone.source, &text).unwrap().status, 200);
        office.accept(&phone);
        phone
    };
    let phone = subscribe(&mut office, Phone::new("a", "1001@acme.test"));
    subscribe(&mut office, Phone { source: phone.source, ..Phone::new("b", "1003@acme.test") }.over_tcp(5));
    let mut publisher = Publisher::new("1001@acme.test");
    office.report(&mut publisher, &MANY);
    let large = office.only(&phone);
    assert_eq!(large.to, Destination::Flow { flow: FlowId(5), otherwise: None });
    assert!(large.text.contains("\r\nVia: SIP/2.0/TCP "), "{}", large.text);
    assert_eq!(office.notifier.large_notifies(), OversizeNotifies { on_flow: 1, ..OversizeNotifies::default() });
    office.undeliverable(&large);
    assert!(is_datagram(&office.only(&phone)));
}

//! SUBSCRIBE: create, refresh, end, fetch, expiry and refusals.

use super::*;
use crate::notifier::control::{PageStart, SubscriptionRecord};

#[test]
fn the_200_goes_first_and_the_full_state_follows_it_at_once() {
    // F-010, F-016, F-017, F-018, F-019, F-026, F-027, F-049, F-050, G-018, G-022, E-002, E-007
    let (mut office, mut phone) = (Office::new(), Phone::new("a", "1001@acme.test"));
    let reply = office.subscribe(&mut phone, 600);
    assert_eq!(office.log, ["200", "NOTIFY"]);
    assert_eq!(reply.line("Expires"), Some("600"));
    assert_eq!(reply.line("Allow-Events"), Some("dialog, presence, message-summary"));
    assert_eq!(reply.line("Contact"), Some("<sip:1001@127.0.0.1:5060>"));
    // F-008, F-053
    assert_eq!((reply.line("Event"), reply.line("Subscription-State")), (None, None));
    let notify = office.only(&phone);
    let tag = phone.to_tag.as_deref().unwrap();
    assert_eq!(notify.line("From"), Some(&*format!("<sip:1001@acme.test>;tag={tag}")));
    assert_eq!(notify.line("To"), Some("<sip:watcher@acme.test>;tag=tag-of-a"));
    assert_eq!((notify.cseq, notify.version(), &*notify.state), (1, 0, "active;expires=600"));
    assert!(notify.text.starts_with("NOTIFY sip:watcher@127.0.0.1:"), "{}", notify.text);
    assert_eq!(notify.to.clone(), datagram(&phone.source.peer.to_string()));
    assert_eq!(between(&notify.body, "entity=\"", "\""), "sip:1001@acme.test");
    assert_eq!(notify.lamp(), "terminated");
}

#[test]
fn a_later_subscriber_gets_the_state_of_the_moment() {
    let mut office = Office::new();
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "confirmed")]);
    let mut phone = Phone::new("a", "1001@acme.test");
    office.subscribe(&mut phone, 600);
    assert_eq!(office.only(&phone).lamp(), "confirmed");
}

#[test]
fn each_package_has_its_neutral_document() {
    // A NOTIFY is sent even if nothing is known of the presentity.
    let mut office = Office::new();
    for (event, says) in
        [("presence", "<basic>open</basic>"), ("message-summary", "Messages-Waiting: no"), ("dialog", "terminated")]
    {
        let mut phone = Phone::new(event, "1001@acme.test").of_event(event);
        office.subscribe(&mut phone, 600);
        let notify = office.accept(&phone);
        assert!(notify.body.contains(says), "{}", notify.body);
        assert_eq!(notify.line("Event"), Some(event));
        assert_eq!(notify.line("Content-Type"), Some(package::get(package::by_name(event).unwrap()).content_type()));
    }
}

#[test]
fn the_entity_is_the_uri_as_it_was_subscribed_to() {
    // G-022
    let mut office = Office::new();
    let mut loud = Phone::new("a", "ABC@Acme.Test");
    loud.whom = "SIP:ABC@Acme.Test;user=phone".into();
    office.settle_in(&mut loud, 600);
    let quiet = office.watcher("b", "abc@acme.test", 600);
    office.report(&mut Publisher::new("%61bc@acme.test"), &[("c1", "early")]);
    let (loud, quiet) = (office.only(&loud), office.only(&quiet));
    assert_eq!((loud.lamp(), quiet.lamp()), ("early".into(), "early".into()));
    assert!(between(&loud.body, "entity=\"", "\"").eq("SIP:ABC@Acme.Test") || loud.body.contains("sip:ABC@Acme.Test"));
    assert_eq!(between(&quiet.body, "entity=\"", "\""), "sip:abc@acme.test");
    assert_eq!(office.notifier.table.len(), 1);
}

#[test]
fn a_refresh_restarts_the_clock_and_brings_the_full_state_in_the_same_dialog() {
    // F-016, F-020, F-021, G-015, E-008, E-010
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 600);
    office.pass(300_000);
    phone.cseq += 4_000;
    let reply = office.subscribe(&mut phone, 900);
    assert_eq!((reply.status, reply.line("Expires")), (200, Some("900")));
    let notify = office.accept(&phone);
    assert_eq!((notify.cseq, notify.version(), &*notify.state), (2, 1, "active;expires=900"));
    let records = office.notifier.list_subscriptions(ACME, None);
    assert_eq!((records.len(), records[0].expires, records[0].subscribed_at), (1, 900, 1_700_000_301));
    // After the expiry that the first SUBSCRIBE had set.
    office.pass(899_000);
    assert_eq!((office.heard(&phone).len(), office.listed(ACME)), (0, 1));
    office.pass(1_250);
    assert!(office.accept(&phone).is_last());
    office.pass(1_000);
    assert!(office.is_empty());
}

/// Returns all pages of the listing of an account.
fn parts(office: &Office) -> Vec<Vec<SubscriptionRecord>> {
    let (mut parts, mut from) = (Vec::new(), Some(PageStart::default()));
    while let Some(begin) = from {
        let part = office.notifier.subscriptions_from(ACME, None, &begin);
        assert!(part.next.as_ref() != Some(&begin), "it goes on");
        parts.push(part.records);
        from = part.next;
    }
    parts
}

#[test]
fn a_long_listing_comes_in_parts_bounded_in_number() {
    let mut office = Office::new();
    for i in 0..700 {
        office.watcher(&format!("a{i:03}"), &format!("{}@acme.test", 1000 + i / 400), 600);
    }
    let parts = parts(&office);
    assert!(parts.iter().all(|part| part.len() <= 256), "{:?}", parts.iter().map(Vec::len).collect::<Vec<_>>());
    let listed: Vec<_> = parts.iter().flatten().map(|record| (record.user.clone(), record.call_id.clone())).collect();
    let mut expected: Vec<_> = office
        .notifier
        .list_subscriptions(ACME, None)
        .into_iter()
        .map(|record| (record.user, record.call_id))
        .collect();
    expected.sort();
    assert_eq!((listed.len(), &listed), (700, &expected), "each once, ordered, and none of the four hundred is lost");
}

#[test]
fn of_two_dialogs_with_one_call_id_the_younger_is_listed() {
    let mut office = Office::new();
    let one = office.watcher("a", "1001@acme.test", 600);
    office.pass(5_000);
    let mut two = Phone::new("b", "1001@acme.test");
    two.call_id = one.call_id.clone();
    office.settle_in(&mut two, 900);
    let parts = parts(&office);
    assert_eq!(parts.iter().flatten().map(|record| record.expires).collect::<Vec<_>>(), [900]);
    assert_eq!(office.notifier.list_subscriptions(ACME, None).len(), 2);
}

#[test]
fn a_part_of_a_listing_is_bounded_in_octets() {
    // An extension has many watchers, and the last NOTIFY to each of them was long.
    let mut office = Office::new();
    let phones: Vec<_> = (0..100).map(|i| office.watcher(&format!("a{i:03}"), "1001@acme.test", 600)).collect();
    let calls: Vec<_> = (0..60).map(|n| (format!("{n}-{}", "x".repeat(200)), "confirmed")).collect();
    let calls: Vec<_> = calls.iter().map(|(id, state)| (id.as_str(), *state)).collect();
    office.report(&mut Publisher::new("1001@acme.test"), &calls);
    for phone in &phones {
        office.accept(phone);
    }
    let parts = parts(&office);
    let octets = |part: &Vec<SubscriptionRecord>| {
        part.iter().map(|record| record.last.as_ref().map_or(0, |last| last.body.len())).sum::<usize>()
    };
    assert_eq!(parts.iter().flatten().count(), 100);
    let (all, most) = (parts.iter().map(octets).sum::<usize>(), parts.iter().map(octets).max().unwrap());
    assert!(all > 1_500_000 && most < 300_000, "{all} octets, {most} at a time");
}

#[test]
fn a_refresh_may_shorten() {
    // F-021
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 3600);
    office.subscribe(&mut phone, 60);
    office.accept(&phone);
    office.pass(60_300);
    assert!(office.accept(&phone).is_last());
    office.pass(3_600_000);
    assert!(office.is_empty());
}

#[test]
fn notifies_between_tell_the_seconds_that_are_left() {
    // F-027, F-036
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 600);
    office.pass(10_400);
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "early")]);
    assert_eq!(office.only(&phone).state, "active;expires=590");
}

#[test]
fn without_a_refresh_it_ends_with_a_notify_that_says_so() {
    // F-022, F-028, F-029
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 60);
    office.pass(59_900);
    assert_eq!((office.heard(&phone).len(), office.listed(ACME)), (0, 1));
    office.pass(500);
    let last = office.only(&phone);
    assert_eq!((&*last.state, last.cseq, last.version()), ("terminated;reason=timeout", 2, 1));
    assert_eq!(office.listed(ACME), 0, "it is gone from the listing before the phone has answered");
    // F-045
    assert_eq!(office.subscribe(&mut phone, 600).status, 481);
    office.answer(&last, 200);
    office.pass(32_000);
    assert!(office.heard(&phone).is_empty());
    assert!(office.is_empty());
}

#[test]
fn a_last_notify_without_an_answer_is_repeated_until_timer_f_and_then_forgotten() {
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 60);
    let mut publisher = Publisher::new("1001@acme.test");
    office.pass(61_000);
    // A change after the end is not sent to this phone any more.
    office.report(&mut publisher, &[("c1", "early")]);
    office.pass(33_000);
    let copies = office.heard(&phone);
    assert_eq!(copies.len(), 11);
    assert!(copies.iter().all(|copy| copy.text == copies[0].text && copy.is_last()));
    office.publish(&mut publisher, 0, None);
    office.pass(3_600_000);
    assert!(office.is_empty());
}

#[test]
fn expires_0_in_the_dialog_ends_it_at_once() {
    // F-023
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 3600);
    let reply = office.subscribe(&mut phone, 0);
    assert_eq!((reply.status, reply.line("Expires")), (200, Some("0")));
    assert_eq!((office.listed(ACME), office.notifier.subscriptions()), (0, 1), "not listed, but not forgotten yet");
    let last = office.only(&phone);
    assert_eq!((&*last.state, last.lamp()), ("terminated;reason=timeout", "terminated".into()));
    assert_eq!(office.subscribe(&mut phone, 0).status, 481);
    office.answer(&last, 200);
    assert!(office.notifier.table.is_empty());
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "early")]);
    assert!(office.heard(&phone).is_empty());
}

#[test]
fn expires_0_outside_a_dialog_fetches_once_and_keeps_nothing() {
    // F-024, F-025
    let mut office = Office::new();
    office.report(&mut Publisher::new("1001@acme.test"), &[("c1", "confirmed")]);
    let mut phone = Phone::new("a", "1001@acme.test");
    assert_eq!(office.subscribe(&mut phone, 0).status, 200);
    assert_eq!(office.listed(ACME), 0);
    let notify = office.accept(&phone);
    assert_eq!((&*notify.state, notify.lamp()), ("terminated;reason=timeout", "confirmed".into()));
    office.pass(3_700_000);
    assert!(office.heard(&phone).is_empty());
    assert!(office.is_empty());
    let mut stranger = Phone::new("b", "1001@nowhere.test");
    assert_eq!(office.subscribe(&mut stranger, 0).status, 404);
    assert!(office.heard(&stranger).is_empty());
}

#[test]
fn a_fetch_beside_a_dialog_leaves_that_alone() {
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 600);
    let mut fetch = phone.clone();
    (fetch.to_tag, fetch.tag, fetch.call_id) = (None, "another".into(), "another".into());
    office.subscribe(&mut fetch, 0);
    assert!(office.accept(&fetch).is_last());
    assert_eq!((office.listed(ACME), office.subscribe(&mut phone, 600).status), (1, 200));
    assert_eq!(office.accept(&phone).version(), 1);
}

#[test]
fn the_same_call_id_with_another_tag_is_another_dialog() {
    // E-018, E-019, F-044, G-021
    let mut office = Office::new();
    let mut one = office.watcher("a", "1001@acme.test", 600);
    let mut two = one.clone();
    (two.to_tag, two.tag) = (None, "other".into());
    office.settle_in(&mut two, 600);
    assert_ne!(one.to_tag, two.to_tag);
    office.subscribe(&mut one, 0);
    assert!(office.accept(&one).is_last());
    assert_eq!((office.listed(ACME), office.subscribe(&mut two, 600).status), (1, 200));
}

#[test]
fn an_event_id_comes_back_in_every_notify_and_tells_subscriptions_apart() {
    // F-005, F-006, F-007, F-046, F-047
    let mut office = Office::new();
    let mut phone = Phone::new("a", "1001@acme.test").of_event("dialog;sla;id=7");
    office.subscribe(&mut phone, 600);
    assert_eq!(office.accept(&phone).line("Event"), Some("dialog;id=7"));
    phone.event = "dialog;x=1;id=7".into();
    assert_eq!(office.subscribe(&mut phone, 600).status, 200);
    office.accept(&phone);
    for other in ["dialog", "dialog;id=8", "presence;id=7"] {
        phone.event = other.into();
        assert_eq!(office.subscribe(&mut phone, 600).status, 403, "{other}");
    }
    phone.event = "dialog;id=7".into();
    assert_eq!(office.subscribe(&mut phone, 600).status, 200);
}

#[test]
fn what_is_no_package_here_is_refused_with_those_that_are() {
    // F-001 to F-004
    let mut office = Office::new();
    let wrong = [("nope", ""), ("Dialog", ""), ("dialog, presence", ""), ("dialog", "Event: presence\r\n")];
    for (i, (event, more)) in wrong.into_iter().enumerate() {
        let mut phone = Phone::new(&i.to_string(), "1001@acme.test").of_event(event);
        phone.more = more.into();
        let reply = office.subscribe(&mut phone, 600);
        assert!([489, 400].contains(&reply.status), "{event} {more}: {}", reply.status);
        assert!(reply.status == 400 || reply.line("Allow-Events") == Some("dialog, presence, message-summary"));
        assert!(office.heard(&phone).is_empty());
    }
    let text = office.subscribe_text(&mut Phone::new("b", "1001@acme.test"), 60).replace("Event: dialog\r\n", "");
    assert_eq!(office.ask(publishing_source(), &text).unwrap().status, 489);
    assert!(office.is_empty());
}

#[test]
fn the_lifetime_is_granted_within_our_bounds() {
    // F-009, F-011, F-012 (min_expires is an hour at most), G-002
    let mut office = Office::new();
    for (asked, granted) in [(60, "60"), (3_600, "3600"), (7_200, "3600"), (4_294_967_295, "3600")] {
        let mut phone = Phone::new(granted, "1001@acme.test");
        phone.call_id = asked.to_string();
        assert_eq!(office.subscribe(&mut phone, asked).line("Expires"), Some(granted), "{asked}");
    }
    let mut phone = Phone::new("brief", "1001@acme.test");
    let reply = office.subscribe(&mut phone, 59);
    assert_eq!((reply.status, reply.line("Min-Expires")), (423, Some("60")));
    phone.expires_line = false;
    assert_eq!(office.subscribe(&mut phone, 0).line("Expires"), Some("3600"));
}

#[test]
fn a_request_that_is_refused_leaves_nothing_behind() {
    // B-020, B-023, B-030, E-017, F-060
    let mut office = Office::new();
    let refused = [
        (404, "To: ", "To: "),
        (420, "Expires:", "Require: a, b\r\nExpires:"),
        (406, "Expires:", "Accept: application/x\r\nExpires:"),
        (400, "From: <sip:watcher@acme.test>", "From: <sip:acme.test>"),
        (400, "Contact: <sip:watcher@", "X: <sip:watcher@"),
        (400, "Contact: ", "Contact: <sip:x@127.0.0.1>, "),
        (400, "Contact: ", "Contact: <sip:watcher@127.0.0.1>;;x=1\r\nX: "),
        (400, "Contact: ", "Contact: <sip:watcher@127.0.0.1>;;\r\nX: "),
        (400, "Contact: <sip:watcher@", "Contact: <mailto:watcher@"),
        (416, "SUBSCRIBE sip:", "SUBSCRIBE soap:"),
        (415, "Content-Length: 0\r\n\r\n", "Content-Type: application/simple-filter+xml\r\nContent-Length: 1\r\n\r\nx"),
    ];
    for (i, (status, from, to)) in refused.into_iter().enumerate() {
        let whom = if status == 404 { "1001@nowhere.test" } else { "1001@acme.test" };
        let mut phone = Phone::new(&i.to_string(), whom);
        let text = office.subscribe_text(&mut phone, 600).replace(from, to);
        let reply = office.ask(phone.source, &text).unwrap();
        assert_eq!(reply.status, status, "{to}");
        assert!(status != 420 || reply.line("Unsupported") == Some("a, b"));
        assert!(office.heard(&phone).is_empty());
    }
    assert!(office.is_empty());
}

#[test]
fn accept_with_wildcards_and_q_is_understood() {
    // B-031, G-004
    let mut office = Office::new();
    for (i, accept) in ["*/*", "application/*", "text/plain, application/dialog-info+xml;q=0.5"].iter().enumerate() {
        let mut phone = Phone::new(&i.to_string(), "1001@acme.test");
        phone.more = format!("Accept: {accept}\r\n");
        assert_eq!(office.subscribe(&mut phone, 600).status, 200, "{accept}");
    }
}

#[test]
fn a_request_in_a_dialog_that_is_not_there_is_told_so() {
    // E-012, E-013, A-031
    let mut office = Office::new();
    let phone = office.watcher("a", "1001@acme.test", 600);
    let tag = phone.to_tag.clone().unwrap();
    let changes: [fn(&mut Phone, &str); 4] = [
        |p, _| p.to_tag = Some("made-up".into()),
        |p, tag| p.to_tag = Some(tag.replace(&tag[tag.len() - 2..], "zz")),
        |p, _| p.tag = "other".into(),
        |p, _| p.call_id = p.call_id.to_uppercase(),
    ];
    for change in changes {
        let mut other = phone.clone();
        change(&mut other, &tag);
        assert_eq!(office.subscribe(&mut other, 600).status, 481);
        assert!(office.heard(&other).is_empty());
    }
    assert_eq!(office.listed(ACME), 1);
}

#[test]
fn a_lower_or_equal_cseq_is_out_of_order_and_changes_nothing() {
    // E-009, E-011
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 600);
    for back in [1, 2] {
        let mut late = phone.clone();
        late.cseq = phone.cseq.saturating_sub(back);
        assert_eq!(office.subscribe(&mut late, 0).status, 500);
    }
    assert_eq!((office.listed(ACME), office.heard(&phone).len()), (1, 0));
    assert_eq!(office.subscribe(&mut phone, 600).status, 200);
}

#[test]
fn a_refused_request_in_a_dialog_uses_its_cseq_up_and_changes_nothing_else() {
    // RFC 3261 section 12.2.2: a CSeq is in order if it is higher than the last one received, whatever the response
    // to that was.
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 600);
    let mut overtaken = phone.clone();
    overtaken.cseq += 3;
    phone.cseq += 9;
    assert_eq!(office.subscribe(&mut phone, 1).status, 423);
    assert_eq!(office.subscribe(&mut overtaken, 0).status, 500);
    assert_eq!((office.listed(ACME), office.heard(&phone).len()), (1, 0));
    assert_eq!(office.subscribe(&mut phone, 600).status, 200);
}

#[test]
fn a_refresh_moves_contact_and_connection_but_not_the_route_set() {
    // E-003, E-014, E-015, E-016
    let mut office = Office::new();
    let mut phone = office.watcher("a", "1001@acme.test", 600);
    phone.source = source(Transport::Udp, "127.0.0.1:33333", None);
    phone.more = "Record-Route: <sip:127.0.0.9;lr>\r\n".into();
    assert_eq!(office.subscribe(&mut phone, 600).line("Record-Route"), None);
    let notify = office.accept(&phone);
    assert_eq!((notify.to.clone(), notify.line("Route")), (datagram("127.0.0.1:33333"), None));
    // Changes to TCP, where nothing is retransmitted.
    phone = phone.over_tcp(5);
    office.subscribe(&mut phone, 600);
    let notify = office.only(&phone);
    assert!(matches!(notify.to.clone(), Destination::Flow { flow: FlowId(5), .. }), "{:?}", notify.to);
    assert!(notify.line("Via").unwrap().starts_with("SIP/2.0/TCP"));
    office.pass(31_000);
    assert!(office.heard(&phone).is_empty());
    // Changes back to UDP, without a Contact: the old Contact stays valid.
    phone.source = source(Transport::Udp, "127.0.0.1:33333", None);
    let contact = format!("Contact: {}\r\n", phone.contact());
    let text = office.subscribe_text(&mut phone, 600).replace(&contact, "");
    assert_eq!(office.ask(phone.source, &text).unwrap().status, 200);
    assert!(office.only(&phone).text.starts_with("NOTIFY sip:watcher@127.0.0.1:33333;transport=tcp SIP/2.0"));
}

#[test]
fn the_route_set_is_what_the_first_request_recorded() {
    // E-001, E-003, E-004
    let (mut office, mut phone) = (Office::new(), Phone::new("a", "1001@acme.test"));
    let routes = "<sip:127.0.0.8:5070;lr;x=y>, <sip:127.0.0.9;lr=on>";
    phone.more = format!("Record-Route: {routes}\r\n");
    assert_eq!(office.subscribe(&mut phone, 600).line("Record-Route"), Some(routes));
    let notify = office.only(&phone);
    assert_eq!((notify.to.clone(), notify.line("Route")), (datagram("127.0.0.8:5070"), Some(routes)));
}

#[test]
fn limits_of_an_account_and_of_the_server_answer_480_and_503() {
    // rule 7
    let config = CONFIG.to_string()
        + "[limits]\nsubscriptions = 3\nsubscriptions_per_account = 2\nwatchers_per_presentity = 1\n";
    let mut office = Office::with(&config);
    let mut first = office.watcher("a", "1001@acme.test", 600);
    assert_eq!(office.subscribe(&mut Phone::new("b", "1001@acme.test"), 600).status, 480);
    office.watcher("c", "1002@acme.test", 600);
    let refused = office.subscribe(&mut Phone::new("d", "1003@acme.test"), 600);
    assert_eq!(refused.status, 480);
    assert!(refused.line("Retry-After").is_some() && refused.line("Warning").is_some());
    office.watcher("e", "1@umbrella.test", 600);
    assert_eq!(office.subscribe(&mut Phone::new("f", "2@umbrella.test"), 600).status, 503);
    // A refresh is always accepted, and an end makes room for another subscription.
    assert_eq!(office.subscribe(&mut first, 600).status, 200);
    office.accept(&first);
    office.subscribe(&mut first, 0);
    office.accept(&first);
    assert_eq!(office.subscribe(&mut Phone::new("g", "1003@acme.test"), 600).status, 200);
}

#[test]
fn tenants_never_see_each_other() {
    // rule 8
    let mut office = Office::new();
    let acme = office.watcher("a", "1001@acme.test", 600);
    let umbrella = office.watcher("b", "1001@umbrella.test", 600);
    office.report(&mut Publisher::new("1001@umbrella.test"), &[("c1", "early")]);
    assert_eq!((office.heard(&acme).len(), office.accept(&umbrella).lamp()), (0, "early".into()));
    office.reset(ACME, "1001");
    assert_eq!((office.heard(&acme).len(), office.heard(&umbrella).len()), (1, 0));
    assert_eq!((office.listed(ACME), office.listed(UMBRELLA)), (1, 1));
}

#[test]
fn who_has_left_takes_no_memory() {
    // L-038
    let mut office = Office::new();
    for n in 0..2_000 {
        let mut phone = Phone::new(&format!("p{n}"), "1001@acme.test");
        assert_eq!(office.subscribe(&mut phone, 600).status, 200);
        office.accept(&phone);
        assert_eq!(office.subscribe(&mut phone, 0).status, 200);
        office.accept(&phone);
    }
    let notifier = &office.notifier;
    assert_eq!((notifier.table.len(), notifier.phones.len(), notifier.wheel.len()), (0, 0, 0));
}

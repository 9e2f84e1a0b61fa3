//! Unsupported extensions: refused as their RFCs say, or ignored where the client makes them optional.

use crate::office::Office;

#[test]
fn packages_that_are_not_served_are_489_with_those_that_are() {
    let mut office = Office::open();
    for event in ["reg", "presence.winfo", "dialog.winfo", "as-feature-event", "conference", "xcap-diff", "refer"] {
        let (_, sent) = office.watch("1001", event);
        assert_eq!((sent.len(), sent[0].status()), (1, 489), "{event}");
        assert_eq!(sent[0].header("Allow-Events"), "dialog, presence, message-summary");
    }
    assert_eq!(office.list(), []);
}

#[test]
fn a_feature_event_with_a_body_sets_nothing() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "as-feature-event");
    phone.cseq = 1;
    let body = "<SetDoNotDisturb xmlns=\"http://www.ecma-international.org/standards/ecma-323/csta/ed3\"/>";
    let typed =
        format!("Content-Type: application/x-as-feature-event+xml\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let sent = office.receive(phone.source, &phone.request(600).replace("Content-Length: 0\r\n\r\n", &typed));
    assert_eq!((sent.len(), sent[0].status()), (1, 489));
}

#[test]
fn who_can_read_lists_is_shown_the_one_resource_that_he_named() {
    let mut office = Office::open();
    for more in
        ["", "Supported: eventlist\r\nAccept: application/dialog-info+xml, application/rlmi+xml, multipart/related\r\n"]
    {
        let mut phone = office.phone("1001", "dialog");
        phone.more = more.into();
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!((sent[0].status(), sent[1].header("Content-Type")), (200, "application/dialog-info+xml"));
        assert!(!sent[1].text.contains("Require: "), "{}", sent[1].text);
    }
}

#[test]
fn who_insists_on_an_option_is_told_which_is_not_there() {
    let mut office = Office::open();
    for option in ["eventlist", "recipient-list-subscribe"] {
        let mut phone = office.phone("1001", "presence");
        phone.more = format!("Require: {option}\r\n");
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!((sent.len(), sent[0].status(), sent[0].header("Unsupported")), (1, 420, option));
    }
}

#[test]
fn lists_and_filters_in_a_body_are_415() {
    let mut office = Office::open();
    for kind in ["application/resource-lists+xml", "application/simple-filter+xml"] {
        let mut phone = office.phone("1001", "presence");
        phone.cseq = 1;
        let body = format!("Content-Type: {kind}\r\nContent-Length: 4\r\n\r\n<a/>");
        let sent = office.receive(phone.source, &phone.request(600).replace("Content-Length: 0\r\n\r\n", &body));
        assert_eq!(
            (sent.len(), sent[0].status(), sent[0].header("Accept")),
            (1, 415, "application/pidf+xml"),
            "{kind}"
        );
    }
}

#[test]
fn who_could_read_differences_is_sent_whole_documents() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "presence");
    phone.more = "Accept: application/pidf+xml, application/pidf-diff+xml;q=1\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent[0].status(), sent[1].header("Content-Type")), (200, "application/pidf+xml"));
    let mut only = office.phone("1001", "presence");
    only.more = "Accept: application/pidf-diff+xml\r\n".into();
    assert_eq!(only.subscribe(&mut office, 600)[0].status(), 406);
}

#[test]
fn a_least_rate_is_not_promised_and_does_no_harm() {
    let mut office = Office::open();
    for event in ["dialog;min-rate=0.1", "dialog;adaptive-min-rate=0.1"] {
        let mut phone = office.phone("1001", event);
        let sent = phone.subscribe(&mut office, 600);
        assert_eq!((sent[0].status(), sent[1].header("Subscription-State")), (200, "active;expires=600"));
        phone.answer(&mut office, &sent[1], 200);
    }
    assert_eq!(office.pass_quietly(300_000), []);
}

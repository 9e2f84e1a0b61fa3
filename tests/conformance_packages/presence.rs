//! Presence (RFC 3856, 3859, 3863, 4479, 4480): the rows that no other suite checks.

use lamplighter::presence::state::CallState::Confirmed;

use crate::office::{Office, Sent};

const TYPE: &str = "application/pidf+xml";

/// Publishes this content of a presence element for 1001.
fn publish(office: &mut Office, inner: &str) -> Vec<Sent> {
    let body = format!(
        "<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
         xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" xmlns:q=\"urn:q\" entity=\"sip:1001@acme.test\">{inner}</presence>"
    );
    let sent = office.publish_body("1001", None, 600, "presence", TYPE, &body);
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    sent
}

fn tuple(basic: &str, more: &str) -> String {
    format!("<tuple id=\"x\"><status><basic>{basic}</basic></status>{more}</tuple>")
}

/// Document that a new watcher of 1001 receives.
fn shown(office: &mut Office) -> String {
    office.watch("1001", "presence").1[1].body().to_string()
}

#[test]
fn the_package_is_served_for_an_hour_with_pidf_unless_something_else_is_asked_for() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "presence");
    phone.cseq = 1;
    let request = phone.request(600).replace("Expires: 600\r\n", "");
    let sent = office.receive(phone.source, &request);
    assert_eq!((sent[0].status(), sent[0].header("Expires")), (200, "3600"));
    assert_eq!((sent[1].header("Event"), sent[1].header("Content-Type")), ("presence", TYPE));
    let mut old = office.phone("1001", "presence");
    old.more = "Accept: application/xpidf+xml\r\n".into();
    let sent = old.subscribe(&mut office, 600);
    assert_eq!((sent.len(), sent[0].status(), sent[0].header("Accept")), (1, 406, TYPE));
}

#[test]
fn a_change_is_told_at_once_and_a_burst_of_them_as_fast_as_it_is_acknowledged() {
    let mut office = Office::open();
    let phone = office.settled("1001", "presence");
    let sent = publish(&mut office, &tuple("closed", ""));
    assert!(sent[1].body().contains("<basic>closed</basic>"));
    for note in ["a", "b", "c"] {
        assert_eq!(publish(&mut office, &tuple("closed", &format!("<note>{note}</note>"))).len(), 1, "one at a time");
    }
    let next = phone.answer(&mut office, &sent[1], 200);
    assert_eq!(next.len(), 1);
    assert!(next[0].body().contains("<dm:note>c</dm:note>"), "{}", next[0].body());
}

#[test]
fn with_a_max_rate_five_seconds_lie_between_two_documents() {
    let mut office = Office::open();
    office.settled("1001", "presence;max-rate=0.2");
    office.pass(10_000);
    assert_eq!(publish(&mut office, &tuple("closed", "")).len(), 2);
    let mut phones = Vec::new();
    for note in ["a", "b", "c"] {
        phones.extend(publish(&mut office, &tuple("closed", &format!("<note>{note}</note>"))).drain(1..));
    }
    assert_eq!(phones, []);
}

#[test]
fn a_document_has_its_root_its_entity_and_one_tuple_with_id_and_status() {
    let mut office = Office::open();
    for idle in [true, false] {
        if !idle {
            publish(&mut office, &(tuple("closed", "") + &tuple("closed", "").replace("\"x\"", "\"y\"")));
            publish(&mut office, &tuple("open", ""));
        }
        let body = shown(&mut office);
        let root = body.split("<presence ").nth(1).unwrap().split('>').next().unwrap();
        assert!(root.contains("xmlns=\"urn:ietf:params:xml:ns:pidf\""), "{root}");
        assert!(root.contains(" entity=\"sip:1001@acme.test\""), "{root}");
        assert_eq!((body.matches("<tuple id=\"t1\">").count(), body.matches("<tuple").count()), (1, 1));
        assert_eq!(body.matches("<basic>open</basic>").count(), 1, "{body}");
        assert_eq!(body.matches("<dm:person id=\"p1\">").count(), 1);
    }
}

#[test]
fn basic_notes_and_activities_come_through_and_calls_add_theirs() {
    let mut office = Office::open();
    let person = "<dm:person id=\"p\"><rpid:activities><rpid:away/></rpid:activities></dm:person>";
    publish(&mut office, &(tuple("closed", "<note xml:lang=\"de\">Mittag</note>") + person));
    let body = shown(&mut office);
    for part in ["<basic>closed</basic>", ">Mittag</note>", "<rpid:away/>"] {
        assert!(body.contains(part), "{part} in {body}");
    }
    office.set("1001", Confirmed);
    assert!(shown(&mut office).contains("<rpid:activities><rpid:on-the-phone/><rpid:away/></rpid:activities>"));
}

#[test]
fn of_two_publishers_one_person_is_made() {
    let mut office = Office::open();
    publish(&mut office, &tuple("open", "<note>Desk</note>"));
    publish(&mut office, &(tuple("closed", "") + "<dm:person id=\"q\"><dm:note>Lunch</dm:note></dm:person>"));
    let body = shown(&mut office);
    assert!(body.contains("<basic>open</basic>") && body.contains("<dm:note>Lunch</dm:note>"), "{body}");
    assert_eq!(body.matches("<dm:person").count(), 1);
}

#[test]
fn an_extension_that_must_be_understood_and_is_not_does_not_count() {
    let mut office = Office::open();
    let person = "<dm:person id=\"p\"><rpid:activities><rpid:away/></rpid:activities>\
                  <q:only xmlns:p=\"urn:ietf:params:xml:ns:pidf\" p:mustUnderstand=\"1\"/></dm:person>";
    publish(&mut office, &(tuple("open", "") + person));
    assert!(!shown(&mut office).contains("rpid:away"));
}

#[test]
fn capabilities_and_other_extensions_are_left_out() {
    let mut office = Office::open();
    let caps = "<q:servcaps><q:audio>true</q:audio></q:servcaps><contact priority=\"0.8\">sip:x@acme.test</contact>\
                <timestamp>2026-01-01T00:00:00Z</timestamp>";
    publish(&mut office, &tuple("open", caps));
    let body = shown(&mut office);
    assert!(!body.contains("servcaps") && !body.contains("timestamp"), "{body}");
    assert!(body.contains("<contact>sip:1001@acme.test</contact>"), "one contact, by which everybody is reached");
}

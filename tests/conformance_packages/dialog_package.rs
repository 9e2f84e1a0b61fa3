//! Dialog package (RFC 4235): the rows that no other suite checks.

use std::collections::BTreeMap;

use lamplighter::presence::state::CallState::{Confirmed, Early, Terminated};

use crate::office::{Office, Phone, Sent, dialog};

const TYPE: &str = "application/dialog-info+xml";

/// Publishes these dialogs; returns the NOTIFY to a phone that watches 1001.
fn shown(dialogs: &str) -> Sent {
    let mut office = Office::open();
    assert_eq!(office.publish("1001", None, dialogs)[0].status(), 200);
    office.watch("1001", "dialog").1.remove(1)
}

/// Entity-tag of a successful PUBLISH.
fn etag(sent: &[Sent]) -> String {
    assert_eq!(sent[0].status(), 200, "{}", sent[0].text);
    sent[0].header("SIP-ETag").to_string()
}

/// One step of a call, published and acknowledged.
fn step(office: &mut Office, phone: &Phone, tag: &mut Option<String>, dialogs: &str) -> Sent {
    let mut sent = office.publish("1001", tag.as_deref(), dialogs);
    *tag = Some(etag(&sent));
    let notify = sent.remove(1);
    phone.answer(office, &notify, 200);
    notify
}

#[test]
fn where_one_dialog_is_named_no_more_than_two_hours_are_granted() {
    let mut office = Office::open();
    let mut phone = office.phone("1001", "dialog;call-id=\"a\";to-tag=b;from-tag=c");
    phone.cseq = 1;
    let request = phone.request(600).replace("Expires: 600\r\n", "");
    let sent = office.receive(phone.source, &request);
    assert!((60..=7_200).contains(&sent[0].header("Expires").parse::<u32>().unwrap()), "{}", sent[0].text);
}

#[test]
fn a_body_is_dialog_info_and_whoever_does_not_accept_that_gets_none() {
    let mut office = Office::open();
    let (_, sent) = office.watch("1001", "dialog");
    assert_eq!(sent[1].header("Content-Type"), TYPE);
    let mut phone = office.phone("1001", "dialog");
    phone.more = "Accept: multipart/related, application/rlmi+xml\r\n".into();
    let sent = phone.subscribe(&mut office, 600);
    assert_eq!((sent.len(), sent[0].status(), sent[0].header("Accept")), (1, 406, TYPE));
}

#[test]
fn a_quoted_call_id_in_the_event_hides_nothing_of_what_follows_it() {
    let mut office = Office::open();
    for call_id in ["\"a@b\\\"c;id=6\"", "\"a;b,c\"", "\"\\\\\""] {
        let (_, sent) = office.watch("1001", &format!("dialog;call-id={call_id};id=7"));
        assert_eq!((sent[0].status(), sent[1].header("Event")), (200, "dialog;id=7"), "{call_id}");
    }
}

#[test]
fn session_descriptions_are_told_to_nobody() {
    let mut office = Office::open();
    let side = "<local><session-description type=\"application/sdp\">v=0 secret</session-description></local>";
    let body = dialog("c1", "confirmed").replace("</state>", &format!("</state>{side}"));
    assert_eq!(office.publish("1001", None, &body)[0].status(), 200);
    for event in ["dialog", "dialog;include-session-description"] {
        let (_, sent) = office.watch("1001", event);
        assert_eq!((sent[0].status(), sent[1].states()), (200, vec!["confirmed".to_string()]));
        assert!(!sent[1].body().contains("session-description") && !sent[1].body().contains("secret"));
    }
}

#[test]
fn a_watcher_sees_the_calls_that_it_is_in_like_everybody_else() {
    let mut office = Office::open();
    let (mut caller, other) = (office.settled("1001", "dialog"), office.settled("1001", "dialog"));
    let contact = format!("sip:1002@{}", caller.source.peer);
    let body = dialog("c1", "early").replace("</remote>", &format!("<target uri=\"{contact}\"/></remote>"));
    let sent = office.publish("1001", None, &body);
    let told: Vec<_> =
        sent[1..].iter().map(|notify| (notify.message().call_id, notify.states(), notify.version())).collect();
    let early = || vec!["early".to_string()];
    assert_eq!(told, [(&*caller.call_id, early(), 1), (&*other.call_id, early(), 1)]);
    assert!(sent[1].body().contains(&contact));
    caller.answer(&mut office, &sent[1].clone(), 200);
    caller.refresh(&mut office);
}

#[test]
fn every_document_is_full_and_has_version_state_and_entity() {
    let mut office = Office::open();
    let mut phone = office.settled("1001", "dialog");
    let mut tag = None;
    let mut documents = vec![
        step(&mut office, &phone, &mut tag, &dialog("c1", "confirmed")),
        step(&mut office, &phone, &mut tag, &(dialog("c1", "confirmed") + &dialog("c2", "early"))),
        step(&mut office, &phone, &mut tag, &dialog("c1", "confirmed")),
        step(&mut office, &phone, &mut tag, ""),
    ];
    documents.push(phone.subscribe(&mut office, 600).remove(1));
    for (document, version) in documents.iter().zip(1..) {
        let root = document.body().split("<dialog-info ").nth(1).unwrap().split('>').next().unwrap();
        assert!(
            root.contains(&format!(" version=\"{version}\" state=\"full\" entity=\"sip:1001@acme.test\"")),
            "{root}"
        );
        assert!(root.starts_with("xmlns=\"urn:ietf:params:xml:ns:dialog-info\""), "{root}");
    }
    let states = documents.iter().map(|document| document.states().join(" ")).collect::<Vec<_>>();
    assert_eq!(states, ["confirmed", "early confirmed", "confirmed terminated", "terminated", "terminated"]);
}

#[test]
fn versions_are_each_subscription_s_own() {
    let mut office = Office::open();
    let mut early_bird = office.settled("1001", "dialog");
    for _ in 0..3 {
        early_bird.refresh(&mut office);
    }
    let late = office.settled("1001", "dialog");
    let sent = office.set("1001", Early);
    let versions: BTreeMap<_, _> = sent.iter().map(|n| (n.message().call_id.to_string(), n.version())).collect();
    assert_eq!((versions[&early_bird.call_id], versions[&late.call_id]), (4, 1));
}

#[test]
fn two_publishers_with_one_id_are_shown_with_two() {
    let mut office = Office::open();
    for call in ["x", "y"] {
        let body = dialog(call, "confirmed").replace(&format!(" id=\"{call}\""), " id=\"1\"");
        assert_eq!(office.publish("1001", None, &body)[0].status(), 200);
    }
    let ids: Vec<_> = office.watch("1001", "dialog").1[1].dialogs().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["1", "1-2"]);
}

#[test]
fn a_dialog_keeps_its_id_from_its_first_state_to_its_last() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let mut tag = None;
    for state in ["trying", "proceeding", "early", "confirmed", "terminated"] {
        let told = step(&mut office, &phone, &mut tag, &dialog("c1", state));
        assert_eq!(told.dialogs(), [("c1".to_string(), state.to_string())]);
    }
}

#[test]
fn what_a_half_dialog_does_not_have_is_not_made_up() {
    let told =
        shown("<dialog id=\"a\" call-id=\"c\" local-tag=\"l\" direction=\"initiator\"><state>trying</state></dialog>");
    assert!(
        told.body().contains("<dialog id=\"a\" call-id=\"c\" local-tag=\"l\" direction=\"initiator\">"),
        "{}",
        told.body()
    );
    assert!(!told.body().contains("remote-tag"));
}

#[test]
fn quotes_in_a_call_id_come_through_as_they_were() {
    let told = shown("<dialog id=\"a\" call-id=\"c&quot;1&amp;&lt;\"><state>early</state></dialog>");
    assert!(told.body().contains(" call-id=\"c&quot;1&amp;&lt;\""), "{}", told.body());
}

#[test]
fn a_call_that_is_published_as_going_back_stays_where_it_is() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let mut tag = None;
    step(&mut office, &phone, &mut tag, &dialog("c1", "confirmed"));
    let sent = office.publish("1001", tag.as_deref(), &dialog("c1", "early"));
    assert_eq!((sent.len(), sent[0].status()), (1, 200), "taken, and nothing new");
    tag = Some(etag(&sent));
    step(&mut office, &phone, &mut tag, &dialog("c1", "terminated"));
    for state in ["early", "confirmed"] {
        let sent = office.publish("1001", tag.as_deref(), &dialog("c1", state));
        assert_eq!((sent.len(), sent[0].status()), (1, 200), "it is not revived");
        tag = Some(etag(&sent));
    }
}

/// State table of a watcher (RFC 4235 section 4.3).
#[derive(Default)]
struct Table {
    version: Option<u32>,
    rows: BTreeMap<String, String>,
}

impl Table {
    fn take(&mut self, document: &Sent) {
        let version = document.version();
        if self.version.is_some_and(|known| version <= known) {
            return;
        }
        self.version = Some(version);
        if document.body().contains(" state=\"full\"") {
            self.rows.clear();
        }
        self.rows.extend(document.dialogs());
    }
}

#[test]
fn who_follows_the_watcher_s_algorithm_has_the_truth_in_whatever_order_documents_come() {
    let mut office = Office::open();
    let (phone, first) = office.watch("1001", "dialog");
    phone.answer(&mut office, &first[1], 200);
    let mut documents = vec![first[1].clone()];
    let mut tag = None;
    for (one, two) in
        [("trying", ""), ("early", "early"), ("confirmed", "early"), ("confirmed", "terminated"), ("terminated", "")]
    {
        let dialogs = dialog("c1", one) + &if two.is_empty() { String::new() } else { dialog("c2", two) };
        documents.push(step(&mut office, &phone, &mut tag, &dialogs));
        let mut table = Table::default();
        documents.iter().for_each(|document| table.take(document));
        let mut shuffled = Table::default();
        documents.iter().rev().for_each(|document| shuffled.take(document));
        assert_eq!(table.rows, shuffled.rows);
        let mut truth = BTreeMap::from([("c1".to_string(), one.to_string())]);
        if !two.is_empty() {
            truth.insert("c2".into(), two.into());
        }
        assert_eq!(table.rows, truth);
    }
}

#[test]
fn twenty_changes_in_a_second_cost_a_notify_per_round_trip_and_the_last_is_the_truth() {
    let mut office = Office::open();
    let phone = office.settled("1001", "dialog");
    let (mut under_way, mut told) = (Vec::new(), 0);
    for i in 0..20 {
        under_way.extend(office.set("1001", if i % 2 == 0 { Early } else { Confirmed }));
        assert!(under_way.len() <= 1);
        assert_eq!(office.pass_quietly(50), []);
        if i % 8 == 7 {
            // A round trip of 400 milliseconds.
            let answered: Sent = under_way.remove(0);
            told += 1;
            under_way.extend(phone.answer(&mut office, &answered, 200));
        }
    }
    assert_eq!((told, under_way.len()), (2, 1));
    assert_eq!(under_way[0].states(), ["confirmed"]);
    // A watcher that wants fewer NOTIFYs asks for that (RFC 6446).
    let mut office = Office::open();
    let calm = office.settled("1001", "dialog;max-rate=1");
    office.pass(1_000);
    let mut sent = Vec::new();
    for i in 0..20 {
        for notify in
            office.set("1001", if i % 2 == 0 { Early } else { Terminated }).into_iter().chain(office.pass_quietly(50))
        {
            calm.answer(&mut office, &notify, 200);
            sent.push(notify);
        }
    }
    sent.extend(office.pass_quietly(1_300));
    assert!(sent.len() <= 2, "{}", sent.len());
    assert_eq!(sent.last().unwrap().states(), ["terminated"]);
}

#[test]
fn who_watches_himself_sees_all_that_is_known() {
    let mut office = Office::open();
    let party = "<remote><identity display=\"Eve\">sip:eve@acme.test</identity></remote>";
    let body =
        format!("<dialog id=\"a\" call-id=\"c\" local-tag=\"l\" remote-tag=\"r\"><state>early</state>{party}</dialog>");
    office.publish("1002", None, &body);
    let (_, sent) = office.watch("1002", "dialog");
    for detail in ["call-id=\"c\"", "local-tag=\"l\"", "remote-tag=\"r\"", "display=\"Eve\"", "sip:eve@acme.test"] {
        assert!(sent[1].body().contains(detail), "{detail} in {}", sent[1].body());
    }
}

#[test]
fn what_a_publisher_adds_in_other_namespaces_is_left_out_and_the_document_stays_whole() {
    let told = shown(
        "<dialog xmlns:q=\"urn:q\" id=\"a\" q:x=\"1\"><q:ext><q:state>confirmed</q:state></q:ext><state>early</state></dialog>\
         <q:more xmlns:q=\"urn:q\"/>",
    );
    assert_eq!(told.dialogs(), [("a".to_string(), "early".to_string())]);
    assert!(!told.body().contains("q:") && !told.body().contains("urn:q"), "{}", told.body());
}

#[test]
fn shared_line_parameters_change_nothing() {
    let mut office = Office::open();
    for event in ["dialog;shared", "dialog;sla", "dialog;ma", "dialog;sla;include-session-description"] {
        let (_, sent) = office.watch("1001", event);
        assert_eq!((sent[0].status(), sent[1].header("Event"), sent[1].header("Content-Type")), (200, "dialog", TYPE));
    }
}

//! Parsing PIDF as publishers write it, and writing it as clients understand it.

use super::*;
use crate::presence::state::{CallReport, Party};

fn read(body: &str) -> Result<PersonState, BodyError> {
    match Pidf.read(body.as_bytes())? {
        PublishedState::PersonState(person) => Ok(person),
        other => panic!("{other:?}"),
    }
}

fn document(inner: &str) -> String {
    let (pidf, dm, rpid) = (xml::PIDF_NS, xml::DATA_MODEL_NS, xml::RPID_NS);
    format!(
        "<presence xmlns='{pidf}' xmlns:dm='{dm}' xmlns:rpid='{rpid}' xmlns:q='urn:q' xmlns:p='{pidf}'>{inner}</presence>"
    )
}

#[track_caller]
fn person(inner: &str) -> PersonState {
    read(&document(inner)).unwrap()
}

fn activities(inner: &str) -> Vec<String> {
    person(inner).activities.into_iter().map(Into::into).collect()
}

fn call(state: CallState) -> CallReport {
    let (local, remote) = (Party::default(), Party::default());
    let none = None;
    CallReport {
        id: "1".into(),
        call_id: none.clone(),
        local_tag: none.clone(),
        remote_tag: none,
        direction: None,
        state,
        local,
        remote,
        held: None,
    }
}

fn written(picture: &ComposedState<'_>) -> String {
    let mut tail = String::new();
    Pidf.write_tail(picture, &mut tail);
    Pidf.body(9, "sip:lamp@d.example", &tail)
}

/// State as a watcher sees it: basic, the note of the tuple, the activities.
fn shown(calls: &[CallState], manual: Option<CallState>, person: &PersonState) -> (String, String, Vec<String>) {
    let calls: Vec<_> = calls.iter().map(|&state| call(state)).collect();
    let picture = ComposedState {
        uri: "sip:own@d.example",
        calls: calls.iter().collect(),
        manual,
        person: person.clone(),
        ..ComposedState::default()
    };
    let body = written(&picture);
    let between = |start: &str, end: &str| {
        let rest = body.split_once(start).unwrap_or_else(|| panic!("no {start} in {body}")).1;
        rest.split_once(end).unwrap().0.to_owned()
    };
    let activities = read(&body).unwrap().activities.into_iter().map(Into::into).collect();
    (between("<basic>", "</basic>"), between("</contact><note>", "</note>"), activities)
}

fn published(basic: Option<Basic>, note: Option<&str>, activities: &[&str]) -> PersonState {
    PersonState { basic, note: note.map(Into::into), activities: activities.iter().map(|&a| a.into()).collect() }
}

// Reading.

#[test]
fn basic_is_read_in_any_case_and_with_blanks() {
    let basic = |text: &str| person(&format!("<tuple id='t'><status><basic>{text}</basic></status></tuple>")).basic;
    assert_eq!(basic("open"), Some(Basic::Open));
    assert_eq!(basic(" \n Closed "), Some(Basic::Closed));
    assert_eq!(basic(""), None);
    let odd = document("<tuple id='t'><status><basic>ajar</basic></status></tuple>");
    let expected = BodyError::Malformed { what: WHAT, why: "a basic status is neither open nor closed" };
    assert_eq!(read(&odd).unwrap_err(), expected);
}

#[test]
fn open_if_any_tuple_is_closed_if_all_are_none_where_no_tuple_has_a_status() {
    let tuples = |words: &[&str]| {
        let tuple = |word: &&str| format!("<tuple id='t'><status><basic>{word}</basic></status></tuple>");
        person(&words.iter().map(tuple).collect::<String>()).basic
    };
    assert_eq!(tuples(&["closed", "open", "closed"]), Some(Basic::Open));
    assert_eq!(tuples(&["open", "closed"]), Some(Basic::Open));
    assert_eq!(tuples(&["closed", "closed"]), Some(Basic::Closed));
    assert_eq!(person("<tuple id='t'><status/></tuple><tuple id='u'/>").basic, None);
    assert_eq!(person("").basic, None);
}

#[test]
fn asterisk_puts_the_note_first_and_gives_the_person_no_id() {
    let found = person(
        "<note>Ready</note><tuple id='1001'><contact>sip:1001@d</contact><status><basic>open</basic>\
        </status></tuple><dm:person/>",
    );
    assert_eq!(found, published(Some(Basic::Open), Some("Ready"), &[]));
}

#[test]
fn baresip_leaves_the_activities_empty_and_twinkle_has_none() {
    let empty = person(
        "<tuple id='t4109'><status><basic>open</basic></status><contact>sip:b@d</contact></tuple>\
        <dm:person id='p4159'><rpid:activities/></dm:person>",
    );
    assert_eq!(empty, published(Some(Basic::Open), None, &[]));
    let minimal = person("<tuple id='x'><status><basic>closed</basic></status></tuple>");
    assert_eq!(minimal, published(Some(Basic::Closed), None, &[]));
}

#[test]
fn any_prefix_will_do() {
    let body = format!(
        "<p:presence xmlns:p='{}' xmlns:d='{}' xmlns:r='{}' entity='pres:a@d'><p:tuple id='t'><p:status><p:basic>open</p:basic>\
         </p:status></p:tuple><d:person id='p'><r:activities><r:away/></r:activities><d:note>Out</d:note></d:person></p:presence>",
        xml::PIDF_NS,
        xml::DATA_MODEL_NS,
        xml::RPID_NS
    );
    assert_eq!(read(&body).unwrap(), published(Some(Basic::Open), Some("Out"), &["away"]));
}

#[test]
fn another_root_or_namespace_is_not_pidf() {
    for body in
        ["<presence/>".to_owned(), format!("<person xmlns='{}'/>", xml::PIDF_NS), "<presence xmlns='q'/>".into()]
    {
        let why = "its root element is not presence in the namespace of RFC 3863";
        assert_eq!(read(&body).unwrap_err(), BodyError::Malformed { what: WHAT, why });
    }
}

#[test]
fn the_note_of_the_person_comes_before_that_of_a_tuple_and_that_of_the_document() {
    let (d, t, p) = (
        "<note>D</note>",
        "<tuple id='t'><note/><note>T</note></tuple>",
        "<dm:person><dm:note>P</dm:note></dm:person>",
    );
    let note = |inner: &[&str]| person(&inner.concat()).note.unwrap_or_default();
    assert_eq!(&*note(&[d, t, p]), "P");
    assert_eq!(&*note(&[d, t]), "T");
    assert_eq!(&*note(&["<note> </note>", d, "<note>E</note>"]), "D");
    assert_eq!(&*note(&[p, p, "<dm:person><dm:note>Q</dm:note></dm:person>"]), "P");
    assert_eq!(&*note(&["<q:note>Q</q:note>"]), "");
}

#[test]
fn activities_are_found_wherever_the_person_is() {
    let rpid = "<rpid:activities><rpid:on-the-phone/><q:fishing/><rpid:note>n</rpid:note></rpid:activities>";
    assert_eq!(activities(&format!("<dm:person id='p'>{rpid}</dm:person>")), ["on-the-phone"]);
    assert_eq!(activities(&format!("<tuple id='t'>{rpid}<status/></tuple>")), ["on-the-phone"]);
    assert_eq!(activities(&format!("<tuple id='t'><status>{rpid}</status></tuple>")), ["on-the-phone"]);
    assert_eq!(activities(rpid), ["on-the-phone"]);
    assert!(activities(&format!("<q:person>{rpid}</q:person>")).is_empty());
}

#[test]
fn each_activity_is_kept_once_in_document_order_and_at_most_16() {
    let list = |names: &[&str]| {
        let list: String = names.iter().map(|name| format!("<rpid:{name}/>")).collect();
        activities(&format!("<dm:person><rpid:activities>{list}</rpid:activities></dm:person>"))
    };
    assert_eq!(list(&["busy", "away", "busy"]), ["busy", "away"]);
    assert!(list(&["Away", "in_awe", "x1", "a.b", &"x".repeat(33)]).is_empty());
    let many: Vec<String> = (b'a'..=b'z').map(|c| (c as char).to_string()).collect();
    let many: Vec<&str> = many.iter().map(|name| &**name).collect();
    assert_eq!(list(&many), many[..MAX_ACTIVITIES]);
    assert_eq!(activities("<rpid:activities><rpid:other>gone fishing</rpid:other></rpid:activities>"), ["other"]);
}

#[test]
fn an_extension_that_holds_what_must_be_understood_and_is_not_does_not_count() {
    let rpid = "<rpid:activities><rpid:away/></rpid:activities><dm:note>N</dm:note>";
    let with = |element: &str| person(&format!("<dm:person>{rpid}{element}</dm:person>"));
    assert_eq!(with("<q:x p:mustUnderstand='1'/>"), PersonState::default());
    assert_eq!(with("<q:x p:mustUnderstand='true'/>"), PersonState::default());
    for harmless in ["<q:x/>", "<q:x p:mustUnderstand='0'/>", "<q:x q:mustUnderstand='1'/>"] {
        assert_eq!(with(harmless), published(None, Some("N"), &["away"]), "{harmless}");
    }
    assert_eq!(person("<q:x p:mustUnderstand='1'/><note>N</note>").note.as_deref(), Some("N"));
}

#[test]
fn a_body_cut_at_any_byte_is_refused() {
    let person = published(Some(Basic::Open), Some("ü & <>"), &["away"]);
    let whole = written(&ComposedState { uri: "sip:a@d", person, ..ComposedState::default() });
    let whole = whole.trim_end();
    assert!(Pidf.read(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert!(Pidf.read(&whole.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

// Writing.

#[test]
fn our_document_has_the_shape_that_every_client_reads() {
    let person = published(Some(Basic::Closed), Some("Out <&> \u{1}\"home\""), &["away"]);
    let body = written(&ComposedState { uri: "sip:a&b@d", person, ..ComposedState::default() });
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
        xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
        entity=\"sip:lamp@d.example\">\
        \n<tuple id=\"t1\"><status><basic>closed</basic></status><contact>sip:a&amp;b@d</contact>\
        <note>Out &lt;&amp;&gt; &quot;home&quot;</note></tuple>\
        \n<dm:person id=\"p1\"><rpid:activities><rpid:away/></rpid:activities>\
        <dm:note>Out &lt;&amp;&gt; &quot;home&quot;</dm:note></dm:person>\n</presence>\n";
    assert_eq!(body, expected);
}

#[test]
fn without_a_call_the_published_person_is_shown_and_without_that_an_open_one() {
    let open = |note: &str| ("open".to_owned(), note.to_owned(), Vec::<String>::new());
    assert_eq!(shown(&[], None, &PersonState::default()), open("Available"));
    assert_eq!(shown(&[], None, &published(Some(Basic::Open), Some("Here"), &[])), open("Here"));
    let closed = ("closed".to_owned(), "Offline".to_owned(), vec!["away".to_owned()]);
    assert_eq!(shown(&[], None, &published(Some(Basic::Closed), None, &["away"])), closed);
}

#[test]
fn talking_wins_over_ringing_and_ringing_over_dialling() {
    use CallState::*;
    let show = |calls: &[CallState], manual| {
        let (basic, note, activities) = shown(calls, manual, &published(Some(Basic::Closed), Some("Gone"), &[]));
        assert_eq!(basic, "open", "a live call opens");
        (note, activities.concat())
    };
    let phone = ("On the phone".to_owned(), "on-the-phone".to_owned());
    let ringing = ("Ringing".to_owned(), "busy".to_owned());
    assert_eq!(show(&[Early, Confirmed], None), phone);
    assert_eq!(show(&[Early], Some(Confirmed)), phone);
    assert_eq!(show(&[Confirmed], Some(Early)), phone);
    assert_eq!(show(&[Early, Proceeding, Trying], None), ringing);
    assert_eq!(show(&[Trying], Some(Early)), ringing);
    assert_eq!(show(&[Proceeding], None), phone);
    assert_eq!(show(&[], Some(Trying)), phone);
}

#[test]
fn only_a_call_that_comes_in_rings() {
    let early = |direction| {
        let call = CallReport { direction, ..call(CallState::Early) };
        let mut tail = String::new();
        Pidf.write_tail(
            &ComposedState { uri: "sip:1001@acme.test", calls: vec![&call], ..ComposedState::default() },
            &mut tail,
        );
        (tail.contains("<note>Ringing</note>"), tail.contains("<note>On the phone</note>"))
    };
    assert_eq!(early(Some(Direction::Recipient)), (true, false));
    assert_eq!(early(None), (true, false));
    assert_eq!(early(Some(Direction::Initiator)), (false, true));
}

#[test]
fn an_ended_call_is_no_call() {
    let (basic, note, activities) = shown(&[CallState::Terminated], None, &published(Some(Basic::Closed), None, &[]));
    assert_eq!((&*basic, &*note, activities.len()), ("closed", "Offline", 0));
}

#[test]
fn activities_are_the_calls_and_the_published_each_once_the_calls_first() {
    let person = published(None, Some("N"), &["away", "on-the-phone", "meeting"]);
    let found = shown(&[CallState::Confirmed], None, &person).2;
    assert_eq!(found, ["on-the-phone", "away", "meeting"]);
    assert_eq!(shown(&[], None, &published(None, None, &["unknown"])).2, ["unknown"]);
    assert_eq!(shown(&[], None, &published(None, None, &["unknown", "away"])).2, ["away"]);
    assert!(shown(&[], None, &published(None, None, &["x/><evil", "", "-"])).2.is_empty());
}

#[test]
fn the_published_note_stays_with_the_person_while_a_call_has_that_of_the_tuple() {
    let ringing = call(CallState::Early);
    let person = published(None, Some("Back at 5"), &[]);
    let body = written(&ComposedState { uri: "sip:a@d", calls: vec![&ringing], person, ..ComposedState::default() });
    assert!(body.contains("<note>Ringing</note></tuple>"), "{body}");
    assert!(body.contains("<dm:note>Back at 5</dm:note></dm:person>"), "{body}");
}

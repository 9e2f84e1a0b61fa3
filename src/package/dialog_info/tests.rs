//! Parsing dialog-info in every dialect of publishers, and writing it as phones need it.

use super::*;

fn read(body: &str) -> Result<PublishedCalls, BodyError> {
    match DialogInfo.read(body.as_bytes())? {
        PublishedState::Calls(calls) => Ok(calls),
        other => panic!("{other:?}"),
    }
}

fn document(attributes: &str, inner: &str) -> String {
    format!("<?xml version=\"1.0\"?><dialog-info xmlns=\"{}\" {attributes}>{inner}</dialog-info>", xml::DIALOG_INFO_NS)
}

#[track_caller]
fn one(inner: &str) -> CallReport {
    let mut calls = read(&document("version='0' state='full' entity='sip:a@d'", inner)).unwrap().calls;
    assert_eq!(calls.len(), 1);
    calls.remove(0)
}

#[track_caller]
fn refused(body: &str) -> &'static str {
    match read(body) {
        Err(BodyError::Malformed { what: WHAT, why }) => why,
        other => panic!("{body:?} gave {other:?}"),
    }
}

fn some(text: &str) -> Option<Box<str>> {
    Some(text.into())
}

fn call(id: &str, state: CallState) -> CallReport {
    CallReport {
        id: id.into(),
        call_id: None,
        local_tag: None,
        remote_tag: None,
        direction: None,
        state,
        local: Party::default(),
        remote: Party::default(),
        held: None,
    }
}

fn written(picture: &ComposedState<'_>) -> String {
    let mut tail = String::new();
    DialogInfo.write_tail(picture, &mut tail);
    DialogInfo.body(7, "sip:lamp@d.example", &tail)
}

fn picture<'a>(calls: &[&'a CallReport], manual: Option<CallState>) -> ComposedState<'a> {
    ComposedState { uri: "sip:own@d.example", calls: calls.to_vec(), manual, ..ComposedState::default() }
}

/// Ids and states in document order.
fn listed(picture: &ComposedState<'_>) -> Vec<(String, CallState)> {
    read(&written(picture)).unwrap().calls.into_iter().map(|call| (call.id.into(), call.state)).collect()
}

// Reading.

#[test]
fn a_call_is_read_with_all_that_rfc_4235_section_4_1_gives_it() {
    let inner = "<dialog id='as7d' call-id='a84b4c@host' local-tag='1928' remote-tag='456' direction='initiator'>\
        <state event='replaced' code='200'>early</state><duration>5</duration>\
        <local><identity display='Alice &amp; Co'>sip:alice@d</identity><target uri='sip:alice@10.0.0.1'>\
        <param pname='isfocus' pval='true'/></target><session-description type='application/sdp'>v=0</session-description>\
        <cseq>3</cseq></local>\
        <remote><identity display='Bob'>sip:bob@d</identity><target uri='sip:bob@10.0.0.2'/></remote></dialog>";
    let expected = CallReport {
        id: "as7d".into(),
        call_id: some("a84b4c@host"),
        local_tag: some("1928"),
        remote_tag: some("456"),
        direction: Some(Direction::Initiator),
        state: CallState::Early,
        local: Party { identity: some("sip:alice@d"), display: some("Alice & Co"), target: some("sip:alice@10.0.0.1") },
        remote: Party { identity: some("sip:bob@d"), display: some("Bob"), target: some("sip:bob@10.0.0.2") },
        held: None,
    };
    assert_eq!(one(inner), expected);
}

#[test]
fn kamailio_puts_remote_before_local_and_writes_trying_with_a_capital() {
    let call = one("<dialog id='id1' call-id='c1' direction='initiator'>\n<remote><identity>sip:200@d</identity>\
        <target uri='sip:200@d'/></remote><local><identity>sip:100@d</identity><target uri='sip:100@d'/></local>\
        <state> Trying\n</state></dialog>");
    assert_eq!(call.state, CallState::Trying);
    assert_eq!(call.local.identity, some("sip:100@d"));
    assert_eq!(call.remote.target, some("sip:200@d"));
    assert_eq!((call.local_tag, call.remote_tag), (None, None));
}

#[test]
fn asterisk_names_the_extension_sends_no_call_id_and_holds_with_pvalue() {
    let ringing = one("<dialog id='1001' direction='recipient'><local><identity>sip:1001@d</identity>\
        <target uri='sip:1001@d'/></local><state>early</state></dialog>");
    assert_eq!((&*ringing.id, ringing.call_id), ("1001", None));
    assert_eq!(ringing.direction, Some(Direction::Recipient));
    assert_eq!(ringing.remote, Party::default());
    let held = |param: &str| {
        one(&format!(
            "<dialog id='1001'><state>confirmed</state><local><target uri='sip:1001@d'>{param}</target></local>\
            </dialog>"
        ))
        .held
    };
    assert_eq!(held("<param pname='+sip.rendering' pvalue='no'/>"), Some(true));
    assert_eq!(held("<param pname='+sip.rendering' pval='no'/>"), Some(true));
    assert_eq!(held("<param pname='a' pval='b'/><param pname='+SIP.rendering' pval='No'/>"), Some(true));
    assert_eq!(held("<param pname='+sip.rendering' pval='Yes'/>"), Some(false));
    for silent in ["<param pname='+sip.rendering' pval='unknown'/>", "<param pname='+sip.rendering'/>", ""] {
        assert_eq!(held(silent), None, "{silent}");
    }
}

#[test]
fn hold_is_what_the_local_side_says() {
    let remote = "<dialog id='1'><state>confirmed</state><remote><target uri='sip:b@d'>\
        <param pname='+sip.rendering' pval='no'/></target></remote></dialog>";
    assert_eq!(one(remote).held, None);
}

#[test]
fn full_partial_or_nothing_said_which_is_full() {
    assert!(read(&document("version='0000000' state='full' entity='x'", "")).unwrap().full);
    assert!(!read(&document("state='partial'", "")).unwrap().full);
    assert!(read(&document("", "")).unwrap().full);
    assert_eq!(refused(&document("state='half'", "")), "its state is neither full nor partial");
}

#[test]
fn any_prefix_will_do_and_foreign_elements_are_ignored() {
    let body = format!(
        "<di:dialog-info xmlns:di='{}' xmlns:q='urn:q'><q:dialog id='no'><q:state>early</q:state></q:dialog>\
         <di:dialog id='yes'><q:state>early</q:state><q:any><di:state>early</di:state></q:any>\
         <di:state>confirmed</di:state></di:dialog></di:dialog-info>",
        xml::DIALOG_INFO_NS
    );
    assert_eq!(read(&body).unwrap().calls, [call("yes", CallState::Confirmed)]);
}

#[test]
fn another_root_or_namespace_is_not_dialog_info() {
    let not_ours = "its root element is not dialog-info in the namespace of RFC 4235";
    assert_eq!(refused("<dialog-info/>"), not_ours);
    assert_eq!(refused("<dialog-info xmlns='urn:other'/>"), not_ours);
    assert_eq!(refused(&format!("<dialog xmlns='{}'/>", xml::DIALOG_INFO_NS)), not_ours);
    assert_eq!(refused(&format!("<presence xmlns='{}'/>", xml::PIDF_NS)), not_ours);
}

#[test]
fn a_dialog_without_id_is_known_by_its_call_id_or_refused() {
    assert_eq!(&*one("<dialog call-id='c1'><state>early</state></dialog>").id, "c1");
    assert_eq!(&*one("<dialog id=' ' call-id='c1'><state>early</state></dialog>").id, "c1");
    let anonymous = document("", "<dialog id=''><state>early</state></dialog>");
    assert_eq!(refused(&anonymous), "a dialog has neither id nor call-id");
}

#[test]
fn a_dialog_has_a_known_state() {
    assert_eq!(refused(&document("", "<dialog id='1'/>")), "a dialog has no state");
    for state in ["", "ringing", "early early"] {
        let body = document("", &format!("<dialog id='1'><state>{state}</state></dialog>"));
        assert_eq!(refused(&body), "a dialog has a state that RFC 4235 does not know");
    }
    for (name, state) in STATES {
        assert_eq!(one(&format!("<dialog id='1'><state>{}</state></dialog>", name.to_uppercase())).state, state);
        assert_eq!(name_of(state), name);
    }
}

#[test]
fn of_two_dialogs_with_one_id_the_last_one_counts() {
    let inner = "<dialog id='1'><state>early</state></dialog><dialog id='2'><state>early</state></dialog>\
        <dialog id='1'><state>confirmed</state></dialog>";
    let calls = read(&document("", inner)).unwrap().calls;
    assert_eq!(calls, [call("2", CallState::Early), call("1", CallState::Confirmed)]);
}

#[test]
fn empty_values_are_none_and_an_unknown_direction_too() {
    let inner = "<dialog id='1' call-id='' local-tag=' ' remote-tag='' direction='sideways'><state>early</state>\
        <local><identity display=''> </identity><target uri=''/></local><remote/></dialog>";
    assert_eq!(one(inner), call("1", CallState::Early));
}

#[test]
fn a_document_may_list_more_calls_than_are_shown() {
    let dialogs =
        |n: usize| (0..n).map(|i| format!("<dialog id='{i}'><state>early</state></dialog>")).collect::<String>();
    for count in [65, 1_400] {
        assert_eq!(read(&document("", &dialogs(count))).unwrap().calls.len(), count);
    }
}

#[test]
fn a_long_session_description_does_no_harm_but_a_long_identity_is_refused() {
    let long = "x".repeat(2000);
    let with =
        |element: &str| document("", &format!("<dialog id='1'><state>early</state><local>{element}</local></dialog>"));
    assert!(read(&with(&format!("<session-description>{long}</session-description>"))).is_ok());
    assert!(matches!(
        read(&with(&format!("<identity>{long}</identity>"))),
        Err(BodyError::TooMuch { limit: 1024, .. })
    ));
}

#[test]
fn a_body_cut_at_any_byte_is_refused() {
    let whole = written(&picture(&[&call("ü", CallState::Early)], Some(CallState::Confirmed)));
    let whole = whole.trim_end();
    assert!(DialogInfo.read(whole.as_bytes()).is_ok());
    for end in 0..whole.len() {
        assert!(DialogInfo.read(&whole.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

// Writing.

#[test]
fn the_head_has_version_state_and_entity_and_the_tail_follows() {
    let body = DialogInfo.body(4_294_967_295, "sip:a&b@d", " TAIL");
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<dialog-info \
        xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"4294967295\" state=\"full\" entity=\"sip:a&amp;b@d\">";
    assert_eq!(body, format!("{head} TAIL"));
}

#[test]
fn an_idle_presentity_has_exactly_one_dialog_that_is_terminated() {
    let own = Party { identity: some("sip:own@d.example"), display: None, target: some("sip:own@d.example") };
    let direction = Some(Direction::Recipient);
    let idle = CallReport { direction, local: own.clone(), remote: own, ..call("idle", CallState::Terminated) };
    let body = written(&picture(&[], None));
    assert_eq!(read(&body).unwrap(), PublishedCalls { full: true, calls: vec![idle] });
    let tail = "\n<dialog id=\"idle\" direction=\"recipient\">\n<state>terminated</state>\
        \n<local><identity>sip:own@d.example</identity><target uri=\"sip:own@d.example\"/></local>\
        \n<remote><identity>sip:own@d.example</identity><target uri=\"sip:own@d.example\"/></remote>\
        \n</dialog>\n</dialog-info>\n";
    assert!(body.ends_with(tail), "{body}");
}

#[test]
fn a_call_is_written_with_all_that_is_known_and_nothing_that_is_not() {
    let full = CallReport {
        id: "i\"1".into(),
        call_id: some("a@b\"c"),
        local_tag: some("<l>"),
        remote_tag: some("r&r"),
        direction: Some(Direction::Initiator),
        state: CallState::Confirmed,
        local: Party { identity: some("sip:a@d"), display: some("A \"<]]>&\u{1}"), target: some("sip:a@1") },
        remote: Party { identity: some("sip:b@d"), display: None, target: some("sip:b@2?x=1&y=2") },
        held: Some(true),
    };
    let body = written(&picture(&[&full], None));
    let dialog = "\n<dialog id=\"i&quot;1\" call-id=\"a@b&quot;c\" local-tag=\"&lt;l&gt;\" remote-tag=\"r&amp;r\" \
        direction=\"initiator\">\n<state>confirmed</state>\
        \n<local><identity display=\"A &quot;&lt;]]&gt;&amp;\">sip:a@d</identity><target uri=\"sip:a@1\">\
        <param pname=\"+sip.rendering\" pval=\"no\"/></target></local>\
        \n<remote><identity>sip:b@d</identity><target uri=\"sip:b@2?x=1&amp;y=2\"/></remote>\n</dialog>";
    assert!(body.contains(dialog), "{body}");
    let half = written(&picture(&[&call("1", CallState::Trying)], None));
    assert!(half.contains("<dialog id=\"1\" direction=\"recipient\">"), "{half}");
}

#[test]
fn local_and_remote_are_always_whole() {
    let party = |identity: Option<&str>, target: Option<&str>| Party {
        identity: identity.map(Into::into),
        display: None,
        target: target.map(Into::into),
    };
    let own = "sip:own@d.example";
    for (given, identity, target) in [
        (party(None, None), own, own),
        (party(Some("i"), None), "i", "i"),
        (party(None, Some("t")), "t", "t"),
        (party(Some("i"), Some("t")), "i", "t"),
    ] {
        let call = CallReport { local: given.clone(), remote: given, ..call("1", CallState::Early) };
        let read = read(&written(&picture(&[&call], None))).unwrap().calls.remove(0);
        let expected = party(Some(identity), Some(target));
        assert_eq!((read.local, read.remote), (expected.clone(), expected));
    }
}

#[test]
fn calls_come_in_the_order_of_the_picture_with_those_that_ended_last() {
    let (a, b, c) = (call("a", CallState::Early), call("b", CallState::Trying), call("c", CallState::Terminated));
    let ended = ("c".to_owned(), CallState::Terminated);
    let expected = [("a".to_owned(), CallState::Early), ("b".to_owned(), CallState::Trying), ended.clone()];
    assert_eq!(listed(&picture(&[&a, &b, &c], None)), expected);
    assert_eq!(listed(&picture(&[&c], None)), std::slice::from_ref(&ended));
    assert_eq!(listed(&picture(&[&c], Some(CallState::Early))), [("manual".to_owned(), CallState::Early), ended]);
}

#[test]
fn the_manual_state_stands_where_it_matters_to_a_lamp_after_calls_of_its_rank() {
    use CallState::*;
    let all = [call("e", Early), call("c", Confirmed), call("p", Proceeding), call("t", Trying)];
    let place = |manual, calls: &[CallReport]| {
        let found = listed(&picture(&calls.iter().collect::<Vec<_>>(), Some(manual)));
        assert_eq!(found.len(), calls.len() + 1);
        found.iter().position(|(id, state)| id == "manual" && *state == manual).unwrap()
    };
    for (manual, expected) in [(Early, 1), (Confirmed, 2), (Proceeding, 3), (Trying, 4)] {
        assert_eq!(place(manual, &all), expected, "{manual:?}");
        assert_eq!(place(manual, &[]), 0);
    }
    assert_eq!(place(Early, &all[1..]), 0);
}

#[test]
fn the_manual_dialog_is_no_call_that_a_phone_could_pick_up() {
    let body = written(&picture(&[], Some(CallState::Early)));
    assert!(body.contains("<dialog id=\"manual\" direction=\"recipient\">\n<state>early</state>"), "{body}");
    assert_eq!(body.matches("<dialog ").count(), 1);
    assert_eq!(body.matches("sip:own@d.example").count(), 4);
}

#[test]
fn our_own_ids_give_way_to_published_ones() {
    let (a, b) = (call("manual", CallState::Early), call("manual-1", CallState::Early));
    let ids: Vec<_> = listed(&picture(&[&a, &b], Some(CallState::Early))).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["manual", "manual-1", "manual-2"]);
}

#[test]
fn the_same_picture_gives_the_same_bytes() {
    let (a, b) = (call("a", CallState::Early), call("b", CallState::Confirmed));
    let picture = picture(&[&a, &b], Some(CallState::Confirmed));
    assert_eq!(written(&picture), written(&picture.clone()));
}

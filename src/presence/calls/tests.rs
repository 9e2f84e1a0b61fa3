use super::*;
use crate::presence::state::Direction;

const P1: PublicationNo = PublicationNo(1);
const P2: PublicationNo = PublicationNo(2);

fn call(id: &str, tags: (&str, &str), state: CallState) -> CallReport {
    let some = |text: &str| (!text.is_empty()).then(|| text.into());
    CallReport {
        id: id.into(),
        call_id: some(id.strip_prefix("noid").map_or(id, |_| "")),
        local_tag: some(tags.0),
        remote_tag: some(tags.1),
        direction: Some(Direction::Recipient),
        state,
        local: Party::default(),
        remote: Party::default(),
        held: None,
    }
}

fn full(calls: &[CallReport]) -> PublishedCalls {
    PublishedCalls { full: true, calls: calls.to_vec() }
}

fn states(calls: &Calls) -> Vec<(&str, CallState)> {
    calls.ranked().iter().map(|c| (&*c.id, c.state)).collect()
}

use CallState::*;

#[test]
fn a_late_early_does_not_revive_a_terminated_call() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Early)]));
    calls.apply(Tick(1), P1, &full(&[call("c", ("", ""), Terminated)]));
    assert!(calls.is_quiet());
    calls.apply(Tick(60_000), P2, &full(&[call("c", ("a", "b"), Early)]));
    assert!(calls.is_quiet());
    calls.apply(Tick(1 + TOMBSTONE_LASTS), P2, &full(&[call("c", ("a", "b"), Early)]));
    assert_eq!(states(&calls), [("c", Early)]);
}

#[test]
fn a_call_does_not_go_back() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Confirmed)]));
    calls.apply(Tick(1), P2, &full(&[call("c", ("a", "b"), Early)]));
    assert_eq!(states(&calls), [("c", Confirmed)]);
}

#[test]
fn a_call_lives_while_any_publication_holds_it_and_ends_when_one_says_so() {
    let mut calls = Calls::default();
    for p in [P1, P2] {
        calls.apply(Tick(0), p, &full(&[call("c", ("a", "b"), Confirmed)]));
    }
    calls.release(P1);
    assert_eq!(states(&calls), [("c", Confirmed)]);
    calls.apply(Tick(1), P1, &full(&[call("c", ("a", "b"), Terminated)]));
    assert!(calls.is_quiet());
}

#[test]
fn a_full_report_drops_what_it_does_not_list_and_a_partial_one_keeps_it() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c1", ("a", "b"), Confirmed)]));
    calls.apply(Tick(0), P1, &PublishedCalls { full: false, calls: vec![call("c2", ("a", "b"), Early)] });
    assert_eq!(states(&calls), [("c2", Early), ("c1", Confirmed)]);
    calls.apply(Tick(0), P1, &full(&[call("c2", ("a", "b"), Confirmed)]));
    assert_eq!(states(&calls), [("c2", Confirmed)]);
    calls.apply(Tick(0), P1, &full(&[]));
    assert!(calls.is_quiet());
}

#[test]
fn the_branches_of_a_forked_call_end_apart() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "x"), Early), call("c", ("a", "y"), Early)]));
    assert_eq!(states(&calls), [("c", Early), ("c-2", Early)]);
    calls.apply(Tick(0), P1, &PublishedCalls { full: false, calls: vec![call("c", ("a", "x"), Terminated)] });
    assert_eq!(states(&calls), [("c-2", Early)]);
}

#[test]
fn asterisk_s_dialog_without_call_id_goes_up_and_down_on_one_entity_tag() {
    let mut calls = Calls::default();
    for (state, shown) in [(Early, 1), (Terminated, 0), (Early, 1), (Confirmed, 1), (Early, 1), (Terminated, 0)] {
        calls.apply(Tick(0), P1, &full(&[call("noid-1001", ("", ""), state)]));
        assert_eq!(calls.ranked().len(), shown);
        assert!(calls.ranked().iter().all(|c| c.state == state));
    }
}

#[test]
fn what_a_report_leaves_out_stays_as_it_was() {
    let mut calls = Calls::default();
    let mut early = call("c", ("a", "b"), Early);
    early.remote.identity = Some("sip:bob@acme.test".into());
    calls.apply(Tick(0), P1, &full(&[early]));
    calls.apply(Tick(0), P1, &full(&[call("c", ("", ""), Confirmed)]));
    let shown = calls.ranked()[0].clone();
    assert_eq!((shown.state, shown.remote_tag.as_deref()), (Confirmed, Some("b")));
    assert_eq!(shown.remote.identity.as_deref(), Some("sip:bob@acme.test"));
}

#[test]
fn the_end_of_a_live_call_is_shown_once_and_that_of_an_unknown_one_never() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Early)]));
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Terminated), call("d", ("a", "b"), Terminated)]));
    let parting: Vec<_> = calls.parting().map(|c| (&*c.id, c.state)).collect();
    assert_eq!(parting, [("c", Terminated)]);
    calls.parted();
    assert_eq!(calls.parting().count(), 0);
    calls.apply(Tick(0), P1, &full(&[call("e", ("a", "b"), Early)]));
    calls.release(P1);
    assert_eq!(calls.parting().count(), 1);
    calls.reset();
    assert_eq!(calls.parting().count(), 0);
}

#[test]
fn the_ids_of_what_is_no_call_are_not_given_to_calls() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("manual", ("a", "b"), Early)]));
    assert_eq!(states(&calls), [("manual-2", Early)]);
}

#[test]
fn a_call_that_rings_for_too_long_is_let_go_and_one_that_talks_is_not() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("r", ("a", "b"), Early), call("t", ("c", "d"), Confirmed)]));
    assert_eq!(calls.next_deadline(), Some(Tick(600_000)));
    calls.pass_time(Tick(599_999));
    let partial = PublishedCalls { full: false, calls: vec![call("r", ("a", "b"), Early)] };
    calls.apply(Tick(599_999), P1, &partial);
    calls.pass_time(Tick(1_199_998));
    assert_eq!(states(&calls).len(), 2, "it was spoken of again");
    calls.pass_time(Tick(1_199_999));
    assert_eq!(states(&calls), [("t", Confirmed)]);
    assert_eq!(calls.next_deadline(), None);
    let partial = PublishedCalls { full: false, calls: vec![call("r", ("a", "b"), Confirmed)] };
    calls.apply(Tick(2_000_000), P1, &partial);
    assert_eq!(states(&calls).len(), 2, "it was answered after all");
}

#[test]
fn a_reset_leaves_no_tombstones() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Terminated)]));
    calls.reset();
    calls.apply(Tick(1), P1, &full(&[call("c", ("a", "b"), Confirmed)]));
    assert_eq!(states(&calls), [("c", Confirmed)]);
}

#[test]
fn tombstones_and_calls_are_bounded() {
    let mut calls = Calls::default();
    for i in 0..1_000 {
        let id = format!("c{i}");
        calls.apply(Tick(0), P1, &PublishedCalls { full: false, calls: vec![call(&id, ("a", "b"), Early)] });
        calls.apply(Tick(0), P2, &full(&[call(&format!("d{i}"), ("a", "b"), Terminated)]));
    }
    assert_eq!((calls.live.len(), calls.ended.len()), (MAX_KNOWN, MAX_TOMBSTONES));
}

#[test]
fn what_a_wrong_clock_said_can_only_shorten() {
    let mut calls = Calls::default();
    calls.apply(Tick(9_000_000_000), P1, &full(&[call("r", ("a", "b"), Early), call("e", ("a", "b"), Terminated)]));
    calls.shorten(Tick(1_000));
    assert_eq!(calls.stories().map(|story| story.lapses).collect::<Vec<_>>(), [Some(Tick(1_000 + RINGING_LASTS))]);
    calls.pass_time(Tick(1_000 + TOMBSTONE_LASTS));
    assert!(!calls.remembers(), "it lasts no longer than a new one");
    calls.shorten(Tick(5_000_000));
    assert_eq!(calls.stories().next().map(|story| story.said), Some(Tick(1_000)), "never later than it was");
}

fn partial(calls: &[CallReport]) -> PublishedCalls {
    PublishedCalls { full: false, calls: calls.to_vec() }
}

/// Answered calls with tags, `count` of them.
fn talking(name: &str, count: usize) -> Vec<CallReport> {
    (0..count).map(|i| call(&format!("{name}{i}"), ("a", "b"), Confirmed)).collect()
}

fn ended(calls: &[CallReport]) -> Vec<CallReport> {
    calls.iter().map(|call| CallReport { state: Terminated, ..call.clone() }).collect()
}

#[test]
fn a_full_report_makes_room_before_it_takes_room() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&talking("c", MAX_SHOWN)));
    calls.apply(Tick(0), P1, &full(&talking("other", 1)));
    assert_eq!(states(&calls), [("other0", Confirmed)]);
    assert_eq!(calls.not_shown(), 0);
}

#[test]
fn a_call_for_which_there_is_no_room_is_shown_when_another_ends() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&talking("c", MAX_SHOWN)));
    calls.apply(Tick(0), P2, &full(&talking("d", 1)));
    assert_eq!((calls.ranked().len(), calls.live(), calls.not_shown()), (MAX_SHOWN, MAX_SHOWN + 1, 1));
    calls.release(P1);
    assert_eq!(states(&calls), [("d0", Confirmed)]);
    calls.apply(Tick(1), P2, &partial(&ended(&talking("d", 1))));
    assert!(calls.is_quiet());
}

#[test]
fn the_end_of_a_call_that_was_never_shown_is_known() {
    for names in [65, 100, MAX_KNOWN] {
        let mut calls = Calls::default();
        let all = talking("c", names);
        calls.apply(Tick(0), P1, &full(&all));
        assert_eq!((calls.ranked().len(), calls.live()), (MAX_SHOWN, names));
        calls.apply(Tick(1), P1, &partial(&ended(&all[1..])));
        assert_eq!(states(&calls), [("c0", Confirmed)], "{names}");
        assert!(calls.parting().count() <= MAX_PARTING);
        calls.apply(Tick(2), P1, &partial(&ended(&all[..1])));
        assert!(calls.is_quiet());
    }
}

#[test]
fn forty_calls_of_each_of_two_publications_end_apart() {
    let mut calls = Calls::default();
    let (one, two) = (talking("c", 40), talking("d", 40));
    calls.apply(Tick(0), P1, &full(&one));
    calls.apply(Tick(0), P2, &full(&two));
    calls.release(P1);
    assert_eq!(calls.live(), 40);
    for still in (0..40).rev() {
        calls.apply(Tick(1), P2, &full(&two[..still]));
        assert_eq!((calls.ranked().len(), calls.is_quiet()), (still, still == 0));
    }
}

#[test]
fn what_rings_is_shown_before_what_talks() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&talking("c", MAX_SHOWN)));
    calls.apply(Tick(0), P2, &full(&[call("r", ("a", "b"), Early)]));
    assert_eq!(states(&calls)[0], ("r", Early));
    calls.apply(Tick(0), P2, &full(&[call("r", ("a", "b"), Confirmed)]));
    calls.release(P1);
    assert_eq!(states(&calls), [("r", Confirmed)]);
}

#[test]
fn a_lamp_is_lit_while_calls_are_live_that_cannot_even_be_named() {
    let mut calls = Calls::default();
    let all = talking("c", 1_000);
    calls.apply(Tick(0), P1, &full(&all));
    assert_eq!((calls.live(), calls.with_more().collect::<Vec<_>>()), (MAX_KNOWN, vec![P1]));
    calls.apply(Tick(0), P1, &partial(&ended(&all[..MAX_KNOWN])));
    assert_eq!((calls.live(), calls.is_quiet()), (0, false));
    assert_eq!(states(&calls), [("more", Confirmed)], "that is all that is known of them");
    calls.apply(Tick(1), P2, &full(&[]));
    assert!(!calls.is_quiet(), "another publication knows nothing of them");
    let restored: Calls = postcard::from_bytes(&postcard::to_stdvec(&calls).unwrap()).unwrap();
    assert_eq!(states(&restored), [("more", Confirmed)]);
    // It ends when its publication lists its calls, goes, or does not mention it for a day.
    let (mut listed, mut gone, mut silent) = (calls.clone(), calls.clone(), calls);
    listed.apply(Tick(2), P1, &full(&all[998..]));
    assert_eq!((listed.live(), listed.with_more().count()), (2, 0));
    gone.release(P1);
    assert!(gone.is_quiet());
    assert_eq!(silent.next_deadline().map(|at| at <= Tick(BEYOND_LASTS)), Some(true));
    silent.pass_time(Tick(BEYOND_LASTS));
    assert!(silent.is_quiet());
}

#[test]
fn a_tombstone_is_of_exactly_the_call_that_ended() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "x"), Early)]));
    calls.apply(Tick(1), P1, &full(&[call("c", ("", ""), Terminated)]));
    calls.apply(Tick(2), P1, &full(&[call("c", ("a", "x"), Early)]));
    assert!(calls.is_quiet(), "that one is late");
    calls.apply(Tick(3), P1, &full(&[call("c", ("a", "z"), Early)]));
    assert_eq!(states(&calls), [("c", Early)], "this one is another");
    calls.apply(Tick(4), P2, &full(&[call("c", ("a", "x"), Early)]));
    assert_eq!(states(&calls), [("c", Early)]);
    calls.apply(Tick(5), P1, &full(&[call("c", ("", ""), Confirmed)]));
    assert_eq!(states(&calls), [("c", Confirmed)], "without tags it is about the one that is live");
}

#[test]
fn each_branch_leaves_a_tombstone_of_its_own() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "x"), Early), call("d", ("a", "y"), Early)]));
    calls.apply(Tick(0), P1, &partial(&[CallReport { call_id: Some("c".into()), ..call("d", ("a", "y"), Early) }]));
    calls.apply(Tick(1), P1, &partial(&[call("c", ("", ""), Terminated), call("d", ("", ""), Terminated)]));
    assert!(calls.is_quiet());
    for late in ["x", "y"] {
        calls.apply(Tick(2), P1, &full(&[call("c", ("a", late), Early)]));
        assert!(calls.is_quiet(), "{late}");
    }
    calls.apply(Tick(3), P1, &full(&[call("c", ("a", "z"), Confirmed)]));
    assert_eq!(states(&calls), [("c", Confirmed)]);
}

#[test]
fn the_end_of_one_branch_by_its_tags_is_that_of_no_other() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "x"), Early)]));
    calls.apply(Tick(0), P2, &full(&[CallReport { id: "loose".into(), ..call("c", ("a", "y"), Early) }]));
    calls.apply(Tick(1), P1, &partial(&[call("c", ("a", "x"), Terminated)]));
    assert_eq!(states(&calls), [("loose", Early)]);
}

#[test]
fn a_forked_call_that_is_answered_without_tags_rings_no_more() {
    let mut calls = Calls::default();
    let (x, y) = (call("c", ("a", "x"), Early), CallReport { id: "c2".into(), ..call("c", ("a", "y"), Early) });
    calls.apply(Tick(0), P1, &full(&[x.clone(), y.clone()]));
    calls.apply(Tick(1), P1, &full(&[call("c", ("", ""), Confirmed)]));
    assert_eq!(states(&calls), [("c", Confirmed)]);
    // Another publication still reports the other branch, so that branch is still live.
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[x, y.clone()]));
    calls.apply(Tick(0), P2, &full(&[y]));
    calls.apply(Tick(1), P1, &full(&[call("c", ("", ""), Confirmed)]));
    assert_eq!(states(&calls), [("c2", Early), ("c", Confirmed)]);
}

#[test]
fn a_report_that_fits_two_branches_is_about_the_one_of_its_publication() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "x"), Early)]));
    calls.apply(Tick(0), P2, &full(&[CallReport { id: "c2".into(), ..call("c", ("a", "y"), Early) }]));
    calls.apply(Tick(1), P2, &full(&[call("c", ("", ""), Confirmed)]));
    assert_eq!(states(&calls), [("c", Early), ("c2", Confirmed)]);
}

#[test]
fn hold_stays_until_it_is_taken_back() {
    let said = |held| CallReport { held, ..call("c", ("a", "b"), Confirmed) };
    let mut calls = Calls::default();
    let mut after = |publication, held| {
        calls.apply(Tick(0), publication, &full(&[said(held)]));
        calls.ranked()[0].is_held()
    };
    assert!(after(P1, Some(true)));
    assert!(after(P2, None), "it does not speak of it");
    assert!(after(P1, None));
    assert!(!after(P1, Some(false)));
    assert!(!after(P2, None));
    // Asterisk's state of an extension is complete each time.
    let extension = |held| CallReport { held, ..call("noid", ("", ""), Confirmed) };
    let mut calls = Calls::default();
    for (held, shown) in [(Some(true), true), (None, false)] {
        calls.apply(Tick(0), P1, &full(&[extension(held)]));
        assert_eq!(calls.ranked()[0].is_held(), shown);
    }
}

#[test]
fn ends_of_unknown_calls_take_no_room_from_calls_that_were_there() {
    let mut calls = Calls::default();
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Early)]));
    calls.apply(Tick(0), P1, &full(&[call("c", ("a", "b"), Terminated)]));
    calls.apply(Tick(0), P2, &partial(&ended(&talking("made-up", 1_000))));
    calls.apply(Tick(1), P2, &full(&[call("c", ("a", "b"), Early)]));
    assert!(calls.is_quiet(), "it is still remembered as ended");
}

#[test]
fn an_ordinary_call_is_kept_in_as_few_octets_as_before() {
    let mut calls = Calls::default();
    calls.apply(Tick(1_790_000_000_000), P1, &full(&[call("0123456789@pbx", ("as1", "as2"), Confirmed)]));
    let call = 15 + 16 + 5 + 5 + 2 + 1 + 6 + 1 + 15 + 2 + 6;
    assert!(postcard::to_stdvec(&calls).unwrap().len() <= 1 + call + 1 + 1);
    assert!(size_of::<Calls>() <= 96, "{}", size_of::<Calls>());
}

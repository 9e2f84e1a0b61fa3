use super::*;
use crate::presence::facts::Direction;

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
        held: false,
    }
}

fn full(calls: &[CallReport]) -> CallsReport {
    CallsReport { full: true, calls: calls.to_vec() }
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
    calls.apply(Tick(0), P1, &CallsReport { full: false, calls: vec![call("c2", ("a", "b"), Early)] });
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
    calls.apply(Tick(0), P1, &CallsReport { full: false, calls: vec![call("c", ("a", "x"), Terminated)] });
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
    let partial = CallsReport { full: false, calls: vec![call("r", ("a", "b"), Early)] };
    calls.apply(Tick(599_999), P1, &partial);
    calls.pass_time(Tick(1_199_998));
    assert_eq!(states(&calls).len(), 2, "it was spoken of again");
    calls.pass_time(Tick(1_199_999));
    assert_eq!(states(&calls), [("t", Confirmed)]);
    assert_eq!(calls.next_deadline(), None);
    let partial = CallsReport { full: false, calls: vec![call("r", ("a", "b"), Confirmed)] };
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
        calls.apply(Tick(0), P1, &CallsReport { full: false, calls: vec![call(&id, ("a", "b"), Early)] });
        calls.apply(Tick(0), P2, &full(&[call(&format!("d{i}"), ("a", "b"), Terminated)]));
    }
    assert_eq!((calls.live.len(), calls.ended.len()), (MAX_CALLS, MAX_TOMBSTONES));
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

//! Monotonic calls: the state of a call on a phone's screen must not go back.

use std::collections::HashMap;

use super::lamp::{Lamp, Line};
use crate::presence::state::CallState;

/// State and life of each call that was shown in a dialog.
pub(super) type Shown = HashMap<String, (CallState, u32)>;

/// Compares the calls in a NOTIFY with those shown before in the same dialog, and records them. Returns the violation,
/// if any.
///
/// Phones show NOTIFYs in this order, though perhaps not all of them. A call that was legitimately forgotten (its
/// publication expired, an operator reset it) starts anew; `lives` counts those restarts, as of the moment at which
/// the NOTIFY leaves.
pub(super) fn went_back(shown: &mut Shown, lamp: &Lamp, lives: impl Fn(&str) -> u32) -> Option<String> {
    let Lamp::Calls(calls) = lamp else { return None };
    let mut law = None;
    for Line { call, state, .. } in calls.iter().filter(|line| !line.call.is_empty()) {
        let life = lives(call);
        if let Some((old, was)) = shown.get(call)
            && *was == life
            && old > state
        {
            law = Some(format!("{call} went back from {old:?} to {state:?} on a phone's screen"));
        }
        shown.insert(call.clone(), (*state, life));
    }
    for (call, known) in shown.iter_mut() {
        if !calls.iter().any(|line| line.call == *call) {
            *known = (CallState::Terminated, known.1);
        }
    }
    law
}

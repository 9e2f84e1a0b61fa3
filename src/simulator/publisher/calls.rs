//! Calls from the point of view of publishers.

use crate::presence::state::{CallState, Direction};
use crate::simulator::lamp::{BRANCH, label};
use crate::simulator::oracle::{CallClaim, Claim};
use crate::simulator::random::Random;

/// States that Asterisk publishes for an extension.
pub(super) const UP_AND_DOWN: [CallState; 3] = [CallState::Early, CallState::Confirmed, CallState::Terminated];

/// One call, from the first ringing to the end.
#[derive(Clone, Debug)]
pub(super) struct CallScript {
    said: CallClaim,
    /// Remaining state changes, each with the time before it (ms).
    steps: Vec<(u64, CallState)>,
}

impl CallScript {
    /// Draws a new call.
    pub(super) fn drawn(id: String, random: &mut Random) -> CallScript {
        let direction = random.pick(&[Direction::Recipient, Direction::Initiator]);
        // Some changes follow within a few milliseconds, faster than any response.
        let mut wait = |longest| if random.chance(0.2) { random.between(0, 3) } else { random.between(50, longest) };
        let mut steps = vec![(wait(400), CallState::Early)];
        steps.push((wait(12_000), CallState::Confirmed));
        steps.push((wait(40_000), CallState::Terminated));
        if random.chance(0.25) {
            steps.remove(1);
        }
        if random.chance(0.05) {
            steps.remove(0);
        }
        CallScript { said: CallClaim { call: id, direction, state: CallState::Trying, held: false }, steps }
    }

    /// The same call as a second PBX sees it, a little earlier or later.
    pub(super) fn seen_by_another(&self, random: &mut Random) -> CallScript {
        let mut other = self.clone();
        for (wait, _) in &mut other.steps {
            *wait = wait.saturating_sub(random.between(0, 700)) + random.between(0, 700);
        }
        other
    }

    pub(super) fn first_wait(&self) -> u64 {
        self.steps.first().map_or(0, |(wait, _)| *wait)
    }

    /// Advances the call; returns the time until the next change (ms).
    pub(super) fn step(&mut self) -> Option<u64> {
        if !self.steps.is_empty() {
            self.said.state = self.steps.remove(0).1;
        }
        self.steps.first().map(|(wait, _)| *wait)
    }

    pub(super) fn is_over(&self) -> bool {
        self.said.state == CallState::Terminated
    }

    pub(super) fn statement(&self) -> Claim {
        Claim::Calls { full: true, calls: vec![self.said.clone()] }
    }
}

/// All calls of one extension.
#[derive(Debug, Default)]
pub(super) struct CallSource {
    calls: Vec<CallClaim>,
    /// Calls that have changed or ended since the last document.
    news: Vec<CallClaim>,
    all: bool,
}

/// Most calls of one extension.
const MOST: usize = 5;

impl CallSource {
    /// Changes one of the calls, or begins another.
    pub(super) fn change(&mut self, name: impl FnOnce() -> String, random: &mut Random) {
        if self.calls.is_empty() || self.calls.len() < MOST && random.chance(0.4) {
            let direction = random.pick(&[Direction::Recipient, Direction::Initiator]);
            let (name, forks) = (name(), random.chance(0.3));
            let branches: &[Option<u32>] = if forks { &[Some(1), Some(2)] } else { &[None] };
            for branch in branches {
                let branch = branch.map(|number| format!("{BRANCH}{number}"));
                let call = label(&name, branch.as_deref());
                self.set(CallClaim { call, direction, state: CallState::Early, held: false });
            }
            return;
        }
        let mut said = self.calls[random.below(self.calls.len())].clone();
        match said.state {
            CallState::Confirmed if random.chance(0.5) => said.held = !said.held,
            CallState::Early if random.chance(0.7) => said.state = CallState::Confirmed,
            _ => (said.state, said.held) = (CallState::Terminated, false),
        }
        self.set(said);
    }

    fn set(&mut self, said: CallClaim) {
        self.calls.retain(|old| old.call != said.call);
        self.news.retain(|old| old.call != said.call);
        if said.state != CallState::Terminated {
            self.calls.push(said.clone());
        }
        self.news.push(said);
    }

    /// Makes the next document a full one, because it is unknown which documents the server received.
    pub(super) fn say_all(&mut self) {
        self.all = true;
    }

    /// Content to publish: all calls, with ended ones listed or left out, or only the changes.
    pub(super) fn statement(&mut self, first: bool, random: &mut Random) -> Claim {
        let mut news = std::mem::take(&mut self.news);
        let all = std::mem::take(&mut self.all) || first;
        if !all && !news.is_empty() && random.chance(0.4) {
            return Claim::Calls { full: false, calls: news };
        }
        let mut calls = self.calls.clone();
        if random.chance(0.5) {
            news.retain(|said| said.state == CallState::Terminated);
            calls.append(&mut news);
        }
        Claim::Calls { full: true, calls }
    }
}

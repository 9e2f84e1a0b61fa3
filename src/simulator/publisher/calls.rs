//! Calls as publishers see them.

use crate::presence::state::{CallState, Direction};
use crate::simulator::lamp::{BRANCH, label};
use crate::simulator::random::Random;
use crate::simulator::truth::{CallSaid, Statement};

/// The states that an extension has for Asterisk.
pub(super) const UP_AND_DOWN: [CallState; 3] = [CallState::Early, CallState::Confirmed, CallState::Terminated];

/// One call on its way from the first ring to the end.
#[derive(Clone, Debug)]
pub(super) struct Course {
    said: CallSaid,
    /// What is to come, each after so many ms.
    steps: Vec<(u64, CallState)>,
}

impl Course {
    /// A call that has just begun.
    pub(super) fn drawn(id: String, random: &mut Random) -> Course {
        let direction = random.pick(&[Direction::Recipient, Direction::Initiator]);
        // Some changes follow each other within a millisecond, faster than any answer.
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
        Course { said: CallSaid { call: id, direction, state: CallState::Trying, held: false }, steps }
    }

    /// The same call by another switchboard, which sees everything a little earlier or later.
    pub(super) fn seen_by_another(&self, random: &mut Random) -> Course {
        let mut other = self.clone();
        for (wait, _) in &mut other.steps {
            *wait = wait.saturating_sub(random.between(0, 700)) + random.between(0, 700);
        }
        other
    }

    pub(super) fn first_wait(&self) -> u64 {
        self.steps.first().map_or(0, |(wait, _)| *wait)
    }

    /// Goes on; gives how long until the next step.
    pub(super) fn step(&mut self) -> Option<u64> {
        if !self.steps.is_empty() {
            self.said.state = self.steps.remove(0).1;
        }
        self.steps.first().map(|(wait, _)| *wait)
    }

    pub(super) fn is_over(&self) -> bool {
        self.said.state == CallState::Terminated
    }

    pub(super) fn statement(&self) -> Statement {
        Statement::Calls { full: true, calls: vec![self.said.clone()] }
    }
}

/// All calls of one extension.
#[derive(Debug, Default)]
pub(super) struct Desk {
    calls: Vec<CallSaid>,
    /// Calls that have changed or ended since everything was last said.
    news: Vec<CallSaid>,
    all: bool,
}

/// The most calls at one desk.
const MOST: usize = 5;

impl Desk {
    /// Something happens to one of the calls, or another begins.
    pub(super) fn change(&mut self, name: impl FnOnce() -> String, random: &mut Random) {
        if self.calls.is_empty() || self.calls.len() < MOST && random.chance(0.4) {
            let direction = random.pick(&[Direction::Recipient, Direction::Initiator]);
            let (name, forks) = (name(), random.chance(0.3));
            let branches: &[Option<u32>] = if forks { &[Some(1), Some(2)] } else { &[None] };
            for branch in branches {
                let branch = branch.map(|number| format!("{BRANCH}{number}"));
                let call = label(&name, branch.as_deref());
                self.set(CallSaid { call, direction, state: CallState::Early, held: false });
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

    fn set(&mut self, said: CallSaid) {
        self.calls.retain(|old| old.call != said.call);
        self.news.retain(|old| old.call != said.call);
        if said.state != CallState::Terminated {
            self.calls.push(said.clone());
        }
        self.news.push(said);
    }

    /// Nobody knows what the server has heard: the next document is a full one.
    pub(super) fn say_all(&mut self) {
        self.all = true;
    }

    /// What to publish: all calls, those that have ended listed or left out, or only what is new.
    pub(super) fn statement(&mut self, first: bool, random: &mut Random) -> Statement {
        let mut news = std::mem::take(&mut self.news);
        let all = std::mem::take(&mut self.all) || first;
        if !all && !news.is_empty() && random.chance(0.4) {
            return Statement::Calls { full: false, calls: news };
        }
        let mut calls = self.calls.clone();
        if random.chance(0.5) {
            news.retain(|said| said.state == CallState::Terminated);
            calls.append(&mut news);
        }
        Statement::Calls { full: true, calls }
    }
}

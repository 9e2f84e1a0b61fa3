//! The simulator: the real notifier in a seeded network with a virtual clock (law 9).
//!
//! A *storm* is one run: phones subscribe, publishers tell of calls, the network loses, delays, doubles and reorders,
//! phones fail and move and reboot, operators interfere. Every message that the server sends is held against the
//! [`laws`] and against the [`truth`], a model that shares no code with the server. Then the network heals, and within
//! a stated bound every lamp has to show the truth. Everything follows from the seed, so a failure is replayed at will:
//! the second run draws the [`ladder`] of the dialog concerned.
//!
//! In flow seeds and [`Options`]; out flow [`Outcome`]s. Nothing here knows real time or sockets.

mod crash;
mod edge;
mod exchange;
mod keeper;
pub mod ladder;
pub mod lamp;
pub mod laws;
pub mod message;
pub mod network;
pub mod phone;
pub mod plan;
mod post;
pub mod publisher;
pub mod random;
mod refusal;
mod sabotage;
mod screen;
mod server;
pub mod tally;
mod trouble;
pub mod truth;
mod world;

pub use ladder::Topic;
pub use plan::{Options, Sabotage};
pub use tally::Tally;
pub use world::Fault;

use crate::directory::AccountNo;
use world::World;

/// How long after the network has healed a subscription that both sides know may take to show the truth (ms): the
/// longest wait between two tries of the server (300 s, and phones here ask for no longer Retry-After), after a
/// NOTIFY that was under way has failed (Timer F, 32 s), and a moment for the answer.
const CONVERGED_AFTER: u64 = 300_000 + 32_000 + 8_000;
/// How long every phone may take, whatever had become of its subscription (ms): the longest lifetime (600 s), a tenth
/// more for phones that refresh late, a request that fails (32 s), the phone's wait before it starts anew (60 s), and
/// a moment.
const ALL_WELL_AFTER: u64 = 660_000 + 32_000 + 60_000 + 8_000;
/// How long the last NOTIFY of a subscription may be under way (ms): Timer F, and a moment.
const LAST_WORDS: u64 = 34_000;

/// What has come of a storm.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What it amounts to.
    pub tally: Tally,
    /// What went wrong, and the ladder of the dialog concerned.
    pub failure: Option<(Fault, String)>,
}

/// Runs the storm of a seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options, None);
    let failure = world.storm().err().map(|fault| {
        let mut again = World::new(seed, options, Some(fault.topic.clone()));
        let second = again.storm().err();
        let mut picture = again.ladder.draw();
        if second.as_ref() != Some(&fault) {
            picture.push_str(&format!("(the second run differs: {second:?})\n"));
        }
        (fault, picture)
    });
    Outcome { seed, tally: world.tally, failure }
}

impl World {
    /// The storm, the calm after it, and the reckoning.
    fn storm(&mut self) -> Result<(), Fault> {
        self.run_until(self.options.minutes * 60_000)?;
        self.heal();
        let healed = self.now;
        self.run_until(healed + CONVERGED_AFTER)?;
        self.reckon(false)?;
        self.run_until(healed + ALL_WELL_AFTER)?;
        self.reckon(true)?;
        self.count_subscriptions()?;
        self.tally.close(self.now);
        self.tally.events = self.publishers.iter().map(|p| p.events).sum();
        Ok(())
    }

    fn heal(&mut self) {
        self.calm = true;
        self.partitions.fill(0);
        for edge in &mut self.edges {
            (edge.down_until, edge.slow, edge.lossy_until) = (0, (0, 0), 0);
        }
        self.weather = network::Weather::fair();
        for publisher in &mut self.publishers {
            publisher.closing = true;
        }
        for number in 0..self.phones.len() {
            self.recover(number);
            // A phone that refreshes late is without a subscription for a moment, and that moment could be the last.
            self.phones[number].punctual = true;
        }
    }

    /// Every lamp shows the truth: of all phones, or only of those whose subscription the server knows and can reach.
    fn reckon(&self, all: bool) -> Result<(), Fault> {
        let known = self.known_to_server();
        for phone in &self.phones {
            for watch in &phone.watches {
                let uncertain = self.truth.is_uncertain(self.now, watch.presentity);
                let truth = self.truth.lamp(watch.presentity, watch.package);
                let Some(leg) = &watch.leg else {
                    let topic = Topic { call_id: None, presentity: Some(watch.presentity) };
                    let law = format!("phone {} has no subscription long after the network healed", phone.number);
                    if all {
                        return Err(self.fault(law, topic));
                    }
                    continue;
                };
                let reachable = leg.established && !leg.leaving && leg.renewed_at > phone.moved_at;
                let counts = all || reachable && known.contains(&leg.call_id);
                if counts && !uncertain && leg.screen.as_ref() != Some(&truth) {
                    let shown = leg.screen.as_ref().map_or("nothing".into(), |lamp| lamp.to_string());
                    let law = format!("phone {} shows [{shown}] after the storm, but [{truth}] is true", phone.number);
                    return Err(self.fault_in(&leg.call_id, law));
                }
            }
        }
        Ok(())
    }

    fn known_to_server(&self) -> Vec<String> {
        let accounts = 0..(plan::REALMS.len() - usize::from(self.away)) as u32;
        let records = accounts.flat_map(|account| self.server.list_subscriptions(AccountNo(account), None));
        records.map(|record| record.call_id).collect()
    }

    /// The server holds no subscription that no phone has, and counts right.
    fn count_subscriptions(&mut self) -> Result<(), Fault> {
        let known = self.known_to_server();
        let held = |id: &String| {
            let legs = self.phones.iter().flat_map(|phone| &phone.watches).filter_map(|watch| watch.leg.as_ref());
            legs.into_iter().any(|leg| leg.call_id == *id)
        };
        if let Some(orphan) = known.iter().find(|id| !held(id)) {
            return Err(self.fault_in(orphan, "the server holds a subscription that no phone has"));
        }
        let end = self.now + LAST_WORDS;
        while self.server.subscriptions() != self.known_to_server().len() {
            if self.now >= end {
                let (counted, listed) = (self.server.subscriptions(), self.known_to_server().len());
                return Err(
                    self.fault(format!("{counted} subscriptions are counted, {listed} listed"), Topic::default())
                );
            }
            self.run_until(self.now + 1_000)?;
        }
        Ok(())
    }
}

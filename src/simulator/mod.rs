//! Deterministic simulator: the real notifier in a seeded network with a virtual clock (rule 9).
//!
//! A *storm* is one run. Phones subscribe, publishers publish calls, the network loses, delays, duplicates and
//! reorders datagrams, phones fail, move and reboot, and operators interfere. Every message that the server sends is
//! checked against the invariants ([`invariants`]) and against an oracle ([`oracle`]), a model that shares no code with the
//! server. Then the network heals, and every lamp has to show the true state within a stated time. Everything follows
//! from the seed, so that every failure can be replayed: the second run draws the [`ladder`] of the dialog concerned.
//!
//! Input: seeds and [`Options`]. Output: [`Outcome`]s. Nothing here uses real time or sockets.

mod crash;
mod delivery;
mod edge;
mod faults;
pub mod invariants;
mod journal;
pub mod ladder;
pub mod lamp;
pub mod message;
mod monotonic;
mod mutations;
pub mod network;
pub mod oracle;
mod output;
pub mod phone;
pub mod publisher;
pub mod random;
mod refusal;
pub mod scenario;
mod server;
mod simulation;
pub mod tally;

pub use ladder::Topic;
pub use scenario::{Mutation, Options};
pub use simulation::Violation;
pub use tally::Tally;

use crate::directory::AccountNo;
use simulation::Simulation;

/// Time within which a subscription known to both sides shows the true state after the network has healed (ms).
/// It is the sum of the server's longest back-off (300 s; phones here ask for no longer Retry-After), the failure of a
/// NOTIFY that was in flight (Timer F, 32 s), and 8 s for the response.
const CONVERGED_AFTER: u64 = 300_000 + 32_000 + 8_000;
/// Time within which every phone shows the true state, in whatever condition its subscription was (ms).
/// It is the sum of the longest lifetime (600 s), a tenth more for phones that refresh late, a request that fails (32
/// s), the phone's wait before it subscribes anew (60 s), and 8 s more.
const ALL_WELL_AFTER: u64 = 660_000 + 32_000 + 60_000 + 8_000;
/// Time that the final NOTIFY of a subscription may be in flight (ms): Timer F, and 2 s more.
const LAST_WORDS: u64 = 34_000;

/// Result of a storm.
#[derive(Debug)]
pub struct Outcome {
    /// Seed of the storm.
    pub seed: u64,
    /// Counters of the storm.
    pub tally: Tally,
    /// The violated invariant, and the ladder of the dialog concerned; none if the storm passed.
    pub failure: Option<(Violation, String)>,
}

/// Runs the storm of a seed, and a second time with a ladder if it fails.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = Simulation::new(seed, options, None);
    let failure = world.run_scenario().err().map(|fault| {
        let mut again = Simulation::new(seed, options, Some(fault.topic.clone()));
        let second = again.run_scenario().err();
        let mut picture = again.ladder.draw();
        if second.as_ref() != Some(&fault) {
            picture.push_str(&format!("(the second run differs: {second:?})\n"));
        }
        (fault, picture)
    });
    Outcome { seed, tally: world.tally, failure }
}

impl Simulation {
    /// Runs the storm, heals the network, and checks that all lamps converge.
    fn run_scenario(&mut self) -> Result<(), Violation> {
        self.run_until(self.options.minutes * 60_000)?;
        self.heal();
        let healed = self.now;
        self.run_until(healed + CONVERGED_AFTER)?;
        self.check_convergence(false)?;
        self.run_until(healed + ALL_WELL_AFTER)?;
        self.check_convergence(true)?;
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
        self.weather = network::NetworkConditions::fair();
        for publisher in &mut self.publishers {
            publisher.closing = true;
        }
        for number in 0..self.phones.len() {
            self.recover(number);
            // A phone that refreshes late has no subscription for a moment, and the check could fall into that moment.
            self.phones[number].punctual = true;
        }
    }

    /// Checks that lamps show the true state: those of all phones if `all`, else only of those whose subscription the
    /// server knows and can reach.
    fn check_convergence(&self, all: bool) -> Result<(), Violation> {
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
        let accounts = 0..(scenario::REALMS.len() - usize::from(self.away)) as u32;
        let records = accounts.flat_map(|account| self.server.list_subscriptions(AccountNo(account), None));
        records.map(|record| record.call_id).collect()
    }

    /// Checks that the server holds no subscription that no phone has, and that its counter agrees with its list.
    fn count_subscriptions(&mut self) -> Result<(), Violation> {
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

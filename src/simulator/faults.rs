//! Violation injection during a storm, except crashes.

use super::phone::{self, Behaviour};
use super::simulation::{Event, Peer, Simulation, Violation};
use crate::directory::AccountNo;
use crate::presence::state::CallState;

impl Simulation {
    /// Injects a fault into a phone, a publisher, an edge or the network.
    pub(super) fn make_trouble(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let often = (60_000 / self.phones.len().max(1) as u64).max(200);
        let wait = self.random.between(often / 2, often * 2);
        self.schedule_in(wait, Event::Trouble);
        let number = self.random.below(self.phones.len());
        let mut wishes = phone::Actions::default();
        match self.random.below(24) {
            0..=3 => {
                self.cut_off[number] = !self.phones[number].tcp;
                self.recover_later(number, 200_000);
            }
            4..=6 => {
                let mood = [(500, None), (503, None), (503, Some(self.random.between(1, 200) as u32)), (408, None)];
                let (status, retry_after) = self.random.pick(&mood);
                self.phones[number].mood = Behaviour::Failing(status, retry_after);
                self.recover_later(number, 120_000);
            }
            7 | 8 => {
                self.phones[number].mood = Behaviour::Mute;
                self.recover_later(number, 100_000);
            }
            9 | 10 => self.phones[number].reboot(&mut self.random, &mut wishes),
            11 | 12 => self.move_or_break(number, &mut wishes),
            13 | 14 => {
                let at = self.random.below(self.phones[number].watches.len());
                self.phones[number].unsubscribe(self.now, at, &self.plan, &mut self.random, &mut wishes);
            }
            15 => {
                let at = self.random.below(self.phones[number].watches.len());
                self.phones[number].fetch(at, &self.plan, &mut wishes);
            }
            16 => {
                let publisher = self.random.below(self.publishers.len());
                self.publishers[publisher].die();
            }
            17 | 18 => self.operate()?,
            19 | 20 => self.part(),
            21 => self.trouble_edge(),
            _ => {}
        }
        self.grant(number, wishes);
        Ok(())
    }

    /// Cuts a publisher off from the server for a while. Its publications may expire meanwhile.
    fn part(&mut self) {
        let number = self.random.below(self.publishers.len());
        let until = self.now + self.random.between(5_000, 90_000);
        self.partitions[number] = until;
        self.schedule_in(until - self.now, Event::Reunion(number, until));
    }

    fn trouble_edge(&mut self) {
        let number = self.random.below(self.edges.len());
        let until = self.now + self.random.between(2_000, 60_000);
        let slow = self.random.between(200, 3_000);
        match self.random.below(3) {
            0 => self.edges[number].down_until = until,
            1 => self.edges[number].slow = (until, slow),
            _ => self.edges[number].lossy_until = until,
        }
    }

    fn recover_later(&mut self, number: usize, longest: u64) {
        self.troubles[number] += 1;
        let wait = self.random.between(500, longest);
        self.schedule_in(wait, Event::Recovery(number, self.troubles[number]));
    }

    /// Ends the fault of a phone.
    pub(super) fn recover(&mut self, number: usize) {
        self.cut_off[number] = false;
        self.phones[number].mood = Behaviour::Well;
    }

    /// Breaks a phone's connection. A phone on UDP gets another port if it is behind NAT, else another address.
    fn move_or_break(&mut self, number: usize, wishes: &mut phone::Actions) {
        let phone = &self.phones[number];
        if phone.tcp {
            let (notice, back) = (self.random.between(0, 60_000), self.random.between(500, 30_000));
            if let Some(id) = self.flow_of(number)
                && let Some(flow) = self.flows.get_mut(&id)
            {
                flow.broken = Some(self.now + notice);
                self.phones[number].moved_at = self.now;
                self.schedule_in(back, Event::Reconnect(number));
            }
            return;
        }
        let old = phone.address.clone();
        let host = old.split(':').next().unwrap_or_default();
        let new = if phone.address != phone.contact {
            format!("{host}:{}", self.random.between(30_001, 60_000))
        } else {
            let tail = host.split('.').skip(2).collect::<Vec<_>>().join(".");
            let new = format!("198.{}.{tail}:5060", self.random.between(52, 250));
            self.phones[number].contact.clone_from(&new);
            new
        };
        self.leave(&old);
        self.settle_at(&new, Peer::Phone(number));
        (self.phones[number].address, self.phones[number].moved_at) = (new, self.now);
        if self.random.chance(0.3) {
            // The phone has noticed the change.
            self.phones[number].refresh_all(self.now, &self.plan, wishes);
        }
    }

    /// Lets an operator reset or set a presentity.
    fn operate(&mut self) -> Result<(), Violation> {
        let presentity = self.random.below(self.plan.presentities());
        let user = self.plan.name(presentity).0.to_string();
        let account = AccountNo(self.plan.account(presentity) as u32);
        if !self.up || self.is_away(presentity) {
            return Ok(());
        }
        self.truth.pass_time(self.now, presentity);
        self.laws.reset(presentity);
        let (now, decision) = (self.now, self.decision + 1);
        if self.random.chance(0.5) {
            self.truth.reset(now, decision, presentity);
            self.ladder.note(now, presentity, "an operator resets");
            self.look_at(presentity);
            self.serve(|server, now, out| server.reset(now, account, &user, out))
        } else {
            let state = self.random.pick(&[CallState::Early, CallState::Confirmed, CallState::Terminated]);
            self.truth.set(now, decision, presentity, state);
            self.ladder.note(now, presentity, &format!("an operator sets {state:?}"));
            self.look_at(presentity);
            self.serve(|server, now, out| {
                let _ = server.set(now, account, &user, state, out);
            })
        }
    }
}

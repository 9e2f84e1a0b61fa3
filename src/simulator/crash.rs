//! Crashes: the server stops at any instant, is down for a while, and restores its state from the journal.

use super::oracle::NOT_KEPT_YET;
use super::scenario::Mutation;
use super::simulation::{Event, Simulation, Violation};
use super::{ladder::Topic, phone, scenario, server};
use crate::directory::AccountNo;
use crate::presence::Tick;

/// Longest time for which a tenant is not configured (ms).
const LONGEST_AWAY: u64 = 15_000;
/// Largest jump of the server's clock over a restart (ms), forward or back.
const CLOCK_STEP: u64 = 100_000;
/// Longest downtime of the server (ms).
const LONGEST_DOWN: u64 = 30_000;

impl Simulation {
    /// Schedules the next crash.
    pub(super) fn expect_crash(&mut self) {
        if self.options.crashes > 0.0 {
            let mean = (self.options.minutes as f64 * 60_000.0 / self.options.crashes) as u64;
            let wait = self.random.between(mean / 4, mean * 7 / 4 + 1);
            self.schedule_in(wait, Event::Crash);
        }
    }

    pub(super) fn crash_unless_calm(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        self.expect_crash();
        if self.random.chance(0.5) {
            // The crash falls into the next commit.
            self.keeper.doomed = true;
            return Ok(());
        }
        if self.up { self.crash() } else { Ok(()) }
    }

    /// Crashes the server now, as a power failure does.
    pub(super) fn crash(&mut self) -> Result<(), Violation> {
        let share = match self.random.below(4) {
            0 => 0,
            1 => u16::MAX,
            _ => self.random.number() as u16,
        };
        let left = self.keeper.crash(share, self.decision);
        let left = self.or_fault(left)?;
        self.note("-- the server crashes --");
        (self.up, self.life) = (false, self.life + 1);
        self.tally.crashes += 1;
        self.truth.crash(self.now, |decision| left.survived(decision));
        self.laws.crash(self.now, |decision| left.survived(decision), |decision| left.noted(decision));
        self.accepted.retain(|_, (_, decision)| left.survived(*decision));
        self.break_connections();
        if self.now > self.up_since + NOT_KEPT_YET {
            self.doubtful_since = self.now.saturating_sub(NOT_KEPT_YET);
        }
        let presentities = 0..self.plan.presentities();
        let etags = |presentity| self.truth.may_come_back(self.doubtful_since, presentity).map(String::from).collect();
        self.etags_at_crash = presentities.clone().map(etags).collect();
        for presentity in presentities {
            self.truth.pass_time(self.now, presentity);
            self.look_at(presentity);
        }
        self.journal = left.records;
        let down = self.random.between(100, LONGEST_DOWN);
        self.set_clock(self.now + down);
        self.schedule_in(down, Event::Restart);
        Ok(())
    }

    /// Makes the server's clock jump forward or back while the server is down.
    /// It does not while a tenant is not configured, because its leases would end by the clocks of two starts. Nor
    /// does it when a publication has just expired, because the oracle cannot tell whether the journal knows of that.
    fn set_clock(&mut self, start: u64) {
        self.clock_before = self.clock;
        let unclear = self.away || self.truth.has_expired_since(self.now.saturating_sub(NOT_KEPT_YET));
        if self.calm || unclear || !self.random.chance(0.3) {
            return;
        }
        let step = self.random.between(1_000, CLOCK_STEP) as i64;
        let step = if self.random.chance(0.5) { step } else { -step };
        self.clock += step;
        self.truth.shift(self.now, start, step);
        self.laws.shift(self.now, start, step);
        for (at, presentity) in self.truth.expiries() {
            self.schedule_in(at.saturating_sub(self.now), Event::Expiry(presentity));
        }
        self.note(&format!("-- the server's clock goes on by {step} ms --"));
    }

    /// Breaks every connection. Some phones notice that and reconnect; the others stay silent until they have a
    /// message to send.
    fn break_connections(&mut self) {
        self.flows.clear();
        for number in 0..self.phones.len() {
            if self.phones[number].tcp {
                self.phones[number].moved_at = self.now;
                if self.random.chance(0.5) {
                    let wait = self.random.between(500, 40_000);
                    self.schedule_in(wait, Event::Reconnect(number));
                }
            }
        }
    }

    /// Starts the server again.
    pub(super) fn restart(&mut self) -> Result<(), Violation> {
        let mut records = std::mem::take(&mut self.journal);
        self.corrupt(&mut records);
        let returns = std::mem::take(&mut self.away);
        if !returns && !self.calm && self.clock == self.clock_before && self.random.chance(0.15) {
            self.away = true;
            let back = self.random.between(1_000, LONGEST_AWAY);
            self.schedule_in(back, Event::TenantReturns(self.life));
        }
        self.server = server::build(self.seed, self.life, self.away);
        let endless = self.options.sabotage == Some(Mutation::EndlessLease);
        let back = if endless { self.clock_before - self.clock } else { 0 };
        let restored = self.server.restore(Tick(self.tick().0.saturating_add_signed(back)), records);
        let first: Vec<_> = restored.starts.iter().chain(&restored.shortened).cloned().collect();
        let kept = self.keeper.keep_at_once(&first);
        self.or_fault(kept)?;
        (self.up, self.up_since) = (true, self.now);
        self.truth.restart(self.now, self.doubtful_since);
        self.begin_journal();
        if self.options.crashes > 0.0 && !self.calm && self.random.chance(0.2) {
            // The next crash comes while the server is still sending the NOTIFYs that are due after the restart.
            let wait = self.random.between(0, 2_000);
            self.schedule_in(wait, Event::CrashAt(self.life));
        }
        self.note(&format!(
            "-- the server is back, with {} subscriptions, {} behind --",
            restored.subscriptions, restored.behind
        ));
        if restored.unusable() > 0 && !self.away {
            let law = format!("{} records of the journal cannot be used", restored.unusable());
            return Err(self.fault(law, Topic::default()));
        }
        let known = self.known_to_server();
        let restarted = self.laws.restarted(self.now, &known, |presentity| self.is_away(presentity));
        restarted.map_err(|(call_id, law)| self.fault_in(&call_id, law))?;
        self.publications_are_back()
    }

    /// Checks that every acknowledged publication has been restored, and none that is not in the journal.
    fn publications_are_back(&self) -> Result<(), Violation> {
        let published: Vec<_> = (0..scenario::REALMS.len() - usize::from(self.away))
            .map(|account| (account, self.server.list_publications(AccountNo(account as u32), None)))
            .collect();
        for presentity in (0..self.plan.presentities()).filter(|presentity| !self.is_away(*presentity)) {
            let (user, account) = (self.plan.name(presentity).0, self.plan.account(presentity));
            let of_account = published.iter().filter(|(of, _)| *of == account).flat_map(|(_, all)| all);
            let is: Vec<&str> = of_account.filter(|p| p.user == user).map(|p| p.etag.as_str()).collect();
            let topic = || Topic { call_id: None, presentity: Some(presentity) };
            if let Some(lost) = self.truth.etags(self.now, presentity).find(|etag| !is.contains(etag)) {
                return Err(self.fault(format!("the acknowledged publication {lost} is lost in a crash"), topic()));
            }
            if let Some(extra) =
                is.iter().find(|etag| self.etags_at_crash[presentity].iter().all(|known| known != *etag))
            {
                return Err(self.fault(format!("the publication {extra} is back after a crash"), topic()));
            }
        }
        Ok(())
    }

    /// Corrupts the records that a restart reads, as the mutation says.
    fn corrupt(&mut self, records: &mut Vec<(crate::journal::Key, bytes::Bytes)>) {
        // The notifier defines the meaning of the keys. The deferred records of acknowledged NOTIFYs have a bit set
        // here.
        let is_remark = |key: &crate::journal::Key| key.0 >> 32 != 0;
        match self.options.sabotage {
            Some(Mutation::LostRecord) => {
                let kept: Vec<_> = (0..records.len()).filter(|at| !is_remark(&records[*at].0)).collect();
                if !kept.is_empty() {
                    records.remove(kept[self.random.below(kept.len())]);
                }
            }
            Some(Mutation::OldRecord) => {
                for (key, value) in records.iter_mut() {
                    if let Some(old) = self.keeper.first_word(key) {
                        *value = old;
                    }
                }
            }
            Some(Mutation::LostTenant) if self.away => records.retain(|(_, value)| !server::is_of_second_tenant(value)),
            Some(Mutation::RestartStorm) => records.retain(|(key, _)| !is_remark(key)),
            _ => {}
        }
    }

    /// Reconnects a phone that has noticed the loss of its connection. It refreshes its subscriptions on the new one.
    pub(super) fn reconnect(&mut self, number: usize) {
        if !self.up {
            let wait = self.random.between(1_000, 10_000);
            return self.schedule_in(wait, Event::Reconnect(number));
        }
        if self.flow_of(number).is_some() {
            // It has already opened another one, to send a message.
            return;
        }
        self.connect(number);
        let mut wishes = phone::Actions::default();
        self.phones[number].refresh_all(self.now, &self.plan, &mut wishes);
        self.grant(number, wishes);
    }

    /// Checks every dialog and publication, independently of messages.
    pub(super) fn call_roll(&mut self, again: u64) -> Result<(), Violation> {
        self.schedule_in(again, Event::RollCall);
        if !self.up {
            return Ok(());
        }
        let away = |presentity| self.is_away(presentity);
        let called = self.laws.check_liveness(self.now, self.up_since, &self.truth, away);
        called.map_err(|(call_id, law)| self.fault_in(&call_id, law))
    }
}

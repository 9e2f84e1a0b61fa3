//! The calls of a presentity as state machines (law 4).
//!
//! A call is known by its Call-ID and tags, whoever reports it and under whatever entity-tag. Its state only moves up;
//! once terminated it is gone and leaves a *tombstone*, so that a late or overtaken report cannot revive it. A live
//! call has a *holder* for every publication that reports it; when the last of them is gone, so is the call. And what
//! only rings has a *lease* of its own, for a publication may be refreshed by the hour without a word about the call.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Tick;
use super::facts::{CallReport, CallState, CallsReport, Party, RESERVED_IDS};
use super::publication::PublicationNo;

mod earlier;

pub use earlier::EarlierCalls;

/// The most live calls of one presentity; more are not shown. Kazoo stops at 20.
const MAX_CALLS: usize = 64;
/// The most tombstones of one presentity; beyond that the oldest goes.
const MAX_TOMBSTONES: usize = 64;
/// The most calls whose end is shown in one document.
const MAX_PARTING: usize = 8;
/// How long a call stays dead (ms). Long enough for every retransmission and overtaken update, and for a publisher
/// that republishes a moment too late.
const TOMBSTONE_LASTS: u64 = 300_000;

/// How long a call may be trying or ringing without anybody saying so again (ms). Timer C ends the patience of a proxy
/// after three minutes (RFC 3261 section 16.6); what is silent for much longer has been forgotten by its publisher.
const RINGING_LASTS: u64 = 600_000;

/// All calls of a presentity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    live: Vec<Call>,
    ended: VecDeque<Tombstone>,
    /// Calls that were live when documents were last composed, and are not any more.
    #[serde(skip)]
    parting: Vec<CallReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    report: CallReport,
    /// The id as published; `report.id` may differ to be unique.
    published_id: Box<str>,
    holders: Vec<PublicationNo>,
    /// When it was last spoken of.
    said: Tick,
}

/// A live call, and why it is still there.
#[derive(Clone, Copy, Debug)]
pub struct CallStory<'a> {
    /// What is known of it.
    pub report: &'a CallReport,
    /// The publications that speak of it; with the last it goes.
    pub holders: &'a [PublicationNo],
    /// When it was last spoken of.
    pub said: Tick,
    /// When it goes for want of news, if it has not been answered yet.
    pub lapses: Option<Tick>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tombstone {
    report: CallReport,
    until: Tick,
}

/// Two descriptions of the same thing agree when neither says what the other denies.
fn agree<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Whether two reports that both name a Call-ID are about the same call. Publishers leave tags out as they please
/// (Kamailio sends them while it rings only), and a forked call differs in its remote tag.
fn same_call(a: &CallReport, b: &CallReport) -> bool {
    a.call_id.is_some()
        && a.call_id == b.call_id
        && agree(&a.local_tag, &b.local_tag)
        && agree(&a.remote_tag, &b.remote_tag)
        && agree(&a.direction, &b.direction)
}

impl Call {
    /// When its lease ends, if it has one: what talks may talk for days, and what has no Call-ID is no call.
    fn lapses(&self) -> Option<Tick> {
        let rings = self.report.state < CallState::Confirmed && self.report.call_id.is_some();
        rings.then(|| self.said.after(RINGING_LASTS))
    }

    fn is(&self, report: &CallReport, publication: PublicationNo) -> bool {
        match (&self.report.call_id, &report.call_id) {
            (Some(_), Some(_)) => same_call(&self.report, report),
            // Without a Call-ID only the publication that named it can mean it.
            (None, None) => self.published_id == report.id && self.holders.contains(&publication),
            _ => false,
        }
    }

    /// Takes over what a report says; what it leaves out is as it was.
    fn merge(&mut self, new: &CallReport) {
        fn party(old: &mut Party, new: &Party) {
            for (old, new) in
                [(&mut old.identity, &new.identity), (&mut old.display, &new.display), (&mut old.target, &new.target)]
            {
                if new.is_some() {
                    old.clone_from(new);
                }
            }
        }
        let old = &mut self.report;
        // Without a Call-ID it is no call but the state of an extension (Asterisk), which goes up and down.
        if new.state > old.state || old.call_id.is_none() {
            old.state = new.state;
        }
        party(&mut old.local, &new.local);
        party(&mut old.remote, &new.remote);
        for (old, new) in [(&mut old.local_tag, &new.local_tag), (&mut old.remote_tag, &new.remote_tag)] {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        old.direction = new.direction.or(old.direction);
        old.held = new.held;
    }
}

/// Notes a call that is no longer live, so that its end is shown; false, for the call is not to be kept.
fn part(parting: &mut Vec<CallReport>, call: &Call) -> bool {
    if parting.len() < MAX_PARTING && parting.iter().all(|gone| gone.id != call.report.id) {
        parting.push(CallReport { state: CallState::Terminated, held: false, ..call.report.clone() });
    }
    false
}

impl Calls {
    /// Applies what a publication reports of calls.
    pub fn apply(&mut self, now: Tick, publication: PublicationNo, report: &CallsReport) {
        self.forget_ended(now);
        for call in &report.calls {
            match call.state {
                CallState::Terminated => self.end(now, publication, call),
                _ => self.update(now, publication, call),
            }
        }
        if report.full {
            let listed = |call: &Call| report.calls.iter().any(|r| call.is(r, publication));
            self.release_if(publication, |call| !listed(call));
        }
    }

    /// A publication is gone, and with it every call that only it reported.
    pub fn release(&mut self, publication: PublicationNo) {
        self.release_if(publication, |_| true);
    }

    /// Forgets every call, the ended ones too, so that the next report of a live call counts again.
    pub fn reset(&mut self) {
        *self = Calls::default();
    }

    /// The live calls, the one that matters most to a lamp first: what rings can be answered, what talks is busy.
    pub fn ranked(&self) -> Vec<&CallReport> {
        let mut calls: Vec<_> = self.live.iter().map(|call| &call.report).collect();
        calls.sort_by_key(|call| match call.state {
            CallState::Early => 0,
            CallState::Confirmed => 1,
            CallState::Proceeding => 2,
            CallState::Trying => 3,
            CallState::Terminated => 4,
        });
        calls
    }

    /// The live calls with all that is known of them, in the order in which they came.
    pub fn stories(&self) -> impl Iterator<Item = CallStory<'_>> {
        self.live.iter().map(|call| CallStory {
            report: &call.report,
            holders: &call.holders,
            said: call.said,
            lapses: call.lapses(),
        })
    }

    /// The calls whose end watchers are still to be shown, once (RFC 4235 section 3.7.1).
    pub fn parting(&self) -> impl Iterator<Item = &CallReport> {
        self.parting.iter().filter(|gone| self.live.iter().all(|call| call.report.id != gone.id))
    }

    /// The calls that are remembered as ended, the latest first.
    pub fn ended(&self) -> impl Iterator<Item = &CallReport> {
        self.ended.iter().rev().map(|dead| &dead.report)
    }

    /// The end of those calls has been put into documents.
    pub fn parted(&mut self) {
        self.parting.clear();
    }

    /// True if no call is live.
    pub fn is_quiet(&self) -> bool {
        self.live.is_empty()
    }

    /// True if calls that ended are remembered.
    pub fn remembers(&self) -> bool {
        !self.ended.is_empty()
    }

    /// When [`Calls::pass_time`] has something to do next: a ringing call lapses, or the last tombstone can go.
    pub fn next_deadline(&self) -> Option<Tick> {
        let lapse = self.live.iter().filter_map(Call::lapses).min();
        let forgotten = self.ended.back().map(|dead| dead.until);
        [lapse, forgotten].into_iter().flatten().min()
    }

    /// Forgets the calls that ended long enough ago, and lets go of those that have rung for too long. Should one of
    /// these be spoken of again, it is there again.
    pub fn pass_time(&mut self, now: Tick) {
        self.forget_ended(now);
        let parting = &mut self.parting;
        self.live.retain(|call| call.lapses().is_none_or(|at| at > now) || part(parting, call));
    }

    /// What the clock of an earlier run said can only shorten: no call was spoken of after `now`, and no tombstone lasts
    /// longer than one that is left now. To be called once, after a restart.
    pub fn shorten(&mut self, now: Tick) {
        for call in &mut self.live {
            call.said = call.said.min(now);
        }
        for dead in &mut self.ended {
            dead.until = dead.until.min(now.after(TOMBSTONE_LASTS));
        }
    }

    fn forget_ended(&mut self, now: Tick) {
        while self.ended.front().is_some_and(|dead| dead.until <= now) {
            self.ended.pop_front();
        }
    }

    fn update(&mut self, now: Tick, publication: PublicationNo, report: &CallReport) {
        if self.ended.iter().any(|dead| same_call(&dead.report, report)) {
            return;
        }
        if let Some(call) = self.live.iter_mut().find(|call| call.is(report, publication)) {
            call.merge(report);
            call.said = now;
            if !call.holders.contains(&publication) {
                call.holders.push(publication);
            }
        } else if self.live.len() < MAX_CALLS {
            let mut shown = report.clone();
            shown.id = self.unique_id(&report.id);
            let published_id = report.id.clone();
            self.live.push(Call { report: shown, published_id, holders: vec![publication], said: now });
        }
    }

    fn end(&mut self, now: Tick, publication: PublicationNo, report: &CallReport) {
        let parting = &mut self.parting;
        self.live.retain(|call| !call.is(report, publication) || part(parting, call));
        if report.call_id.is_none() || self.ended.iter().any(|dead| dead.report == *report) {
            return;
        }
        if self.ended.len() == MAX_TOMBSTONES {
            self.ended.pop_front();
        }
        self.ended.push_back(Tombstone { report: report.clone(), until: Tick(now.0 + TOMBSTONE_LASTS) });
    }

    fn release_if(&mut self, publication: PublicationNo, gone: impl Fn(&Call) -> bool) {
        let parting = &mut self.parting;
        self.live.retain_mut(|call| {
            if call.holders.contains(&publication) && gone(call) {
                call.holders.retain(|holder| *holder != publication);
            }
            !call.holders.is_empty() || part(parting, call)
        });
    }

    /// Two publishers may use one id for two calls; what we show must tell them apart (RFC 4235 section 4.1.1).
    fn unique_id(&self, wanted: &str) -> Box<str> {
        let taken = |id: &str| RESERVED_IDS.contains(&id) || self.live.iter().any(|call| *call.report.id == *id);
        if !taken(wanted) {
            return wanted.into();
        }
        // At most MAX_CALLS ids are taken, so one of these is free.
        (2..=MAX_CALLS + 2).map(|n| format!("{wanted}-{n}")).find(|id| !taken(id)).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests;

//! Calls of a presentity, as state machines (rule 4).
//!
//! A call is identified by its Call-ID and tags, whichever publisher reports it and under whichever entity-tag. Its
//! state only moves up. Once terminated, it is gone and leaves a *tombstone* of exactly that call, so that a late or
//! reordered report cannot revive it. A live call has a *holder* for every publication that reports it; when the last
//! of them is gone, so is the call. A call that is not answered yet also has a *lease*, because a publication may be
//! refreshed for hours without a word about the call.
//!
//! Everything here is bounded, and no bound darkens a lamp. The first `MAX_SHOWN` live calls are shown. More, up to
//! `MAX_KNOWN` in all, are kept by their identifiers only, so that their end is recognised and they move up when a
//! shown call ends. For a publication with still more calls, it is only known that it has more.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Tick;
use super::publication::PublicationNo;
use super::state::{CallReport, CallState, Party, PublishedCalls, RESERVED_IDS};

mod earlier;
mod index;

pub use earlier::EarlierCalls;
use index::Index;

/// Limit on live calls of one presentity that are shown. Kazoo's limit is 20.
pub const MAX_SHOWN: usize = 64;
/// Limit on live calls of one presentity that are kept by their identifiers, shown or not: as many as a full document
/// of 64 kB with addresses and tags can list.
const MAX_KNOWN: usize = 256;
/// Limit on the identifiers of calls which are not shown, together (octets): the size of a document.
const MAX_NAMES: usize = 65_536;
/// Limit on tombstones of one presentity, enough for a queue that ends a call nearly every second. Beyond it the
/// oldest is dropped. A late report of that call would then show it again, for as long as its publication lasts: that
/// is better than not to show a call that is live.
const MAX_TOMBSTONES: usize = 256;
/// Number of calls that ended last whose parties are kept, for watchers of one dialog alone.
const MAX_ENDED_IN_FULL: usize = 8;
/// Limit on branches of a call that a report which matches all of them is compared with.
const MAX_BRANCHES: usize = 16;
/// Limit on calls whose end is shown in one document.
const MAX_PARTING: usize = 8;
/// Lease of the fact that a publication has more calls than are kept, unless it reports so again (ms): one day,
/// longer than any such call. Only a publisher of partial documents can leave it to this lease.
const BEYOND_LASTS: u64 = 86_400_000;
/// Lifetime of a tombstone (ms). Long enough for every retransmission and reordered update, and for a publisher that
/// republishes a moment too late.
const TOMBSTONE_LASTS: u64 = 300_000;

/// Lease of a call that is trying or ringing, unless it is reported again (ms). Timer C of a proxy fires after three
/// minutes (RFC 3261 section 16.6); a call without a report for much longer has been forgotten by its publisher.
const RINGING_LASTS: u64 = 600_000;

/// Stand-in that a lamp shows while the only live calls are those that are known to exist but not by their
/// identifiers.
static STAND_IN: LazyLock<CallReport> = LazyLock::new(|| CallReport {
    id: "more".into(),
    call_id: None,
    local_tag: None,
    remote_tag: None,
    direction: None,
    state: CallState::Confirmed,
    local: Party::default(),
    remote: Party::default(),
    held: None,
});

/// All calls of a presentity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    /// Live calls. The first `MAX_SHOWN` are shown; of the others only the identifiers are kept.
    live: Vec<Call>,
    ended: VecDeque<Tombstone>,
    /// Publications that have more live calls than are kept; hardly ever any.
    #[allow(clippy::box_collection)] // one word, as most presentities have none
    beyond: Option<Box<Vec<Beyond>>>,
    /// Calls that were live when documents were last composed, and have ended since.
    #[serde(skip)]
    parting: Vec<CallReport>,
}

/// Publication with more live calls than are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Beyond {
    publication: PublicationNo,
    /// Time of its latest report of one of them.
    said: Tick,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    report: CallReport,
    /// Id as published; `report.id` may differ to be unique.
    published_id: Box<str>,
    holders: Vec<PublicationNo>,
    /// Time of the latest report.
    said: Tick,
}

/// A live call, with the reason why it is still live.
#[derive(Clone, Copy, Debug)]
pub struct CallDetail<'a> {
    /// State of the call.
    pub report: &'a CallReport,
    /// Publications that report it. It ends with the last of them.
    pub holders: &'a [PublicationNo],
    /// Time of the latest report.
    pub said: Tick,
    /// Time at which its lease expires, if it has not been answered yet.
    pub lapses: Option<Tick>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tombstone {
    report: CallReport,
    until: Tick,
}

/// Returns true unless both values are known and differ.
fn agree<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Returns true if two reports that both name a Call-ID are about the same call. Publishers may leave tags out
/// (Kamailio sends them only while the call rings), and the branches of a forked call differ in the remote tag.
fn same_call(a: &CallReport, b: &CallReport) -> bool {
    a.call_id.is_some()
        && a.call_id == b.call_id
        && agree(&a.local_tag, &b.local_tag)
        && agree(&a.remote_tag, &b.remote_tag)
        && agree(&a.direction, &b.direction)
}

/// Number of tags that one of two reports about the same call leaves out, so that they could not be compared.
fn tags_left_out(a: &CallReport, b: &CallReport) -> usize {
    let tags = [(&a.local_tag, &b.local_tag), (&a.remote_tag, &b.remote_tag)];
    tags.iter().filter(|(a, b)| a.is_none() || b.is_none()).count()
}

/// Priority of a state for a lamp, the lowest number first. A ringing call can be answered, so it comes before an
/// answered one, which makes the extension busy.
fn rank(state: CallState) -> u8 {
    match state {
        CallState::Early => 0,
        CallState::Confirmed => 1,
        CallState::Proceeding => 2,
        CallState::Trying => 3,
        CallState::Terminated => 4,
    }
}

impl Call {
    /// Time at which its lease expires. None for an answered call, which may last for days, and for a report without
    /// Call-ID, which is no call.
    fn lapses(&self) -> Option<Tick> {
        let rings = self.report.state < CallState::Confirmed && self.report.call_id.is_some();
        rings.then(|| self.said.after(RINGING_LASTS))
    }

    /// Removes a publication from the holders; true if none is left.
    fn release(&mut self, publication: PublicationNo) -> bool {
        self.holders.retain(|holder| *holder != publication);
        self.holders.is_empty()
    }

    fn is(&self, report: &CallReport, publication: PublicationNo) -> bool {
        match (&self.report.call_id, &report.call_id) {
            (Some(_), Some(_)) => same_call(&self.report, report),
            // Without a Call-ID, only the publication that reported the id can mean it.
            (None, None) => self.published_id == report.id && self.holders.contains(&publication),
            _ => false,
        }
    }

    /// Merges a report. Fields that the report leaves out are unchanged.
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
        // The state of an extension is complete each time: Asterisk ends a hold by leaving the parameter out.
        old.held = if old.call_id.is_none() { new.held } else { new.held.or(old.held) };
    }

    /// Size of its identifiers (octets).
    fn name_len(&self) -> usize {
        let CallReport { id, call_id, local_tag, remote_tag, .. } = &self.report;
        let optional = [call_id, local_tag, remote_tag].into_iter().flatten().map(|text| text.len());
        id.len() + self.published_id.len() + optional.sum::<usize>()
    }
}

impl Beyond {
    fn lapses(&self) -> Tick {
        self.said.after(BEYOND_LASTS)
    }
}

impl Tombstone {
    /// Tombstone of a known call, with the identifiers of both the call and the report.
    fn of(now: Tick, call: &Call, report: &CallReport) -> Tombstone {
        let mut tombstone = Tombstone::new(now, report);
        let (dead, known) = (&mut tombstone.report, &call.report);
        dead.id.clone_from(&known.id);
        dead.direction = dead.direction.or(known.direction);
        for (tag, known) in [(&mut dead.local_tag, &known.local_tag), (&mut dead.remote_tag, &known.remote_tag)] {
            if tag.is_none() {
                tag.clone_from(known);
            }
        }
        tombstone
    }

    fn new(now: Tick, report: &CallReport) -> Tombstone {
        let report = CallReport { state: CallState::Terminated, held: None, ..report.clone() };
        Tombstone { report, until: now.after(TOMBSTONE_LASTS) }
    }
}

/// State while one document is applied.
struct Round {
    now: Tick,
    publication: PublicationNo,
    live: Index,
    ended: Index,
    /// Result for each live call.
    news: Vec<News>,
    /// Hashes of the ids that are taken.
    ids: HashSet<u64>,
    hasher: RandomState,
    /// Number of calls that were added.
    added: usize,
}

/// Result of a document for a live call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Alive,
    Ended,
}

impl Round {
    fn new(now: Tick, publication: PublicationNo, calls: &Calls) -> Round {
        let (mut live, mut ended) = (Index::default(), Index::default());
        calls.live.iter().for_each(|call| live.push(&call.report, &call.published_id));
        calls.ended.iter().for_each(|dead| ended.push(&dead.report, &dead.report.id));
        let hasher = RandomState::new();
        let ids = calls.live.iter().map(|call| hasher.hash_one(&*call.report.id)).collect();
        let news = vec![News::Nothing; calls.live.len()];
        Round { now, publication, live, ended, news, ids, hasher, added: 0 }
    }

    /// Returns a free id, `wanted` if possible. Two publishers may use one id for two calls, but our documents must
    /// distinguish them (RFC 4235 section 4.1.1).
    fn take_id(&mut self, wanted: &str) -> Box<str> {
        let mut take = |id: &str| !RESERVED_IDS.contains(&id) && self.ids.insert(self.hasher.hash_one(id));
        if take(wanted) {
            return wanted.into();
        }
        // One of these is free, as fewer ids are taken.
        (2..=2 * MAX_KNOWN + 3).map(|n| format!("{wanted}-{n}")).find(|id| take(id)).unwrap_or_default().into()
    }
}

impl Calls {
    /// Applies the calls that a publication reports. One report is about one call. Calls that a full report does not
    /// list are released before the limits are applied.
    pub fn apply(&mut self, now: Tick, publication: PublicationNo, report: &PublishedCalls) {
        self.forget_ended(now);
        if report.full {
            self.forget_beyond(|beyond| beyond.publication == publication);
        }
        let mut round = Round::new(now, publication, self);
        for call in &report.calls {
            match call.state {
                CallState::Terminated => self.end(&mut round, call),
                _ => self.update(&mut round, call),
            }
        }
        self.let_go_if(|at, call| match round.news[at] {
            News::Ended => true,
            News::Nothing if report.full => call.release(publication),
            News::Nothing | News::Alive => false,
        });
        self.keep_to_limits(now);
    }

    /// Releases a publication that is gone, and ends every call that only it reported.
    pub fn release(&mut self, publication: PublicationNo) {
        self.forget_beyond(|beyond| beyond.publication == publication);
        self.let_go_if(|_, call| call.release(publication));
    }

    /// Forgets every call, the tombstones too, so that the next report of a live call counts again.
    pub fn reset(&mut self) {
        *self = Calls::default();
    }

    /// Live calls that are shown, the one that matters most to a lamp first.
    pub fn ranked(&self) -> Vec<&CallReport> {
        let mut calls: Vec<_> = self.live.iter().take(MAX_SHOWN).map(|call| &call.report).collect();
        calls.sort_by_key(|call| rank(call.state));
        if calls.is_empty() && self.beyond.is_some() {
            calls.push(&STAND_IN);
        }
        calls
    }

    /// Live calls that are shown, with all that is known of them, in the order in which they came.
    pub fn stories(&self) -> impl Iterator<Item = CallDetail<'_>> {
        self.live.iter().take(MAX_SHOWN).map(|call| CallDetail {
            report: &call.report,
            holders: &call.holders,
            said: call.said,
            lapses: call.lapses(),
        })
    }

    /// Number of live calls that are kept, shown or not.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Number of live calls that are kept but not shown.
    pub fn not_shown(&self) -> usize {
        self.live.len().saturating_sub(MAX_SHOWN)
    }

    /// Publications that have still more live calls.
    pub fn with_more(&self) -> impl Iterator<Item = PublicationNo> {
        self.beyond.iter().flat_map(|all| all.iter()).map(|beyond| beyond.publication)
    }

    /// Calls that have just ended. Their end is still to be shown to watchers, once (RFC 4235 section 3.7.1).
    pub fn parting(&self) -> impl Iterator<Item = &CallReport> {
        self.parting.iter().filter(|gone| self.live.iter().all(|call| call.report.id != gone.id))
    }

    /// Calls that are remembered as ended, the latest first.
    pub fn ended(&self) -> impl Iterator<Item = &CallReport> {
        self.ended.iter().rev().map(|dead| &dead.report)
    }

    /// Clears the calls that have just ended, once documents with their end have been composed.
    pub fn parted(&mut self) {
        self.parting.clear();
    }

    /// True if no call is live.
    pub fn is_quiet(&self) -> bool {
        self.live.is_empty() && self.beyond.is_none()
    }

    /// True if there are tombstones.
    pub fn remembers(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Time at which [`Calls::pass_time`] has something to do next: the lease of a ringing call expires, or the last
    /// tombstone can be dropped.
    pub fn next_deadline(&self) -> Option<Tick> {
        let lapse = self.live.iter().filter_map(Call::lapses).min();
        let forgotten = self.ended.back().map(|dead| dead.until);
        let beyond = self.beyond.iter().flat_map(|all| all.iter()).map(Beyond::lapses).min();
        [lapse, forgotten, beyond].into_iter().flatten().min()
    }

    /// Drops expired tombstones, and ends the calls whose lease has expired. A call that ended so has no tombstone: a
    /// later report shows it again.
    pub fn pass_time(&mut self, now: Tick) {
        self.forget_ended(now);
        self.forget_beyond(|beyond| beyond.lapses() <= now);
        self.let_go_if(|_, call| call.lapses().is_some_and(|at| at <= now));
    }

    /// Bounds the times that an earlier run has written, as its clock may have been wrong. No report is later than
    /// `now`, and no tombstone lasts longer than a new one. To be called once, after a restart.
    pub fn shorten(&mut self, now: Tick) {
        for call in &mut self.live {
            call.said = call.said.min(now);
        }
        for dead in &mut self.ended {
            dead.until = dead.until.min(now.after(TOMBSTONE_LASTS));
        }
        for beyond in self.beyond.iter_mut().flat_map(|all| all.iter_mut()) {
            beyond.said = beyond.said.min(now);
        }
    }

    fn forget_ended(&mut self, now: Tick) {
        while self.ended.front().is_some_and(|dead| dead.until <= now) {
            self.ended.pop_front();
        }
    }

    fn forget_beyond(&mut self, gone: impl Fn(&Beyond) -> bool) {
        if let Some(all) = &mut self.beyond {
            all.retain(|beyond| !gone(beyond));
            self.beyond.take_if(|all| all.is_empty());
        }
    }

    fn note_beyond(&mut self, now: Tick, publication: PublicationNo) {
        let all = self.beyond.get_or_insert_default();
        match all.iter_mut().find(|beyond| beyond.publication == publication) {
            Some(beyond) => beyond.said = now,
            None => all.push(Beyond { publication, said: now }),
        }
    }

    /// Removes the calls that are not live any more; `gone` is given the position of each as well. The end of those
    /// that were shown is remembered, to be shown once.
    fn let_go_if(&mut self, mut gone: impl FnMut(usize, &mut Call) -> bool) {
        let parting = &mut self.parting;
        let mut places = 0..;
        self.live.retain_mut(|call| {
            let place = places.next().unwrap_or_default();
            let gone = gone(place, call);
            let new = |parting: &[CallReport]| parting.iter().all(|other| other.id != call.report.id);
            if gone && place < MAX_SHOWN && parting.len() < MAX_PARTING && new(parting) {
                parting.push(CallReport { state: CallState::Terminated, held: None, ..call.report.clone() });
            }
            !gone
        });
    }

    fn update(&mut self, round: &mut Round, report: &CallReport) {
        let Round { now, publication, .. } = *round;
        // A report that leaves tags out may match several branches; it is about the one that matches best.
        let fits = |at: &usize| round.news[*at] != News::Ended && self.live[*at].is(report, publication);
        let best = round.live.candidates(report).filter(fits).take(MAX_BRANCHES).min_by_key(|at| {
            let call = &self.live[*at];
            let foreign = !call.holders.contains(&publication);
            (tags_left_out(&call.report, report), foreign, call.report.state != report.state)
        });
        if let Some(at) = best {
            let call = &mut self.live[at];
            call.merge(report);
            call.said = now;
            if !call.holders.contains(&publication) {
                call.holders.push(publication);
            }
            round.live.learn(at, &call.report);
            round.news[at] = News::Alive;
        } else if self.is_ended(round, report) {
            // A late report of a call that has ended.
        } else if round.added == MAX_KNOWN {
            self.note_beyond(now, publication);
        } else {
            let shown = CallReport { id: round.take_id(&report.id), ..report.clone() };
            let published_id = report.id.clone();
            round.live.push(&shown, &published_id);
            round.news.push(News::Alive);
            round.added += 1;
            self.live.push(Call { report: shown, published_id, holders: vec![publication], said: now });
        }
    }

    fn is_ended(&self, round: &Round, report: &CallReport) -> bool {
        round.ended.candidates(report).any(|at| same_call(&self.ended[at].report, report))
    }

    /// Ends the calls that a report is about. A report with all tags of a call ends that call alone; one that leaves
    /// tags out ends every branch that it matches.
    fn end(&mut self, round: &mut Round, report: &CallReport) {
        let fits = |at: &usize| round.news[*at] != News::Ended && self.live[*at].is(report, round.publication);
        let mut over: Vec<_> = round.live.candidates(report).filter(fits).collect();
        if let Some(exactly) = over.iter().copied().find(|at| tags_left_out(&self.live[*at].report, report) == 0) {
            over = vec![exactly];
        }
        over.iter().for_each(|at| round.news[*at] = News::Ended);
        if report.call_id.is_none() {
            return;
        }
        // The end of an unknown call is remembered, as an earlier report may still arrive, but it displaces no other
        // tombstone.
        let unknown = over.is_empty() && self.ended.len() < MAX_TOMBSTONES && !self.is_ended(round, report);
        let known = over.iter().map(|at| Tombstone::of(round.now, &self.live[*at], report));
        for tombstone in known.chain(unknown.then(|| Tombstone::new(round.now, report))) {
            round.ended.push(&tombstone.report, &tombstone.report.id);
            self.ended.push_back(tombstone);
        }
    }

    /// Applies the limits. The calls that matter most to a lamp are the ones that stay shown.
    fn keep_to_limits(&mut self, now: Tick) {
        self.ended.drain(..self.ended.len().saturating_sub(MAX_TOMBSTONES));
        for dead in self.ended.iter_mut().rev().skip(MAX_ENDED_IN_FULL) {
            (dead.report.local, dead.report.remote) = Default::default();
        }
        if self.live.len() <= MAX_SHOWN {
            return;
        }
        self.live.sort_by_key(|call| rank(call.report.state));
        let mut octets = 0;
        let fit = self.live[MAX_SHOWN..].iter_mut().take(MAX_KNOWN - MAX_SHOWN).take_while(|call| {
            octets += call.name_len();
            octets <= MAX_NAMES
        });
        let fit = fit.map(|call| (call.report.local, call.report.remote) = Default::default()).count();
        for call in self.live.split_off(MAX_SHOWN + fit) {
            call.holders.into_iter().for_each(|publication| self.note_beyond(now, publication));
        }
    }
}

#[cfg(test)]
mod tests;

//! The calls of a presentity as state machines (law 4).
//!
//! A call is known by its Call-ID and tags, whoever reports it and under whatever entity-tag. Its state only moves up;
//! once terminated it is gone and leaves a *tombstone* of exactly that call, so that a late or overtaken report cannot
//! revive it. A live call has a *holder* for every publication that reports it; when the last of them is gone, so is the
//! call. And what only rings has a *lease* of its own, for a publication may be refreshed by the hour without a word
//! about the call.
//!
//! Everything here is bounded, and no bound darkens a lamp: the first [`MAX_SHOWN`] live calls are shown; more, up to
//! [`MAX_KNOWN`] in all, are known by name, so that their end is known as well and they move up when a shown one ends.
//! Of a publication with still more calls it is known that it has more.

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

/// The most live calls of one presentity that are shown. Kazoo stops at 20.
pub const MAX_SHOWN: usize = 64;
/// The most live calls of one presentity that are known by name, shown or not: as many as a full document of 64 kB
/// with addresses and tags can list.
const MAX_KNOWN: usize = 256;
/// The most octets that the names of calls which are not shown may have together: as many as a document.
const MAX_NAMES: usize = 65_536;
/// The most tombstones of one presentity: those of a queue that ends a call nearly every second. Beyond that the oldest
/// goes. A late report of that call would show it again, for as long as the publication that speaks of it lasts: to
/// believe a publisher too much is better than not to show a call.
const MAX_TOMBSTONES: usize = 256;
/// Of so many calls that ended last it is known who took part, for those who watch one dialog alone.
const MAX_ENDED_IN_FULL: usize = 8;
/// The most branches of a call that a report which fits all of them is compared with.
const MAX_BRANCHES: usize = 16;
/// The most calls whose end is shown in one document.
const MAX_PARTING: usize = 8;
/// How long a publication is taken to have more calls than can be known by name, unless it says so again (ms): a day,
/// which no such call lasts. Only a publisher of partial documents can leave it at that.
const BEYOND_LASTS: u64 = 86_400_000;
/// How long a call stays dead (ms). Long enough for every retransmission and overtaken update, and for a publisher
/// that republishes a moment too late.
const TOMBSTONE_LASTS: u64 = 300_000;

/// How long a call may be trying or ringing without anybody saying so again (ms). Timer C ends the patience of a proxy
/// after three minutes (RFC 3261 section 16.6); what is silent for much longer has been forgotten by its publisher.
const RINGING_LASTS: u64 = 600_000;

/// What a lamp shows while only such calls are live of which nothing is known but that they are there.
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
    /// The first [`MAX_SHOWN`] are shown, of the others only the names are known.
    live: Vec<Call>,
    ended: VecDeque<Tombstone>,
    /// The publications that have more live calls than are known by name; hardly ever any.
    #[allow(clippy::box_collection)] // most presentities have none, and spend one word on it
    beyond: Option<Box<Vec<Beyond>>>,
    /// Calls that were live when documents were last composed, and are not any more.
    #[serde(skip)]
    parting: Vec<CallReport>,
}

/// A publication with more live calls than are known by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Beyond {
    publication: PublicationNo,
    /// When it last spoke of one of them.
    said: Tick,
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
pub struct CallDetail<'a> {
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

/// How many tags of two reports about the same call do not speak for that, for one of them leaves them out.
fn tags_left_out(a: &CallReport, b: &CallReport) -> usize {
    let tags = [(&a.local_tag, &b.local_tag), (&a.remote_tag, &b.remote_tag)];
    tags.iter().filter(|(a, b)| a.is_none() || b.is_none()).count()
}

/// How much a state matters to a lamp; the least number first: what rings can be answered, what talks is busy.
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
    /// When its lease ends, if it has one: what talks may talk for days, and what has no Call-ID is no call.
    fn lapses(&self) -> Option<Tick> {
        let rings = self.report.state < CallState::Confirmed && self.report.call_id.is_some();
        rings.then(|| self.said.after(RINGING_LASTS))
    }

    /// A publication does not speak of it any more; true if none does.
    fn release(&mut self, publication: PublicationNo) -> bool {
        self.holders.retain(|holder| *holder != publication);
        self.holders.is_empty()
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
        // The state of an extension is whole each time: Asterisk takes a hold back by saying nothing of it.
        old.held = if old.call_id.is_none() { new.held } else { new.held.or(old.held) };
    }

    /// The octets of all that names it.
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
    /// Of a call that has ended, with all that was known or is reported of its name.
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

/// What one document says, while it is applied.
struct Round {
    now: Tick,
    publication: PublicationNo,
    live: Index,
    ended: Index,
    /// What has become of each live call.
    news: Vec<News>,
    /// Hashes of the ids that are taken.
    ids: HashSet<u64>,
    hasher: RandomState,
    /// How many calls are new.
    added: usize,
}

/// What a document says of a live call.
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

    /// Two publishers may use one id for two calls; what we show must tell them apart (RFC 4235 section 4.1.1).
    fn take_id(&mut self, wanted: &str) -> Box<str> {
        let mut take = |id: &str| !RESERVED_IDS.contains(&id) && self.ids.insert(self.hasher.hash_one(id));
        if take(wanted) {
            return wanted.into();
        }
        // One of so many is free, for fewer are taken.
        (2..=2 * MAX_KNOWN + 3).map(|n| format!("{wanted}-{n}")).find(|id| take(id)).unwrap_or_default().into()
    }
}

impl Calls {
    /// Applies what a publication reports of calls. One report is about one call. What a full report does not list is
    /// released before it is looked which calls there is room for.
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

    /// A publication is gone, and with it every call that only it reported.
    pub fn release(&mut self, publication: PublicationNo) {
        self.forget_beyond(|beyond| beyond.publication == publication);
        self.let_go_if(|_, call| call.release(publication));
    }

    /// Forgets every call, the ended ones too, so that the next report of a live call counts again.
    pub fn reset(&mut self) {
        *self = Calls::default();
    }

    /// The live calls that are shown, the one that matters most to a lamp first.
    pub fn ranked(&self) -> Vec<&CallReport> {
        let mut calls: Vec<_> = self.live.iter().take(MAX_SHOWN).map(|call| &call.report).collect();
        calls.sort_by_key(|call| rank(call.state));
        if calls.is_empty() && self.beyond.is_some() {
            calls.push(&STAND_IN);
        }
        calls
    }

    /// The live calls that are shown with all that is known of them, in the order in which they came.
    pub fn stories(&self) -> impl Iterator<Item = CallDetail<'_>> {
        self.live.iter().take(MAX_SHOWN).map(|call| CallDetail {
            report: &call.report,
            holders: &call.holders,
            said: call.said,
            lapses: call.lapses(),
        })
    }

    /// How many calls are known to be live, shown or not.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// How many of these are not shown.
    pub fn not_shown(&self) -> usize {
        self.live.len().saturating_sub(MAX_SHOWN)
    }

    /// The publications that have still more live calls.
    pub fn with_more(&self) -> impl Iterator<Item = PublicationNo> {
        self.beyond.iter().flat_map(|all| all.iter()).map(|beyond| beyond.publication)
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
        self.live.is_empty() && self.beyond.is_none()
    }

    /// True if calls that ended are remembered.
    pub fn remembers(&self) -> bool {
        !self.ended.is_empty()
    }

    /// When [`Calls::pass_time`] has something to do next: a ringing call lapses, or the last tombstone can go.
    pub fn next_deadline(&self) -> Option<Tick> {
        let lapse = self.live.iter().filter_map(Call::lapses).min();
        let forgotten = self.ended.back().map(|dead| dead.until);
        let beyond = self.beyond.iter().flat_map(|all| all.iter()).map(Beyond::lapses).min();
        [lapse, forgotten, beyond].into_iter().flatten().min()
    }

    /// Forgets the calls that ended long enough ago, and lets go of those that have rung for too long. Should one of
    /// these be spoken of again, it is there again.
    pub fn pass_time(&mut self, now: Tick) {
        self.forget_ended(now);
        self.forget_beyond(|beyond| beyond.lapses() <= now);
        self.let_go_if(|_, call| call.lapses().is_some_and(|at| at <= now));
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

    /// Takes out the calls that are not live any more, each named by its place as well; the end of those that were shown
    /// will be shown.
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
        // A report that leaves tags out may fit several branches: it is about the one that fits best.
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
            // It is late.
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

    /// Ends the calls that a report is about. One that has the tags of a call ends that one alone; one that leaves tags
    /// out ends every branch that it fits.
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
        // That an unknown call has ended is worth remembering, for what was overtaken, but takes no other's place.
        let unknown = over.is_empty() && self.ended.len() < MAX_TOMBSTONES && !self.is_ended(round, report);
        let known = over.iter().map(|at| Tombstone::of(round.now, &self.live[*at], report));
        for tombstone in known.chain(unknown.then(|| Tombstone::new(round.now, report))) {
            round.ended.push(&tombstone.report, &tombstone.report.id);
            self.ended.push_back(tombstone);
        }
    }

    /// Cuts back to what there is room for. It is the calls that matter most to a lamp which are shown.
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

//! The oracle: the correct state of every lamp, from a model that shares no code with the server.
//!
//! For each PUBLISH that the server answers with 200, the oracle applies the publisher's intent (not the body it
//! sent), at the moment of that decision. It also applies what operators do. A PUBLISH that never arrived or was
//! refused does not count, because it was never acknowledged. A decision that is not yet durable when the server
//! crashes may be lost; [`Oracle::crash`] then goes back to the state in the journal.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::lamp::{Lamp, Line};
use crate::presence::PackageId;
use crate::presence::state::{CallState, Direction};

/// Time for which an ended call stays ended (ms), as the server promises.
const STAYS_ENDED: u64 = 300_000;
/// Tolerance for the server's expiry timers (ms): it may notice an expiry this much late.
pub const CLOCK_TOLERANCE_MS: u64 = 260;

/// Time after an expiry within which the journal may not know of it (ms). No NOTIFY about it has left before.
pub const NOT_KEPT_YET: u64 = 3_000;
/// Number of expired publications remembered for that.
const MOST_EXPIRED: usize = 64;

/// State of one call in a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallClaim {
    /// [Label](super::lamp::label) of the call.
    pub call: String,
    /// Side of the presentity: caller or callee.
    pub direction: Direction,
    /// State of the call.
    pub state: CallState,
    /// True if the call is on hold.
    pub held: bool,
}

/// Content of a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Calls. In a full document, calls that are not listed have ended as far as this publication is concerned.
    Calls {
        /// True if the document lists all calls.
        full: bool,
        /// The listed calls.
        calls: Vec<CallClaim>,
    },
    /// State of an extension, without a Call-ID (Asterisk).
    Extension(CallState),
    /// New and old voice messages.
    Mailbox(u32, u32),
    /// Note about a person.
    Note(String),
    /// Nothing new (a refresh).
    Still,
}

/// A PUBLISH with its intended meaning.
#[derive(Clone, Debug)]
pub struct PublisherClaim {
    /// Index of the presentity.
    pub presentity: usize,
    /// Event package of the PUBLISH.
    pub package: PackageId,
    /// Entity-tag in SIP-If-Match.
    pub if_match: Option<String>,
    /// Content of the PUBLISH.
    pub statement: Claim,
    /// Requested lifetime (seconds).
    pub expires: u32,
}

#[derive(Clone, Debug)]
struct Publication {
    number: u64,
    etag: String,
    /// The previous entity-tag, and true if it is still accepted as well: after a crash, until the present one has
    /// been used.
    replaced: Option<String>,
    in_doubt: bool,
    expires_at: u64,
    /// Granted lifetime (ms).
    granted: u64,
    extension: CallState,
    mailbox: Option<(u32, u32)>,
    note: Option<String>,
}

#[derive(Clone, Debug)]
struct Call {
    state: CallState,
    direction: Direction,
    held: bool,
    holders: Vec<u64>,
}

/// State of one presentity.
#[derive(Clone, Debug, Default)]
struct Person {
    publications: Vec<Publication>,
    calls: BTreeMap<String, Call>,
    /// Tombstones: times at which calls ended. Shared between the versions of a person, because the map grows and
    /// changes rarely.
    ended: Rc<HashMap<String, u64>>,
    /// Number of times that each call was legitimately forgotten, after which it may start anew.
    lives: Rc<HashMap<String, u32>>,
    manual: Option<CallState>,
    expired_at: Option<u64>,
    /// The last publications that expired, and the times.
    expired: Vec<(String, u64)>,
    numbers: u64,
    changed_at: u64,
}

/// One presentity: its state now, and its state before each decision that is not durable yet.
#[derive(Debug, Default)]
struct Story {
    now: Person,
    before: Vec<(u64, Person)>,
}

/// The oracle for all presentities.
#[derive(Debug, Default)]
pub struct Oracle {
    people: Vec<Story>,
    /// Time before which no publication expires.
    soonest: u64,
}

impl Oracle {
    /// An oracle with this number of presentities, all without state.
    pub fn new(presentities: usize) -> Oracle {
        Oracle { people: (0..presentities).map(|_| Story::default()).collect(), soonest: 0 }
    }

    /// Expires publications; returns true if that changes the state of this presentity.
    pub fn pass_time(&mut self, now: u64, presentity: usize) -> bool {
        self.people[presentity].now.pass_time(now)
    }

    /// Returns true if a publication may have expired.
    pub fn may_expire(&mut self, now: u64) -> bool {
        let due = now >= self.soonest;
        if due {
            let all = self.people.iter().flat_map(|story| &story.now.publications);
            let later = all.map(|p| p.expires_at).filter(|at| *at > now).min();
            self.soonest = later.unwrap_or(u64::MAX);
        }
        due
    }

    /// Time of the next expiry of a publication of this presentity.
    pub fn next_expiry(&self, presentity: usize) -> Option<u64> {
        self.people[presentity].now.publications.iter().map(|p| p.expires_at).min()
    }

    /// Returns true if the server may still show what an expiry has just ended.
    pub fn is_uncertain(&self, now: u64, presentity: usize) -> bool {
        let person = &self.people[presentity].now;
        person.expired_at.is_some_and(|at| now <= at + CLOCK_TOLERANCE_MS)
    }

    /// Latest time at which the state of a presentity may have changed.
    pub fn changed_at(&self, presentity: usize) -> u64 {
        let person = &self.people[presentity].now;
        person.changed_at.max(person.expired_at.unwrap_or_default())
    }

    /// Returns true if an entity-tag is current; none if it is about to expire.
    pub fn knows(&self, now: u64, presentity: usize, etag: &str) -> Option<bool> {
        match self.people[presentity].now.publications.iter().find(|p| p.is_named(etag)) {
            Some(publication) if publication.expires_at <= now + 1 => None,
            found => Some(found.is_some()),
        }
    }

    /// Entity-tags that the server must know.
    pub fn etags(&self, now: u64, presentity: usize) -> impl Iterator<Item = &str> {
        let all = self.people[presentity].now.publications.iter();
        all.filter(move |p| p.expires_at > now + CLOCK_TOLERANCE_MS).map(|p| p.etag.as_str())
    }

    /// Entity-tags that may return after a crash. They include those that expired after `since`, because the journal
    /// may not know of those expiries.
    pub fn may_come_back(&self, since: u64, presentity: usize) -> impl Iterator<Item = &str> {
        let person = &self.people[presentity].now;
        let expired = person.expired.iter().filter(move |(_, at)| *at > since);
        person.publications.iter().map(|p| p.etag.as_str()).chain(expired.map(|(etag, _)| etag.as_str()))
    }

    /// Applies a PUBLISH that the server has decided, with this decision number, to answer with 200.
    pub fn accepted(&mut self, now: u64, decision: u64, said: &PublisherClaim, etag: &str) {
        let expires_at = now + u64::from(said.expires) * 1_000;
        self.soonest = self.soonest.min(expires_at);
        let person = self.change(now, decision, said.presentity);
        let known = said.if_match.as_ref().and_then(|old| person.publications.iter().position(|p| p.is_named(old)));
        let index = known.unwrap_or_else(|| {
            person.numbers += 1;
            person.publications.push(Publication {
                number: person.numbers,
                etag: String::new(),
                replaced: None,
                in_doubt: false,
                expires_at,
                granted: 0,
                extension: CallState::Terminated,
                mailbox: None,
                note: None,
            });
            person.publications.len() - 1
        });
        let publication = &mut person.publications[index];
        let replaced = std::mem::replace(&mut publication.etag, etag.into());
        publication.replaced = known.map(|_| replaced);
        (publication.in_doubt, publication.expires_at) = (false, expires_at);
        publication.granted = expires_at - now;
        let number = publication.number;
        match &said.statement {
            Claim::Still => {}
            Claim::Extension(state) => publication.extension = *state,
            Claim::Mailbox(new, old) => publication.mailbox = Some((*new, *old)),
            Claim::Note(note) => publication.note = Some(note.clone()),
            Claim::Calls { full, calls } => person.report(now, number, *full, calls),
        }
    }

    /// Applies an operator's reset.
    pub fn reset(&mut self, now: u64, decision: u64, presentity: usize) {
        let person = self.change(now, decision, presentity);
        let forgotten: Vec<_> = person.calls.keys().chain(person.ended.keys()).cloned().collect();
        for call in forgotten {
            *Rc::make_mut(&mut person.lives).entry(call).or_default() += 1;
        }
        person.calls.clear();
        person.ended = Rc::default();
        person.manual = None;
        for publication in &mut person.publications {
            publication.extension = CallState::Terminated;
        }
    }

    /// Applies an operator's set.
    pub fn set(&mut self, now: u64, decision: u64, presentity: usize, state: CallState) {
        self.change(now, decision, presentity).manual = (state != CallState::Terminated).then_some(state);
    }

    fn change(&mut self, now: u64, decision: u64, presentity: usize) -> &mut Person {
        let story = &mut self.people[presentity];
        story.before.push((decision, story.now.clone()));
        story.now.changed_at = now;
        &mut story.now
    }

    /// The last decision about a presentity that is not durable yet.
    pub fn unkept(&self, presentity: usize) -> Option<u64> {
        self.people[presentity].before.last().map(|(decision, _)| *decision)
    }

    /// Marks the decisions up to this one as durable.
    pub fn kept(&mut self, decision: u64) {
        for story in &mut self.people {
            story.before.retain(|(number, _)| *number > decision);
        }
    }

    /// Rolls back after a crash, or after a refused commit: of the decisions that were not durable, only those that
    /// `survived` remain.
    pub fn crash(&mut self, now: u64, survived: impl Fn(u64) -> bool) {
        self.soonest = 0;
        for story in &mut self.people {
            let first_lost = story.before.iter().rposition(|(decision, _)| survived(*decision)).map_or(0, |at| at + 1);
            if first_lost < story.before.len() {
                story.now = story.before.swap_remove(first_lost).1;
                story.now.changed_at = now;
            }
            story.before.clear();
        }
    }

    /// Shifts all lifetimes: the server's clock will have jumped by `by` ms when it starts again. Lifetimes end that
    /// much sooner or later, but never later than if they were granted at the start.
    pub fn shift(&mut self, now: u64, start: u64, by: i64) {
        self.soonest = 0;
        for story in &mut self.people {
            for publication in &mut story.now.publications {
                let ends = publication.expires_at.saturating_add_signed(-by);
                publication.expires_at = ends.min(start + publication.granted).max(now);
            }
            for until in Rc::make_mut(&mut story.now.ended).values_mut() {
                *until = until.saturating_add_signed(-by).min(start + STAYS_ENDED);
            }
        }
    }

    /// Expiry time and presentity of each publication.
    pub fn expiries(&self) -> Vec<(u64, usize)> {
        let of = |(presentity, story): (usize, &Story)| {
            story.now.publications.iter().map(|p| (p.expires_at, presentity)).collect::<Vec<_>>()
        };
        self.people.iter().enumerate().flat_map(of).collect()
    }

    /// Returns true if any publication has expired since this time.
    pub fn has_expired_since(&self, since: u64) -> bool {
        self.people.iter().any(|story| story.now.expired_at.is_some_and(|at| at > since))
    }

    /// Applies a restart of the server: it notices only now what has expired since this time.
    pub fn restart(&mut self, now: u64, since: u64) {
        for story in &mut self.people {
            story.now.pass_time(now);
            story.now.publications.iter_mut().for_each(|publication| publication.in_doubt = true);
            if story.now.expired_at.is_some_and(|at| at >= since) {
                story.now.expired_at = Some(now);
            }
        }
    }

    /// Number of times that a call was legitimately forgotten.
    pub fn lives_of(&self, presentity: usize, call: &str) -> u32 {
        self.people[presentity].now.lives.get(call).copied().unwrap_or_default()
    }

    /// Correct state of a lamp in a package.
    pub fn lamp(&self, presentity: usize, package: PackageId) -> Lamp {
        let person = &self.people[presentity].now;
        match package.0 {
            0 => Lamp::Calls(person.shown()),
            1 => person.word(),
            _ => {
                let (new, old) = person.publications.iter().filter_map(|p| p.mailbox).next_back().unwrap_or_default();
                Lamp::Mailbox(new, old)
            }
        }
    }
}

impl Publication {
    fn is_named(&self, etag: &str) -> bool {
        self.etag == etag || self.in_doubt && self.replaced.as_deref() == Some(etag)
    }
}

impl Person {
    fn pass_time(&mut self, now: u64) -> bool {
        let mut changed = false;
        while let Some(at) = self.publications.iter().position(|p| p.expires_at <= now) {
            let gone = self.publications.remove(at);
            self.release_if(gone.number, |_| true);
            self.expired_at = self.expired_at.max(Some(gone.expires_at));
            self.expired.push((gone.etag, gone.expires_at));
            if self.expired.len() > MOST_EXPIRED {
                self.expired.remove(0);
            }
            changed = true;
        }
        changed
    }

    fn report(&mut self, now: u64, number: u64, full: bool, calls: &[CallClaim]) {
        for said in calls {
            if said.state == CallState::Terminated {
                self.calls.remove(&said.call);
                Rc::make_mut(&mut self.ended).entry(said.call.clone()).or_insert(now + STAYS_ENDED);
            } else {
                self.live(now, number, said);
            }
        }
        if full {
            self.release_if(number, |id| calls.iter().all(|said| said.call != *id));
        }
    }

    fn live(&mut self, now: u64, number: u64, said: &CallClaim) {
        match self.ended.get(&said.call) {
            Some(until) if *until > now => return,
            Some(_) => {
                Rc::make_mut(&mut self.ended).remove(&said.call);
                *Rc::make_mut(&mut self.lives).entry(said.call.clone()).or_default() += 1;
            }
            None => {}
        }
        let fresh = || Call { state: said.state, direction: said.direction, held: false, holders: Vec::new() };
        let live = self.calls.entry(said.call.clone()).or_insert_with(fresh);
        live.state = live.state.max(said.state);
        live.held = said.held;
        if !live.holders.contains(&number) {
            live.holders.push(number);
        }
    }

    /// Removes calls from a publication that no longer lists them.
    fn release_if(&mut self, number: u64, gone: impl Fn(&String) -> bool) {
        let lives = &mut self.lives;
        self.calls.retain(|id, call| {
            if call.holders.contains(&number) && gone(id) {
                call.holders.retain(|holder| *holder != number);
            }
            if call.holders.is_empty() {
                *Rc::make_mut(lives).entry(id.clone()).or_default() += 1;
            }
            !call.holders.is_empty()
        });
    }

    fn without_call_id(&self) -> impl Iterator<Item = CallState> {
        let extensions = self.publications.iter().map(|p| p.extension);
        extensions.filter(|state| *state != CallState::Terminated).chain(self.manual)
    }

    fn shown(&self) -> Vec<Line> {
        let line = |(id, call): (&String, &Call)| Line { call: id.clone(), state: call.state, held: call.held };
        let mut all: Vec<_> = self.calls.iter().map(line).collect();
        all.extend(self.without_call_id().map(|state| Line { call: String::new(), state, held: false }));
        all.sort();
        all
    }

    fn word(&self) -> Lamp {
        let calls = self.calls.values().map(|call| (call.state, call.direction));
        let all: Vec<_> = calls.chain(self.without_call_id().map(|state| (state, Direction::Recipient))).collect();
        let any = |wanted: fn(&(CallState, Direction)) -> bool| all.iter().any(wanted);
        let (word, activity) = if any(|(state, _)| *state == CallState::Confirmed) {
            ("On the phone", "on-the-phone")
        } else if any(|one| *one == (CallState::Early, Direction::Recipient)) {
            ("Ringing", "busy")
        } else if !all.is_empty() {
            ("On the phone", "on-the-phone")
        } else {
            ("Available", "")
        };
        let note = self.publications.iter().filter_map(|p| p.note.as_deref()).next_back();
        Lamp::Person(note.unwrap_or(word).into(), activity.into())
    }
}

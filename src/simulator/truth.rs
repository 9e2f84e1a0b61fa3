//! The truth: what every lamp should show, by a model of its own that shares no code with the server.
//!
//! It hears what the publishers meant (not the bodies that they sent) for each PUBLISH that the server answered with
//! 200, at the moment of that answer, and what operators did. A PUBLISH that never arrived, or was refused, does not
//! count: nobody was told that it did.

use std::collections::{BTreeMap, HashMap};

use super::lamp::Lamp;
use crate::presence::PackageId;
use crate::presence::facts::{CallState, Direction};

/// How long an ended call stays ended (ms), as the server promises.
const STAYS_ENDED: u64 = 300_000;
/// The server may notice an expiry this much late (ms): its timers are that coarse.
pub const COARSENESS: u64 = 260;

/// What a PUBLISH says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// The state of one call.
    Call {
        /// Call-ID.
        call: String,
        /// Which side the presentity is on.
        direction: Direction,
        /// How far it is.
        state: CallState,
    },
    /// The state of an extension, with no Call-ID (Asterisk).
    Extension(CallState),
    /// New and old voice messages.
    Mailbox(u32, u32),
    /// Nothing new (a refresh).
    Still,
}

/// A PUBLISH as its publisher meant it.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whom it is about.
    pub presentity: usize,
    /// The entity-tag that it named.
    pub if_match: Option<String>,
    /// What it said.
    pub statement: Statement,
    /// For how long (seconds).
    pub expires: u32,
}

#[derive(Debug)]
struct Publication {
    number: u64,
    etag: String,
    expires_at: u64,
    extension: CallState,
    mailbox: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Call {
    state: CallState,
    direction: Direction,
    holders: Vec<u64>,
}

/// One presentity.
#[derive(Debug, Default)]
struct Person {
    publications: Vec<Publication>,
    calls: BTreeMap<String, Call>,
    ended: HashMap<String, u64>,
    /// How often each call was rightly forgotten, so that it may start anew.
    lives: HashMap<String, u32>,
    manual: Option<CallState>,
    expired_at: Option<u64>,
    numbers: u64,
}

/// The truth about all presentities.
#[derive(Debug, Default)]
pub struct Truth {
    people: Vec<Person>,
}

impl Truth {
    /// Nothing is known of so many presentities.
    pub fn new(presentities: usize) -> Truth {
        Truth { people: (0..presentities).map(|_| Person::default()).collect() }
    }

    /// Lets publications expire; true if that changes what is true of this presentity.
    pub fn pass_time(&mut self, now: u64, presentity: usize) -> bool {
        let person = &mut self.people[presentity];
        let mut changed = false;
        while let Some(at) = person.publications.iter().position(|p| p.expires_at <= now) {
            let gone = person.publications.remove(at);
            person.release(gone.number);
            person.expired_at = Some(gone.expires_at);
            changed = true;
        }
        changed
    }

    /// When the next publication expires, and of whom.
    pub fn next_expiry(&self, presentity: usize) -> Option<u64> {
        self.people[presentity].publications.iter().map(|p| p.expires_at).min()
    }

    /// Whether the server may still show what an expiry has just ended.
    pub fn is_uncertain(&self, now: u64, presentity: usize) -> bool {
        let person = &self.people[presentity];
        person.expired_at.is_some_and(|at| now <= at + COARSENESS)
    }

    /// Whether an entity-tag is good; none where it is about to expire.
    pub fn knows(&self, now: u64, presentity: usize, etag: &str) -> Option<bool> {
        match self.people[presentity].publications.iter().find(|p| p.etag == etag) {
            Some(publication) if publication.expires_at <= now + 1 => None,
            found => Some(found.is_some()),
        }
    }

    /// The server has answered a PUBLISH with 200.
    pub fn accepted(&mut self, now: u64, said: &Said, etag: &str) {
        let person = &mut self.people[said.presentity];
        let expires_at = now + u64::from(said.expires) * 1_000;
        let known = said.if_match.as_ref().and_then(|old| person.publications.iter().position(|p| p.etag == *old));
        let index = known.unwrap_or_else(|| {
            person.numbers += 1;
            let number = person.numbers;
            let extension = CallState::Terminated;
            person.publications.push(Publication { number, etag: String::new(), expires_at, extension, mailbox: None });
            person.publications.len() - 1
        });
        let publication = &mut person.publications[index];
        (publication.etag, publication.expires_at) = (etag.into(), expires_at);
        let number = publication.number;
        match &said.statement {
            Statement::Still => {}
            Statement::Extension(state) => publication.extension = *state,
            Statement::Mailbox(new, old) => publication.mailbox = Some((*new, *old)),
            Statement::Call { call, state: CallState::Terminated, .. } => {
                person.calls.remove(call);
                person.ended.entry(call.clone()).or_insert(now + STAYS_ENDED);
            }
            Statement::Call { call, direction, state } => person.live(now, number, call, *direction, *state),
        }
    }

    /// An operator's reset.
    pub fn reset(&mut self, presentity: usize) {
        let person = &mut self.people[presentity];
        let forgotten: Vec<_> = person.calls.keys().chain(person.ended.keys()).cloned().collect();
        for call in forgotten {
            *person.lives.entry(call).or_default() += 1;
        }
        person.calls.clear();
        person.ended.clear();
        person.manual = None;
        for publication in &mut person.publications {
            publication.extension = CallState::Terminated;
        }
    }

    /// An operator's set.
    pub fn set(&mut self, presentity: usize, state: CallState) {
        self.people[presentity].manual = (state != CallState::Terminated).then_some(state);
    }

    /// How often a call was rightly forgotten.
    pub fn lives_of(&self, presentity: usize, call: &str) -> u32 {
        self.people[presentity].lives.get(call).copied().unwrap_or_default()
    }

    /// What the lamp of a package should show.
    pub fn lamp(&self, presentity: usize, package: PackageId) -> Lamp {
        let person = &self.people[presentity];
        match package.0 {
            0 => Lamp::Calls(person.shown()),
            1 => Lamp::Person(person.word().into()),
            _ => {
                let (new, old) = person.publications.iter().filter_map(|p| p.mailbox).next_back().unwrap_or_default();
                Lamp::Mailbox(new, old)
            }
        }
    }
}

impl Person {
    fn live(&mut self, now: u64, number: u64, call: &str, direction: Direction, state: CallState) {
        match self.ended.get(call) {
            Some(until) if *until > now => return,
            Some(_) => {
                self.ended.remove(call);
                *self.lives.entry(call.into()).or_default() += 1;
            }
            None => {}
        }
        let live = self.calls.entry(call.into()).or_insert_with(|| Call { state, direction, holders: Vec::new() });
        live.state = live.state.max(state);
        if !live.holders.contains(&number) {
            live.holders.push(number);
        }
    }

    fn release(&mut self, number: u64) {
        let lives = &mut self.lives;
        self.calls.retain(|id, call| {
            call.holders.retain(|holder| *holder != number);
            if call.holders.is_empty() {
                *lives.entry(id.clone()).or_default() += 1;
            }
            !call.holders.is_empty()
        });
    }

    fn without_call_id(&self) -> impl Iterator<Item = CallState> {
        let extensions = self.publications.iter().map(|p| p.extension);
        extensions.filter(|state| *state != CallState::Terminated).chain(self.manual)
    }

    fn shown(&self) -> Vec<(String, CallState)> {
        let mut all: Vec<_> = self.calls.iter().map(|(id, call)| (id.clone(), call.state)).collect();
        all.extend(self.without_call_id().map(|state| (String::new(), state)));
        all.sort();
        all
    }

    fn word(&self) -> &'static str {
        let calls = self.calls.values().map(|call| (call.state, call.direction));
        let all: Vec<_> = calls.chain(self.without_call_id().map(|state| (state, Direction::Recipient))).collect();
        let any = |wanted: fn(&(CallState, Direction)) -> bool| all.iter().any(wanted);
        if any(|(state, _)| *state == CallState::Confirmed) {
            "On the phone"
        } else if any(|one| *one == (CallState::Early, Direction::Recipient)) {
            "Ringing"
        } else if !all.is_empty() {
            "On the phone"
        } else {
            "Available"
        }
    }
}

//! Publishers: PBXs that publish their calls, with all the race conditions that they are known for.

use std::collections::BTreeMap;

use super::message::{self, Pending};
use super::oracle::{Claim, PublisherClaim};
use super::random::Random;
use super::scenario::Scenario;
use crate::presence::PackageId;
use crate::sip::wire::Message;

mod calls;

use calls::{CallScript, CallSource};

/// Timer of a publisher.
#[derive(Clone, Copy, Debug)]
pub enum PublisherTimer {
    /// A call starts, or the extension, the mailbox or the note changes.
    Busy,
    /// A call changes its state.
    Step(u64),
    /// A request is to be retransmitted.
    Repeat(u64),
    /// A publication is to be refreshed or retried. The second number is the request after which the timer was set.
    Refresh(u64, u64),
}

/// Actions of a publisher.
#[derive(Debug, Default)]
pub struct PublisherActions {
    /// Messages for the server.
    pub sends: Vec<Vec<u8>>,
    /// Timers, each with its delay (ms).
    pub wakes: Vec<(u64, PublisherTimer)>,
    /// Meaning of each new PUBLISH, by Call-ID.
    pub said: Vec<(String, PublisherClaim)>,
}

/// Kind of publisher, by the product whose behaviour it copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherKind {
    /// One publication per call. Changes are sent without waiting for responses; the final state has a lifetime of 11
    /// seconds.
    Kamailio,
    /// Two publishers of that kind that both see every call and do not wait for each other.
    Pair,
    /// One publication per extension with all its calls, as a full document or as a partial one with the changes.
    /// Calls fork and are put on hold. One request at a time.
    Switchboard,
    /// One publication per extension, which has only one state. One request at a time.
    Asterisk,
    /// The same for a mailbox.
    Voicemail,
    /// The same for a note.
    Person,
}

impl PublisherKind {
    fn package(self) -> PackageId {
        PackageId(match self {
            PublisherKind::Voicemail => 2,
            PublisherKind::Person => 1,
            _ => 0,
        })
    }

    /// Returns true if it publishes each call separately, and does not wait for responses.
    fn is_hasty(self) -> bool {
        matches!(self, PublisherKind::Kamailio | PublisherKind::Pair)
    }
}

/// Subject of a publication.
#[derive(Debug)]
enum Subject {
    /// One call.
    Call(CallScript),
    /// All calls of an extension.
    CallSource(CallSource),
    /// A subject with a single state.
    Plain(Claim),
}

/// One publication.
#[derive(Debug)]
struct Paper {
    presentity: usize,
    subject: Subject,
    etag: Option<String>,
    latest: u64,
    waiting: bool,
    again: bool,
    refused: u32,
    unanswered: u32,
}

impl Paper {
    fn is_over(&self) -> bool {
        matches!(&self.subject, Subject::Call(course) if course.is_over())
    }
}

#[derive(Debug)]
struct Request {
    paper: u64,
    pending: Pending,
    said: PublisherClaim,
}

/// A publisher.
#[derive(Debug)]
pub struct Publisher {
    /// Index of the publisher.
    pub number: usize,
    /// Its address.
    pub address: String,
    habit: PublisherKind,
    presentities: Vec<usize>,
    papers: BTreeMap<u64, Paper>,
    requests: BTreeMap<u64, Request>,
    made: u64,
    named: u64,
    /// Number of call changes it has made.
    pub events: u64,
    /// True if it starts no new calls, because the storm is over.
    pub closing: bool,
}

/// Number of refusals, or of missing responses, after which a publisher gives a publication up.
const PATIENCE: u32 = 4;

impl Publisher {
    /// A publisher for some presentities.
    pub fn new(number: usize, address: String, habit: PublisherKind, presentities: Vec<usize>) -> Publisher {
        let (papers, requests) = (BTreeMap::new(), BTreeMap::new());
        let (made, named, events, closing) = (0, 0, 0, false);
        Publisher { number, address, habit, presentities, papers, requests, made, named, events, closing }
    }

    /// Handles a timer.
    pub fn wake(
        &mut self,
        now: u64,
        wake: PublisherTimer,
        plan: &Scenario,
        random: &mut Random,
        out: &mut PublisherActions,
    ) {
        match wake {
            PublisherTimer::Busy if self.closing => {}
            PublisherTimer::Busy => {
                out.wakes.push((random.between(plan.pause.0, plan.pause.1), PublisherTimer::Busy));
                match self.habit.is_hasty() {
                    true => self.start_call(now, plan, random, out),
                    false => self.change(now, plan, random, out),
                }
            }
            PublisherTimer::Step(paper) => {
                let Some(it) = self.papers.get_mut(&paper) else { return };
                let Subject::Call(course) = &mut it.subject else { return };
                if let Some(wait) = course.step() {
                    out.wakes.push((wait, PublisherTimer::Step(paper)));
                }
                (it.refused, it.unanswered) = (0, 0);
                self.events += 1;
                self.publish(now, paper, false, plan, random, out);
            }
            PublisherTimer::Repeat(request) => {
                let Some(it) = self.requests.get_mut(&request) else { return };
                match it.pending.repeat(now) {
                    Some(wait) => {
                        out.sends.push(it.pending.bytes.clone());
                        out.wakes.push((wait, wake));
                    }
                    None => {
                        let paper = it.paper;
                        self.requests.remove(&request);
                        self.no_answer(paper, request, random, out);
                        self.settle(now, paper, plan, random, out);
                    }
                }
            }
            PublisherTimer::Refresh(paper, request) => {
                let Some(it) = self.papers.get(&paper).filter(|it| it.latest == request) else { return };
                let refresh = self.habit.is_hasty() && it.unanswered == 0;
                self.publish(now, paper, refresh, plan, random, out);
            }
        }
    }

    /// Loses all state without ending its publications, as a crash does.
    pub fn die(&mut self) {
        self.papers.clear();
        self.requests.clear();
    }

    fn start_call(&mut self, now: u64, plan: &Scenario, random: &mut Random, out: &mut PublisherActions) {
        let presentity = self.presentities[random.below(self.presentities.len())];
        let id = format!("call-{}-{}@{}", self.number, self.made + 1, plan.name(presentity).1);
        let course = CallScript::drawn(id, random);
        self.events += 1;
        let twin = (self.habit == PublisherKind::Pair).then(|| course.seen_by_another(random));
        for course in std::iter::once(course).chain(twin) {
            self.made += 1;
            let paper = self.made;
            out.wakes.push((course.first_wait(), PublisherTimer::Step(paper)));
            self.papers.insert(paper, fresh(presentity, Subject::Call(course)));
            self.publish(now, paper, false, plan, random, out);
        }
    }

    /// Changes one of the extensions, mailboxes or notes. Its index is the number of its publication.
    fn change(&mut self, now: u64, plan: &Scenario, random: &mut Random, out: &mut PublisherActions) {
        let at = random.below(self.presentities.len());
        let (presentity, paper) = (self.presentities[at], at as u64);
        self.events += 1;
        let it = self.papers.entry(paper).or_insert_with(|| fresh(presentity, Subject::Plain(Claim::Still)));
        self.named += 1;
        let named = self.named;
        let plain = match self.habit {
            PublisherKind::Voicemail => Claim::Mailbox(random.below(4) as u32, random.below(4) as u32),
            PublisherKind::Person => Claim::Note(random.pick(&["in the lab", "at lunch", "on a trip"]).into()),
            PublisherKind::Switchboard => {
                if !matches!(it.subject, Subject::CallSource(_)) {
                    it.subject = Subject::CallSource(CallSource::default());
                }
                let name = || format!("desk-{}-{named}@{}", self.number, plan.name(presentity).1);
                if let Subject::CallSource(desk) = &mut it.subject {
                    desk.change(name, random);
                }
                Claim::Still
            }
            _ => Claim::Extension(random.pick(&calls::UP_AND_DOWN)),
        };
        if plain != Claim::Still {
            it.subject = Subject::Plain(plain);
        }
        (it.refused, it.unanswered) = (0, 0);
        self.publish(now, paper, false, plan, random, out);
    }

    fn publish(
        &mut self,
        now: u64,
        paper: u64,
        refresh: bool,
        plan: &Scenario,
        random: &mut Random,
        out: &mut PublisherActions,
    ) {
        let Some(it) = self.papers.get_mut(&paper) else { return };
        if !self.habit.is_hasty() && it.waiting {
            it.again = true;
            return;
        }
        let over = it.is_over();
        if refresh && (over || it.etag.is_none()) {
            return;
        }
        self.made += 1;
        let request = self.made;
        (it.latest, it.waiting) = (request, true);
        let statement = match &mut it.subject {
            _ if refresh => Claim::Still,
            Subject::Call(course) => course.statement(),
            Subject::CallSource(desk) => desk.statement(it.etag.is_none(), random),
            Subject::Plain(statement) => statement.clone(),
        };
        // Refreshes test nothing more after the storm, so they become rare.
        let lives = if self.closing { 600 } else { random.pick(&[15, 30, 60]) };
        let expires = if over { 11 } else { lives };
        let (presentity, if_match, package) = (it.presentity, it.etag.clone(), self.habit.package());
        let said = PublisherClaim { presentity, package, if_match, statement, expires };
        let call_id = format!("publish{}-{request}", self.number);
        let (user, realm) = plan.name(said.presentity);
        let bytes = message::publish(&said, &self.address, &call_id, user, realm);
        out.sends.push(bytes.clone());
        out.wakes.push((500, PublisherTimer::Repeat(request)));
        out.said.push((call_id, said.clone()));
        self.requests.insert(request, Request { paper, pending: Pending::new(now, 10, bytes), said });
    }

    /// Handles a request that was never answered. It is unknown whether the server accepted it, so the full state is
    /// published again.
    fn no_answer(&mut self, paper: u64, request: u64, random: &mut Random, out: &mut PublisherActions) {
        let Some(it) = self.papers.get_mut(&paper) else { return };
        if let Subject::CallSource(desk) = &mut it.subject {
            desk.say_all();
        }
        it.unanswered += 1;
        if it.latest == request && it.unanswered < PATIENCE {
            out.wakes.push((random.between(1_000, 8_000), PublisherTimer::Refresh(paper, request)));
        }
    }

    /// Handles the end of a request, answered or timed out.
    fn settle(&mut self, now: u64, paper: u64, plan: &Scenario, random: &mut Random, out: &mut PublisherActions) {
        let busy = self.requests.values().any(|r| r.paper == paper);
        let Some(it) = self.papers.get_mut(&paper) else { return };
        it.waiting = busy;
        let again = std::mem::take(&mut it.again);
        if again && !busy {
            return self.publish(now, paper, false, plan, random, out);
        }
        let given_up = it.unanswered == 0 || it.unanswered >= PATIENCE;
        if it.is_over() && !busy && given_up {
            self.papers.remove(&paper);
        }
    }

    /// Handles a response of the server. The error describes a response that no server may send.
    #[allow(clippy::too_many_arguments)]
    pub fn receive(
        &mut self,
        now: u64,
        m: &Message<'_>,
        etag: Option<&str>,
        plan: &Scenario,
        random: &mut Random,
        out: &mut PublisherActions,
    ) -> Result<(), String> {
        let Some(status) = m.status() else { return Err("a publisher was sent a request".into()) };
        let prefix = format!("publish{}-", self.number);
        let Some(number) = m.call_id.strip_prefix(&prefix).and_then(|n| n.parse().ok()) else {
            return Err("a publisher was sent somebody else's answer".into());
        };
        let Some(request) = self.requests.remove(&number) else { return Ok(()) };
        let paper = request.paper;
        let Some(it) = self.papers.get_mut(&paper) else { return Ok(()) };
        it.unanswered = 0;
        match status {
            200 => {
                it.etag = etag.map(String::from);
                it.refused = 0;
                let half = u64::from(request.said.expires) * 500;
                out.wakes.push((half, PublisherTimer::Refresh(paper, it.latest)));
            }
            412 => {
                // The publisher drops the entity-tag and publishes initially, unless another response has brought a
                // newer tag.
                if it.etag == request.said.if_match {
                    it.etag = None;
                }
                if let Subject::CallSource(desk) = &mut it.subject {
                    desk.say_all();
                }
                it.refused += 1;
                if it.refused < PATIENCE {
                    it.waiting = false;
                    self.publish(now, paper, false, plan, random, out);
                }
            }
            // The journal has refused the change or cannot accept it: nothing has happened, so the full state is
            // published again.
            503 => self.no_answer(paper, number, random, out),
            // A late retransmission counts as a merged request (482) after its transaction is forgotten.
            482 => {}
            _ => return Err(format!("a PUBLISH in good order was refused with {status}")),
        }
        self.settle(now, paper, plan, random, out);
        Ok(())
    }
}

fn fresh(presentity: usize, subject: Subject) -> Paper {
    Paper { presentity, subject, etag: None, latest: 0, waiting: false, again: false, refused: 0, unanswered: 0 }
}

//! Publishers: switchboards that tell the server of calls, with all the races that they are known for.

use std::collections::BTreeMap;

use super::message::{self, Pending};
use super::plan::Plan;
use super::random::Random;
use super::truth::{Said, Statement};
use crate::presence::facts::{CallState, Direction};
use crate::sip::wire::Message;

/// What a publisher wants to be woken for.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// A call starts, or the extension or mailbox changes.
    Busy,
    /// A call goes on.
    Step(u64),
    /// A request is to be repeated.
    Repeat(u64),
    /// A publication is to be refreshed; the second number is that of the request that it follows.
    Refresh(u64, u64),
}

/// What a publisher wants done.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Messages for the server.
    pub sends: Vec<Vec<u8>>,
    /// When to be woken (in so many ms).
    pub wakes: Vec<(u64, Wake)>,
    /// What each new PUBLISH means, by its Call-ID.
    pub said: Vec<(String, Said)>,
}

/// Whose habits it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// One publication per call; changes are sent without waiting for answers; the end lives for 11 seconds.
    Kamailio,
    /// One publication per extension that goes up and down; one request at a time.
    Asterisk,
    /// The same for a mailbox.
    Voicemail,
}

#[derive(Debug)]
struct Call {
    presentity: usize,
    statement: Statement,
    etag: Option<String>,
    steps: Vec<(u64, CallState)>,
    latest: u64,
    waiting: bool,
    again: bool,
    refused: u32,
}

#[derive(Debug)]
struct Request {
    call: u64,
    pending: Pending,
    said: Said,
}

/// A publisher.
#[derive(Debug)]
pub struct Publisher {
    /// Its number.
    pub number: usize,
    /// Its address.
    pub address: String,
    habit: Habit,
    presentities: Vec<usize>,
    calls: BTreeMap<u64, Call>,
    requests: BTreeMap<u64, Request>,
    made: u64,
    /// How many changes of calls it has made.
    pub events: u64,
    /// No new calls: the day is over.
    pub closing: bool,
}

impl Publisher {
    /// A publisher for some presentities.
    pub fn new(number: usize, address: String, habit: Habit, presentities: Vec<usize>) -> Publisher {
        let (calls, requests) = (BTreeMap::new(), BTreeMap::new());
        Publisher { number, address, habit, presentities, calls, requests, made: 0, events: 0, closing: false }
    }

    /// Something that it wanted to be woken for.
    pub fn wake(&mut self, now: u64, wake: Wake, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        match wake {
            Wake::Busy if self.closing => {}
            Wake::Busy => {
                out.wakes.push((random.between(plan.pause.0, plan.pause.1), Wake::Busy));
                match self.habit {
                    Habit::Kamailio => self.start_call(now, plan, random, out),
                    Habit::Asterisk | Habit::Voicemail => self.change(now, plan, random, out),
                }
            }
            Wake::Step(call) => {
                let Some(it) = self.calls.get_mut(&call) else { return };
                let (_, next) = it.steps.remove(0);
                if let Statement::Call { state, .. } = &mut it.statement {
                    *state = next;
                }
                if let Some((wait, _)) = it.steps.first() {
                    out.wakes.push((*wait, Wake::Step(call)));
                }
                it.refused = 0;
                self.events += 1;
                self.publish(now, call, false, plan, random, out);
            }
            Wake::Repeat(request) => {
                let Some(it) = self.requests.get_mut(&request) else { return };
                match it.pending.repeat(now) {
                    Some(wait) => {
                        out.sends.push(it.pending.bytes.clone());
                        out.wakes.push((wait, wake));
                    }
                    None => {
                        let call = it.call;
                        self.requests.remove(&request);
                        self.settle(now, call, plan, random, out);
                    }
                }
            }
            Wake::Refresh(call, request) => {
                if self.calls.get(&call).is_some_and(|it| it.latest == request) {
                    self.publish(now, call, self.habit == Habit::Kamailio, plan, random, out);
                }
            }
        }
    }

    /// Dies without a word, and comes back knowing nothing.
    pub fn die(&mut self) {
        self.calls.clear();
        self.requests.clear();
    }

    fn start_call(&mut self, now: u64, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        self.made += 1;
        let (call, presentity) = (self.made, self.presentities[random.below(self.presentities.len())]);
        let id = format!("call-{}-{call}@{}", self.number, plan.name(presentity).1);
        let direction = random.pick(&[Direction::Recipient, Direction::Initiator]);
        // Some changes follow each other within a millisecond, faster than any answer.
        let mut wait = |longest| if random.chance(0.2) { random.between(0, 3) } else { random.between(50, longest) };
        let mut steps = vec![(wait(400), CallState::Early)];
        steps.push((wait(12_000), CallState::Confirmed));
        steps.push((wait(40_000), CallState::Terminated));
        if random.chance(0.25) {
            steps.remove(1);
        }
        if random.chance(0.05) {
            steps.remove(0);
        }
        out.wakes.push((steps[0].0, Wake::Step(call)));
        let statement = Statement::Call { call: id, direction, state: CallState::Trying };
        let (etag, latest, waiting, again, refused) = (None, 0, false, false, 0);
        self.calls.insert(call, Call { presentity, statement, etag, steps, latest, waiting, again, refused });
        self.events += 1;
        self.publish(now, call, false, plan, random, out);
    }

    /// The extension or mailbox number `call` of the list changes.
    fn change(&mut self, now: u64, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        let at = random.below(self.presentities.len());
        let (presentity, call) = (self.presentities[at], at as u64);
        let statement = match self.habit {
            Habit::Voicemail => Statement::Mailbox(random.below(4) as u32, random.below(4) as u32),
            _ => Statement::Extension(random.pick(&[CallState::Early, CallState::Confirmed, CallState::Terminated])),
        };
        self.events += 1;
        let (etag, steps, latest, waiting, again, refused) = (None, Vec::new(), 0, false, false, 0);
        let fresh = || Call { presentity, statement: Statement::Still, etag, steps, latest, waiting, again, refused };
        let it = self.calls.entry(call).or_insert_with(fresh);
        it.statement = statement;
        it.refused = 0;
        self.publish(now, call, false, plan, random, out);
    }

    fn publish(&mut self, now: u64, call: u64, refresh: bool, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        let patient = self.habit != Habit::Kamailio;
        let Some(it) = self.calls.get_mut(&call) else { return };
        if patient && it.waiting {
            it.again = true;
            return;
        }
        let over = matches!(it.statement, Statement::Call { state: CallState::Terminated, .. });
        if refresh && (over || it.etag.is_none()) {
            return;
        }
        self.made += 1;
        let request = self.made;
        (it.latest, it.waiting) = (request, true);
        let statement = if refresh { Statement::Still } else { it.statement.clone() };
        let expires = if over { 11 } else { random.pick(&[15, 30, 60]) };
        let said = Said { presentity: it.presentity, if_match: it.etag.clone(), statement, expires };
        let call_id = format!("publish{}-{request}", self.number);
        let (user, realm) = plan.name(said.presentity);
        let bytes = message::publish(&said, &self.address, &call_id, user, realm);
        out.sends.push(bytes.clone());
        out.wakes.push((500, Wake::Repeat(request)));
        out.said.push((call_id, said.clone()));
        self.requests.insert(request, Request { call, pending: Pending::new(now, 10, bytes), said });
    }

    /// A request has an answer, or will never have one.
    fn settle(&mut self, now: u64, call: u64, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        let busy = self.requests.values().any(|r| r.call == call);
        let Some(it) = self.calls.get_mut(&call) else { return };
        it.waiting = busy;
        let again = std::mem::take(&mut it.again);
        if again && !busy {
            return self.publish(now, call, false, plan, random, out);
        }
        let over = matches!(it.statement, Statement::Call { state: CallState::Terminated, .. });
        if over && !busy {
            self.calls.remove(&call);
        }
    }

    /// An answer of the server. The error is what no server may answer.
    #[allow(clippy::too_many_arguments)]
    pub fn receive(
        &mut self,
        now: u64,
        m: &Message<'_>,
        etag: Option<&str>,
        plan: &Plan,
        random: &mut Random,
        out: &mut Wishes,
    ) -> Result<(), String> {
        let Some(status) = m.status() else { return Err("a publisher was sent a request".into()) };
        let prefix = format!("publish{}-", self.number);
        let Some(number) = m.call_id.strip_prefix(&prefix).and_then(|n| n.parse().ok()) else {
            return Err("a publisher was sent somebody else's answer".into());
        };
        let Some(request) = self.requests.remove(&number) else { return Ok(()) };
        let call = request.call;
        let Some(it) = self.calls.get_mut(&call) else { return Ok(()) };
        match status {
            200 => {
                it.etag = etag.map(String::from);
                it.refused = 0;
                let half = u64::from(request.said.expires) * 500;
                out.wakes.push((half, Wake::Refresh(call, it.latest)));
            }
            412 => {
                // Kamailio forgets the tag and publishes afresh, unless another answer has brought a newer one.
                if it.etag == request.said.if_match {
                    it.etag = None;
                }
                it.refused += 1;
                if it.refused < 4 {
                    it.waiting = false;
                    self.publish(now, call, false, plan, random, out);
                }
            }
            // A late repetition is taken for a merged request when its transaction is forgotten.
            482 => {}
            _ => return Err(format!("a PUBLISH in good order was refused with {status}")),
        }
        self.settle(now, call, plan, random, out);
        Ok(())
    }
}

//! The simulation: the server, the network and all peers, advanced event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::net::SocketAddr;

use bytes::Bytes;

use super::edge::Edge;
use super::invariants::Invariants;
use super::journal::{JournalStep, SimJournal};
use super::ladder::{Ladder, Topic};
use super::message;
use super::network::NetworkConditions;
use super::oracle::{Oracle, PublisherClaim};
use super::phone::{self, Phone};
use super::publisher::{self, Publisher};
use super::random::Random;
use super::scenario::{EDGES, Options, REALMS, Scenario};
use super::server;
use super::tally::Tally;
use crate::journal::Key;
use crate::notifier::{Notifier, Outbox};
use crate::presence::Tick;
use crate::sip::wire;
use crate::transport::{DeliveryToken, Source};

/// An event in virtual time.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives at the server.
    AtServer(Source, Bytes),
    /// A message arrives at a phone, publisher or edge: from an address, or from the server if there is none.
    At(Peer, Option<SocketAddr>, Bytes),
    /// A timer of a phone or publisher fires.
    Phone(usize, phone::Timer),
    Publisher(usize, publisher::PublisherTimer),
    /// A fan-out continues, in this life of the server.
    Continue(u64, u32),
    /// A NOTIFY could not be sent, in this life of the server. It is named by its dialog (Call-ID and the server's
    /// tag) and CSeq.
    Undeliverable(u64, DeliveryToken, (String, String), u32),
    /// The journal takes its next step, in this life of the server.
    Journal(u64, JournalStep),
    /// The server is to crash soon.
    Crash,
    /// This life of the server ends now.
    CrashAt(u64),
    /// The server starts again.
    Restart,
    /// Liveness check of all dialogs.
    RollCall,
    /// A publication of this presentity may have expired.
    Expiry(usize),
    /// A fault is injected.
    Trouble,
    /// The fault of a phone ends, unless a newer fault has replaced it.
    Recovery(usize, u64),
    /// A phone opens a new connection.
    Reconnect(usize),
    /// The tenant that is not configured in this life of the server is configured again.
    TenantReturns(u64),
    /// A publisher can reach the server again.
    Reunion(usize, u64),
}

/// One end of the network, apart from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Phone(usize),
    Publisher(usize),
    Edge(usize),
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Virtual time of the violation (ms).
    pub at: u64,
    /// Number of events before it.
    pub step: u64,
    /// Description of the violation.
    pub law: String,
    /// Topic of the ladder to draw.
    pub topic: Topic,
}

/// A connection of a phone. When it breaks, the server notices that only after a while.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) phone: usize,
    pub(super) broken: Option<u64>,
    pub(super) busy_until: [u64; 2],
}

/// State of a storm.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) options: Options,
    pub(super) plan: Scenario,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) server: Notifier,
    pub(super) seed: u64,
    /// State of the server: running or not, number of earlier starts, and time of the last start.
    pub(super) up: bool,
    pub(super) life: u64,
    pub(super) up_since: u64,
    /// Error of the server's clock (ms), now and in its life before; and true if one of the tenants is not configured.
    pub(super) clock: i64,
    pub(super) clock_before: i64,
    pub(super) away: bool,
    pub(super) keeper: SimJournal,
    /// State at the last crash: the time from which the journal may not know of expiries, the entity-tags that may
    /// return, and the records of the journal.
    pub(super) doubtful_since: u64,
    pub(super) etags_at_crash: Vec<Vec<String>>,
    pub(super) journal: Vec<(Key, Bytes)>,
    /// Number of inputs given to the server. Each is one decision, and the number names it.
    pub(super) decision: u64,
    pub(super) phones: Vec<Phone>,
    pub(super) publishers: Vec<Publisher>,
    /// Time until which each publisher is cut off from the server; zero if it is not.
    pub(super) partitions: Vec<u64>,
    pub(super) edges: Vec<Edge>,
    pub(super) weather: NetworkConditions,
    pub(super) truth: Oracle,
    pub(super) laws: Invariants,
    pub(super) ladder: Ladder,
    pub(super) tally: Tally,
    pub(super) flows: BTreeMap<u64, Flow>,
    pub(super) cut_off: Vec<bool>,
    pub(super) troubles: Vec<u64>,
    pub(super) calm: bool,
    pub(super) last_bodies: HashMap<String, Bytes>,
    /// Edges behind which the mutation [`super::scenario::Mutation::SharedPacing`] blocks all NOTIFYs.
    pub(super) held_edges: HashSet<usize>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: HashMap<u64, Event>,
    count: u64,
    step: u64,
    standstill: u64,
    pub(super) addresses: HashMap<SocketAddr, Peer>,
    pub(super) said: HashMap<String, PublisherClaim>,
    pub(super) accepted: HashMap<String, (String, u64)>,
    /// Call-IDs of the PUBLISHes that were answered 412.
    pub(super) told_stale: HashSet<String>,
    pub(super) watchers: Vec<Vec<(usize, usize)>>,
}

/// Initial value of the server's clock (ms): large enough for the clock to go back a long way.
const BEGINNING: u64 = 10_000_000_000;
/// Index of the tenant that is not configured in some lives of the server.
pub(super) const AWAY: usize = 1;
/// Most events within one millisecond.
const LONGEST_MOMENT: u64 = 100_000;
/// Interval of the liveness check of all dialogs (ms).
const ROLL_CALL: u64 = 10_000;

impl Simulation {
    pub(super) fn new(seed: u64, options: &Options, topic: Option<Topic>) -> Simulation {
        let mut random = Random::new(seed);
        let plan = Scenario::drawn(&mut random, options);
        let phones = plan.phones(&mut random, options);
        let publishers = plan.publishers(options);
        let mut watchers = vec![Vec::new(); plan.presentities()];
        for phone in &phones {
            for (at, watch) in phone.watches.iter().enumerate() {
                watchers[watch.presentity].push((phone.number, at));
            }
        }
        let mut world = Simulation {
            options: options.clone(),
            now: 0,
            server: server::build(seed, 0, false),
            clock: 0,
            clock_before: 0,
            away: false,
            seed,
            up: true,
            life: 0,
            up_since: 0,
            keeper: SimJournal::new(),
            doubtful_since: 0,
            etags_at_crash: Vec::new(),
            journal: Vec::new(),
            decision: 0,
            partitions: vec![0; publishers.len()],
            edges: (0..EDGES).map(Edge::new).collect(),
            weather: plan.weather,
            truth: Oracle::new(plan.presentities()),
            laws: Invariants::default(),
            ladder: Ladder::about(topic),
            tally: Tally::new(&phones),
            flows: BTreeMap::new(),
            cut_off: vec![false; phones.len()],
            troubles: vec![0; phones.len()],
            calm: false,
            last_bodies: HashMap::new(),
            held_edges: HashSet::new(),
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            count: 0,
            step: 0,
            standstill: 0,
            addresses: HashMap::new(),
            said: HashMap::new(),
            accepted: HashMap::new(),
            told_stale: HashSet::new(),
            watchers,
            phones: Vec::new(),
            publishers: Vec::new(),
            plan,
            random,
        };
        world.assemble(phones, publishers);
        world
    }

    fn assemble(&mut self, phones: Vec<Phone>, publishers: Vec<Publisher>) {
        for edge in 0..self.edges.len() {
            self.settle_at(&self.edges[edge].address.clone(), Peer::Edge(edge));
        }
        for mut phone in phones {
            let mut wishes = phone::Actions::default();
            for at in 0..phone.watches.len() {
                phone.start_anew(at, self.random.between(0, 5_000), &mut wishes);
            }
            let number = phone.number;
            self.settle_at(&phone.address.clone(), Peer::Phone(number));
            self.phones.push(phone);
            if self.phones[number].tcp {
                self.connect(number);
            }
            self.grant(number, wishes);
        }
        for publisher in publishers {
            self.settle_at(&publisher.address.clone(), Peer::Publisher(publisher.number));
            let lines = (self.plan.presentities() / 8).max(1);
            for _ in 0..lines {
                let wait = self.random.between(0, 8_000);
                self.schedule_in(wait, Event::Publisher(publisher.number, publisher::PublisherTimer::Busy));
            }
            self.publishers.push(publisher);
        }
        self.schedule_in(ROLL_CALL, Event::RollCall);
        self.begin_journal();
        if self.options.trouble {
            self.schedule_in(3_000, Event::Trouble);
            self.expect_crash();
        }
    }

    pub(super) fn settle_at(&mut self, address: &str, who: Peer) {
        if let Ok(address) = address.parse() {
            self.addresses.insert(address, who);
        }
    }

    pub(super) fn leave(&mut self, address: &str) {
        if let Ok(address) = address.parse::<SocketAddr>() {
            self.addresses.remove(&address);
        }
    }

    /// Opens a new connection for a phone.
    pub(super) fn connect(&mut self, phone: usize) {
        self.count += 1;
        self.flows.retain(|_, flow| flow.phone != phone);
        self.flows.insert(self.count, Flow { phone, broken: None, busy_until: [0; 2] });
    }

    pub(super) fn schedule_in(&mut self, wait: u64, what: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now + wait, self.count)));
        self.happenings.insert(self.count, what);
    }

    /// Processes events until this time.
    pub(super) fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        loop {
            let next = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let deadline = if self.up { self.server.next_deadline() } else { None };
            let due = deadline.map_or(u64::MAX, |tick| self.moment(tick).max(self.now));
            if next.min(due) > end {
                self.now = end;
                return Ok(());
            }
            self.step += 1;
            let moved = next.min(due) > self.now;
            self.standstill = if moved { 0 } else { self.standstill + 1 };
            if self.standstill > LONGEST_MOMENT {
                return Err(self.fault(
                    "time stands still: the server has something due at once, again and again",
                    Topic::default(),
                ));
            }
            if next <= due {
                let Some(Reverse((at, number))) = self.queue.pop() else { continue };
                self.now = at;
                if let Some(what) = self.happenings.remove(&number) {
                    self.handle(what)?;
                }
            } else {
                self.now = due;
                self.serve(|server, now, out| server.pass_time(now, out))?;
            }
            if self.server.panics() > 0 {
                return Err(self.fault("the server panicked", Topic::default()));
            }
        }
    }

    pub(super) fn fault(&self, law: impl Into<String>, topic: Topic) -> Violation {
        Violation { at: self.now, step: self.step, law: law.into(), topic }
    }

    /// Describes a violation that concerns a dialog.
    pub(super) fn fault_in(&self, call_id: &str, law: impl Into<String>) -> Violation {
        let presentity = self.laws.expected(call_id).map(|expected| expected.presentity);
        let presentity = presentity.or_else(|| self.said.get(call_id).map(|said| said.presentity));
        self.fault(law, Topic { call_id: Some(call_id.into()), presentity })
    }

    /// Gives the server one input, if it runs, and takes its records and messages.
    pub(super) fn serve(&mut self, f: impl FnOnce(&Notifier, Tick, &mut Outbox)) -> Result<(), Violation> {
        if !self.up {
            return Ok(());
        }
        self.decision += 1;
        let mut out = Outbox::default();
        f(&self.server, self.tick(), &mut out);
        self.dispatch(out)
    }

    /// Time by the server's clock.
    pub(super) fn tick(&self) -> Tick {
        Tick((BEGINNING + self.now).saturating_add_signed(self.clock))
    }

    /// Virtual time at which the server's clock will have this value.
    fn moment(&self, tick: Tick) -> u64 {
        tick.0.saturating_add_signed(-self.clock).saturating_sub(BEGINNING)
    }

    /// Returns true if a presentity belongs to a tenant that is not configured now.
    pub(super) fn is_away(&self, presentity: usize) -> bool {
        self.away && self.plan.account(presentity) == AWAY
    }

    fn handle(&mut self, what: Event) -> Result<(), Violation> {
        match what {
            Event::AtServer(source, bytes) => {
                // A server without the tenant receives none of the tenant's messages.
                let lost = self.away && String::from_utf8_lossy(&bytes).contains(REALMS[AWAY]);
                if !self.up || lost {
                    return Ok(());
                }
                if let Ok(Some(m)) = wire::read(&bytes)
                    && let Some(status) = m.status()
                {
                    self.laws.answered(self.decision + 1, &m, status);
                }
                self.let_expire();
                self.serve(|server, now, out| server.receive(now, source, &bytes, out))
            }
            Event::At(Peer::Phone(number), _, bytes) => self.at_phone(number, &bytes),
            Event::At(Peer::Publisher(number), _, bytes) => self.at_publisher(number, &bytes),
            Event::At(Peer::Edge(number), from, bytes) => {
                self.at_edge(number, from, &bytes);
                Ok(())
            }
            Event::Phone(number, wake) => {
                let mut wishes = phone::Actions::default();
                self.phones[number].wake(self.now, wake, &self.plan, &mut self.random, &mut wishes);
                self.grant(number, wishes);
                Ok(())
            }
            Event::Publisher(number, wake) => {
                let mut wishes = publisher::PublisherActions::default();
                self.publishers[number].wake(self.now, wake, &self.plan, &mut self.random, &mut wishes);
                self.grant_publisher(number, wishes);
                Ok(())
            }
            Event::Continue(life, presentity) if life == self.life => {
                self.serve(|server, now, out| server.continue_fan_out(now, presentity, out))
            }
            Event::Undeliverable(life, ticket, dialog, cseq) if life == self.life => {
                self.laws.undeliverable(&dialog, cseq);
                self.serve(|server, now, out| server.undeliverable(now, ticket, out))
            }
            Event::Journal(life, stage) if life == self.life => self.go_on_keeping(stage),
            Event::Continue(..) | Event::Undeliverable(..) | Event::Journal(..) => Ok(()),
            Event::Crash => self.crash_unless_calm(),
            Event::CrashAt(life) if life == self.life && self.up && !self.calm => self.crash(),
            Event::CrashAt(_) => Ok(()),
            Event::Restart => self.restart(),
            Event::RollCall => self.call_roll(ROLL_CALL),
            Event::Expiry(presentity) => {
                if self.truth.pass_time(self.now, presentity) {
                    self.ladder.note(self.now, presentity, "a publication expires");
                    self.look_at(presentity);
                }
                Ok(())
            }
            Event::Trouble => self.make_trouble(),
            Event::Recovery(number, trouble) => {
                if self.troubles[number] == trouble {
                    self.recover(number);
                }
                Ok(())
            }
            Event::Reconnect(number) => {
                self.reconnect(number);
                Ok(())
            }
            Event::TenantReturns(life) if life == self.life && self.up => self.crash(),
            Event::TenantReturns(_) => Ok(()),
            Event::Reunion(number, until) => {
                if self.partitions[number] == until {
                    self.partitions[number] = 0;
                }
                Ok(())
            }
        }
    }

    fn let_expire(&mut self) {
        if !self.truth.may_expire(self.now) {
            return;
        }
        for presentity in 0..self.plan.presentities() {
            if self.truth.next_expiry(presentity).is_some_and(|at| at <= self.now) {
                self.truth.pass_time(self.now, presentity);
                self.look_at(presentity);
            }
        }
    }

    fn at_phone(&mut self, number: usize, bytes: &Bytes) -> Result<(), Violation> {
        let Ok(Some(m)) = wire::read(bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        if self.cut_off[number] {
            return Ok(());
        }
        let mut wishes = phone::Actions::default();
        let done = self.phones[number].receive(self.now, &m, &mut self.laws.memo, &mut self.random, &mut wishes);
        done.map_err(|law| self.fault_in(m.call_id, law))?;
        self.grant(number, wishes);
        Ok(())
    }

    fn at_publisher(&mut self, number: usize, bytes: &Bytes) -> Result<(), Violation> {
        let Ok(Some(m)) = wire::read(bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        if self.partitions[number] > 0 {
            return Ok(());
        }
        let (etag, mut wishes) = (message::header(bytes, "SIP-ETag"), publisher::PublisherActions::default());
        let publisher = &mut self.publishers[number];
        let done = publisher.receive(self.now, &m, etag, &self.plan, &mut self.random, &mut wishes);
        done.map_err(|law| self.fault_in(m.call_id, law))?;
        self.grant_publisher(number, wishes);
        Ok(())
    }
}

//! The world: the server, the network and everybody else, moved on event by event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use bytes::Bytes;

use super::ladder::{Ladder, Topic};
use super::laws::Laws;
use super::message;
use super::network::Weather;
use super::phone::{self, Phone};
use super::plan::{Options, Plan};
use super::publisher::{self, Publisher};
use super::random::Random;
use super::server;
use super::tally::Tally;
use super::truth::{Said, Truth};
use crate::notifier::{Notifier, Outbox};
use crate::presence::Tick;
use crate::sip::Transport;
use crate::sip::wire;
use crate::transport::{FlowId, ListenerNo, Source, Ticket};

/// What happens at some moment.
#[derive(Debug)]
pub(super) enum Happening {
    /// A message arrives at the server.
    AtServer(Source, Bytes),
    /// A message arrives at a phone or publisher.
    At(Who, Bytes),
    /// Somebody wants to be woken.
    Phone(usize, phone::Wake),
    Publisher(usize, publisher::Wake),
    /// A fan-out goes on.
    Continue(u32),
    /// A NOTIFY with this Call-ID could not be sent.
    Undeliverable(Ticket, String),
    /// A publication about this presentity may have expired.
    Expiry(usize),
    /// Something goes wrong.
    Trouble,
    /// A phone's trouble is over, if it is still this one.
    Recovery(usize, u64),
    /// A phone gets a new connection.
    Reconnect(usize),
}

/// One end of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Phone(usize),
    Publisher(usize),
}

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in ms.
    pub at: u64,
    /// After how many events.
    pub step: u64,
    /// What is wrong.
    pub law: String,
    /// What to draw.
    pub topic: Topic,
}

/// A connection of a phone; when it breaks, the server notices only after a while.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) phone: usize,
    pub(super) broken: Option<u64>,
    busy_until: [u64; 2],
}

/// A storm under way.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) server: Notifier,
    pub(super) phones: Vec<Phone>,
    pub(super) publishers: Vec<Publisher>,
    pub(super) weather: Weather,
    pub(super) truth: Truth,
    pub(super) laws: Laws,
    pub(super) ladder: Ladder,
    pub(super) tally: Tally,
    pub(super) flows: HashMap<u64, Flow>,
    pub(super) cut_off: Vec<bool>,
    pub(super) troubles: Vec<u64>,
    pub(super) calm: bool,
    pub(super) last_bodies: HashMap<String, Bytes>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: HashMap<u64, Happening>,
    count: u64,
    step: u64,
    standstill: u64,
    pub(super) addresses: HashMap<SocketAddr, Who>,
    pub(super) said: HashMap<String, Said>,
    pub(super) accepted: HashMap<String, String>,
    pub(super) watchers: Vec<Vec<(usize, usize)>>,
}

/// The most events within one millisecond.
const LONGEST_MOMENT: u64 = 100_000;

impl World {
    pub(super) fn new(seed: u64, options: &Options, topic: Option<Topic>) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::drawn(&mut random, options);
        let phones = plan.phones(&mut random, options);
        let publishers = plan.publishers(options);
        let mut watchers = vec![Vec::new(); plan.presentities()];
        for phone in &phones {
            for (at, watch) in phone.watches.iter().enumerate() {
                watchers[watch.presentity].push((phone.number, at));
            }
        }
        let mut world = World {
            options: options.clone(),
            now: 0,
            server: server::build(seed),
            weather: plan.weather,
            truth: Truth::new(plan.presentities()),
            laws: Laws::default(),
            ladder: Ladder::about(topic),
            tally: Tally::new(&phones),
            flows: HashMap::new(),
            cut_off: vec![false; phones.len()],
            troubles: vec![0; phones.len()],
            calm: false,
            last_bodies: HashMap::new(),
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            count: 0,
            step: 0,
            standstill: 0,
            addresses: HashMap::new(),
            said: HashMap::new(),
            accepted: HashMap::new(),
            watchers,
            phones: Vec::new(),
            publishers: Vec::new(),
            plan,
            random,
        };
        for mut phone in phones {
            let mut wishes = phone::Wishes::default();
            for at in 0..phone.watches.len() {
                phone.start_anew(at, world.random.between(0, 5_000), &mut wishes);
            }
            world.settle_at(&phone.address.clone(), Who::Phone(phone.number));
            world.phones.push(phone);
            let number = world.phones.len() - 1;
            if world.phones[number].tcp {
                world.connect(number);
            }
            world.grant(number, wishes);
        }
        for publisher in publishers {
            world.settle_at(&publisher.address.clone(), Who::Publisher(publisher.number));
            let lines = (world.plan.presentities() / 8).max(1);
            for _ in 0..lines {
                let wait = world.random.between(0, 8_000);
                world.in_ms(wait, Happening::Publisher(publisher.number, publisher::Wake::Busy));
            }
            world.publishers.push(publisher);
        }
        if options.trouble {
            world.in_ms(3_000, Happening::Trouble);
        }
        world
    }

    pub(super) fn settle_at(&mut self, address: &str, who: Who) {
        if let Ok(address) = address.parse() {
            self.addresses.insert(address, who);
        }
    }

    pub(super) fn leave(&mut self, address: &str) {
        if let Ok(address) = address.parse::<SocketAddr>() {
            self.addresses.remove(&address);
        }
    }

    /// Gives a phone a new connection.
    pub(super) fn connect(&mut self, phone: usize) {
        self.count += 1;
        self.flows.insert(self.count, Flow { phone, broken: None, busy_until: [0; 2] });
    }

    pub(super) fn in_ms(&mut self, wait: u64, what: Happening) {
        self.count += 1;
        self.queue.push(Reverse((self.now + wait, self.count)));
        self.happenings.insert(self.count, what);
    }

    /// Goes on until this moment.
    pub(super) fn run_until(&mut self, end: u64) -> Result<(), Fault> {
        loop {
            let next = self.queue.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            let due = self.server.next_deadline().map_or(u64::MAX, |tick| tick.0.max(self.now));
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
                    self.happen(what)?;
                }
            } else {
                self.now = due;
                let mut out = Outbox::default();
                self.server.pass_time(Tick(due), &mut out);
                self.dispatch(out)?;
            }
            if self.server.panics() > 0 {
                return Err(self.fault("the server panicked", Topic::default()));
            }
        }
    }

    pub(super) fn fault(&self, law: impl Into<String>, topic: Topic) -> Fault {
        Fault { at: self.now, step: self.step, law: law.into(), topic }
    }

    /// A fault about a dialog.
    pub(super) fn fault_in(&self, call_id: &str, law: impl Into<String>) -> Fault {
        let presentity =
            self.laws.presentity_of(call_id).or_else(|| self.said.get(call_id).map(|said| said.presentity));
        self.fault(law, Topic { call_id: Some(call_id.into()), presentity })
    }

    fn happen(&mut self, what: Happening) -> Result<(), Fault> {
        match what {
            Happening::AtServer(source, bytes) => {
                if let Ok(Some(m)) = wire::read(&bytes)
                    && let Some(status) = m.status()
                {
                    self.laws.answered(&m, status);
                }
                self.let_expire();
                let mut out = Outbox::default();
                self.server.receive(Tick(self.now), source, &bytes, &mut out);
                self.dispatch(out)
            }
            Happening::At(Who::Phone(number), bytes) => self.at_phone(number, &bytes),
            Happening::At(Who::Publisher(number), bytes) => self.at_publisher(number, &bytes),
            Happening::Phone(number, wake) => {
                let mut wishes = phone::Wishes::default();
                self.phones[number].wake(self.now, wake, &self.plan, &mut self.random, &mut wishes);
                self.grant(number, wishes);
                Ok(())
            }
            Happening::Publisher(number, wake) => {
                let mut wishes = publisher::Wishes::default();
                self.publishers[number].wake(self.now, wake, &self.plan, &mut self.random, &mut wishes);
                self.grant_publisher(number, wishes);
                Ok(())
            }
            Happening::Continue(presentity) => {
                let mut out = Outbox::default();
                self.server.continue_fan_out(Tick(self.now), presentity, &mut out);
                self.dispatch(out)
            }
            Happening::Undeliverable(ticket, call_id) => {
                self.laws.undeliverable(&call_id);
                let mut out = Outbox::default();
                self.server.undeliverable(Tick(self.now), ticket, &mut out);
                self.dispatch(out)
            }
            Happening::Expiry(presentity) => {
                if self.truth.pass_time(self.now, presentity) {
                    self.ladder.note(self.now, presentity, "a publication expires");
                    self.look_at(presentity);
                }
                Ok(())
            }
            Happening::Trouble => self.make_trouble(),
            Happening::Recovery(number, trouble) => {
                if self.troubles[number] == trouble {
                    self.recover(number);
                }
                Ok(())
            }
            Happening::Reconnect(number) => {
                self.reconnect(number);
                Ok(())
            }
        }
    }

    fn let_expire(&mut self) {
        for presentity in 0..self.plan.presentities() {
            if self.truth.next_expiry(presentity).is_some_and(|at| at <= self.now) {
                self.truth.pass_time(self.now, presentity);
                self.look_at(presentity);
            }
        }
    }

    fn at_phone(&mut self, number: usize, bytes: &Bytes) -> Result<(), Fault> {
        let Ok(Some(m)) = wire::read(bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        if self.cut_off[number] {
            return Ok(());
        }
        let mut wishes = phone::Wishes::default();
        let done = self.phones[number].receive(self.now, &m, &mut self.random, &mut wishes);
        done.map_err(|law| self.fault_in(m.call_id, law))?;
        self.grant(number, wishes);
        Ok(())
    }

    fn at_publisher(&mut self, number: usize, bytes: &Bytes) -> Result<(), Fault> {
        let Ok(Some(m)) = wire::read(bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        let (etag, mut wishes) = (message::header(bytes, "SIP-ETag"), publisher::Wishes::default());
        let publisher = &mut self.publishers[number];
        let done = publisher.receive(self.now, &m, etag, &self.plan, &mut self.random, &mut wishes);
        done.map_err(|law| self.fault_in(m.call_id, law))?;
        self.grant_publisher(number, wishes);
        Ok(())
    }

    /// Does what a phone wants.
    pub(super) fn grant(&mut self, number: usize, wishes: phone::Wishes) {
        for (call_id, at) in wishes.opened {
            let watch = &self.phones[number].watches[at];
            self.laws.expect(call_id, watch.presentity, watch.package);
        }
        for (wait, wake) in wishes.wakes {
            self.in_ms(wait, Happening::Phone(number, wake));
        }
        for (wait, bytes) in wishes.sends {
            self.post(Who::Phone(number), wait, bytes.into());
        }
        for at in wishes.redrawn {
            self.tally.look(self.now, &self.phones[number], at, &self.truth);
        }
    }

    fn grant_publisher(&mut self, number: usize, wishes: publisher::Wishes) {
        self.said.extend(wishes.said);
        for (wait, wake) in wishes.wakes {
            self.in_ms(wait, Happening::Publisher(number, wake));
        }
        for bytes in wishes.sends {
            self.post(Who::Publisher(number), 0, bytes.into());
        }
    }

    fn post(&mut self, who: Who, wait: u64, bytes: Bytes) {
        let (address, tcp) = match who {
            Who::Phone(number) => (&self.phones[number].address, self.phones[number].tcp),
            Who::Publisher(number) => (&self.publishers[number].address, false),
        };
        let Ok(peer) = address.parse() else { return };
        let (transport, listener) = if tcp { (Transport::Tcp, ListenerNo(1)) } else { (Transport::Udp, ListenerNo(0)) };
        let flow = match who {
            Who::Phone(number) if tcp => self.flow_of(number),
            _ => None,
        };
        let cut = matches!(who, Who::Phone(number) if self.cut_off[number]) || tcp && flow.is_none();
        let arrivals = self.arrivals(cut, flow, 0);
        self.draw(true, &bytes, &arrivals);
        for delay in arrivals {
            let source = Source { transport, listener, peer, flow: flow.map(FlowId), certified: false };
            self.in_ms(wait + delay, Happening::AtServer(source, bytes.clone()));
        }
    }

    pub(super) fn flow_of(&self, phone: usize) -> Option<u64> {
        self.flows.iter().find(|(_, flow)| flow.phone == phone && flow.broken.is_none()).map(|(id, _)| *id)
    }

    /// When a message arrives, after how many ms. Streams lose nothing and keep the order.
    pub(super) fn arrivals(&mut self, cut: bool, flow: Option<u64>, way: usize) -> Vec<u64> {
        if cut {
            return Vec::new();
        }
        let Some(id) = flow else { return self.weather.arrivals(&mut self.random) };
        let at = self.now + self.weather.delay(&mut self.random);
        let Some(flow) = self.flows.get_mut(&id) else { return Vec::new() };
        flow.busy_until[way] = flow.busy_until[way].max(at);
        vec![flow.busy_until[way] - self.now]
    }
}

//! Delivery: sends the messages of phones and publishers, and carries all messages to their destinations.

use std::net::SocketAddr;

use bytes::Bytes;

use super::invariants::Expected;
use super::ladder::Topic;
use super::simulation::{Event, Peer, Simulation};
use super::{phone, publisher};
use crate::sip::Transport;
use crate::sip::wire;
use crate::transport::{Destination, FlowId, ListenerId, OutboundMessage, Source};

impl Simulation {
    /// Carries out the actions of a phone: sends, timers, new dialogs.
    pub(super) fn grant(&mut self, number: usize, wishes: phone::Actions) {
        for (call_id, at) in wishes.opened {
            let watch = &self.phones[number].watches[at];
            let expected = Expected { presentity: watch.presentity, package: watch.package, phone: number };
            self.laws.expect(call_id, expected);
        }
        for (wait, wake) in wishes.wakes {
            self.schedule_in(wait, Event::Phone(number, wake));
        }
        for (wait, bytes) in wishes.sends {
            self.post(Peer::Phone(number), wait, bytes.into());
        }
        for at in wishes.redrawn {
            self.tally.look(self.now, &self.phones[number], at, &self.truth);
        }
    }

    /// Carries out the actions of a publisher: sends, timers, the meaning of each PUBLISH.
    pub(super) fn grant_publisher(&mut self, number: usize, wishes: publisher::PublisherActions) {
        self.said.extend(wishes.said);
        for (wait, wake) in wishes.wakes {
            self.schedule_in(wait, Event::Publisher(number, wake));
        }
        for bytes in wishes.sends {
            self.post(Peer::Publisher(number), 0, bytes.into());
        }
    }

    fn post(&mut self, who: Peer, wait: u64, bytes: Bytes) {
        let (address, tcp, cut, edge) = match who {
            Peer::Phone(number) => {
                let phone = &self.phones[number];
                (phone.address.clone(), phone.tcp, self.cut_off[number], phone.edge)
            }
            Peer::Publisher(number) => {
                (self.publishers[number].address.clone(), false, self.partitions[number] > 0, None)
            }
            Peer::Edge(_) => return,
        };
        let Ok(peer) = address.parse() else { return };
        let flow = match who {
            Peer::Phone(number) if tcp => self.flow_for(number, &bytes),
            _ => None,
        };
        let arrivals = self.arrivals(cut || tcp && flow.is_none(), flow, 0);
        self.draw(true, &bytes, &arrivals);
        for delay in arrivals {
            let delay = wait + delay;
            match edge {
                Some(edge) => self.schedule_in(delay, Event::At(Peer::Edge(edge), Some(peer), bytes.clone())),
                None => self.arrive(delay, peer, flow, bytes.clone()),
            }
        }
    }

    /// Schedules the arrival of a message at the server.
    pub(super) fn arrive(&mut self, delay: u64, peer: SocketAddr, flow: Option<u64>, bytes: Bytes) {
        let (transport, listener) = match flow {
            Some(_) => (Transport::Tcp, ListenerId(1)),
            None => (Transport::Udp, ListenerId(0)),
        };
        let source = Source { transport, listener, peer, flow: flow.map(FlowId), certified: false };
        let bytes = self.with_other_branch(bytes);
        self.schedule_in(delay, Event::AtServer(source, bytes));
    }

    /// Returns the connection of a phone. If it has none, it opens one for a request, provided that the server is up.
    fn flow_for(&mut self, number: usize, bytes: &[u8]) -> Option<u64> {
        let has_any = self.flows.values().any(|flow| flow.phone == number);
        if !has_any && self.up && !bytes.starts_with(b"SIP/2.0") {
            self.connect(number);
        }
        self.flow_of(number)
    }

    pub(super) fn flow_of(&self, phone: usize) -> Option<u64> {
        self.flows.iter().find(|(_, flow)| flow.phone == phone && flow.broken.is_none()).map(|(id, _)| *id)
    }

    /// Draws the arrival times of a message, in ms from now. Streams lose nothing and keep the order.
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

    /// Delivers a message of the server.
    pub(super) fn deliver(&mut self, packet: OutboundMessage) {
        let (who, flow) = match packet.to {
            Destination::Datagram { peer, .. } => (self.addresses.get(&peer).copied(), None),
            // Phones accept no connections: a message that cannot use the connection that the phone opened is returned
            // as undeliverable.
            Destination::Connection(_) => return self.bounce(packet),
            Destination::Flow { flow, .. } => match self.flows.get(&flow.0) {
                Some(known) if known.broken.is_some_and(|at| at <= self.now) => return self.bounce(packet),
                Some(known) if known.broken.is_some() => (None, None),
                Some(known) => (Some(Peer::Phone(known.phone)), Some(flow.0)),
                None => return self.bounce(packet),
            },
        };
        let cut = match who {
            Some(Peer::Phone(number)) => self.cut_off[number],
            Some(Peer::Publisher(number)) => self.partitions[number] > 0,
            Some(Peer::Edge(_)) => false,
            None => true,
        };
        let arrivals = self.arrivals(cut, flow, 1);
        self.draw(false, &packet.bytes, &arrivals);
        let Some(who) = who else { return };
        for delay in arrivals {
            self.schedule_in(delay, Event::At(who, None, packet.bytes.clone()));
        }
    }

    fn bounce(&mut self, packet: OutboundMessage) {
        self.draw(false, &packet.bytes, &[]);
        let Ok(Some(m)) = wire::read(&packet.bytes) else { return };
        let dialog = (m.call_id.to_string(), m.from.tag().unwrap_or_default().to_string());
        if let Some(ticket) = packet.ticket {
            self.schedule_in(1, Event::Undeliverable(self.life, ticket, dialog, m.cseq.number));
        }
    }

    pub(super) fn draw(&mut self, to_server: bool, bytes: &[u8], arrivals: &[u64]) {
        if self.ladder.is_drawn() {
            let fate = match arrivals {
                [] => "LOST".into(),
                [delay] => format!("({delay} ms)"),
                more => format!("(TWICE: {more:?} ms)"),
            };
            let call_id = wire::read(bytes).ok().flatten().map(|m| m.call_id.to_string()).unwrap_or_default();
            let about = self.said.get(&call_id).map(|said| said.presentity);
            self.ladder.message(self.now, to_server, bytes, about, &fate);
        }
    }

    /// Adds a line to the ladder, whatever its topic is.
    pub(super) fn note(&mut self, text: &str) {
        if let Some(Topic { presentity: Some(presentity), .. }) = self.ladder.topic().cloned() {
            self.ladder.note(self.now, presentity, text);
        }
    }
}

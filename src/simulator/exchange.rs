//! What passes between the server and the others: the laws look at it, then the network has it.

use super::ladder::Topic;
use super::message;
use super::world::{Fault, Happening, Who, World};
use crate::notifier::Outbox;
use crate::sip::wire;
use crate::transport::{Destination, Packet};

impl World {
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

    /// Takes what the server wants sent: the laws look at it, then the network has it.
    pub(super) fn dispatch(&mut self, out: Outbox) -> Result<(), Fault> {
        for packet in out.messages {
            for packet in self.sabotage(packet) {
                self.inspect(&packet)?;
                self.deliver(packet);
            }
        }
        for presentity in out.unfinished {
            self.in_ms(0, Happening::Continue(presentity));
        }
        Ok(())
    }

    fn inspect(&mut self, packet: &Packet) -> Result<(), Fault> {
        let Ok(Some(m)) = wire::read(&packet.bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        let done = match (m.cseq.method, m.status()) {
            ("NOTIFY", None) => {
                self.tally.notifies += 1;
                let reliable = packet.to.is_reliable();
                self.laws.notify(self.now, &m, &packet.bytes, reliable, &self.truth, &self.plan)
            }
            ("SUBSCRIBE", Some(200)) => self.laws.accepted(&m),
            ("PUBLISH", Some(status)) => {
                let etag = message::header(&packet.bytes, "SIP-ETag").unwrap_or_default();
                self.published(m.call_id, status, etag)
            }
            _ => Ok(()),
        };
        done.map_err(|law| self.fault_in(m.call_id, law))
    }

    /// The server answers a PUBLISH: the truth takes it over, unless the answer is only repeated.
    fn published(&mut self, call_id: &str, status: u16, etag: &str) -> Result<(), String> {
        let said = self.said.get(call_id).ok_or("an answer to a PUBLISH that nobody sent")?.clone();
        if self.accepted.get(call_id).is_some_and(|old| old == etag) {
            return Ok(());
        }
        let known = said.if_match.as_ref().map(|etag| self.truth.knows(self.now, said.presentity, etag));
        match status {
            200 if known == Some(Some(false)) => Err("a PUBLISH with a stale entity-tag was accepted".into()),
            412 if known.is_none() => Err("a PUBLISH without condition was refused with 412".into()),
            412 if known == Some(Some(true)) && !self.accepted.contains_key(call_id) => {
                Err("a PUBLISH with a current entity-tag was refused with 412".into())
            }
            200 => {
                self.accepted.insert(call_id.into(), etag.into());
                self.truth.accepted(self.now, &said, etag);
                self.in_ms(u64::from(said.expires) * 1_000, Happening::Expiry(said.presentity));
                self.look_at(said.presentity);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The truth about a presentity may have changed.
    pub(super) fn look_at(&mut self, presentity: usize) {
        for (number, at) in &self.watchers[presentity] {
            self.tally.look(self.now, &self.phones[*number], *at, &self.truth);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let (who, flow) = match packet.to {
            Destination::Datagram { peer, .. } => (self.addresses.get(&peer).copied(), None),
            // Phones take no connections: what cannot go down the one that they opened comes back.
            Destination::Connection { .. } => return self.bounce(packet),
            Destination::Flow { flow, .. } => match self.flows.get(&flow.0) {
                Some(known) if known.broken.is_some_and(|at| at <= self.now) => return self.bounce(packet),
                Some(known) if known.broken.is_some() => (None, None),
                Some(known) => (Some(Who::Phone(known.phone)), Some(flow.0)),
                None => return self.bounce(packet),
            },
        };
        let cut = matches!(who, Some(Who::Phone(number)) if self.cut_off[number]) || who.is_none();
        let arrivals = self.arrivals(cut, flow, 1);
        self.draw(false, &packet.bytes, &arrivals);
        let Some(who) = who else { return };
        for delay in arrivals {
            self.in_ms(delay, Happening::At(who, packet.bytes.clone()));
        }
    }

    fn bounce(&mut self, packet: Packet) {
        self.draw(false, &packet.bytes, &[]);
        let call_id = wire::read(&packet.bytes).ok().flatten().map(|m| m.call_id.to_string());
        if let (Some(ticket), Some(call_id)) = (packet.ticket, call_id) {
            self.in_ms(1, Happening::Undeliverable(ticket, call_id));
        }
    }
}

//! Output of the server: its messages are checked against the invariants, then its records are journaled, then the
//! network carries the messages.

use super::invariants::Leaving;
use super::journal::PendingOutput;
use super::ladder::Topic;
use super::message;
use super::simulation::{Event, Simulation, Violation};
use crate::notifier::Outbox;
use crate::sip::wire::{self, Message};
use crate::transport::{Destination, OutboundMessage, Remote};

impl Simulation {
    /// Takes the records and the messages of one server decision.
    pub(super) fn dispatch(&mut self, mut out: Outbox) -> Result<(), Violation> {
        let records = out.take_records();
        let mut parcel = PendingOutput {
            packets: Vec::new(),
            unfinished: out.pending_fan_outs,
            answers: out.pending_responses,
            changes: out.changes,
            appended: out.appended,
        };
        for packet in out.messages {
            for packet in self.sabotage(packet) {
                let (needs, leaving) = self.inspect(&packet)?;
                parcel.packets.push((needs, leaving, packet));
            }
        }
        self.keep(records, out.deferred_records, parcel)
    }

    /// Checks a message against the invariants. Returns the decision that has to be durable before the message leaves.
    fn inspect(&mut self, packet: &OutboundMessage) -> Result<(u64, Leaving), Violation> {
        let Ok(Some(m)) = wire::read(&packet.bytes) else {
            return Err(self.fault("the server sent what cannot be read", Topic::default()));
        };
        let done = match (m.cseq.method, m.status()) {
            ("NOTIFY", None) => {
                self.tally.notifies += 1;
                let reliable = packet.to.is_reliable();
                let (now, decision) = (self.now, self.decision);
                self.by_its_edge(&m, packet).and_then(|()| {
                    self.laws.notify(now, decision, &m, &packet.bytes, reliable, &self.truth, &self.plan)
                })
            }
            ("SUBSCRIBE", Some(200)) => self.laws.accepted(self.now, self.decision, &m),
            ("SUBSCRIBE", Some(481)) => self.laws.on_481(self.now, &m).map(|()| (0, Leaving::Other)),
            ("PUBLISH", Some(status)) => {
                let etag = message::header(&packet.bytes, "SIP-ETag").unwrap_or_default();
                self.published(m.call_id, status, etag).map(|needs| (needs, Leaving::Other))
            }
            _ => Ok((0, Leaving::Other)),
        };
        done.map_err(|law| self.fault_in(m.call_id, law))
    }

    /// Checks that a NOTIFY to a phone behind an edge goes to that edge.
    fn by_its_edge(&self, m: &Message<'_>, packet: &OutboundMessage) -> Result<(), String> {
        let phone = self.laws.expected(m.call_id).map(|expected| expected.phone);
        let edge = phone.and_then(|number| self.phones[number].edge).map(|edge| &self.edges[edge].address);
        match (edge, &packet.to) {
            // An oversize NOTIFY is tried over TCP, which no edge accepts here.
            (Some(edge), Destination::Datagram { peer, .. } | Destination::Connection(Remote { peer, .. }))
                if peer.to_string() == *edge =>
            {
                Ok(())
            }
            (Some(_), to) => Err(format!("a NOTIFY goes past the edge, to {to:?}")),
            (None, _) => Ok(()),
        }
    }

    /// Applies a response to a PUBLISH to the oracle, unless it only repeats an earlier response. Returns the decision
    /// that has to be durable before it.
    fn published(&mut self, call_id: &str, status: u16, etag: &str) -> Result<u64, String> {
        let said = self.said.get(call_id).ok_or("an answer to a PUBLISH that nobody sent")?.clone();
        let before = self.accepted.get(call_id);
        if let Some((old, decision)) = before.filter(|_| status == 200) {
            // A retransmission of the first PUBLISH of a publication that has been modified since is answered with the
            // present entity-tag, which may have expired by now.
            let present = self.truth.knows(self.now, said.presentity, etag) != Some(false);
            return match old == etag || present {
                true => Ok(*decision),
                false => Err("a PUBLISH that was repeated is taken for another".into()),
            };
        }
        let known = said.if_match.as_ref().map(|etag| self.truth.knows(self.now, said.presentity, etag));
        match status {
            200 if known == Some(Some(false)) => Err("a PUBLISH with a stale entity-tag was accepted".into()),
            412 if known.is_none() => Err("a PUBLISH without condition was refused with 412".into()),
            // The entity-tag was stale because of a change that the journal refused later. The request, repeated, gets
            // the same response.
            412 if self.told_stale.contains(call_id) => Ok(0),
            412 if known == Some(Some(true)) && before.is_none() => {
                Err("a PUBLISH with a current entity-tag was refused with 412".into())
            }
            200 => {
                self.accepted.insert(call_id.into(), (etag.into(), self.decision));
                self.truth.accepted(self.now, self.decision, &said, etag);
                self.schedule_in(u64::from(said.expires) * 1_000, Event::Expiry(said.presentity));
                self.look_at(said.presentity);
                Ok(self.decision)
            }
            412 => {
                self.told_stale.insert(call_id.into());
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// Updates the measurement of wrong lamps: the true state of a presentity may have changed.
    pub(super) fn look_at(&mut self, presentity: usize) {
        for (number, at) in &self.watchers[presentity] {
            self.tally.look(self.now, &self.phones[*number], *at, &self.truth);
        }
    }
}

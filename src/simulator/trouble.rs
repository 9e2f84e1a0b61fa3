//! Trouble: what goes wrong while a storm lasts, and what the simulator does itself to show that it is found out.

use bytes::Bytes;

use super::phone::{self, Mood, version_of};
use super::plan::Sabotage;
use super::world::{Fault, Happening, Who, World};
use crate::directory::AccountNo;
use crate::notifier::Outbox;
use crate::presence::Tick;
use crate::presence::facts::CallState;
use crate::sip::Transport;
use crate::sip::wire;
use crate::transport::{ListenerNo, Packet, Source};

impl World {
    /// Something goes wrong with somebody.
    pub(super) fn make_trouble(&mut self) -> Result<(), Fault> {
        if self.calm {
            return Ok(());
        }
        let often = (60_000 / self.phones.len().max(1) as u64).max(200);
        let wait = self.random.between(often / 2, often * 2);
        self.in_ms(wait, Happening::Trouble);
        let number = self.random.below(self.phones.len());
        let mut wishes = phone::Wishes::default();
        match self.random.below(20) {
            0..=3 => {
                self.cut_off[number] = !self.phones[number].tcp;
                self.recover_later(number, 200_000);
            }
            4..=6 => {
                let mood = [(500, None), (503, None), (503, Some(self.random.between(1, 200) as u32)), (408, None)];
                let (status, retry_after) = self.random.pick(&mood);
                self.phones[number].mood = Mood::Failing(status, retry_after);
                self.recover_later(number, 120_000);
            }
            7 | 8 => {
                self.phones[number].mood = Mood::Mute;
                self.recover_later(number, 100_000);
            }
            9 | 10 => self.phones[number].reboot(&mut self.random, &mut wishes),
            11 | 12 => self.move_or_break(number),
            13 | 14 => {
                let at = self.random.below(self.phones[number].watches.len());
                self.phones[number].unsubscribe(self.now, at, &self.plan, &mut self.random, &mut wishes);
            }
            15 => {
                let at = self.random.below(self.phones[number].watches.len());
                self.phones[number].fetch(at, &self.plan, &mut wishes);
            }
            16 => {
                let publisher = self.random.below(self.publishers.len());
                self.publishers[publisher].die();
            }
            17 | 18 => self.operate()?,
            _ => {}
        }
        self.grant(number, wishes);
        Ok(())
    }

    fn recover_later(&mut self, number: usize, longest: u64) {
        self.troubles[number] += 1;
        let wait = self.random.between(500, longest);
        self.in_ms(wait, Happening::Recovery(number, self.troubles[number]));
    }

    /// A phone is well again.
    pub(super) fn recover(&mut self, number: usize) {
        self.cut_off[number] = false;
        self.phones[number].mood = Mood::Well;
    }

    /// A phone's connection breaks; one behind NAT gets another port.
    fn move_or_break(&mut self, number: usize) {
        let phone = &self.phones[number];
        if phone.tcp {
            let (notice, back) = (self.random.between(0, 60_000), self.random.between(500, 30_000));
            if let Some(id) = self.flow_of(number)
                && let Some(flow) = self.flows.get_mut(&id)
            {
                flow.broken = Some(self.now + notice);
                self.phones[number].moved_at = self.now;
                self.in_ms(back, Happening::Reconnect(number));
            }
        } else if phone.address != phone.contact {
            let old = phone.address.clone();
            let host = old.split(':').next().unwrap_or_default();
            let new = format!("{host}:{}", self.random.between(30_001, 60_000));
            self.leave(&old);
            self.settle_at(&new, Who::Phone(number));
            (self.phones[number].address, self.phones[number].moved_at) = (new, self.now);
        }
    }

    /// A phone has noticed that its connection is gone, opens another and says on it that it is there.
    pub(super) fn reconnect(&mut self, number: usize) {
        self.connect(number);
        let mut wishes = phone::Wishes::default();
        self.phones[number].refresh_all(self.now, &self.plan, &mut wishes);
        self.grant(number, wishes);
    }

    /// An operator resets or sets somebody.
    fn operate(&mut self) -> Result<(), Fault> {
        let presentity = self.random.below(self.plan.presentities());
        let user = self.plan.name(presentity).0.to_string();
        let account = AccountNo(self.plan.account(presentity) as u32);
        let mut out = Outbox::default();
        self.truth.pass_time(self.now, presentity);
        if self.random.chance(0.5) {
            self.truth.reset(presentity);
            self.server.reset(Tick(self.now), account, &user, &mut out);
            self.ladder.note(self.now, presentity, "an operator resets");
        } else {
            let state = self.random.pick(&[CallState::Early, CallState::Confirmed, CallState::Terminated]);
            self.truth.set(presentity, state);
            let _ = self.server.set(Tick(self.now), account, &user, state, &mut out);
            self.ladder.note(self.now, presentity, &format!("an operator sets {state:?}"));
        }
        self.look_at(presentity);
        self.dispatch(out)
    }

    /// What the network is given instead of a packet.
    pub(super) fn sabotage(&mut self, packet: Packet) -> Vec<Packet> {
        let Some(sabotage) = self.options.sabotage else { return vec![packet] };
        let Ok(Some(m)) = wire::read(&packet.bytes) else { return vec![packet] };
        if m.cseq.method != "NOTIFY" || m.status().is_some() {
            return vec![packet];
        }
        let (call_id, cseq) = (m.call_id.to_string(), m.cseq.number);
        let last = self.last_bodies.insert(call_id, packet.bytes.clone());
        // A lost change shows only if no refresh brings the state before the reckoning, so it takes more of them.
        let often = if sabotage == Sabotage::LostChange { 0.2 } else { 0.02 };
        if !self.random.chance(often) {
            return vec![packet];
        }
        let text = String::from_utf8_lossy(&packet.bytes).into_owned();
        let changed = |text: String| Packet { bytes: Bytes::from(text), ..packet.clone() };
        match (sabotage, last) {
            (Sabotage::StaleBody, Some(last)) => {
                let body = wire::read(&last).ok().flatten().map(|m| String::from_utf8_lossy(m.body).into_owned());
                let (Some(body), Some(version)) = (body, version_of(m.body)) else { return vec![packet] };
                let old = version_of(body.as_bytes()).unwrap_or_default();
                let body = body.replace(&format!("version=\"{old}\" state"), &format!("version=\"{version}\" state"));
                let head = text.split("\r\n\r\n").next().unwrap_or_default();
                let head = head.replace(&format!("Content-Length: {}", m.body.len()), "Content-Length: ");
                vec![changed(format!("{head}{}\r\n\r\n{body}", body.len()))]
            }
            (Sabotage::LostChange, _) => {
                let answer = super::message::answer(&m, 200, None);
                let peer = ([192, 0, 2, 1], 9).into();
                let source =
                    Source { transport: Transport::Udp, listener: ListenerNo(0), peer, flow: None, certified: false };
                self.in_ms(1, Happening::AtServer(source, answer.into()));
                let nowhere = Packet {
                    to: crate::transport::Destination::Datagram { listener: ListenerNo(0), peer },
                    ..packet.clone()
                };
                vec![nowhere]
            }
            (Sabotage::Overtaken, Some(last)) => vec![packet.clone(), Packet { bytes: last, ..packet.clone() }],
            (Sabotage::Impatience, _) => {
                let next = text.replace(&format!("CSeq: {cseq} "), &format!("CSeq: {} ", cseq + 1));
                let version = version_of(m.body).unwrap_or_default();
                let next = next.replace(&format!("version=\"{version}\""), &format!("version=\"{}\"", version + 1));
                vec![packet.clone(), changed(next)]
            }
            (Sabotage::Revival, _) => {
                let text = text.replace("<state>confirmed</state>", "<state>early</state>");
                let text = text.replace(
                    &format!("Content-Length: {}", m.body.len()),
                    &format!("Content-Length: {}", text.split("\r\n\r\n").nth(1).map_or(0, str::len)),
                );
                vec![changed(text)]
            }
            (Sabotage::Leak, _) => {
                vec![changed(
                    text.replace("@acme.test\" local", "@evil.test\" local").replace("@acme.test</", "@evil.test</"),
                )]
            }
            _ => vec![packet],
        }
    }
}

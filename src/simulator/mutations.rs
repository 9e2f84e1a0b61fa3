//! Mutations: faults that the simulator injects behind the server's back, to prove that the invariants detect them.

use bytes::Bytes;

use super::message;
use super::phone::{Phone, version_of};
use super::scenario::Mutation;
use super::simulation::{Event, Simulation};
use crate::sip::Transport;
use crate::sip::wire;
use crate::transport::{Destination, ListenerId, OutboundMessage, Source};

impl Simulation {
    /// Mutates a PUBLISH that may be repeated across a crash, before the server receives it.
    pub(super) fn with_other_branch(&self, bytes: Bytes) -> Bytes {
        if self.options.sabotage != Some(Mutation::OtherBranch) || !bytes.starts_with(b"PUBLISH") {
            return bytes;
        }
        let text =
            String::from_utf8_lossy(&bytes).replacen("branch=z9hG4bK", &format!("branch=z9hG4bK{}-", self.life), 1);
        text.into()
    }

    /// Mutates a packet of the server before the network carries it.
    pub(super) fn sabotage(&mut self, packet: OutboundMessage) -> Vec<OutboundMessage> {
        let Some(sabotage) = self.options.sabotage else { return vec![packet] };
        let Ok(Some(m)) = wire::read(&packet.bytes) else { return vec![packet] };
        if m.cseq.method != "NOTIFY" || m.status().is_some() {
            return vec![packet];
        }
        if sabotage == Mutation::SharedPacing {
            let phone = self.laws.expected(m.call_id).map(|expected| &self.phones[expected.phone]);
            let edge = phone.and_then(|phone| phone.edge);
            let silent = |other: &Phone| other.edge == edge && self.cut_off[other.number];
            // The edge is blocked for good. If one NOTIFY passed later, its CSeq would reveal that others are missing.
            self.held_edges.extend(edge.filter(|_| self.phones.iter().any(silent)));
            let held = edge.is_some_and(|edge| self.held_edges.contains(&edge));
            return if held { Vec::new() } else { vec![packet] };
        }
        let (call_id, cseq) = (m.call_id.to_string(), m.cseq.number);
        let last = self.last_bodies.insert(call_id, packet.bytes.clone());
        if sabotage == Mutation::FallingCount && self.life > 0 {
            let text = String::from_utf8_lossy(&packet.bytes).replace(&format!("CSeq: {cseq} "), "CSeq: 1 ");
            return vec![OutboundMessage { bytes: Bytes::from(text), ..packet }];
        }
        // A lost change is visible only if no refresh brings the state before the final check, so more of them are
        // needed.
        let often = if sabotage == Mutation::LostChange { 0.2 } else { 0.02 };
        if !self.random.chance(often) {
            return vec![packet];
        }
        let text = String::from_utf8_lossy(&packet.bytes).into_owned();
        let changed = |text: String| OutboundMessage { bytes: Bytes::from(text), ..packet.clone() };
        match (sabotage, last) {
            (Mutation::StaleBody, Some(last)) => {
                let body = wire::read(&last).ok().flatten().map(|m| String::from_utf8_lossy(m.body).into_owned());
                let (Some(body), Some(version)) = (body, version_of(m.body)) else { return vec![packet] };
                let old = version_of(body.as_bytes()).unwrap_or_default();
                let body = body.replace(&format!("version=\"{old}\" state"), &format!("version=\"{version}\" state"));
                let head = text.split("\r\n\r\n").next().unwrap_or_default();
                let head = head.replace(&format!("Content-Length: {}", m.body.len()), "Content-Length: ");
                vec![changed(format!("{head}{}\r\n\r\n{body}", body.len()))]
            }
            (Mutation::LostChange, _)
                if self.laws.expected(m.call_id).is_some_and(|e| self.phones[e.phone].edge.is_none()) =>
            {
                let answer = message::answer(&m, 200, None);
                let peer = ([192, 0, 2, 1], 9).into();
                let source =
                    Source { transport: Transport::Udp, listener: ListenerId(0), peer, flow: None, certified: false };
                self.schedule_in(1, Event::AtServer(source, answer.into()));
                let nowhere =
                    OutboundMessage { to: Destination::Datagram { listener: ListenerId(0), peer }, ..packet.clone() };
                vec![nowhere]
            }
            (Mutation::Overtaken, Some(last)) => {
                vec![packet.clone(), OutboundMessage { bytes: last, ..packet.clone() }]
            }
            (Mutation::Impatience, _) => {
                let next = text.replace(&format!("CSeq: {cseq} "), &format!("CSeq: {} ", cseq + 1));
                let version = version_of(m.body).unwrap_or_default();
                let next = next.replace(&format!("version=\"{version}\""), &format!("version=\"{}\"", version + 1));
                vec![packet.clone(), changed(next)]
            }
            (Mutation::Revival, _) => {
                let text = text.replace("<state>confirmed</state>", "<state>early</state>");
                let text = text.replace(
                    &format!("Content-Length: {}", m.body.len()),
                    &format!("Content-Length: {}", text.split("\r\n\r\n").nth(1).map_or(0, str::len)),
                );
                vec![changed(text)]
            }
            (Mutation::Leak, _) => {
                vec![changed(
                    text.replace("@acme.test\" direction", "@evil.test\" direction")
                        .replace("@acme.test\" local-", "@evil.test\" local-"),
                )]
            }
            _ => vec![packet],
        }
    }
}

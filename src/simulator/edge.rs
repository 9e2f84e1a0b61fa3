//! Edge proxies with phones behind them. They insert Record-Route, so that everything that the server sends to those
//! phones goes through one address. They are slow, lose messages and are rebooted.
//!
//! They keep no state. The destination of a response is encoded in the branch of their own Via, and the address of a
//! phone in the `alias` parameter that they add to its Contact, as Kamailio does.

use std::net::SocketAddr;

use bytes::Bytes;

use super::message::SERVER;
use super::simulation::{Event, Peer, Simulation};
use crate::sip::wire;

/// A proxy between phones and the server.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) address: String,
    /// Time until which it is down.
    pub(super) down_until: u64,
    /// Time until which it is slow, and the delay that it adds (ms).
    pub(super) slow: (u64, u64),
    /// Time until which it loses every second message.
    pub(super) lossy_until: u64,
}

impl Edge {
    pub(super) fn new(number: usize) -> Edge {
        Edge { address: format!("198.18.{number}.1:5060"), down_until: 0, slow: (0, 0), lossy_until: 0 }
    }

    /// Forwards a message from a phone: adds Via and Record-Route to a request, removes its Via from a response.
    fn upwards(&self, from: SocketAddr, text: &str) -> Option<String> {
        let (start, rest) = text.split_once("\r\n")?;
        if start.starts_with("SIP/2.0 ") {
            return Some(format!("{start}\r\n{}", without_via(rest)?.1));
        }
        let address = &self.address;
        let branch = branch_of(rest)?;
        let place = from.to_string().replace(':', "~");
        let (before, contact) = rest.split_once("\r\nContact: <")?;
        let (uri, after) = contact.split_once('>')?;
        Some(format!(
            "{start}\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{place}~{branch};rport\r\n\
             Record-Route: <sip:{address};lr>\r\n{before}\r\nContact: <{uri};alias={place}~1>{after}"
        ))
    }

    /// Forwards a message from the server; returns its destination too.
    fn downwards(&self, text: &str) -> Option<(SocketAddr, String)> {
        let (start, rest) = text.split_once("\r\n")?;
        if start.starts_with("SIP/2.0 ") {
            let (via, rest) = without_via(rest)?;
            let place = via.split_once(";branch=z9hG4bK")?.1;
            return Some((address_of(place)?, format!("{start}\r\n{rest}")));
        }
        let place = start.split_once(";alias=")?.1;
        let (route, after) = rest.split_once("\r\nRoute: ")?;
        let (own, after) = after.split_once("\r\n")?;
        let (address, branch) = (&self.address, branch_of(rest)?);
        (own == format!("<sip:{address};lr>")).then_some(())?;
        let via = format!("Via: SIP/2.0/UDP {address};branch=z9hG4bKe{branch};rport");
        Some((address_of(place)?, format!("{start}\r\n{via}\r\n{route}\r\n{after}")))
    }
}

/// Splits the first Via from the other header fields.
fn without_via(headers: &str) -> Option<(&str, String)> {
    let at = if headers.starts_with("Via: ") { 0 } else { headers.find("\r\nVia: ")? + 2 };
    let (via, after) = headers[at..].split_once("\r\n")?;
    Some((via, format!("{}{after}", &headers[..at])))
}

fn branch_of(headers: &str) -> Option<&str> {
    headers.split_once(";branch=z9hG4bK")?.1.split([';', '\r']).next()
}

fn address_of(place: &str) -> Option<SocketAddr> {
    let mut parts = place.split(['~', ';', ' ']);
    format!("{}:{}", parts.next()?, parts.next()?).parse().ok()
}

impl Simulation {
    /// Handles a message at an edge: from a phone, or from the server if `from` is none.
    pub(super) fn at_edge(&mut self, number: usize, from: Option<SocketAddr>, bytes: &Bytes) {
        let edge = &self.edges[number];
        let lost = edge.lossy_until > self.now && self.random.chance(0.5);
        let slow = if edge.slow.0 > self.now { edge.slow.1 } else { 0 };
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if lost || edge.down_until > self.now {
            return self.lost_at_edge(bytes);
        }
        let (to, text) = match from {
            Some(from) => match edge.upwards(from, text) {
                Some(text) => (SERVER.parse().ok(), text),
                None => return,
            },
            None => match edge.downwards(text) {
                Some((to, text)) => (Some(to), text),
                None => return,
            },
        };
        let source = edge.address.parse().ok();
        let who = to.and_then(|to| self.addresses.get(&to).copied());
        let cut = matches!(who, Some(Peer::Phone(number)) if self.cut_off[number]);
        let arrivals = self.arrivals(cut || from.is_none() && who.is_none(), None, 0);
        if arrivals.is_empty() {
            self.lost_at_edge(bytes);
        }
        for delay in arrivals {
            let bytes = Bytes::from(text.clone());
            match (who, source) {
                (Some(who), _) if from.is_none() => self.schedule_in(slow + delay, Event::At(who, None, bytes)),
                (_, Some(source)) => self.arrive(slow + delay, source, None, bytes),
                _ => {}
            }
        }
    }

    fn lost_at_edge(&mut self, bytes: &[u8]) {
        let Some(topic) = self.ladder.topic() else { return };
        if let Ok(Some(m)) = wire::read(bytes)
            && topic.call_id.as_deref() == Some(m.call_id)
        {
            let what = m.status().map_or_else(|| "a request".into(), |status| status.to_string());
            let line = format!("{what} for {} {} is LOST at or behind the edge", m.cseq.method, m.cseq.number);
            self.note(&line);
        }
    }
}

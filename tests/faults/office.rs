//! Phones and a publisher over UDP, on a network that loses datagrams.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lamplighter::sip::headers::param;
use lamplighter::sip::wire::{self, Message, Name};

/// Interval between retransmissions of a request.
const AGAIN: Duration = Duration::from_millis(300);
/// Requests in flight at the same time.
const WINDOW: usize = 128;

/// State of one phone.
#[derive(Default)]
struct Phone {
    to_tag: Option<String>,
    cseq: u32,
    /// Time of the last transmission of the SUBSCRIBE in flight.
    asking: Option<Instant>,
    heard: u32,
    version: Option<u32>,
    lamp: String,
}

/// The publisher's state of one presentity.
#[derive(Default)]
struct Desk {
    etag: Option<String>,
    /// Number of the latest PUBLISH; it names the call as well.
    number: u32,
    /// State in that PUBLISH.
    says: &'static str,
    asking: Option<Instant>,
    /// State acknowledged last.
    truth: Option<&'static str>,
}

pub(crate) struct Office {
    server: SocketAddr,
    phones_socket: UdpSocket,
    desk_socket: UdpSocket,
    phones: Vec<Phone>,
    desks: Vec<Desk>,
    watchers: usize,
    dice: u64,
    pub(crate) loss: u64,
    pub(crate) lost: usize,
    pub(crate) regressions: usize,
    pub(crate) changes: usize,
    pub(crate) notifies: usize,
}

impl Office {
    pub(crate) fn open(server: SocketAddr, presentities: usize, watchers: usize) -> Office {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Office {
            server,
            phones_socket: socket(),
            desk_socket: socket(),
            phones: (0..presentities * watchers).map(|_| Phone::default()).collect(),
            desks: (0..presentities).map(|_| Desk::default()).collect(),
            watchers,
            // A fixed seed gives the same losses for the same traffic; the traffic itself depends on the machine's
            // timing.
            dice: 0x9e37_79b9_7f4a_7c15,
            loss: 0,
            lost: 0,
            regressions: 0,
            changes: 0,
            notifies: 0,
        }
    }

    pub(crate) fn subscribe_all(&mut self, deadline: Instant) {
        self.ask_all(deadline);
        assert!(self.phones.iter().all(|p| p.to_tag.is_some()), "every phone is subscribed");
    }

    /// One SUBSCRIBE of every phone: the first, or a refresh.
    pub(crate) fn refresh_all(&mut self, deadline: Instant) {
        self.ask_all(deadline);
    }

    fn ask_all(&mut self, deadline: Instant) {
        let mut waiting: Vec<usize> = (0..self.phones.len()).rev().collect();
        while !(waiting.is_empty() && self.asking() == 0) {
            assert!(Instant::now() < deadline, "{} phones have no answer", self.asking() + waiting.len());
            while self.asking() < WINDOW {
                let Some(i) = waiting.pop() else { break };
                self.phones[i].cseq += 1;
                self.subscribe(i);
            }
            self.turn();
        }
    }

    fn asking(&self) -> usize {
        self.phones.iter().filter(|p| p.asking.is_some()).count()
    }

    /// Publishes without pause, one change after the other on every presentity.
    pub(crate) fn work_until(&mut self, end: Instant) {
        let mut next = 0;
        while Instant::now() < end {
            for _ in 0..4 {
                next = (next + 1) % self.desks.len();
                if self.desks[next].asking.is_none() {
                    self.change(next);
                }
            }
            self.turn();
        }
    }

    /// Waits until every PUBLISH is answered and every lamp shows the true state.
    pub(crate) fn settle(&mut self, deadline: Instant) {
        while Instant::now() < deadline {
            self.turn();
            if self.desks.iter().all(|d| d.asking.is_none()) && self.wrong_lamps().is_empty() {
                return;
            }
        }
    }

    pub(crate) fn wrong_lamps(&self) -> Vec<String> {
        let truth = |i: usize| self.desks[i / self.watchers].truth.unwrap_or("terminated");
        let wrong = self.phones.iter().enumerate().filter(|(i, p)| p.lamp != truth(*i));
        wrong.map(|(i, p)| format!("phone {i} shows {} instead of {}", p.lamp, truth(i))).collect()
    }

    /// Receives pending messages and retransmits unanswered requests.
    fn turn(&mut self) {
        let mut buffer = vec![0; 65_536];
        let mut idle = true;
        while let Ok((length, _)) = self.phones_socket.recv_from(&mut buffer) {
            idle = false;
            if !self.loses() {
                self.phone_hears(&buffer[..length]);
            }
        }
        while let Ok((length, _)) = self.desk_socket.recv_from(&mut buffer) {
            idle = false;
            if !self.loses() {
                self.desk_hears(&buffer[..length]);
            }
        }
        let late = |asking: &Option<Instant>| asking.is_some_and(|at| at.elapsed() > AGAIN);
        for i in 0..self.phones.len() {
            if late(&self.phones[i].asking) {
                self.subscribe(i);
            }
        }
        for i in 0..self.desks.len() {
            if late(&self.desks[i].asking) {
                self.publish(i);
            }
        }
        if idle {
            std::thread::yield_now();
        }
    }

    fn loses(&mut self) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 100 < self.loss
    }

    fn send(&mut self, from_desk: bool, text: &str) {
        if !self.loses() {
            let socket = if from_desk { &self.desk_socket } else { &self.phones_socket };
            // While the server is down the kernel may refuse; that counts as a lost datagram.
            let _ = socket.send_to(text.as_bytes(), self.server);
        }
    }

    fn subscribe(&mut self, i: usize) {
        let local = self.phones_socket.local_addr().unwrap();
        let phone = &mut self.phones[i];
        phone.asking = Some(Instant::now());
        let tag = phone.to_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let (who, cseq) = (i / self.watchers, phone.cseq);
        let text = format!(
            "SUBSCRIBE sip:p{who}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKs{i}x{cseq};rport\r\n\
             From: <sip:w{i}@acme.test>;tag=w{i}\r\nTo: <sip:p{who}@acme.test>{tag}\r\nCall-ID: {i}\r\n\
             CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:w{i}@{local}>\r\nEvent: dialog\r\nExpires: 3600\r\n\
             Content-Length: 0\r\n\r\n"
        );
        self.send(false, &text);
    }

    fn phone_hears(&mut self, bytes: &[u8]) {
        let message = wire::read(bytes).unwrap().unwrap();
        let i: usize = message.call_id.parse().unwrap();
        match message.status() {
            Some(status) => {
                let phone = &mut self.phones[i];
                if phone.asking.is_some() && message.cseq.number == phone.cseq {
                    phone.asking = None;
                    match status {
                        200 => phone.to_tag = param(message.to.params, "tag").map(String::from),
                        // Not lost: the server had accepted an earlier copy, and its response was lost in a crash.
                        500 => {}
                        _ => self.lost += 1,
                    }
                }
            }
            None => self.notified(i, &message),
        }
    }

    fn notified(&mut self, i: usize, notify: &Message<'_>) {
        let body = std::str::from_utf8(notify.body).unwrap();
        let mut answer = "SIP/2.0 200 OK\r\n".to_string();
        for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            for value in notify.all(name) {
                answer += &format!("{}: {value}\r\n", name.text());
            }
        }
        answer += "Content-Length: 0\r\n\r\n";
        self.notifies += 1;
        let phone = &mut self.phones[i];
        let root = body.split("<dialog-info").nth(1).unwrap();
        let version: u32 = root.split(" version=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        // A retransmitted NOTIFY has a CSeq that the phone knows; only a new one may change the lamp.
        if notify.cseq.number != phone.heard {
            let falls = notify.cseq.number < phone.heard || phone.version.is_some_and(|v| version <= v);
            self.regressions += usize::from(falls);
            let phone = &mut self.phones[i];
            (phone.heard, phone.version) = (notify.cseq.number, Some(version));
            phone.lamp = body.split("<state>").nth(1).unwrap().split('<').next().unwrap().to_string();
        }
        self.send(false, &answer);
    }

    /// The next state of the presentity's call.
    fn change(&mut self, i: usize) {
        let desk = &mut self.desks[i];
        desk.number += 1;
        desk.says = ["terminated", "early", "confirmed"][desk.number as usize % 3];
        self.publish(i);
    }

    fn publish(&mut self, i: usize) {
        let local = self.desk_socket.local_addr().unwrap();
        let desk = &mut self.desks[i];
        desk.asking = Some(Instant::now());
        let (number, says) = (desk.number, desk.says);
        let call = number.div_ceil(3);
        let body = format!(
            "<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
             entity=\"sip:p{i}@acme.test\"><dialog id=\"c{call}\" call-id=\"c{call}\" direction=\"recipient\">\
             <state>{says}</state></dialog></dialog-info>"
        );
        let condition = desk.etag.as_ref().map(|etag| format!("SIP-If-Match: {etag}\r\n")).unwrap_or_default();
        // After a failed condition the request is a new one with another entity-tag, as Kamailio and Asterisk do.
        let tag = format!("d{number}-{}", desk.etag.as_deref().unwrap_or("new"));
        let branch = format!("z9hG4bKp{i}x{tag}");
        let text = format!(
            "PUBLISH sip:p{i}@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch={branch};rport\r\n\
             From: <sip:p{i}@acme.test>;tag={tag}\r\nTo: <sip:p{i}@acme.test>\r\nCall-ID: {i}\r\n\
             CSeq: {number} PUBLISH\r\nEvent: dialog\r\nExpires: 3600\r\n{condition}\
             Content-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(true, &text);
    }

    fn desk_hears(&mut self, bytes: &[u8]) {
        let message = wire::read(bytes).unwrap().unwrap();
        let i: usize = message.call_id.parse().unwrap();
        let desk = &mut self.desks[i];
        if desk.asking.is_none() || message.cseq.number != desk.number {
            return;
        }
        match message.status() {
            Some(200) => {
                let headers: HashMap<_, _> =
                    std::str::from_utf8(bytes).unwrap().lines().filter_map(|line| line.split_once(": ")).collect();
                desk.etag = Some(headers["SIP-ETag"].to_string());
                desk.asking = None;
                desk.truth = Some(desk.says);
                self.changes += 1;
            }
            // The response to an earlier copy was lost in a crash: the publisher publishes anew.
            Some(412) => {
                desk.etag = None;
                self.publish(i);
            }
            other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
        }
    }
}

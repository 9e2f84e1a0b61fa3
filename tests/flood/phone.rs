//! A well-behaved phone: it has one subscription over UDP, authenticates by digest, answers its NOTIFYs, and measures
//! the duration of its refreshes.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lamplighter::sip::headers::param;
use lamplighter::sip::wire::{self, Name};
use md5::{Digest as _, Md5};

/// Most transmissions of a request (RFC 3261 section 17.1.2.2: Timer F is 64 T1).
const COPIES: u32 = 9;

pub(crate) struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    to_tag: String,
    nonce: String,
    count: u32,
    cseq: u32,
    /// CSeq numbers of the received NOTIFYs, in order of arrival.
    pub(crate) notified: Vec<u32>,
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

impl Phone {
    /// Subscribes; it has authenticated when this returns.
    pub(crate) fn settled(server: SocketAddr) -> Phone {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        let (to_tag, nonce) = (String::new(), String::new());
        let mut phone = Phone { socket, server, to_tag, nonce, count: 0, cseq: 0, notified: Vec::new() };
        phone.refresh().expect("an answer");
        phone
    }

    fn request(&mut self) -> String {
        self.cseq += 1;
        self.count += 1;
        let (local, cseq, uri) = (self.socket.local_addr().unwrap(), self.cseq, "sip:1001@acme.test");
        let tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let proof = match self.nonce.as_str() {
            "" => String::new(),
            nonce => {
                let (a1, a2) = (md5("1001:acme.test:p"), md5(&format!("SUBSCRIBE:{uri}")));
                let count = format!("{:08x}", self.count);
                let response = md5(&format!("{a1}:{nonce}:{count}:c:auth:{a2}"));
                format!(
                    "Authorization: Digest username=\"1001\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"{uri}\", \
                     response=\"{response}\", algorithm=MD5, qop=auth, nc={count}, cnonce=\"c\"\r\n"
                )
            }
        };
        format!(
            "SUBSCRIBE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKp{cseq};rport\r\n{proof}\
             From: <sip:1001@acme.test>;tag=p\r\nTo: <{uri}>{tag}\r\nCall-ID: good@{local}\r\nCSeq: {cseq} SUBSCRIBE\r\n\
             Contact: <sip:1001@{local}>\r\nEvent: dialog\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Refreshes the subscription; returns the time that took, authentication included. None if it was never answered.
    pub(crate) fn refresh(&mut self) -> Option<Duration> {
        let began = Instant::now();
        loop {
            match self.ask()? {
                200 => return Some(began.elapsed()),
                401 => {}
                other => panic!("the phone gets {other}"),
            }
        }
    }

    /// Sends one request, and retransmits it until it is answered.
    fn ask(&mut self) -> Option<u16> {
        let request = self.request();
        let mut wait = Duration::from_millis(500);
        for _ in 0..COPIES {
            self.socket.send_to(request.as_bytes(), self.server).unwrap();
            if let Some(status) = self.hear_until(Instant::now() + wait) {
                return Some(status);
            }
            wait = (wait * 2).min(Duration::from_secs(4));
        }
        None
    }

    /// Sends a refresh and waits for nothing.
    pub(crate) fn send_refresh(&mut self) {
        let request = self.request();
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
    }

    /// Answers NOTIFYs until the response to the latest request arrives, or until the deadline.
    pub(crate) fn hear_until(&mut self, deadline: Instant) -> Option<u16> {
        let mut buffer = [0; 65_536];
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let message = wire::read(&buffer[..length]).unwrap().unwrap();
            match message.status() {
                None => {
                    self.notified.push(message.cseq.number);
                    let answer = ok(&message);
                    self.socket.send_to(answer.as_bytes(), self.server).unwrap();
                }
                Some(status) if message.cseq.number == self.cseq => {
                    if status == 401 {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        let md5 = text.lines().find(|line| line.contains("algorithm=MD5")).unwrap();
                        self.nonce = md5.split("nonce=\"").nth(1)?.split('"').next()?.to_string();
                        self.count = 0;
                    } else if self.to_tag.is_empty() {
                        self.to_tag = param(message.to.params, "tag").unwrap_or_default().to_string();
                    }
                    return Some(status);
                }
                Some(_) => {}
            }
        }
    }
}

fn ok(notify: &wire::Message<'_>) -> String {
    let mut answer = "SIP/2.0 200 OK\r\n".to_string();
    for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
        for value in notify.all(name) {
            answer.push_str(&format!("{}: {value}\r\n", name.text()));
        }
    }
    answer + "Content-Length: 0\r\n\r\n"
}

//! A phone that authenticates by digest (RFC 7616), with right or wrong credentials, from a given address.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use md5::{Digest as _, Md5};

use crate::world::PATIENCE;

pub(crate) struct DigestPhone {
    socket: UdpSocket,
    server: SocketAddr,
    cseq: u32,
}

fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Nonce of a challenge.
pub(crate) fn nonce(challenge: &str) -> String {
    assert!(challenge.starts_with("SIP/2.0 401"), "{challenge}");
    challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

impl DigestPhone {
    pub(crate) fn new(server: SocketAddr, address: impl Into<IpAddr>) -> DigestPhone {
        let socket = UdpSocket::bind((address.into(), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        DigestPhone { socket, server, cseq: 0 }
    }

    /// Subscribes with more header lines; returns the response.
    pub(crate) fn subscribe(&mut self, user: &str, more: &str) -> String {
        self.cseq += 1;
        let (local, cseq) = (self.socket.local_addr().unwrap(), self.cseq);
        let request = format!(
            "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKd{cseq};rport\r\n\
             From: <sip:{user}@acme.test>;tag=d\r\nTo: <sip:1001@acme.test>\r\nCall-ID: {cseq}@{local}\r\n\
             CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:{user}@{local}>\r\nEvent: dialog\r\nExpires: 600\r\n\
             {more}Content-Length: 0\r\n\r\n"
        );
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
        let mut buffer = [0; 4_096];
        loop {
            let length = self.socket.recv(&mut buffer).expect("an answer");
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            if text.starts_with("SIP/2.0") {
                return text.to_owned();
            }
        }
    }

    /// Requests a challenge, and answers it with a password.
    pub(crate) fn try_password(&mut self, user: &str, password: &str) -> String {
        let nonce = nonce(&self.subscribe(user, ""));
        self.answer_nonce(user, password, &nonce, "")
    }

    /// Answers a nonce with a password.
    pub(crate) fn answer_nonce(&mut self, user: &str, password: &str, nonce: &str, more: &str) -> String {
        let uri = "sip:1001@acme.test";
        let a1 = hash(&format!("{user}:acme.test:{password}"));
        let a2 = hash(&format!("SUBSCRIBE:{uri}"));
        let response = hash(&format!("{a1}:{nonce}:00000001:c:auth:{a2}"));
        let quoted = user.replace('\\', "\\\\").replace('"', "\\\"");
        let proof = format!(
            "Authorization: Digest username=\"{quoted}\", realm=\"acme.test\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5, qop=auth, nc=00000001, cnonce=\"c\"\r\n{more}"
        );
        self.subscribe("1003", &proof)
    }
}

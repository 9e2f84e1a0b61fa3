//! Phones behind one TCP connection that all watch one extension, and a publisher.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::world::PATIENCE;

pub(crate) struct Phones {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Phones {
    pub(crate) fn new(sip: SocketAddr) -> Phones {
        let stream = TcpStream::connect(sip).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Phones { stream, read: Vec::new() }
    }

    /// Returns the next message.
    fn hear(&mut self) -> String {
        let mut piece = vec![0; 65_536];
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:")).unwrap();
                let whole = head.len() + 4 + length.trim().parse::<usize>().unwrap();
                if body.len() + head.len() + 4 >= whole {
                    self.read.drain(..whole);
                    return text[..whole].to_owned();
                }
            }
            let length = self.stream.read(&mut piece).expect("a message in time");
            assert_ne!(length, 0, "the connection has ended");
            self.read.extend_from_slice(&piece[..length]);
        }
    }

    /// Receives this many NOTIFYs, and answers each.
    pub(crate) fn answer(&mut self, count: usize) {
        let mut answered = 0;
        while answered < count {
            let notify = self.hear();
            if !notify.starts_with("NOTIFY ") {
                assert!(notify.starts_with("SIP/2.0 200"), "{notify}");
                continue;
            }
            answered += 1;
            let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
            let lines = notify.split("\r\n").take_while(|line| !line.is_empty());
            let kept: Vec<_> = lines.filter(|line| kept.iter().any(|name| line.starts_with(name))).collect();
            write!(self.stream, "SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", kept.join("\r\n")).unwrap();
        }
    }

    /// Phones with these numbers subscribe to an extension, each in its own dialog, and answer the first NOTIFY.
    pub(crate) fn watch(&mut self, extension: &str, phones: std::ops::Range<usize>) {
        self.watch_in("acme.test", extension, phones);
    }

    /// The same in a given realm.
    pub(crate) fn watch_in(&mut self, realm: &str, extension: &str, phones: std::ops::Range<usize>) {
        let local = self.stream.local_addr().unwrap();
        for n in phones {
            write!(
                self.stream,
                "SUBSCRIBE sip:{extension}@{realm} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKs{extension}-{n};rport\r\n\
                 From: <sip:w{n}@{realm}>;tag=p{n}\r\nTo: <sip:{extension}@{realm}>\r\nCall-ID: {extension}-{n}\r\n\
                 CSeq: 1 SUBSCRIBE\r\nContact: <sip:w{n}@{local};transport=tcp>\r\nEvent: dialog\r\nExpires: 600\r\n\
                 Content-Length: 0\r\n\r\n"
            )
            .unwrap();
            self.answer(1);
        }
    }

    /// Publishes calls of an extension, each with texts of about `octets` octets.
    pub(crate) fn publish(&mut self, extension: &str, calls: usize, octets: usize) {
        let local = self.stream.local_addr().unwrap();
        let (mut body, filler) = (String::new(), "x".repeat(octets));
        body.push_str(&format!(
            "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='1' state='full' entity='sip:{extension}@acme.test'>"
        ));
        for n in 0..calls {
            body.push_str(&format!(
                "<dialog id='{n}' call-id='c{n}' direction='recipient'><state>confirmed</state><remote>\
                 <identity display='{filler}'>sip:{n}@acme.test</identity></remote></dialog>"
            ));
        }
        body.push_str("</dialog-info>");
        write!(
            self.stream,
            "PUBLISH sip:{extension}@acme.test SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bKp{extension};rport\r\n\
             From: <sip:pbx@acme.test>;tag=b\r\nTo: <sip:{extension}@acme.test>\r\nCall-ID: p{extension}\r\n\
             CSeq: 1 PUBLISH\r\nEvent: dialog\r\nExpires: 600\r\nContent-Type: application/dialog-info+xml\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
}

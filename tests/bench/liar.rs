//! A minimal presence server that answers SUBSCRIBEs and violates the protocol in one way.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

use lamplighter::sip::headers::NameAddr;
use lamplighter::sip::wire::{self, Message, Name};

/// Kind of its violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    NoNotify,
    NoAnswer,
    SameCSeq,
    CSeqFalls,
    VersionStays,
    VersionJumps,
    OtherEntity,
    ForeignState,
    EndsAtOnce,
    OtherTag,
    Error,
    Garbage,
}

/// The server, on its own port. Its thread ends with the test program, because it only waits for datagrams.
pub(crate) struct Liar {
    pub(crate) address: String,
}

/// CSeq and version of the last NOTIFY of a dialog.
type Last = (u32, u32);

impl Liar {
    pub(crate) fn start(lie: Lie) -> Liar {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        std::thread::spawn(move || serve(&socket, lie));
        Liar { address }
    }
}

fn serve(socket: &UdpSocket, lie: Lie) {
    let (mut buffer, mut dialogs) = ([0; 65_535], HashMap::<String, Last>::new());
    let mut serial = 0;
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let Ok(Some(message)) = wire::read(&buffer[..length]) else { continue };
        if message.request().is_none() {
            continue;
        }
        let is_subscribe = message.head.first(Name::CSeq).is_some_and(|cseq| cseq.ends_with("SUBSCRIBE"));
        let send = |bytes: &[u8]| _ = socket.send_to(bytes, peer).unwrap();
        if !is_subscribe {
            // The probe for readiness.
            send(&answer(&message, peer, 200, "t"));
            continue;
        }
        if lie == Lie::NoAnswer {
            continue;
        }
        if lie == Lie::Error {
            send(&answer(&message, peer, 500, "t"));
            continue;
        }
        send(&answer(&message, peer, 200, "t"));
        let last = dialogs.entry(message.call_id.to_string()).or_insert((100, 0));
        let before = *last;
        *last = (last.0 + 1, last.1 + 1);
        match lie {
            Lie::SameCSeq if before.0 > 100 => last.0 = before.0,
            Lie::CSeqFalls if before.0 > 100 => last.0 = 50,
            Lie::VersionStays if before.0 > 100 => last.1 = before.1,
            Lie::VersionJumps if before.0 > 100 => last.1 += 1,
            _ => {}
        }
        serial += 1;
        if lie == Lie::Garbage {
            send(b"NOTIFY sip:p0@127.0.0.1 SIP/2.0\r\nVia\r\n\r\n");
        }
        if lie != Lie::NoNotify {
            send(&notify(&message, *last, serial, lie));
        }
    }
}

/// Written by hand, because it is not a subject of these tests.
fn answer(request: &Message<'_>, peer: SocketAddr, status: u16, tag: &str) -> Vec<u8> {
    let value = |name| request.first(name).unwrap_or_default();
    let to = match request.to.tag() {
        Some(_) => request.to.text.to_string(),
        None => format!("{};tag={tag}", request.to.text),
    };
    format!(
        "SIP/2.0 {status} Answer\r\nVia: {};received={}\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Contact: <sip:liar@127.0.0.1>\r\nExpires: {}\r\nContent-Length: 0\r\n\r\n",
        value(Name::Via),
        peer.ip(),
        value(Name::From),
        request.call_id,
        value(Name::CSeq),
        request.first(Name::Expires).unwrap_or("0")
    )
    .into_bytes()
}

fn notify(subscribe: &Message<'_>, (cseq, version): Last, serial: u32, lie: Lie) -> Vec<u8> {
    let contact = subscribe.first(Name::Contact).and_then(NameAddr::read).unwrap().uri;
    let to = subscribe.to.text.split(";tag=").next().unwrap();
    let ended = subscribe.first(Name::Expires) == Some("0") || lie == Lie::EndsAtOnce;
    let state = if ended { "terminated;reason=timeout" } else { "active;expires=60" };
    let entity = if lie == Lie::OtherEntity { "sip:else@acme.test" } else { NameAddr::read(to).unwrap().uri };
    // A call of this run that was never published; every Call-ID starts with the run.
    let run = subscribe.call_id.split('.').next().unwrap();
    let call = format!("<dialog id=\"{run}-9\"><state>early</state></dialog>");
    let body = format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"{version}\" \
         state=\"full\" entity=\"{entity}\">{}</dialog-info>",
        if lie == Lie::ForeignState { &*call } else { "" }
    );
    format!(
        "NOTIFY {contact} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{serial}\r\nMax-Forwards: 70\r\n\
         From: {to};tag={}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nEvent: dialog\r\n\
         Contact: <sip:liar@127.0.0.1>\r\nSubscription-State: {state}\r\n\
         Content-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{body}",
        if lie == Lie::OtherTag { "u" } else { "t" },
        subscribe.from.text,
        subscribe.call_id,
        body.len()
    )
    .into_bytes()
}

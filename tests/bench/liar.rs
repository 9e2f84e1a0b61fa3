//! A presence server of a few lines that answers SUBSCRIBEs and makes one kind of mistake.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

use lamplighter::sip::StatusCode;
use lamplighter::sip::headers::NameAddr;
use lamplighter::sip::wire::{self, Message, Name, Writer};

/// What it does wrong.
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

/// The server, on a port of its own. Its thread ends with the test program: it only ever waits for datagrams.
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
            // The question whether we are there.
            send(&answer(&message, peer, StatusCode::OK, "t"));
            continue;
        }
        if lie == Lie::NoAnswer {
            continue;
        }
        if lie == Lie::Error {
            send(&answer(&message, peer, StatusCode::ServerInternalError, "t"));
            continue;
        }
        send(&answer(&message, peer, StatusCode::OK, "t"));
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

fn answer(request: &Message<'_>, peer: SocketAddr, status: StatusCode, tag: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = wire::reply(&mut bytes, &status, "Answer", &request.head, peer, tag);
    writer.header("Contact", "<sip:liar@127.0.0.1>").header("Expires", request.first(Name::Expires).unwrap_or("0"));
    writer.end();
    bytes
}

fn notify(subscribe: &Message<'_>, (cseq, version): Last, serial: u32, lie: Lie) -> Vec<u8> {
    let contact = subscribe.first(Name::Contact).and_then(NameAddr::read).unwrap();
    let to = subscribe.to.text.split(";tag=").next().unwrap();
    let entity = NameAddr::read(to).unwrap().uri;
    let (mut bytes, ended) = (Vec::new(), subscribe.first(Name::Expires) == Some("0") || lie == Lie::EndsAtOnce);
    let mut writer = Writer::request(&mut bytes, "NOTIFY", contact.uri);
    writer.header("Via", format_args!("SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{serial}"));
    writer.header("From", format_args!("{to};tag={}", if lie == Lie::OtherTag { "u" } else { "t" }));
    writer.header("To", subscribe.from.text).header("Call-ID", subscribe.call_id);
    writer
        .header("CSeq", format_args!("{cseq} NOTIFY"))
        .header("Event", "dialog")
        .header("Contact", "<sip:liar@127.0.0.1>");
    writer.header("Subscription-State", if ended { "terminated;reason=timeout" } else { "active;expires=60" });
    let entity = if lie == Lie::OtherEntity { "sip:else@acme.test" } else { entity };
    // A call of this run that nobody has published; every Call-ID starts with the run.
    let run = subscribe.call_id.split('.').next().unwrap();
    let call = format!("<dialog id=\"{run}-9\"><state>early</state></dialog>");
    let body = format!(
        "<?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"{version}\" \
         state=\"full\" entity=\"{entity}\">{}</dialog-info>",
        if lie == Lie::ForeignState { &*call } else { "" }
    );
    writer.body("application/dialog-info+xml", body.as_bytes());
    bytes
}

//! Target `bodies`: published bodies, parsed, written, parsed again, and delivered to a watcher.

use std::sync::LazyLock;

use lamplighter::package::{EventPackage, PackageId, by_name, get};
use lamplighter::presence::state::{
    Basic, CallReport, CallState, ComposedState, Direction, Mailbox, Party, PersonState, PublishedCalls, PublishedState,
};
use lamplighter::sip::wire;

use super::fixtures::fixtures;
use super::notifier::{notifier, udp_source};
use super::sound::ok_to;
use super::talk::Talk;
use super::target::Target;

pub(crate) const OWN: &str = "sip:own@d.example";

/// Bodies with every element and dialect that the parsers know.
pub(crate) const SEEDS: [(&str, &str); 7] = [
    (
        "dialog",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" \
         version=\"12\" state=\"full\" entity=\"sip:100@d\"><dialog id=\"i1\" call-id=\"c1@h\" local-tag=\"l&amp;1\" \
         remote-tag=\"r1\" direction=\"initiator\"><remote><identity display=\"B &lt;b&gt;\">sip:200@d</identity>\
         <target uri=\"sip:200@10.0.0.1\"/></remote><local><identity>sip:100@d</identity>\
         <target uri=\"sip:100@10.0.0.2\"><param pname=\"+sip.rendering\" pvalue=\"no\"/></target></local>\
         <state>Trying</state></dialog><!-- second --><dialog id='i2'><state>confirmed</state></dialog></dialog-info>",
    ),
    (
        "dialog",
        "<d:dialog-info xmlns:d='urn:ietf:params:xml:ns:dialog-info' state='partial' xmlns:q='urn:q'>\
         <q:x d:y='1'><![CDATA[<]]></q:x><d:dialog call-id='&#65;b'><d:state event='rejected'> EARLY </d:state>\
         <d:duration>5</d:duration></d:dialog><d:dialog id='manual'><d:state>proceeding</d:state></d:dialog>\
         <d:dialog id='idle'><d:state>terminated</d:state></d:dialog></d:dialog-info>",
    ),
    // A body so large that the NOTIFY needs compact header names.
    (
        "dialog",
        "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' state='full'><dialog id='i1' direction='initiator' \
         call-id='1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890' \
         local-tag='1234567890123456789012345678901234567890' remote-tag='1234567890123456789012345678901234567890'>\
         <state>confirmed</state></dialog><dialog id='i2' call-id='123456789012345678901234567890123456789012345678'>\
         <state>early</state></dialog></dialog-info>",
    ),
    (
        "presence",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:dm='urn:ietf:params:xml:ns:pidf:data-model' \
         xmlns:rpid='urn:ietf:params:xml:ns:pidf:rpid' entity='sip:a@d'><note>Doc</note><tuple id='t1'><status>\
         <basic> Closed </basic></status><contact priority='0.8'>sip:a@d</contact><note xml:lang='de'>T&#252;r</note>\
         </tuple><dm:person id='p'><rpid:activities><rpid:away/><rpid:unknown/><rpid:busy></rpid:busy></rpid:activities>\
         <dm:note>Per &quot;son&quot;</dm:note></dm:person></presence>",
    ),
    (
        "presence",
        "<?xml version='1.0' encoding='ISO-8859-1' ?>\n<p:presence xmlns:p='urn:ietf:params:xml:ns:pidf' entity=''>\
         <p:tuple id='x'><p:status><p:basic>open</p:basic><x p:mustUnderstand='1'/></p:status></p:tuple></p:presence> ",
    ),
    (
        "message-summary",
        "Messages-Waiting: yes\r\nMessage-Account: sip:vm@d\r\nVoice-Message: 2/8 (0/2)\r\nFax-Message: 1/0\r\n\
         Pager-Message: 4/5\r\nMultimedia-Message: 0/0\r\nText-Message: 3/4294967295\r\nNone: 0/0\r\n\r\nTo: x\r\n",
    ),
    ("message-summary", "messages-waiting : No\nX: y\n folded\nVoice-Message:1 / 2 ( 3/ 4 )"),
];

pub(crate) fn write(package: &dyn EventPackage, picture: &ComposedState<'_>) -> String {
    let mut tail = String::new();
    package.write_tail(picture, &mut tail);
    package.body(u32::MAX, "sip:<\"&'>@d", &tail)
}

/// The party in our own document, which fills in what the report leaves out.
fn completed(party: &Party) -> Party {
    let known = party.identity.clone().or(party.target.clone()).unwrap_or_else(|| OWN.into());
    Party {
        display: party.display.clone(),
        target: Some(party.target.clone().unwrap_or_else(|| known.clone())),
        identity: Some(known),
    }
}

/// The call in our own document.
fn completed_call(call: &CallReport) -> CallReport {
    CallReport {
        direction: Some(call.direction.unwrap_or(Direction::Recipient)),
        local: completed(&call.local),
        remote: completed(&call.remote),
        // A call that is not on hold is written without a hold parameter.
        held: call.held.filter(|held| *held),
        ..call.clone()
    }
}

fn idle() -> CallReport {
    let empty = Party::default();
    completed_call(&CallReport {
        id: "idle".into(),
        call_id: None,
        local_tag: None,
        remote_tag: None,
        direction: None,
        state: CallState::Terminated,
        local: empty.clone(),
        remote: empty,
        held: None,
    })
}

/// Parses `body`; an accepted body has to be unchanged in the document composed from it.
pub(crate) fn there_and_back(package: PackageId, body: &[u8]) {
    let package = get(package);
    let Ok(report) = package.read(body) else { return };
    let mut picture = ComposedState { uri: OWN, ..ComposedState::default() };
    let expected = match &report {
        PublishedState::Calls(report) => {
            picture.calls = report.calls.iter().filter(|call| call.state != CallState::Terminated).collect();
            let mut calls: Vec<_> = picture.calls.iter().map(|call| completed_call(call)).collect();
            if calls.is_empty() {
                calls.push(idle());
            }
            PublishedState::Calls(PublishedCalls { full: true, calls })
        }
        PublishedState::PersonState(person) => {
            picture.person = person.clone();
            let basic = person.basic.unwrap_or(Basic::Open);
            let silent = if basic == Basic::Open { "Available" } else { "Offline" };
            let mut activities = person.activities.clone();
            if activities.len() > 1 {
                activities.retain(|name| &**name != "unknown");
            }
            let note = Some(person.note.clone().unwrap_or_else(|| silent.into()));
            PublishedState::PersonState(PersonState { basic: Some(basic), note, activities })
        }
        PublishedState::Mailbox(mailbox) => {
            picture.mailbox = mailbox.clone();
            let account = Some(mailbox.account.clone().unwrap_or_else(|| OWN.into()));
            PublishedState::Mailbox(Mailbox { account, ..mailbox.clone() })
        }
    };
    let written = write(package, &picture);
    assert_eq!(
        package.read(written.as_bytes()),
        Ok(expected),
        "from {:?}\nto {written}",
        String::from_utf8_lossy(body)
    );
    assert_eq!(written, write(package, &picture));
}

pub(crate) const TARGET: Target = Target { name: "bodies", run: bodies, seeds, words: WORDS };

fn bodies(body: &[u8]) {
    static PACKAGES: LazyLock<[(PackageId, &str); 3]> = LazyLock::new(|| {
        ["dialog", "presence", "message-summary"].map(|name| (by_name(name).expect("a package in the registry"), name))
    });
    for (package, event) in *PACKAGES {
        there_and_back(package, body);
        if get(package).read(body).is_ok() {
            published(package, event, body);
        }
    }
}

/// Publishes a readable body while a phone watches: the NOTIFY must be readable too.
fn published(package: PackageId, event: &str, body: &[u8]) {
    let notifier = notifier();
    let mut talk = Talk::new(&notifier, udp_source("192.0.2.99:5070"), true);
    let request = |method: &str, more: &str, body: &[u8]| {
        let head = format!(
            "{method} sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bK{method}\r\n\
             From: <sip:1002@acme.test>;tag=f\r\nTo: <sip:1001@acme.test>\r\nCall-ID: {method}\r\n\
             CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:1002@192.0.2.99:5070>\r\nExpires: 600\r\n\
             Event: {event}\r\n{more}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let got = talk.say(&request("SUBSCRIBE", "", b""));
    assert_eq!(got.len(), 2);
    talk.say(&ok_to(&got[1].bytes));
    let got = talk.say(&request("PUBLISH", &format!("Content-Type: {}\r\n", get(package).content_type()), body));
    for notify in got.iter().skip(1) {
        let notify = wire::read(&notify.bytes).ok().flatten().expect("a NOTIFY of ours");
        let shown = String::from_utf8_lossy(notify.body);
        get(package).read(notify.body).unwrap_or_else(|error| panic!("{error}: {shown}"));
    }
    talk.leave();
}

fn seeds() -> Vec<Vec<u8>> {
    let body = |message: &Vec<u8>| {
        let at = message.windows(4).position(|four| four == b"\r\n\r\n")?;
        Some(message[at + 4..].to_vec()).filter(|body| !body.is_empty())
    };
    let published = fixtures("publish");
    let own = SEEDS.iter().map(|(_, body)| body.as_bytes().to_vec());
    published.iter().filter_map(body).chain(own).collect()
}

const WORDS: &[&[u8]] = &[
    b"<dialog",
    b"<state>",
    b"terminated",
    b"confirmed",
    b"early",
    b"<!--",
    b"-->",
    b"<![CDATA[",
    b"]]>",
    b"&#x41;",
    b"<!DOCTYPE a>",
    b"<?",
    b"?>",
    b" xmlns:q='urn:ietf:params:xml:ns:dialog-info'",
    b"<tuple",
    b"<note>",
    b"/>",
    b"Voice-Message: 1/2 (3/4)\r\n",
    b"Messages-Waiting: yes\r\n",
    b"<basic>open</basic>",
    b"pname=\"+sip.rendering\"",
];

//! Bodies from strangers cannot make us panic, and what we take from them we can write and read again.
//!
//! As plain tests these get the same inputs every time; docs/fuzzing.md tells how to run them on new ones, longer and
//! led by coverage.

#[path = "torture/inputs.rs"]
mod inputs;

use std::borrow::Cow;

use inputs::fuzz;
use lamplighter::package::{EventPackage, MAX_BODY, PackageId, REGISTRY, by_name, get};
use lamplighter::presence::facts::{
    Basic, CallReport, CallState, CallsReport, Direction, Mailbox, MessageCounts, Party, Person, Picture, Report,
};

const OWN: &str = "sip:own@d.example";

/// What mutations start from: every element and dialect that the readers know.
const SEEDS: [(&str, &str); 6] = [
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

/// What mutations put in: the bits of syntax on which readers trip.
const TOKENS: [&str; 24] = [
    "<",
    ">",
    "/>",
    "</",
    "&",
    ";",
    "&#0;",
    "&#x41;",
    "]]>",
    "<![CDATA[",
    "<!--",
    "-->",
    "<?",
    "?>",
    "<!DOCTYPE a>",
    "\"",
    "'",
    "=",
    ":",
    " xmlns:q='urn:q' ",
    "\r\n",
    "\u{e9}",
    "<dialog id='z'><state>early</state></dialog>",
    "\0",
];

/// One change to a body: where, what kind, how much.
type Change = (u16, u8, u8);

fn mutate(seed: &str, changes: &[Change]) -> Vec<u8> {
    let mut body = seed.as_bytes().to_vec();
    for &(place, kind, amount) in changes {
        let at = usize::from(place) % (body.len() + 1);
        let end = (at + usize::from(amount) % 32).min(body.len());
        match kind % 5 {
            0 => drop(body.drain(at..end)),
            1 => drop(body.splice(at..at, TOKENS[usize::from(amount) % TOKENS.len()].bytes())),
            2 => body.truncate(at.max(1)),
            3 if at < body.len() => body[at] = amount,
            _ => {
                let copy = body[at..end].to_vec();
                drop(body.splice(end..end, copy));
            }
        }
    }
    body
}

fn write(package: &dyn EventPackage, picture: &Picture<'_>) -> String {
    let (mut tail, mut body) = (String::new(), String::new());
    package.write_tail(picture, &mut tail);
    package.write(u32::MAX, "sip:<\"&'>@d", &tail, &mut body);
    body
}

/// What our own document says of a side of which this was reported: nothing is missing in it.
fn completed(party: &Party) -> Party {
    let known = party.identity.clone().or(party.target.clone()).unwrap_or_else(|| OWN.into());
    Party {
        display: party.display.clone(),
        target: Some(party.target.clone().unwrap_or_else(|| known.clone())),
        identity: Some(known),
    }
}

/// What our own document says of a call that was reported so.
fn completed_call(call: &CallReport) -> CallReport {
    CallReport {
        direction: Some(call.direction.unwrap_or(Direction::Recipient)),
        local: completed(&call.local),
        remote: completed(&call.remote),
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
        held: false,
    })
}

/// Reads `body`; what is taken has to come back unchanged from the document that is composed of it.
fn there_and_back(package: PackageId, body: &[u8]) {
    let package = get(package);
    let Ok(report) = package.read(body) else { return };
    let mut picture = Picture { uri: OWN, ..Picture::default() };
    let expected = match &report {
        Report::Calls(report) => {
            picture.calls = report.calls.iter().filter(|call| call.state != CallState::Terminated).collect();
            let mut calls: Vec<_> = picture.calls.iter().map(|call| completed_call(call)).collect();
            if calls.is_empty() {
                calls.push(idle());
            }
            Report::Calls(CallsReport { full: true, calls })
        }
        Report::Person(person) => {
            picture.person = person.clone();
            let basic = person.basic.unwrap_or(Basic::Open);
            let silent = if basic == Basic::Open { "Available" } else { "Offline" };
            let mut activities = person.activities.clone();
            if activities.len() > 1 {
                activities.retain(|name| &**name != "unknown");
            }
            let note = Some(person.note.clone().unwrap_or_else(|| silent.into()));
            Report::Person(Person { basic: Some(basic), note, activities })
        }
        Report::Mailbox(mailbox) => {
            picture.mailbox = mailbox.clone();
            let account = Some(mailbox.account.clone().unwrap_or_else(|| OWN.into()));
            Report::Mailbox(Mailbox { account, ..mailbox.clone() })
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

fn arbitrary(name: &str) {
    let package = by_name(name).expect("a package in the registry");
    fuzz!(Vec<u8>, |body| there_and_back(package, body));
}

fn mutated(name: &str) {
    let package = by_name(name).expect("a package in the registry");
    let seeds: Vec<_> = SEEDS.iter().filter(|(of, _)| *of == name).map(|(_, seed)| *seed).collect();
    for seed in &seeds {
        assert!(get(package).read(seed.as_bytes()).is_ok(), "{seed}");
    }
    fuzz!((u8, Vec<Change>), |(seed, changes)| {
        let seed = seeds[usize::from(*seed) % seeds.len()];
        let few = &changes[..changes.len().min(4)];
        there_and_back(package, &mutate(seed, few));
    });
}

#[test]
fn arbitrary_bytes_as_dialog_info() {
    arbitrary("dialog");
}

#[test]
fn arbitrary_bytes_as_pidf() {
    arbitrary("presence");
}

#[test]
fn arbitrary_bytes_as_message_summary() {
    arbitrary("message-summary");
}

#[test]
fn mutated_dialog_info() {
    mutated("dialog");
}

#[test]
fn mutated_pidf() {
    mutated("presence");
}

#[test]
fn mutated_message_summary() {
    mutated("message-summary");
}

#[test]
fn each_valid_body_cut_at_every_byte_and_with_every_token_at_every_byte() {
    for (name, seed) in SEEDS {
        let package = by_name(name).expect("a package in the registry");
        for at in 0..=seed.len() {
            there_and_back(package, &seed.as_bytes()[..at]);
            for token in TOKENS {
                let body = [&seed.as_bytes()[..at], token.as_bytes(), &seed.as_bytes()[at..]].concat();
                there_and_back(package, &body);
            }
        }
    }
}

#[test]
fn no_package_reads_more_than_the_limit() {
    for package in REGISTRY {
        assert!(package.read(&vec![b' '; MAX_BODY + 1]).is_err());
    }
}

/// Text that is put into a picture from elsewhere (the API, say) cannot break a document either.
#[test]
fn pictures_of_arbitrary_text_give_documents_that_can_be_read() {
    const STATES: [CallState; 4] = [CallState::Trying, CallState::Proceeding, CallState::Early, CallState::Confirmed];
    type Input = (Vec<Vec<u8>>, u8, u8, bool);
    fuzz!(Input, |(texts, state, manual, flag)| {
        let texts: Vec<Cow<'_, str>> = texts.iter().take(8).map(|text| String::from_utf8_lossy(text)).collect();
        let short = |n: usize| -> Option<Box<str>> {
            texts.get(n).map(|text| text.chars().take(200).collect::<String>().into_boxed_str())
        };
        let party = |n| Party { identity: short(n), display: short(n + 1), target: short(n + 2) };
        let call = CallReport {
            id: format!("id{}", short(0).unwrap_or_default()).into(),
            call_id: short(1),
            local_tag: short(2),
            remote_tag: short(3),
            direction: None,
            state: STATES[usize::from(*state) % STATES.len()],
            local: party(2),
            remote: party(4),
            held: *flag,
        };
        let mut mailbox = Mailbox { waiting: None, account: short(0), ..Mailbox::default() };
        mailbox.counts[usize::from(*state) % 6] =
            Some(MessageCounts { new: u32::from(*manual), old: u32::MAX, urgent: flag.then_some((1, 0)) });
        let picture = Picture {
            uri: OWN,
            calls: vec![&call],
            manual: STATES.get(usize::from(*manual) % (STATES.len() + 1)).copied(),
            person: Person { basic: None, note: short(0), activities: (0..6).filter_map(short).collect() },
            mailbox,
        };
        for package in REGISTRY {
            let written = write(package, &picture);
            match package.read(written.as_bytes()) {
                Ok(Report::Calls(report)) => {
                    assert_eq!(report.calls.len(), 1 + usize::from(picture.manual.is_some()), "{written}");
                }
                Ok(Report::Person(person)) => assert_eq!(person.basic, Some(Basic::Open), "{written}"),
                Ok(Report::Mailbox(read)) => assert_eq!(read.counts, picture.mailbox.counts, "{written}"),
                Err(error) => panic!("{error}: {written:?}"),
            }
        }
    });
}

//! Fuzz test: bodies from unverified sources cannot cause a panic, and every accepted body can be written and parsed
//! again.
//!
//! As a plain test it gets the same inputs every time; docs/fuzzing.md explains how to run it on new ones, for longer
//! and guided by coverage.

mod fuzz;

use std::borrow::Cow;

use fuzz::bodies::{self, OWN, SEEDS, there_and_back, write};
use fuzz::inputs::{fuzz, seeded};
use fuzz::mutation::{Change, mutate};
use lamplighter::package::{MAX_BODY, REGISTRY, by_name, get};
use lamplighter::presence::state::{
    Basic, CallReport, CallState, ComposedState, Mailbox, MessageCounts, Party, PersonState, PublishedState,
};

/// Tokens that mutations insert: syntax that is difficult for parsers.
const TOKENS: [&[u8]; 24] = [
    b"<",
    b">",
    b"/>",
    b"</",
    b"&",
    b";",
    b"&#0;",
    b"&#x41;",
    b"]]>",
    b"<![CDATA[",
    b"<!--",
    b"-->",
    b"<?",
    b"?>",
    b"<!DOCTYPE a>",
    b"\"",
    b"'",
    b"=",
    b":",
    b" xmlns:q='urn:q' ",
    b"\r\n",
    b"\xc3\xa9",
    b"<dialog id='z'><state>early</state></dialog>",
    b"\0",
];

#[test]
fn what_the_fixtures_publish_a_little_off_is_shown_soundly_or_refused() {
    seeded(&bodies::TARGET);
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
        there_and_back(package, &mutate(seed.as_bytes(), few, &TOKENS));
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
                let body = [&seed.as_bytes()[..at], token, &seed.as_bytes()[at..]].concat();
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

/// Text that enters the composed state from elsewhere (for example the API) cannot break a document either.
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
            held: flag.then_some(true),
        };
        let mut mailbox = Mailbox { waiting: None, account: short(0), ..Mailbox::default() };
        mailbox.counts[usize::from(*state) % 6] =
            Some(MessageCounts { new: u32::from(*manual), old: u32::MAX, urgent: flag.then_some((1, 0)) });
        let picture = ComposedState {
            uri: OWN,
            calls: vec![&call],
            manual: STATES.get(usize::from(*manual) % (STATES.len() + 1)).copied(),
            person: PersonState { basic: None, note: short(0), activities: (0..6).filter_map(short).collect() },
            mailbox,
        };
        for package in REGISTRY {
            let written = write(package, &picture);
            match package.read(written.as_bytes()) {
                Ok(PublishedState::Calls(report)) => {
                    assert_eq!(report.calls.len(), 1 + usize::from(picture.manual.is_some()), "{written}");
                }
                Ok(PublishedState::PersonState(person)) => assert_eq!(person.basic, Some(Basic::Open), "{written}"),
                Ok(PublishedState::Mailbox(read)) => assert_eq!(read.counts, picture.mailbox.counts, "{written}"),
                Err(error) => panic!("{error}: {written:?}"),
            }
        }
    });
}

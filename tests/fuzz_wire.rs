//! Fuzz test: bytes from unverified sources cannot cause a panic, an endless loop, a wrong message boundary in a
//! stream, or text of their choice in the server's messages.
//!
//! As a plain test it gets the same inputs every time; docs/fuzzing.md explains how to run it on new ones, for longer
//! and guided by coverage.

mod fuzz;

use fuzz::fixtures::FIXTURES;
use fuzz::inputs::{fuzz, seeded};
use fuzz::mutation::{Change, mutate};
use fuzz::sound::{ok_to, read_is_sound};
use fuzz::talk::Talk;
use fuzz::values::{stays_a_value, values_are_sound};
use fuzz::{message, notifier, stream, values};
use lamplighter::notifier::Notifier;
use lamplighter::transport::{OutboundMessage, Source};

/// Tokens that mutations insert: syntax that is difficult for parsers.
const TOKENS: [&[u8]; 36] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n ",
    b"\r\nEvil: 1\r\n",
    b"\nEvil: 1\n",
    b"\rEvil: 1\r",
    b"%0d%0aEvil: 1",
    b"\xe2\x80\xa8Evil: 1",
    b"\r\nContent-Length: 5\r\n",
    b"\r\nl: 18446744073709551615\r\n",
    b"\r\nv: SIP/2.0/UDP x;branch=z9hG4bK9\r\n",
    b"\r\nRequire: a\r\n",
    b"\0",
    b"\xff",
    b"\\",
    b"\\\"",
    b"\"",
    b"<",
    b">",
    b";",
    b",",
    b";tag=",
    b";rport;received=1.2.3.4",
    b"=",
    b":",
    b"@",
    b"?",
    b"%",
    b" ",
    b"[::1]",
    b"[",
    b"-1",
    b"99999999999999999999",
];

/// Fixture index and changes of a mutation.
type Mutation = (u8, Vec<Change>);

fn mutated((seed, changes): &Mutation) -> Vec<u8> {
    mutate(&FIXTURES[usize::from(*seed) % FIXTURES.len()], &changes[..changes.len().min(4)], &TOKENS)
}

/// Maps bytes to the characters that are special in header values.
fn speckled(bytes: &[u8]) -> String {
    let letters = "aZ9:@;=,<>\"\\ \t\r\n?%[].-/*+&sip:tag=branch=\u{e9}\0";
    let letters: Vec<char> = letters.chars().collect();
    bytes.iter().map(|i| letters[usize::from(*i) % letters.len()]).collect()
}

/// Feeds one message to a notifier, and checks all messages it sends.
fn feed(notifier: &Notifier, source: Source, bytes: &[u8]) -> Vec<OutboundMessage> {
    Talk::new(notifier, source, source.peer.ip().to_string().starts_with("192.0.2.")).say(bytes)
}

#[test]
fn the_fixtures_a_little_off_are_understood_or_refused() {
    seeded(&message::TARGET);
}

#[test]
fn the_conversations_that_the_target_starts_from_are_understood() {
    for talk in message::conversations() {
        for statuses in message::answers(&talk) {
            assert!(
                statuses.len() > 1 && statuses.iter().all(|s| [200, 204].contains(s)),
                "{statuses:?} to {}",
                String::from_utf8_lossy(&talk)
            );
        }
    }
}

#[test]
fn streams_of_fixtures_a_little_off_are_understood_or_refused() {
    seeded(&stream::TARGET);
}

#[test]
fn values_of_the_fixtures_a_little_off_are_read_or_refused() {
    seeded(&values::TARGET);
}

#[test]
fn arbitrary_bytes_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        read_is_sound(bytes);
        feed(&notifier::notifier(), notifier::udp_source("203.0.113.9:5060"), bytes);
    });
}

#[test]
fn arbitrary_heads_behind_a_start_line_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        let message = [b"SUBSCRIBE sip:1@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n", &**bytes].concat();
        read_is_sound(&message);
        feed(&notifier::notifier(), notifier::udp_source("203.0.113.9:5060"), &message);
    });
}

#[test]
fn mutated_messages_are_read_or_refused() {
    fuzz!(Mutation, |mutation| read_is_sound(&mutated(mutation)));
}

#[test]
fn whatever_a_notifier_gets_it_says_only_what_it_means_to_say() {
    fuzz!((Mutation, Mutation, bool), |(first, second, stream)| {
        let notifier = notifier::notifier();
        let source = match stream {
            true => notifier::tcp_source("203.0.113.9:5060"),
            false => notifier::udp_source("192.0.2.99:5070"),
        };
        let mut talk = Talk::new(&notifier, source, !stream);
        for bytes in [mutated(first), mutated(second)] {
            for notify in talk.say(&bytes).iter().skip(1) {
                talk.say(&ok_to(&notify.bytes));
            }
        }
    });
}

#[test]
fn mutated_answers_to_a_notify_are_taken_or_not() {
    let seed = ordinary(b"SUBSCRIBE");
    fuzz!(Vec<Change>, |changes| {
        let notifier = notifier::notifier();
        let source = notifier::udp_source("192.0.2.99:5070");
        let mut talk = Talk::new(&notifier, source, true);
        let got = talk.say(seed);
        talk.say(&mutate(&ok_to(&got[1].bytes), &changes[..changes.len().min(3)], &TOKENS));
        talk.wait(600);
    });
}

/// The shortest accepted fixture with this method.
fn ordinary(method: &[u8]) -> &'static [u8] {
    let source = notifier::udp_source("192.0.2.99:5070");
    let taken = |seed: &&Vec<u8>| {
        seed.starts_with(method)
            && feed(&notifier::notifier(), source, seed).first().is_some_and(|m| m.bytes.starts_with(b"SIP/2.0 200"))
    };
    FIXTURES.iter().filter(taken).min_by_key(|seed| seed.len()).expect("one that is taken")
}

#[test]
fn a_stream_holds_the_same_messages_whatever_the_chunks() {
    fuzz!((Vec<Mutation>, Vec<u8>), |(mutations, chunks)| {
        let stream: Vec<u8> = mutations.iter().take(4).flat_map(mutated).collect();
        stream::same_in_chunks(&stream, chunks);
    });
}

#[test]
fn values_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| values_are_sound(&String::from_utf8_lossy(bytes)));
}

#[test]
fn values_full_of_separators_are_read_or_refused() {
    fuzz!(Vec<u8>, |bytes| {
        let text = speckled(bytes);
        for prefix in ["", "sip:", "sip:a@", "<sip:a@b>", "\"a\" <sip:b>;", "SIP/2.0/UDP h;", "SIP/2.0/UDP ", "1 "] {
            values_are_sound(&format!("{prefix}{text}"));
        }
    });
}

#[test]
fn no_value_whatever_it_holds_adds_a_header_or_ends_the_head() {
    fuzz!((Vec<u8>, Vec<u8>, Vec<u8>), |(uri, value, body)| {
        let subject = String::from_utf8_lossy(value);
        stays_a_value(&format!("sip:{}", speckled(uri)), &subject, &speckled(value), body);
    });
}

#[test]
fn fixtures_cut_at_every_byte_are_read_or_refused() {
    for seed in FIXTURES.iter() {
        (0..=seed.len()).for_each(|at| read_is_sound(&seed[..at]));
    }
}

#[test]
fn a_request_with_every_token_at_every_byte_is_answered_soundly() {
    for start in [&b"SUBSCRIBE"[..], b"OPTIONS"] {
        let seed = ordinary(start);
        for token in TOKENS {
            for at in 0..=seed.len() {
                // Each message needs a new notifier: one that knows the branch would only resend its earlier response.
                let notifier = notifier::notifier();
                let bytes = [&seed[..at], token, &seed[at..]].concat();
                let got = feed(&notifier, notifier::udp_source("192.0.2.99:5070"), &bytes);
                for notify in got.iter().skip(1) {
                    feed(&notifier, notifier::udp_source("192.0.2.99:5070"), &ok_to(&notify.bytes));
                }
            }
        }
    }
}

//! Target `stream`: the same bytes in chunks of all sizes, and the messages found in them sent to a notifier.

use lamplighter::sip::wire::{self, Frame, Framer};

use super::fixtures::FIXTURES;
use super::message::WORDS;
use super::notifier::{notifier, tcp_source};
use super::talk::Talk;
use super::target::Target;

/// Messages and pings in a stream, up to the fault that ends it.
pub(crate) fn frames(stream: &[u8], chunks: &[u8]) -> Vec<Result<Frame, wire::ParseError>> {
    let (mut framer, mut found, mut rest) = (Framer::default(), Vec::new(), stream);
    let mut sizes = chunks.iter().map(|size| usize::from(*size)).chain(std::iter::repeat(4096));
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        framer.buffer().extend_from_slice(now);
        rest = later;
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => found.push(Ok(frame)),
                Ok(None) => break,
                Err((fault, _)) => {
                    found.push(Err(fault));
                    return found;
                }
            }
        }
    }
    found
}

/// Checks that chunk sizes do not affect the messages found in a stream.
pub(crate) fn same_in_chunks(stream: &[u8], chunks: &[u8]) -> Vec<Result<Frame, wire::ParseError>> {
    let whole = frames(stream, &[]);
    assert_eq!(whole, frames(stream, chunks));
    for frame in &whole {
        let Ok(Frame::Message(bytes)) = frame else { continue };
        // The parser and the framer must agree on the end of the message, or a client could smuggle one message inside
        // another.
        if let Ok(Some(message)) = wire::read(bytes) {
            let head = &bytes[..bytes.len() - message.body.len()];
            assert!(head.ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
    whole
}

pub(crate) const TARGET: Target = Target { name: "stream", run: stream, seeds, words: WORDS };

fn stream(bytes: &[u8]) {
    let one_by_one = vec![1; bytes.len()];
    same_in_chunks(bytes, &one_by_one);
    // The chunk sizes come from the input, so that they vary between inputs and are the same when an input is run
    // again.
    let found = same_in_chunks(bytes, bytes);
    let notifier = notifier();
    let mut talk = Talk::new(&notifier, tcp_source("203.0.113.9:5060"), false);
    for frame in found {
        match frame {
            Ok(Frame::Message(message)) => drop(talk.say(&message)),
            Ok(Frame::TooLarge(head)) => talk.say_broken(wire::ParseError::TooLarge, &head),
            Ok(Frame::Ping) => {}
            // A peer that breaks the stream gets a response that is built from the readable part.
            Err(fault) => talk.say_broken(fault, bytes),
        }
    }
    talk.leave();
}

fn seeds() -> Vec<Vec<u8>> {
    let pairs = FIXTURES.chunks(2).map(|pair| pair.join(&b"\r\n\r\n"[..]));
    FIXTURES.iter().cloned().chain(pairs).collect()
}

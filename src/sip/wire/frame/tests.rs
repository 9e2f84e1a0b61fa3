//! Forms of a stream, octet by octet (conformance rows, D-010 to D-013).

use super::*;
use crate::sip::wire::read;

/// Message with these further header lines and this body.
fn message(lines: &str, body: &str) -> String {
    format!("OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\n{lines}\r\n{body}")
}

fn with_body(body: &str) -> String {
    message(&format!("Content-Length: {}\r\n", body.len()), body)
}

/// All items of the stream, up to a fault.
fn frames(framer: &mut Framer) -> Vec<Result<Frame, ParseError>> {
    let mut found = Vec::new();
    loop {
        match framer.next_frame() {
            Ok(Some(frame)) => found.push(Ok(frame)),
            Ok(None) => return found,
            Err((fault, _)) => {
                found.push(Err(fault));
                return found;
            }
        }
    }
}

/// Items found in a stream that arrives in chunks of this size.
fn cut(stream: &[u8], chunk: usize) -> Vec<Result<Frame, ParseError>> {
    let mut framer = Framer::default();
    let mut found = Vec::new();
    for part in stream.chunks(chunk) {
        framer.buffer().extend_from_slice(part);
        found.extend(frames(&mut framer));
        if found.last().is_some_and(Result::is_err) {
            break;
        }
    }
    found
}

fn fault_of(stream: &str) -> ParseError {
    match cut(stream.as_bytes(), stream.len()).pop() {
        Some(Err(fault)) => fault,
        other => panic!("{other:?} from {stream:?}"),
    }
}

fn whole(text: &str) -> Result<Frame, ParseError> {
    Ok(Frame::Message(Bytes::copy_from_slice(text.as_bytes())))
}

#[test]
fn a_message_longer_than_any_number_is_too_large_and_no_overflow() {
    for length in ["1048577", "4294967295", "18446744073709551615"] {
        assert_eq!(fault_of(&message(&format!("Content-Length: {length}\r\n"), "")), ParseError::TooLarge, "{length}");
    }
}

#[test]
fn messages_are_found_however_the_stream_is_split() {
    let inner = with_body("");
    let stream = [with_body(&inner), with_body(""), "\r\n\r\n".into(), with_body("\r\n\r\nx")].concat();
    let expected = [whole(&with_body(&inner)), whole(&with_body("")), Ok(Frame::Ping), whole(&with_body("\r\n\r\nx"))];
    for chunk in 1..=stream.len() {
        assert_eq!(cut(stream.as_bytes(), chunk), expected, "in chunks of {chunk}");
    }
}

#[test]
fn a_body_that_looks_like_a_message_is_a_body() {
    let inner = with_body("");
    assert_eq!(cut(with_body(&inner).as_bytes(), 7), [whole(&with_body(&inner))]);
}

#[test]
fn half_a_message_is_waited_for() {
    let text = with_body("12345");
    for length in 1..text.len() {
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(&text.as_bytes()[..length]);
        assert_eq!((frames(&mut framer), framer.in_message()), (vec![], true), "{length}");
        framer.buffer().extend_from_slice(&text.as_bytes()[length..]);
        assert_eq!((frames(&mut framer), framer.in_message()), (vec![whole(&text)], false), "{length}");
    }
}

#[test]
fn line_ends_before_a_message_are_skipped_and_a_double_one_is_a_ping() {
    for (stream, pings) in [("", 0), ("\r\n", 0), ("\r\n\r\n", 1), ("\r\n\r\n\r\n", 1), ("\r\n\r\n\r\n\r\n", 2)] {
        let mut expected: Vec<_> = (0..pings).map(|_| Ok(Frame::Ping)).collect();
        expected.push(whole(&with_body("")));
        assert_eq!(cut(format!("{stream}{}", with_body("")).as_bytes(), 3), expected, "{stream:?}");
    }
}

#[test]
fn half_a_ping_before_a_message_is_no_half_of_the_next() {
    let stream = format!("\r\n{}\r\n", with_body(""));
    assert_eq!(cut(stream.as_bytes(), 1), [whole(&with_body(""))]);
}

#[test]
fn without_a_sound_content_length_the_stream_ends() {
    assert_eq!(fault_of(&message("", "")), ParseError::Missing(Name::ContentLength));
    for value in ["", "-1", "+1", "five", "1 2", "0x1", "1,1", "99999999999999999999999"] {
        assert_eq!(
            fault_of(&message(&format!("Content-Length: {value}\r\n"), "")),
            ParseError::ContentLength,
            "{value}"
        );
    }
}

#[test]
fn the_compact_form_and_any_case_and_leading_zeros_count() {
    for line in ["l: 1", "L : 1", "CONTENT-LENGTH:1", "Content-length:\t001 "] {
        let text = message(&format!("{line}\r\n"), "x");
        assert_eq!(cut(text.as_bytes(), 9), [whole(&text)], "{line}");
    }
}

#[test]
fn two_content_lengths_end_the_stream_even_if_they_agree() {
    let text = message("Content-Length: 1\r\nl: 1\r\n", "x");
    assert_eq!(fault_of(&text), ParseError::Repeated(Name::ContentLength));
}

#[test]
fn a_head_may_have_32_kilobytes_and_no_more() {
    let pad = |n: usize| {
        let lines: String = (0..n / 1000).map(|_| format!("X: {}\r\n", "y".repeat(995))).collect();
        let rest = n % 1000;
        message(&format!("{lines}{}Content-Length: 0\r\n", format_args!("X: {}\r\n", "z".repeat(rest))), "")
    };
    let base = pad(31_000).len() - 31_000;
    let most = pad(MAX_HEAD - base);
    assert_eq!(most.len(), MAX_HEAD);
    assert_eq!(cut(most.as_bytes(), 1000), [whole(&most)]);
    assert_eq!(fault_of(&pad(MAX_HEAD - base + 1)), ParseError::HeaderTooLong);
    assert_eq!(fault_of(&"x".repeat(MAX_HEAD + 1)), ParseError::HeaderTooLong);
}

#[test]
fn a_message_may_have_64_kilobytes_and_no_more() {
    let head = message("Content-Length: 65000\r\n", "").len();
    let text = message(&format!("Content-Length: {}\r\n", MAX_MESSAGE - head), &"b".repeat(MAX_MESSAGE - head));
    assert_eq!(text.len(), MAX_MESSAGE);
    assert_eq!(cut(text.as_bytes(), 4096), [whole(&text)]);
    for length in [MAX_MESSAGE - head + 1, MAX_SKIPPED] {
        let head = message(&format!("Content-Length: {length}\r\n"), "");
        let stream = format!("{head}{}{}", "\r\n\r\n".repeat(length.div_ceil(4)).split_at(length).0, with_body(""));
        let found = [Ok(Frame::TooLarge(Bytes::copy_from_slice(head.as_bytes()))), whole(&with_body(""))];
        assert_eq!(cut(stream.as_bytes(), 4096), found, "{length} octets are passed over");
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(&stream.as_bytes()[..head.len() + length - 1]);
        assert_eq!((frames(&mut framer).len(), framer.in_message(), framer.buffer.len()), (1, true, 0));
    }
}

#[test]
fn what_is_wrong_elsewhere_in_a_message_costs_that_message_only() {
    for lines in ["no colon\r\n", "Call-ID: a\r\nCall-ID: b\r\n", "X\0: y\r\n", "CSeq: x\r\n"] {
        let bad = message(&format!("{lines}Content-Length: 2\r\n"), "ab");
        let stream = format!("{bad}{}", with_body(""));
        assert_eq!(cut(stream.as_bytes(), 5), [whole(&bad), whole(&with_body(""))], "{lines:?}");
        assert!(read(bad.as_bytes()).is_err());
    }
}

#[test]
fn a_slow_sender_costs_linear_work() {
    let head = format!("OPTIONS sip:a SIP/2.0\r\n{}", "X: y\r\n".repeat(5_000));
    let mut framer = Framer::default();
    for octet in head.as_bytes() {
        framer.buffer().extend_from_slice(&[*octet]);
        assert_eq!(framer.next_frame(), Ok(None));
        assert!(framer.searched + 4 > framer.buffer.len(), "the next search starts where this one stopped");
    }
}

#[test]
fn a_second_content_length_ends_the_stream_whatever_else_is_wrong() {
    let many = "X: y\r\n".repeat(200);
    let long = format!("l:{}9\r\n", " ".repeat(9_000));
    for (before, second) in [("no colon\r\n", "l: 9\r\n"), (&*many, "l: 9\r\n"), ("", &*long)] {
        for lines in [format!("{before}l: 0\r\n{second}"), format!("l: 0\r\n{before}{second}")] {
            assert_eq!(fault_of(&message(&lines, "")), ParseError::Repeated(Name::ContentLength));
        }
    }
}

#[test]
fn too_many_headers_before_content_length_cost_that_message_only() {
    let bad = message(&format!("{}l: 2\r\n", "X: y\r\n".repeat(200)), "ab");
    let stream = format!("{bad}{}", with_body(""));
    assert_eq!(cut(stream.as_bytes(), 100), [whole(&bad), whole(&with_body(""))]);
    assert_eq!(read(bad.as_bytes()).unwrap_err().fault, ParseError::TooManyHeaders);
}

#[test]
fn half_a_line_end_ends_the_stream_for_nobody_knows_who_sees_a_line_there() {
    let good = with_body("");
    for bad in [
        good.replace("\r\n", "\n"),
        good.replacen("\r\n", "\n", 1),
        message("X: y\nContent-Length: 0\r\n", ""),
        message("X: y\rContent-Length: 0\r\n", "").replace("\r\n\r\n", "\r\nl: 0\r\n\r\n"),
        message("Content-Length: 0\r\nX: y\n", ""),
        message("Content-Length: 0\r\n\n", &with_body("")),
        message("Content-Length: 5\r\nX: y\n\r\n", &with_body("")),
    ] {
        for chunk in [1, 2, 3, bad.len()] {
            assert_eq!(cut(bad.as_bytes(), chunk), [Err(ParseError::ControlCharacter)], "{bad:?} in chunks of {chunk}");
        }
    }
}

#[test]
fn what_ends_a_stream_comes_with_the_head_to_answer_to_and_no_more() {
    let mut framer = Framer::default();
    framer.buffer().extend_from_slice(message("l: x\r\n", "").as_bytes());
    framer.buffer().extend_from_slice(b"\xff\xfe");
    let (fault, head) = framer.next_frame().unwrap_err();
    assert_eq!((fault, &head[..]), (ParseError::ContentLength, message("l: x\r\n", "").as_bytes()));
}

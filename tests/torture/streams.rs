//! Cases of group T about message boundaries on streams.

use crate::bench::Bench;
use crate::request::Request;

const URI: &str = "sip:1001@acme.test";

fn over_tcp(request: Request) -> Request {
    request.put("Via: SIP/2.0/TCP 192.0.2.99:5070;branch=z9hG4bKstream")
}

/// T-015, T-016, T-042, A-041, A-053: the server responds and closes the connection, and ignores all later octets.
#[test]
fn a_stream_whose_messages_cannot_be_told_apart_is_answered_and_closed() {
    let request = over_tcp(Request::subscribe(URI));
    let half_line_ends = String::from_utf8(request.bytes()).expect("text").replace("\r\n", "\n").into_bytes();
    for (row, bytes) in [
        ("T-016 ncl", request.clone().put("Content-Length: -999").bytes()),
        ("A-051 no number", request.clone().put("Content-Length: five").bytes()),
        ("T-042 mcl01", request.clone().add("Content-Length: 0").bytes()),
        ("T-042 mcl01, behind another fault", request.clone().add("no colon").add("Content-Length: 0").bytes()),
        ("A-053 no Content-Length", request.clone().without("Content-Length").bytes()),
        ("A-041 LF only", half_line_ends),
        ("A-041 LF on one line", request.clone().put("Max-Forwards: 70\nX: y").bytes()),
    ] {
        let stream = [bytes, over_tcp(Request::new("OPTIONS", URI)).bytes()].concat();
        let (sent, closed) = Bench::new().tcp(&stream);
        let statuses: Vec<_> = sent.iter().map(|s| s.status()).collect();
        assert_eq!((statuses, closed), (vec![400], true), "{row}");
    }
}

/// B-047: the body is skipped and the connection continues, but not for every announced length.
#[test]
fn a_message_above_64_kilobytes_is_answered_513_and_above_a_megabyte_the_connection_is_closed() {
    let large = over_tcp(Request::new("PUBLISH", URI)).body("text/plain", "INVITE x\r\n\r\n".repeat(15_000));
    let next = over_tcp(Request::new("OPTIONS", URI)).put("Call-ID: next");
    let (sent, closed) = Bench::new().tcp([large.bytes(), next.bytes()].concat());
    let statuses: Vec<_> = sent.iter().map(|s| s.status()).collect();
    assert_eq!((statuses, closed), (vec![513, 200], false));
    for length in ["1048577", "4294967295", "18446744073709551615"] {
        let request = over_tcp(Request::subscribe(URI)).put(&format!("Content-Length: {length}"));
        let (sent, closed) = Bench::new().tcp(request.bytes());
        assert_eq!((sent.len(), sent[0].status(), closed), (1, 513, true), "{length}");
    }
}

/// T-015: the announced octets may still come; the time-out is the task of the connection.
#[test]
fn a_stream_waits_for_what_content_length_announces() {
    let (sent, closed) = Bench::new().tcp(over_tcp(Request::new("OPTIONS", URI)).put("Content-Length: 9999").bytes());
    assert_eq!((sent.len(), closed), (0, false));
}

/// D-010, D-011: one after the other, and an error in one does not affect the others.
#[test]
fn pipelined_messages_are_answered_one_by_one() {
    let bad = over_tcp(Request::new("OPTIONS", URI)).put("CSeq: 5 INVITE").put("Call-ID: bad");
    let inner = over_tcp(Request::new("INVITE", URI)).bytes();
    let with_body = over_tcp(Request::new("MESSAGE", URI)).put("Call-ID: body").body("message/sip", inner);
    let last = over_tcp(Request::new("OPTIONS", URI)).put("Via: SIP/2.0/TCP h;branch=z9hG4bKlast").put("Call-ID: last");
    let stream = [b"\r\n\r\n".to_vec(), bad.bytes(), with_body.bytes(), b"\r\n".to_vec(), last.bytes()].concat();
    let (sent, closed) = Bench::new().tcp(&stream);
    let statuses: Vec<_> = sent.iter().map(|s| s.status()).collect();
    assert_eq!((statuses, closed), (vec![400, 405, 200], false));
}

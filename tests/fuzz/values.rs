//! Target `values`: header values and URIs, parsed and written.

use lamplighter::sip::digest::{Credentials, Verifier};
use lamplighter::sip::headers::{self, CSeq, Event, NameAddr, Via};
use lamplighter::sip::uri::{Scheme, Uri, percent_decode};
use lamplighter::sip::wire::Writer;

use super::fixtures::FIXTURES;
use super::message::WORDS;
use super::target::Target;

pub(crate) const TARGET: Target = Target { name: "values", run: values, seeds, words: WORDS };

fn values(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    values_are_sound(&text);
    credentials_are_sound(&text);
    stays_a_value(&format!("sip:{text}"), &text, &text, bytes);
}

/// Credentials prove nothing by themselves, whatever they contain.
fn credentials_are_sound(text: &str) {
    let Some(claim) = Credentials::read(text) else { return };
    assert!(!claim.prove(&Verifier::new(&claim.username, &claim.realm, "a password"), "SUBSCRIBE"), "{text:?}");
}

/// Checks that a value cannot add a header or end the head, whatever it contains.
pub(crate) fn stays_a_value(uri: &str, subject: &str, server: &str, body: &[u8]) {
    let mut out = Vec::new();
    let mut writer = Writer::request(&mut out, "NOTIFY", uri);
    writer.header("Subject", subject).header("Server", server);
    writer.body("text/plain", &[body]);
    let end = out.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line") + 4;
    assert_eq!(&out[end..], body);
    let lines: Vec<_> = std::str::from_utf8(&out[..end - 4]).expect("UTF-8").split("\r\n").collect();
    let names: Vec<_> = lines.iter().skip(1).filter_map(|line| line.split_once(": ").map(|(n, _)| n)).collect();
    assert_eq!(names, ["Subject", "Server", "Content-Type", "Content-Length"]);
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| !line.contains(|c: char| c < ' ' || c == '\x7f')));
}

pub(crate) fn values_are_sound(text: &str) {
    if let Some(uri) = Uri::read(text) {
        assert_eq!(uri.text, text);
        if matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            let address = uri.address();
            assert!(text.starts_with(address), "{text:?}");
            let plain = Uri::read(address).unwrap_or_else(|| panic!("{address:?} of {text:?}"));
            assert_eq!((plain.user, plain.host, plain.port), (uri.user, uri.host, uri.port), "{text:?}");
            assert_eq!((plain.params, plain.headers), ("", ""), "{text:?}");
        }
    }
    if let Some(item) = NameAddr::read(text) {
        assert!(text.contains(item.text) && item.text.contains(item.uri) && item.text.contains(item.params));
        assert_eq!(NameAddr::read(item.text), Some(item), "{text:?}");
        // The server appends its tag if there is none.
        if headers::param(item.params, "tag").is_none() {
            let tagged = format!("{};tag=ours", item.text);
            let tagged = NameAddr::read(&tagged).unwrap_or_else(|| panic!("{tagged:?}"));
            assert_eq!((tagged.uri, tagged.tag()), (item.uri, Some("ours")), "{text:?}");
        }
    }
    if let Some(via) = Via::first_of(text) {
        assert!(text.contains(via.text) && via.text.contains(via.sent_by), "{text:?}");
    }
    if let Some(cseq) = CSeq::read(text) {
        assert!(cseq.number < 1 << 31 && text.contains(cseq.method));
    }
    if let Some(event) = Event::read(text) {
        assert!(text.contains(event.package) && event.id.is_none_or(|id| text.contains(id)));
    }
    let (first, rest) = headers::split_first(text);
    assert_eq!([first, rest].concat(), text);
    assert_eq!(headers::list(text).next(), Some(first.trim_matches([' ', '\t', '\r', '\n'])));
    assert!(headers::list(text).count() <= text.matches(',').count() + 1);
    headers::accepts([text].into_iter(), "application/dialog-info+xml");
    headers::media_type(text);
    headers::seconds(text);
    headers::retry_after(text);
    assert!(percent_decode(text).len() <= text.len());
}

/// Every value of every header of the fixtures, once.
fn seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = FIXTURES
        .iter()
        .flat_map(|message| message.split(|c| *c == b'\n'))
        .filter_map(|line| line.iter().position(|c| *c == b':').map(|at| line[at + 1..].trim_ascii().to_vec()))
        .collect();
    let claim =
        "Digest username=\"1002\", realm=\"acme.test\", nonce=\"0\", uri=\"sip:1001@acme.test\", response=\"0\"";
    all.extend([claim, &format!("{claim}, algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"c\"")].map(Into::into));
    all.sort();
    all.dedup();
    all
}

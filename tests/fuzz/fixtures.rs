//! Seed messages of the targets.

use std::path::Path;
use std::sync::LazyLock;

/// Every fixture.
pub(crate) static FIXTURES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| ["phones", "publish", "bad"].into_iter().flat_map(fixtures).collect());

/// Fixtures of one folder.
pub(crate) fn fixtures(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let entries = std::fs::read_dir(folder).expect("the fixtures");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() > 20, "where are the fixtures?");
    files.iter().map(|file| std::fs::read(file).expect("a fixture")).collect()
}

/// An ordinary SUBSCRIBE of a phone.
pub(crate) const SUBSCRIBE: &str = "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bK1\r\nFrom: \"Phone\" <sip:1002@acme.test>;tag=f\r\n\
    To: <sip:1001@acme.test>\r\nCall-ID: a\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:1002@192.0.2.99:5070>\r\n\
    Max-Forwards: 70\r\nEvent: dialog\r\nExpires: 600\r\nUser-Agent: Phone\r\nContent-Length: 0\r\n\r\n";

/// An ordinary PUBLISH of a call.
pub(crate) const PUBLISH: &str = "PUBLISH sip:1001@acme.test SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.99:5070;branch=z9hG4bK2\r\nFrom: <sip:1001@acme.test>;tag=p\r\n\
    To: <sip:1001@acme.test>\r\nCall-ID: b\r\nCSeq: 1 PUBLISH\r\nMax-Forwards: 70\r\nEvent: dialog\r\nExpires: 600\r\n\
    Content-Type: application/dialog-info+xml\r\nContent-Length: 222\r\n\r\n\
    <?xml version=\"1.0\"?><dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"0\" state=\"full\" \
    entity=\"sip:1001@acme.test\"><dialog id=\"c\" call-id=\"c\" direction=\"recipient\"><state>early</state></dialog>\
    </dialog-info>";

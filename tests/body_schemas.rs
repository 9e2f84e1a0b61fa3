//! Validation by libxml2: the documents that the server writes, against the IETF schemas; and the documents that it
//! accepts, for well-formedness.
//!
//! Needs `xmllint`. Without it the tests print a message and pass, unless `LAMPLIGHTER_REQUIRE_PEERS=1` is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lamplighter::package::{by_name, get};
use lamplighter::presence::state::{Basic, CallReport, CallState, ComposedState, Direction, Party, PersonState};

/// Folder of the schemas, if xmllint is installed.
fn peers() -> Option<PathBuf> {
    if Command::new("xmllint").arg("--version").output().is_ok() {
        return Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas"));
    }
    let missing = "xmllint is not installed";
    let required = std::env::var_os("LAMPLIGHTER_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{missing}, but LAMPLIGHTER_REQUIRE_PEERS=1");
    eprintln!("skipped: {missing}");
    None
}

/// Runs xmllint on all documents at once; returns its error messages.
fn complaints(folder: &str, schema: Option<PathBuf>, documents: &[Vec<u8>]) -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the documents");
    let mut complaints = String::new();
    // In chunks, because the length of a command line is limited.
    for (portion, documents) in documents.chunks(500).enumerate() {
        let mut xmllint = Command::new("xmllint");
        xmllint.args(["--nonet", "--noout"]);
        if let Some(schema) = &schema {
            xmllint.arg("--schema").arg(schema);
        }
        for (number, document) in documents.iter().enumerate() {
            let path = folder.join(format!("{portion}-{number}.xml"));
            fs::write(&path, document).expect("a file for a document");
            xmllint.arg(path);
        }
        let output = xmllint.output().expect("xmllint starts");
        if !output.status.success() {
            complaints += &String::from_utf8_lossy(&output.stderr);
        }
    }
    let complaints: Vec<_> = complaints.lines().filter(|line| !line.ends_with(" validates")).take(40).collect();
    (!complaints.is_empty()).then(|| complaints.join("\n"))
}

const HOSTILE: &str = "\"><state>x</state>&amp;&#0;'<!--]]>\u{1}\u{ffff}\r\n\tü\u{1f600}";

fn call(id: usize, state: CallState, bare: bool) -> CallReport {
    let some = |text: &str| (!bare).then(|| text.into());
    let party = |user: &str| Party {
        identity: some(&format!("sip:{user}@d.example;x=1?a=b&c=d")),
        display: some(HOSTILE),
        target: some(&format!("sip:{user}@[2001:db8::1]:5060;gr=\"{HOSTILE}\"")),
    };
    CallReport {
        id: if bare { format!("{id}").into() } else { format!("{id}{HOSTILE}").into() },
        call_id: some(HOSTILE),
        local_tag: some(HOSTILE),
        remote_tag: some(HOSTILE),
        direction: [None, Some(Direction::Initiator), Some(Direction::Recipient)][id % 3],
        state,
        local: party("a"),
        remote: party("b"),
        held: Some(!bare),
    }
}

/// Every combination of up to two calls, a manual state and a published person state.
fn documents(package: &str) -> Vec<Vec<u8>> {
    const STATES: [Option<CallState>; 5] = [
        None,
        Some(CallState::Trying),
        Some(CallState::Proceeding),
        Some(CallState::Early),
        Some(CallState::Confirmed),
    ];
    let package = get(by_name(package).expect("a package in the registry"));
    let activities: [&[&str]; 5] =
        [&[], &["unknown"], &["unknown", "away"], &["on-the-phone", "busy", "other"], &["<x>", "in-transit"]];
    let mut documents = Vec::new();
    for (number, (first, second)) in STATES.iter().flat_map(|a| STATES.iter().map(move |b| (a, b))).enumerate() {
        for manual in STATES {
            for bare in [true, false] {
                let calls = [(1, first), (2, second)];
                let calls = calls.map(|(id, state)| state.map(|state| call(id + number, state, bare)));
                let picture = ComposedState {
                    uri: "sip:own.user+x@d.example",
                    calls: calls.iter().flatten().collect(),
                    manual,
                    person: PersonState {
                        basic: [None, Some(Basic::Open), Some(Basic::Closed)][number % 3],
                        note: (!bare).then(|| HOSTILE.into()),
                        activities: activities[number % 5].iter().map(|&name| name.into()).collect(),
                    },
                    ..ComposedState::default()
                };
                let mut tail = String::new();
                package.write_tail(&picture, &mut tail);
                documents.push(package.body(number as u32, "sip:*97&x@d.example;a=1", &tail).into());
            }
        }
    }
    documents
}

#[test]
fn what_we_write_is_valid_dialog_info() {
    let Some(schemas) = peers() else { return };
    let complaints = complaints("dialog-info", Some(schemas.join("dialog-info.xsd")), &documents("dialog"));
    assert_eq!(complaints, None, "\n{}", complaints.as_deref().unwrap_or_default());
}

#[test]
fn what_we_write_is_valid_pidf_with_data_model_and_rpid() {
    let Some(schemas) = peers() else { return };
    let complaints = complaints("pidf", Some(schemas.join("pidf-all.xsd")), &documents("presence"));
    assert_eq!(complaints, None, "\n{}", complaints.as_deref().unwrap_or_default());
}

/// Proves that the schema rejects invalid documents: otherwise the tests above would prove nothing.
#[test]
fn a_document_that_is_not_valid_is_noticed() {
    let Some(schemas) = peers() else { return };
    for (package, schema, right, wrong) in [
        ("dialog", "dialog-info.xsd", "<state>", "<x/><state>"),
        ("presence", "pidf-all.xsd", "<dm:person id=\"p1\">", "<dm:person>"),
        ("presence", "pidf-all.xsd", "</rpid:activities>", "<rpid:nap/></rpid:activities>"),
    ] {
        let mut bad = documents(package).into_iter().map(|body| String::from_utf8(body).unwrap());
        let bad = bad.find(|body| body.contains(right)).unwrap().replace(right, wrong);
        assert!(complaints("wrong", Some(schemas.join(schema)), &[bad.into()]).is_some(), "{wrong}");
    }
}

/// Thousands of damaged documents: those that the server accepts, libxml2 accepts too.
#[test]
fn what_we_take_is_well_formed() {
    if peers().is_none() {
        return;
    }
    const PIECES: [&str; 22] = [
        "<", ">", "/", "&", ";", "\"", "'", "=", " ", ":", "-", "--", "]]>", "&amp;", "&#1;", "<!-- -->", "<?x y?>",
        "<a/>", "xmlns", "!", "?", "\t",
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    for package in ["dialog", "presence"] {
        let seeds = documents(package);
        let reader = get(by_name(package).expect("a package in the registry"));
        let mut taken = Vec::new();
        for _ in 0..6000 {
            let mut body = seeds[below(seeds.len())].clone();
            for _ in 0..=below(2) {
                let (at, piece) = (below(body.len()), PIECES[below(PIECES.len())]);
                let end = (at + [0, 0, 1, 1, 3, 12][below(6)]).min(body.len());
                body.splice(at..end, piece.bytes());
            }
            if reader.read(&body).is_ok() {
                taken.push(body);
            }
        }
        assert!(taken.len() > 500, "only {} of 6000 were taken", taken.len());
        let complaints = complaints(&format!("taken-{package}"), None, &taken);
        assert_eq!(complaints, None, "\n{}", complaints.as_deref().unwrap_or_default());
    }
}

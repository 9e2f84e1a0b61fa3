//! Damaged or missing data directory, as an operator meets it: the real process, its exit status and its messages.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[allow(dead_code)] // the fault run uses the rest
#[path = "faults/server.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// First line of the response, and the whole response.
fn http(server: &Server, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.lines().next().unwrap_or_default().into(), answer)
}

fn set(server: &Server, extension: u32) -> String {
    let body = "{\"data\":{\"action\":\"set\",\"state\":\"confirmed\"}}";
    http(server, "POST", &format!("/v2/accounts/a/presence/{extension}"), body).0
}

/// State of an extension's lamp.
fn lamp(server: &Server, extension: u32) -> String {
    http(server, "GET", &format!("/v2/accounts/a/lamps/{extension}"), "").1
}

fn metric(server: &Server, name: &str) -> f64 {
    let page = http(server, "GET", "/metrics", "").1;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn journal(action: &str, dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lamplighter")).args(["journal", action]).arg(dir).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A killed server that had acknowledged three changes, and whose log has one wrong bit in the second. Returns its
/// offset too.
fn damaged() -> (Server, usize) {
    let mut server = Server::start();
    let log = server.folder().join("data/log-1");
    let mut ends = Vec::new();
    for extension in [1001, 1002, 1003] {
        assert!(set(&server, extension).ends_with("200 OK"));
        ends.push(std::fs::metadata(&log).unwrap().len() as usize);
    }
    server.kill();
    let mut octets = std::fs::read(&log).unwrap();
    // The offset skips the mark of the commit, the head of the frame and the head of the record; it is in the account.
    octets[ends[0] + 24 + 8 + 16 + 6] ^= 0x20;
    std::fs::write(&log, octets).unwrap();
    (server, ends[0] + 24)
}

#[test]
fn a_damaged_journal_is_refused_with_file_and_offset_and_is_repaired_by_command() {
    let (mut server, offset) = damaged();
    let data = server.folder().join("data");
    let before = std::fs::read(data.join("log-1")).unwrap();
    let refused = server::program(server.folder()).stderr(Stdio::piped()).output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("data/log-1: damaged at octet "), "{said}");
    assert!(said.contains(&format!("octet {offset} ")) && said.contains("lamplighter journal repair"), "{said}");
    assert_eq!(std::fs::read(data.join("log-1")).unwrap(), before, "nothing is changed");

    let checked = journal("check", &data);
    assert_eq!(checked.status.code(), Some(3));
    assert!(text(&checked.stdout).contains(&format!("log-1: DAMAGED at octet {offset}, ")), "{checked:?}");

    let repaired = journal("repair", &data);
    assert!(repaired.status.success(), "{repaired:?}");
    let said = text(&repaired.stdout);
    assert!(said.contains("lost: state") && said.contains("put aside: "), "{said}");
    let aside = data.join(format!("bad-log-1-{offset}"));
    assert!(before[offset..].starts_with(&std::fs::read(&aside).unwrap()), "{said}");

    server.start_again();
    for (extension, lit) in [(1001, true), (1002, false), (1003, true)] {
        assert_eq!(lamp(&server, extension).contains("confirmed"), lit, "{extension}");
    }
    assert!(server.log().contains("the journal was read up to here"), "{}", server.log());
    let locked = journal("repair", &data);
    assert_eq!(locked.status.code(), Some(1));
    assert!(text(&locked.stderr).contains("another server uses this data directory"), "{locked:?}");
    assert!(journal("check", &data).status.success());
}

#[test]
fn a_damaged_journal_is_repaired_at_the_start_if_the_configuration_says_so() {
    let (mut server, _) = damaged();
    let file = server.folder().join("lamplighter.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("[data]", "[data]\non_damage = \"repair\"")).unwrap();
    server.start_again();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("the journal was damaged and is repaired")).unwrap();
    assert!(line.contains("ERROR") && line.contains("log-1: damaged at octet") && line.contains("lost="), "{line}");
    assert_eq!(metric(&server, "lamplighter_journal_repaired_parts"), 1.0);
    assert!(lamp(&server, 1003).contains("confirmed"));
    server.kill();
    server.start_again();
    assert_eq!(metric(&server, "lamplighter_journal_repaired_parts"), 0.0);
}

#[test]
fn a_torn_tail_is_cut_off_kept_aside_and_told_truly() {
    let mut server = Server::start();
    assert!(set(&server, 1001).ends_with("200 OK"));
    server.kill();
    let data = server.folder().join("data");
    let mut log = std::fs::OpenOptions::new().append(true).open(data.join("log-1")).unwrap();
    let end = std::fs::metadata(data.join("log-1")).unwrap().len();
    log.write_all(&[90, 0, 0, 0, 1, 2, 3, 4, 5]).unwrap();
    assert!(text(&journal("check", &data).stdout).contains(&format!("ends in a torn write at octet {end}, 9 octets")));
    assert!(text(&journal("repair", &data).stdout).contains("not damaged, nothing is changed"));
    server.start_again();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("the end of the journal was cut off")).unwrap();
    assert!(line.contains(&format!("offset={end}")) && line.contains("the last write is incomplete"), "{line}");
    assert_eq!(std::fs::read(data.join(format!("torn-log-1-{end}"))).unwrap(), [90, 0, 0, 0, 1, 2, 3, 4, 5]);
    assert!(lamp(&server, 1001).contains("confirmed"));
}

#[test]
fn a_data_directory_that_moves_away_makes_the_server_not_ready_until_it_is_back() {
    let server = Server::start();
    let (data, away) = (server.folder().join("data"), server.folder().join("away"));
    assert!(set(&server, 1001).ends_with("200 OK"));
    std::fs::rename(&data, &away).unwrap();
    until("503", || http(&server, "GET", "/readyz", "").0.contains("503"));
    assert_eq!(metric(&server, "lamplighter_journal_up"), 0.0);
    until("refusals", || set(&server, 1002).contains("503"));
    let log = server.log();
    assert!(log.contains("the directory, or the lock file in it, is gone"), "{log}");
    assert!(!data.exists(), "nothing is made in its place");
    assert!(http(&server, "GET", "/healthz", "").0.contains("200"));

    std::fs::rename(&away, &data).unwrap();
    until("readiness", || http(&server, "GET", "/readyz", "").0.contains("200"));
    until("changes", || set(&server, 1003).contains("200"));
    assert_eq!(metric(&server, "lamplighter_journal_up"), 1.0);
}

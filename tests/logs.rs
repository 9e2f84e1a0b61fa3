//! Log of the real binary on standard error: text for people, or JSON for log collectors.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/folder.rs"]
mod folder;
#[path = "peers/harness/ports.rs"]
mod ports;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use folder::Folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Returns all log lines of a server, from start to stop, during which one request is refused.
fn logged(format: &str) -> Vec<String> {
    let folder = Folder::new("logs");
    let [sip, http] = [ports::free(), ports::free()];
    let configuration = folder.path().join("l.toml");
    let text = format!(
        "sip.listen = [\"udp://127.0.0.1:{sip}\"]\nhttp.listen = \"127.0.0.1:{http}\"\ndata.durability = \"strict\"\n\
         [log]\nlevel = \"debug\"\n{format}\n[[token]]\nvalue = \"the-secret\"\naccount = \"a\"\n\
         [[account]]\nid = \"a\"\nrealm = \"acme.test\"\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(["serve", "--config"]).arg(&configuration).current_dir(folder.path()).env_remove("RUST_LOG");
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It prints its listeners on standard output as soon as they are open.
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    assert!(said.read_line(&mut line).unwrap() > 0);
    let phone = UdpSocket::bind("127.0.0.1:0").unwrap();
    phone.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = "SUBSCRIBE sip:1001@nowhere.test SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKn;rport\r\n\
               From: <sip:1@nowhere.test>;tag=n\r\nTo: <sip:1001@nowhere.test>\r\nCall-ID: \"quoted\"\r\nCSeq: 1 SUBSCRIBE\r\n\
               Contact: <sip:1@127.0.0.1:9>\r\nEvent: dialog\r\nContent-Length: 0\r\n\r\n";
    phone.send_to(ask.as_bytes(), ("127.0.0.1", sip)).unwrap();
    phone.recv(&mut [0; 2_048]).expect("an answer");
    let mut api = TcpStream::connect(("127.0.0.1", http)).unwrap();
    let body = r#"{"data":{"action":"set","state":"early"}}"#;
    write!(
        api,
        "POST /v2/accounts/a/presence/1001 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Auth-Token: the-secret\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    api.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(server.wait().unwrap().success(), "{log}");
    assert!(!log.contains("the-secret"), "{log}");
    log.lines().map(String::from).collect()
}

#[test]
fn json_is_an_object_a_line_with_the_fields_beside_the_message() {
    let lines: Vec<Value> = logged("format = \"json\"")
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let find = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message} in {lines:#?}"))
    };
    for line in &lines {
        assert!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{line}");
        assert!(line["level"].is_string() && line["target"].is_string(), "{line}");
    }
    let refused = find("request answered");
    assert_eq!((&refused["level"], &refused["target"]), (&"DEBUG".into(), &"lamplighter::notifier::request".into()));
    assert_eq!((&refused["status"], &refused["call_id"]), (&404.into(), &"\"quoted\"".into()), "numbers are numbers");
    assert_eq!(
        (&find("presence set by the API")["account"], &find("the journal is closed")["level"]),
        (&"a".into(), &"INFO".into())
    );
}

#[test]
fn text_is_a_line_for_people_without_colours_where_there_is_no_terminal() {
    for format in ["", "format = \"text\""] {
        let lines = logged(format);
        assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:#?}");
        let refused = lines.iter().find(|line| line.contains("request answered")).unwrap();
        assert!(
            refused.contains(" DEBUG lamplighter::notifier::request: ") && refused.contains("status=404"),
            "{refused}"
        );
    }
}

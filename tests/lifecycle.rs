//! Start, stop and data directory of the real process.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[allow(dead_code)] // the fault run uses the rest
#[path = "faults/server.rs"]
mod server;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lamplighter::sip::headers::param;
use lamplighter::sip::wire::{self, Name};
use server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// A phone with one subscription.
struct Phone {
    socket: UdpSocket,
    server: SocketAddr,
    call_id: String,
    to_tag: String,
    cseq: u32,
}

impl Phone {
    fn new(server: SocketAddr) -> Phone {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Ports may be reused within the lifetime of a transaction, so the Call-ID must differ.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let call_id = format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Phone { socket, server, call_id, to_tag: String::new(), cseq: 0 }
    }

    fn hear(&self) -> String {
        let mut buffer = [0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("a datagram in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Returns the next message that begins so; retransmissions of other messages may precede it.
    fn hear_start(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.hear();
            if message.starts_with(start) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {start}, but {message}");
        }
    }

    /// Subscribes or refreshes; returns the response.
    fn subscribe(&mut self) -> String {
        self.cseq += 1;
        let (local, cseq, call_id) = (self.socket.local_addr().unwrap(), self.cseq, &self.call_id);
        let tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let request = format!(
            "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{call_id}x{cseq};rport\r\n\
             From: <sip:1002@acme.test>;tag=p\r\nTo: <sip:1001@acme.test>{tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} SUBSCRIBE\r\nContact: <sip:1002@{local}>\r\nEvent: dialog\r\nExpires: 600\r\n\
             Content-Length: 0\r\n\r\n"
        );
        self.socket.send_to(request.as_bytes(), self.server).unwrap();
        let answer = self.hear_start("SIP/2.0 ");
        let message = wire::read(answer.as_bytes()).unwrap().unwrap();
        if message.status() == Some(200) {
            self.to_tag = param(message.to.params, "tag").unwrap().into();
        }
        answer
    }

    fn answer(&self, notify: &str) {
        let message = wire::read(notify.as_bytes()).unwrap().unwrap();
        let mut answer = b"SIP/2.0 200 OK\r\n".to_vec();
        for name in [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq] {
            for value in message.all(name) {
                answer.extend_from_slice(format!("{}: {value}\r\n", name.text()).as_bytes());
            }
        }
        answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.socket.send_to(&answer, self.server).unwrap();
    }

    fn settle(&mut self) {
        let answer = self.subscribe();
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        self.answer(&self.hear_start("NOTIFY "));
    }
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let line = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// First line of the response, and its body.
fn http(server: &Server, method: &str, path: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: t\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().into(), body.into())
}

fn set(server: &Server, state: &str) -> String {
    let body = format!("{{\"data\":{{\"action\":\"set\",\"state\":\"{state}\"}}}}");
    http(server, "POST", "/v2/accounts/a/presence/1001", &body).0
}

/// Socket on which the server reports its state, as systemd provides it.
fn service_manager(name: &str) -> (UnixDatagram, std::path::PathBuf) {
    let path = std::env::temp_dir().join(format!("lamplighter-{name}-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path)
}

fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).expect("word from the server");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn a_server_that_is_to_stop_finishes_what_is_under_way_and_sends_new_phones_away() {
    let (manager, path) = service_manager("drain");
    let mut server = Server::start_by(|mut program| {
        program.env("NOTIFY_SOCKET", &path);
        program
    });
    assert!(told(&manager).contains("READY=1"));
    let (mut slow, mut other) = (Phone::new(server.address()), Phone::new(server.address()));
    let answer = slow.subscribe();
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    let notify = slow.hear_start("NOTIFY ");
    other.settle();

    server.terminate();
    assert!(told(&manager).contains("STOPPING=1"));
    assert_eq!(http(&server, "GET", "/readyz", "").0, "HTTP/1.1 503 Service Unavailable");
    let (status, left) = http(&server, "DELETE", "/v2/drain", "");
    assert!(status.contains("503") && left.contains("the server is stopping"), "no way back: {status} {left}");
    // The response of the other phone may still be in transit.
    let left = http(&server, "GET", "/v2/drain", "").1;
    assert!(left.contains("\"draining\":true,\"unanswered\":") && !left.contains("\"unanswered\":0"), "{left}");
    let refused = Phone::new(server.address()).subscribe();
    assert!(refused.starts_with("SIP/2.0 503 Server Is Stopping"), "{refused}");
    let wait: u32 = header(&refused, "Retry-After").parse().unwrap();
    assert!((10..20).contains(&wait), "{wait}");
    other.settle();
    slow.answer(&notify);
    let (status, took) = server.ended();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    server.start_again();
    assert!(other.subscribe().starts_with("SIP/2.0 200"), "it is back");
    let _ = std::fs::remove_file(path);
}

#[test]
fn a_phone_that_never_answers_does_not_keep_the_server_from_stopping() {
    let mut server = Server::start();
    let mut silent = Phone::new(server.address());
    assert!(silent.subscribe().starts_with("SIP/2.0 200"));
    server.terminate();
    let (status, took) = server.ended();
    assert!(status.success() && took < Duration::from_secs(5), "{status}, {took:?}");
    server.start_again();
    // Unacknowledged changes are sent again, with higher numbers.
    let copies = silent.hear_start("NOTIFY ");
    let first: u32 = header(&copies, "CSeq").split(' ').next().unwrap().parse().unwrap();
    let again = loop {
        let notify = silent.hear_start("NOTIFY ");
        if notify != copies {
            break notify;
        }
    };
    assert!(header(&again, "CSeq").split(' ').next().unwrap().parse::<u32>().unwrap() > first);
}

#[test]
fn while_the_disk_is_full_changes_get_503_and_all_else_is_served_until_there_is_room_again() {
    // A limit on the file size simulates a full disk: only writes fail.
    let server = Server::start_by(|program| {
        let mut shell = Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; ulimit -S -f 64; exec \"$0\" \"$@\""]);
        shell.arg(program.get_program()).args(program.get_args());
        shell.current_dir(program.get_current_dir().unwrap());
        shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        // The log file has no room either, from its first line on.
        let log = program.get_current_dir().unwrap().join("log");
        std::fs::write(&log, vec![b'.'; 128 * 1024]).unwrap();
        shell.stderr(std::fs::OpenOptions::new().append(true).open(log).unwrap());
        shell
    });
    let mut first = Phone::new(server.address());
    first.settle();
    let mut taken = 1;
    let refused = loop {
        let mut phone = Phone::new(server.address());
        let answer = phone.subscribe();
        if !answer.starts_with("SIP/2.0 200") {
            break answer;
        }
        phone.answer(&phone.hear_start("NOTIFY "));
        taken += 1;
        assert!(taken < 1_000, "the disk never got full");
    };
    assert!(refused.starts_with("SIP/2.0 503 Journal Unavailable"), "{refused}");
    assert!(header(&refused, "Retry-After").parse::<u32>().unwrap() >= 30);
    assert!(header(&refused, "Warning").contains("journal"), "{refused}");
    // A refused change has not happened: the lamp is unchanged.
    assert_eq!(set(&server, "confirmed"), "HTTP/1.1 503 Service Unavailable");
    let lamp = http(&server, "GET", "/v2/accounts/a/lamps/1001", "").1;
    assert!(lamp.contains("200 OK") || lamp.contains("success"), "{lamp}");
    assert!(!lamp.contains("confirmed"), "{lamp}");
    assert!(http(&server, "GET", "/v2/accounts/a/presence", "").0.ends_with("200 OK"));

    let room = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &server.id().to_string()]).status().unwrap();
    assert!(room.success());
    let deadline = Instant::now() + PATIENCE;
    while !first.subscribe().starts_with("SIP/2.0 200") {
        assert!(Instant::now() < deadline, "the journal does not recover");
    }
}

#[test]
fn the_log_never_holds_a_proof_a_nonce_or_a_token_however_much_is_logged() {
    // L-039
    let server = Server::start_by(|mut program| {
        program.env("RUST_LOG", "trace");
        program
    });
    let phone = Phone::new(server.address());
    let local = phone.socket.local_addr().unwrap();
    let request = format!(
        "SUBSCRIBE sip:1001@acme.test SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKl;rport\r\n\
         Authorization: Digest username=\"1002\", realm=\"acme.test\", nonce=\"a-nonce-of-mine\", uri=\"sip:a@b\", \
         response=\"a-proof-of-mine\"\r\nFrom: <sip:1002@acme.test>;tag=p\r\nTo: <sip:1001@acme.test>\r\n\
         Call-ID: logged\r\nCSeq: 1 SUBSCRIBE\r\nContact: <sip:1002@{local}>\r\nEvent: dialog\r\nExpires: 600\r\n\
         Content-Length: 0\r\n\r\n"
    );
    phone.socket.send_to(request.as_bytes(), server.address()).unwrap();
    assert!(phone.hear().starts_with("SIP/2.0 200"));
    let mut stream = TcpStream::connect(server.http()).unwrap();
    let head = "GET /v2/accounts/a/presence HTTP/1.1\r\nHost: x\r\nX-Auth-Token: a-token-of-mine\r\n";
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    let log = server.log();
    assert!(log.contains("logged"), "the request was logged: {log}");
    for secret in ["a-nonce-of-mine", "a-proof-of-mine", "a-token-of-mine"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// Starts a server in this folder, which must fail with this exit status; returns its error output.
fn cannot_start(folder: &std::path::Path, status: i32) -> String {
    let mut program = server::program(folder);
    let output = program.stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_data_directory_in_use_is_refused_in_words_that_help() {
    let server = Server::start();
    let config = std::fs::read_to_string(server.folder().join("lamplighter.toml")).unwrap();
    let beside = server.folder().join("beside");
    std::fs::create_dir(&beside).unwrap();
    // The same directory, but other ports, because a port in use would be reported first.
    let elsewhere = config.replace(&server.address().to_string(), "127.0.0.1:0");
    let elsewhere = elsewhere.replace(&server.http().to_string(), "127.0.0.1:0").replace("\"data\"", "\"../data\"");
    std::fs::write(beside.join("lamplighter.toml"), elsewhere).unwrap();
    let said = cannot_start(&beside, 1);
    assert!(said.contains("data.dir: ") && said.contains("another server uses this data directory"), "{said}");
}

#[test]
fn a_foreign_or_newer_data_directory_is_refused_and_left_as_it_is() {
    let mut server = Server::start();
    let mut phone = Phone::new(server.address());
    phone.settle();
    server.kill();
    let data = server.folder().join("data");
    let log = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let log = log.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-")).unwrap();
    let mut newer = std::fs::read(&log).unwrap();
    // Changes the version, and the checksum of the header that contains it (src/journal/format.rs).
    newer[8] += 1;
    let checksum = crc32fast::hash(&newer[..20]);
    newer[20..24].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&log, &newer).unwrap();
    let said = cannot_start(server.folder(), 3);
    assert!(said.contains("written in format ") && said.contains("start the newer Lamplighter again"), "{said}");
    assert_eq!(std::fs::read(&log).unwrap(), newer);

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("holiday.jpg"), "x").unwrap();
    let said = cannot_start(server.folder(), 3);
    assert!(said.contains("holiday.jpg") && said.contains("no data directory of Lamplighter's"), "{said}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
}

//! Log of the real binary, and the matches of `fail2ban-regex` (Debian's `fail2ban`) with our filter.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::digest::{DigestPhone, nonce};
use crate::folder::Folder;
use crate::ports;
use crate::process::skip_without;
use crate::world::PATIENCE;

/// Log lines that an attacker would like to forge, for each format.
const FORGED: [&str; 2] = [
    "2026-11-30T20:00:00.000000Z  WARN lamplighter::refusals: wrong password source=198.51.100.66 tries=1",
    "{\"timestamp\":\"2026-11-30T20:00:00.000000Z\",\"level\":\"WARN\",\"message\":\"wrong token\",\"source\":\"198.51.100.66\",\"tries\":1}",
];

/// Debug log of a server during right and wrong requests.
fn log(folder: &Folder, format: &str) -> String {
    let [sip, http] = [ports::free(), ports::free()];
    let configuration = folder.path().join(format!("{format}.toml"));
    let text = format!(
        "sip.listen = [\"udp://127.0.0.1:{sip}\"]\nhttp.listen = \"127.0.0.1:{http}\"\ndata.durability = \"memory\"\n\
         access = {{ authenticate = \"digest\", trusted_proxies = [] }}\nlog = {{ level = \"debug\", format = \"{format}\" }}\n\
         [[token]]\nvalue = \"the-right-token-of-a\"\naccount = \"a\"\n[[account]]\nid = \"a\"\nrealm = \"acme.test\"\n\
         [[account.device]]\nid = \"d\"\nsip = {{ username = \"1003\", password = \"right password\" }}\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(["serve", "--config"]).arg(&configuration).current_dir(folder.path()).env_remove("RUST_LOG");
    let log = folder.path().join(format!("{format}.log"));
    let file = std::fs::File::create(&log).unwrap();
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
    let mut line = String::new();
    assert!(BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap() > 0, "it does not start");
    talk(SocketAddr::from(([127, 0, 0, 1], sip)), http);
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
    std::fs::read_to_string(log).unwrap()
}

fn talk(sip: SocketAddr, http: u16) {
    let mut right = DigestPhone::new(sip, Ipv4Addr::new(127, 0, 0, 2));
    let challenge = nonce(&right.subscribe("1003", ""));
    assert!(right.answer_nonce("1003", "right password", &challenge, "").starts_with("SIP/2.0 200"));
    assert!(right.answer_nonce("1003", "right password", &challenge, "").contains("stale=true"));
    // The same refusal twice in a minute gives one line.
    let mut wrong = DigestPhone::new(sip, Ipv4Addr::new(127, 0, 0, 3));
    for _ in 0..2 {
        assert!(wrong.try_password("1003", "guess").starts_with("SIP/2.0 401"));
    }
    // Forged lines in the name of a user, in From, in User-Agent, in a path, in a request id.
    let mut forger = DigestPhone::new(sip, Ipv4Addr::new(127, 0, 0, 4));
    for forged in FORGED {
        forger.subscribe("1003", &format!("User-Agent: {forged}\r\nX-Y: \u{2028}{forged}\r\n"));
        let escaped: String = format!("x\r\n{forged}").bytes().map(|b| format!("%{b:02X}")).collect();
        forger.subscribe(&escaped, "");
        let challenge = nonce(&forger.subscribe("1003", ""));
        forger.answer_nonce(&format!("\u{2028}{forged}"), "guess", &challenge, "");
        for token in ["the-right-token-of-a", "a wrong token"] {
            for path in [
                format!("/v2/accounts/a/lamps/{escaped}"),
                format!("/v2/accounts/{escaped}/lamps"),
                "/v2/accounts".into(),
            ] {
                ask(
                    http,
                    &path,
                    &format!("X-Auth-Token: {token}\r\nX-Request-ID: {forged}\r\nUser-Agent: {forged}\r\n"),
                );
            }
        }
    }
}

fn ask(http: u16, path: &str, headers: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
}

/// Lines that match the filter.
fn found(log: &Path) -> Vec<String> {
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fail2ban/filter.d/lamplighter.conf");
    let mut command = Command::new("fail2ban-regex");
    let output = command.arg("--print-all-matched").arg(log).arg(filter).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().skip_while(|line| !line.starts_with("|- Matched line(s)")).skip(1);
    lines.map_while(|line| line.strip_prefix("|  ")).map(String::from).collect()
}

#[test]
fn fail2ban_finds_the_lines_of_wrong_passwords_and_tokens_and_no_other() {
    let folder = Folder::new("fail2ban");
    for format in ["text", "json"] {
        let log = log(&folder, format);
        let is_wrong = |line: &&str| match format {
            "text" => line.contains("  WARN lamplighter::refusals: wrong ") && !line.contains("DEBUG"),
            _ => line.starts_with("{\"timestamp\":") && line.contains("\"level\":\"WARN\",\"message\":\"wrong "),
        };
        let wrong: Vec<_> = log.lines().filter(is_wrong).collect();
        let of = |source: &str| wrong.iter().filter(|line| line.contains(source)).count();
        let [password, token] = ["wrong password", "wrong token"].map(of);
        assert_eq!((password, token), (2, 1), "once for each source and minute: {wrong:#?}");
        assert!(!log.contains("the-right-token") && !log.contains("a wrong token"), "{log}");
        if skip_without("fail2ban-regex") {
            continue;
        }
        let found = found(&folder.path().join(format!("{format}.log")));
        assert_eq!(found, wrong, "{format}");
        // Prefixes of journald and syslog before a line.
        let journal = folder.path().join(format!("{format}.journal"));
        let prefixed: String =
            log.lines().map(|line| format!("Nov 30 20:00:00 host lamplighter[123]: {line}\n")).collect();
        std::fs::write(&journal, prefixed).unwrap();
        assert_eq!(self::found(&journal).len(), wrong.len(), "{format}");
    }
}

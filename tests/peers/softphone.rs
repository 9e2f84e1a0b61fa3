//! Third-party softphones, baresip and PJSIP, show lamps; their output is checked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Lines, Process, Server, Settings, skip_without, skip_without_file};

/// Folder in which Debian installs baresip's modules.
fn modules() -> Option<PathBuf> {
    ["/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules", "/usr/local/lib/baresip/modules"]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join("presence.so").is_file())
}

/// Configures a baresip of 1002 that watches 1001, without registrar, sound card or terminal.
fn configure(folder: &Path, modules: &Path, transport: &str, server: u16) {
    let write = |file: &str, text: String| std::fs::write(folder.join(file), text).expect("a file of baresip's");
    let names = ["uuid", "account", "contact", "menu", "presence"];
    let loaded: String = names.iter().map(|name| format!("module {name}.so\n")).collect();
    write("config", format!("sip_listen 127.0.0.1:0\nmodule_path {}\n{loaded}", modules.display()));
    write(
        "accounts",
        format!(
            "<sip:1002@acme.test;transport={transport}>;outbound=\"sip:127.0.0.1:{server};transport={transport}\";regint=0;\
             auth_user=1002;auth_pass=s3cret-1002\n"
        ),
    );
    write("contacts", "\"Watched\" <sip:1001@acme.test>;presence=p2p\n".to_string());
}

/// Runs baresip while its contact becomes busy and free again.
fn shows_its_contact_busy(server: &Server, transport: &str, port: u16) {
    let modules = modules().expect("baresip is installed with its presence module");
    configure(server.folder(), &modules, transport, port);
    // The output must be line-buffered, or it would remain in the buffer until the end.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "baresip", "-f"]).arg(server.folder());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("baresip starts");
    let lines = Lines::of(child.stdout.take().expect("its output is piped"));
    let _ended_with_the_test = Process::adopt("baresip", child);

    server.until_answered(1, "1001", "presence", "<basic>open");
    server.post("1001", r#"{"data":{"action":"set","state":"early"}}"#);
    lines.next_with("busy contact", |line| line.contains("changed status") && line.contains("Busy"));
    server.post("1001", r#"{"data":{"reset":true}}"#);
    let free = |line: &str| {
        line.contains("changed status") && line.rsplit(" to ").next().is_some_and(|to| to.contains("Online"))
    };
    lines.next_with("contact that is online again", free);
}

fn is_missing() -> bool {
    skip_without("baresip") || skip_without("curl") || skip_without("stdbuf")
}

#[test]
fn baresip_shows_its_contact_busy_while_it_rings_or_talks() {
    if is_missing() {
        return;
    }
    let server = Server::start("baresip", &Settings::default());
    shows_its_contact_busy(&server, "udp", server.sip_port());
}

#[test]
fn baresip_proves_who_it_is_and_shows_the_same() {
    if is_missing() {
        return;
    }
    let server = Server::start("baresip-digest", &Settings { guarded: true, ..Settings::default() });
    shows_its_contact_busy(&server, "udp", server.sip_port());
}

#[test]
fn baresip_does_so_over_tls_too() {
    if is_missing() {
        return;
    }
    let settings = Settings { also: Some("tls"), certificate: true, ..Settings::default() };
    let server = Server::start("baresip-tls", &settings);
    // This version accepts any certificate; other tests check certificates.
    shows_its_contact_busy(&server, "tls", server.also_port());
}

#[test]
fn pjsip_shows_the_lamp_over_tls_and_checks_our_certificate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pjsip");
    let python = folder.join(".venv/bin/python");
    let remedy = "(.ci/run makes it from tests/peers/pjsip/requirements.txt)";
    if skip_without_file(&python, remedy) || skip_without("curl") {
        return;
    }
    let settings = Settings { also: Some("tls"), certificate: true, ..Settings::default() };
    let server = Server::start("pjsip", &settings);
    let mut command = Command::new(python);
    command.arg(folder.join("lamp.py")).arg(server.also_port().to_string()).arg(server.certificate());
    command.args(["sip:1002@acme.test", "sip:1001@acme.test"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("Python starts");
    let lines = Lines::of(child.stdout.take().expect("its output is piped"));
    let _ended_with_the_test = Process::adopt("pjsip", child);

    server.until_answered(1, "1001", "dialog", "terminated");
    for state in ["early", "confirmed", "terminated"] {
        server.post("1001", &format!(r#"{{"data":{{"action":"set","state":"{state}"}}}}"#));
        lines.next_with(&format!("lamp that is {state}"), |line| line == format!("lamp {state}"));
    }
}

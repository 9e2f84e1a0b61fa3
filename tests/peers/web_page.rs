//! SIP clients of web pages: SIP.js in a headless Chromium, and JsSIP, which runs in Node as it would in a page.
//!
//! `npm ci` in tests/peers/web downloads them; package-lock.json there has their versions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Lines, Process, Server, Settings, skip_without, skip_without_file};

const WATCHER: &str = "sip:1002@acme.test";
const WATCHED: &str = "sip:1001@acme.test";

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/web")
}

fn is_missing() -> bool {
    let installed = scripts().join("node_modules/.package-lock.json");
    skip_without("node") || skip_without("curl") || skip_without_file(&installed, "run npm ci in tests/peers/web")
}

/// Runs a script that prints the lamp's states, while they change.
fn shows_the_lamp(server: &Server, command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("node starts");
    let lines = Lines::of(child.stdout.take().expect("its output is piped"));
    let _ended_with_the_test = Process::adopt("node", child);
    server.until_answered(1, "1001", "dialog", "terminated");
    for state in ["early", "confirmed", "terminated"] {
        server.post("1001", &format!(r#"{{"data":{{"action":"set","state":"{state}"}}}}"#));
        lines.next_with(&format!("lamp that is {state}"), |line| line == format!("lamp {state}"));
    }
}

#[test]
fn a_page_with_sip_js_in_chromium_shows_the_lamp_over_ws() {
    if is_missing() || skip_without("chromium") {
        return;
    }
    let server = Server::start("chromium", &Settings { also: Some("ws"), ..Settings::default() });
    let mut node = Command::new("node");
    node.arg(scripts().join("browser.js")).arg("chromium").arg(server.folder().join("profile"));
    node.arg(format!("ws://127.0.0.1:{}/ws", server.also_port())).args([WATCHER, WATCHED]);
    shows_the_lamp(&server, &mut node);
}

#[test]
fn jssip_shows_the_lamp_over_wss_and_checks_our_certificate() {
    if is_missing() {
        return;
    }
    let settings = Settings { also: Some("wss"), certificate: true, ..Settings::default() };
    let server = Server::start("jssip", &settings);
    let mut node = Command::new("node");
    node.arg(scripts().join("jssip.js")).env("NODE_EXTRA_CA_CERTS", server.certificate());
    node.arg(format!("wss://127.0.0.1:{}/", server.also_port())).args([WATCHER, WATCHED]);
    shows_the_lamp(&server, &mut node);
}

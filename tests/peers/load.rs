//! `lamplighter bench` against a server: every NOTIFY is well-formed, has the right entity, and version and CSeq that
//! rise by one, and none is lost. Speed is not checked here.

use std::process::Command;

use crate::harness::{PATIENCE, Process, Server, Settings};

#[test]
fn two_thousand_subscriptions_without_a_fault() {
    let server = Server::start("load", &Settings::default());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(["bench", "--target", &format!("127.0.0.1:{}", server.sip_port()), "--domain", "acme.test"]);
    command.args([
        "--scenario",
        "subscribe,refresh,steady,fan-out,unsubscribe",
        "--subscriptions",
        "2000",
        "--seconds",
        "3",
    ]);
    let mut run = Process::start("bench", &mut command, server.folder());
    let ended = run.wait(6 * PATIENCE);
    let said = std::fs::read_to_string(server.folder().join("bench.out")).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}:\n{said}");
    for scenario in ["subscribe", "refresh", "unsubscribe"] {
        let row =
            said.lines().find(|line| line.starts_with(scenario)).unwrap_or_else(|| panic!("no {scenario}:\n{said}"));
        assert_eq!(row.split_whitespace().nth(2), Some("0"), "failed: {row}");
    }
}

//! `lamplighter watch`: the built-in watcher prints the lamp, one line for each change.

use std::process::{Command, Stdio};

use crate::harness::{Lines, Process, Server, Settings, skip_without};

#[test]
fn the_built_in_watcher_prints_a_line_for_each_change() {
    if skip_without("curl") {
        return;
    }
    let server = Server::start("watch-command", &Settings::default());
    let mut command = Command::new(Server::binary());
    command.args(["watch", "1001@acme.test", "--server", &format!("udp:127.0.0.1:{}", server.sip_port())]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("lamplighter watch starts");
    let lines = Lines::of(child.stdout.take().expect("its output is piped"));
    let _ended_with_the_test = Process::adopt("lamplighter watch", child);

    let idle = lines.next_with("the lamp at first", |line| !line.trim().is_empty());
    server.until_answered(1, "1001", "dialog", "terminated");
    server.post("1001", r#"{"data":{"action":"set","state":"confirmed"}}"#);
    lines.next_with("a line that differs from the first", |line| !line.trim().is_empty() && line != idle);
}

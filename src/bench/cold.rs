//! Restart scenario: a server that the bench has started is killed and started again, and must still have its
//! subscriptions.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ops::{Kind, MS};
use super::runner::{Found, Runner};
use super::text::{Names, Text as _};
use super::usage;

/// Interval between requests to a server that does not answer yet.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// Idle time before the kill (ns).
const QUIET: u64 = 2_000 * MS;
/// Time that a server may take to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// A server process started by the bench.
#[derive(Debug)]
pub(super) struct Server {
    command: String,
    child: Child,
}

impl Server {
    pub(super) fn start(command: &str) -> io::Result<Server> {
        // `exec` makes the child the server itself and not a shell around it.
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("exec {command}")).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Server { command: command.into(), child: shell.spawn()? })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Exit status, if the process has ended by itself.
    pub(super) fn has_ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills the server without warning, like a power cut, and starts it again.
    fn kill_and_restart(&mut self) -> io::Result<()> {
        // A server with several processes would continue without the first one, and keep the port.
        let all = usage::processes(&[self.child.id()]);
        self.child.kill()?;
        all.into_iter().filter(|pid| *pid != self.child.id()).for_each(|pid| {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        });
        self.child.wait()?;
        *self = Server::start(&self.command)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let asked = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).is_ok();
        let deadline = Instant::now() + FAREWELL;
        while asked && Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(ASK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends requests until any response arrives. Returns the time that took, or none if there was no response in time.
pub(super) fn until_answered(target: SocketAddr, names: &Names, patience: Duration) -> io::Result<Option<Duration>> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(ASK_EVERY))?;
    let (began, local) = (Instant::now(), socket.local_addr()?.to_string());
    let (mut question, mut answer) = (Vec::new(), [0; 2_048]);
    for n in 1u64.. {
        question.clear();
        question.text("OPTIONS sip:").text(&names.domain).text(" SIP/2.0\r\nVia: SIP/2.0/UDP ").text(&local);
        question.text(";branch=z9hG4bK").text(&names.run).text(".o").number(n).text(";rport\r\nMax-Forwards: 70\r\n");
        question.text("From: <sip:pbx@").text(&names.domain).text(">;tag=o\r\nTo: <sip:").text(&names.domain);
        question.text(">\r\nCall-ID: ").text(&names.run).text(".o").number(n).text("\r\nCSeq: 1 OPTIONS\r\n");
        question.text("Content-Length: 0\r\n\r\n");
        // Sending is refused while nothing listens on the port.
        if socket.send(&question).is_ok() {
            if socket.recv(&mut answer).is_ok_and(|length| answer[..length].starts_with(b"SIP/2.0 ")) {
                return Ok(Some(began.elapsed()));
            }
        } else {
            std::thread::sleep(ASK_EVERY);
        }
        if began.elapsed() > patience {
            break;
        }
    }
    Ok(None)
}

impl Runner {
    /// Subscribes, kills and restarts the server. Measures the time to the first response, and the number of
    /// subscriptions that are still known.
    pub(super) fn cold(&mut self) -> io::Result<()> {
        if self.server.is_none() {
            return Ok(());
        }
        self.ensure_open()?;
        // The server may journal acknowledgements a little later than it sends NOTIFYs.
        self.engine.listen(QUIET)?;
        let count = self.engine.book.len();
        let patience = Duration::from_secs(self.engine.settings.give_up.into());
        let names = self.engine.names.clone();
        let mut pids = Vec::new();
        let mut server = self.server.take();
        self.engine.refusals_are_expected = true;
        self.engine.skips_are_expected = true;
        // The CPU time of the old process says nothing about the new one.
        self.pids.clear();
        let outcome = self.measure("cold".into(), "refresh", |engine, progress| {
            if let Some(server) = &mut server {
                server.kill_and_restart()?;
                pids.push(server.pid());
            }
            let Some(first) = until_answered(engine.settings.target, &names, patience)? else {
                engine.tally.faults.note("the server did not come back", || format!("within {patience:?}"));
                return Ok(Found::default());
            };
            engine.listen(1_000 * MS)?;
            let unasked = engine.tally.notifies;
            engine.drive(Kind::Refresh, 0..count, progress)?;
            let kept = engine.tally.done as f64 * 100.0 / f64::from(count);
            if engine.tally.done > 0 && engine.tally.failed > 0 {
                let detail = || format!("{} of {count}", engine.tally.failed);
                engine.tally.faults.note("some subscriptions were forgotten", detail);
            }
            let first = first.as_secs_f64() * 1e3;
            let numbers =
                vec![("first_answer_ms", first), ("kept_percent", kept), ("unasked_notifies", unasked as f64)];
            Ok(Found { numbers, ..Found::default() })
        });
        self.pids = pids;
        self.server = server;
        self.close_all()?;
        self.engine.refusals_are_expected = false;
        self.engine.skips_are_expected = false;
        outcome
    }
}

//! SIPp: phones that watch, phones that call, and a PBX that publishes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::trace::{self, Notify};
use super::{PATIENCE, ports};

/// Transport between the phones and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    /// All phones behind one connection, as behind a proxy.
    TcpShared,
    /// A connection for each phone.
    TcpEach,
}

impl Transport {
    fn option(self) -> &'static str {
        match self {
            Self::Udp => "u1",
            Self::TcpShared => "t1",
            Self::TcpEach => "tn",
        }
    }
}

/// One SIPp process that plays one scenario.
pub(crate) struct Sipp {
    process: Process,
    name: String,
    folder: PathBuf,
    port: u16,
}

impl Sipp {
    /// Plays `scenario` against `remote` (a port of loopback; phones that are called have none).
    pub(crate) fn start(name: &str, scenario: &str, remote: Option<u16>, options: &[&str], folder: &Path) -> Self {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/sipp").join(scenario);
        let port = ports::free();
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(scenario);
        if let Some(remote) = remote {
            command.arg(format!("127.0.0.1:{remote}"));
        }
        command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin"]);
        // SIPp plans for 50,000 sockets and refuses to start where fewer files may be open. A hundred NOTIFYs at once
        // must fit into its buffer, whose default is 64 KiB.
        command.args([
            "-buff_size",
            "1048576",
            "-max_socket",
            "1000",
            "-timeout",
            &format!("{}s", 4 * PATIENCE.as_secs()),
        ]);
        command.args(["-trace_msg", "-message_file", &format!("{name}.messages")]);
        command.args(["-trace_err", "-error_file", &format!("{name}.errors")]);
        command.args(options);
        let process = Process::start(name, &mut command, folder);
        Self { process, name: name.to_owned(), folder: folder.to_owned(), port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the scenario to succeed: each call went exactly as written.
    pub(crate) fn succeed(&mut self) {
        let ended = self.process.wait(PATIENCE);
        if !ended.is_some_and(|status| status.success()) {
            let errors = std::fs::read_to_string(self.folder.join(format!("{}.errors", self.name)));
            panic!("{} did not go as its scenario says ({ended:?}):\n{}", self.name, errors.unwrap_or_default());
        }
    }

    /// Every NOTIFY received so far, in order.
    pub(crate) fn notifies(&self) -> Vec<Notify> {
        // The file does not exist before the first message.
        let file = self.folder.join(format!("{}.messages", self.name));
        trace::notifies(&std::fs::read(file).unwrap_or_default())
    }
}

/// Phones that watch one extension.
pub(crate) struct Phones<'a> {
    pub(crate) name: &'a str,
    pub(crate) count: usize,
    pub(crate) watched: &'a str,
    pub(crate) event: &'a str,
    pub(crate) transport: Transport,
    /// Number of NOTIFYs that they answer before they unsubscribe.
    pub(crate) notifies: usize,
}

impl Phones<'_> {
    /// Subscribes the phones at `port`: the server's, or that of a proxy in front of it.
    pub(crate) fn watch(&self, port: u16, folder: &Path) -> Sipp {
        self.play("watch.xml", "600", port, folder)
    }

    /// Subscribes the phones for `seconds`, without refreshes.
    pub(crate) fn watch_until_expiry(&self, seconds: u32, port: u16, folder: &Path) -> Sipp {
        self.play("watch-until-expiry.xml", &seconds.to_string(), port, folder)
    }

    fn play(&self, scenario: &str, lifetime: &str, port: u16, folder: &Path) -> Sipp {
        let (count, notifies) = (self.count.to_string(), self.notifies.to_string());
        let accept = match self.event {
            "presence" => "application/pidf+xml",
            "message-summary" => "application/simple-message-summary",
            _ => "application/dialog-info+xml",
        };
        let mut options = vec!["-t", self.transport.option(), "-m", &count, "-l", &count, "-r", "200"];
        options.extend(["-key", "watched", self.watched, "-key", "event", self.event, "-key", "accept", accept]);
        options.extend(["-key", "lifetime", lifetime]);
        if scenario == "watch.xml" {
            options.extend(["-set", "notifies", &notifies]);
        }
        Sipp::start(self.name, scenario, Some(port), &options, folder)
    }
}

/// A PBX that publishes the state of 1001.
pub(crate) struct Publisher;

impl Publisher {
    /// Sends one PUBLISH, which is answered 200.
    pub(crate) fn publish(state: &str, port: u16, folder: &Path) {
        let options = ["-m", "1", "-key", "state", state];
        Sipp::start(&format!("publish-{state}"), "publish.xml", Some(port), &options, folder).succeed();
    }
}

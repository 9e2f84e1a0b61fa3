//! The server under test, as a separate process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "../peers/harness/ports.rs"]
mod ports;

pub(crate) struct Server {
    folder: PathBuf,
    sip: SocketAddr,
    http: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_by(|program| program)
    }

    /// Starts a server with the command that `change` makes of the plain one.
    pub(crate) fn start_by(change: impl FnOnce(Command) -> Command) -> Server {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lamplighter-faults-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // No other test gets one of these ports while a server is down.
        let free = || SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let (sip, http) = (free(), free());
        let config = format!(
            "[sip]\nlisten = [\"udp://{sip}\"]\n[http]\nlisten = \"{http}\"\n[data]\ndir = \"data\"\n\
             durability = \"strict\"\n[[token]]\nvalue = \"t\"\nsuperuser = true\n[[account]]\nid = \"a\"\nname = \"Acme\"\nrealm = \"acme.test\"\n"
        );
        std::fs::write(folder.join("lamplighter.toml"), config).unwrap();
        let child = change(program(&folder)).spawn().unwrap();
        let server = Server { folder, sip, http, child };
        server.wait_until_ready();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.sip
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end; returns its exit status and the time that took.
    pub(crate) fn ended(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        (self.child.wait().unwrap(), began.elapsed())
    }

    /// Kills the process, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = program(&self.folder).spawn().unwrap();
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(self.http).is_err() {
            assert!(Instant::now() < deadline, "the server does not start: {}", self.log().trim_start_matches('.'));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// Command that serves the configuration in this folder.
pub(crate) fn program(folder: &Path) -> Command {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.args(["serve", "--config", "lamplighter.toml"]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself, so the error is ignored.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's folder is left for inspection: {}", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

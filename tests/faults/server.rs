//! The server under test, as a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Server {
    folder: PathBuf,
    sip: SocketAddr,
    http: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn start() -> Server {
        let folder = std::env::temp_dir().join(format!("lamplighter-faults-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (sip, http) = (free(), free());
        let config = format!(
            "[sip]\nlisten = [\"udp://{sip}\"]\n[http]\nlisten = \"{http}\"\n[data]\ndir = \"data\"\n\
             durability = \"strict\"\n[[account]]\nid = \"a\"\nname = \"Acme\"\nrealm = \"acme.test\"\n"
        );
        std::fs::write(folder.join("lamplighter.toml"), config).unwrap();
        let child = run(&folder);
        let server = Server { folder, sip, http, child };
        server.wait_until_ready();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.sip
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = run(&self.folder);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(self.http).is_err() {
            assert!(Instant::now() < deadline, "the server does not start: {:?}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

fn run(folder: &PathBuf) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_lamplighter"))
        .args(["serve", "--config", "lamplighter.toml"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's folder is left for inspection: {}", self.folder.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

//! Kamailio in two roles: the edge proxy in front of the server, and the call proxy that publishes.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::{ports, wait_for};

/// Transport from the edge to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    Udp,
    Tcp,
}

pub(crate) struct Kamailio {
    _process: Process,
    port: u16,
}

impl Kamailio {
    /// `kamailio-edge.cfg` in front of the server at `server`; phones reach it over UDP and TCP.
    pub(crate) fn edge(leg: Leg, server: u16, folder: &Path) -> Self {
        let transport = if leg == Leg::Tcp { ";transport=tcp" } else { "" };
        let port = ports::free();
        let listen = [format!("udp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{port}")];
        let defines = [format!("LAMPLIGHTER=\"sip:127.0.0.1:{server}{transport}\"")];
        Self::start("kamailio-edge", port, &listen, &defines, folder)
    }

    /// `kamailio-pua.cfg`: calls go to the phone at `phone`, and their PUBLISHes to the server at `server`.
    pub(crate) fn publisher(server: u16, phone: u16, folder: &Path) -> Self {
        let port = ports::free();
        let tables = empty_tables(folder);
        let defines = [
            format!("PRESENCE_SERVER=\"sip:127.0.0.1:{server}\""),
            format!("PHONE=\"sip:127.0.0.1:{phone}\""),
            format!("DATABASE=\"text://{}\"", tables.display()),
        ];
        Self::start("kamailio-pua", port, &[format!("udp:127.0.0.1:{port}")], &defines, folder)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn start(name: &str, port: u16, listen: &[String], defines: &[String], folder: &Path) -> Self {
        let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/peers/{name}.cfg"));
        // -DD: the main process remains our child, and takes its workers along when it ends. One worker for each
        // transport: two could swap a 200 and the NOTIFY after it, which is not tested here.
        let mut command =
            Command::new(if Path::new("/usr/sbin/kamailio").exists() { "/usr/sbin/kamailio" } else { "kamailio" });
        command.args(["-DD", "-E", "-n", "1", "-m", "64", "-M", "8"]).arg("-f").arg(configuration);
        if listen.len() > 1 {
            command.args(["-N", "1"]);
        }
        command.arg("-w").arg(folder).arg("-P").arg(folder.join(format!("{name}.pid")));
        for address in listen {
            command.args(["-l", address]);
        }
        for define in defines {
            command.args(["-A", define]);
        }
        let mut process = Process::start(name, &mut command, folder);
        wait_for(&format!("answer of {name} to OPTIONS"), || {
            assert!(process.has_ended().is_none(), "{name} ended at once; see {name}.out in {}", folder.display());
            answers_options(port)
        });
        Self { _process: process, port }
    }
}

/// pua needs a database that it can open, and writes to it when it stops: a copy of Debian's text tables.
fn empty_tables(folder: &Path) -> PathBuf {
    let tables = folder.join("tables");
    std::fs::create_dir_all(&tables).expect("a folder for the tables");
    for table in ["version", "pua"] {
        let shipped = Path::new("/usr/share/kamailio/dbtext/kamailio").join(table);
        std::fs::copy(shipped, tables.join(table)).expect("the text tables that Debian's kamailio brings");
    }
    tables
}

/// Sends one OPTIONS to a proxy on loopback; Some if it answered 200.
fn answers_options(port: u16) -> Option<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    let own = socket.local_addr().expect("it has an address");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out can be set");
    let ping = format!(
        "OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{0};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:ping@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\nCall-ID: ping-{0}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n",
        own.port()
    );
    socket.send_to(ping.as_bytes(), ("127.0.0.1", port)).ok()?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer).ok()?;
    answer[..length].starts_with(b"SIP/2.0 200").then_some(())
}

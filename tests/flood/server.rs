//! The server under attack, as a separate process, so that its cost can be measured.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::secure::{Authority, NAME};

/// Stream transports.
pub(crate) const STREAMS: [&str; 4] = ["tcp", "tls", "ws", "wss"];

/// A server of the test.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    udp: SocketAddr,
    http: SocketAddr,
    streams: [SocketAddr; 4],
    client: Arc<ClientConfig>,
}

/// Memory and CPU time of the server at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Resident memory (KiB).
    pub(crate) rss: u64,
    /// CPU time so far.
    #[allow(dead_code)] // the benchmark prints it
    pub(crate) cpu: Duration,
}

impl Server {
    /// Starts a server that listens on all transports at `ip`. `more` configures authentication and the journal.
    pub(crate) fn start(ip: IpAddr, more: &str) -> Server {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("lamplighter-flood-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new();
        let identity = authority.issue(NAME);
        std::fs::write(folder.join("certificate.pem"), &identity.certificate).unwrap();
        std::fs::write(folder.join("key.pem"), &identity.key).unwrap();
        // Another process may take a port between here and the server's bind; then other ports are tried.
        for _ in 0..10 {
            // The ports are held until all are known, so that they differ.
            let held: Vec<_> = (0..6).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
            let free: Vec<_> = held.iter().map(|socket| socket.local_addr().unwrap()).collect();
            drop(held);
            let (udp, http, streams) = (free[0], free[1], [free[2], free[3], free[4], free[5]]);
            let listen: Vec<_> = STREAMS.iter().zip(streams).map(|(name, at)| format!("\"{name}://{at}\"")).collect();
            let config = format!(
                "sip.listen = [\"udp://{udp}\", {}]\nhttp.listen = \"{http}\"\ndata.dir = \"data\"\n\
                 tls.certificate = \"certificate.pem\"\ntls.key = \"key.pem\"\n{more}\n\
                 [[token]]\nvalue = \"a-token-for-tests-only\"\nsuperuser = true\n\
                 [[account]]\nid = \"a\"\nname = \"Acme\"\nrealm = \"acme.test\"\n\
                 [[account.device]]\nid = \"d\"\nsip = {{ username = \"1001\", password = \"p\" }}\n",
                listen.join(", ")
            );
            std::fs::write(folder.join("lamplighter.toml"), config).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
            command.args(["serve", "--config", "lamplighter.toml"]).current_dir(&folder);
            let log = std::fs::File::create(folder.join("log")).unwrap();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let mut child = command.spawn().unwrap();
            if is_up(&mut child, http) {
                let client = authority.client(None, &[&rustls::version::TLS13]);
                return Server { child, folder, udp, http, streams, client };
            }
        }
        panic!("the server does not start: {}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    }

    pub(crate) fn udp(&self) -> SocketAddr {
        self.udp
    }

    #[allow(dead_code)] // tests/order.rs uses it
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn stream(&self, transport: &str) -> SocketAddr {
        self.streams[STREAMS.iter().position(|known| *known == transport).unwrap()]
    }

    /// TLS settings of a client that trusts this server.
    pub(crate) fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn cost(&self) -> Cost {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).unwrap();
        let status = read("status");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let stat = read("stat");
        let ticks = stat.rsplit(')').next().unwrap().split(' ').skip(12).take(2);
        let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Cost {
            rss: rss.split_whitespace().next().unwrap().parse().unwrap(),
            // The kernel counts in hundredths of a second (proc(5)).
            cpu: Duration::from_millis(10 * ticks),
        }
    }
}

fn is_up(child: &mut Child, http: SocketAddr) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        if TcpStream::connect(http).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
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

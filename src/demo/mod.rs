//! A small office to look at: a server, phones that really subscribe, and calls that really are published, over loopback.
//!
//! Nothing here is known to the server: the phones speak SIP to it as any others would, and the calls come as PUBLISH from
//! the phones that are in them. It exists so that a newcomer sees lamps blink within a minute.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use tokio::runtime::Runtime;

use crate::cli::DemoArgs;
use crate::config::{Config, ConfigError};
use crate::notifier::new_secret;
use crate::server::{Server, StartError};

mod bodies;
mod calls;
mod people;
mod phone;

pub use people::ACCOUNT;

/// Where it is looked for free ports first, so that the addresses are mostly the same.
const HTTP: u16 = 8_000;
const SIP: u16 = 5_060;

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The built-in configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nobody can be sent back to this address.
    #[error("--sip {0}: name an address of this machine that phones can reach, such as 192.0.2.10:5060")]
    Unspecified(SocketAddr),
    /// A socket cannot be had.
    #[error("no socket on this machine can be had: {0}")]
    Socket(#[from] io::Error),
}

/// An office that is open.
pub struct Demo {
    server: Server,
    /// Where its people live.
    people: Runtime,
    url: String,
    /// Where phones find it.
    sip: SocketAddr,
}

impl Demo {
    /// Opens it.
    pub fn open(args: &DemoArgs) -> Result<Demo, DemoError> {
        let token = format!("{:032x}", u128::from_ne_bytes(new_secret()));
        let http = args.http.map_or_else(free_for_http, Ok)?;
        if let Some(open) = args.sip.filter(|open| open.ip().is_unspecified()) {
            return Err(DemoError::Unspecified(open));
        }
        let sip = free_for_sip()?;
        let config = Config::parse(&people::configuration(sip, args.sip, http, &token), "the demo's configuration")?;
        let server = Server::start(&config)?;
        // Of their own, so that they still answer while the server stops.
        let people = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut phones = Vec::new();
        for (n, person) in people::PEOPLE.iter().enumerate() {
            let (phone, line) = people.block_on(phone::Phone::connect(sip, n, person))?;
            people.spawn(phone.run());
            phones.push(line);
        }
        people.spawn(calls::direct(phones));
        let url = format!("http://{http}/#token={token}&account={ACCOUNT}");
        Ok(Demo { server, people, url, sip: args.sip.unwrap_or(sip) })
    }

    /// The page that shows it; whoever has this address is signed in.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Says what there is to see.
    pub fn greet(&self) {
        let mut out = io::stdout().lock();
        // A closed standard output is no reason not to go on.
        let _ = writeln!(
            out,
            "Lamplighter {} demo: an office of {} phones on this machine, forgotten when it ends.\n\n\
             Open this page and watch the lamps:\n\n  {}\n\n\
             A phone of yours may watch them too: SIP server {} (UDP or TCP), domain {},\n\
             any user name, no password, no registration; a BLF key for 101. Or, in another terminal:\n\n  \
             {} watch 101@{} --server udp:{}\n\nCtrl-C ends it.",
            env!("CARGO_PKG_VERSION"),
            people::PEOPLE.len(),
            self.url,
            self.sip,
            people::REALM,
            std::env::args().next().unwrap_or_else(|| "lamplighter".into()),
            people::REALM,
            self.sip,
        )
        .and_then(|()| out.flush());
    }

    /// Closes it.
    pub fn close(self) {
        self.server.stop();
        self.people.shutdown_background();
    }
}

/// The usual port, else any; free for datagrams and for connections.
fn free_for_sip() -> io::Result<SocketAddr> {
    let here = |port| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = socket.local_addr()?;
        TcpListener::bind(address).map(|_| address)
    };
    here(SIP).or_else(|_| here(0))
}

/// The usual port, else any.
fn free_for_http() -> io::Result<SocketAddr> {
    let here = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    here(HTTP).or_else(|_| here(0))
}

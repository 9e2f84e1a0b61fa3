//! Demo office: a server with phones that really subscribe and publish their calls, over loopback.
//!
//! The server does not treat them specially: the phones send SIP like any others, and the call states arrive as
//! PUBLISH. The demo lets a newcomer see blinking lamps within a minute.

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

/// Ports that are tried first, so that the addresses are usually the same.
const HTTP: u16 = 8_000;
const SIP: u16 = 5_060;

/// Reason why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The built-in configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address is a wildcard, so it cannot be put into a Contact.
    #[error("--sip {0}: name an address of this machine that phones can reach, such as 192.0.2.10:5060")]
    Unspecified(SocketAddr),
    /// A socket cannot be opened.
    #[error("no socket on this machine can be had: {0}")]
    Socket(#[from] io::Error),
}

/// A running demo.
pub struct Demo {
    server: Server,
    /// Runtime of the phones.
    people: Runtime,
    url: String,
    /// SIP address for phones.
    sip: SocketAddr,
}

impl Demo {
    /// Starts the demo.
    pub fn open(args: &DemoArgs) -> Result<Demo, DemoError> {
        let token = format!("{:032x}", u128::from_ne_bytes(new_secret()));
        let http = args.http.map_or_else(free_for_http, Ok)?;
        if let Some(open) = args.sip.filter(|open| open.ip().is_unspecified()) {
            return Err(DemoError::Unspecified(open));
        }
        let sip = free_for_sip()?;
        let config = Config::parse(&people::configuration(sip, args.sip, http, &token), "the demo's configuration")?;
        let server = Server::start(&config)?;
        // A separate runtime, so that the phones still respond while the server stops.
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

    /// URL of the dashboard; it contains the token, so a browser that opens it is signed in.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Prints the addresses and a short introduction.
    pub fn greet(&self) {
        let mut out = io::stdout().lock();
        // If standard output is closed, the demo goes on.
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

    /// Stops the demo.
    pub fn close(self) {
        self.server.stop();
        self.people.shutdown_background();
    }
}

/// Address with the usual port, or any other that is free for both UDP and TCP.
fn free_for_sip() -> io::Result<SocketAddr> {
    let here = |port| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = socket.local_addr()?;
        TcpListener::bind(address).map(|_| address)
    };
    here(SIP).or_else(|_| here(0))
}

/// Address with the usual port, or any other free one.
fn free_for_http() -> io::Result<SocketAddr> {
    let here = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    here(HTTP).or_else(|_| here(0))
}

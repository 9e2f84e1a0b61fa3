//! `[sip]`: where SIP is spoken.

use std::fmt;
use std::net::SocketAddr;

/// Where SIP is spoken.
#[derive(Clone, Debug)]
pub struct Sip {
    /// At least one.
    pub listen: Vec<Listen>,
    /// Host for Via and Contact, ready to be written (an IPv6 address is in brackets); set if any of `listen` is a
    /// wildcard.
    pub advertise: Option<String>,
    /// Web pages that WebSockets are accepted from, as `scheme://host[:port]`; empty for all.
    pub ws_origins: Vec<String>,
}

/// One address that SIP listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The transport.
    pub transport: ListenTransport,
    /// Address and port; port 0 lets the system choose.
    pub address: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport.scheme(), self.address)
    }
}

/// The transports that can be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenTransport {
    /// `udp://`
    Udp,
    /// `tcp://`
    Tcp,
    /// `tls://`
    Tls,
    /// `ws://`
    Ws,
    /// `wss://`
    Wss,
}

impl ListenTransport {
    /// How it is written before `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether a certificate is shown there.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

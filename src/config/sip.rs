//! `[sip]`: addresses that SIP listens on.

use std::fmt;
use std::net::SocketAddr;

/// SIP listeners and advertised host.
#[derive(Clone, Debug)]
pub struct Sip {
    /// Listeners; at least one.
    pub listen: Vec<Listen>,
    /// Host for Via and Contact, in its final form (an IPv6 address is in brackets). Set if any of `listen` is a
    /// wildcard address.
    pub advertise: Option<String>,
    /// Origins from which WebSockets are accepted, as `scheme://host[:port]`; empty for all.
    pub ws_origins: Vec<String>,
}

/// One SIP listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The transport.
    pub transport: ListenTransport,
    /// Address and port; with port 0 the system chooses one.
    pub address: SocketAddr,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport.scheme(), self.address)
    }
}

/// Transports for listeners.
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
    /// URI scheme, the part before `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Returns true if the transport uses TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

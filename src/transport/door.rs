//! What a connection goes through before its first SIP message: nothing over TCP, a handshake over TLS, an HTTP upgrade
//! for a WebSocket, both for a secure one. All of it within one time limit, and only so many at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::frames::Frames;
use super::room::Permit;
use super::tls::Tls;
use super::upgrade;
use crate::sip::Transport;

/// How long handshake and upgrade may take together.
const PASS_WITHIN: Duration = Duration::from_secs(10);

/// The door of one listener.
#[derive(Clone, Debug)]
pub struct Door {
    transport: Transport,
    tls: Option<Arc<Tls>>,
    origins: Arc<[String]>,
}

/// Both directions of a connection, whatever is below.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The writing side of a connection.
pub(super) type Writing = Box<dyn AsyncWrite + Send + Unpin>;

/// The reading side of a connection that is through, and what was found out on the way.
pub(super) struct Passage {
    pub(super) reading: Box<dyn AsyncRead + Send + Unpin>,
    /// For a WebSocket, with what its peer has sent already.
    pub(super) frames: Option<Box<Frames>>,
    /// The peer holds a certificate of `tls.client_ca`.
    pub(super) certified: bool,
}

impl Door {
    /// The door of a listener of this transport. `tls` is needed for the secure ones; without it they let nobody in.
    pub fn new(transport: Transport, tls: Option<Arc<Tls>>, origins: Arc<[String]>) -> Door {
        Door { transport, tls, origins }
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Sees a connection through.
    pub(super) async fn pass(&self, stream: TcpStream, permit: &Permit) -> io::Result<(Passage, Writing)> {
        if self.transport == Transport::Tcp {
            return Ok(plain(stream));
        }
        let _passing = permit.handshake().map_err(|limit| io::Error::other(format!("a limit is reached: {limit}")))?;
        tokio::time::timeout(PASS_WITHIN, self.negotiate(stream)).await?
    }

    async fn negotiate(&self, stream: TcpStream) -> io::Result<(Passage, Writing)> {
        let mut certified = false;
        let duplex: Box<dyn Duplex> = match self.transport {
            Transport::Tls | Transport::Wss => {
                let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("no certificate"))?;
                let stream = tls.accept(stream).await?;
                certified = stream.get_ref().1.peer_certificates().is_some();
                Box::new(stream)
            }
            _ => Box::new(stream),
        };
        match self.transport {
            Transport::Ws | Transport::Wss => {
                let (duplex, early) = upgrade::accept(duplex, Arc::clone(&self.origins)).await?;
                let (reading, writing) = tokio::io::split(duplex);
                let frames = Some(Box::new(Frames::after(&early)));
                Ok((Passage { reading: Box::new(reading), frames, certified }, Box::new(writing)))
            }
            _ => {
                let (reading, writing) = tokio::io::split(duplex);
                Ok((Passage { reading: Box::new(reading), frames: None, certified }, Box::new(writing)))
            }
        }
    }
}

/// Both sides of a connection that carries SIP as it is.
pub(super) fn plain(stream: TcpStream) -> (Passage, Writing) {
    let (reading, writing) = stream.into_split();
    (Passage { reading: Box::new(reading), frames: None, certified: false }, Box::new(writing))
}

/// Both sides of a connection over TLS that we opened.
pub(super) fn sealed(stream: impl Duplex + 'static) -> (Passage, Writing) {
    let (reading, writing) = tokio::io::split(stream);
    (Passage { reading: Box::new(reading), frames: None, certified: false }, Box::new(writing))
}

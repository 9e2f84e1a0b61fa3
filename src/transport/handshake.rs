//! Handshake of a connection before its first SIP message: nothing for TCP, a TLS handshake for TLS, an HTTP upgrade
//! for WS, both for WSS. The time of all of it and the number of handshakes under way are limited.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::limits::Permit;
use super::tls::Tls;
use super::websocket_codec::WebSocketCodec;
use super::websocket_handshake;
use crate::sip::Transport;

/// Timeout of TLS handshake and HTTP upgrade together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshake settings of one listener.
#[derive(Clone, Debug)]
pub struct Handshaker {
    transport: Transport,
    tls: Option<Arc<Tls>>,
    origins: Arc<[String]>,
}

/// Stream with both directions, of any transport.
pub(super) trait BoxStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> BoxStream for T {}

/// Writing half of a connection.
pub(super) type BoxWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Reading half of a connection after the handshake, and what the handshake found out.
pub(super) struct ReadHalf {
    pub(super) reading: Box<dyn AsyncRead + Send + Unpin>,
    /// For a WebSocket: its frames, with the octets that the peer has sent already.
    pub(super) frames: Option<Box<WebSocketCodec>>,
    /// True if the peer presented a certificate that `tls.client_ca` has issued.
    pub(super) certified: bool,
}

impl Handshaker {
    /// Creates the settings for a listener of this transport. TLS and WSS need `tls`: without it every handshake fails.
    /// `origins` are the web pages that a WebSocket is accepted from.
    pub fn new(transport: Transport, tls: Option<Arc<Tls>>, origins: Arc<[String]>) -> Handshaker {
        Handshaker { transport, tls, origins }
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Does the handshake of an accepted connection.
    ///
    /// # Errors
    /// If a limit of handshakes is reached, the handshake takes too long, or the peer fails it.
    pub(super) async fn pass(&self, stream: TcpStream, permit: &Permit) -> io::Result<(ReadHalf, BoxWriter)> {
        if self.transport == Transport::Tcp {
            return Ok(plain(stream));
        }
        let _passing = permit.handshake().map_err(|limit| io::Error::other(format!("a limit is reached: {limit}")))?;
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.negotiate(stream)).await?
    }

    async fn negotiate(&self, stream: TcpStream) -> io::Result<(ReadHalf, BoxWriter)> {
        let mut certified = false;
        let duplex: Box<dyn BoxStream> = match self.transport {
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
                let (duplex, early) = websocket_handshake::accept(duplex, Arc::clone(&self.origins)).await?;
                let (reading, writing) = tokio::io::split(duplex);
                let frames = Some(Box::new(WebSocketCodec::after(&early)));
                Ok((ReadHalf { reading: Box::new(reading), frames, certified }, Box::new(writing)))
            }
            _ => {
                let (reading, writing) = tokio::io::split(duplex);
                Ok((ReadHalf { reading: Box::new(reading), frames: None, certified }, Box::new(writing)))
            }
        }
    }
}

/// Both halves of a TCP connection, which needs no handshake.
pub(super) fn plain(stream: TcpStream) -> (ReadHalf, BoxWriter) {
    let (reading, writing) = stream.into_split();
    (ReadHalf { reading: Box::new(reading), frames: None, certified: false }, Box::new(writing))
}

/// Both halves of a TLS connection that the server opened.
pub(super) fn sealed(stream: impl BoxStream + 'static) -> (ReadHalf, BoxWriter) {
    let (reading, writing) = tokio::io::split(stream);
    (ReadHalf { reading: Box::new(reading), frames: None, certified: false }, Box::new(writing))
}

//! Bodies that leave while they are being written, for what may be too long to be held.
//!
//! A thread of its own writes into a channel of a few pieces, which hyper empties as fast as the client reads. Whoever does
//! not read is cut off by [`super::listen`], and then the writer ends, too.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// How much is sent at once (octets) ...
const PIECE: usize = 64 * 1024;
/// ... and how many such pieces wait for a client who is slower than we are.
const PIECES: usize = 4;

/// A body out of what `write` writes: in one piece, with its length, if it is short. Should writing fail later, the body
/// breaks off where a client notices.
pub(super) async fn body(write: impl FnOnce(&mut Pieces) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, piece: Vec::with_capacity(PIECE) };
        let written = write(&mut pieces).and_then(|()| pieces.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "an answer of the API breaks off");
            // The client is gone, and so nobody hears of it, or it is our fault, and he does.
            let _ = pieces.sender.blocking_send(Err(error));
        }
    });
    let first = receiver.recv().await;
    match (first, receiver.recv().await) {
        (Some(Ok(whole)), None) => Body::from(whole),
        (first, second) => Body::new(Flowing { begun: [second, first].into(), rest: receiver }),
    }
}

/// Takes what is written, and sends it in pieces.
pub(super) struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(octets);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Flowing {
    /// What has come already, the latest first.
    begun: Vec<Option<io::Result<Bytes>>>,
    rest: mpsc::Receiver<io::Result<Bytes>>,
}

impl HttpBody for Flowing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.begun.pop() {
            Some(piece) => Poll::Ready(piece),
            None => self.rest.poll_recv(cx),
        };
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

//! Streaming response bodies for content that may be too long to hold in memory.
//!
//! The next piece is written when the connection asks for it, which it does when the client has read the piece before.
//! It is written on the connection's own thread. So a client that reads nothing costs one piece and the connection's
//! write buffer, but no thread; a stalled connection is closed (see [`super::stall`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::envelope::Hold;
use super::share::{Limit, Limits, Share, Shares};

/// Writer of a long body.
pub(super) trait Writer: Send + Unpin + 'static {
    /// Continues writing for about a millisecond or [`PIECE`] octets.
    fn go_on(&mut self) -> Written;
}

/// Result of one call of [`Writer::go_on`].
pub(super) enum Written {
    /// A piece of about [`PIECE`] octets.
    Piece(Vec<u8>),
    /// Nothing yet; a later call may bring a piece.
    Nothing,
    /// The last piece.
    Last(Vec<u8>),
}

/// Size of a piece (octets).
pub(super) const PIECE: usize = 64 * 1024;

/// Body produced by a writer. A short one is sent as a whole with its Content-Length. `hold` keeps the resources
/// reserved until the body is dropped.
pub(super) async fn body(mut writer: impl Writer, hold: Hold) -> Body {
    loop {
        match writer.go_on() {
            Written::Last(whole) => return Body::from(whole),
            Written::Piece(first) => {
                return Body::new(Flowing { next: Some(first), writer: Some(writer), _hold: hold });
            }
            Written::Nothing => tokio::task::yield_now().await,
        }
    }
}

struct Flowing<W> {
    /// Piece that is already written.
    next: Option<Vec<u8>>,
    /// Writer of the rest; `None` after the last piece.
    writer: Option<W>,
    _hold: Hold,
}

impl<W: Writer> HttpBody for Flowing<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
        }
        let Some(writer) = &mut self.writer else { return Poll::Ready(None) };
        match writer.go_on() {
            Written::Piece(piece) => self.next = Some(piece),
            Written::Last(piece) => (self.next, self.writer) = (Some(piece), None),
            Written::Nothing => {}
        }
        // Yields before the next piece, so that a fast client does not keep this thread from the others.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Limit (octets) of all responses held as a whole while being sent; short ones are not counted.
const ANSWERS: usize = 128 * 1024 * 1024;
/// Limit (octets) of the held responses of one account.
const ANSWERS_OF_ACCOUNT: usize = 32 * 1024 * 1024;
/// Limit (octets) of the held responses to one client address.
const ANSWERS_OF_ADDRESS: usize = 64 * 1024 * 1024;

/// Memory pool for responses that are held as a whole; one may have more than a megabyte.
pub(super) fn room() -> Arc<Shares> {
    let limit = |key, most| Limit { key, most };
    Shares::new(Limits {
        all: limit("octets of unread answers", ANSWERS),
        account: limit("octets of unread answers of one account", ANSWERS_OF_ACCOUNT),
        address: limit("octets of unread answers to one address", ANSWERS_OF_ADDRESS),
    })
}

/// Body that is held as a whole and released piece by piece as it is sent. Its size is charged to `share` until it is
/// dropped.
pub(super) fn whole(octets: Vec<u8>, share: Share) -> Body {
    Body::new(Whole { rest: octets.into(), _share: share })
}

struct Whole {
    rest: Bytes,
    _share: Share,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        let piece = (length > 0).then(|| Bytes::copy_from_slice(&self.rest.split_to(length)));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

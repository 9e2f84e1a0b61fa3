//! Bodies that are written as fast as they are read, for what may be too long to be held.
//!
//! The next piece is written when the connection asks for it, on the thread that it runs on, and it asks when the client has
//! read. So a client that reads nothing costs a piece and what the connection holds, and no thread; a connection that stands
//! still ends (see [`super::stall`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

use super::envelope::Hold;
use super::share::{Limit, Limits, Share, Shares};

/// Writes a long body.
pub(super) trait Writer: Send + Unpin + 'static {
    /// Goes on writing for a moment: about a millisecond, or [`PIECE`] octets.
    fn go_on(&mut self) -> Written;
}

/// What came of it.
pub(super) enum Written {
    /// A piece of about [`PIECE`] octets.
    Piece(Vec<u8>),
    /// Nothing yet; the next moment may bring some.
    Nothing,
    /// The last piece.
    Last(Vec<u8>),
}

/// How much is sent at once (octets).
pub(super) const PIECE: usize = 64 * 1024;

/// The body that a writer writes: in one piece, with its length, if it is short. `hold` is what it takes up meanwhile.
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
    /// What is written already.
    next: Option<Vec<u8>>,
    /// Writes the rest; none when there is none.
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
        // Others get their turn on this thread before the next piece, however fast this client reads.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// All answers that are held as a whole while they are being sent (octets), but for short ones ...
const ANSWERS: usize = 128 * 1024 * 1024;
/// ... those of one account ...
const ANSWERS_OF_ACCOUNT: usize = 32 * 1024 * 1024;
/// ... and those to one address.
const ANSWERS_OF_ADDRESS: usize = 64 * 1024 * 1024;

/// The room for answers that are held as a whole, each of which may have a megabyte and more.
pub(super) fn room() -> Arc<Shares> {
    let limit = |key, most| Limit { key, most };
    Shares::new(Limits {
        all: limit("octets of unread answers", ANSWERS),
        account: limit("octets of unread answers of one account", ANSWERS_OF_ACCOUNT),
        address: limit("octets of unread answers to one address", ANSWERS_OF_ADDRESS),
    })
}

/// A body that is there as a whole, and leaves as it is read: so it is known how much of it is still held.
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

//! Receives a body: bounded in size, in time, and by the share of its sender.
//!
//! Room is for those who have shown a token before the body, in the head of the request. A token may also stand in the body
//! itself, as in Kazoo; for its sake a small body is received from anybody, and nothing else is kept of a larger one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use tokio::time::timeout;

use super::error::Fault;
use super::share::{Client, Limit, Limits, Share, Shares};

/// The largest body, as in Kazoo.
pub(super) const MAX: usize = 8_000_000;
/// The largest body of a sender that has shown no token in the head. Commands of this API have some hundred octets. There
/// is no pool for these: connections that are receiving one give way to others (see [`super::seats`]), so all of them
/// together take no more than this for each connection that there may be.
pub(super) const MAX_WITHOUT_TOKEN: usize = 16 * 1024;
/// All bodies that are being received or read at one moment (octets) ...
const MAX_TOGETHER: usize = 8 * MAX;
/// ... of one account: two of the largest, as reading such a one takes tens of milliseconds ...
const MAX_OF_ACCOUNT: usize = 2 * MAX;
/// ... and of one address.
const MAX_OF_ADDRESS: usize = 4 * MAX;
/// A client that needs longer for a body is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for one without a token, whose body is small or not kept.
const PATIENCE_WITHOUT_TOKEN: Duration = Duration::from_secs(5);
/// What is read and thrown away of a body that is refused, so that the client gets to reading our answer: who is a
/// little over the limit can send it all; who is far over it may find the connection reset.
const DISCARDED: usize = 2 * MAX;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// The room for the bodies of senders with a token.
pub(super) fn room() -> Arc<Shares> {
    let limit = |key, most| Limit { key, most };
    Shares::new(Limits {
        all: limit("HTTP body octets", MAX_TOGETHER),
        account: limit("HTTP body octets of one account", MAX_OF_ACCOUNT),
        address: limit("HTTP body octets from one address", MAX_OF_ADDRESS),
    })
}

/// A body, with the room that it takes up.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: Vec<u8>,
    /// There was more, of a sender without a token in the head; what there is means nothing.
    pub(super) unread: bool,
    _share: Option<Share>,
}

impl std::ops::Deref for Received {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whose body it is.
pub(super) enum Sender<'a> {
    /// One with a token in the head, and where it gets its room.
    Known(Client, &'a Arc<Shares>),
    /// Any other.
    Unknown,
}

/// Receives the body of a request: 413 if it is too large, by what it says or by what it is.
pub(super) async fn receive(head: &Parts, mut body: Body, sender: Sender<'_>) -> Result<Received, Fault> {
    let said = body.size_hint().lower();
    // Who waits for "100 Continue" has not sent anything yet, and need not.
    if said > MAX_WITHOUT_TOKEN as u64
        && said <= MAX as u64
        && matches!(sender, Sender::Unknown)
        && head.headers.contains_key(EXPECT)
    {
        return Ok(Received { unread: true, ..Received::default() });
    }
    let outcome = if said > MAX as u64 {
        Err(Fault::TooLarge)
    } else {
        match sender {
            Sender::Known(client, room) => timeout(PATIENCE, collect(&mut body, client, room)).await,
            Sender::Unknown => timeout(PATIENCE_WITHOUT_TOKEN, collect_little(&mut body, said)).await,
        }
        .unwrap_or(Err(Fault::TooSlow))
    };
    // The same: it will not.
    if matches!(outcome, Err(Fault::TooLarge)) && !head.headers.contains_key(EXPECT) {
        let _ = timeout(DISCARD_PATIENCE, discard(&mut body)).await;
    }
    outcome
}

async fn collect(body: &mut Body, client: Client, room: &Arc<Shares>) -> Result<Received, Fault> {
    let mut share = room.take(client, 0)?;
    let mut bytes = Vec::new();
    while let Some(data) = next(body).await? {
        if bytes.len() + data.len() > MAX {
            return Err(Fault::TooLarge);
        }
        share.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes, unread: false, _share: Some(share) })
}

/// Keeps a small body; of a larger one, only how long it is.
async fn collect_little(body: &mut Body, said: u64) -> Result<Received, Fault> {
    let mut received = Received { unread: said > MAX_WITHOUT_TOKEN as u64, ..Received::default() };
    let mut length = 0;
    while let Some(data) = next(body).await? {
        length += data.len();
        if length > MAX {
            return Err(Fault::TooLarge);
        }
        received.unread |= length > MAX_WITHOUT_TOKEN;
        if received.unread {
            received.bytes = Vec::new();
        } else {
            received.bytes.extend_from_slice(&data);
        }
    }
    Ok(received)
}

async fn discard(body: &mut Body) -> Result<(), Fault> {
    let mut discarded = 0;
    while let Some(data) = next(body).await? {
        discarded += data.len();
        if discarded > DISCARDED {
            break;
        }
    }
    Ok(())
}

/// The next piece of data; none at the end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Fault> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(Fault::malformed("body", "ended before it was complete, or is wrongly chunked"));
            }
            // Anything else is trailers, which mean nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::api::share::tests::client;

    async fn received(length: usize, sender: Sender<'_>) -> Result<Received, Fault> {
        let (head, body) = Request::new(Body::from(vec![b'x'; length])).into_parts();
        receive(&head, body, sender).await
    }

    #[tokio::test]
    async fn an_account_has_a_share_of_the_room_and_gives_it_back() {
        let room = room();
        let (a, b) = (client(1, "192.0.2.1"), client(2, "192.0.2.1"));
        let held = [received(MAX, Sender::Known(a, &room)).await, received(MAX, Sender::Known(a, &room)).await];
        assert_eq!(held.map(|one| one.map(|one| one.len())), [Ok(MAX), Ok(MAX)]);
        assert_eq!(room.held(), 0, "given back");
        let _one = received(MAX, Sender::Known(a, &room)).await.unwrap();
        let _two = received(MAX, Sender::Known(a, &room)).await.unwrap();
        assert!(matches!(received(1, Sender::Known(a, &room)).await, Err(Fault::NoRoom(_))));
        assert_eq!(received(MAX, Sender::Known(b, &room)).await.unwrap().len(), MAX);
    }

    #[tokio::test]
    async fn the_largest_body_is_the_largest() {
        let (room, a) = (room(), client(1, "192.0.2.1"));
        assert_eq!(received(MAX, Sender::Known(a, &room)).await.unwrap().len(), MAX);
        for sender in [Sender::Known(a, &room), Sender::Unknown] {
            assert!(matches!(received(MAX + 1, sender).await, Err(Fault::TooLarge)));
        }
    }

    #[tokio::test]
    async fn without_a_token_only_a_small_body_is_kept() {
        let whole = received(MAX_WITHOUT_TOKEN, Sender::Unknown).await.unwrap();
        assert_eq!((whole.len(), whole.unread), (MAX_WITHOUT_TOKEN, false));
        let large = received(MAX_WITHOUT_TOKEN + 1, Sender::Unknown).await.unwrap();
        assert_eq!((large.bytes.capacity(), large.unread), (0, true));
    }
}

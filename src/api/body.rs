//! Receives request bodies, limited in size, in time and by each client's share of memory.
//!
//! Memory is reserved only for clients that have sent a token in the head of the request. As in Kazoo, a token may also
//! stand in the body; therefore a small body is received from any client, and a larger one without a token in the head
//! is discarded.

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

/// Largest body in octets, as in Kazoo.
pub(super) const MAX: usize = 8_000_000;
/// Largest body (octets) of a client without a token in the head. Commands of this API have a few hundred octets. These
/// bodies need no pool: a connection that is receiving one can be evicted (see [`super::seats`]), so all of them
/// together take at most this size times the limit of connections.
pub(super) const MAX_WITHOUT_TOKEN: usize = 16 * 1024;
/// Limit (octets) of all bodies being received or parsed at one time.
const MAX_TOGETHER: usize = 8 * MAX;
/// Limit (octets) of one account: two of the largest bodies, as parsing one of these takes tens of milliseconds.
const MAX_OF_ACCOUNT: usize = 2 * MAX;
/// Limit (octets) of one client address.
const MAX_OF_ADDRESS: usize = 4 * MAX;
/// Timeout for receiving a body from a client with a token in the head.
const PATIENCE: Duration = Duration::from_secs(30);
/// Timeout for a client without a token in the head, whose body is small or discarded.
const PATIENCE_WITHOUT_TOKEN: Duration = Duration::from_secs(5);
/// Limit (octets) up to which a refused body is read and discarded, so that the client gets to reading our response. A
/// body a little over the limit is read to its end; a client that sends far more may see its connection reset.
const DISCARDED: usize = 2 * MAX;
/// Timeout for discarding a refused body.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// Memory pool for the bodies of clients with a token in the head.
pub(super) fn room() -> Arc<Shares> {
    let limit = |key, most| Limit { key, most };
    Shares::new(Limits {
        all: limit("HTTP body octets", MAX_TOGETHER),
        account: limit("HTTP body octets of one account", MAX_OF_ACCOUNT),
        address: limit("HTTP body octets from one address", MAX_OF_ADDRESS),
    })
}

/// A received body and its share of the memory pool.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: Vec<u8>,
    /// True if the body was too large for a client without a token in the head. The octets that are kept are then not
    /// used.
    pub(super) unread: bool,
    _share: Option<Share>,
}

impl std::ops::Deref for Received {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sender of a body.
pub(super) enum Sender<'a> {
    /// A client with a valid token in the head, and the pool that its memory is taken from.
    Known(Client, &'a Arc<Shares>),
    /// Any other client.
    Unknown,
}

/// Receives the body of a request. Returns 413 if it is too large, by its Content-Length or by what really arrives.
pub(super) async fn receive(head: &Parts, mut body: Body, sender: Sender<'_>) -> Result<Received, Fault> {
    let said = body.size_hint().lower();
    // A client that waits for "100 Continue" has not sent the body yet, so it need not send it at all.
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
    // With "Expect: 100-continue" there is nothing to discard: the client will not send the body.
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

/// Keeps a small body; of a larger one only the length is counted.
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

/// Next piece of data; `None` at the end of the body.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Fault> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => {
                return Err(Fault::malformed("body", "ended before it was complete, or is wrongly chunked"));
            }
            // The other frames are trailers, which this API does not use.
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

//! Receives a body: bounded in size, in time, and together with all the others.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::error::Fault;

/// The largest body, as in Kazoo.
pub(super) const MAX: usize = 8_000_000;
/// All bodies that are being received at one moment.
pub(super) const MAX_TOGETHER: usize = 8 * MAX;
/// A client that needs longer for a body is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read and thrown away of a body that is refused, so that the client gets to reading our answer: who is a
/// little over the limit can send it all; who is far over it may find the connection reset.
const DISCARDED: usize = 2 * MAX;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// A body, with the room that it takes up.
pub(super) struct Received<'a> {
    bytes: Vec<u8>,
    _room: Option<SemaphorePermit<'a>>,
}

impl std::ops::Deref for Received<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Receives the body of a request: 413 if it is too large, by what it says or by what it is.
pub(super) async fn receive<'a>(head: &Parts, mut body: Body, together: &'a Semaphore) -> Result<Received<'a>, Fault> {
    let outcome = if body.size_hint().lower() > MAX as u64 {
        Err(Fault::TooLarge)
    } else {
        timeout(PATIENCE, collect(&mut body, together)).await.unwrap_or(Err(Fault::TooSlow))
    };
    // Who waits for "100 Continue" has not sent anything yet and will not.
    if matches!(outcome, Err(Fault::TooLarge)) && !head.headers.contains_key(EXPECT) {
        let _ = timeout(DISCARD_PATIENCE, discard(&mut body)).await;
    }
    outcome
}

async fn collect<'a>(body: &mut Body, together: &'a Semaphore) -> Result<Received<'a>, Fault> {
    let mut received = Received { bytes: Vec::new(), _room: None };
    while let Some(data) = next(body).await? {
        if received.bytes.len() + data.len() > MAX {
            return Err(Fault::TooLarge);
        }
        let length = u32::try_from(data.len()).map_err(|_| Fault::TooLarge)?;
        let room = together.try_acquire_many(length).map_err(|_| Fault::Busy)?;
        match &mut received._room {
            Some(had) => had.merge(room),
            none => *none = Some(room),
        }
        received.bytes.extend_from_slice(&data);
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

    async fn received(length: usize, together: &Semaphore) -> Result<Received<'_>, Fault> {
        let (head, body) = Request::new(Body::from(vec![b'x'; length])).into_parts();
        receive(&head, body, together).await
    }

    #[tokio::test]
    async fn bodies_share_the_room_there_is() {
        let together = Semaphore::new(100);
        let first = received(70, &together).await.unwrap();
        assert_eq!(first.len(), 70);
        assert!(matches!(received(70, &together).await, Err(Fault::Busy)));
        let second = received(30, &together).await.unwrap();
        drop((first, second));
        assert!(received(70, &together).await.is_ok(), "given back");
        assert_eq!(together.available_permits(), 100);
    }

    #[tokio::test]
    async fn the_largest_body_is_the_largest() {
        let together = Semaphore::new(MAX_TOGETHER);
        assert_eq!(received(MAX, &together).await.unwrap().len(), MAX);
        assert!(matches!(received(MAX + 1, &together).await, Err(Fault::TooLarge)));
    }
}

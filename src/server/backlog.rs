//! Limit of what waits for the journal. A message that waits takes memory, whether it has a record of its own or waits
//! behind those of others.
//!
//! Each I/O thread has an equal share of [`MOST`], and each connection may use a part of its thread's share. If a share
//! is used up, streams are not read, fan-outs and timers pause, and requests in datagrams are dropped. Responses to our
//! NOTIFYs are always accepted, because they reduce the work that is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::notifier::Outbox;
use crate::transport::OutboundMessage;

/// Most octets that wait for the journal in total. That is twice the journal's own queue: some 30,000 changes with
/// their responses and NOTIFYs, more than a disk commits before the senders retransmit.
const MOST: usize = 32 * 1024 * 1024;
/// Most octets of them that one connection may have caused: a few hundred requests. A commit takes some milliseconds.
const MOST_OF_CONNECTION: usize = 256 * 1024;
/// Size of an outbox without its messages and records (octets), its place in the journal's queue included.
const OUTBOX: usize = 512;

/// Backlog of a thread, or of one of its connections.
#[derive(Clone, Debug)]
pub(super) struct Backlog {
    thread: Arc<Share>,
    connection: Option<Arc<Share>>,
}

#[derive(Debug)]
struct Share {
    octets: AtomicUsize,
    most: usize,
    /// Signals that there is room again.
    room: Notify,
}

/// Size of one waiting outbox; it is counted until this is dropped.
#[derive(Debug)]
pub(super) struct BacklogGuard {
    backlog: Backlog,
    octets: usize,
}

impl Share {
    fn of(most: usize) -> Arc<Share> {
        Arc::new(Share { octets: AtomicUsize::new(0), most, room: Notify::new() })
    }

    fn is_full(&self) -> bool {
        self.octets.load(Relaxed) >= self.most
    }

    async fn room(&self) {
        while self.is_full() {
            let room = self.room.notified();
            tokio::pin!(room);
            // Checked again after the waiter is registered, so that no signal is missed.
            room.as_mut().enable();
            if self.is_full() {
                room.await;
            }
        }
    }

    fn release(&self, octets: usize) {
        let before = self.octets.fetch_sub(octets, Relaxed);
        if before >= self.most && before - octets < self.most {
            self.room.notify_waiters();
        }
    }
}

impl Backlog {
    /// Backlog of one I/O thread out of `threads`.
    pub(super) fn of_thread(threads: usize) -> Backlog {
        Backlog { thread: Share::of(MOST / threads.max(1)), connection: None }
    }

    /// Backlog of a new connection of the same thread.
    pub(super) fn of_connection(&self) -> Backlog {
        Backlog { thread: Arc::clone(&self.thread), connection: Some(Share::of(MOST_OF_CONNECTION)) }
    }

    /// Counts an outbox until the returned value is dropped.
    pub(super) fn hold(&self, out: &Outbox) -> BacklogGuard {
        let octets = size(out);
        self.shares().for_each(|share| _ = share.octets.fetch_add(octets, Relaxed));
        BacklogGuard { backlog: self.clone(), octets }
    }

    /// Returns true while only responses to our NOTIFYs may be added.
    pub(super) fn is_full(&self) -> bool {
        self.shares().any(Share::is_full)
    }

    /// Returns true while new subscriptions may not be added, but refreshes may (rule 7: refreshes go first).
    pub(super) fn is_strained(&self) -> bool {
        self.thread.octets.load(Relaxed) >= self.thread.most / 4 * 3
    }

    /// Waits until more may be added.
    pub(super) async fn room(&self) {
        for share in self.shares() {
            share.room().await;
        }
    }

    fn shares(&self) -> impl Iterator<Item = &Share> {
        [Some(&self.thread), self.connection.as_ref()].into_iter().flatten().map(Arc::as_ref)
    }
}

impl Drop for BacklogGuard {
    fn drop(&mut self) {
        self.backlog.shares().for_each(|share| share.release(self.octets));
    }
}

/// Memory that an outbox takes (octets).
fn size(out: &Outbox) -> usize {
    let messages: usize = out.messages.iter().map(|message| size_of::<OutboundMessage>() + message.bytes.len()).sum();
    let records: usize =
        out.records.iter().map(|record| 64 + record.value.as_ref().map_or(0, |value| value.len())).sum();
    OUTBOX + messages + records + 256 * out.pending_responses.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::transport::{Destination, FlowId};

    fn outbox(octets: usize) -> Outbox {
        let to = Destination::Flow { flow: FlowId(1), otherwise: None };
        let messages = vec![OutboundMessage { to, bytes: Bytes::from(vec![0; octets]), ticket: None }];
        Outbox { messages, ..Outbox::default() }
    }

    #[test]
    fn what_waits_is_counted_until_it_has_left() {
        let thread = Backlog::of_thread(2);
        let held: Vec<_> =
            std::iter::repeat_with(|| thread.hold(&outbox(1_000_000))).take_while(|_| !thread.is_full()).collect();
        assert_eq!(held.len(), 16, "half of 32 MiB");
        assert!(thread.is_strained());
        drop(held);
        assert!(!thread.is_full() && !thread.is_strained());
        assert_eq!(thread.thread.octets.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_connection_waits_for_its_own_and_others_do_not_wait_for_it() {
        let thread = Backlog::of_thread(1);
        let (one, other) = (thread.of_connection(), thread.of_connection());
        let held = one.hold(&outbox(MOST_OF_CONNECTION));
        assert_eq!((one.is_full(), other.is_full(), thread.is_full()), (true, false, false));
        other.room().await;
        let waiting = one.room();
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut waiting).await.is_err());
        drop(held);
        waiting.await;
    }
}

//! Write queue of one connection.
//!
//! The queue is one buffer of octets. So its size is exact, and a waiting message does not keep the larger block of
//! memory in use that it was written in. A connection whose peer does not read is closed when its queue exceeds a
//! limit: its own, that of all connections of its address, or that of all connections. The last two count only the
//! octets of a queue beyond [`OWN_SHARE`], so that no connection is closed because of what the peers of others leave
//! unread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::DeliveryToken;
use super::handshake::BoxWriter;

/// Octets that any connection may queue, whatever others queue: a few dozen NOTIFYs.
const OWN_SHARE: usize = 64 * 1024;
/// Most octets in the queue of a connection whose address is not trusted: a fan-out to some thousand dialogs.
const MOST: usize = 8 * 1024 * 1024;
/// Most octets in the queue of a trusted connection: a proxy's connection carries tens of thousands of dialogs.
const MOST_TRUSTED: usize = 64 * 1024 * 1024;
/// Most octets beyond [`OWN_SHARE`] in the queues of all connections of one address.
pub(super) const MOST_OF_ADDRESS: usize = 16 * 1024 * 1024;
/// Most octets beyond [`OWN_SHARE`] in the queues of all connections.
pub(super) const MOST_IN_ALL: usize = 256 * 1024 * 1024;
/// Octets of responses in the queue above which the connection is not read (back-pressure).
const ANSWERS: usize = 64 * 1024;
/// Octets to write at once. The peer has [`PATIENCE`] to take them.
const PIECE: usize = 64 * 1024;
/// Timeout of one write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Limit of octets, and how many are in use.
#[derive(Debug)]
pub(super) struct Budget {
    most: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn of(most: usize) -> Budget {
        Budget { most, used: AtomicUsize::new(0) }
    }

    /// Takes octets from the budget. Returns false, and takes none, if too few are left.
    fn take(&self, octets: usize) -> bool {
        let fits = self.used.fetch_add(octets, Relaxed) + octets <= self.most;
        if !fits {
            self.give_back(octets);
        }
        fits
    }

    fn give_back(&self, octets: usize) {
        self.used.fetch_sub(octets, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

/// Shared budgets that the queue of a connection counts against.
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    /// Budget of its address; none if the address is trusted.
    pub(super) address: Option<Arc<Budget>>,
    pub(super) all: Arc<Budget>,
}

impl Budgets {
    fn most(&self) -> usize {
        if self.address.is_some() { MOST } else { MOST_TRUSTED }
    }

    fn take(&self, octets: usize) -> bool {
        if octets == 0 {
            return true;
        }
        let of_address = self.address.as_ref().is_none_or(|address| address.take(octets));
        let of_all = of_address && self.all.take(octets);
        if of_address && !of_all {
            self.address.iter().for_each(|address| address.give_back(octets));
        }
        of_all
    }

    fn give_back(&self, octets: usize) {
        if octets > 0 {
            self.address.iter().for_each(|address| address.give_back(octets));
            self.all.give_back(octets);
        }
    }
}

/// Write queue of one connection. It is shared by the threads that queue messages, the task that writes and the task
/// that reads.
#[derive(Debug)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    budgets: Budgets,
    /// Octets in the queue, those being written included.
    waiting: AtomicUsize,
    messages: AtomicUsize,
    /// Octets of responses among them.
    answers: AtomicUsize,
    /// Signals that there is something to write, or that the queue is closed.
    to_write: Notify,
    /// Signals that something was written, or that the queue is closed.
    written: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    octets: Vec<u8>,
    tickets: Vec<DeliveryToken>,
    messages: usize,
    answers: usize,
    closed: bool,
}

/// Reasons why a message could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueError {
    /// The connection is being closed.
    Closed,
    /// The peer does not read. The value is the size of its queue (octets).
    Full(usize),
}

impl Queue {
    pub(super) fn new(budgets: Budgets) -> Queue {
        Queue {
            pending: Mutex::default(),
            budgets,
            waiting: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            to_write: Notify::new(),
            written: Notify::new(),
        }
    }

    /// Queues one message. One without a ticket is a response to a request or a keep-alive on this connection.
    pub(super) fn push(&self, octets: &[u8], ticket: Option<DeliveryToken>) -> Result<(), QueueError> {
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(QueueError::Closed);
        }
        let before = self.waiting.load(Relaxed);
        let after = before + octets.len();
        if after > self.budgets.most() || !self.budgets.take(beyond_share(after) - beyond_share(before)) {
            return Err(QueueError::Full(before));
        }
        // Stored only under the lock, but read without it.
        self.waiting.store(after, Relaxed);
        self.messages.fetch_add(1, Relaxed);
        pending.octets.extend_from_slice(octets);
        pending.tickets.extend(ticket);
        pending.messages += 1;
        if ticket.is_none() {
            pending.answers += octets.len();
            self.answers.fetch_add(octets.len(), Relaxed);
        }
        drop(pending);
        self.to_write.notify_one();
        Ok(())
    }

    /// Closes the queue for new messages. Messages in it are still written.
    pub(super) fn close(&self) {
        self.pending.lock().closed = true;
        self.to_write.notify_one();
        self.written.notify_one();
    }

    /// Returns true if the queue takes no new messages.
    pub(super) fn is_closed(&self) -> bool {
        self.pending.lock().closed
    }

    /// Octets in the queue, those being written included.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Messages in the queue.
    pub(super) fn messages(&self) -> usize {
        self.messages.load(Relaxed)
    }

    /// Waits until few enough responses are queued for the next request to be read (back-pressure), or the queue is
    /// closed.
    pub(super) async fn answers_have_left(&self) {
        while self.answers.load(Relaxed) > ANSWERS && !self.is_closed() {
            self.written.notified().await;
        }
    }

    /// Waits for octets to write, and takes them all. None when the queue is closed and empty.
    async fn next(&self) -> Option<Pending> {
        loop {
            {
                let mut pending = self.pending.lock();
                if !pending.octets.is_empty() {
                    let closed = pending.closed;
                    return Some(std::mem::replace(&mut *pending, Pending { closed, ..Pending::default() }));
                }
                if pending.closed {
                    return None;
                }
            }
            self.to_write.notified().await;
        }
    }

    /// Releases the budget of octets that were written, or never will be.
    fn done(&self, taken: &Pending) {
        let pending = self.pending.lock();
        let before = self.waiting.load(Relaxed);
        let after = before - taken.octets.len();
        self.waiting.store(after, Relaxed);
        self.budgets.give_back(beyond_share(before) - beyond_share(after));
        drop(pending);
        self.messages.fetch_sub(taken.messages, Relaxed);
        self.answers.fetch_sub(taken.answers, Relaxed);
        self.written.notify_one();
    }

    /// Writes the queue until it is closed or the peer fails to read. Returns the tickets of all messages that were not
    /// written; `left` is called with the number of messages and octets of each write.
    pub(super) async fn write_to(&self, socket: &mut BoxWriter, left: impl Fn(usize, usize)) -> Vec<DeliveryToken> {
        let mut unsent = Vec::new();
        while let Some(taken) = self.next().await {
            let written = write_all(socket, &taken.octets).await;
            self.done(&taken);
            if !written {
                unsent = taken.tickets;
                break;
            }
            left(taken.messages, taken.octets.len());
        }
        self.close();
        // Sends the close of TCP or TLS; an error only means that the peer has closed already.
        let _ = tokio::time::timeout(PATIENCE, socket.shutdown()).await;
        unsent.extend(self.give_up());
        unsent
    }

    /// Closes and empties the queue; returns the tickets of the messages that were in it.
    pub(super) fn give_up(&self) -> Vec<DeliveryToken> {
        self.close();
        let left = std::mem::replace(&mut *self.pending.lock(), Pending { closed: true, ..Pending::default() });
        self.done(&left);
        left.tickets
    }
}

/// Number of octets, of a queue of this size, that count against the shared budgets.
fn beyond_share(octets: usize) -> usize {
    octets.saturating_sub(OWN_SHARE)
}

async fn write_all(socket: &mut BoxWriter, octets: &[u8]) -> bool {
    for piece in octets.chunks(PIECE) {
        let write = async {
            socket.write_all(piece).await?;
            // TLS buffers octets until it is flushed.
            socket.flush().await
        };
        if !matches!(tokio::time::timeout(PATIENCE, write).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(address: Option<&Arc<Budget>>) -> Budgets {
        Budgets { address: address.cloned(), all: Arc::new(Budget::of(MOST_IN_ALL)) }
    }

    #[test]
    fn one_that_does_not_read_is_full_and_others_of_its_address_have_their_share() {
        let address = Arc::new(Budget::of(MOST_OF_ADDRESS));
        let message = [b'x'; 60_000];
        let fill = |queue: &Queue| std::iter::from_fn(|| queue.push(&message, None).ok()).count() * message.len();
        let queues: Vec<_> = (0..4).map(|_| Queue::new(budgets(Some(&address)))).collect();
        let filled: Vec<_> = queues.iter().map(fill).collect();
        assert!(filled[0] <= MOST && filled[0] > MOST - message.len(), "{filled:?}");
        assert!(filled.iter().sum::<usize>() <= MOST_OF_ADDRESS + 4 * OWN_SHARE, "{filled:?}");
        assert!(matches!(queues[0].push(&message, None), Err(QueueError::Full(octets)) if octets == filled[0]));
        assert_eq!(filled[3], message.len(), "its own share, whatever the others have");
        for queue in &queues {
            queue.give_up();
            assert_eq!((queue.waiting(), queue.messages()), (0, 0));
        }
        assert_eq!(address.used(), 0);
        assert_eq!(queues[0].push(b"x", None), Err(QueueError::Closed));
    }

    #[test]
    fn a_trusted_connection_takes_more_and_all_together_are_bounded() {
        let queue = Queue::new(Budgets { address: None, all: Arc::new(Budget::of(1_000_000)) });
        let filled = std::iter::from_fn(|| queue.push(&[b'x'; 10_000], Some(DeliveryToken(7))).ok()).count() * 10_000;
        assert!(filled > 1_000_000 && filled <= 1_000_000 + OWN_SHARE, "{filled}");
        assert_eq!(queue.give_up().len(), filled / 10_000, "all of it comes back");
    }

    #[tokio::test]
    async fn what_is_queued_is_written_in_order_and_then_the_connection_is_closed() {
        let queue = Queue::new(budgets(None));
        for n in 0..1_000u32 {
            queue.push(format!("{n},").as_bytes(), Some(DeliveryToken(n.into()))).unwrap();
        }
        queue.close();
        let (mut far, near) = tokio::io::duplex(100);
        let mut near: BoxWriter = Box::new(near);
        let mut heard = String::new();
        let read = tokio::io::AsyncReadExt::read_to_string(&mut far, &mut heard);
        let (unsent, _) = tokio::join!(queue.write_to(&mut near, |_, _| {}), read);
        assert_eq!(unsent, []);
        assert_eq!(heard, (0..1_000).map(|n| format!("{n},")).collect::<String>());
    }

    #[tokio::test]
    async fn more_is_caused_only_when_the_answers_have_left() {
        let queue = Arc::new(Queue::new(budgets(None)));
        queue.push(&vec![b'n'; 2 * ANSWERS], Some(DeliveryToken(1))).unwrap();
        // NOTIFYs in the queue do not stop reading: the responses to them have to be read.
        queue.answers_have_left().await;
        queue.push(&vec![b'a'; 2 * ANSWERS], None).unwrap();
        let (mut far, near) = tokio::io::duplex(100);
        let mut near: BoxWriter = Box::new(near);
        let writing = queue.write_to(&mut near, |_, _| {});
        let mut heard = vec![0; 4 * ANSWERS];
        let read = async {
            let waits = queue.answers_have_left();
            tokio::pin!(waits);
            assert!(tokio::time::timeout(Duration::ZERO, &mut waits).await.is_err(), "it waits");
            tokio::io::AsyncReadExt::read_exact(&mut far, &mut heard).await.unwrap();
            waits.await;
            queue.close();
        };
        tokio::join!(writing, read);
    }
}

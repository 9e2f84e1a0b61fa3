//! Fairness at an overloaded UDP socket.
//!
//! Trusted sources have no rate limit, and datagrams that overflow in the kernel are dropped regardless of their
//! source. So a phone would lose as large a share of its datagrams as the one source that floods. While a socket is
//! overloaded, most requests of the source of nearly all datagrams are therefore dropped without parsing. That costs a
//! tenth of serving them, so the kernel's queue empties, and the flooding source loses little that the kernel would not
//! have dropped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::transport::BATCH;

/// A socket is overloaded when every batch has been full for so long: a longer queue is more than a burst.
const OVERLOADED_AFTER: Duration = Duration::from_millis(20);
/// Requests of the loudest source that are read of each batch then.
const READ_OF_LOUDEST: usize = BATCH / 4;
/// Nothing is dropped for the sake of others if there have been none for so long.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// What is known of those who send to a socket.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Since when every batch has been full.
    full_since: Option<Instant>,
    others_heard_at: Option<Instant>,
    /// The source that most of the last batch came from, while the socket is overloaded.
    loudest: Option<SocketAddr>,
    /// Of this batch: the source that has most votes (Boyer and Moore's majority vote), by how many, and how many requests of the loudest were read.
    candidate: Option<SocketAddr>,
    votes: usize,
    read_of_loudest: usize,
    dropped: u64,
}

impl Crowd {
    /// Whether a datagram is read.
    pub(super) fn passes(&mut self, peer: SocketAddr, is_request: bool) -> bool {
        if self.votes == 0 {
            self.candidate = Some(peer);
        }
        match self.candidate == Some(peer) {
            true => self.votes += 1,
            false => self.votes -= 1,
        }
        if self.loudest != Some(peer) || !is_request {
            return true;
        }
        self.read_of_loudest += 1;
        let passes = self.read_of_loudest <= READ_OF_LOUDEST;
        self.dropped += u64::from(!passes);
        passes
    }

    /// A batch of so many has come. Returns how many of them were dropped.
    pub(super) fn end_of_batch(&mut self, now: Instant, taken: usize) -> u64 {
        let (candidate, votes) = (self.candidate.take(), std::mem::take(&mut self.votes));
        self.read_of_loudest = 0;
        if votes < taken {
            self.others_heard_at = Some(now);
        }
        if taken < BATCH {
            (self.full_since, self.loudest) = (None, None);
            return std::mem::take(&mut self.dropped);
        }
        let overloaded = now.duration_since(*self.full_since.get_or_insert(now)) >= OVERLOADED_AFTER;
        let others = self.others_heard_at.is_some_and(|at| now.duration_since(at) < OTHERS_WITHIN);
        // Three of four datagrams, which is what half of the votes takes.
        self.loudest = candidate.filter(|_| overloaded && others && votes >= BATCH / 2);
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], n))
    }

    /// Number of datagrams of a full batch that are read, by sender.
    fn batch(crowd: &mut Crowd, at: Instant, senders: impl Iterator<Item = u16>) -> Vec<u16> {
        let read = senders.take(BATCH).filter(|n| crowd.passes(peer(*n), true)).collect();
        crowd.end_of_batch(at, BATCH);
        read
    }

    #[test]
    fn one_that_floods_gives_way_to_others_once_the_socket_is_overloaded() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let flood = |n: usize| if n % 16 == 3 { 2 } else { 1 };
        for ms in 0..20 {
            let read = batch(&mut crowd, start + Duration::from_millis(ms), (0..).map(flood));
            assert_eq!(read.len(), BATCH, "a burst");
        }
        batch(&mut crowd, start + Duration::from_millis(20), (0..).map(flood));
        let read = batch(&mut crowd, start + Duration::from_millis(21), (0..).map(flood));
        let of = |who| read.iter().filter(|n| **n == who).count();
        assert_eq!((of(1), of(2)), (READ_OF_LOUDEST, 2), "all of the other are read");
        assert!(crowd.passes(peer(1), false), "answers always are");
        // The queue has been emptied.
        crowd.end_of_batch(start + Duration::from_millis(22), 3);
        assert_eq!(batch(&mut crowd, start + Duration::from_millis(23), (0..).map(flood)).len(), BATCH);
    }

    #[test]
    fn nobody_gives_way_where_there_is_nobody_else_or_many_are_alike() {
        let start = Instant::now();
        let (mut alone, mut many) = (Crowd::default(), Crowd::default());
        for ms in 0..200 {
            let at = start + Duration::from_millis(ms);
            assert_eq!(batch(&mut alone, at, std::iter::repeat(1)).len(), BATCH);
            assert_eq!(batch(&mut many, at, (0..).map(|n| n % 3)).len(), BATCH);
        }
    }
}

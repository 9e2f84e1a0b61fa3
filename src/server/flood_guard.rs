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

/// A socket is overloaded when every batch has been full for this long: a longer queue is more than a burst. The source
/// of most datagrams is counted over the same time, because one batch may well be the burst of a single proxy.
const WINDOW: Duration = Duration::from_millis(20);
/// Requests of the loudest source that are read of each batch after the first window; half of it after each further one.
const READ_OF_LOUDEST: usize = BATCH / 4;
/// Time that the limit outlives the last window. Without it, the queue would fill again as soon as it is empty.
const LASTS: Duration = Duration::from_secs(1);
/// Nothing is dropped for the sake of other sources if none has been heard for this long.
const OTHERS_WITHIN: Duration = Duration::from_secs(10);

/// The sources of one socket.
#[derive(Debug, Default)]
pub(super) struct FloodGuard {
    others_heard_at: Option<Instant>,
    loudest: Option<Loudest>,
    /// Requests of the loudest source that were read of this batch, and those that were dropped.
    read_of_loudest: usize,
    dropped: u64,
    /// The window under way; none while batches are not full.
    window: Option<Window>,
    votes: Votes,
}

/// The source that most datagrams came from in the last window.
#[derive(Clone, Copy, Debug)]
struct Loudest {
    peer: SocketAddr,
    /// Requests that are read of each batch.
    read: usize,
    until: Instant,
}

/// Full batches that followed each other without a pause.
#[derive(Debug)]
struct Window {
    began: Instant,
    datagrams: usize,
}

/// Majority vote of Boyer and Moore: finds the source of most datagrams without counting each source.
#[derive(Debug, Default)]
struct Votes {
    candidate: Option<SocketAddr>,
    lead: usize,
    /// More than one source has been seen.
    several: bool,
}

impl Votes {
    fn count(&mut self, peer: SocketAddr) {
        self.several |= self.candidate.is_some_and(|candidate| candidate != peer);
        if self.lead == 0 {
            self.candidate = Some(peer);
        }
        match self.candidate == Some(peer) {
            true => self.lead += 1,
            false => self.lead -= 1,
        }
    }
}

impl FloodGuard {
    /// Returns true if a datagram is to be read.
    pub(super) fn passes(&mut self, peer: SocketAddr, is_request: bool) -> bool {
        self.votes.count(peer);
        let Some(loudest) = self.loudest.filter(|loudest| loudest.peer == peer && is_request) else { return true };
        self.read_of_loudest += 1;
        let passes = self.read_of_loudest <= loudest.read;
        self.dropped += u64::from(!passes);
        passes
    }

    /// Ends a batch of `taken` datagrams. Returns how many of them were dropped.
    pub(super) fn end_of_batch(&mut self, now: Instant, taken: usize) -> u64 {
        self.read_of_loudest = 0;
        if self.votes.several {
            self.others_heard_at = Some(now);
        }
        self.loudest.take_if(|loudest| loudest.until <= now);
        if taken < BATCH {
            (self.window, self.votes) = (None, Votes::default());
            return std::mem::take(&mut self.dropped);
        }
        let window = self.window.get_or_insert(Window { began: now, datagrams: 0 });
        window.datagrams += taken;
        if now.duration_since(window.began) >= WINDOW {
            let others = self.others_heard_at.is_some_and(|at| now.duration_since(at) < OTHERS_WITHIN);
            // A lead of half of all datagrams is what three of four take.
            let Votes { candidate, lead, .. } = std::mem::take(&mut self.votes);
            let peer = candidate.filter(|_| others && lead >= window.datagrams / 2);
            self.loudest = peer.map(|peer| {
                let before = self.loudest.filter(|loudest| loudest.peer == peer);
                let read = before.map_or(READ_OF_LOUDEST, |before| (before.read / 2).max(1));
                Loudest { peer, read, until: now + LASTS }
            });
            self.window = None;
        }
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
    fn batch(guard: &mut FloodGuard, at: Instant, senders: impl Iterator<Item = u16>) -> Vec<u16> {
        let read = senders.take(BATCH).filter(|n| guard.passes(peer(*n), true)).collect();
        guard.end_of_batch(at, BATCH);
        read
    }

    #[test]
    fn one_that_floods_gives_way_to_others_once_the_socket_is_overloaded() {
        let (mut guard, start) = (FloodGuard::default(), Instant::now());
        let flood = |n: usize| if n % 16 == 3 { 2 } else { 1 };
        for ms in 0..=20 {
            let read = batch(&mut guard, start + Duration::from_millis(ms), (0..).map(flood));
            assert_eq!(read.len(), BATCH, "a burst");
        }
        let read = batch(&mut guard, start + Duration::from_millis(21), (0..).map(flood));
        let of = |who| read.iter().filter(|n| **n == who).count();
        assert_eq!((of(1), of(2)), (READ_OF_LOUDEST, 2), "all of the other are read");
        assert!(guard.passes(peer(1), false), "answers always are");
        // The queue has been emptied, which lasts only as long as the flood is not read.
        guard.end_of_batch(start + Duration::from_millis(22), 3);
        let fill = |guard: &mut FloodGuard, ms| batch(guard, start + Duration::from_millis(ms), (0..).map(flood)).len();
        assert_eq!(fill(&mut guard, 23), READ_OF_LOUDEST + 2);
        // It is not enough: the queue stays full.
        (24..=43).for_each(|ms| _ = fill(&mut guard, ms));
        assert_eq!(fill(&mut guard, 44), READ_OF_LOUDEST / 2 + 2);
        // The flood is over.
        guard.end_of_batch(start + Duration::from_millis(50), 3);
        guard.end_of_batch(start + Duration::from_millis(1_100), 3);
        assert_eq!(fill(&mut guard, 1_101), BATCH);
    }

    #[test]
    fn proxies_that_send_bursts_in_turn_lose_nothing() {
        let (mut guard, start) = (FloodGuard::default(), Instant::now());
        for n in 0..2_000 {
            let at = start + Duration::from_micros(150 * n);
            assert_eq!(batch(&mut guard, at, std::iter::repeat(n as u16 % 64)).len(), BATCH, "batch {n}");
        }
    }

    #[test]
    fn no_source_gives_way_where_there_is_no_other_or_many_are_alike() {
        let start = Instant::now();
        let (mut alone, mut many) = (FloodGuard::default(), FloodGuard::default());
        for ms in 0..200 {
            let at = start + Duration::from_millis(ms);
            assert_eq!(batch(&mut alone, at, std::iter::repeat(1)).len(), BATCH);
            assert_eq!(batch(&mut many, at, (0..).map(|n| n % 3)).len(), BATCH);
        }
    }
}

//! One request on each of many dialogs, with a limited number in flight.

use std::io;
use std::ops::Range;

use super::engine::{Done, Engine};
use super::ops::{Kind, MS};
use super::progress::Progress;

/// Queue of dialogs. It prefers the socket that has just been served, because messages of one socket share a system
/// call.
#[derive(Debug)]
struct Queue {
    /// Next dialog of each socket.
    next: Vec<u32>,
    end: u32,
    /// Sockets before this index have no dialogs left.
    first: usize,
}

impl Queue {
    fn new(dialogs: Range<u32>, lanes: usize) -> Queue {
        let start = dialogs.start as usize;
        let next = (0..lanes).map(|lane| dialogs.start + ((lane + lanes - start % lanes) % lanes) as u32).collect();
        Queue { next, end: dialogs.end, first: 0 }
    }

    fn take(&mut self, lane: usize) -> Option<u32> {
        let lane = if self.next[lane] < self.end {
            lane
        } else {
            while self.first < self.next.len() && self.next[self.first] >= self.end {
                self.first += 1;
            }
            self.first
        };
        let number = *self.next.get(lane)?;
        self.next[lane] += self.next.len() as u32;
        Some(number)
    }
}

impl Engine {
    /// Sends one request on each of these dialogs, and returns when all have ended.
    pub(super) fn drive(&mut self, kind: Kind, dialogs: Range<u32>, progress: &mut Progress) -> io::Result<()> {
        let (window, rate) = (self.settings.window as usize, u64::from(self.settings.rate));
        let lanes = usize::from(self.settings.sockets);
        let (all, began) = (u64::from(dialogs.end - dialogs.start), self.tick());
        let mut queue = Queue::new(dialogs, lanes);
        let (mut started, mut ended) = (0, 0);
        let mut done = Vec::<Done>::new();
        self.done.clear();
        while ended < all {
            let allowed = match rate {
                0 => all,
                rate => all.min((self.now - began) * rate / (1_000 * MS) + 1),
            };
            // Requests that an earlier scenario left unfinished count in the window.
            let room = window.saturating_sub(self.ops.len()).min((allowed - started) as usize);
            // The sockets that have just been served come first, then all others.
            let served: Vec<usize> = done.drain(..).map(|done| self.lane_of(done.number)).collect();
            for lane in served.into_iter().chain(0..).take(room) {
                let Some(number) = queue.take(lane % lanes) else { break };
                self.start(kind, number);
                started += 1;
            }
            let nothing_to_start = started == all || self.ops.len() >= window;
            let until = if rate == 0 || nothing_to_start { u64::MAX } else { began + started * 1_000 * MS / rate };
            self.turn(until)?;
            done.append(&mut self.done);
            done.retain(|done| done.kind == kind);
            ended += done.len() as u64;
            progress.show(self.now, ended, all);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialog_is_given_out_once_and_to_its_own_lane_first() {
        let mut queue = Queue::new(5..23, 4);
        assert_eq!((queue.take(3), queue.take(3), queue.take(0)), (Some(7), Some(11), Some(8)));
        let mut rest: Vec<_> = std::iter::from_fn(|| queue.take(2)).collect();
        assert_eq!(rest.remove(0), 6);
        rest.extend([6, 7, 8, 11]);
        rest.sort_unstable();
        assert_eq!(rest, (5..23).collect::<Vec<_>>());
        assert_eq!(queue.take(1), None);
    }
}

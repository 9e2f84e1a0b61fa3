//! Non-INVITE transactions (RFC 3261 sections 17.1.2 and 17.2.2), without sockets and without a clock.
//!
//! A client transaction is a few numbers, kept by the owner of the request. A server transaction is a stored
//! response, in a form from which its owner can send it again.

mod index;
mod server;
mod store;

pub use server::{Key, ServerTransactions, TransactionLookup};

/// Round-trip time estimate, which is the first retransmission interval (ms).
pub const T1: u64 = 500;
/// Longest retransmission interval (ms).
pub const T2: u64 = 4_000;
/// Longest time that a message spends in the network (ms).
const T4: u64 = 5_000;
/// Timer F: longest duration of a client transaction (ms).
pub const TIMEOUT: u64 = 64 * T1;
/// Timer J: lifetime of a server transaction (ms). It starts when the first copy of the request arrives, which may
/// have travelled faster than the last one; hence T4 more than the RFC demands.
const REMEMBERED: u64 = TIMEOUT + T4;

/// Timers of a non-INVITE client transaction.
#[derive(Clone, Copy, Debug)]
pub struct ClientTransaction {
    next: u64,
    interval: u64,
    ends: u64,
    reliable: bool,
}

/// Action that a client transaction needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// Timer E: retransmit the request, or send a newer one in its place.
    Retransmission,
    /// Timer F: no response came.
    Timeout,
}

impl ClientTransaction {
    /// Starts a transaction whose request is sent at `now` (ms). Reliable transports have no retransmissions.
    pub fn start(now: u64, reliable: bool) -> ClientTransaction {
        let ends = now + TIMEOUT;
        ClientTransaction { next: if reliable { ends } else { now + T1 }, interval: T1, ends, reliable }
    }

    /// Replaces the request by a newer one at `now` (ms). The peer has not replied so far, so the retransmission
    /// interval stays as it was. On reliable transports the newer request is not retransmitted either, and the end
    /// stays the same.
    pub fn replace(&mut self, now: u64) {
        if !self.reliable {
            self.next = (now + self.interval).min(self.ends);
        }
    }

    /// Time of the next call of [`ClientTransaction::due`] (ms).
    pub fn deadline(&self) -> u64 {
        self.next.min(self.ends)
    }

    /// Returns the action that is due at `now` (ms). A retransmission that is due counts as sent.
    pub fn due(&mut self, now: u64) -> Due {
        if now >= self.ends {
            return Due::Timeout;
        }
        if self.reliable || now < self.next {
            return Due::Nothing;
        }
        self.interval = (self.interval * 2).min(T2);
        self.next = now + self.interval;
        Due::Retransmission
    }

    /// Handles a provisional response: from now on retransmissions are T2 apart (RFC 3261 section 17.1.2.2).
    pub fn proceed(&mut self, now: u64) {
        if !self.reliable && self.interval < T2 {
            self.interval = T2;
            self.next = now + T2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_e_doubles_up_to_t2_and_timer_f_ends_it() {
        let mut t = ClientTransaction::start(0, false);
        let mut sent = Vec::new();
        loop {
            let now = t.deadline();
            match t.due(now) {
                Due::Retransmission => sent.push(now),
                Due::Timeout => break assert_eq!(now, 32_000),
                Due::Nothing => panic!("asked at its own deadline"),
            }
        }
        assert_eq!(sent, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    }

    #[test]
    fn nothing_is_repeated_on_streams_and_a_provisional_answer_slows_down() {
        let mut t = ClientTransaction::start(7, true);
        assert_eq!((t.deadline(), t.due(8_000), t.due(32_007)), (32_007, Due::Nothing, Due::Timeout));
        let mut t = ClientTransaction::start(0, false);
        t.proceed(100);
        assert_eq!((t.due(500), t.deadline()), (Due::Nothing, 4_100));
    }
}

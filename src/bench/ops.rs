//! Requests in flight and their retransmission (RFC 3261 section 17.1.2.2: Timers E and F).
//!
//! All requests have the same intervals, so each interval has its own queue, which is always in order: no sorting is
//! needed.

use std::collections::VecDeque;

use super::book::NOTHING;

/// One millisecond (ns).
pub(super) const MS: u64 = 1_000_000;

/// Intervals before the first, second, third and every further retransmission: T1, doubled up to T2.
const WAITS: [u64; 4] = [500 * MS, 1_000 * MS, 2_000 * MS, 4_000 * MS];

/// Kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first SUBSCRIBE.
    Subscribe,
    /// A refresh within the dialog.
    Refresh,
    /// The last SUBSCRIBE.
    Unsubscribe,
    /// A PUBLISH of a new step.
    Publish,
    /// A PUBLISH that removes the publication.
    Withdraw,
}

impl Kind {
    /// Returns true if a NOTIFY must follow as well as a response.
    pub(super) fn is_notified(self) -> bool {
        matches!(self, Kind::Subscribe | Kind::Refresh | Kind::Unsubscribe)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Subscribe => "SUBSCRIBE",
            Kind::Refresh => "refreshing SUBSCRIBE",
            Kind::Unsubscribe => "unsubscribing SUBSCRIBE",
            Kind::Publish => "PUBLISH",
            Kind::Withdraw => "withdrawing PUBLISH",
        }
    }
}

/// A request in flight.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    /// Number of the dialog, or of the extension of a PUBLISH.
    pub(super) number: u32,
    /// Time of the first transmission (ns).
    pub(super) began: u64,
    /// True if the response has arrived.
    pub(super) answered: bool,
    /// True if its NOTIFY has arrived.
    pub(super) notified: bool,
    /// Number of challenges answered for it.
    pub(super) challenges: u8,
    /// Smallest step that its NOTIFY may show: the last one accepted before the request was sent.
    pub(super) floor: u32,
    /// Serial number, which distinguishes it from earlier requests in the same slot.
    serial: u32,
}

/// A timer that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Retransmit the request.
    Repeat(u32),
    /// The request has timed out.
    GiveUp(u32),
}

/// All requests in flight.
#[derive(Debug)]
pub(super) struct Ops {
    slots: Vec<Op>,
    free: Vec<u32>,
    /// Queue per interval: due time, slot, and serial number of the request in it.
    queues: [VecDeque<(u64, u32, u32)>; WAITS.len()],
    serial: u32,
    /// Time-out of a request (ns).
    give_up: u64,
    live: usize,
}

impl Ops {
    pub(super) fn new(give_up: u64) -> Ops {
        Ops { slots: Vec::new(), free: Vec::new(), queues: Default::default(), serial: 0, give_up, live: 0 }
    }

    /// Number of requests in flight.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn begin(&mut self, now: u64, kind: Kind, number: u32, floor: u32) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let op = Op { kind, number, began: now, answered: false, notified: false, challenges: 0, floor, serial };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = op;
                slot
            }
            None => {
                self.slots.push(op);
                self.slots.len() as u32 - 1
            }
        };
        self.live += 1;
        self.queues[0].push_back((now + WAITS[0], slot, serial));
        slot
    }

    /// The request in a slot; none for [`NOTHING`].
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Op> {
        if slot == NOTHING { None } else { self.slots.get_mut(slot as usize) }
    }

    /// Restarts the timers, because the request has changed.
    pub(super) fn restart(&mut self, now: u64, slot: u32) {
        self.serial = self.serial.wrapping_add(1);
        self.slots[slot as usize].serial = self.serial;
        self.queues[0].push_back((now + WAITS[0], slot, self.serial));
    }

    pub(super) fn end(&mut self, slot: u32) {
        // Timers of the old serial number are ignored.
        self.serial = self.serial.wrapping_add(1);
        self.slots[slot as usize].serial = self.serial;
        self.free.push(slot);
        self.live -= 1;
    }

    /// Time of the next timer, even if its request has ended since.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|(at, ..)| *at).min()
    }

    /// Returns the next timer that is due now.
    pub(super) fn due(&mut self, now: u64) -> Option<Due> {
        for i in 0..WAITS.len() {
            while let Some(&(at, slot, serial)) = self.queues[i].front().filter(|(at, ..)| *at <= now) {
                self.queues[i].pop_front();
                let op = &self.slots[slot as usize];
                if op.serial != serial {
                    continue;
                }
                if at >= op.began + self.give_up {
                    return Some(Due::GiveUp(slot));
                }
                let next = (i + 1).min(WAITS.len() - 1);
                let at = (now + WAITS[next]).min(op.began + self.give_up);
                // A shortened interval goes to a queue whose order it fits. In the last queue it may be a little late.
                let in_order = |queue: &VecDeque<(u64, u32, u32)>| queue.back().is_none_or(|(last, ..)| *last <= at);
                let queue = if at < now + WAITS[next] { self.queues.iter().position(in_order) } else { None };
                let repeat = !op.answered;
                self.queues[queue.unwrap_or(next)].push_back((at, slot, serial));
                if repeat {
                    return Some(Due::Repeat(slot));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeated_as_the_rfc_says_and_given_up_in_the_end() {
        let mut ops = Ops::new(32_000 * MS);
        let slot = ops.begin(0, Kind::Subscribe, 7, 0);
        let (mut repeats, mut end) = (Vec::new(), None);
        while let Some(at) = ops.next_due() {
            match ops.due(at) {
                Some(Due::Repeat(which)) => {
                    assert_eq!(which, slot);
                    repeats.push(at / MS);
                }
                Some(Due::GiveUp(which)) => {
                    end = Some(at / MS);
                    ops.end(which);
                }
                None => {}
            }
        }
        assert_eq!(repeats, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
        assert_eq!((end, ops.len()), (Some(32_000), 0));
    }

    #[test]
    fn an_answered_request_is_not_repeated_but_its_notify_awaited() {
        let mut ops = Ops::new(32_000 * MS);
        let slot = ops.begin(0, Kind::Subscribe, 7, 0);
        ops.get_mut(slot).unwrap().answered = true;
        let mut seen = Vec::new();
        while let Some(at) = ops.next_due() {
            if let Some(due) = ops.due(at) {
                seen.push(due);
            }
        }
        assert_eq!(seen, [Due::GiveUp(slot)]);
    }

    #[test]
    fn timers_of_what_has_ended_are_nobodys() {
        let mut ops = Ops::new(32_000 * MS);
        let slot = ops.begin(0, Kind::Publish, 1, 0);
        ops.end(slot);
        assert_eq!(ops.begin(100 * MS, Kind::Publish, 2, 0), slot, "the slot is used again");
        assert_eq!(ops.due(550 * MS), None);
        assert_eq!(ops.due(600 * MS), Some(Due::Repeat(slot)));
    }
}

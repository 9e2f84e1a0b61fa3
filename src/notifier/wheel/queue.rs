//! Queue of the first delivery timers of NOTIFYs.

use std::collections::VecDeque;

use crate::presence::Tick;

/// The first delivery timers that one thread has set. Each is due half a second after it was set (timer T1), and
/// nearly all are cancelled long before. So a queue in order of time is enough; a timer is found by its due time.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Queued>);

/// Delivery timer of a NOTIFY.
#[derive(Clone, Copy, Debug)]
struct Queued {
    at: Tick,
    presentity: u32,
    slot: u32,
    /// True once the timer is cancelled.
    gone: bool,
}

impl Queue {
    /// Adds a timer if it is due no earlier than those in the queue. Otherwise returns false and does not add it.
    pub(super) fn file(&mut self, at: Tick, presentity: u32, slot: u32) -> bool {
        let next = self.0.back().is_none_or(|last| last.at <= at);
        if next {
            self.0.push_back(Queued { at, presentity, slot, gone: false });
        }
        next
    }

    /// Cancels a timer that is due at `at`; returns false if it is not in the queue.
    pub(super) fn cancel(&mut self, at: Tick, presentity: u32, slot: u32) -> bool {
        let from = self.0.partition_point(|queued| queued.at < at);
        let same_time = self.0.range_mut(from..).take_while(|queued| queued.at == at);
        let mut live = same_time.filter(|queued| !queued.gone);
        let Some(queued) = live.find(|queued| (queued.presentity, queued.slot) == (presentity, slot)) else {
            return false;
        };
        queued.gone = true;
        self.let_go();
        true
    }

    /// Takes out the next timer that is due at `now`: its time, presentity number and slot.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<(Tick, u32, u32)> {
        let Queued { at, presentity, slot, .. } = self.0.pop_front_if(|first| first.at <= now)?;
        self.let_go();
        Some((at, presentity, slot))
    }

    /// Returns the time of the next timer.
    pub(super) fn next(&self) -> Option<Tick> {
        self.0.front().map(|first| first.at)
    }

    /// Returns the number of timers.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|queued| !queued.gone).count()
    }

    /// Drops cancelled timers from the front, so that the first timer is always a live one.
    fn let_go(&mut self) {
        while self.0.pop_front_if(|first| first.gone).is_some() {}
    }
}

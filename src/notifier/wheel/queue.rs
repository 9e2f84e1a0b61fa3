//! The first looks at NOTIFYs.

use std::collections::VecDeque;

use crate::presence::Tick;

/// The first looks at the NOTIFYs of one thread: due half a second after they were filed, and nearly all taken out long
/// before. So they stand one behind the other, and are found by when they are due.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Queued>);

/// A look at a NOTIFY.
#[derive(Clone, Copy, Debug)]
struct Queued {
    at: Tick,
    presentity: u32,
    slot: u32,
    /// It was taken out.
    gone: bool,
}

impl Queue {
    /// Files a look, if it comes after those that are there.
    pub(super) fn file(&mut self, at: Tick, presentity: u32, slot: u32) -> bool {
        let next = self.0.back().is_none_or(|last| last.at <= at);
        if next {
            self.0.push_back(Queued { at, presentity, slot, gone: false });
        }
        next
    }

    /// Takes a look out that was filed for `at`; false if it is not there.
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

    /// The next look that is due at `now`: when, of which presentity and which slot.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<(Tick, u32, u32)> {
        let Queued { at, presentity, slot, .. } = self.0.pop_front_if(|first| first.at <= now)?;
        self.let_go();
        Some((at, presentity, slot))
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Tick> {
        self.0.front().map(|first| first.at)
    }

    /// How many looks are filed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|queued| !queued.gone).count()
    }

    /// The first one is never gone.
    fn let_go(&mut self) {
        while self.0.pop_front_if(|first| first.gone).is_some() {}
    }
}

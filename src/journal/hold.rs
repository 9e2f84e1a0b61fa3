//! Holds: a change that was refused is rolled back before any later change is accepted.
//!
//! A refusal reaches its owner some time after the journal has decided it. Were a later change of the same thing kept
//! meanwhile, the roll-back would undo that one as well. So every refusal carries a hold, and the journal accepts
//! nothing while one is alive.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

/// Keeps the journal from accepting changes until this and every clone of it were dropped.
#[derive(Clone, Debug)]
pub struct Hold(#[expect(dead_code, reason = "it counts by being there")] Arc<Alive>);

#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Makes holds and knows whether one is alive. Those that are given out at the same time share one count.
#[derive(Debug, Default)]
pub(super) struct Holds {
    alive: Arc<AtomicUsize>,
    latest: parking_lot::Mutex<Weak<Alive>>,
}

impl Holds {
    pub(super) fn give(&self) -> Hold {
        let mut latest = self.latest.lock();
        if let Some(alive) = latest.upgrade() {
            return Hold(alive);
        }
        self.alive.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::new(Alive(self.alive.clone()));
        *latest = Arc::downgrade(&alive);
        Hold(alive)
    }

    pub(super) fn any(&self) -> bool {
        self.alive.load(Ordering::Acquire) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_lasts_until_its_last_clone_is_dropped() {
        let holds = Holds::default();
        assert!(!holds.any());
        let first = holds.give();
        let second = holds.give();
        let third = second.clone();
        drop((first, second));
        assert!(holds.any());
        drop(third);
        assert!(!holds.any());
        let again = holds.give();
        assert!(holds.any());
        drop(again);
        assert!(!holds.any());
    }
}

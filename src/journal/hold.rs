//! Holds: they make sure that a refused change is rolled back before any later change is accepted.
//!
//! The caller learns of a refusal some time after the journal has decided it. If a later change of the same object were
//! committed in between, the rollback would undo that one too. So every refusal carries a hold, and the journal accepts
//! no change while one is alive.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

/// Guard that keeps the journal from accepting changes until it and all its clones are dropped.
#[derive(Clone, Debug)]
pub struct Hold(#[expect(dead_code, reason = "it counts by being there")] Arc<Alive>);

#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Source of holds; it knows whether one is alive. Refusals of the same time share one hold.
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

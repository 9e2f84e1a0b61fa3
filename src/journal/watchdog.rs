//! Watchdog: notices a disk that hangs.
//!
//! The writer cannot notice it, because it is blocked in the system call. So its work under way is part of the shared
//! state, and this thread refuses that work once it takes too long. When the system call returns at last, the writer
//! finds the journal failed and recovers as after any other failure.

use std::{sync::Arc, time::Duration};

use super::{Health, queue::Shared};

/// Number of checks within the time that a commit may take.
const LOOKS: u32 = 8;

/// Runs until the writer has ended.
pub(super) fn run(shared: &Shared) {
    let stall = shared.limits.stall;
    let pause = (stall / LOOKS).max(Duration::from_millis(1));
    loop {
        look(shared, stall);
        let mut queue = shared.queue.lock();
        if queue.ended {
            return;
        }
        shared.ended.wait_for(&mut queue, pause);
    }
}

/// Refuses the work under way if the disk has not answered for `stall`.
pub(super) fn look(shared: &Shared, stall: Duration) {
    let queue = shared.queue.lock();
    if queue.health == Health::Good && queue.hangs(stall) {
        let why: Arc<str> = format!("the disk has not answered for {} s", stall.as_secs_f32()).into();
        tracing::error!(dir = %shared.disk.dir().display(), %why, "the journal cannot be written; retrying");
        shared.fail(queue, why);
    }
}

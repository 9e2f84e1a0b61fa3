//! Steady scenario: changes at a constant rate on all extensions. It measures the delay until phones receive them, and
//! checks their order.

use std::io;

use super::book::Life;
use super::engine::Engine;
use super::ops::{Kind, MS};
use super::progress::Progress;
use super::runner::{Found, Runner};

impl Runner {
    pub(super) fn steady(&mut self) -> io::Result<()> {
        self.ensure_open()?;
        let extensions = self.engine.settings.subscriptions.div_ceil(self.engine.settings.watchers());
        self.measure("steady".into(), "NOTIFY", |engine, progress| {
            let mut plan = Plan::of(engine, extensions);
            plan.run(engine, progress)?;
            let stale = plan.wait_for_the_last(engine)?;
            let took = plan.took;
            let numbers = vec![
                ("publish_per_second", plan.published as f64 * 1e9 / took as f64),
                ("left_out", plan.left_out as f64),
                ("stale_lamps", stale as f64),
                ("behind_schedule_ms", plan.behind as f64 / 1e6),
            ];
            Ok(Found { operations: Some(engine.tally.news), took: Some(took), numbers })
        })
    }
}

/// Schedule of the changes, and its result.
#[derive(Debug)]
struct Plan {
    /// Number of watchers of each extension.
    watchers: Vec<u32>,
    per_second: f64,
    seconds: u32,
    next: u32,
    published: u64,
    /// Changes left out, because the server had not answered the previous one for any of the extensions tried.
    left_out: u64,
    /// Greatest delay of a change after its scheduled time (ns).
    behind: u64,
    /// Time for which changes were made (ns).
    took: u64,
}

/// Most extensions tried to find one that may be changed.
const TRIES: u32 = 100;

impl Plan {
    fn of(engine: &Engine, extensions: u32) -> Plan {
        let mut watchers = vec![0; extensions as usize];
        for watcher in engine.book.iter().filter(|watcher| watcher.life == Life::Open) {
            watchers[watcher.extension as usize] += 1;
        }
        let open: u32 = watchers.iter().sum();
        let per_change = f64::from(open.max(1)) / f64::from(extensions);
        let per_second = f64::from(engine.settings.notifies_per_second) / per_change;
        let seconds = engine.settings.seconds;
        Plan { watchers, per_second, seconds, next: 0, published: 0, left_out: 0, behind: 0, took: 0 }
    }

    fn run(&mut self, engine: &mut Engine, progress: &mut Progress) -> io::Result<()> {
        let began = engine.tick();
        let all = (self.per_second * f64::from(self.seconds)).max(1.0) as u64;
        let per_second = self.per_second;
        let at = |n: u64| began + (n as f64 * 1e9 / per_second) as u64;
        let mut made = 0;
        while made < all {
            let now = engine.tick();
            while made < all && at(made) <= now {
                self.behind = self.behind.max(now - at(made));
                made += 1;
                match self.pick(engine) {
                    Some(extension) => {
                        engine.start(Kind::Publish, extension);
                        self.published += 1;
                    }
                    None => self.left_out += 1,
                }
            }
            engine.turn(at(made))?;
            engine.done.clear();
            progress.show(engine.now, made, all);
        }
        self.took = engine.tick() - began;
        Ok(())
    }

    /// Picks the next extension whose last PUBLISH was answered.
    fn pick(&mut self, engine: &mut Engine) -> Option<u32> {
        let extensions = self.watchers.len() as u32;
        (0..TRIES.min(extensions)).find_map(|_| {
            let extension = self.next;
            self.next = (extension + 1) % extensions;
            let free = engine.lamps.get_mut(extension).op == super::book::NOTHING;
            free.then_some(extension)
        })
    }

    /// Waits until all watchers have the latest state; returns the number of those that never received it.
    fn wait_for_the_last(&self, engine: &mut Engine) -> io::Result<u64> {
        let give_up = u64::from(engine.settings.give_up) * 1_000 * MS;
        let (mut behind, mut since) = (u64::MAX, engine.tick());
        loop {
            let now_behind = self.behind_now(engine);
            if now_behind < behind {
                (behind, since) = (now_behind, engine.now);
            }
            if behind == 0 && engine.ops.len() == 0 {
                return Ok(0);
            }
            // While some watchers still receive it, the others may too.
            if engine.now > since + give_up {
                let detail = || format!("{behind} watchers, {} s after the last change", engine.settings.give_up);
                engine.tally.faults.note("lamps are wrong for good", detail);
                return Ok(behind);
            }
            engine.listen(10 * MS)?;
            engine.done.clear();
        }
    }

    /// Number of watchers that have not received the latest state of their extension.
    fn behind_now(&self, engine: &mut Engine) -> u64 {
        let behind = |(extension, watchers): (usize, &u32)| {
            let lamp = engine.lamps.get_mut(extension as u32);
            if lamp.sent == 0 { 0 } else { u64::from(watchers.saturating_sub(lamp.reached)) }
        };
        self.watchers.iter().enumerate().map(behind).sum()
    }
}

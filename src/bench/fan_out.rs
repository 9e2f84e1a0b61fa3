//! Fan-out scenario: one change for many phones, and the time until the last phone has it.

use std::io;

use super::engine::Engine;
use super::histogram::Histogram;
use super::ops::{Kind, MS};
use super::runner::{Found, Runner};

/// Number of NOTIFYs that makes the CPU time of narrow fan-outs measurable: a single one takes less than a clock tick.
const NOTIFIES: u32 = 20_000;
/// Least and most changes per width.
const ROUNDS: (u32, u32) = (5, 500);
/// Number of phones in narrow fan-outs, in groups with an extension each. With fewer phones the rate limit per phone
/// would be measured.
const PHONES: u32 = 2_000;

/// Number of extensions that take turns in fan-outs of this width.
pub(super) fn extensions(width: u32) -> u32 {
    (PHONES / width).clamp(1, ROUNDS.1)
}

impl Runner {
    pub(super) fn fan_out(&mut self) -> io::Result<()> {
        let first = self.engine.book.len();
        let mut extension = self.engine.settings.extensions();
        for width in self.engine.settings.widths.clone() {
            let turns = extensions(width);
            (0..turns * width).for_each(|n| _ = self.engine.book.add(extension + n / width));
            self.prepare("subscribing for a fan-out", |engine, progress| {
                engine.drive(Kind::Subscribe, first..first + turns * width, progress)
            })?;
            let rounds = (NOTIFIES / width).clamp(ROUNDS.0, ROUNDS.1);
            self.measure(format!("fan-out {width}"), "NOTIFY", |engine, progress| {
                let (mut lasts, mut took) = (Histogram::default(), 0);
                for round in 0..rounds {
                    // If one change does not reach all watchers, there is no point in making the next ones.
                    let Some(last) = engine.change(extension + round % turns, width)? else { break };
                    lasts.record(last);
                    took += last;
                    progress.show(engine.now, round.into(), rounds.into());
                }
                let ms = |ns: u64| ns as f64 / 1e6;
                let numbers = vec![
                    ("rounds", rounds.into()),
                    ("last_notify_p50_ms", ms(lasts.quantile(0.5))),
                    ("last_notify_max_ms", ms(lasts.largest())),
                ];
                Ok(Found { operations: Some(engine.tally.news), took: Some(took), numbers })
            })?;
            self.close_from(first)?;
            extension += turns;
        }
        Ok(())
    }
}

impl Engine {
    /// Publishes a change and waits until all watchers have received it. Returns the time that took (ns), or none if
    /// some did not receive it.
    fn change(&mut self, extension: u32, watchers: u32) -> io::Result<Option<u64>> {
        let began = self.tick();
        self.start(Kind::Publish, extension);
        self.done.clear();
        let give_up = u64::from(self.settings.give_up) * 1_000 * MS;
        let mut last = self.now;
        let mut reached = 0;
        let mut answered = false;
        while reached < watchers || !answered {
            self.turn(self.now + give_up)?;
            answered |= self.done.drain(..).any(|done| done.kind == Kind::Publish && done.number == extension);
            let now = self.lamps.get_mut(extension).reached;
            if now > reached {
                (reached, last) = (now, self.now);
            }
            // While some watchers still receive it, the others may too.
            if self.now > last + give_up {
                let detail = || format!("{} of {watchers} watchers of e{extension}", watchers - reached);
                self.tally.faults.note("watchers were not told of a change", detail);
                return Ok(None);
            }
        }
        Ok(Some(last - began))
    }
}

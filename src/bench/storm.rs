//! Boot storm scenario: after a power cut many phones start within seconds, authenticate and subscribe.

use std::collections::VecDeque;
use std::io;

use super::book::Life;
use super::engine::Engine;
use super::fan_out;
use super::ops::{Kind, MS};
use super::progress::Progress;
use super::runner::{Found, Runner};

/// Phones that watch the same extension.
const WATCHERS: u32 = 10;
/// Wait of a phone that is refused without a Retry-After (seconds).
const COME_AGAIN: u32 = 5;

impl Runner {
    pub(super) fn storm(&mut self) -> io::Result<()> {
        self.close_all()?;
        let (phones, seconds) = (self.engine.settings.storm_phones, self.engine.settings.storm_seconds);
        // These extensions are used by no other scenario.
        let of_fan_outs: u32 = self.engine.settings.widths.iter().map(|width| fan_out::extensions(*width)).sum();
        let extension = self.engine.settings.extensions() + of_fan_outs;
        (0..phones).for_each(|n| _ = self.engine.book.add(extension + n / WATCHERS));
        self.engine.logins.clear();
        self.engine.refusals_are_expected = true;
        let outcome = self.measure("storm".into(), "phone", |engine, progress| rage(engine, phones, seconds, progress));
        self.engine.refusals_are_expected = false;
        outcome?;
        self.close_all()
    }
}

fn rage(engine: &mut Engine, phones: u32, seconds: u32, progress: &mut Progress) -> io::Result<Found> {
    let began = engine.tick();
    let span = u64::from(seconds) * 1_000 * MS;
    let arrival = |n: u32| began + span * u64::from(n) / u64::from(phones);
    // A refused phone tries again, but not for ever.
    let close = began + span + 2 * u64::from(engine.settings.give_up) * 1_000 * MS;
    let (mut started, mut settled, mut sent_away) = (0, 0, 0);
    let mut again = VecDeque::<(u64, u32)>::new();
    engine.done.clear();
    while settled < phones {
        let now = engine.tick();
        while started < phones && arrival(started) <= now {
            engine.start(Kind::Subscribe, started);
            started += 1;
        }
        // At most a handful wait here, in the order of refusal and not of return.
        for _ in 0..again.len() {
            match again.pop_front() {
                Some((at, number)) if at <= now => engine.start(Kind::Subscribe, number),
                Some(later) => again.push_back(later),
                None => break,
            }
        }
        let next = if started < phones { arrival(started) } else { u64::MAX };
        engine.turn(again.iter().map(|(at, _)| *at).fold(next, u64::min))?;
        for done in std::mem::take(&mut engine.done) {
            if done.ok || done.status == 0 || engine.now > close {
                settled += 1;
            } else {
                sent_away += 1;
                let wait = u64::from(done.retry_after.unwrap_or(COME_AGAIN)) * 1_000 * MS;
                again.push_back((engine.now + wait, done.number));
            }
        }
        progress.show(engine.now, settled.into(), phones.into());
    }
    let dark = engine.book.iter().take(phones as usize).filter(|watcher| watcher.life != Life::Open).count();
    if dark > 0 {
        engine.tally.faults.note("phones were left without a lamp", || format!("{dark} of {phones}"));
    }
    let numbers = vec![
        ("last_notify_seconds", (engine.tally.last - began) as f64 / 1e9),
        ("sent_away", f64::from(sent_away)),
        ("dark_phones", dark as f64),
    ];
    Ok(Found { operations: Some(u64::from(phones) - dark as u64), took: None, numbers })
}

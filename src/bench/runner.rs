//! Runs the scenarios in order and measures each.

use std::io;

use super::book::Life;
use super::cold::Server;
use super::engine::Engine;
use super::ops::{Kind, MS};
use super::progress::Progress;
use super::result::{Around, Row, add_measurement};
use super::settings::{Scenario, Settings};
use super::tally::{Faults, Tally};
use super::usage::{self, Usage};

pub(super) struct Runner {
    pub(super) engine: Engine,
    pub(super) progress: Progress,
    pub(super) rows: Vec<Row>,
    pub(super) faults: Faults,
    /// The server process, if the bench has started it.
    pub(super) server: Option<Server>,
    /// Process ids of the server.
    pub(super) pids: Vec<u32>,
    /// Usage of the server before the first request.
    at_start: Usage,
    repetition: u32,
}

/// Result of a scenario, beside the counters of the engine.
#[derive(Default)]
pub(super) struct Found {
    /// Basis of rate and CPU; by default the number of successful requests.
    pub(super) operations: Option<u64>,
    /// Duration, if it does not end with the last event (ns).
    pub(super) took: Option<u64>,
    /// Other numbers.
    pub(super) numbers: Vec<(&'static str, f64)>,
}

impl Runner {
    pub(super) fn new(settings: Settings, server: Option<Server>, run: u32) -> io::Result<Runner> {
        let pids = server.as_ref().map_or_else(|| settings.server_pid.clone(), |server| vec![server.pid()]);
        let at_start = Usage::of(&pids);
        let engine = Engine::new(settings, run)?;
        let (progress, rows, faults) = (Progress::new(), Vec::new(), Faults::default());
        Ok(Runner { engine, progress, rows, faults, server, pids, at_start, repetition: 0 })
    }

    /// Runs all selected scenarios, as often as requested.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let scenarios = self.engine.settings.scenarios();
        for repetition in 0..self.engine.settings.repeat {
            self.repetition = repetition;
            for scenario in &scenarios {
                match scenario {
                    Scenario::Subscribe => self.subscribe()?,
                    Scenario::Refresh => self.refresh()?,
                    Scenario::Steady => self.steady()?,
                    Scenario::FanOut => self.fan_out()?,
                    Scenario::Unsubscribe => self.unsubscribe()?,
                    Scenario::Storm => self.storm()?,
                    Scenario::Cold => {}
                }
            }
            self.close_all()?;
        }
        self.withdraw_all()?;
        // This scenario is last: afterwards the server is another process, whose memory cannot be compared with the
        // earlier numbers.
        for repetition in 0..if scenarios.contains(&Scenario::Cold) { self.engine.settings.repeat } else { 0 } {
            self.repetition = repetition;
            self.cold()?;
        }
        self.progress.end();
        Ok(())
    }

    /// Measures `work`, and adds its violations to the total.
    pub(super) fn measure(
        &mut self,
        name: String,
        unit: &'static str,
        work: impl FnOnce(&mut Engine, &mut Progress) -> io::Result<Found>,
    ) -> io::Result<()> {
        let title = match self.engine.settings.repeat {
            1 => name.clone(),
            all => format!("{name}, {} of {all}", self.repetition + 1),
        };
        let began = self.engine.tick();
        self.progress.begin(began, title);
        self.engine.tally = Tally { last: began, ..Tally::default() };
        let (dropped, before) = (usage::dropped_datagrams(), Usage::of(&self.pids));
        let generator = usage::cpu(&[std::process::id()]);
        let began = self.engine.tick();
        let found = work(&mut self.engine, &mut self.progress)?;
        let generator_cpu = usage::cpu(&[std::process::id()]) - generator;
        let last = self.engine.tally.last;
        let settle = u64::from(self.engine.settings.settle) * 1_000 * MS;
        self.engine.listen(settle)?;
        let dropped = usage::dropped_datagrams() - dropped;
        let after = Usage::of(&self.pids);
        let mut tally = std::mem::take(&mut self.engine.tally);
        if tally.missed > 0 && dropped == 0 {
            let detail = || format!("{} in {name}, though this machine dropped no datagram", tally.missed);
            tally.faults.note("NOTIFYs are missing", detail);
        }
        let seconds = found.took.unwrap_or(last.saturating_sub(began)) as f64 / 1e9;
        let around = Around { before, after, generator_cpu, dropped, seconds, at_start: self.at_start };
        let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name, unit, numbers: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        add_measurement(row, &tally, &around, found.operations.unwrap_or(tally.done));
        for (name, value) in found.numbers {
            row.add(name, value);
        }
        self.faults.merge(&tally.faults);
        Ok(())
    }

    /// Runs a preparation without measuring it; its violations count nevertheless.
    pub(super) fn prepare(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Engine, &mut Progress) -> io::Result<()>,
    ) -> io::Result<()> {
        let now = self.engine.tick();
        self.progress.begin(now, format!("({what})"));
        self.engine.tally = Tally::default();
        work(&mut self.engine, &mut self.progress)?;
        self.faults.merge(&std::mem::take(&mut self.engine.tally).faults);
        Ok(())
    }

    /// Opens new subscriptions, as many as configured.
    fn subscribe(&mut self) -> io::Result<()> {
        self.close_all()?;
        // In every repetition phones start without remembered challenges.
        self.engine.logins.clear();
        self.enter();
        let count = self.engine.book.len();
        self.measure("subscribe".into(), "subscription", |engine, progress| {
            engine.drive(Kind::Subscribe, 0..count, progress)?;
            Ok(Found::default())
        })?;
        let place = self.rows.iter().position(|row| row.name == "subscribe").unwrap_or_default();
        let row = &mut self.rows[place];
        // In later repetitions the server's memory contains remains of other scenarios.
        if let Some(grown) = row.last("pss_growth_bytes").filter(|_| self.repetition == 0) {
            row.add("bytes_per_subscription", grown / f64::from(count));
        }
        Ok(())
    }

    fn refresh(&mut self) -> io::Result<()> {
        self.ensure_open()?;
        let count = self.engine.book.len();
        self.measure("refresh".into(), "refresh", |engine, progress| {
            engine.drive(Kind::Refresh, 0..count, progress)?;
            Ok(Found::default())
        })
    }

    fn unsubscribe(&mut self) -> io::Result<()> {
        self.ensure_open()?;
        let count = self.engine.book.len();
        self.measure("unsubscribe".into(), "end", |engine, progress| {
            engine.drive(Kind::Unsubscribe, 0..count, progress)?;
            Ok(Found::default())
        })?;
        self.engine.book.truncate(0);
        Ok(())
    }

    /// Adds the dialogs to the table. The watchers of one extension are adjacent and are different phones.
    fn enter(&mut self) {
        let (count, watchers) = (self.engine.settings.subscriptions, self.engine.settings.watchers());
        (0..count).for_each(|n| _ = self.engine.book.add(n / watchers));
    }

    /// Subscribes without measuring, unless an earlier scenario has done so.
    pub(super) fn ensure_open(&mut self) -> io::Result<()> {
        if self.engine.book.len() > 0 {
            return Ok(());
        }
        self.enter();
        let count = self.engine.book.len();
        self.prepare("subscribing", |engine, progress| engine.drive(Kind::Subscribe, 0..count, progress))
    }

    /// Ends all dialogs without measuring.
    pub(super) fn close_all(&mut self) -> io::Result<()> {
        self.close_from(0)
    }

    /// Ends the dialogs from this number on without measuring.
    pub(super) fn close_from(&mut self, first: u32) -> io::Result<()> {
        let upto = self.engine.book.len();
        if first < upto && self.engine.book.iter().skip(first as usize).any(|watcher| watcher.life == Life::Open) {
            self.prepare("unsubscribing", |engine, progress| engine.drive(Kind::Unsubscribe, first..upto, progress))?;
        }
        self.engine.book.truncate(first);
        Ok(())
    }

    /// Removes all publications, so that the next run finds the server in the same state as this one.
    fn withdraw_all(&mut self) -> io::Result<()> {
        self.prepare("taking publications back", |engine, progress| {
            let (extensions, window) = (engine.lamps.published(), engine.settings.window as usize);
            let (all, mut rest) = (extensions.len() as u64, extensions.into_iter());
            let mut ended = 0;
            engine.done.clear();
            while ended < all {
                let room = window.saturating_sub(engine.ops.len());
                rest.by_ref().take(room).for_each(|extension| engine.start(Kind::Withdraw, extension));
                engine.turn(u64::MAX)?;
                ended += engine.done.drain(..).count() as u64;
                progress.show(engine.now, ended, all);
            }
            Ok(())
        })
    }
}

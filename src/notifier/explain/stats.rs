//! Statistics of the notifier. Counters of events are read; the number of objects is counted on request, with one
//! presentity locked at a time.

use std::collections::HashMap;

use super::is_behind;
use super::report::{AGES, NotifierStats, SubscriptionGroup};
use crate::notifier::Notifier;
use crate::notifier::history::HistoryEvent;
use crate::notifier::metrics::{TRANSPORTS, place};
use crate::package::{self, REGISTRY};
use crate::presence::presentity::State;
use crate::presence::subscription::{Revision, Subscription};
use crate::presence::vendor::Vendor;
use crate::presence::{PackageId, Tick};

/// Number of subscriptions of one kind: all, those that have not acknowledged the current state, those with failed
/// NOTIFYs.
type Counts = [usize; 3];
/// Counts by transport and make of the phone.
type Table = [[Counts; Vendor::COUNT]; TRANSPORTS.len()];

/// Watchers of one presentity that lack the same change: same package and same acknowledged revision.
#[derive(Debug)]
struct Behind {
    package: PackageId,
    acknowledged: Revision,
    since: Tick,
    count: usize,
}

impl Notifier {
    /// Statistics of the notifier. `up_since` is the start of the server.
    pub fn numbers(&self, now: Tick, up_since: Tick) -> NotifierStats {
        let mut numbers = NotifierStats {
            phones: self.phones.len(),
            answered: self.refusals.read(),
            large: self.large_notifies(),
            turned_away: self.turned_away_by_reason(),
            panics: self.panics(),
            tally: self.history.tally(),
            names: self.dns_cache.len(),
            ..NotifierStats::default()
        };
        let mut kinds: Vec<Table> = vec![[[[0; 3]; Vendor::COUNT]; TRANSPORTS.len()]; REGISTRY.len()];
        let mut publications = vec![0; REGISTRY.len()];
        let mut behind: HashMap<u32, Vec<Behind>> = HashMap::new();
        for presentity in self.table.all() {
            let state = presentity.lock();
            numbers.presentities += 1;
            for publication in &state.publications {
                publications[usize::from(publication.package.0)] += 1;
            }
            for s in state.watchers.iter().filter(|s| !s.ended) {
                let of_package = &mut kinds[usize::from(s.package.0)];
                let [all, late, failing] = &mut of_package[place(s.source().transport)][s.family.number()];
                *all += 1;
                *failing += usize::from(s.delivery.failures() > 0);
                if is_behind(&state, s) {
                    *late += 1;
                    join(behind.entry(presentity.number).or_default(), &state, s, up_since);
                }
            }
        }
        if !behind.is_empty() {
            self.look_back(&mut behind, up_since);
        }
        for group in behind.values().flatten() {
            let age = now.0.saturating_sub(group.since.0);
            numbers.behind_longest_ms = numbers.behind_longest_ms.max(age);
            let older = numbers.behind_longer_than.iter_mut().zip(AGES).filter(|(_, least)| age > least * 1_000);
            older.for_each(|(count, _)| *count += group.count);
        }
        let id = |number: usize| PackageId(number as u8);
        numbers.publications =
            publications.into_iter().enumerate().map(|(n, c)| (package::get(id(n)).name(), c)).collect();
        numbers.subscriptions = kinds.iter().enumerate().flat_map(|(n, table)| rows(id(n), table)).collect();
        numbers
    }

    /// Searches the history for the first change that each group of watchers has not acknowledged.
    fn look_back(&self, behind: &mut HashMap<u32, Vec<Behind>>, up_since: Tick) {
        let mut changes = Vec::new();
        self.history.visit(
            up_since,
            |number| behind.contains_key(&number),
            |entry| {
                if let HistoryEvent::Changed { revisions, .. } = entry.note {
                    changes.push((entry.presentity(), entry.at, revisions));
                }
            },
        );
        for (number, at, revisions) in changes {
            for group in behind.get_mut(&number).into_iter().flatten() {
                let news =
                    revisions.get(usize::from(group.package.0)).is_some_and(|r| *r > group.acknowledged.0 as u32);
                if news && group.acknowledged != Revision::default() {
                    group.since = group.since.min(at);
                }
            }
        }
    }
}

/// Adds a watcher that has not acknowledged the current state to its group.
fn join(groups: &mut Vec<Behind>, state: &State, s: &Subscription, up_since: Tick) {
    // A watcher that has acknowledged nothing has waited since its SUBSCRIBE. Any other has waited since the last
    // change of the lamp, or longer.
    let since = match s.acknowledged == Revision::default() {
        true => s.subscribed_at(),
        false => state.changed_at,
    };
    let since = since.max(up_since);
    let alike = |b: &&mut Behind| b.package == s.package && b.acknowledged == s.acknowledged && b.since == since;
    match groups.iter_mut().rev().find(alike) {
        Some(group) => group.count += 1,
        None => groups.push(Behind { package: s.package, acknowledged: s.acknowledged, since, count: 1 }),
    }
}

/// Counts of the kinds that have any subscriptions.
fn rows(package: PackageId, table: &Table) -> impl Iterator<Item = SubscriptionGroup> + '_ {
    let event = package::get(package).name();
    TRANSPORTS.iter().zip(table).flat_map(move |(transport, families)| {
        let kinds = families.iter().enumerate().filter(|(_, [all, ..])| *all > 0);
        kinds.map(move |(number, [subscriptions, behind, failing])| SubscriptionGroup {
            event,
            transport,
            vendor: Vendor::numbered(number).name(),
            subscriptions: *subscriptions,
            behind: *behind,
            failing: *failing,
        })
    })
}

//! Commits that the disk refuses. Every decision that was not durable is rolled back, in the server as in the oracle.

use std::collections::HashMap;

use bytes::Bytes;

use super::invariants::Leaving;
use super::journal::JournalStep;
use super::scenario::Mutation;
use super::simulation::{Event, Simulation, Violation};
use crate::journal::Acceptance;
use crate::notifier::Outbox;
use crate::transport::DeliveryToken;

/// Longest time for which the disk fails after that (ms).
const LONGEST_FAILURE: u64 = 3_000;

impl Simulation {
    /// Refuses the commit in progress, and with it everything appended after it.
    pub(super) fn refuse_commit(&mut self) -> Result<(), Violation> {
        self.note("-- the disk refuses a commit --");
        self.tally.refused += 1;
        let (mut entries, kept) = self.keeper.refuse();
        let survived = |decision: u64| decision <= kept;
        self.truth.crash(self.now, survived);
        self.laws.refused(self.decision + 1, survived);
        self.accepted.retain(|_, (_, decision)| survived(*decision));
        for presentity in 0..self.plan.presentities() {
            self.truth.pass_time(self.now, presentity);
            self.look_at(presentity);
        }
        if self.options.sabotage == Some(Mutation::RefusedStays) {
            for mut parcel in entries.into_iter().filter_map(|entry| entry.parcel) {
                parcel.packets.retain(|(_, leaving, _)| matches!(leaving, Leaving::Notify(..)));
                parcel.packets.iter_mut().for_each(|(needs, _, _)| *needs = 0);
                self.send_off(parcel)?;
            }
            return self.commit();
        }
        // Entries without a record were only queued behind the others, so they are rolled back last.
        entries.sort_by_key(|entry| entry.records.is_empty());
        // Copies of one NOTIFY have equal bytes and equal tokens.
        let mut made: HashMap<(Bytes, Option<u128>), Vec<Leaving>> = HashMap::new();
        let name = |bytes: &Bytes, ticket: &Option<DeliveryToken>| (bytes.clone(), ticket.map(|ticket| ticket.0));
        let mut left = Outbox::default();
        for parcel in entries.into_iter().filter_map(|entry| entry.parcel) {
            let mut refused = Outbox {
                pending_fan_outs: parcel.unfinished,
                pending_responses: parcel.answers,
                changes: parcel.changes,
                appended: parcel.appended,
                ..Outbox::default()
            };
            for (_, leaving, packet) in parcel.packets {
                made.entry(name(&packet.bytes, &packet.ticket)).or_default().push(leaving);
                refused.messages.push(packet);
            }
            self.server.add_refused(self.tick(), refused, None);
        }
        self.server.finish_rollbacks(self.tick(), &mut left);
        let mut leaves = Vec::new();
        left.messages.retain(|packet| match made.get_mut(&name(&packet.bytes, &packet.ticket)).and_then(Vec::pop) {
            Some(leaving) => {
                leaves.push((leaving, packet.clone()));
                false
            }
            None => true,
        });
        for leaving in made.into_values().flatten() {
            if let Leaving::Notify(key, cseq, _) = leaving {
                self.laws.on_rollback(&key, cseq);
            }
        }
        for (leaving, packet) in leaves {
            self.laws.left(&leaving);
            self.deliver(packet);
        }
        self.server.set_journal_acceptance(Acceptance::Failing);
        let wait = self.random.between(0, LONGEST_FAILURE);
        self.schedule_in(wait, Event::Journal(self.life, JournalStep::Recovered));
        self.decision += 1;
        self.dispatch(left)?;
        self.commit()
    }
}

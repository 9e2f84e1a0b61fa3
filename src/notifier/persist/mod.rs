//! Persistence of subscriptions and presentities in the journal.
//!
//! Each subscription is one record. All other state of a presentity is one record, too. Each acknowledgement of a
//! phone is a small record of its own, which no message waits for. For each key only the latest record counts, so a
//! replay gives the same result at any stage of compaction.
//!
//! `layout.rs` has the encoding of records and `restore.rs` the restore after a restart. `dormant.rs` has the records
//! that this run cannot use, and `ended.rs` the subscriptions that have ended.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Notifier, Outbox};
use crate::journal::{Key, Record};
use crate::package;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::Publication;
use crate::presence::subscription::{Subscription, SubscriptionId, Suppressed};

mod dormant;
mod ended;
mod layout;
mod restore;

pub(super) use dormant::Dormant;
pub(super) use ended::EndedSubscriptions;
pub(super) use layout::{Acknowledged, STATE_SLOT, is_acknowledgement, is_count_of_starts, key_of};
pub use restore::Restored;

use layout::{
    EndedSubscription, Layout, PersistedTransport, PublicationFields, STARTS, StateFields, SubscriptionFields,
    acknowledged_key, encode, encode_known,
};

/// Number of NOTIFYs for which one record of a subscription reserves CSeq numbers.
pub(super) const CSEQ_RESERVE: u32 = 64;
/// Number of CSeq numbers and document versions that each start skips. This is the number of NOTIFYs that may leave
/// while the disk refuses the record that reserves more numbers, because lamps do not wait for a full disk. CSeq has
/// 31 bits, so a dialog can live through 32,000 starts.
pub(super) const CSEQ_SKIP: u32 = 1 << 16;

impl Notifier {
    /// Adds to the outbox the record of a subscription, as it is now.
    pub(super) fn journal_subscription(&self, presentity: &Presentity, s: &Subscription, out: &mut Outbox) {
        if self.settings.journal {
            let value = Some(self.subscription_value(presentity, s));
            out.records.push(self.record(key_of(presentity.number, s.place.slot), value));
        }
    }

    /// Adds to the outbox the tombstones of a subscription and of its acknowledgement.
    pub(super) fn journal_subscription_removed(&self, presentity: &Presentity, slot: u32, out: &mut Outbox) {
        if self.settings.journal {
            out.records.push(self.record(key_of(presentity.number, slot), None));
            out.records.push(self.record(acknowledged_key(presentity.number, slot), None));
        }
    }

    /// Adds to the outbox the record of a subscription that its phone has ended. It replaces the subscription, and
    /// allows the same response if that SUBSCRIBE is retransmitted after a restart.
    pub(super) fn journal_subscription_ended(
        &self,
        now: Tick,
        presentity: &Presentity,
        s: &Subscription,
        out: &mut Outbox,
    ) {
        if self.settings.journal {
            let SubscriptionId { slot, nonce, .. } = s.place;
            let ended = EndedSubscription {
                account: self.settings.directory.account_id(presentity.aor.account).into(),
                user: presentity.aor.user.to_string(),
                nonce,
                call_id: s.dialog.call_id().into(),
                cseq: s.dialog.remote_cseq,
                until: now.after(ended::ENDED_LASTS),
            };
            let value = encode(Layout::EndedSubscription, &ended);
            out.records.push(self.record(key_of(presentity.number, slot), Some(value)));
            out.records.push(self.record(acknowledged_key(presentity.number, slot), None));
        }
    }

    /// Adds to the outbox the acknowledgement of a phone as a deferred record.
    pub(super) fn journal_acknowledged(
        &self,
        presentity: &Presentity,
        slot: u32,
        known: Acknowledged,
        out: &mut Outbox,
    ) {
        if self.settings.journal {
            let key = acknowledged_key(presentity.number, slot);
            out.deferred_records.push(self.record(key, Some(encode_known(&known))));
        }
    }

    /// Adds to the outbox the state record of a presentity, as it is now; a tombstone if there is no state.
    pub(super) fn journal_presentity(&self, presentity: &Presentity, state: &State, out: &mut Outbox) {
        if self.settings.journal {
            let value = self.state_value(presentity, state);
            out.records.push(self.record(key_of(presentity.number, STATE_SLOT), value));
        }
    }

    /// Adds to the outbox the record that holds now, under a key whose record the journal has refused.
    pub(super) fn journal_current(&self, Key(number, slot): Key, out: &mut Outbox) {
        let kept = self.table.with_id(number as u32, |presentity, state| match slot {
            STATE_SLOT => self.journal_presentity(presentity, state, out),
            _ => match state.watchers.get_mut(slot).filter(|s| !s.ended) {
                Some(subscription) => {
                    self.journal_subscription(presentity, subscription, out);
                    // The refused change may have removed the acknowledgement as well.
                    let tag = state.views[subscription.package.0 as usize].tag();
                    if subscription.acknowledged == tag.revision {
                        self.journal_acknowledged(presentity, slot, tag.into(), out);
                    }
                }
                None => self.journal_subscription_removed(presentity, slot, out),
            },
        });
        if kept.is_none() {
            out.records.push(self.record(Key(number, slot), None));
        }
    }

    /// Increases the count of starts, and returns its record.
    fn count_start(&self, before: u32) -> Record {
        let starts = before.saturating_add(1);
        self.starts.store(starts, Ordering::Relaxed);
        self.record(STARTS, Some(encode(Layout::Starts, &starts)))
    }

    /// Creates a record. The caller holds the lock of the presentity, so the order of the records of a key is the
    /// order of the changes.
    fn record(&self, key: Key, value: Option<Bytes>) -> Record {
        Record { key, value, order: self.next_number() }
    }

    pub(super) fn subscription_value(&self, presentity: &Presentity, s: &Subscription) -> Bytes {
        encode(
            Layout::Subscription,
            &SubscriptionFields {
                account: self.settings.directory.account_id(presentity.aor.account),
                user: &presentity.aor.user,
                package: package::get(s.package).name(),
                nonce: s.place.nonce,
                event_id: s.event_id(),
                phone: s.phone.id(),
                // After a restart, CSeq continues at the end of the reserved numbers.
                dialog: s.dialog.kept(s.reserved),
                entity: s.entity(&presentity.uri),
                user_agent: s.user_agent.as_deref(),
                way: PersistedTransport::of(&s.source()),
                listener: s.source().listener.0,
                peer: s.source().peer,
                subscribed_at: s.subscribed_at(),
                granted: s.granted,
                expires_at: s.expires_at,
                reserved: s.reserved,
                suppressed: s.suppressed() == Suppressed::Everything,
                max_rate: s.max_rate(),
                named: s.named(),
                starts: self.starts.load(Ordering::Relaxed),
            },
        )
    }

    fn state_value(&self, presentity: &Presentity, state: &State) -> Option<Bytes> {
        let calls = !state.calls.is_quiet() || state.remembers();
        if !calls && state.is_idle() {
            return None;
        }
        let publications = state.publications.iter().map(|p: &Publication| PublicationFields {
            etag: p.etag,
            package: package::get(p.package).name(),
            expires_at: p.expires_at,
            granted: Some(p.granted),
            requests: Some(p.requests),
            content: &p.content,
        });
        Some(encode(
            Layout::State,
            &StateFields {
                account: self.settings.directory.account_id(presentity.aor.account),
                user: &presentity.aor.user,
                calls: &state.calls,
                publications: publications.collect(),
                manual: state.manual,
                revisions: state.views.each_ref().map(|view| view.revision.0),
                removed: state.removed.as_deref(),
            },
        ))
    }

    /// Passes every record that holds now to `each`, for compaction. Presentities are locked one at a time, and none
    /// is locked while `each` runs, because that may write to a disk that hangs.
    pub fn snapshot(&self, mut each: impl FnMut(Key, Bytes)) {
        each(STARTS, encode(Layout::Starts, &self.starts.load(Ordering::Relaxed)));
        self.dormant.for_each(&mut each);
        self.ended.for_each(&mut each);
        let mut records = Vec::new();
        for presentity in self.table.all() {
            self.collect(&presentity, &mut records);
            records.drain(..).for_each(|(key, value)| each(key, value));
        }
    }

    /// Collects every record of a presentity that holds now.
    fn collect(&self, presentity: &Presentity, records: &mut Vec<(Key, Bytes)>) {
        let state = presentity.lock();
        if let Some(value) = self.state_value(presentity, &state) {
            records.push((key_of(presentity.number, STATE_SLOT), value));
        }
        for s in state.watchers.iter().filter(|s| !s.ended) {
            let slot = s.place.slot;
            records.push((key_of(presentity.number, slot), self.subscription_value(presentity, s)));
            let view = &state.views[s.package.0 as usize];
            if s.acknowledged == view.revision {
                let known = Acknowledged::from(view.tag());
                records.push((acknowledged_key(presentity.number, slot), encode_known(&known)));
            }
        }
    }

    /// Drops dormant records that have expired, and logs their number.
    pub(super) fn end_dormant(&self, now: Tick, out: &mut Outbox) {
        self.ended.pass_time(now);
        let Some(ended) = self.dormant.take_ended(now) else { return };
        for (account, records) in &ended.accounts {
            tracing::info!(account, records, "unusable journal records have expired and are removed");
        }
        for key in &ended.keys {
            out.deferred_records.push(self.record(*key, None));
            self.table.with_id(key.0 as u32, |_, state| state.watchers.unreserve(key.1));
        }
        ended.numbers.into_iter().for_each(|number| self.table.unreserve(number));
    }

    /// Returns the time when [`Notifier::end_dormant`] must run next.
    pub(super) fn next_end(&self) -> Option<Tick> {
        [self.dormant.next_end(), self.ended.until()].into_iter().flatten().min()
    }

    /// Returns the number of journal records that are kept unchanged because this run cannot use them.
    pub fn dormant_records(&self) -> usize {
        self.dormant.len()
    }
}

#[cfg(test)]
mod tests;

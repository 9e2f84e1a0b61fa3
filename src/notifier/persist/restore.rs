//! Restore after a restart: puts back all that the journal has kept, and sends a NOTIFY only to watchers that may not
//! have the current state.
//!
//! Times from before the restart can only become shorter: no lifetime exceeds the granted one, counted from now.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::wheel::TimerKind;
use super::super::{Notifier, Outbox};
use super::dormant::DormantRecord;
use super::layout::{
    Acknowledged, PersistedPublication, PersistedRecord, PersistedState, PersistedSubscription, STATE_SLOT,
    acknowledged_key, key_of,
};
use crate::journal::{Key, Record};
use crate::package;
use crate::presence::presentity::{Presentity, State};
use crate::presence::publication::{Publication, REMOVED_LASTS, RequestId, RequestLog};
use crate::presence::subscription::{
    Delivery, Doubts, NewSubscription, Revision, SubscribeOptions, Subscription, SubscriptionId, Suppressed,
};
use crate::presence::vendor::Vendor;
use crate::presence::{Aor, Tick};
use crate::transport::{ListenerId, Source};

/// Interval between the NOTIFYs after a restart (ms): 500 per second over all phones, and to each phone no more than
/// its pacing allows.
const RESYNC_INTERVAL: u64 = 2;
/// Result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Restored subscriptions.
    pub subscriptions: usize,
    /// Those of them whose phone may not have the current state.
    pub behind: usize,
    /// Presentities with publications, calls or a state set by hand.
    pub states: usize,
    /// Record with the count of starts. It must be appended before any request is served.
    pub starts: Option<Record>,
    /// Records of lifetimes that had to be shortened, appended together with `starts`. A wrong clock had made them
    /// longer than granted, and would do so again at each restart.
    pub shortened: Vec<Record>,
    /// Records that stay in the journal but are not used in this run, counted by the id of their account: the account
    /// is no longer configured, or the listener or event package that they need is not. The empty id stands for
    /// records that cannot be read.
    pub dormant: BTreeMap<String, usize>,
}

impl Restored {
    /// Returns the number of records that stay in the journal unused.
    pub fn unusable(&self) -> usize {
        self.dormant.values().sum()
    }
}

/// Data that is only needed while the records are restored.
#[derive(Default)]
struct Past {
    /// Acknowledged revisions with their records, by presentity number and slot.
    known: BTreeMap<(u32, u32), (Acknowledged, Bytes)>,
    dormant: BTreeMap<Key, DormantRecord>,
}

impl Notifier {
    /// Restores the records of the journal. Only watchers whose phone may not have the current state are sent a
    /// NOTIFY, spread in time.
    pub fn restore(&self, now: Tick, records: impl IntoIterator<Item = (Key, Bytes)>) -> Restored {
        let mut restored = Restored::default();
        self.restart_grace_until.store(now.after(REMOVED_LASTS).0, Ordering::Relaxed);
        let mut past = Past::default();
        let (mut states, mut subscriptions, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let max_expires = self.settings.presence.max_expires;
        let mut starts = 0;
        for (key @ Key(number, slot), value) in records {
            let presentity = number as u32;
            match PersistedRecord::read(key, &value) {
                // Its key has no presentity number.
                Some(PersistedRecord::Starts(before)) => {
                    starts = before;
                    continue;
                }
                Some(PersistedRecord::Acknowledged(known)) => {
                    past.known.insert((presentity, slot), (known, value));
                }
                Some(PersistedRecord::State(kept)) => states.push((presentity, kept, value)),
                Some(PersistedRecord::Subscription(kept)) => subscriptions.push((presentity, slot, kept, value)),
                Some(PersistedRecord::EndedSubscription(ended)) => self.ended.restore(now, presentity, slot, ended),
                None => past.lay_aside(key, DormantRecord::new(now, value, None, 0)),
            }
            self.table.keep_away_from(presentity);
        }
        restored.starts = Some(self.count_start(starts));
        for (number, kept, value) in states {
            let shortened = kept
                .publications
                .iter()
                .any(|p| p.ends(now, max_expires).min(p.expires_at) != p.expires_at || p.expires_at <= now);
            match self.restore_state(now, number, kept) {
                Ok(()) => {
                    restored.states += 1;
                    keys.extend(shortened.then_some(key_of(number, STATE_SLOT)));
                }
                Err(kept) => past
                    .lay_aside(key_of(number, STATE_SLOT), self.dormant_of(now, value, PersistedRecord::State(kept))),
            }
        }
        for (number, slot, kept, value) in subscriptions {
            let shortened = kept.ends(now) < kept.expires_at;
            match self.restore_subscription(now, number, slot, kept) {
                Ok(()) => {
                    restored.subscriptions += 1;
                    keys.extend(shortened.then_some(key_of(number, slot)));
                }
                Err(kept) => {
                    past.lay_aside(
                        key_of(number, slot),
                        self.dormant_of(now, value, PersistedRecord::Subscription(kept)),
                    );
                }
            }
        }
        self.reserve_dormant(&mut past);
        for record in past.dormant.values() {
            *restored.dormant.entry(record.account.clone()).or_default() += 1;
        }
        self.dormant.fill(past.dormant);
        restored.behind = self.resync_stale(now, &past.known);
        let mut out = Outbox::default();
        keys.into_iter().for_each(|key| self.journal_current(key, &mut out));
        restored.shortened = out.records;
        restored
    }

    fn dormant_of(&self, now: Tick, value: Bytes, kept: PersistedRecord) -> DormantRecord {
        DormantRecord::new(now, value, Some(kept), self.settings.presence.max_expires)
    }

    /// Reserves the numbers and slots of dormant records, so that nothing else gets them.
    fn reserve_dormant(&self, past: &mut Past) {
        let keys: Vec<_> = past.dormant.keys().copied().collect();
        for Key(number, slot) in keys.iter().copied() {
            if let Some((known, value)) = past.known.remove(&(number as u32, slot)) {
                let record = self.dormant_of(Tick(0), value, PersistedRecord::Acknowledged(known));
                past.lay_aside(acknowledged_key(number as u32, slot), record);
            }
        }
        let (states, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|Key(_, slot)| *slot == STATE_SLOT);
        for Key(number, slot) in states.into_iter().chain(rest) {
            let number = number as u32;
            // If only a subscription cannot be used, its presentity continues under its number, without that slot.
            let presentity = self.table.by_number(number).or_else(|| {
                let record = past.dormant.get(&key_of(number, slot)).filter(|_| slot != STATE_SLOT)?;
                let (aor, realm) = self.aor_of(&record.account, &record.user)?;
                self.table.restore(number, &aor, realm)
            });
            match presentity {
                Some(presentity) if slot != STATE_SLOT => _ = presentity.lock().watchers.reserve(slot),
                Some(_) => {}
                None => self.table.reserve(number),
            }
        }
    }

    pub(super) fn aor_of(&self, account: &str, user: &str) -> Option<(Aor, &str)> {
        let account = self.settings.directory.account_by_id(account)?;
        Some((Aor::of(account, user)?, self.settings.directory.realm(account)))
    }

    fn restore_state(&self, now: Tick, number: u32, kept: Box<PersistedState>) -> Result<(), Box<PersistedState>> {
        let Some((aor, realm)) = self.aor_of(&kept.account, &kept.user) else { return Err(kept) };
        let Some(presentity) = self.table.restore(number, &aor, realm) else { return Err(kept) };
        let mut state = presentity.lock();
        let PersistedState { calls, publications, manual, revisions, removed, .. } = *kept;
        state.calls = calls;
        state.calls.shorten(now);
        state.manual = manual;
        for (view, revision) in state.views.iter_mut().zip(revisions) {
            view.revision = Revision(revision);
        }
        if let Some(mut removed) = removed {
            removed.begin_again(now);
            state.removed = Some(Box::new(removed));
        }
        for kept in publications {
            self.restore_publication(now, &presentity, &mut state, kept);
        }
        // Expire these before any watcher is sent the restored state.
        let expired = state.publications.iter().filter(|p| p.expires_at <= now).map(|p| p.etag.number);
        for number in expired.collect::<Vec<_>>() {
            self.expire_publication(now, &presentity, &mut state, number);
        }
        self.arm_call_timer(now, &presentity, &mut state);
        Ok(())
    }

    fn restore_publication(&self, now: Tick, presentity: &Presentity, state: &mut State, kept: PersistedPublication) {
        let Some(package) = package::by_name(&kept.package) else { return };
        let max_expires = self.settings.presence.max_expires;
        let (granted, expires_at) = (kept.granted(max_expires), kept.ends(now, max_expires));
        let PersistedPublication { etag, requests, content, .. } = kept;
        let timer_at = self.wheel.schedule(now, expires_at, presentity.number, TimerKind::Publication(etag.number));
        state.publications.push(Publication {
            etag,
            // Earlier versions stored no requests, so no request is taken for a retransmission of theirs.
            in_doubt: requests.is_some(),
            requests: requests.unwrap_or_else(|| RequestLog::begun_by(RequestId(self.nonce()))),
            granted,
            package,
            expires_at,
            timer_at,
            origin: None,
            content,
        });
    }

    pub(in super::super) fn restore_subscription(
        &self,
        now: Tick,
        number: u32,
        slot: u32,
        kept: Box<PersistedSubscription>,
    ) -> Result<(), Box<PersistedSubscription>> {
        let Some((aor, realm)) = self.aor_of(&kept.account, &kept.user) else { return Err(kept) };
        let transport = kept.way.transport();
        let listener = self.settings.routing.restore_listener(transport, ListenerId(kept.listener), kept.peer);
        let (Some(package), Some(listener)) = (package::by_name(&kept.package), listener) else { return Err(kept) };
        let Some(presentity) = self.table.restore(number, &aor, realm) else { return Err(kept) };
        let mut state = presentity.lock();
        if !state.watchers.is_free(slot) {
            return Err(kept);
        }
        let (expires_at, counted) = (kept.ends(now), kept.counted(self.starts.load(Ordering::Relaxed)));
        let kept = *kept;
        let expiry_timer = self.wheel.schedule(now, expires_at, number, TimerKind::Expiry(slot));
        let particulars = SubscribeOptions {
            event_id: kept.event_id,
            named: kept.named,
            max_rate: kept.max_rate,
            suppressed: if kept.suppressed { Suppressed::Everything } else { Suppressed::Nothing },
        };
        // The connection was lost when the earlier process ended.
        let source = Source { transport, listener, peer: kept.peer, flow: None, certified: kept.way.is_certified() };
        self.rate_limiter.mark_verified(now, &source);
        let beginning = NewSubscription {
            place: SubscriptionId { presentity: number, slot, nonce: kept.nonce },
            package,
            phone: self.phones.get_or_create(kept.phone),
            dialog: kept.dialog,
            requested_uri: (*kept.entity != *presentity.uri).then(|| kept.entity.into()),
            source,
        };
        // The phone may have been sent a NOTIFY just before the restart. A new subscription has the current time in
        // `told_at`, which covers that.
        let mut subscription = Subscription::new(now, beginning);
        subscription.options = particulars.boxed();
        if let Some(agent) = kept.user_agent {
            let (agent, family) = self.user_agents.share(&agent, Vendor::of);
            (subscription.user_agent, subscription.family) = (Some(agent), family);
        }
        (subscription.granted, subscription.expires_at) = (kept.granted, expires_at);
        // Responses to NOTIFYs from before the crash are out of date.
        (subscription.dialog.local_cseq, subscription.next_version) = (counted, counted);
        (subscription.reserved, subscription.confirmed_cseq) = (counted, counted);
        subscription.expiry_timer = expiry_timer;
        subscription.doubts.add(Doubts::ANSWER_LOST);
        state.watchers.restore(slot, subscription);
        self.table.count_subscription(aor.account);
        Ok(())
    }

    /// Composes the documents of all presentities, and schedules NOTIFYs to the watchers that may be stale. Returns
    /// the number of these watchers.
    fn resync_stale(&self, now: Tick, known: &BTreeMap<(u32, u32), (Acknowledged, Bytes)>) -> usize {
        let mut behind = 0;
        for presentity in self.table.all() {
            let mut state = presentity.lock();
            // Composing after a restart is not a change, so the revisions stay the same.
            let revisions = state.views.each_ref().map(|view| view.revision);
            self.compose_all(&presentity, &mut state, false);
            // If no state was stored, the revision of the composed state stays: it is the first one, and a phone may
            // have a different state.
            let kept = |revision: &Revision| *revision != Revision::default();
            for (view, revision) in state.views.iter_mut().zip(revisions).filter(|(_, revision)| kept(revision)) {
                view.revision = revision;
            }
            let views = state.views.each_ref().map(|view| (view.revision, view.fingerprint));
            for slot in 0..state.watchers.slots() as u32 {
                let Some(s) = state.watchers.get_mut(slot) else { continue };
                let (revision, fingerprint) = views[s.package.0 as usize];
                let knows = known.get(&(presentity.number, slot)).map(|(known, _)| *known);
                if knows == Some(Acknowledged(revision.0, fingerprint)) {
                    s.acknowledged = revision;
                    continue;
                }
                if s.suppresses(revision) {
                    continue;
                }
                behind += 1;
                let until = now
                    .after(behind as u64 * RESYNC_INTERVAL)
                    .max(s.phone.reserve_send_time(now))
                    .max(s.next_notify_allowed_at(self.settings.presence.min_notify_interval_ms));
                s.delivery = Delivery::Throttled { until, failures: 0 };
                self.arm_delivery_timer(now, s, until);
            }
        }
        behind
    }
}

impl Past {
    fn lay_aside(&mut self, key: Key, record: DormantRecord) {
        self.dormant.insert(key, record);
    }
}

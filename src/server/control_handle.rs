//! Implementation of the API's `Control` and `Explain` traits: calls the notifier with the current time, waits for the
//! journal and hands the messages to an I/O thread.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock::Clock;
use super::dns_resolver::Resolver;
use super::journal_setup;
use super::readiness::Readiness;
use crate::capture::Capture;
use crate::directory::AccountNo;
use crate::journal::{Acceptance, Health, Hold, Journal};
use crate::notifier::change_feed::Changed;
use crate::notifier::control::{
    Control, ControlError, DrainStatus, ListingPage, PageStart, PublicationRecord, ServerStats, SubscriptionRecord,
};
use crate::notifier::dns_cache::DnsQuery;
use crate::notifier::explain::Explain;
use crate::notifier::explain::report::{
    Cursor, Lamp, LampReport, Overview, SubscriptionReport, TraceReport, WatcherRow,
};
use crate::notifier::refusals::{ApiRefusal, RefusalRow};
use crate::notifier::{Notifier, Outbox};
use crate::package::PackageId;
use crate::presence::Tick;
use crate::presence::state::CallState;
use crate::transport::ConnectionTable;

pub(super) struct ControlHandle {
    pub(super) notifier: Arc<Notifier>,
    pub(super) clock: Clock,
    /// Channel to the I/O thread that sends. Each API call adds at most one slice of a fan-out, and waits while the
    /// channel is full.
    pub(super) outbound: mpsc::Sender<Outbox>,
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) shared: Arc<ConnectionTable>,
    pub(super) resolver: Arc<Resolver>,
    /// Channel of DNS queries, here only to report how many wait.
    pub(super) questions: mpsc::Sender<DnsQuery>,
    pub(super) tap: Option<Arc<Capture>>,
    pub(super) doors: Arc<Readiness>,
}

impl ControlHandle {
    /// Checks that the journal accepts changes: a change that it would refuse is not begun (rule 5).
    fn ask_journal(&self) -> Result<(), ControlError> {
        match self.journal.as_ref().map(|journal| journal.accepts()) {
            None | Some(Acceptance::Accepting) => Ok(()),
            Some(Acceptance::Overloaded | Acceptance::Failing) => Err(ControlError::NotKept),
        }
    }

    /// Changes one user after the other. If one cannot be changed, all changes are rolled back.
    fn change(
        &self,
        account: AccountNo,
        users: &[String],
        request: &str,
        change: impl Fn(Tick, &str, &mut Outbox) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        self.ask_journal()?;
        let (now, mut out) = (self.clock.now(), Outbox::default());
        for user in users {
            if let Err(refusal) = change(now, user, &mut out) {
                self.take_back(out, None);
                return Err(refusal);
            }
            self.notifier.attribute_change(now, account, user, request);
        }
        self.commit_and_send(out)
    }

    /// Waits until the journal has committed the records (rule 5), then sends the messages. If the journal refuses, the
    /// change is rolled back.
    ///
    /// # Errors
    /// [`ControlError::NotKept`] if the change could not be committed.
    fn commit_and_send(&self, mut out: Outbox) -> Result<(), ControlError> {
        let records = out.take_records();
        if let (Some(journal), false) = (&self.journal, records.is_empty()) {
            let (done, kept) = std::sync::mpsc::sync_channel(1);
            journal.append(records, move |result| {
                // The receiver is gone only if the request was cancelled.
                let _ = done.send(result);
            });
            // A commit takes milliseconds, and a disk that hangs is given up after seconds; other worker threads serve
            // other requests meanwhile.
            let kept = tokio::task::block_in_place(|| kept.recv());
            // If the channel is closed without a result, the journal was closed.
            if let Some(hold) = kept.map_or(Some(None), |kept| kept.err().map(|refused| Some(refused.hold))) {
                self.take_back(out, hold);
                return Err(ControlError::NotKept);
            }
        }
        self.send(out);
        Ok(())
    }

    /// Rolls a refused change back: restores the state in memory, and sends the messages that this makes necessary.
    fn take_back(&self, refused: Outbox, hold: Option<Hold>) {
        let mut out = Outbox::default();
        self.notifier.roll_back(self.clock.now(), refused, hold, &mut out);
        journal_setup::append_rollback(self.journal.as_deref(), &mut out);
        self.send(out);
    }

    fn send(&self, out: Outbox) {
        if !out.is_empty() {
            // The receiver is gone only while the server stops.
            let _ = tokio::task::block_in_place(|| self.outbound.blocking_send(out).ok());
        }
    }
}

impl Control for ControlHandle {
    fn subscriptions(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<SubscriptionRecord> {
        self.notifier.subscriptions_from(account, package, from)
    }

    fn publications(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<PublicationRecord> {
        self.notifier.publications_from(account, package, from)
    }

    fn reset(&self, account: AccountNo, users: &[String], request: &str) -> Result<(), ControlError> {
        self.change(account, users, request, |now, user, out| {
            self.notifier.reset(now, account, user, out);
            Ok(())
        })
    }

    fn set(&self, account: AccountNo, users: &[String], state: CallState, request: &str) -> Result<(), ControlError> {
        self.change(account, users, request, |now, user, out| self.notifier.set(now, account, user, state, out))
    }

    fn drain(&self, begin: bool) -> Result<(), ControlError> {
        if begin {
            self.doors.close(false);
        } else if !self.doors.open() {
            return Err(ControlError::Stopping);
        }
        Ok(())
    }

    fn can_keep(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.health() == Health::Good)
    }

    fn left(&self) -> DrainStatus {
        DrainStatus { draining: !self.doors.is_ready(), ..self.notifier.left() }
    }

    fn note_refusal(&self, refusal: &ApiRefusal<'_>) {
        self.notifier.note_api_refusal(self.clock.now(), refusal);
    }

    fn wrong_token(&self, from: IpAddr) -> Duration {
        self.notifier.wrong_token(self.clock.now(), from)
    }

    fn refusals(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
        self.notifier.refusal_rows(account, from, most)
    }
}

impl Explain for ControlHandle {
    fn lamp(&self, account: AccountNo, extension: &str) -> Option<Lamp> {
        self.notifier.lamp(account, extension)
    }

    fn lamps(&self, account: AccountNo, from: &str, most: usize) -> Vec<Lamp> {
        self.notifier.lamps(account, from, most)
    }

    fn lamp_story(&self, account: AccountNo, extension: &str) -> Option<LampReport> {
        self.notifier.lamp_story(self.clock.now(), account, extension)
    }

    fn subscription(&self, account: AccountNo, id: &str) -> Option<WatcherRow> {
        self.notifier.subscription(account, id)
    }

    fn subscription_story(&self, account: AccountNo, id: &str) -> Option<SubscriptionReport> {
        self.notifier.subscription_story(account, id)
    }

    fn find_watchers(&self, account: AccountNo, text: &str, from: &Cursor, most: usize) -> Vec<WatcherRow> {
        self.notifier.find_watchers(account, text, from, most)
    }

    fn resend(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError> {
        let (now, mut out) = (self.clock.now(), Outbox::default());
        let found = self.notifier.resend(now, account, id, &mut out);
        if found {
            self.notifier.attribute_notify(now, id, request);
        }
        self.commit_and_send(out).map(|()| found)
    }

    fn end(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError> {
        self.ask_journal()?;
        let (now, mut out) = (self.clock.now(), Outbox::default());
        let found = self.notifier.end(now, account, id, &mut out);
        if found {
            self.notifier.attribute_notify(now, id, request);
        }
        self.commit_and_send(out).map(|()| found)
    }

    fn trace(&self, account: AccountNo, id: &str, seconds: u32) -> Result<bool, ControlError> {
        self.notifier.trace(self.clock.now(), account, id, seconds)
    }

    fn trace_story(&self, account: AccountNo, id: &str) -> Option<TraceReport> {
        self.notifier.trace_story(self.clock.now(), account, id)
    }

    fn forget_trace(&self, account: AccountNo, id: &str) -> bool {
        self.notifier.forget_trace(self.clock.now(), account, id)
    }

    fn overview(&self, account: AccountNo) -> Overview {
        self.notifier.overview(self.clock.now(), account)
    }

    fn vitals(&self) -> ServerStats {
        let (names_under_way, lookups) = self.resolver.stats();
        ServerStats {
            up_since_ms: self.clock.started().0,
            numbers: self.notifier.numbers(self.clock.now(), self.clock.started()),
            transport: self.shared.stats(),
            journal: self.journal.as_ref().map(|journal| journal.stats()),
            names_waiting: self.questions.max_capacity() - self.questions.capacity(),
            names_under_way,
            lookups,
            capture: self.tap.as_ref().map(|tap| tap.stats()),
        }
    }

    fn listen(&self, on: bool) {
        self.notifier.listen(on);
    }

    fn changes(&self) -> (Vec<Changed>, bool) {
        self.notifier.changes()
    }
}

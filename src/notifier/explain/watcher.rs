//! Report of a subscription.

use super::MOST_EXCHANGES;
use super::is_behind;
use super::report::{
    Cursor, DeliveryStatus, DialogRow, ExchangeRow, FlowRow, InFlightRow, LastNotifyRow, SubscriptionReport, WatcherRow,
};
use crate::directory::AccountNo;
use crate::notifier::Notifier;
use crate::notifier::admin::{last_notify, watcher_uri};
use crate::notifier::audit::Attributions;
use crate::notifier::history::{Entry, HistoryEvent, news_since};
use crate::package;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, Subscription, SubscriptionId};
use crate::sip::headers::list;

/// Number of presentities that are taken out of the table at once.
const AT_ONCE: usize = 256;

impl Notifier {
    /// Summary of one subscription; none if it does not exist or belongs to another account.
    pub fn subscription(&self, account: AccountNo, id: &str) -> Option<WatcherRow> {
        self.with_subscription(account, id, |presentity, state, place| {
            let found = state.watchers.iter().find(|s| s.place == place);
            found.map(|s| self.watcher_of(presentity, state, s))
        })?
    }

    /// Full report of one subscription; none if it does not exist or belongs to another account.
    pub fn subscription_story(&self, account: AccountNo, id: &str) -> Option<SubscriptionReport> {
        // The history may be long, so it is read before the presentity is locked.
        let place = SubscriptionId::read(id)?;
        let mut teller = ExchangeBuilder::new(place);
        let told = self.history.of_subscription(place);
        let changes = self.history.of_presentity(place.presentity);
        let reasons = self.reasons(place.presentity, &changes);
        let mut exchanges: Vec<_> = told.iter().filter_map(|entry| teller.tell(entry, &reasons)).collect();
        self.with_subscription(account, id, |presentity, state, place| {
            let s = state.watchers.iter().find(|s| s.place == place)?;
            let mut row = self.watcher_of(presentity, state, s);
            if row.behind > 0
                && let Some((at, longer)) = news_since(&changes, s.package, s.acknowledged.0)
            {
                (row.stale_since, row.stale_since_is_lower_bound) = (Some(at.0), longer);
            }
            exchanges.drain(..exchanges.len().saturating_sub(MOST_EXCHANGES));
            let under_way = match &s.delivery {
                Delivery::InFlight(flight) => Some(InFlightRow {
                    cseq: flight.cseq,
                    version: flight.version,
                    sent_at: flight.sent_at.0,
                    copies: flight.copies.saturating_sub(teller.carried),
                    bytes: flight.size as usize,
                    request: teller.request(&reasons, flight.sent_at),
                }),
                _ => None,
            };
            let first = exchanges.iter().find(|e| e.method == "NOTIFY").map(|e| e.cseq);
            let earlier = match (first, &under_way) {
                (Some(cseq), _) => cseq.saturating_sub(1),
                (None, Some(flight)) => flight.cseq.saturating_sub(1),
                (None, None) => s.dialog.local_cseq,
            };
            Some(SubscriptionReport {
                event_id: s.event_id().map(String::from),
                granted: s.granted,
                subscribed_at: s.subscribed_at().0,
                revision: state.views[s.package.0 as usize].revision.0,
                dialog: dialog_of(s),
                flow: self.flow_of(s),
                under_way,
                last_body: s
                    .last()
                    .map(|last| last_notify(&presentity.uri, s, last).body)
                    .filter(|body| !body.is_empty()),
                exchanges,
                earlier,
                traced_until: self.trace_ends(place),
                row,
            })
        })?
    }

    /// Subscriptions whose watcher, User-Agent or address contains `text`, or whose Call-ID is `text`. They are ordered
    /// by extension and start at `from`; at most `most`.
    pub fn find_watchers(&self, account: AccountNo, text: &str, from: &Cursor, most: usize) -> Vec<WatcherRow> {
        let text = text.to_lowercase();
        let mut found = Vec::new();
        let mut start = from.extension.clone();
        loop {
            let some = self.table.of_account_from(account, &start, AT_ONCE + 1);
            for presentity in some.iter().take(AT_ONCE) {
                let first = if *presentity.aor.user == *from.extension { from.slot } else { 0 };
                let state = presentity.lock();
                let wanted = |s: &&Subscription| !s.ended && s.place.slot >= first && has(s, &text);
                for s in state.watchers.iter().filter(wanted) {
                    if found.len() == most {
                        return found;
                    }
                    found.push(self.watcher_of(presentity, &state, s));
                }
            }
            match some.get(AT_ONCE) {
                Some(next) => start = next.aor.user.to_string(),
                None => return found,
            }
        }
    }

    pub(super) fn watcher_of(&self, presentity: &Presentity, state: &State, s: &Subscription) -> WatcherRow {
        let current = state.views[s.package.0 as usize].revision;
        let behind = is_behind(state, s);
        let next_try = match s.delivery {
            Delivery::Throttled { until, .. }
            | Delivery::Resolving { until, .. }
            | Delivery::Suspended { until, .. } => Some(until.0),
            Delivery::Idle | Delivery::InFlight(_) => None,
        };
        WatcherRow {
            id: s.place.to_string(),
            extension: presentity.aor.user.to_string(),
            watcher: watcher_uri(s).to_string(),
            event: package::get(s.package).name(),
            vendor: s.family.name(),
            user_agent: s.user_agent.as_deref().map(String::from),
            transport: s.source().transport.to_string(),
            peer: s.source().peer.to_string(),
            expires_at: s.expires_at.0,
            delivery_status: standing(s, behind),
            acknowledged: s.acknowledged.0,
            behind: if behind { current.0.saturating_sub(s.acknowledged.0).max(1) } else { 0 },
            stale_since: None,
            stale_since_is_lower_bound: false,
            last: s.last().map(|last| LastNotifyRow { cseq: last.cseq, reply: last.reply, version: last.version }),
            failures: s.delivery.failures(),
            next_try_at: next_try,
        }
    }

    fn flow_of(&self, s: &Subscription) -> FlowRow {
        FlowRow {
            transport: s.source().transport.to_string(),
            peer: s.source().peer.to_string(),
            local: self.settings.routing.listener(s.source().listener).sent_by.to_string(),
            connection: s.source().flow.map(|flow| flow.0),
            certified: s.source().certified,
        }
    }
}

/// Converts the history entries of one subscription to rows. They must be passed in their order.
pub(super) struct ExchangeBuilder {
    place: SubscriptionId,
    /// Retransmissions already counted for the next NOTIFY. A NOTIFY that supersedes another continues its count, and
    /// counts itself as one.
    carried: u8,
    /// Start of the previous exchange with the phone; none before the first entry.
    since: Option<Tick>,
}

impl ExchangeBuilder {
    pub(super) fn new(place: SubscriptionId) -> ExchangeBuilder {
        ExchangeBuilder { place, carried: 0, since: None }
    }

    /// API request that caused a NOTIFY sent after all entries so far.
    fn request(&self, reasons: &Attributions, sent: Tick) -> Option<String> {
        reasons.of_notify(self.place, self.since?, sent)
    }

    pub(super) fn tell(&mut self, entry: &Entry, reasons: &Attributions) -> Option<ExchangeRow> {
        let mut row = exchange(self.place, entry)?;
        let began = Tick(row.at - u64::from(row.delay_ms.unwrap_or(0)).min(row.at));
        if row.method == "NOTIFY" {
            row.request = self.request(reasons, began);
        }
        self.since = Some(began);
        let counted = row.copies;
        row.copies = counted.saturating_sub(self.carried);
        self.carried = if row.reply == 0 { counted.saturating_add(1) } else { 0 };
        Some(row)
    }
}

fn exchange(place: SubscriptionId, entry: &Entry) -> Option<ExchangeRow> {
    let row = ExchangeRow {
        subscription: place.to_string(),
        at: entry.at.0,
        method: "SUBSCRIBE",
        cseq: 0,
        reply: 200,
        version: None,
        granted: None,
        delay_ms: None,
        bytes: None,
        copies: 0,
        transport: None,
        request: None,
    };
    match entry.note {
        HistoryEvent::Subscribed { cseq, granted } => Some(ExchangeRow { cseq, granted: Some(granted), ..row }),
        HistoryEvent::Notified { cseq, version, reply, copies, transport, delay, bytes, .. } => Some(ExchangeRow {
            method: "NOTIFY",
            cseq,
            reply,
            version: Some(version),
            delay_ms: Some(delay),
            bytes: Some(bytes),
            copies,
            transport: Some(transport.to_string()),
            ..row
        }),
        HistoryEvent::Changed { .. } => None,
    }
}

fn dialog_of(s: &Subscription) -> DialogRow {
    DialogRow {
        call_id: s.dialog.call_id().to_string(),
        local: s.dialog.local().to_string(),
        local_tag: s.place.to_string(),
        remote: s.dialog.remote().to_string(),
        target: s.dialog.target().to_string(),
        route_set: list(s.dialog.route_set()).filter(|route| !route.is_empty()).map(String::from).collect(),
        local_cseq: s.dialog.local_cseq,
        remote_cseq: s.dialog.remote_cseq,
    }
}

fn standing(s: &Subscription, behind: bool) -> DeliveryStatus {
    match &s.delivery {
        _ if s.ended => DeliveryStatus::Ended,
        Delivery::InFlight(flight) if flight.failures > 0 => DeliveryStatus::Silent,
        Delivery::InFlight(_) => DeliveryStatus::Sending,
        Delivery::Suspended { silent: true, .. } => DeliveryStatus::Silent,
        Delivery::Suspended { .. } => DeliveryStatus::Failing,
        Delivery::Resolving { .. } => DeliveryStatus::Resolving,
        Delivery::Throttled { .. } => DeliveryStatus::Waiting,
        Delivery::Idle if behind => DeliveryStatus::Behind,
        Delivery::Idle => DeliveryStatus::Current,
    }
}

fn has(s: &Subscription, text: &str) -> bool {
    watcher_uri(s).to_lowercase().contains(text)
        || s.user_agent.as_deref().is_some_and(|agent| agent.to_lowercase().contains(text))
        || s.source().peer.to_string().contains(text)
        || s.dialog.call_id() == text
}

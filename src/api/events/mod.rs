//! Live stream of an account: Server-Sent Events about changed lamps and subscriptions.
//!
//! While there are subscribers, a task empties the notifier's change feed 20 times a second, looks up the current state
//! of each changed lamp or subscription, writes it once and sends it to every subscriber of its account. It never waits
//! for a subscriber. One that reads too slowly is disconnected with a note at the end of its stream, and may reconnect
//! with the id of the last event that it saw.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::request::Parts;
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::envelope::{Hold, Reply};
use super::error::ApiError;
use super::quota::{self, Limit, QuotaPool};
use super::request::RequestContext;
use super::{Api, ApiState, explain};
use crate::directory::AccountNo;
use crate::notifier::change_feed::Changed;
use crate::notifier::explain::report::{Lamp, WatcherRow};
use crate::notifier::settings::Limits;
use crate::sip::uri::{Uri, percent_decode};

mod hub;

pub(super) use hub::{Hub, Stats};
use hub::{StreamEvent, Subscriber};

/// Interval of emptying the change feed; this is the largest delay that it adds to a change.
const TICK: Duration = Duration::from_millis(50);
/// Interval of heartbeat comments, so that neither side takes the other for gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most changes looked up in one tick; the rest waits for the next one.
const MOST_AT_ONCE: usize = 1_000;
/// Most changes that may wait. Beyond that, the account with the most of them is dropped from the queue and its
/// subscribers are asked to reload.
const MOST_WAITING: usize = 100_000;
/// Reason given to these subscribers.
const TOO_MUCH: &str = "too much has changed at once";
/// Number of lookups before the task yields its thread.
const SLICE: usize = 128;

/// A lamp without any known state.
#[derive(Serialize)]
struct Gone<'a> {
    #[serde(flatten)]
    lamp: &'a Lamp,
    /// True if the configuration does not name it either.
    gone: bool,
}

/// A subscription that has ended.
#[derive(Serialize)]
struct Ended<'a> {
    id: String,
    extension: &'a str,
    gone: bool,
}

/// A changed subscription in the stream.
#[derive(Serialize)]
struct Subscribed<'a> {
    #[serde(flatten)]
    row: &'a WatcherRow,
    gone: bool,
}

/// Pool of live streams.
pub(super) fn places(limits: &Limits) -> Arc<QuotaPool> {
    QuotaPool::new(quota::Limits {
        all: Limit { key: "limits.event_streams", most: limits.event_streams },
        account: Limit { key: "limits.event_streams_per_account", most: limits.event_streams_per_account },
        address: Limit { key: "limits.event_streams_per_address", most: limits.event_streams_per_address },
    })
}

/// Opens a stream. `hold` keeps its share until it ends.
pub(super) fn open_stream(
    api: &Arc<Api>,
    account: AccountNo,
    head: &Parts,
    ask: &RequestContext,
    hold: Hold,
) -> Result<Reply, ApiError> {
    let header = head.headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let last = header.or_else(|| ask.query("last_event_id"));
    let (listening, start) = api.hub.subscribe(account, last);
    if start {
        // Before the response is sent, so that no change after it is missed.
        api.state.control.listen(true);
        tokio::spawn(forward_changes(Arc::clone(api)));
    }
    Ok(Reply::Stream(Body::new(Stream { listening, _hold: hold })))
}

/// Forwards changes until there are no more subscribers; with webhooks, until the server stops.
pub(super) async fn forward_changes(api: Arc<Api>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<Changed> = Vec::new();
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        ticks.tick().await;
        if !api.state.ready.load(Ordering::Acquire) {
            api.hub.close("the server stops");
        }
        if !api.hub.has_consumers() {
            api.state.control.listen(false);
            // A new subscriber may have come between these two lines; it has then started a task of its own.
            if !api.hub.is_idle() {
                api.state.control.listen(true);
                api.hub.reset(None, "no subscriber for a moment");
            }
            return;
        }
        let (news, lost) = feed_webhooks(&api);
        waiting.extend(news.into_iter().filter(|changed| api.hub.has_listeners(changed.account)));
        if lost {
            waiting.clear();
            api.hub.reset(None, TOO_MUCH);
        }
        while waiting.len() > MOST_WAITING
            && let Some(account) = heaviest(&waiting)
        {
            waiting.retain(|changed| changed.account != account);
            api.hub.reset(Some(account), TOO_MUCH);
        }
        let now = take_fairly(&mut waiting, MOST_AT_ONCE);
        let mut said = Vec::with_capacity(now.len());
        for slice in now.chunks(SLICE) {
            said.extend(slice.iter().filter(|changed| api.hub.has_listeners(changed.account)).filter_map(|changed| {
                Some(StreamEvent {
                    account: changed.account,
                    event: kind(changed),
                    data: look_up(&api.state, changed)?,
                })
            }));
            tokio::task::yield_now().await;
        }
        api.hub.say(said);
        if Instant::now() >= heartbeat {
            heartbeat = Instant::now() + HEARTBEAT;
            api.hub.beat();
        }
    }
}

/// Account with the most waiting changes.
fn heaviest(waiting: &[Changed]) -> Option<AccountNo> {
    let mut counts: HashMap<AccountNo, usize> = HashMap::new();
    waiting.iter().for_each(|changed| *counts.entry(changed.account).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(account, _)| account)
}

/// Takes at most `most` changes. If there are more, each account gets the same number; the order within an account is
/// kept.
fn take_fairly(waiting: &mut Vec<Changed>, most: usize) -> Vec<Changed> {
    if waiting.len() <= most {
        return std::mem::take(waiting);
    }
    let mut counts: HashMap<AccountNo, usize> = HashMap::new();
    let mut turn = |changed: &Changed| {
        let count = counts.entry(changed.account).or_default();
        *count += 1;
        *count
    };
    let turns: Vec<usize> = waiting.iter().map(&mut turn).collect();
    let mut ordered = turns.clone();
    let last = *ordered.select_nth_unstable(most - 1).1;
    // Only some of the changes with the last admitted turn fit.
    let mut room = most - turns.iter().filter(|turn| **turn < last).count();
    let mut turns = turns.into_iter();
    let (now, rest) = std::mem::take(waiting).into_iter().partition(|_| match turns.next() {
        Some(turn) if turn == last && room > 0 => {
            room -= 1;
            true
        }
        turn => turn.is_some_and(|turn| turn < last),
    });
    *waiting = rest;
    now
}

/// Empties the change feed and passes the changes to the webhooks; returns them for the live stream, and true if some
/// were lost.
pub(super) fn feed_webhooks(api: &Api) -> (Vec<Changed>, bool) {
    let (news, lost) = api.state.control.changes();
    if !api.webhooks.is_empty() {
        if lost {
            api.webhooks.reset();
        }
        news.iter().for_each(|changed| api.webhooks.add(changed));
    }
    (news, lost)
}

fn kind(changed: &Changed) -> &'static str {
    if changed.subscription.is_some() { "subscription" } else { "lamp" }
}

/// Current state of a changed lamp or subscription, as JSON.
pub(super) fn look_up(state: &ApiState, changed: &Changed) -> Option<String> {
    let user = Uri::read(&changed.uri)?.user.map(percent_decode)?;
    let account = changed.account;
    let written = match changed.subscription {
        Some(place) => {
            let id = place.to_string();
            match state.control.subscription(account, &id) {
                Some(row) => serde_json::to_string(&Subscribed { row: &row, gone: false }),
                None => serde_json::to_string(&Ended { id, extension: &user, gone: true }),
            }
        }
        None => match state.control.lamp(account, &user) {
            Some(lamp) => serde_json::to_string(&Gone { lamp: &lamp, gone: false }),
            None => {
                let lamp = explain::unknown(&state.directory, account, &user);
                let gone = !state.directory.has_extension(account, &user);
                serde_json::to_string(&Gone { lamp: &lamp, gone })
            }
        },
    };
    written.ok()
}

/// Response body of a live stream; it has no end.
struct Stream {
    listening: Subscriber,
    _hold: Hold,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.listening.poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_with_many_changes_does_not_hold_up_another() {
        let changed = |account, n: usize| Changed {
            account: AccountNo(account),
            uri: format!("sip:{n}@acme.test").into(),
            subscription: None,
        };
        let mut waiting: Vec<_> = (0..10).map(|n| changed(1, n)).chain([changed(2, 1), changed(3, 1)]).collect();
        assert_eq!(heaviest(&waiting), Some(AccountNo(1)));
        let now = take_fairly(&mut waiting, 4);
        assert_eq!(now, [changed(1, 0), changed(1, 1), changed(2, 1), changed(3, 1)]);
        assert_eq!(take_fairly(&mut waiting, 3), [changed(1, 2), changed(1, 3), changed(1, 4)]);
        assert_eq!((take_fairly(&mut waiting, 99).len(), waiting.len()), (5, 0));
    }
}

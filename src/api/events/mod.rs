//! The live stream of an account: Server-Sent Events of lamps and subscriptions that have changed.
//!
//! A pump of its own empties the notifier's feed twenty times a second while anybody listens, looks up what each changed
//! thing is now, writes it once and hands it to every listener of its account. Nobody is waited for: who reads too slowly
//! loses his place, is told so at the end of what he has, and comes back with the id of what he saw last.

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
use super::error::Fault;
use super::request::Ask;
use super::share::{self, Limit, Shares};
use super::{Api, ApiState, lamps};
use crate::config::Limits;
use crate::directory::AccountNo;
use crate::notifier::events::Changed;
use crate::notifier::explain::story::{Lamp, WatcherRow};
use crate::sip::uri::{Uri, percent_decode};

mod hub;

pub(super) use hub::{Hub, Stats};
use hub::{Listening, Said};

/// How often the feed is emptied. A lamp is seen this much later at worst.
const TICK: Duration = Duration::from_millis(50);
/// How often a line is sent that says nothing, so that neither side takes the other for gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The most things that are looked up in one tick; the rest waits for the next.
const MOST_AT_ONCE: usize = 1_000;
/// The most things that may wait; beyond that the listeners of the account of which most waits are asked to load anew.
const MOST_WAITING: usize = 100_000;
/// Why they are.
const TOO_MUCH: &str = "too much has changed at once";
/// So many are looked up before others get their turn on this thread.
const SLICE: usize = 128;

/// A lamp of which nothing is known any more.
#[derive(Serialize)]
struct Gone<'a> {
    #[serde(flatten)]
    lamp: &'a Lamp,
    /// The configuration does not name it either.
    gone: bool,
}

/// A subscription that has ended.
#[derive(Serialize)]
struct Ended<'a> {
    id: String,
    extension: &'a str,
    gone: bool,
}

/// What the stream says of a subscription.
#[derive(Serialize)]
struct Subscribed<'a> {
    #[serde(flatten)]
    row: &'a WatcherRow,
    gone: bool,
}

/// The places for live streams.
pub(super) fn places(limits: &Limits) -> Arc<Shares> {
    Shares::new(share::Limits {
        all: Limit { key: "limits.event_streams", most: limits.event_streams },
        account: Limit { key: "limits.event_streams_per_account", most: limits.event_streams_per_account },
        address: Limit { key: "limits.event_streams_per_address", most: limits.event_streams_per_address },
    })
}

/// Begins a stream, which takes up its place until it ends.
pub(super) fn begin(api: &Arc<Api>, account: AccountNo, head: &Parts, ask: &Ask, hold: Hold) -> Result<Reply, Fault> {
    let header = head.headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let last = header.or_else(|| ask.query("last_event_id"));
    let (listening, start) = api.hub.join(account, last);
    if start {
        // Before the answer: what changes from now on is heard of.
        api.state.control.listen(true);
        tokio::spawn(pump(Arc::clone(api)));
    }
    Ok(Reply::Stream(Body::new(Stream { listening, _hold: hold })))
}

/// Hands on what changes, for as long as somebody listens; with webhooks, for ever.
pub(super) async fn pump(api: Arc<Api>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: Vec<Changed> = Vec::new();
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        ticks.tick().await;
        if !api.state.ready.load(Ordering::Acquire) {
            api.hub.close("the server stops");
        }
        if !api.hub.is_wanted() {
            api.state.control.listen(false);
            // Somebody may have come between the last two lines, and has a pump of his own.
            if !api.hub.is_idle() {
                api.state.control.listen(true);
                api.hub.reset(None, "nobody listened for a moment");
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
                Some(Said { account: changed.account, event: kind(changed), data: look_up(&api.state, changed)? })
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

/// The account of which most waits.
fn heaviest(waiting: &[Changed]) -> Option<AccountNo> {
    let mut counts: HashMap<AccountNo, usize> = HashMap::new();
    waiting.iter().for_each(|changed| *counts.entry(changed.account).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(account, _)| account)
}

/// Takes so many at most, of each account as many as of the others where there are too many, and each account's in their order.
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
    // Of those whose turn is the last one, only so many have room.
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

/// Empties the feed, and lets the webhooks know; what comes back is for the stream.
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

/// What has changed, as it is now.
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
                let lamp = lamps::unknown(&state.directory, account, &user);
                let gone = !state.directory.has_extension(account, &user);
                serde_json::to_string(&Gone { lamp: &lamp, gone })
            }
        },
    };
    written.ok()
}

/// The body of an answer that goes on for as long as both sides like.
struct Stream {
    listening: Listening,
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

//! Metrics of lamps: subscriptions, those that are stale or failing, and the outcomes of NOTIFYs and requests.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::notifier::explain::report::{AGES, NotifierStats, SubscriptionGroup};
use crate::notifier::metrics::{BOUNDS, CAUSES, LatencyHistogram, OUTCOMES, TRANSPORTS};
use crate::notifier::refusals::{METHODS, RejectedRequests};
use crate::presence::vendor::Vendor;

use super::encoder::{Histogram, Labels, Page};

/// Label value for phones of an unknown vendor.
const OTHER: &str = "other";
const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

pub(super) fn write(page: &mut Page<'_>, n: &NotifierStats) -> fmt::Result {
    subscriptions(page, n)?;
    notifies(page, n)?;
    requests(page, n)
}

fn subscriptions(page: &mut Page<'_>, n: &NotifierStats) -> fmt::Result {
    // An empty server exports one series with value 0, so that a sum over all series finds a value.
    let none = [SubscriptionGroup {
        event: "dialog",
        transport: "udp",
        vendor: None,
        subscriptions: 0,
        behind: 0,
        failing: 0,
    }];
    let kinds = if n.subscriptions.is_empty() { &none[..] } else { &n.subscriptions };
    for (name, help, count) in [
        ("subscriptions", "Subscriptions", (|kind| kind.subscriptions) as fn(&SubscriptionGroup) -> usize),
        ("subscriptions_stale", "Subscriptions whose phone has not acknowledged the current state", |kind| kind.behind),
        ("subscriptions_failing", "Subscriptions whose latest NOTIFY failed", |kind| kind.failing),
    ] {
        page.gauges(name, help, None, |family| {
            kinds.iter().try_for_each(|kind| {
                let make = kind.vendor.unwrap_or(OTHER);
                let labels = [("event", kind.event), ("transport", kind.transport), ("vendor", make)];
                family(&labels, count(kind) as f64)
            })
        })?;
    }
    page.gauges(
        "subscriptions_stale_over",
        "Subscriptions that have been stale for longer than this many seconds",
        None,
        |family| {
            let counts = AGES.iter().zip(n.behind_longer_than);
            counts.into_iter().try_for_each(|(age, count)| family(&[("seconds", &age.to_string())], count as f64))
        },
    )?;
    let since = "Longest time that a subscription has been stale";
    page.gauge("stale_max", since, SECONDS, n.behind_longest_ms as f64 / 1_000.0)?;
    page.gauge("presentities", "Extensions with state or watchers", None, n.presentities as f64)?;
    page.gauge("phones", "Phones with a subscription", None, n.phones as f64)?;
    page.gauges("publications", "Publications", None, |family| {
        n.publications.iter().try_for_each(|(event, count)| family(&[("event", event)], *count as f64))
    })?;
    page.counters("state_changes", "Changes of lamps, by cause", None, |family| {
        CAUSES.iter().zip(n.tally.changes).try_for_each(|(cause, count)| family(&[("cause", cause)], count))
    })?;
    page.counters("subscribes", "SUBSCRIBEs accepted, by effect", None, |family| {
        let [granted, ended] = n.tally.subscribed;
        family(&[("effect", "granted")], granted)?;
        family(&[("effect", "ended")], ended)
    })
}

/// Vendors with at least one count, and always the entry for unknown vendors.
fn families<'a, T>(all: &'a [T], counted: impl Fn(&T) -> bool + 'a) -> impl Iterator<Item = (&'static str, &'a T)> {
    let all = all.iter().enumerate().filter(move |(number, of)| *number == 0 || counted(of));
    all.map(|(number, of)| (Vendor::numbered(number).name().unwrap_or(OTHER), of))
}

fn notifies(page: &mut Page<'_>, n: &NotifierStats) -> fmt::Result {
    page.counters("notifies", "NOTIFYs, by outcome", None, |each| {
        for (make, transports) in families(&n.tally.notifies, |of| of.as_flattened().iter().any(|count| *count > 0)) {
            for (transport, of) in TRANSPORTS.iter().zip(transports) {
                // Most vendors use one transport only. UDP is always exported, so that a rate has a first sample.
                if *transport == "udp" || of.iter().any(|count| *count > 0) {
                    for (outcome, count) in OUTCOMES.iter().zip(of) {
                        each(&[("transport", transport), ("vendor", make), ("outcome", outcome)], *count)?;
                    }
                }
            }
        }
        Ok(())
    })?;
    let copies = "NOTIFYs retransmitted or replaced because no response came";
    page.counter("notify_retransmissions", copies, None, n.tally.copies)?;
    page.counters("oversize_notifies", "NOTIFYs above 1,300 octets for phones on UDP, by handling", None, |each| {
        each(&[("handling", "compact")], n.large.compacted)?;
        each(&[("handling", "flow")], n.large.on_flow)?;
        each(&[("handling", "connection")], n.large.on_connection)?;
        each(&[("handling", "fragmented")], n.large.fragmented)?;
        each(&[("handling", "not_sent")], n.large.not_sent)
    })?;
    page.histograms("notify_response", "Time from a NOTIFY to the response that acknowledges it", SECONDS, |each| {
        families(&n.tally.delays, |of| *of != LatencyHistogram::default())
            .try_for_each(|(make, delays)| each(&[("vendor", make)], &histogram(delays)))
    })?;
    let seen = "Time from a change of a lamp until a watching phone has acknowledged it";
    page.histogram("state_propagation", seen, SECONDS, &histogram(&n.tally.lamp_delays))
}

fn histogram(delays: &LatencyHistogram) -> Histogram {
    Histogram::new(BOUNDS.iter().map(|ms| u64::from(*ms)), &delays.buckets, delays.sum, 1_000.0)
}

fn requests(page: &mut Page<'_>, n: &NotifierStats) -> fmt::Result {
    let answered = &n.answered;
    page.counters("requests", "Requests, without retransmissions", None, |each| {
        METHODS.iter().zip(answered.requests).try_for_each(|(method, count)| each(&[("method", method)], count))
    })?;
    page.counter("request_retransmissions", "Retransmitted requests", None, answered.repeated)?;
    let reasons = "Requests refused, by the reason phrase of the response or the key of the limit that was reached";
    page.counters("requests_rejected", reasons, None, |each| refused(each, &answered.refused))?;
    let challenged = "Requests answered with a challenge: no credentials, wrong ones, or a stale nonce";
    page.counter("requests_challenged", challenged, None, answered.challenged)?;
    page.counters("api_requests_rejected", "Requests to the HTTP API refused, by the reason", None, |each| {
        refused(each, &answered.refused_by_api)
    })?;
    let turned_away =
        "Messages dropped unread: the source is above its rate limit, or too many messages wait for the journal";
    page.counters("messages_rate_limited", turned_away, None, |each| {
        n.turned_away.iter().try_for_each(|(reason, count)| each(&[("reason", reason)], *count))
    })?;
    page.counter("panics", "Messages whose handling panicked; please report each", None, n.panics)
}

/// Refusals by method, status and reason.
fn refused(each: &mut dyn FnMut(Labels<'_, 3>, u64) -> fmt::Result, all: &[RejectedRequests]) -> fmt::Result {
    all.iter().try_for_each(|one| {
        let status = one.status.to_string();
        each(&[("method", one.method), ("status", &status), ("reason", one.reason)], one.count)
    })
}

//! `/metrics` for Prometheus: numbers of the whole server, which are nobody's in particular, for those who may see all of it.

use std::fmt;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::directory::Bearer;
use crate::notifier::explain::story::Numbers;
use crate::notifier::tally::{BOUNDS, CAUSES, Delays, OUTCOMES, TRANSPORTS};

use super::Api;
use super::envelope::Reply;
use super::error::Fault;
use super::webhooks::{self, Fares};

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a scrape; the token has to be a superuser's. Who does not ask for OpenMetrics gets the format before it.
pub(super) fn answer(api: &Api, bearer: Bearer, head: &Parts) -> Result<Reply, Fault> {
    if bearer != Bearer::Superuser {
        return Err(Fault::Forbidden);
    }
    let mut registry = Registry::with_prefix("lamplighter");
    registry
        .register_collector(Box::new(Scrape { numbers: api.state.control.numbers(), webhooks: api.webhooks.fares() }));
    let mut written = String::with_capacity(8 * 1024);
    // Writing to a String cannot fail.
    let _ = text::encode(&mut written, &registry);
    let wanted = head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (kind, written) = match wanted.contains("application/openmetrics-text") {
        true => (OPEN, written),
        false => (CLASSIC, classic(&written)),
    };
    let mut response = Response::new(Body::from(written));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Reply::File(response))
}

/// The same in the older format, in which a counter is described by its whole name, and units and ends are not known.
fn classic(open: &str) -> String {
    let described = |line: &str, word: &str| line.strip_prefix(word)?.split(' ').next().map(str::to_owned);
    let counters: Vec<_> =
        open.lines().filter(|line| line.ends_with(" counter")).filter_map(|line| described(line, "# TYPE ")).collect();
    let mut out = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let name = described(line, "# HELP ").or_else(|| described(line, "# TYPE "));
        match name.filter(|name| counters.contains(name)) {
            Some(name) => out.push_str(&line.replacen(&name, &format!("{name}_total"), 1)),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The numbers of one moment.
#[derive(Debug)]
struct Scrape {
    numbers: Numbers,
    webhooks: Fares,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let e = &mut encoder;
        let Scrape { numbers: n, webhooks } = self;
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: f64| {
            e.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge("subscriptions", "Subscriptions", None, n.subscriptions as f64)?;
        gauge("presentities", "Extensions of which something is known", None, n.presentities as f64)?;
        gauge("publications", "Publications", None, n.publications as f64)?;
        gauge("phones", "Phones that have a subscription", None, n.phones as f64)?;
        gauge("behind", "Subscriptions whose phone does not know the state of the moment", None, n.behind as f64)?;
        gauge("failing", "Subscriptions whose latest NOTIFY failed", None, n.failing as f64)?;
        let since = "How long ago the lamp changed that has waited longest for a phone to acknowledge it";
        gauge("behind_longest", since, Some(&Unit::Seconds), n.behind_longest_ms as f64 / 1_000.0)?;
        counters(e, "notifies", "NOTIFYs, by what became of them", |family| {
            for (transport, of) in TRANSPORTS.iter().zip(n.tally.notifies) {
                for (outcome, count) in OUTCOMES.iter().zip(of) {
                    family(&[("transport", *transport), ("outcome", *outcome)], count)?;
                }
            }
            Ok(())
        })?;
        counters(e, "changes", "Changes of lamps, by their cause", |family| {
            CAUSES.iter().zip(n.tally.changes).try_for_each(|(cause, count)| family(&[("cause", *cause)], count))
        })?;
        counters(e, "subscribes", "SUBSCRIBEs granted, by what they brought", |family| {
            let [granted, ended] = n.tally.subscribed;
            family(&[("effect", "granted")], granted)?;
            family(&[("effect", "ended")], ended)
        })?;
        for (name, help, count) in [
            ("notify_copies", "NOTIFYs repeated or made anew for want of an answer", n.tally.copies),
            ("turned_away", "Messages not read because their source said too much", n.turned_away),
            ("panics", "Messages whose handling met a bug; each is worth a report", n.panics),
        ] {
            e.encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        if webhooks.receivers > 0 {
            deliveries(e, webhooks)?;
        }
        let answered = "From a NOTIFY to the answer that acknowledges it";
        histogram(e, "notify_answered", answered, &n.tally.delays)?;
        let seen = "From the change of a lamp until a phone that watches it has acknowledged that";
        histogram(e, "lamp_seen", seen, &n.tally.lamp_delays)
    }
}

/// How webhooks fare, where there are any.
fn deliveries(e: &mut DescriptorEncoder<'_>, fares: &Fares) -> fmt::Result {
    let mut gauge = |name: &str, help: &str, value: usize| {
        e.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as f64))
    };
    gauge("webhook_receivers", "Receivers of webhooks", fares.receivers)?;
    gauge("webhook_failing", "Receivers that have not taken their latest delivery", fares.failing)?;
    gauge("webhook_waiting", "Lamps and subscriptions that receivers have still to be told of", fares.waiting)?;
    counters(e, "webhook_deliveries", "Deliveries to receivers of webhooks, by what became of them", |family| {
        webhooks::OUTCOMES.iter().zip(fares.outcomes).try_for_each(|(o, count)| family(&[("outcome", *o)], count))
    })
}

/// Encodes a family of counters; `all` names each with its labels.
fn counters<const N: usize>(
    e: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: impl FnOnce(&mut dyn FnMut(&[(&str, &str); N], u64) -> fmt::Result) -> fmt::Result,
) -> fmt::Result
where
    for<'a> [(&'a str, &'a str); N]: EncodeLabelSet,
{
    let mut family = e.encode_descriptor(name, help, None, MetricType::Counter)?;
    all(&mut |labels, count| family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None))
}

fn histogram(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, delays: &Delays) -> fmt::Result {
    let bounds = BOUNDS.iter().map(|ms| f64::from(*ms) / 1_000.0).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(delays.buckets).collect();
    let count = delays.buckets.iter().sum();
    e.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?.encode_histogram::<NoLabelSet>(
        delays.sum as f64 / 1_000.0,
        count,
        &buckets,
        None,
    )
}

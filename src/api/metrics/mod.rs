//! `/metrics` for Prometheus: numbers of the whole server. They are not divided by account, so only a superuser's token
//! may read them.
//!
//! The modules count for themselves and return plain values ([`ServerStats`]). Here these get names by Prometheus'
//! conventions. Every label has a small set of values known beforehand; no label holds text from a peer.

use std::fmt;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::directory::TokenScope;
use crate::notifier::control::ServerStats;

use super::Api;
use super::envelope::Reply;
use super::error::ApiError;
use super::events;
use super::webhooks::DeliveryStats;
use encoder::Page;
use io::Http;

mod encoder;
mod io;
mod process;
mod subscriptions;

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a scrape; the token must be a superuser's. Without OpenMetrics in the Accept header, the older text format
/// is sent.
pub(super) fn answer(api: &Api, bearer: TokenScope, head: &Parts) -> Result<Reply, ApiError> {
    if bearer != TokenScope::Superuser {
        return Err(ApiError::Forbidden);
    }
    let written = write(Scrape::of(api));
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

fn write(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process(scrape.vitals.up_since_ms)));
    registry.sub_registry_with_prefix("lamplighter").register_collector(Box::new(scrape));
    let mut written = String::with_capacity(32 * 1024);
    // Writing to a String cannot fail.
    let _ = text::encode(&mut written, &registry);
    written
}

/// Converts to the older text format 0.0.4: there a counter is described by its full name with `_total`, and there are
/// no UNIT and EOF lines.
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

/// Values of one scrape.
#[derive(Debug)]
struct Scrape {
    vitals: ServerStats,
    streams: events::Stats,
    webhooks: DeliveryStats,
    http: Http,
}

impl Scrape {
    fn of(api: &Api) -> Scrape {
        let pools = [&api.bodies, &api.answers, &api.listings, &api.streams];
        let http = Http {
            connections: api.seats.get().map(|seats| seats.stats()).unwrap_or_default(),
            body_octets: api.bodies.held(),
            answer_octets: api.answers.held(),
            listings: api.listings.held(),
            refused: pools.into_iter().flat_map(|shares| shares.refused()).collect(),
        };
        let (vitals, streams) = (api.state.control.vitals(), api.hub.stats());
        Scrape { vitals, streams, webhooks: api.webhooks.fares(), http }
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Scrape { vitals, streams, webhooks, http } = self;
        let page = &mut Page(encoder);
        page.gauges("build_info", "Version that is running", None, |family| {
            family(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)
        })?;
        subscriptions::write(page, &vitals.numbers)?;
        io::sockets(page, &vitals.transport)?;
        io::names(page, vitals)?;
        let is_of_stream = |(limit, _): &&(&str, u64)| limit.starts_with("limits.event_streams");
        io::events(page, streams, http.refused.iter().filter(is_of_stream).map(|(_, count)| count).sum())?;
        io::http(page, http)?;
        if webhooks.receivers > 0 {
            io::webhooks(page, webhooks)?;
        }
        vitals.journal.as_ref().map_or(Ok(()), |journal| io::journal(page, journal))?;
        vitals.capture.as_ref().map_or(Ok(()), |capture| io::capture(page, capture))
    }
}

/// Process metrics, under the names that are standard for all programs.
#[derive(Debug)]
struct Process(u64);

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        process::write(&mut Page(encoder), self.0)
    }
}

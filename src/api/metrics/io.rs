//! Metrics of input and output: sockets, disk and every queue between them.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::api::events;
use crate::api::seats;
use crate::api::webhooks::{self, Fares};
use crate::capture;
use crate::journal;
use crate::notifier::control::{LOOKUPS, ServerStats};
use crate::transport::{Stats, TRANSPORTS, Traffic};

use super::page::{Histogram, Page};

const BYTES: Option<&Unit> = Some(&Unit::Bytes);
const SECONDS: Option<&Unit> = Some(&Unit::Seconds);

pub(super) fn sockets(page: &mut Page<'_>, Stats { datagrams, streams }: &Stats) -> fmt::Result {
    let mut traffic = streams.traffic;
    traffic[0] = datagrams.traffic;
    for (name, help, unit, count) in [
        ("messages_received", "Messages received", None, (|t| t.received) as fn(&Traffic) -> u64),
        ("messages_sent", "Messages sent", None, |t| t.sent),
        ("received", "Octets received", BYTES, |t| t.received_octets),
        ("sent", "Octets sent", BYTES, |t| t.sent_octets),
    ] {
        page.counters(name, help, unit, |each| {
            TRANSPORTS.iter().zip(&traffic).try_for_each(|(name, of)| each(&[("transport", name)], count(of)))
        })?;
    }
    page.counter("datagram_send_errors", "Datagrams that the system did not take", None, datagrams.unsent)?;
    let taken = "Datagrams taken by one system call";
    page.histogram("received_batch_datagrams", taken, None, &Histogram::of(&datagrams.taken, 1.0))?;
    let given = "Datagrams sent by one system call";
    page.histogram("sent_batch_datagrams", given, None, &Histogram::of(&datagrams.given, 1.0))?;
    let waiting = "Memory of the kernel that is taken by datagrams which wait for us";
    page.gauges("udp_receive_queue", waiting, BYTES, |each| {
        let mut queues = datagrams.kernel.iter();
        queues.try_for_each(|queue| each(&[("listener", &queue.address.to_string())], queue.waiting as f64))
    })?;
    let dropped = "Datagrams that the kernel dropped because too many waited for us";
    page.counters("udp_receive_drops", dropped, None, |each| {
        let mut queues = datagrams.kernel.iter();
        queues.try_for_each(|queue| each(&[("listener", &queue.address.to_string())], queue.dropped))
    })?;
    page.gauges("connections", "Open connections", None, |each| {
        let mut counts = TRANSPORTS.iter().zip(streams.open).skip(1);
        counts.try_for_each(|(transport, count)| each(&[("transport", transport)], count as f64))
    })?;
    let refused = "Connections closed as soon as they came, by the limit that was reached";
    page.counters("connections_refused", refused, None, |each| {
        streams.refused.iter().try_for_each(|(limit, count)| each(&[("limit", limit)], *count))
    })?;
    let not_reading = "Connections closed because their peer did not read what was sent to it";
    page.counter("connections_slow_reader", not_reading, None, streams.not_reading)?;
    let superseded = "NOTIFYs that did not leave because a newer one of their dialog had been made";
    page.counter("notifies_superseded", superseded, None, streams.superseded)?;
    let waiting = "Messages that wait to be written to a connection";
    page.gauge("connection_queue_messages", waiting, None, streams.waiting as f64)?;
    let octets = "Octets that wait to be written to connections";
    page.gauge("connection_queue", octets, BYTES, streams.waiting_octets as f64)?;
    let longest = "Octets that wait to be written to the connection where most do";
    page.gauge("connection_queue_longest", longest, BYTES, streams.waiting_octets_most as f64)
}

pub(super) fn names(page: &mut Page<'_>, vitals: &ServerStats) -> fmt::Result {
    page.gauge(
        "dns_cache_entries",
        "Names of next hops that are remembered or asked for",
        None,
        vitals.numbers.names as f64,
    )?;
    let waiting = "Names that wait for their turn to be looked up";
    page.gauge("dns_queries_queued", waiting, None, vitals.names_waiting as f64)?;
    page.gauge("dns_queries_in_flight", "Names that are being looked up", None, vitals.names_under_way as f64)?;
    page.counters("dns_queries", "Names that were looked up, by what came of it", None, |each| {
        LOOKUPS.iter().zip(vitals.lookups).try_for_each(|(outcome, count)| each(&[("outcome", outcome)], count))
    })
}

pub(super) fn events(page: &mut Page<'_>, stats: &events::Stats, refused: u64) -> fmt::Result {
    page.gauge("event_streams", "Live streams that somebody reads", None, stats.listeners as f64)?;
    let deepest = "Pieces that wait for the reader of a live stream for whom most do";
    page.gauge("event_stream_queue_max", deepest, None, stats.deepest as f64)?;
    let dropped = "Live streams ended because their reader was too slow";
    page.counter("event_streams_dropped", dropped, None, stats.dropped)?;
    let too_many = "Live streams refused because there were too many";
    page.counter("event_streams_refused", too_many, None, refused)
}

/// Counters of the API itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    pub(super) connections: seats::Stats,
    pub(super) body_octets: usize,
    pub(super) answer_octets: usize,
    pub(super) listings: usize,
    /// Refusals by the limit that was reached.
    pub(super) refused: Vec<(&'static str, u64)>,
}

/// Metrics of the API itself.
pub(super) fn http(page: &mut Page<'_>, http: &Http) -> fmt::Result {
    let seats::Stats { open, waiting, gave_way, spared } = http.connections;
    page.gauge("http_connections", "Open HTTP connections", None, open as f64)?;
    let without = "Of these, those that wait for a request or for the rest of one";
    page.gauge("http_connections_waiting", without, None, waiting as f64)?;
    let closed = "HTTP connections that waited, and were closed so that a new one got in";
    page.counter("http_connections_evicted", closed, None, gave_way)?;
    let spare = "HTTP connections that came when all others were busy, on which only probes and metrics are answered";
    page.counter("http_connections_spare", spare, None, spared)?;
    page.gauge("http_bodies", "Octets of bodies that are being received", BYTES, http.body_octets as f64)?;
    let unread = "Octets of long answers that their clients have not read yet, but for listings";
    page.gauge("http_answers", unread, BYTES, http.answer_octets as f64)?;
    page.gauge("http_listings", "Listings that are being sent", None, http.listings as f64)?;
    let refused = "Requests of the API refused for want of room, by the limit that was reached";
    page.counters("http_refused", refused, None, |each| {
        http.refused.iter().try_for_each(|(limit, count)| each(&[("limit", limit)], *count))
    })
}

pub(super) fn journal(page: &mut Page<'_>, stats: &journal::Stats) -> fmt::Result {
    page.gauge("journal_up", "1 while the journal can be written", None, if stats.good { 1.0 } else { 0.0 })?;
    page.gauge("journal_queue", "Octets that wait for the disk", BYTES, stats.queued as f64)?;
    let awaited = "Outboxes whose messages wait for the disk";
    page.gauge("journal_pending_batches", awaited, None, stats.awaited as f64)?;
    let took = "From the journal's taking what is queued until the disk has it";
    page.histogram("journal_commit", took, SECONDS, &Histogram::of(&stats.took, 1e6))?;
    let batches = "Records written by one commit";
    page.histogram("journal_commit_records", batches, None, &Histogram::of(&stats.batches, 1.0))?;
    page.counter("journal_written", "Octets written to the journal", BYTES, stats.octets)?;
    page.gauge("journal_size", "Octets of the journal on disk, its image included", BYTES, stats.on_disk as f64)?;
    let repaired = "Bad parts of the journal that were put aside at the start (data.on_damage)";
    page.gauge("journal_repaired_parts", repaired, None, stats.repaired as f64)?;
    page.counter("journal_failures", "How often the disk has begun to refuse", None, stats.failures)?;
    page.counters("journal_refused", "Changes that the journal did not take, by why", None, |each| {
        stats.refused.iter().try_for_each(|(reason, count)| each(&[("reason", reason)], *count))
    })
}

pub(super) fn capture(page: &mut Page<'_>, stats: &capture::Stats) -> fmt::Result {
    page.counters("hep_packets", "Messages seen to by the export to the capture server", None, |each| {
        each(&[("outcome", "sent")], stats.sent)?;
        each(&[("outcome", "dropped")], stats.dropped)?;
        each(&[("outcome", "failed")], stats.failed)?;
        each(&[("outcome", "filtered")], stats.left_out)
    })?;
    page.gauge("hep_queue_packets", "Messages that wait to be copied to the capture server", None, stats.waiting as f64)
}

/// Metrics of the webhooks.
pub(super) fn webhooks(page: &mut Page<'_>, fares: &Fares) -> fmt::Result {
    page.gauge("webhook_receivers", "Receivers of webhooks", None, fares.receivers as f64)?;
    let failing = "Receivers of webhooks that have not taken their latest delivery";
    page.gauge("webhook_failing", failing, None, fares.failing as f64)?;
    let waiting = "Lamps and subscriptions that receivers of webhooks have still to be told of";
    page.gauge("webhook_pending_changes", waiting, None, fares.waiting as f64)?;
    let deliveries = "Deliveries to receivers of webhooks, by what became of them";
    page.counters("webhook_deliveries", deliveries, None, |each| {
        webhooks::OUTCOMES.iter().zip(fares.outcomes).try_for_each(|(o, count)| each(&[("outcome", o)], count))
    })
}

//! Metrics of input and output: sockets, disk and every queue between them.

use std::fmt;

use prometheus_client::registry::Unit;

use crate::api::connection_slots;
use crate::api::events;
use crate::api::webhooks::{self, DeliveryStats};
use crate::capture;
use crate::journal;
use crate::notifier::control::{LOOKUPS, ServerStats};
use crate::transport::{Stats, TRANSPORTS, Traffic};

use super::encoder::{Histogram, Page};

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
    page.counter("datagram_send_errors", "Datagrams that the kernel refused to send", None, datagrams.unsent)?;
    let taken = "Datagrams received by one system call";
    page.histogram("received_batch_datagrams", taken, None, &Histogram::of(&datagrams.taken, 1.0))?;
    let given = "Datagrams sent by one system call";
    page.histogram("sent_batch_datagrams", given, None, &Histogram::of(&datagrams.given, 1.0))?;
    let waiting = "Kernel memory of datagrams in the receive queue";
    page.gauges("udp_receive_queue", waiting, BYTES, |each| {
        let mut queues = datagrams.kernel.iter();
        queues.try_for_each(|queue| each(&[("listener", &queue.address.to_string())], queue.waiting as f64))
    })?;
    let dropped = "Datagrams dropped by the kernel because the receive queue was full";
    page.counters("udp_receive_drops", dropped, None, |each| {
        let mut queues = datagrams.kernel.iter();
        queues.try_for_each(|queue| each(&[("listener", &queue.address.to_string())], queue.dropped))
    })?;
    page.gauges("connections", "Open connections", None, |each| {
        let mut counts = TRANSPORTS.iter().zip(streams.open).skip(1);
        counts.try_for_each(|(transport, count)| each(&[("transport", transport)], count as f64))
    })?;
    let refused = "Connections closed on arrival, by the limit that was reached";
    page.counters("connections_refused", refused, None, |each| {
        streams.refused.iter().try_for_each(|(limit, count)| each(&[("limit", limit)], *count))
    })?;
    let not_reading = "Connections closed because the peer did not read";
    page.counter("connections_slow_reader", not_reading, None, streams.not_reading)?;
    let superseded = "NOTIFYs not sent because a newer one of their dialog existed";
    page.counter("notifies_superseded", superseded, None, streams.superseded)?;
    let waiting = "Messages in the write queues of connections";
    page.gauge("connection_queue_messages", waiting, None, streams.waiting as f64)?;
    let octets = "Octets in the write queues of connections";
    page.gauge("connection_queue", octets, BYTES, streams.waiting_octets as f64)?;
    let longest = "Octets in the longest write queue of a connection";
    page.gauge("connection_queue_longest", longest, BYTES, streams.waiting_octets_most as f64)
}

pub(super) fn names(page: &mut Page<'_>, vitals: &ServerStats) -> fmt::Result {
    page.gauge("dns_cache_entries", "Names of next hops in the DNS cache", None, vitals.numbers.names as f64)?;
    let waiting = "DNS queries that wait for a free slot";
    page.gauge("dns_queries_queued", waiting, None, vitals.names_waiting as f64)?;
    page.gauge("dns_queries_in_flight", "DNS queries in progress", None, vitals.names_under_way as f64)?;
    page.counters("dns_queries", "DNS queries completed, by outcome", None, |each| {
        LOOKUPS.iter().zip(vitals.lookups).try_for_each(|(outcome, count)| each(&[("outcome", outcome)], count))
    })
}

pub(super) fn events(page: &mut Page<'_>, stats: &events::Stats, refused: u64) -> fmt::Result {
    page.gauge("event_streams", "Open live streams", None, stats.listeners as f64)?;
    let deepest = "Events in the longest queue of a live stream";
    page.gauge("event_stream_queue_max", deepest, None, stats.deepest as f64)?;
    let dropped = "Live streams ended because their reader was too slow";
    page.counter("event_streams_dropped", dropped, None, stats.dropped)?;
    let too_many = "Live streams refused because there were too many";
    page.counter("event_streams_refused", too_many, None, refused)
}

/// Counters of the API itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    pub(super) connections: connection_slots::Stats,
    pub(super) body_octets: usize,
    pub(super) answer_octets: usize,
    pub(super) listings: usize,
    /// Refusals by the limit that was reached.
    pub(super) refused: Vec<(&'static str, u64)>,
}

/// Metrics of the API itself.
pub(super) fn http(page: &mut Page<'_>, http: &Http) -> fmt::Result {
    let connection_slots::Stats { open, waiting, gave_way, spared } = http.connections;
    page.gauge("http_connections", "Open HTTP connections", None, open as f64)?;
    let without = "HTTP connections that wait for a request or for the rest of one";
    page.gauge("http_connections_waiting", without, None, waiting as f64)?;
    let closed = "Waiting HTTP connections closed in favour of a new one";
    page.counter("http_connections_evicted", closed, None, gave_way)?;
    let spare = "HTTP connections accepted above the limit, on which only probes and metrics are answered";
    page.counter("http_connections_spare", spare, None, spared)?;
    page.gauge("http_bodies", "Octets of request bodies being received", BYTES, http.body_octets as f64)?;
    let unread = "Octets of long responses that clients have not read yet, without listings";
    page.gauge("http_answers", unread, BYTES, http.answer_octets as f64)?;
    page.gauge("http_listings", "Listings being sent", None, http.listings as f64)?;
    let refused = "API requests refused because of a limit, by the limit";
    page.counters("http_refused", refused, None, |each| {
        http.refused.iter().try_for_each(|(limit, count)| each(&[("limit", limit)], *count))
    })
}

pub(super) fn journal(page: &mut Page<'_>, stats: &journal::Stats) -> fmt::Result {
    page.gauge("journal_up", "1 while the journal can be written", None, if stats.good { 1.0 } else { 0.0 })?;
    page.gauge("journal_queue", "Octets in the queue for the disk", BYTES, stats.queued as f64)?;
    let awaited = "Batches of messages that wait for the disk";
    page.gauge("journal_pending_batches", awaited, None, stats.awaited as f64)?;
    let took = "Duration of a commit, from taking the queue until the records are on disk";
    page.histogram("journal_commit", took, SECONDS, &Histogram::of(&stats.took, 1e6))?;
    let batches = "Records written by one commit";
    page.histogram("journal_commit_records", batches, None, &Histogram::of(&stats.batches, 1.0))?;
    page.counter("journal_written", "Octets written to the journal", BYTES, stats.octets)?;
    page.gauge("journal_size", "Octets of the journal on disk, with its snapshot", BYTES, stats.on_disk as f64)?;
    let repaired = "Damaged parts of the journal that were set aside at the start (data.on_damage)";
    page.gauge("journal_repaired_parts", repaired, None, stats.repaired as f64)?;
    page.counter("journal_failures", "Times that the disk began to fail", None, stats.failures)?;
    page.counters("journal_refused", "Changes that the journal refused, by reason", None, |each| {
        stats.refused.iter().try_for_each(|(reason, count)| each(&[("reason", reason)], *count))
    })
}

pub(super) fn capture(page: &mut Page<'_>, stats: &capture::Stats) -> fmt::Result {
    page.counters("hep_packets", "Messages handled by the HEP export, by outcome", None, |each| {
        each(&[("outcome", "sent")], stats.sent)?;
        each(&[("outcome", "dropped")], stats.dropped)?;
        each(&[("outcome", "failed")], stats.failed)?;
        each(&[("outcome", "filtered")], stats.filtered)
    })?;
    page.gauge("hep_queue_packets", "Messages in the queue of the HEP export", None, stats.waiting as f64)
}

/// Metrics of the webhooks.
pub(super) fn webhooks(page: &mut Page<'_>, fares: &DeliveryStats) -> fmt::Result {
    page.gauge("webhook_receivers", "Webhook receivers", None, fares.receivers as f64)?;
    let failing = "Webhook receivers whose latest delivery failed";
    page.gauge("webhook_failing", failing, None, fares.failing as f64)?;
    let waiting = "Changes queued for webhook receivers";
    page.gauge("webhook_pending_changes", waiting, None, fares.waiting as f64)?;
    let deliveries = "Webhook deliveries, by outcome";
    page.counters("webhook_deliveries", deliveries, None, |each| {
        webhooks::OUTCOMES.iter().zip(fares.outcomes).try_for_each(|(o, count)| each(&[("outcome", o)], count))
    })
}

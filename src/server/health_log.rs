//! Health log: once a minute, logs a summary of failures since the last minute (NOTIFYs, lost datagrams, rejected
//! messages and connections). Failures of single messages or phones are not logged one by one. So a network failure
//! that affects a hundred thousand phones gives one line a minute.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::Capture;
use crate::notifier::Notifier;
use crate::transport::ConnectionTable;

/// Interval of the summary.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Failure ratio (1 in N NOTIFYs) above which the network or a proxy is suspected rather than single phones.
const FAILURE_RATIO: u64 = 20;

/// Task that writes the health log.
pub(super) struct HealthLog {
    pub(super) notifier: Arc<Notifier>,
    pub(super) shared: Arc<ConnectionTable>,
    pub(super) tap: Option<Arc<Capture>>,
}

/// Snapshot of the counters, which count from the start of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    notifies: u64,
    unanswered: u64,
    refused: u64,
    turned_away: u64,
    dropped: u64,
    unsent: u64,
    connections_refused: u64,
    captures_dropped: u64,
}

/// Result of the NOTIFYs of one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotifyHealth {
    /// No NOTIFY failed.
    Quiet,
    /// A few NOTIFYs failed; that is normal in a large network.
    Single,
    /// Too many failed to be the fault of single phones.
    Many,
}

impl HealthLog {
    /// Logs a summary every minute, for ever.
    pub(super) async fn run(self) {
        let mut before = self.snapshot();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = self.snapshot();
            now.delta(&before).log();
            before = now;
        }
    }

    fn snapshot(&self) -> Totals {
        let tally = self.notifier.tally();
        let outcome = |outcome: usize| tally.notifies.as_flattened().iter().map(|of| of[outcome]).sum::<u64>();
        let [acknowledged, refused, unanswered] = [0, 1, 2].map(outcome);
        let stats = self.shared.stats();
        Totals {
            notifies: acknowledged + refused + unanswered,
            unanswered,
            refused,
            turned_away: self.notifier.turned_away(),
            dropped: stats.datagrams.kernel.iter().map(|queue| queue.dropped).sum(),
            unsent: stats.datagrams.unsent,
            connections_refused: stats.streams.refused.iter().map(|(_, count)| count).sum(),
            captures_dropped: self.tap.as_ref().map_or(0, |tap| tap.stats().dropped),
        }
    }
}

impl Totals {
    fn delta(&self, before: &Totals) -> Totals {
        // Some counters come from the kernel and may fall, as when /proc cannot be read.
        let more = |now: u64, before: u64| now.saturating_sub(before);
        Totals {
            notifies: more(self.notifies, before.notifies),
            unanswered: more(self.unanswered, before.unanswered),
            refused: more(self.refused, before.refused),
            turned_away: more(self.turned_away, before.turned_away),
            dropped: more(self.dropped, before.dropped),
            unsent: more(self.unsent, before.unsent),
            connections_refused: more(self.connections_refused, before.connections_refused),
            captures_dropped: more(self.captures_dropped, before.captures_dropped),
        }
    }

    /// Rates the results of the NOTIFYs.
    fn phones(&self) -> NotifyHealth {
        match self.unanswered + self.refused {
            0 => NotifyHealth::Quiet,
            failed if failed > 10 && failed * FAILURE_RATIO > self.notifies => NotifyHealth::Many,
            _ => NotifyHealth::Single,
        }
    }

    fn log(&self) {
        let Totals { notifies, unanswered, refused, .. } = *self;
        match self.phones() {
            NotifyHealth::Quiet => {}
            NotifyHealth::Single => tracing::info!(
                notifies,
                unanswered,
                refused,
                "NOTIFY failures for a few phones in the last minute; the wall shows them as not reached"
            ),
            NotifyHealth::Many => tracing::warn!(
                notifies,
                unanswered,
                refused,
                "NOTIFY failures for more than 5 % of phones in the last minute; check network or proxy"
            ),
        }
        if self.dropped > 0 {
            let dropped = self.dropped;
            tracing::warn!(
                dropped,
                "datagrams lost on this machine in the last minute: too little CPU, or too small a net.core.rmem_max"
            );
        }
        if self.unsent > 0 {
            let unsent = self.unsent;
            tracing::warn!(
                unsent,
                "the system refused to send datagrams in the last minute: a network that is down, or a firewall"
            );
        }
        if self.turned_away + self.connections_refused > 0 {
            let (messages, connections) = (self.turned_away, self.connections_refused);
            tracing::warn!(
                messages,
                connections,
                "rate limit exceeded: messages or connections rejected in the last minute"
            );
        }
        if self.captures_dropped > 0 {
            let dropped = self.captures_dropped;
            tracing::warn!(dropped, "messages not copied to the capture server in the last minute");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_phones_are_told_from_a_network() {
        let minute =
            |notifies, unanswered, refused| Totals { notifies, unanswered, refused, ..Totals::default() }.phones();
        assert_eq!(minute(1_000, 0, 0), NotifyHealth::Quiet);
        assert_eq!(minute(1_000, 20, 10), NotifyHealth::Single);
        assert_eq!(minute(1_000, 40, 11), NotifyHealth::Many);
        assert_eq!(minute(4, 4, 0), NotifyHealth::Single, "a small office at night");
    }

    #[test]
    fn only_what_is_new_counts() {
        let before = Totals { notifies: 10, unanswered: 3, dropped: 5, ..Totals::default() };
        let now = Totals { notifies: 15, unanswered: 3, dropped: 0, captures_dropped: 2, ..Totals::default() };
        assert_eq!(now.delta(&before), Totals { notifies: 5, captures_dropped: 2, ..Totals::default() });
    }
}

//! NOTIFYs whose next hop is a host name: they wait for DNS, and fail over from one target to the next (RFC 3263).

use super::dns_cache::{DnsAnswer, DnsError, DnsQuery, NameLookup, ResolvedTarget};
use super::routing::return_path;
use super::wheel::TimerKind;
use super::{Notifier, Outbox};
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};
use crate::presence::subscription::{Delivery, NotifyTransport, Subscription};
use crate::sip::Transport;
use crate::transport::{Destination, ListenerId, Remote};

/// Maximum number of NOTIFYs that are sent at once when the host name that they waited for is resolved.
const SLICE: usize = 256;
/// Delay between the slices of [`SLICE`] NOTIFYs that follow (ms).
const SLICE_EVERY: u64 = 10;

impl Notifier {
    /// Processes the DNS answer to a query from [`Outbox::dns_queries`].
    pub fn on_dns_answer(&self, now: Tick, question: DnsQuery, answer: Result<DnsAnswer, DnsError>, out: &mut Outbox) {
        if let Err(why) = &answer {
            tracing::info!(host = &*question.host, %why, "name not resolved; NOTIFYs go to the source of the SUBSCRIBE");
        }
        for (i, (number, slot)) in self.dns_cache.learn(now, question, answer).into_iter().enumerate() {
            if i < SLICE {
                self.guarded(now, out, |out| {
                    self.table.with_id(number, |presentity, state| self.resume(now, presentity, state, slot, out));
                });
            } else {
                let turn = now.after((i / SLICE) as u64 * SLICE_EVERY);
                self.wheel.schedule(now, turn, number, TimerKind::Resume(slot));
            }
        }
    }

    /// Next hop of a NOTIFY. None if it is a host name that must be resolved first. The NOTIFY is then sent when the
    /// DNS answers, and goes to the source of the SUBSCRIBE if the name cannot be resolved.
    pub(super) fn next_hop(&self, now: Tick, state: &mut State, slot: u32, out: &mut Outbox) -> Option<Destination> {
        let subscription = state.watchers.get_mut(slot)?;
        let source = &subscription.source();
        if subscription.next_hop_is_source {
            return Some(return_path(*source));
        }
        let (straight, question) = self.settings.routing.next_hop(&subscription.dialog, source);
        let Some(question) = question else {
            subscription.next_hop_is_source =
                matches!(straight, Destination::Datagram { .. }) && straight == return_path(*source);
            return Some(straight);
        };
        let place = subscription.place;
        let found = self.dns_cache.look_up(now, &question, (place.presentity, slot), place.nonce);
        let usual = question.default_transport();
        if let Some(flow) = source.flow.filter(|_| usual == source.transport) {
            // The NOTIFY does not wait for DNS: the host name matters only if the connection is gone.
            let connection = |target| match self.settings.routing.route_to_target(target, &question.host, source) {
                Some(Destination::Connection(remote)) => Some(remote),
                _ => None,
            };
            let otherwise = match found {
                NameLookup::Targets { free, .. } => {
                    free.into_iter().filter(|target| target.transport == usual).find_map(connection)
                }
                NameLookup::Soon { ask, .. } => {
                    out.dns_queries.extend(ask.then_some(question));
                    None
                }
                NameLookup::Nothing => None,
            };
            return Some(Destination::Flow { flow, otherwise });
        }
        match found {
            NameLookup::Targets { free, .. } => {
                let reached = free
                    .into_iter()
                    .find_map(|target| self.settings.routing.route_to_target(target, &question.host, source));
                Some(reached.unwrap_or(straight))
            }
            NameLookup::Nothing => Some(straight),
            NameLookup::Soon { until, ask } => {
                if ask {
                    out.dns_queries.push(question);
                }
                if let Delivery::InFlight(flight) = &subscription.delivery {
                    // A NOTIFY that supersedes another takes the same path: its deadline does not move, so it cannot
                    // wait for DNS.
                    return Some(if flight.sent_as == NotifyTransport::Tcp { straight } else { flight.to.clone() });
                }
                subscription.delivery = Delivery::Resolving { until, failures: subscription.delivery.failures() };
                self.arm_delivery_timer(now, subscription, until);
                None
            }
        }
    }

    /// Fails over after a NOTIFY has failed at one target of a host name: a new NOTIFY is sent to the next target at
    /// once (RFC 3263 section 4.3). Returns false if there is no other target.
    pub(super) fn try_next_target(
        &self,
        now: Tick,
        presentity: &Presentity,
        state: &mut State,
        slot: u32,
        out: &mut Outbox,
    ) -> bool {
        let Some(subscription) = state.watchers.get_mut(slot) else { return false };
        let Delivery::InFlight(flight) = &subscription.delivery else { return false };
        let routing = &self.settings.routing;
        let Subscription { dialog, place, .. } = &*subscription;
        let source = &subscription.source();
        let (_, Some(question)) = routing.next_hop(dialog, source) else { return false };
        let Some(failed) = target_of(&flight.to, |no| routing.listener(no).transport) else { return false };
        let failures = flight.failures;
        let on_flow = matches!(flight.to, Destination::Flow { .. });
        let (mut free, all) = match self.dns_cache.look_up(now, &question, (place.presentity, slot), place.nonce) {
            NameLookup::Targets { free, all } => (free, all),
            NameLookup::Soon { ask, .. } => {
                // The DNS answer will be there for the next attempt.
                out.dns_queries.extend(ask.then_some(question));
                return false;
            }
            NameLookup::Nothing => return false,
        };
        // For a flow it is unknown whether the connection broke or the target was unreachable. So if there is only one
        // target, it is not quarantined.
        if all > 1 || !on_flow {
            self.dns_cache.quarantine(now, failed);
        }
        free.retain(|target| *target != failed);
        // At most as many attempts as there are targets: a target that has timed out leaves the quarantine during the
        // attempts.
        let next = free.into_iter().find(|target| routing.route_to_target(*target, &question.host, source).is_some());
        let Some(next) = next.filter(|_| usize::from(subscription.failed_targets) + 1 < all) else { return false };
        tracing::debug!(host = &*question.host, failed = %failed.address, next = %next.address, "on to the next target");
        subscription.failed_targets += 1;
        subscription.delivery = Delivery::Throttled { until: now, failures };
        self.notify(now, presentity, state, slot, out);
        true
    }
}

/// Target that a message was sent to. None if it was sent over an existing connection and has no target for the case
/// that this is gone.
fn target_of(to: &Destination, transport_of: impl Fn(ListenerId) -> Transport) -> Option<ResolvedTarget> {
    match to {
        Destination::Datagram { listener, peer }
        | Destination::Connection(Remote { listener, peer, .. })
        | Destination::Flow { otherwise: Some(Remote { listener, peer, .. }), .. } => {
            Some(ResolvedTarget { transport: transport_of(*listener), address: *peer })
        }
        Destination::Flow { otherwise: None, .. } => None,
    }
}

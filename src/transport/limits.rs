//! Connection limits: connections in total and per address, handshakes under way, and octets in write queues.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use ipnet::IpNet;

use super::address::limited_as;
use super::outgoing::{Budget, Budgets, MOST_IN_ALL, MOST_OF_ADDRESS};
use crate::util::counters::increment;

/// Most handshakes and upgrades under way. Each may last ten seconds and costs far more than the connection itself, so
/// clients that only begin handshakes must not use up all connections.
const HANDSHAKES: usize = 1_024;
/// Most handshakes under way from one address, unless it is trusted. So it takes at least four addresses to keep all
/// other clients out.
const HANDSHAKES_OF_ADDRESS: usize = 256;
/// Names of the limits, in the order of the counters: a configuration key, or a fixed limit.
const LIMITS: [&str; 4] =
    ["limits.tcp_connections", "limits.tcp_connections_per_address", "handshakes", "handshakes_per_address"];

/// Configured connection limits.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Most connections in total.
    pub most: usize,
    /// Most connections from one address ...
    pub per_address: usize,
    /// ... unless the address is in one of these networks.
    pub trusted: Vec<IpNet>,
}

/// Connection limits, and how much of them is in use.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    room: ConnectionLimits,
    open: AtomicUsize,
    handshakes: AtomicUsize,
    /// Usage by remote address. Trusted addresses are not listed.
    of: DashMap<IpAddr, Arc<AddressUsage>>,
    queued: Arc<Budget>,
    refused: [AtomicU64; LIMITS.len()],
}

/// Usage of one address.
#[derive(Debug)]
struct AddressUsage {
    /// Open connections that this address has opened.
    opened: AtomicUsize,
    handshakes: AtomicUsize,
    /// Budget of the write queues to this address.
    queued: Arc<Budget>,
}

/// Permit for one open connection; dropping it releases the connection.
#[derive(Debug)]
pub(super) struct Permit {
    places: Arc<ConnectionLimiter>,
    of: Option<(IpAddr, Arc<AddressUsage>)>,
    /// True if the peer opened the connection.
    incoming: bool,
}

/// Permit for a handshake under way; dropping it releases the handshake.
#[derive(Debug)]
pub(super) struct Handshake<'a>(&'a Permit);

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.0.places.handshakes.fetch_sub(1, Relaxed);
        self.0.of.iter().for_each(|(_, of)| _ = of.handshakes.fetch_sub(1, Relaxed));
    }
}

impl Permit {
    /// Takes a permit for a handshake. The error names the limit that is reached.
    pub(super) fn handshake(&self) -> Result<Handshake<'_>, &'static str> {
        let in_all = self.places.handshakes.fetch_add(1, Relaxed);
        let of_address = self.of.as_ref().map_or(0, |(_, of)| of.handshakes.fetch_add(1, Relaxed));
        let taken = Handshake(self);
        if in_all >= HANDSHAKES {
            return Err(self.places.refuse(2));
        }
        if of_address >= HANDSHAKES_OF_ADDRESS {
            return Err(self.places.refuse(3));
        }
        Ok(taken)
    }

    /// Budgets for the write queue of this connection.
    pub(super) fn budgets(&self) -> Budgets {
        let address = self.of.as_ref().map(|(_, of)| Arc::clone(&of.queued));
        Budgets { address, all: Arc::clone(&self.places.queued) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Relaxed);
        let Some((address, of)) = self.of.take() else { return };
        if self.incoming {
            of.opened.fetch_sub(1, Relaxed);
        }
        drop(of);
        // The count is read under the lock of the map entry, so no other thread can clone it: 1 means that only the map
        // holds it.
        self.places.of.remove_if(&address, |_, of| Arc::strong_count(of) == 1);
    }
}

impl ConnectionLimiter {
    pub(super) fn of(room: ConnectionLimits) -> Arc<ConnectionLimiter> {
        Arc::new(ConnectionLimiter {
            room,
            open: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            of: DashMap::new(),
            queued: Arc::new(Budget::of(MOST_IN_ALL)),
            refused: Default::default(),
        })
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn refuse(&self, limit: usize) -> &'static str {
        increment(&self.refused[limit]);
        LIMITS[limit]
    }

    /// Takes a permit for a connection that the server opens; none if `limits.tcp_connections` is reached.
    pub(super) fn permit_to(self: &Arc<Self>, peer: IpAddr) -> Option<Permit> {
        self.permit(peer, false)
    }

    /// Takes a permit for a connection that a peer opens. The error names the limit that is reached.
    pub(super) fn permit_from(self: &Arc<Self>, from: IpAddr) -> Result<Permit, &'static str> {
        let permit = self.permit(from, true).ok_or_else(|| self.refuse(0))?;
        match &permit.of {
            Some((_, of)) if of.opened.load(Relaxed) > self.room.per_address => Err(self.refuse(1)),
            _ => Ok(permit),
        }
    }

    fn permit(self: &Arc<Self>, peer: IpAddr, incoming: bool) -> Option<Permit> {
        let taken = self.open.fetch_add(1, Relaxed);
        let mut permit = Permit { places: Arc::clone(self), of: None, incoming };
        if taken >= self.room.most {
            return None;
        }
        let peer = peer.to_canonical();
        if !self.room.trusted.iter().any(|net| net.contains(&peer)) {
            let address = limited_as(peer);
            let nothing = || {
                let (opened, handshakes) = (AtomicUsize::new(0), AtomicUsize::new(0));
                Arc::new(AddressUsage { opened, handshakes, queued: Arc::new(Budget::of(MOST_OF_ADDRESS)) })
            };
            let of = Arc::clone(&self.of.entry(address).or_insert_with(nothing));
            of.opened.fetch_add(usize::from(incoming), Relaxed);
            permit.of = Some((address, of));
        }
        Some(permit)
    }

    /// Refused connections by limit; a limit is named by its configuration key, or by a word.
    pub(super) fn refused(&self) -> [(&'static str, u64); LIMITS.len()] {
        std::array::from_fn(|limit| (LIMITS[limit], self.refused[limit].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Arc<ConnectionLimiter> {
        ConnectionLimiter::of(ConnectionLimits {
            most: 400,
            per_address: 3,
            trusted: vec!["192.0.2.0/24".parse().unwrap()],
        })
    }

    fn opened(places: &Arc<ConnectionLimiter>, from: impl Iterator<Item = String>) -> Vec<Permit> {
        from.filter_map(|ip| places.permit_from(ip.parse().unwrap()).ok()).collect()
    }

    #[test]
    fn the_addresses_of_a_64_have_the_connections_of_one_address() {
        let places = places();
        let one = opened(&places, (0..10).map(|n| format!("2001:db8:0:1::{n}")));
        let many = opened(&places, (0..10).map(|n| format!("2001:db8:0:{n:x}::1")));
        assert_eq!((one.len(), many.len()), (3, 9), "the /64 of the first has all that it may have");
        assert_eq!(opened(&places, (0..10).map(|_| "::ffff:198.51.100.1".into())).len(), 3);
        drop((one, many));
        assert_eq!((places.open(), places.of.len()), (0, 0), "nothing is left of those that went");
    }

    #[test]
    fn one_address_cannot_take_all_handshakes_and_a_trusted_one_may_have_many_connections() {
        let places = ConnectionLimiter::of(ConnectionLimits {
            most: 4_000,
            per_address: 1_000,
            trusted: places().room.trusted.clone(),
        });
        let permits = opened(&places, (0..300).map(|_| "198.51.100.1".into()));
        let begun: Vec<_> = permits.iter().filter_map(|permit| permit.handshake().ok()).collect();
        assert_eq!(begun.len(), HANDSHAKES_OF_ADDRESS);
        let other = places.permit_from("198.51.100.2".parse().unwrap()).unwrap();
        assert!(other.handshake().is_ok());
        drop(begun);
        assert!(permits[299].handshake().is_ok());
        assert_eq!(opened(&places, (0..2_000).map(|_| "192.0.2.1".into())).len(), 2_000);
    }
}

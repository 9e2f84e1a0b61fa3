//! How many connections there may be, in all and from one address, how many handshakes at once, and how much may wait to be
//! written to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use ipnet::IpNet;

use super::address::limited_as;
use super::outgoing::{Budget, Budgets, MOST_IN_ALL, MOST_OF_ADDRESS};
use crate::count::one_more;

/// How many handshakes and upgrades may be under way at once. Each may last ten seconds and costs far more than the
/// connection that it is for, so those who only begin them are kept from taking all the room.
const HANDSHAKES: usize = 1_024;
/// How many of them one address may have, unless it is trusted: so it takes many to keep all others out.
const HANDSHAKES_OF_ADDRESS: usize = 256;
/// The limits that a connection may meet at once.
const LIMITS: [&str; 4] =
    ["limits.tcp_connections", "limits.tcp_connections_per_address", "handshakes", "handshakes_per_address"];

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Room {
    /// In all.
    pub most: usize,
    /// From one address ...
    pub per_address: usize,
    /// ... unless it is one of these.
    pub trusted: Vec<IpNet>,
}

/// The room, and what is taken of it.
#[derive(Debug)]
pub(super) struct Places {
    room: Room,
    open: AtomicUsize,
    handshakes: AtomicUsize,
    /// Connections by where they come from or go to; trusted addresses are not listed.
    of: DashMap<IpAddr, Arc<OfAddress>>,
    queued: Arc<Budget>,
    refused: [AtomicU64; LIMITS.len()],
}

/// What one address has.
#[derive(Debug)]
struct OfAddress {
    /// Connections that it has opened.
    opened: AtomicUsize,
    handshakes: AtomicUsize,
    /// What waits to be written to it.
    queued: Arc<Budget>,
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(super) struct Permit {
    places: Arc<Places>,
    of: Option<(IpAddr, Arc<OfAddress>)>,
    /// It was opened by the other side.
    incoming: bool,
}

/// Counts a handshake while it is under way.
#[derive(Debug)]
pub(super) struct Handshake<'a>(&'a Permit);

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.0.places.handshakes.fetch_sub(1, Relaxed);
        self.0.of.iter().for_each(|(_, of)| _ = of.handshakes.fetch_sub(1, Relaxed));
    }
}

impl Permit {
    /// Takes one of the handshakes that there may be at once; the error names the limit that is reached.
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

    /// What may wait to be written to this connection.
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
        // Under the lock of its entry nobody can be given it: the map has the last one.
        self.places.of.remove_if(&address, |_, of| Arc::strong_count(of) == 1);
    }
}

impl Places {
    pub(super) fn of(room: Room) -> Arc<Places> {
        Arc::new(Places {
            room,
            open: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            of: DashMap::new(),
            queued: Arc::new(Budget::of(MOST_IN_ALL)),
            refused: Default::default(),
        })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn refuse(&self, limit: usize) -> &'static str {
        one_more(&self.refused[limit]);
        LIMITS[limit]
    }

    /// Takes one of the connections that there may be, for one that we open; none when all are taken.
    pub(super) fn permit_to(self: &Arc<Self>, peer: IpAddr) -> Option<Permit> {
        self.permit(peer, false)
    }

    /// The same for a connection that comes in. The error names the limit that is reached.
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
                Arc::new(OfAddress { opened, handshakes, queued: Arc::new(Budget::of(MOST_OF_ADDRESS)) })
            };
            let of = Arc::clone(&self.of.entry(address).or_insert_with(nothing));
            of.opened.fetch_add(usize::from(incoming), Relaxed);
            permit.of = Some((address, of));
        }
        Some(permit)
    }

    /// How many connections were refused, by the limit: a key of the configuration, or what it limits.
    pub(super) fn refused(&self) -> [(&'static str, u64); LIMITS.len()] {
        std::array::from_fn(|limit| (LIMITS[limit], self.refused[limit].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Arc<Places> {
        Places::of(Room { most: 400, per_address: 3, trusted: vec!["192.0.2.0/24".parse().unwrap()] })
    }

    fn opened(places: &Arc<Places>, from: impl Iterator<Item = String>) -> Vec<Permit> {
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
        let places = Places::of(Room { most: 4_000, per_address: 1_000, trusted: places().room.trusted.clone() });
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

//! Connection slots: one for each HTTP connection, and the choice of the connection to evict when all are taken.
//!
//! A plain limit on connections lets one client keep all others out by filling it. So a new connection is always
//! accepted. When all seats are taken, the connection that has waited longest for a request, or the rest of one, is
//! evicted: from the address with the most connections, or from the newcomer's own address if that has reached its
//! limit. Connections with a request in progress stay. If all have one, the new connection gets a spare seat, on which
//! only probes and metrics are answered; a spare seat can be evicted like any other.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::quota::{Limit, Network};

/// Spare seats for probes and metrics when all others are taken. A probe takes milliseconds, so a few would do; with
/// more, a connection is rarely evicted before its request is read.
const SPARE: usize = 64;
/// Most connections that have been told to close and are not closed yet. A new connection waits while there are this
/// many.
const LEAVING: usize = 64;

/// Limits of HTTP connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Limit of all connections.
    pub most: usize,
    /// Limit of one IPv4 address or one IPv6 /64.
    pub per_address: usize,
}

impl Connections {
    fn all(self) -> Limit {
        Limit { key: "limits.http_connections", most: self.most.max(1) }
    }

    fn of_address(self) -> Limit {
        Limit { key: "limits.http_connections_per_address", most: self.per_address.max(1) }
    }
}

/// Table of all seats.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    connections: Connections,
    taken: Mutex<SlotTable>,
    /// Notified when a connection has closed.
    freed: Notify,
    gave_way: AtomicU64,
    spared: AtomicU64,
}

#[derive(Debug, Default)]
struct SlotTable {
    /// Number of the next seat; also a sequence number for the order in which connections began to wait.
    next: u64,
    seats: HashMap<u64, Entry>,
    regular: Group,
    spare: Group,
    /// Number of connections that have been told to close.
    leaving: usize,
}

/// Slots of one kind, by address.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    by_address: HashMap<Network, AddressUsage>,
}

#[derive(Debug, Default)]
struct AddressUsage {
    count: usize,
    /// Waiting connections: seat number by the sequence number at which it began to wait.
    waiting: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Entry {
    network: Network,
    spare: bool,
    /// Number of operations in progress for the connection; 0 while it waits.
    busy: usize,
    /// Sequence number at which it began to wait.
    since: u64,
    evicted: Arc<Notify>,
}

/// Connection counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Open connections.
    pub(super) open: usize,
    /// Open connections that wait for a request or for the rest of one.
    pub(super) waiting: usize,
    /// Connections evicted to make place for others.
    pub(super) gave_way: u64,
    /// Connections that got a spare seat because no regular seat could be freed.
    pub(super) spared: u64,
}

impl ConnectionSlots {
    pub(super) fn new(connections: Connections) -> Arc<Self> {
        Arc::new(Self {
            connections,
            taken: Mutex::default(),
            freed: Notify::new(),
            gave_way: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        })
    }

    /// Returns a seat for a new connection. Waits only while too many evicted connections are still open, or all spare
    /// seats are busy.
    pub(super) async fn enter(self: &Arc<Self>, peer: SocketAddr) -> Slot {
        loop {
            let freed = self.freed.notified();
            if let Some(seat) = self.try_enter(peer) {
                return seat;
            }
            freed.await;
        }
    }

    fn try_enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Slot> {
        let network = Network::from(peer.ip());
        let (all, of_address) = (self.connections.all(), self.connections.of_address());
        let mut taken = self.taken.lock();
        if taken.leaving >= LEAVING {
            return None;
        }
        let mine = taken.regular.by_address.get(&network).map_or(0, |of| of.count);
        let full = if mine >= of_address.most {
            (!self.make_way(&mut taken, Kind::Regular(Some(network)))).then_some(of_address)
        } else if taken.regular.count >= all.most {
            (!self.make_way(&mut taken, Kind::Regular(None))).then_some(all)
        } else {
            None
        };
        if full.is_some() {
            if taken.spare.count >= SPARE && !self.make_way(&mut taken, Kind::Spare) {
                return None;
            }
            self.spared.fetch_add(1, Ordering::Relaxed);
        }
        let (number, evicted) = taken.add(network, full.is_some());
        Some(Slot { seats: Arc::clone(self), number, peer, full, evicted })
    }

    fn make_way(&self, taken: &mut SlotTable, kind: Kind) -> bool {
        let Some(number) = taken.longest_waiting(kind) else { return false };
        if let Some(entry) = taken.remove(number) {
            entry.evicted.notify_one();
            taken.leaving += 1;
            self.gave_way.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Evicts one waiting connection to free a file descriptor. Returns false if none waits.
    pub(super) fn give_one_up(&self) -> bool {
        let mut taken = self.taken.lock();
        taken.leaving >= LEAVING
            || self.make_way(&mut taken, Kind::Regular(None))
            || self.make_way(&mut taken, Kind::Spare)
    }

    pub(super) fn stats(&self) -> Stats {
        let taken = self.taken.lock();
        let of = |group: &Group| group.by_address.values().map(|of| of.waiting.len()).sum::<usize>();
        Stats {
            open: taken.seats.len() + taken.leaving,
            waiting: of(&taken.regular) + of(&taken.spare),
            gave_way: self.gave_way.load(Ordering::Relaxed),
            spared: self.spared.load(Ordering::Relaxed),
        }
    }

    /// Waits until every connection has closed.
    pub(super) async fn empty(&self) {
        loop {
            let freed = self.freed.notified();
            if self.stats().open == 0 {
                return;
            }
            freed.await;
        }
    }
}

/// Slots among which one is chosen for eviction.
#[derive(Clone, Copy)]
enum Kind {
    /// Regular seats of one address, or of the address that has the most.
    Regular(Option<Network>),
    Spare,
}

impl SlotTable {
    fn add(&mut self, network: Network, spare: bool) -> (u64, Arc<Notify>) {
        let number = self.next;
        self.next += 1;
        let evicted = Arc::new(Notify::new());
        self.seats.insert(number, Entry { network, spare, busy: 0, since: number, evicted: Arc::clone(&evicted) });
        let group = if spare { &mut self.spare } else { &mut self.regular };
        group.count += 1;
        let of = group.by_address.entry(network).or_default();
        of.count += 1;
        of.waiting.insert(number, number);
        (number, evicted)
    }

    fn longest_waiting(&self, kind: Kind) -> Option<u64> {
        let (group, only) = match kind {
            Kind::Regular(only) => (&self.regular, only),
            Kind::Spare => (&self.spare, None),
        };
        let of = match only {
            Some(network) => group.by_address.get(&network)?,
            None => group.by_address.values().filter(|of| !of.waiting.is_empty()).max_by_key(|of| of.count)?,
        };
        of.waiting.values().next().copied()
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.seats.remove(&number)?;
        let group = if entry.spare { &mut self.spare } else { &mut self.regular };
        group.count -= 1;
        if let Some(of) = group.by_address.get_mut(&entry.network) {
            of.count -= 1;
            of.waiting.remove(&entry.since);
            if of.count == 0 {
                group.by_address.remove(&entry.network);
            }
        }
        Some(entry)
    }

    /// Counts the begin or the end of an operation for a connection.
    fn work(&mut self, number: u64, begins: bool) {
        let Some(entry) = self.seats.get_mut(&number) else { return };
        let group = if entry.spare { &mut self.spare } else { &mut self.regular };
        let Some(of) = group.by_address.get_mut(&entry.network) else { return };
        if begins {
            entry.busy += 1;
            of.waiting.remove(&entry.since);
        } else {
            entry.busy = entry.busy.saturating_sub(1);
            if entry.busy == 0 {
                entry.since = self.next;
                self.next += 1;
                of.waiting.insert(entry.since, number);
            }
        }
    }
}

/// Slot of one connection; released on drop.
#[derive(Debug)]
pub(super) struct Slot {
    seats: Arc<ConnectionSlots>,
    number: u64,
    peer: SocketAddr,
    full: Option<Limit>,
    evicted: Arc<Notify>,
}

impl Slot {
    /// Remote address of the connection.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// On a spare seat, the limit that was reached; otherwise `None`.
    pub(super) fn full(&self) -> Option<Limit> {
        self.full
    }

    /// Completes when this connection has to close.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Marks the connection as busy, once its request is complete. It is not evicted until every such mark is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> BusyGuard {
        self.seats.taken.lock().work(self.number, true);
        BusyGuard(Arc::clone(self))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if taken.remove(self.number).is_none() {
            taken.leaving -= 1;
        }
        drop(taken);
        self.seats.freed.notify_waiters();
    }
}

/// Mark of an operation in progress for a connection.
#[derive(Debug)]
pub(super) struct BusyGuard(Arc<Slot>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.seats.taken.lock().work(self.0.number, false);
        // The connection can be evicted now, which may admit a new one that waits.
        self.0.seats.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(most: usize, per_address: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(Connections { most, per_address })
    }

    fn enter(seats: &Arc<ConnectionSlots>, address: &str) -> Arc<Slot> {
        let peer = SocketAddr::new(address.parse().unwrap(), 9);
        Arc::new(seats.try_enter(peer).expect("a seat"))
    }

    /// Returns true if a connection has been told to close.
    async fn is_evicted(seat: &Slot) -> bool {
        tokio::select! {
            biased;
            () = seat.evicted() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn who_waits_longest_at_the_address_with_the_most_gives_way() {
        let seats = seats(3, 3);
        let quiet = enter(&seats, "192.0.2.9");
        let (one, two) = (enter(&seats, "192.0.2.1"), enter(&seats, "192.0.2.1"));
        let busy = one.busy();
        let three = enter(&seats, "192.0.2.1");
        assert!(three.full().is_none() && is_evicted(&two).await, "the oldest is busy, the second gives way");
        drop((two, busy));
        let four = enter(&seats, "2001:db8::1");
        assert!(is_evicted(&three).await && !is_evicted(&one).await, "what was busy has only begun to wait");
        assert!(!is_evicted(&quiet).await && four.full().is_none());
        drop(three);
        assert_eq!(seats.stats(), Stats { open: 3, waiting: 3, gave_way: 2, spared: 0 });
    }

    #[tokio::test]
    async fn where_file_descriptors_are_short_one_that_waits_is_given_up() {
        let seats = seats(9, 9);
        let (one, two) = (enter(&seats, "192.0.2.1"), enter(&seats, "192.0.2.1"));
        let _busy = one.busy();
        assert!(seats.give_one_up() && is_evicted(&two).await);
        assert!(!seats.give_one_up() && !is_evicted(&one).await, "the other is busy");
    }

    #[tokio::test]
    async fn an_address_makes_room_for_itself() {
        let seats = seats(10, 2);
        let other = enter(&seats, "192.0.2.9");
        let (one, two) = (enter(&seats, "2001:db8::1"), enter(&seats, "2001:db8::2"));
        let three = enter(&seats, "2001:db8::3");
        assert!(is_evicted(&one).await && !is_evicted(&other).await);
        let _busy = (two.busy(), three.busy());
        let spare = enter(&seats, "2001:db8::4");
        assert_eq!(spare.full().unwrap().key, "limits.http_connections_per_address");
        assert!(enter(&seats, "192.0.2.9").full().is_none(), "there is room for others");
    }

    #[tokio::test]
    async fn when_all_are_busy_there_are_spare_seats_and_these_give_way_too() {
        let seats = seats(1, 1);
        let one = enter(&seats, "192.0.2.1");
        let busy = one.busy();
        let spare: Vec<_> = (0..SPARE).map(|_| enter(&seats, "192.0.2.2")).collect();
        assert!(spare.iter().all(|seat| seat.full().unwrap().key == "limits.http_connections"));
        let probing = spare[0].busy();
        let next = enter(&seats, "192.0.2.2");
        assert!(is_evicted(&spare[1]).await && next.full().is_some(), "the one that is being answered stays");
        drop((probing, next, spare, busy));
        assert_eq!(seats.stats(), Stats { open: 1, waiting: 1, gave_way: 1, spared: SPARE as u64 + 1 });
        drop(one);
        seats.empty().await;
    }

    #[tokio::test]
    async fn a_newcomer_waits_while_too_many_are_on_their_way_out() {
        let seats = seats(1, 1);
        let mut all: Vec<_> = (0..=LEAVING).map(|_| enter(&seats, "192.0.2.1")).collect();
        let peer = "192.0.2.1:9".parse().unwrap();
        assert!(seats.try_enter(peer).is_none());
        let (entered, ()) = tokio::join!(seats.enter(peer), async { drop(all.remove(0)) });
        assert!(entered.full().is_none());
    }
}

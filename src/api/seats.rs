//! Seats: the places for HTTP connections, and which of them is given up when there is none left.
//!
//! A limit on connections is of no use if the client that fills it keeps all others out. So a newcomer is never turned away at the
//! door: when all seats are taken, the connection gives way that has waited longest for something to come (a request, or the
//! rest of one), of the address that has the most. Connections that are being answered stay. If there is nothing but those,
//! the newcomer gets a spare seat, on which only the probes and the metrics are answered; a spare seat gives way like any other.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::share::{Limit, Network};

/// Seats for probes and metrics when all others are taken. A probe takes milliseconds, so a few would do; more of them make
/// it unlikely that one gives way before its request is read.
const SPARE: usize = 64;
/// Connections that have been told to give way and are not gone yet: a newcomer waits while there are as many.
const LEAVING: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// In all.
    pub most: usize,
    /// From one address; from one /64 of IPv6.
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

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    connections: Connections,
    taken: Mutex<Taken>,
    /// A connection has gone.
    freed: Notify,
    gave_way: AtomicU64,
    spared: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    /// Number of the next seat, and of the next moment at which one begins to wait.
    next: u64,
    seats: HashMap<u64, Entry>,
    regular: Group,
    spare: Group,
    /// Those that have been told to give way.
    leaving: usize,
}

/// Seats of one kind, by address.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    by_address: HashMap<Network, OfAddress>,
}

#[derive(Debug, Default)]
struct OfAddress {
    count: usize,
    /// Those that wait, by the moment at which they began to.
    waiting: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Entry {
    network: Network,
    spare: bool,
    /// How many things are being done for it; 0 while it waits.
    busy: usize,
    /// When it began to wait.
    since: u64,
    evicted: Arc<Notify>,
}

/// How the connections fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// Open ones.
    pub(super) open: usize,
    /// Of these, those that wait for a request or for the rest of one.
    pub(super) waiting: usize,
    /// Closed so that others got in.
    pub(super) gave_way: u64,
    /// Those that came when all were busy.
    pub(super) spared: u64,
}

impl Seats {
    pub(super) fn new(connections: Connections) -> Arc<Self> {
        Arc::new(Self {
            connections,
            taken: Mutex::default(),
            freed: Notify::new(),
            gave_way: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        })
    }

    /// A seat for a new connection. Waits only while too many are on their way out, or all spare seats are busy.
    pub(super) async fn enter(self: &Arc<Self>, peer: SocketAddr) -> Seat {
        loop {
            let freed = self.freed.notified();
            if let Some(seat) = self.try_enter(peer) {
                return seat;
            }
            freed.await;
        }
    }

    fn try_enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Seat> {
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
        Some(Seat { seats: Arc::clone(self), number, peer, full, evicted })
    }

    fn make_way(&self, taken: &mut Taken, kind: Kind) -> bool {
        let Some(number) = taken.longest_waiting(kind) else { return false };
        if let Some(entry) = taken.remove(number) {
            entry.evicted.notify_one();
            taken.leaving += 1;
            self.gave_way.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Has one connection that waits give way, for want of something else than a seat: file descriptors. False if none waits.
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

    /// Waits until every connection has gone.
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

/// Among which seats one is looked for that gives way.
#[derive(Clone, Copy)]
enum Kind {
    /// Regular ones, of one address or of that which has the most.
    Regular(Option<Network>),
    Spare,
}

impl Taken {
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

    /// One thing more, or less, is being done for a connection.
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

/// The seat of one connection; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
    peer: SocketAddr,
    full: Option<Limit>,
    evicted: Arc<Notify>,
}

impl Seat {
    /// The other end.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// On a spare seat, the limit because of which it is one.
    pub(super) fn full(&self) -> Option<Limit> {
        self.full
    }

    /// Ready when this connection has to give way.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The request is there as a whole: until this is dropped, and all others of the kind, the connection does not give way.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.seats.taken.lock().work(self.number, true);
        Busy(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if taken.remove(self.number).is_none() {
            taken.leaving -= 1;
        }
        drop(taken);
        self.seats.freed.notify_waiters();
    }
}

/// Something is being done for a connection.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.seats.taken.lock().work(self.0.number, false);
        // It can give way now.
        self.0.seats.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(most: usize, per_address: usize) -> Arc<Seats> {
        Seats::new(Connections { most, per_address })
    }

    fn enter(seats: &Arc<Seats>, address: &str) -> Arc<Seat> {
        let peer = SocketAddr::new(address.parse().unwrap(), 9);
        Arc::new(seats.try_enter(peer).expect("a seat"))
    }

    /// Whether a connection has been told to give way.
    async fn is_evicted(seat: &Seat) -> bool {
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

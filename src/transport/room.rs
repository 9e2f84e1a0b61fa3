//! How many connections there may be, in all and from one address, and how many handshakes at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use ipnet::IpNet;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::count::one_more;

/// How many handshakes and upgrades may be under way at once. Each may last ten seconds and costs far more than the
/// connection that it is for, so those who only begin them are kept from taking all the room.
const HANDSHAKES: usize = 1_024;
/// The limits that a connection may meet at once.
const LIMITS: [&str; 2] = ["limits.tcp_connections", "limits.tcp_connections_per_address"];

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
    /// Connections by where they come from.
    from: DashMap<IpAddr, usize>,
    handshakes: Semaphore,
    refused: [AtomicU64; LIMITS.len()],
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(super) struct Permit {
    places: Arc<Places>,
    from: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places.open.fetch_sub(1, Relaxed);
        if let Some(mut count) = self.from.and_then(|from| self.places.from.get_mut(&from)) {
            *count -= 1;
        }
        if let Some(from) = self.from {
            self.places.from.remove_if(&from, |_, count| *count == 0);
        }
    }
}

impl Places {
    pub(super) fn of(room: Room) -> Arc<Places> {
        Arc::new(Places {
            room,
            open: AtomicUsize::new(0),
            from: DashMap::new(),
            handshakes: Semaphore::new(HANDSHAKES),
            refused: Default::default(),
        })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Takes one of the connections that there may be; none when all are taken.
    pub(super) fn permit(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.open.fetch_add(1, Relaxed);
        let permit = Permit { places: Arc::clone(self), from: None };
        (taken < self.room.most).then_some(permit)
    }

    /// The same for a connection that comes in. The error names the limit that is reached.
    pub(super) fn permit_from(self: &Arc<Self>, from: IpAddr) -> Result<Permit, &'static str> {
        let from = from.to_canonical();
        let refuse = |limit: usize| {
            one_more(&self.refused[limit]);
            LIMITS[limit]
        };
        let mut permit = self.permit().ok_or_else(|| refuse(0))?;
        if self.room.trusted.iter().any(|net| net.contains(&from)) {
            return Ok(permit);
        }
        let mut count = self.from.entry(from).or_default();
        if *count >= self.room.per_address {
            return Err(refuse(1));
        }
        *count += 1;
        drop(count);
        permit.from = Some(from);
        Ok(permit)
    }

    /// Takes one of the handshakes that there may be at once; none when all are taken.
    pub(super) fn handshake(&self) -> Option<SemaphorePermit<'_>> {
        self.handshakes.try_acquire().ok()
    }

    /// How many connections were refused, by the key of the limit.
    pub(super) fn refused(&self) -> [(&'static str, u64); LIMITS.len()] {
        std::array::from_fn(|limit| (LIMITS[limit], self.refused[limit].load(Relaxed)))
    }
}

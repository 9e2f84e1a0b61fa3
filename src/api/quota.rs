//! Quotas: a pool limits how much of a scarce resource all clients together, one account and one address may hold at a time.
//!
//! With only one common limit, one client could use up the whole pool. So each pool has three limits, and every share
//! counts against all three: the total, the account of the token, the address of the client. A share is given back on
//! drop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::ApiError;
use crate::directory::TokenScope;
use crate::transport::limited_as;

/// Address prefix that counts as one client: an IPv4 address or an IPv6 /64, which is what one subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(limited_as(address))
    }
}

/// Client that a share is charged to. If the address is unknown, only the account and the total count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) bearer: TokenScope,
    pub(super) network: Option<Network>,
}

/// A limit. `key` is the configuration key, or the words that name the limit in errors and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) key: &'static str,
    pub(super) most: usize,
}

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) all: Limit,
    pub(super) account: Limit,
    pub(super) address: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Account(TokenScope),
    Address(Network),
}

/// A pool: its limits, and how much each client holds.
#[derive(Debug)]
pub(super) struct QuotaPool {
    limits: Limits,
    held: Mutex<Held>,
    /// Refusals by the limit that was reached: total, account, address.
    refused: [AtomicU64; 3],
}

/// Amounts held. A holder is removed when it holds nothing, so their number is at most twice the amount held.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<Holder, usize>,
}

impl QuotaPool {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, held: Mutex::default(), refused: Default::default() })
    }

    /// Takes `amount` for a client; [`ApiError::NoRoom`] names the limit that was reached.
    pub(super) fn take(self: &Arc<Self>, client: Client, amount: usize) -> Result<QuotaGuard, ApiError> {
        let mut share = QuotaGuard { shares: Arc::clone(self), client, amount: 0 };
        share.grow(amount).map(|()| share)
    }

    /// Amount held by all clients.
    pub(super) fn held(&self) -> usize {
        self.held.lock().all
    }

    /// Number of refusals for each limit.
    pub(super) fn refused(&self) -> [(&'static str, u64); 3] {
        let limits = [self.limits.all, self.limits.account, self.limits.address];
        std::array::from_fn(|n| (limits[n].key, self.refused[n].load(Ordering::Relaxed)))
    }
}

/// Share of a pool that a client holds.
#[derive(Debug)]
pub(super) struct QuotaGuard {
    shares: Arc<QuotaPool>,
    client: Client,
    amount: usize,
}

impl QuotaGuard {
    /// Takes `more` in addition.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        let QuotaPool { limits, held, refused } = &*self.shares;
        let mut held = held.lock();
        let of = |held: &Held, holder| held.by.get(&holder).copied().unwrap_or_default();
        let counts = [
            (limits.all, held.all),
            (limits.account, of(&held, Holder::Account(self.client.bearer))),
            (limits.address, self.client.network.map_or(0, |network| of(&held, Holder::Address(network)))),
        ];
        if let Some(n) = counts.iter().position(|(limit, count)| count.saturating_add(more) > limit.most) {
            refused[n].fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::NoRoom(counts[n].0));
        }
        held.all += more;
        for holder in self.client.holders() {
            *held.by.entry(holder).or_default() += more;
        }
        self.amount += more;
        Ok(())
    }
}

impl Client {
    fn holders(self) -> impl Iterator<Item = Holder> {
        [Some(Holder::Account(self.bearer)), self.network.map(Holder::Address)].into_iter().flatten()
    }
}

impl Drop for QuotaGuard {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        held.all = held.all.saturating_sub(self.amount);
        for holder in self.client.holders() {
            if let Some(count) = held.by.get_mut(&holder) {
                *count = count.saturating_sub(self.amount);
                if *count == 0 {
                    held.by.remove(&holder);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::directory::AccountNo;

    fn pool(all: usize, account: usize, address: usize) -> Arc<QuotaPool> {
        let limit = |key, most| Limit { key, most };
        QuotaPool::new(Limits {
            all: limit("all", all),
            account: limit("account", account),
            address: limit("address", address),
        })
    }

    pub(in crate::api) fn client(account: u32, address: &str) -> Client {
        let network = Some(address.parse::<IpAddr>().unwrap().into());
        Client { bearer: TokenScope::Account(AccountNo(account)), network }
    }

    fn refused_by(pool: &Arc<QuotaPool>, client: Client, amount: usize) -> Option<&'static str> {
        match pool.take(client, amount) {
            Err(ApiError::NoRoom(limit)) => Some(limit.key),
            Ok(_) => None,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_takes_more_than_a_share_and_what_is_dropped_is_there_again() {
        let pool = pool(100, 50, 70);
        let one = pool.take(client(1, "192.0.2.1"), 50).unwrap();
        assert_eq!(refused_by(&pool, client(1, "192.0.2.2"), 1), Some("account"));
        let mut two = pool.take(client(2, "192.0.2.1"), 10).unwrap();
        assert_eq!(refused_by(&pool, client(3, "192.0.2.1"), 11), Some("address"));
        assert!(two.grow(10).is_ok() && two.grow(1).is_err());
        assert_eq!(refused_by(&pool, client(3, "192.0.2.3"), 31), Some("all"));
        drop(one);
        assert_eq!((pool.held(), refused_by(&pool, client(1, "192.0.2.1"), 50)), (20, None));
        drop(two);
        assert!(pool.held() == 0 && pool.held.lock().by.is_empty(), "nothing is left of those who hold nothing");
        assert_eq!(pool.refused(), [("all", 1), ("account", 1), ("address", 2)]);
    }

    #[test]
    fn a_64_of_ipv6_is_one_address_and_so_is_ipv4_within_ipv6() {
        let network = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}

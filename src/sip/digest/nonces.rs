//! Nonces of Digest authentication. A nonce is issued without being stored; it is stored once a client has
//! authenticated with it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;
use std::net::IpAddr;

use parking_lot::Mutex;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Nonces of one server, from one start to the next.
///
/// A nonce holds its time and a keyed hash over the time, a number and the client's address. A client may use it
/// again, each time with another count (RFC 7616 section 3.4.5), so that a phone's refreshes need no new challenge.
/// Only the counts that were used are stored.
#[derive(Debug)]
pub struct Nonces {
    key: [u8; 16],
    lifetime: u64,
    shards: Box<[Mutex<Shard>]>,
    most_per_shard: usize,
}

#[derive(Debug, Default)]
struct Shard {
    used: HashMap<u64, Uses>,
    /// Number and time of issue of each stored nonce, in the order of first use.
    order: VecDeque<(u64, u64)>,
    /// Latest time of issue of a nonce that was dropped. A nonce issued until then and not stored may have been used
    /// before, so it is rejected.
    forgotten: u64,
}

/// Counts that a nonce was used with.
#[derive(Clone, Copy, Debug)]
struct Uses {
    highest: u32,
    /// Bit n is set if the count highest - 1 - n was used as well.
    before: u64,
}

const SHARDS: usize = 16;

impl Nonces {
    /// Creates the nonces of a server, with a lifetime in ms. At most `most` are stored; beyond that the oldest
    /// become invalid, which costs their users one more challenge.
    pub fn new(key: [u8; 16], lifetime: u64, most: usize) -> Nonces {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Nonces { key, lifetime, shards, most_per_shard: most.div_ceil(SHARDS).max(1) }
    }

    /// Issues a nonce for a client at `address` at time `now` (ms). `unique` must differ for each nonce.
    pub fn make(&self, now: u64, unique: u64, address: IpAddr) -> String {
        format!("{now:016x}{unique:016x}{:032x}", self.seal(now, unique, address))
    }

    fn seal(&self, made: u64, unique: u64, address: IpAddr) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(made);
        hasher.write_u64(unique);
        match address.to_canonical() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.finish128().as_u128()
    }

    /// Uses a nonce with this count; to be called once the digest that came with it has been verified.
    ///
    /// Returns false if the nonce was not issued by this server or not for this address, is too old, or was used with
    /// this count before. Then the client needs a new challenge.
    pub fn spend(&self, now: u64, nonce: &str, address: IpAddr, count: u32) -> bool {
        let Some((made, unique)) = self.open(nonce, address) else { return false };
        if made > now || now - made > self.lifetime || count == 0 {
            return false;
        }
        let mut shard = self.shards[unique as usize % SHARDS].lock();
        let Shard { used, order, forgotten } = &mut *shard;
        while let Some(&(first, at)) = order.front() {
            let dead = now.saturating_sub(at) > self.lifetime;
            if !dead && order.len() < self.most_per_shard {
                break;
            }
            order.pop_front();
            used.remove(&first);
            *forgotten = at.max(*forgotten);
        }
        match used.get_mut(&unique) {
            Some(uses) => uses.spend(count),
            None if made <= *forgotten => false,
            None => {
                used.insert(unique, Uses { highest: count, before: 0 });
                order.push_back((unique, made));
                true
            }
        }
    }

    /// Time of issue and number of a nonce of this server.
    fn open(&self, nonce: &str, address: IpAddr) -> Option<(u64, u64)> {
        let plain = nonce.len() == 64 && nonce.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let number = |range| u64::from_str_radix(nonce.get(range)?, 16).ok();
        let (made, unique) = plain.then(|| Some((number(0..16)?, number(16..32)?)))??;
        let seal = u128::from_str_radix(&nonce[32..], 16).ok()?;
        let good: bool = subtle::ConstantTimeEq::ct_eq(&seal, &self.seal(made, unique, address)).into();
        good.then_some((made, unique))
    }

    /// Returns true if this server issued the nonce for this address, even if it is not valid any more.
    pub fn is_made_for(&self, nonce: &str, address: IpAddr) -> bool {
        self.open(nonce, address).is_some()
    }

    /// Number of stored nonces.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().used.len()).sum()
    }

    /// True if no nonce is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Uses {
    /// Uses a count. Requests may be reordered, so a count may be up to 64 below the highest, as long as it is new.
    fn spend(&mut self, count: u32) -> bool {
        if count > self.highest {
            let ahead = count - self.highest;
            self.before = self.before.checked_shl(ahead).unwrap_or(0) | 1u64.checked_shl(ahead - 1).unwrap_or(0);
            self.highest = count;
            return true;
        }
        let bit = (self.highest - count).checked_sub(1).and_then(|behind| 1u64.checked_shl(behind)).unwrap_or(0);
        let new = bit != 0 && self.before & bit == 0;
        self.before |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 8));

    fn nonces(most: usize) -> Nonces {
        Nonces::new([7; 16], 1_000, most)
    }

    #[test]
    fn a_nonce_is_good_again_and_again_with_ever_new_counts() {
        let nonces = nonces(100);
        let nonce = nonces.make(50, 1, HERE);
        for (count, good) in [(1, true), (1, false), (2, true), (5, true), (4, true), (4, false), (3, true), (0, false)]
        {
            assert_eq!(nonces.spend(60, &nonce, HERE, count), good, "{count}");
        }
        assert!(nonces.spend(60, &nonce, HERE, 100));
        assert!(!nonces.spend(60, &nonce, HERE, 5), "long ago");
        assert!(nonces.spend(60, &nonce, HERE, 99) && !nonces.spend(60, &nonce, HERE, 99));
        assert!(nonces.spend(60, &nonce, HERE, 36) && !nonces.spend(60, &nonce, HERE, 35));
        assert!(nonces.spend(60, &nonce, HERE, u32::MAX) && !nonces.spend(60, &nonce, HERE, 100));
    }

    #[test]
    fn a_nonce_is_good_for_its_time_and_address_only_and_cannot_be_made_up() {
        let nonces = nonces(100);
        let nonce = nonces.make(50, 1, HERE);
        assert!(!nonces.spend(60, &nonce, THERE, 1));
        assert!(!nonces.spend(1_051, &nonce, HERE, 1));
        assert!(!nonces.spend(49, &nonce, HERE, 1));
        for i in 0..64 {
            let other = if &nonce[i..=i] == "0" { "1" } else { "0" };
            let bent = format!("{}{other}{}", &nonce[..i], &nonce[i + 1..]);
            assert!(!nonces.spend(60, &bent, HERE, 1), "{i}");
        }
        assert!(!nonces.spend(60, "", HERE, 1) && !nonces.spend(60, &nonce.to_uppercase(), HERE, 1));
        assert!(!Nonces::new([8; 16], 1_000, 9).spend(60, &nonce, HERE, 1), "another server's");
        assert!(nonces.spend(60, &nonce, HERE, 1));
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_not_good_again() {
        let nonces = nonces(64);
        let first = nonces.make(10, 0, HERE);
        assert!(nonces.spend(10, &first, HERE, 1));
        for unique in 1..10_000 {
            assert!(nonces.spend(20, &nonces.make(20, unique, HERE), HERE, 1) || unique > 64, "{unique}");
        }
        assert!(nonces.len() <= 64, "{}", nonces.len());
        assert!(!nonces.spend(20, &first, HERE, 1) && !nonces.spend(20, &first, HERE, 2));
        let later = nonces.make(21, 1 << 40, HERE);
        assert!(nonces.spend(21, &later, HERE, 1), "who asks anew is served");
    }
}

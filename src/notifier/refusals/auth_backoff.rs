//! Back-off after wrong passwords and wrong tokens: the time that the sender must wait before the next one is
//! checked, and the rate of log lines about them.
//!
//! For passwords, a wait applies to one user name from one network of senders; for tokens, to one network. So guesses
//! from another address cannot lock a phone out. The wait grows with each wrong attempt up to a maximum, and is
//! forgotten after some minutes without one. All tables are bounded; an entry that is evicted only loses its wait.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use super::lru::Lru;
use crate::directory::AccountNo;
use crate::presence::Tick;
use crate::transport::limited_as;

/// Maximum number of senders whose wrong attempts are counted: 5 MB at about 80 octets each.
const MOST_COUNTED: usize = 65_536;
/// Maximum number of senders whose latest log line is remembered.
const MOST_LOGGED: usize = 4_096;
/// Interval between two log lines about one sender, for each kind of secret (ms).
const LOG_EVERY: u64 = 60_000;
/// Time without a wrong attempt after which earlier ones are forgotten (ms).
const FORGOTTEN_AFTER: u64 = 300_000;
/// Number of words in the filter in front of the exact table.
const FILTER: usize = 4_096;

/// Kind of secret that was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Secret {
    /// Password of a SIP device.
    Password,
    /// Token of the API.
    Token,
}

/// Schedule of the waits for one kind of secret.
struct Schedule {
    /// Number of wrong attempts that cost no wait: people mistype, and a phone sends its password for each of its
    /// lamp keys.
    free: u32,
    /// First wait (ms); each later one is twice as long.
    first: u64,
    /// Longest wait (ms).
    longest: u64,
}

impl Secret {
    fn schedule(self) -> Schedule {
        match self {
            // A wait above 30 s would outlast the transaction (32 s) of a phone that has the right password by now.
            Secret::Password => Schedule { free: 5, first: 1_000, longest: 30_000 },
            // The response to the client is delayed by the wait, so it must stay below the usual timeouts of clients.
            Secret::Token => Schedule { free: 1, first: 250, longest: 5_000 },
        }
    }
}

impl Schedule {
    /// Returns the wait after this number of wrong attempts (ms).
    fn wait(&self, wrong: u32) -> u64 {
        let Some(doublings) = wrong.checked_sub(self.free + 1) else { return 0 };
        self.first.checked_shl(doublings.min(16)).unwrap_or(u64::MAX).min(self.longest)
    }
}

/// Consequence of a wrong attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Time that the sender has to wait (ms).
    pub(super) wait: u64,
    /// Number of wrong attempts since the latest log line, with this one, if it is to be logged now; else `None`.
    pub(super) log: Option<u64>,
}

type Hash = u64;

#[derive(Debug, Default)]
struct Tries {
    wrong: u32,
    last_at: Tick,
    wait_until: Tick,
}

#[derive(Debug, Default)]
struct Logged {
    at: Option<Tick>,
    since: u64,
}

/// Wrong passwords and tokens of all senders.
#[derive(Debug)]
pub(super) struct AuthBackoff {
    key: [u8; 16],
    /// Filter: each word has the end of the latest wait of all senders with the same hash (ms). For a sender without
    /// a wait, one read without a lock is enough; only the others look into the table.
    filter: Box<[AtomicU64]>,
    tries: Mutex<Lru<(Secret, IpAddr, Hash), Tries>>,
    logged: Mutex<Lru<(Secret, IpAddr), Logged>>,
}

impl AuthBackoff {
    /// Creates empty tables. `key` is secret, so that an attacker cannot compute which senders share a word of the
    /// filter.
    pub(super) fn new(key: [u8; 16]) -> AuthBackoff {
        AuthBackoff {
            key,
            filter: (0..FILTER).map(|_| AtomicU64::new(0)).collect(),
            tries: Mutex::new(Lru::new(MOST_COUNTED)),
            logged: Mutex::new(Lru::new(MOST_LOGGED)),
        }
    }

    /// Returns the hash of the user that a password was tried for. The name itself is not kept, because unverified
    /// senders choose it and it may be long.
    fn user(&self, account: AccountNo, name: &str) -> Hash {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u32(account.0);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    fn word(&self, network: IpAddr, user: Hash) -> &AtomicU64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match network {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u64(user);
        &self.filter[hasher.finish() as usize % FILTER]
    }

    /// Returns the remaining wait before a password of this user from this sender is checked (ms); `None` if there is
    /// no wait.
    pub(super) fn wait(&self, now: Tick, address: IpAddr, account: AccountNo, name: &str) -> Option<u64> {
        let (network, user) = (limited_as(address), self.user(account, name));
        if self.word(network, user).load(Relaxed) <= now.0 {
            return None;
        }
        let until = self.tries.lock().get(&(Secret::Password, network, user))?.wait_until;
        until.0.checked_sub(now.0).filter(|wait| *wait > 0)
    }

    /// Records a wrong password of a user.
    pub(super) fn wrong_password(&self, now: Tick, address: IpAddr, account: AccountNo, name: &str) -> Outcome {
        let (network, user) = (limited_as(address), self.user(account, name));
        let outcome = self.wrong(now, Secret::Password, network, user);
        self.word(network, user).fetch_max(now.0 + outcome.wait, Relaxed);
        outcome
    }

    /// Records a wrong token.
    pub(super) fn wrong_token(&self, now: Tick, address: IpAddr) -> Outcome {
        self.wrong(now, Secret::Token, limited_as(address), 0)
    }

    fn wrong(&self, now: Tick, secret: Secret, network: IpAddr, user: Hash) -> Outcome {
        let wait = {
            let mut tries = self.tries.lock();
            let tries = tries.touch(&(secret, network, user));
            if now > tries.last_at.after(FORGOTTEN_AFTER) {
                tries.wrong = 0;
            }
            tries.wrong = tries.wrong.saturating_add(1);
            tries.last_at = now;
            let wait = secret.schedule().wait(tries.wrong);
            tries.wait_until = now.after(wait);
            wait
        };
        let mut logged = self.logged.lock();
        let logged = logged.touch(&(secret, network));
        logged.since += 1;
        let due = logged.at.is_none_or(|at| now >= at.after(LOG_EVERY));
        let log = due.then(|| {
            logged.at = Some(now);
            std::mem::take(&mut logged.since)
        });
        Outcome { wait, log }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountNo = AccountNo(0);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn waits_grow_to_a_maximum_and_hold_for_that_user_from_that_address_only() {
        let guesses = AuthBackoff::new([7; 16]);
        let here = ip("192.0.2.1");
        let waits: Vec<_> = (0..12).map(|_| guesses.wrong_password(Tick(1_000), here, A, "1001").wait).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(guesses.wait(Tick(1_000), here, A, "1001"), Some(30_000));
        assert_eq!(guesses.wait(Tick(30_999), here, A, "1001"), Some(1));
        assert_eq!(guesses.wait(Tick(31_000), here, A, "1001"), None);
        for (address, account, name) in
            [("192.0.2.2", A, "1001"), ("192.0.2.1", A, "1002"), ("192.0.2.1", AccountNo(1), "1001")]
        {
            assert_eq!(guesses.wait(Tick(1_000), ip(address), account, name), None, "{address} {name}");
        }
        let later = Tick(1_000 + FORGOTTEN_AFTER + 1);
        assert_eq!(guesses.wrong_password(later, here, A, "1001").wait, 0, "forgotten");
    }

    #[test]
    fn addresses_of_one_64_wait_together() {
        let guesses = AuthBackoff::new([7; 16]);
        for n in 1..=6 {
            guesses.wrong_password(Tick(1_000), ip(&format!("2001:db8::{n}")), A, "1001");
        }
        assert_eq!(guesses.wait(Tick(1_000), ip("2001:db8::99"), A, "1001"), Some(1_000));
        assert_eq!(guesses.wait(Tick(1_000), ip("2001:db8:0:1::1"), A, "1001"), None);
    }

    #[test]
    fn the_log_names_a_source_once_a_minute_with_how_often_it_was() {
        let guesses = AuthBackoff::new([7; 16]);
        let here = ip("192.0.2.1");
        let log = |ms, name| guesses.wrong_password(Tick(ms), here, A, name).log;
        assert_eq!(
            (log(1_000, "a"), log(2_000, "b"), log(60_999, "c"), log(61_000, "d")),
            (Some(1), None, None, Some(3))
        );
        assert_eq!(guesses.wrong_token(Tick(61_000), here).log, Some(1), "a token is another thing");
        assert_eq!(guesses.wrong_password(Tick(61_000), ip("192.0.2.2"), A, "a").log, Some(1));
    }

    #[test]
    fn a_right_phone_stays_welcome_however_many_senders_guess() {
        let guesses = AuthBackoff::new([7; 16]);
        for n in 0..2 * MOST_COUNTED as u32 {
            let address = IpAddr::from((0x0a00_0000 | n).to_be_bytes());
            (0..2).for_each(|_| _ = guesses.wrong_password(Tick(1_000), address, A, "1001"));
        }
        (0..20).for_each(|_| _ = guesses.wrong_password(Tick(1_000), ip("198.51.100.1"), A, "1001"));
        assert_eq!(guesses.wait(Tick(1_001), ip("192.0.2.1"), A, "1001"), None);
        assert!(guesses.wait(Tick(1_001), ip("198.51.100.1"), A, "1001").is_some());
        assert_eq!(guesses.tries.lock().iter().count(), MOST_COUNTED);
    }
}

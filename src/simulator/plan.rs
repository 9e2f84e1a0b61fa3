//! Scenario of a storm: its phones, publishers and network, drawn from the seed.

use super::network::Weather;
use super::phone::Phone;
use super::publisher::{Habit, Publisher};
use super::random::Random;
use crate::package::PackageId;

/// Options of a storm.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of phones.
    pub phones: usize,
    /// Duration in minutes.
    pub minutes: u64,
    /// Share of datagrams that are lost; drawn from the seed if none.
    pub loss: Option<f64>,
    /// Injects faults: phones fail, move and reboot, publishers crash, operators interfere, the network not only loses
    /// datagrams.
    pub trouble: bool,
    /// Average number of server crashes.
    pub crashes: f64,
    /// Fault injected behind the server's back, to prove that the invariants detect it.
    pub sabotage: Option<Sabotage>,
}

impl Default for Options {
    fn default() -> Options {
        Options { phones: 30, minutes: 5, loss: None, trouble: true, crashes: 2.0, sabotage: None }
    }
}

/// A rule violation made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Sometimes a NOTIFY carries the body of the previous one (rule 1).
    StaleBody,
    /// Sometimes a NOTIFY is lost, and the server receives a forged 200 for it (rule 1).
    LostChange,
    /// Sometimes the previous NOTIFY is sent again after a newer one (rule 2).
    Overtaken,
    /// Sometimes a second NOTIFY follows at once (rule 2).
    Impatience,
    /// A confirmed call is shown as ringing again (rule 4).
    Revival,
    /// Sometimes a NOTIFY for one tenant names a call of another (rule 8).
    Leak,
    /// A crash loses a durable record (rule 5).
    LostRecord,
    /// A crash brings back an older version of a record than the last durable one (rule 5).
    OldRecord,
    /// After a crash CSeq continues below the last number (rule 2).
    FallingCount,
    /// After a crash all phones are notified, also those that are up to date.
    RestartStorm,
    /// Messages do not wait for the journal (rule 5).
    Haste,
    /// Messages without a record of their own do not wait for earlier decisions (rule 5).
    Overtaking,
    /// A request that is repeated across a crash looks like another one (rule 5).
    OtherBranch,
    /// The server does not learn that the journal has refused a commit (rule 5).
    RefusedStays,
    /// The data of a tenant is lost while the tenant is not configured (rule 5).
    LostTenant,
    /// A granted lifetime is exceeded when the clock has gone back over a restart.
    EndlessLease,
    /// Phones behind the same proxy as a silent phone are not notified either (rule 7).
    SharedPacing,
}

/// Number of edges: proxies with phones behind them.
pub const EDGES: usize = 2;

/// Realms, one account each.
pub const REALMS: [&str; 2] = ["acme.test", "globex.test"];

/// Parameters and participants of a storm.
#[derive(Debug)]
pub struct Plan {
    presentities: Vec<(String, usize)>,
    /// Shortest and longest pause of publishers between calls (ms).
    pub pause: (u64, u64),
    /// Network conditions during the storm.
    pub weather: Weather,
}

impl Plan {
    /// Draws a scenario.
    pub fn drawn(random: &mut Random, options: &Options) -> Plan {
        let count = (options.phones / 3).clamp(2, 60) & !1;
        // Both realms have the same users, which must never be confused.
        let presentities = (0..count).map(|i| (format!("{}", 1000 + i / 2), i % 2)).collect();
        let weather = match options.trouble {
            true => Weather::drawn(random, options.loss),
            false => Weather::lossy(options.loss.unwrap_or_default()),
        };
        Plan { presentities, pause: (500, 12_000), weather }
    }

    /// User and realm of a presentity.
    pub fn name(&self, presentity: usize) -> (&str, &str) {
        let (user, account) = &self.presentities[presentity];
        (user, REALMS[*account])
    }

    /// Index of the account of a presentity.
    pub fn account(&self, presentity: usize) -> usize {
        self.presentities[presentity].1
    }

    /// Number of presentities.
    pub fn presentities(&self) -> usize {
        self.presentities.len()
    }

    /// Draws the phones, each with lamps for some presentities.
    pub fn phones(&self, random: &mut Random, options: &Options) -> Vec<Phone> {
        (0..options.phones)
            .map(|number| {
                let account = random.below(2);
                let lamps = random.between(1, 4);
                let mut watches: Vec<_> = (0..lamps)
                    .map(|_| {
                        let at = (random.below(self.presentities.len()) & !1) + account;
                        (at.min(self.presentities.len() - 1), PackageId(random.pick(&[0, 0, 0, 0, 1, 2])))
                    })
                    .collect();
                watches.sort_by_key(|(at, package)| (*at, package.0));
                watches.dedup();
                let mut phone = Phone::new(number, account, &watches);
                phone.tcp = random.chance(0.15);
                phone.punctual = !options.trouble || random.chance(0.85);
                phone.instance = random.chance(0.5);
                if random.chance(0.3) {
                    // Two phones of one user, as a desk phone and one at home.
                    phone.user = format!("phone{}", number & !1);
                }
                let (high, low) = (number / 200, number % 200 + 1);
                if random.chance(0.5) {
                    phone.contact = format!("10.0.{high}.{low}:5060");
                    phone.address = format!("203.0.{high}.{low}:{}", random.between(20_000, 30_000));
                } else {
                    phone.address = format!("198.51.{high}.{low}:5060");
                    phone.contact = phone.address.clone();
                }
                if options.trouble && !phone.tcp && random.chance(0.4) {
                    phone.edge = Some(random.below(EDGES));
                }
                phone
            })
            .collect()
    }

    /// Returns the publishers, of every kind.
    pub fn publishers(&self, options: &Options) -> Vec<Publisher> {
        let all: Vec<usize> = (0..self.presentities.len()).collect();
        let habits: &[Habit] = match options.trouble {
            true => {
                &[Habit::Kamailio, Habit::Pair, Habit::Switchboard, Habit::Asterisk, Habit::Voicemail, Habit::Person]
            }
            false => &[Habit::Kamailio, Habit::Kamailio],
        };
        let publisher = |(number, habit): (usize, &Habit)| {
            Publisher::new(number, format!("192.0.2.{}:5060", number + 100), *habit, all.clone())
        };
        habits.iter().enumerate().map(publisher).collect()
    }
}

//! Who takes part in a storm, drawn from its seed.

use super::network::Weather;
use super::phone::Phone;
use super::publisher::{Habit, Publisher};
use super::random::Random;
use crate::package::PackageId;

/// How a storm is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many phones.
    pub phones: usize,
    /// How long it lasts.
    pub minutes: u64,
    /// The share of datagrams that are lost; drawn from the seed if none.
    pub loss: Option<f64>,
    /// Phones fail, move and reboot, publishers die, operators interfere, the network does worse than lose datagrams.
    pub trouble: bool,
    /// How often the server crashes, on average.
    pub crashes: f64,
    /// What the simulator does behind the server's back, to show that it is found out.
    pub sabotage: Option<Sabotage>,
}

impl Default for Options {
    fn default() -> Options {
        Options { phones: 30, minutes: 5, loss: None, trouble: true, crashes: 2.0, sabotage: None }
    }
}

/// A broken law, made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Now and then a NOTIFY carries the body of the one before (law 1).
    StaleBody,
    /// Now and then a NOTIFY is lost, and the server is told that it was answered (law 1).
    LostChange,
    /// Now and then the NOTIFY before is sent again after a newer one (law 2).
    Overtaken,
    /// Now and then a second NOTIFY follows at once (law 2).
    Impatience,
    /// A call that talks is shown as ringing again (law 4).
    Revival,
    /// Now and then what is meant for one tenant names another's call (law 8).
    Leak,
    /// A crash loses a record that the journal had kept (law 5).
    LostRecord,
    /// A crash brings back an older word on a record than the last one that was kept (law 5).
    OldRecord,
    /// After a crash counting goes on from below what was counted before (law 2).
    FallingCount,
    /// After a crash everybody is told, also who knows.
    RestartStorm,
    /// Messages do not wait for the journal (law 5).
    Haste,
    /// Messages without a record of their own do not wait for those that were decided before them (law 5).
    Overtaking,
    /// A request that is repeated over a crash looks like another one (rule 5).
    OtherBranch,
    /// The server is not told that the journal has refused a commit (rule 5).
    RefusedStays,
    /// What belongs to a tenant that is not configured for a while is lost meanwhile (rule 8).
    LostTenant,
    /// What was granted is no bound when the clock has gone back over a restart.
    EndlessLease,
    /// Who is behind the same proxy as a silent phone is not told either (law 7).
    SharedPacing,
}

/// How many edges there are: proxies with phones behind them.
pub const EDGES: usize = 2;

/// The realms, one account each.
pub const REALMS: [&str; 2] = ["acme.test", "globex.test"];

/// The cast of a storm.
#[derive(Debug)]
pub struct Plan {
    presentities: Vec<(String, usize)>,
    /// How long publishers pause between calls (ms).
    pub pause: (u64, u64),
    /// The network while the storm lasts.
    pub weather: Weather,
}

impl Plan {
    /// Draws a plan.
    pub fn drawn(random: &mut Random, options: &Options) -> Plan {
        let count = (options.phones / 3).clamp(2, 60) & !1;
        // The same users in both realms: they must never be taken for each other.
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

    /// How many presentities there are.
    pub fn presentities(&self) -> usize {
        self.presentities.len()
    }

    /// The phones, each with lamps for some presentities.
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
                    // The desk phone and the one at home have the same user.
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

    /// The publishers.
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

//! The network between the server and everybody else: what becomes of a datagram.

use super::random::Random;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The share of datagrams that are lost.
    pub loss: f64,
    /// The share that arrive twice.
    pub twice: f64,
    /// The shortest and the longest ordinary delay (ms). What leaves together arrives in any order within it.
    pub delay: (u64, u64),
    /// The share that take a detour, and are overtaken by what was sent seconds later.
    pub detour: f64,
}

/// The longest detour (ms).
const LONGEST_DETOUR: u64 = 6_000;

impl Weather {
    /// Weather drawn for a storm; `loss` fixes the loss.
    pub fn drawn(random: &mut Random, loss: Option<f64>) -> Weather {
        let drawn = random.pick(&[0.0, 0.01, 0.05, 0.1, 0.2, 0.35]);
        let least = random.between(1, 40);
        Weather {
            loss: loss.unwrap_or(drawn),
            twice: random.pick(&[0.0, 0.01, 0.1]),
            delay: (least, least + random.pick(&[0, 5, 50, 700])),
            detour: random.pick(&[0.0, 0.01, 0.05]),
        }
    }

    /// An office network that does nothing worse than losing datagrams.
    pub fn lossy(loss: f64) -> Weather {
        Weather { loss, twice: 0.0, delay: (5, 25), detour: 0.0 }
    }

    /// After the storm.
    pub fn fair() -> Weather {
        Weather::lossy(0.0)
    }

    /// When the copies of a datagram arrive, after how many ms; none if it is lost.
    pub fn arrivals(&self, random: &mut Random) -> Vec<u64> {
        if random.chance(self.loss) {
            return Vec::new();
        }
        let copies = if random.chance(self.twice) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(random)).collect()
    }

    /// The delay of one copy (ms).
    pub fn delay(&self, random: &mut Random) -> u64 {
        match random.chance(self.detour) {
            true => random.between(self.delay.1, LONGEST_DETOUR),
            false => random.between(self.delay.0, self.delay.1),
        }
    }
}

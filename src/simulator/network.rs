//! Network between the server and its peers: loss, delay, duplication and reordering of datagrams.

use super::random::Random;

/// Network conditions.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub twice: f64,
    /// Shortest and longest ordinary delay (ms). Datagrams that leave together arrive in any order within it.
    pub delay: (u64, u64),
    /// Share of datagrams that are delayed so long that datagrams sent seconds later overtake them.
    pub detour: f64,
}

/// Longest delay of such a datagram (ms).
const LONGEST_DETOUR: u64 = 6_000;

impl Weather {
    /// Draws the conditions of a storm; `loss` overrides the drawn loss.
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

    /// Conditions of an office network that only loses datagrams.
    pub fn lossy(loss: f64) -> Weather {
        Weather { loss, twice: 0.0, delay: (5, 25), detour: 0.0 }
    }

    /// Conditions after the storm: no loss.
    pub fn fair() -> Weather {
        Weather::lossy(0.0)
    }

    /// Draws the arrival times of the copies of a datagram, in ms from now; none if it is lost.
    pub fn arrivals(&self, random: &mut Random) -> Vec<u64> {
        if random.chance(self.loss) {
            return Vec::new();
        }
        let copies = if random.chance(self.twice) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(random)).collect()
    }

    /// Draws the delay of one copy (ms).
    pub fn delay(&self, random: &mut Random) -> u64 {
        match random.chance(self.detour) {
            true => random.between(self.delay.1, LONGEST_DETOUR),
            false => random.between(self.delay.0, self.delay.1),
        }
    }
}

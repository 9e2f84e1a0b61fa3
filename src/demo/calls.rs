//! Calls of the demo office: internal and external calls, calls on hold, missed calls.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::bodies::Call;
use super::people::{CALLERS, PEOPLE, WORKSHOP};
use super::phone::Line;
use crate::notifier::new_secret;

/// Most concurrent calls; about a third of the phones is then busy.
const CALLS: usize = 4;
/// Times for which the workshop's phone is plugged in and unplugged. The latter is longer than a NOTIFY waits for its
/// response (Timer F), so the dashboard shows the phone's subscriptions as stale.
const PLUGGED: Duration = Duration::from_secs(40);
const UNPLUGGED: Duration = Duration::from_secs(70);

/// Random number generator (xorshift); not for secrets.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        Dice(u128::from_ne_bytes(new_secret()) as u64 | 1)
    }

    /// Random number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides.max(1)
    }

    fn ms(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.roll(to - from)) as u64)
    }
}

/// For each phone, true while it is in a call.
type Busy = Arc<Mutex<Vec<bool>>>;

/// Reserves a phone for a call; released on drop.
struct Seat {
    n: usize,
    busy: Busy,
}

impl Seat {
    fn take(busy: &Busy, n: usize) -> Option<Seat> {
        let mut all = busy.lock();
        (!std::mem::replace(&mut all[n], true)).then(|| Seat { n, busy: Arc::clone(busy) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.busy.lock()[self.n] = false;
    }
}

/// Starts calls at random until the task is cancelled.
pub(super) async fn direct(phones: Vec<Line>) {
    let busy: Busy = Arc::new(Mutex::new(vec![false; phones.len()]));
    let mut calls = JoinSet::new();
    calls.spawn(unplug(phones[WORKSHOP].clone()));
    let mut dice = Dice::new();
    let mut number = 0u32;
    loop {
        while calls.try_join_next().is_some() {}
        if calls.len() <= CALLS {
            number += 1;
            let id = format!("{number:04x}{:06x}", dice.roll(1 << 24));
            if dice.roll(5) < 2 {
                let (name, from) = CALLERS[dice.roll(CALLERS.len())];
                let front: Vec<_> = (0..phones.len()).filter(|n| PEOPLE[*n].front_desk).collect();
                let n = if dice.roll(2) == 0 { front[dice.roll(front.len())] } else { dice.roll(phones.len()) };
                if let Some(seat) = Seat::take(&busy, n) {
                    let other = (name.to_owned(), from.to_owned());
                    calls.spawn(from_outside(id, other, phones[n].clone(), seat, Dice::new()));
                }
            } else {
                let (a, b) = (dice.roll(phones.len()), dice.roll(phones.len()));
                if a != b
                    && let (Some(one), Some(two)) = (Seat::take(&busy, a), Seat::take(&busy, b))
                {
                    let lines = [phones[a].clone(), phones[b].clone()];
                    calls.spawn(inside(id, lines, [one, two], Dice::new()));
                }
            }
        }
        sleep(dice.ms(300, 1_800)).await;
    }
}

async fn unplug(phone: Line) {
    loop {
        sleep(PLUGGED).await;
        phone.plug(false);
        sleep(UNPLUGGED).await;
        phone.plug(true);
    }
}

async fn from_outside(id: String, other: (String, String), phone: Line, _seat: Seat, mut dice: Dice) {
    let mut call = Call { id, state: "early", outgoing: false, held: false, other };
    phone.say(&call);
    sleep(dice.ms(2_000, 7_000)).await;
    if dice.roll(4) > 0 {
        call.state = "confirmed";
        phone.say(&call);
        sleep(dice.ms(6_000, 24_000)).await;
        if dice.roll(3) == 0 {
            call.held = true;
            phone.say(&call);
            sleep(dice.ms(3_000, 9_000)).await;
            call.held = false;
            phone.say(&call);
            sleep(dice.ms(3_000, 12_000)).await;
        }
    } else if dice.roll(2) == 0 {
        phone.message();
    }
    call.state = "terminated";
    phone.say(&call);
}

async fn inside(id: String, lines: [Line; 2], _seats: [Seat; 2], mut dice: Dice) {
    let sides = [(0, "trying"), (1, "early")];
    let mut calls = sides.map(|(n, state)| {
        let other = (PEOPLE[lines[1 - n].n].name.to_owned(), PEOPLE[lines[1 - n].n].extension.to_owned());
        Call { id: id.clone(), state, outgoing: n == 0, held: false, other }
    });
    let say = |calls: &[Call; 2]| lines.iter().zip(calls).for_each(|(line, call)| line.say(call));
    say(&calls);
    sleep(dice.ms(300, 700)).await;
    calls[0].state = "early";
    say(&calls);
    sleep(dice.ms(1_800, 6_000)).await;
    if dice.roll(5) > 0 {
        calls.iter_mut().for_each(|call| call.state = "confirmed");
        say(&calls);
        sleep(dice.ms(7_000, 26_000)).await;
        if dice.roll(4) == 0 {
            calls[0].held = true;
            say(&calls);
            sleep(dice.ms(3_000, 8_000)).await;
            calls[0].held = false;
            say(&calls);
            sleep(dice.ms(2_000, 9_000)).await;
        }
    }
    calls.iter_mut().for_each(|call| call.state = "terminated");
    say(&calls);
}

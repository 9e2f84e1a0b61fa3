//! Rate limit for a log line: it is logged at most once in 10 s, with the number of lines that were suppressed before
//! it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two lines from the same limiter.
const EVERY: Duration = Duration::from_secs(10);

/// Rate limiter for one log line; usually a static beside the code that logs.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    at: Instant,
    held_back: u64,
}

impl LogLimiter {
    /// Creates a limiter that lets the first line pass.
    pub const fn new() -> LogLimiter {
        LogLimiter(Mutex::new(None))
    }

    /// Returns the number of lines that were suppressed since the last one if a line may be logged now; none if it must
    /// be suppressed, which is counted.
    pub fn check(&self) -> Option<u64> {
        self.may_say_at(Instant::now())
    }

    fn may_say_at(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        match &mut *said {
            Some(said) if now < said.at + EVERY => {
                said.held_back += 1;
                None
            }
            _ => Some(said.replace(Window { at: now, held_back: 0 }).map_or(0, |before| before.held_back)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_is_said_and_those_after_it_are_counted() {
        let (seldom, start) = (LogLimiter::new(), Instant::now());
        let ask = |seconds| seldom.may_say_at(start + Duration::from_secs(seconds));
        assert_eq!([ask(0), ask(1), ask(9)], [Some(0), None, None]);
        assert_eq!([ask(10), ask(15), ask(25), ask(60)], [Some(2), None, Some(1), Some(0)]);
    }
}

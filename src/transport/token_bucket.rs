//! Rate limit for one owner: a token bucket, stored as the time at which it will be full again (GCRA).

use std::time::Duration;

use tokio::time::Instant;

/// Rate limit.
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Time that one use costs.
    each: Duration,
    /// Time by which uses may be ahead of the rate.
    burst: Duration,
    used_up_to: Instant,
}

impl TokenBucket {
    /// Creates a limit of `per_second` uses, with `burst` of them at once.
    pub(super) fn of(per_second: u32, burst: u32, now: Instant) -> TokenBucket {
        let each = Duration::from_secs(1) / per_second.max(1);
        TokenBucket { each, burst: each * burst, used_up_to: now }
    }

    /// Counts one use.
    pub(super) fn spend(&mut self, now: Instant) {
        self.used_up_to = self.used_up_to.max(now) + self.each;
    }

    /// Earliest time of the next use within the limit; in the past if it may happen now.
    pub(super) fn next(&self) -> Instant {
        self.used_up_to.checked_sub(self.burst).unwrap_or(self.used_up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_uses_are_apart() {
        let start = Instant::now();
        let mut allowance = TokenBucket::of(100, 5, start);
        (0..5).for_each(|_| allowance.spend(start));
        assert_eq!(allowance.next(), start);
        allowance.spend(start);
        assert_eq!(allowance.next(), start + Duration::from_millis(10));
        allowance.spend(start + Duration::from_secs(60));
        assert!(allowance.next() < start + Duration::from_secs(60));
    }
}

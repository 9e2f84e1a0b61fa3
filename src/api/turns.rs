//! Limits how many requests of one account are worked on at a time.
//!
//! A search through 200,000 subscriptions takes a tenth of a second, and a change waits for the disk. One account with
//! many such requests must not occupy the threads of all the others, so each account has its own limit, and the rest of
//! its requests wait. The work runs where it does not block other requests. While a request waits, its connection can
//! be evicted (see [`super::seats`]), which limits the number of waiting requests.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::directory::{AccountNo, TokenScope};

/// Semaphores of each account and of all accounts together.
#[derive(Debug)]
pub(super) struct Turns {
    all: Semaphore,
    /// One semaphore per account number; the last is the superuser's.
    of: Vec<Semaphore>,
}

/// Permit to work on a request.
pub(super) struct Turn<'a> {
    _of_account: Option<SemaphorePermit<'a>>,
    _of_all: Option<SemaphorePermit<'a>>,
}

/// Limits of concurrent requests.
#[derive(Clone, Copy)]
pub(super) struct AtATime {
    pub(super) of_account: usize,
    pub(super) of_all: usize,
}

/// Limits for queries that search or count: enough to keep all processors busy.
pub(super) const QUESTIONS: AtATime = AtATime { of_account: 2, of_all: 32 };
/// Limits for changes, each of which blocks a thread until the disk has written it. Far fewer than there are threads
/// (512), so that a hanging disk does not occupy all of them.
pub(super) const CHANGES: AtATime = AtATime { of_account: 32, of_all: 128 };

impl Turns {
    pub(super) fn new(accounts: usize, AtATime { of_account, of_all }: AtATime) -> Turns {
        let of = (0..=accounts).map(|_| Semaphore::new(of_account)).collect();
        Turns { all: Semaphore::new(of_all), of }
    }

    /// Waits for a permit. The account's own limit comes first, so that requests waiting for others of their account do
    /// not use up the common limit.
    pub(super) async fn take(&self, bearer: TokenScope) -> Turn<'_> {
        let of = match bearer {
            TokenScope::Account(AccountNo(number)) => self.of.get(number as usize),
            TokenScope::Superuser => self.of.last(),
        };
        // No semaphore is ever closed, so `acquire` does not fail.
        let of_account = match of {
            Some(of) => of.acquire().await.ok(),
            None => None,
        };
        Turn { _of_account: of_account, _of_all: self.all.acquire().await.ok() }
    }
}

/// Runs blocking work so that other requests go on, where the runtime has threads for that.
pub(super) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn an_account_waits_for_itself_and_not_for_others() {
        let turns = Turns::new(2, AtATime { of_account: 1, of_all: 3 });
        let mut cx = Context::from_waker(Waker::noop());
        let (a, b) = (TokenScope::Account(AccountNo(0)), TokenScope::Account(AccountNo(1)));
        let first = pin!(turns.take(a)).poll(&mut cx);
        let mut second = pin!(turns.take(a));
        assert!(first.is_ready() && second.as_mut().poll(&mut cx).is_pending());
        assert!(
            pin!(turns.take(b)).poll(&mut cx).is_ready()
                && pin!(turns.take(TokenScope::Superuser)).poll(&mut cx).is_ready()
        );
        drop(first);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }
}

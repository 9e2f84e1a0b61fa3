//! Turns: how many requests of one account are worked on at a time.
//!
//! A search through two hundred thousand subscriptions takes a tenth of a second, and a change waits for the disk. So that
//! an account with many such requests does not occupy the threads of all, they are done one after the other, each account's
//! by itself; on a thread of its own, so that others go on meanwhile. While a request waits for its turn, its connection may
//! give way (see [`super::seats`]), which bounds how many wait.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::directory::{AccountNo, Bearer};

/// So many at a time of one account, and of all.
#[derive(Debug)]
pub(super) struct Turns {
    all: Semaphore,
    /// By number of the account; the last is the superuser's.
    of: Vec<Semaphore>,
}

/// The right to be worked on.
pub(super) struct Turn<'a> {
    _of_account: Option<SemaphorePermit<'a>>,
    _of_all: Option<SemaphorePermit<'a>>,
}

/// How many at a time.
#[derive(Clone, Copy)]
pub(super) struct AtATime {
    pub(super) of_account: usize,
    pub(super) of_all: usize,
}

/// Questions of which the answer has to be searched or counted: as many as keep the processors busy.
pub(super) const QUESTIONS: AtATime = AtATime { of_account: 2, of_all: 32 };
/// Changes, each of which waits for the disk on a thread: far fewer than there are threads (512) while a disk hangs.
pub(super) const CHANGES: AtATime = AtATime { of_account: 32, of_all: 128 };

impl Turns {
    pub(super) fn new(accounts: usize, AtATime { of_account, of_all }: AtATime) -> Turns {
        let of = (0..=accounts).map(|_| Semaphore::new(of_account)).collect();
        Turns { all: Semaphore::new(of_all), of }
    }

    /// Waits for one. First for the account's, so that those who wait for others of their account keep no place of all.
    pub(super) async fn take(&self, bearer: Bearer) -> Turn<'_> {
        let of = match bearer {
            Bearer::Account(AccountNo(number)) => self.of.get(number as usize),
            Bearer::Superuser => self.of.last(),
        };
        // No semaphore is ever closed.
        let of_account = match of {
            Some(of) => of.acquire().await.ok(),
            None => None,
        };
        Turn { _of_account: of_account, _of_all: self.all.acquire().await.ok() }
    }
}

/// Does what takes a while. Other requests go on meanwhile, where there are threads for that.
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
        let (a, b) = (Bearer::Account(AccountNo(0)), Bearer::Account(AccountNo(1)));
        let first = pin!(turns.take(a)).poll(&mut cx);
        let mut second = pin!(turns.take(a));
        assert!(first.is_ready() && second.as_mut().poll(&mut cx).is_pending());
        assert!(
            pin!(turns.take(b)).poll(&mut cx).is_ready()
                && pin!(turns.take(Bearer::Superuser)).poll(&mut cx).is_ready()
        );
        drop(first);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }
}

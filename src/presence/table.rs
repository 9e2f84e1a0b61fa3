//! Subscription table: every presentity, and the indices that find one.
//!
//! One DashMap entry is one presentity, which owns all that must change together. The guard of an entry lives only
//! long enough to clone an `Arc`. Two more indices lead to the same values: by number, for the tags and branches that
//! we issued, and by account, ordered by user, for listings. They change only when a presentity is created or
//! removed.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use dashmap::{DashMap, DashSet};
use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::number_pages::NumberPages;
use super::presentity::{Presentity, State};
use super::presentity_index::PresentityIndex;
use super::{AccountNo, Aor};
use crate::util::per_thread::CachePadded;

/// Table of all presentities.
#[derive(Debug)]
pub struct Table {
    by_aor: DashMap<ByAor, (), RandomState>,
    by_number: PresentityIndex,
    accounts: Box<[Account]>,
    numbering: NumberPages,
    /// Numbers of presentities that the journal has and that cannot be restored in this run. They are given to no
    /// other presentity, so that two accounts never share a number.
    reserved: DashSet<u32, RandomState>,
    subscriptions: CachePadded<AtomicUsize>,
    presentities_per_account: usize,
}

#[derive(Debug, Default)]
struct Account {
    /// Next number of the account; see [`NumberPages::draw`].
    next_number: AtomicU32,
    presentities: Mutex<BTreeSet<ByUser>>,
    subscriptions: AtomicUsize,
}

/// Entry of the table, found by the address that the presentity itself holds.
#[derive(Debug)]
struct ByAor(Arc<Presentity>);

impl Borrow<Aor> for ByAor {
    fn borrow(&self) -> &Aor {
        // Nearly always the compared entry is the one that is searched, so it is prefetched.
        self.0.fetch();
        &self.0.aor
    }
}

impl Hash for ByAor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.aor.hash(state);
    }
}

impl PartialEq for ByAor {
    fn eq(&self, other: &ByAor) -> bool {
        self.0.aor == other.0.aor
    }
}

impl Eq for ByAor {}

/// Entry of the account index, ordered by user.
#[derive(Debug)]
struct ByUser(Arc<Presentity>);

impl Borrow<str> for ByUser {
    fn borrow(&self) -> &str {
        &self.0.aor.user
    }
}

impl Ord for ByUser {
    fn cmp(&self, other: &ByUser) -> Ordering {
        self.0.aor.user.cmp(&other.0.aor.user)
    }
}

impl PartialOrd for ByUser {
    fn partial_cmp(&self, other: &ByUser) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByUser {
    fn eq(&self, other: &ByUser) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByUser {}

/// Error: the account has reached its limit of presentities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountFull;

impl Table {
    /// Creates an empty table for this number of accounts.
    pub fn new(accounts: usize, presentities_per_account: usize) -> Table {
        Table {
            by_aor: DashMap::default(),
            by_number: PresentityIndex::default(),
            accounts: (0..accounts).map(|_| Account::default()).collect(),
            numbering: NumberPages::new([0; 16]),
            reserved: DashSet::default(),
            subscriptions: CachePadded::default(),
            presentities_per_account,
        }
    }

    /// Sets the secret without which the order of new numbers cannot be foreseen.
    pub fn with_secret(self, secret: [u8; 16]) -> Table {
        Table { numbering: NumberPages::new(secret), ..self }
    }

    /// Runs `f` on a presentity under its lock, if it exists.
    pub fn with<T>(&self, aor: &Aor, f: impl FnOnce(&Arc<Presentity>, &mut State) -> T) -> Option<T> {
        let presentity = self.find(aor)?;
        self.with_locked(&presentity, f)
    }

    /// Finds a presentity. It may be removed by the time that its lock is taken.
    pub fn find(&self, aor: &Aor) -> Option<Arc<Presentity>> {
        self.by_aor.get(aor).map(|entry| Arc::clone(&entry.key().0))
    }

    /// Finds a presentity by number. It may be removed by the time that its lock is taken.
    pub fn by_number(&self, number: u32) -> Option<Arc<Presentity>> {
        self.by_number.get(number)
    }

    /// Runs `f` on the presentity with this number under its lock, if it exists.
    pub fn with_id<T>(&self, number: u32, f: impl FnOnce(&Arc<Presentity>, &mut State) -> T) -> Option<T> {
        let presentity = self.by_number.get(number)?;
        self.with_locked(&presentity, f)
    }

    /// Runs `f` on a presentity under its lock, and creates the presentity if it does not exist. `found` is the
    /// result of an earlier [`Table::find`].
    pub fn get_or_create<T>(
        &self,
        aor: &Aor,
        realm: &str,
        mut found: Option<Arc<Presentity>>,
        f: impl FnOnce(&Arc<Presentity>, &mut State) -> T,
    ) -> Result<T, AccountFull> {
        // A presentity found here may be removed before its lock is taken; then a new one takes its place.
        loop {
            let presentity = match found.take().or_else(|| self.find(aor)) {
                Some(presentity) => presentity,
                None => self.create(aor, realm)?,
            };
            let mut state = presentity.lock();
            if !state.retired {
                let result = f(&presentity, &mut state);
                self.retire_if_idle(&presentity, state);
                return Ok(result);
            }
        }
    }

    /// Puts a presentity back under the number that it had before a restart. None if another presentity has the
    /// number, or the presentity has come back under another number.
    pub fn restore(&self, number: u32, aor: &Aor, realm: &str) -> Option<Arc<Presentity>> {
        let mut of_account = self.accounts[aor.account.0 as usize].presentities.lock();
        if let Some(known) = of_account.get(&*aor.user) {
            return (known.0.number == number).then(|| Arc::clone(&known.0));
        }
        if self.by_number.get(number).is_some() || self.reserved.contains(&number) {
            return None;
        }
        Some(self.enter(&mut of_account, Presentity::new(number, aor.clone(), realm)))
    }

    /// Makes sure that no new presentity gets this number, or one of its page, in this run.
    pub fn keep_away_from(&self, number: u32) {
        self.numbering.keep_away_from(number);
    }

    /// Reserves the number of a presentity that cannot be restored in this run.
    pub fn reserve(&self, number: u32) {
        self.reserved.insert(number);
    }

    /// Frees a reserved number, once the journal has nothing left under it.
    pub fn unreserve(&self, number: u32) {
        self.reserved.remove(&number);
    }

    /// Every presentity, in the order of their numbers, so that a restart does the same in every run.
    pub fn all(&self) -> Vec<Arc<Presentity>> {
        let mut all: Vec<_> = self.by_aor.iter().map(|entry| Arc::clone(&entry.key().0)).collect();
        all.sort_unstable_by_key(|presentity| presentity.number);
        all
    }

    /// Presentities of an account, ordered by user.
    pub fn of_account(&self, account: AccountNo) -> Vec<Arc<Presentity>> {
        self.accounts[account.0 as usize].presentities.lock().iter().map(|entry| Arc::clone(&entry.0)).collect()
    }

    /// Presentities of an account from a user on, ordered by user; at most `most`.
    pub fn of_account_from(&self, account: AccountNo, user: &str, most: usize) -> Vec<Arc<Presentity>> {
        let all = self.accounts[account.0 as usize].presentities.lock();
        let from = (Bound::Included(user), Bound::Unbounded);
        all.range::<str, _>(from).take(most).map(|entry| Arc::clone(&entry.0)).collect()
    }

    /// Number of subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Relaxed)
    }

    /// Number of subscriptions of an account.
    pub fn subscriptions_of(&self, account: AccountNo) -> usize {
        self.accounts[account.0 as usize].subscriptions.load(Relaxed)
    }

    /// Counts a new subscription.
    pub fn count_subscription(&self, account: AccountNo) {
        self.subscriptions.fetch_add(1, Relaxed);
        self.accounts[account.0 as usize].subscriptions.fetch_add(1, Relaxed);
    }

    /// Uncounts a subscription that has gone.
    pub fn uncount_subscription(&self, account: AccountNo) {
        self.subscriptions.fetch_sub(1, Relaxed);
        self.accounts[account.0 as usize].subscriptions.fetch_sub(1, Relaxed);
    }

    /// Number of presentities.
    pub fn len(&self) -> usize {
        self.by_aor.len()
    }

    /// True if there is no presentity.
    pub fn is_empty(&self) -> bool {
        self.by_aor.is_empty()
    }

    /// Runs `f` on a presentity that was found under its lock, unless it has been removed since.
    pub fn with_locked<T>(
        &self,
        presentity: &Arc<Presentity>,
        f: impl FnOnce(&Arc<Presentity>, &mut State) -> T,
    ) -> Option<T> {
        let mut state = presentity.lock();
        if state.retired {
            return None;
        }
        let result = f(presentity, &mut state);
        self.retire_if_idle(presentity, state);
        Some(result)
    }

    fn create(&self, aor: &Aor, realm: &str) -> Result<Arc<Presentity>, AccountFull> {
        // The account's lock makes the three entries appear together for other threads that create presentities.
        let account = &self.accounts[aor.account.0 as usize];
        let mut of_account = account.presentities.lock();
        if let Some(known) = of_account.get(&*aor.user) {
            return Ok(Arc::clone(&known.0));
        }
        if of_account.len() >= self.presentities_per_account {
            return Err(AccountFull);
        }
        let is_free = |number| self.by_number.get(number).is_none() && !self.reserved.contains(&number);
        let number = self.numbering.draw(&account.next_number, is_free, |number| self.by_number.is_page_empty(number));
        Ok(self.enter(&mut of_account, Presentity::new(number, aor.clone(), realm)))
    }

    #[allow(clippy::mutable_key_type)] // the address of a presentity never changes
    fn enter(&self, of_account: &mut BTreeSet<ByUser>, presentity: Presentity) -> Arc<Presentity> {
        let presentity = Arc::new(presentity);
        of_account.insert(ByUser(Arc::clone(&presentity)));
        self.by_number.insert(Arc::clone(&presentity));
        self.by_aor.insert(ByAor(Arc::clone(&presentity)), ());
        presentity
    }

    /// Removes a presentity that holds no state worth keeping. Tombstones of ended calls are worth keeping.
    fn retire_if_idle(&self, presentity: &Arc<Presentity>, mut state: MutexGuard<'_, State>) {
        if !state.is_idle() || state.remembers() {
            return;
        }
        state.retired = true;
        drop(state);
        let aor = &presentity.aor;
        let mut of_account = self.accounts[aor.account.0 as usize].presentities.lock();
        of_account.remove(&*aor.user);
        self.by_number.remove(presentity.number);
        self.by_aor.remove(aor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::state::CallState;

    const A: AccountNo = AccountNo(0);

    fn aor(user: &str) -> Aor {
        Aor::of(A, user).unwrap()
    }

    #[test]
    fn a_presentity_is_found_by_address_number_and_account_until_it_is_idle() {
        let table = Table::new(2, 10);
        let number = table
            .get_or_create(&aor("1001"), "acme.test", None, |p, state| {
                state.manual = Some(CallState::Early);
                p.number
            })
            .unwrap();
        assert_eq!(table.with(&aor("1001"), |p, _| p.number), Some(number));
        assert_eq!(table.with_id(number, |p, _| p.uri.to_string()), Some("sip:1001@acme.test".into()));
        assert_eq!((table.of_account(A).len(), table.of_account(AccountNo(1)).len()), (1, 0));
        table.with(&aor("1001"), |_, state| state.manual = None);
        assert_eq!((table.len(), table.with_id(number, |_, _| ()), table.of_account(A).len()), (0, None, 0));
    }

    #[test]
    fn an_account_has_a_limit() {
        let table = Table::new(1, 1);
        let keep = |_: &Arc<Presentity>, state: &mut State| state.manual = Some(CallState::Early);
        assert_eq!(table.get_or_create(&aor("1"), "r", None, keep), Ok(()));
        assert_eq!(table.get_or_create(&aor("2"), "r", None, keep), Err(AccountFull));
        assert_eq!(table.get_or_create(&aor("1"), "r", None, keep), Ok(()));
    }

    #[test]
    fn a_number_that_is_reserved_or_taken_is_given_to_no_other() {
        let table = Table::new(2, 10);
        let keep = |p: &Arc<Presentity>, state: &mut State| {
            state.manual = Some(CallState::Early);
            p.number
        };
        let obtain = |user: &str| table.get_or_create(&aor(user), "r", None, keep).unwrap();
        let first = obtain("1");
        table.reserve(first + 1);
        assert_eq!(obtain("2"), first + 2);
        assert!(table.restore(first + 1, &aor("3"), "r").is_none(), "reserved");
        assert!(table.restore(first, &Aor::of(AccountNo(1), "1").unwrap(), "r").is_none(), "another presentity's");
        assert!(table.restore(7, &aor("1"), "r").is_none(), "it has come back under another number");
        assert_eq!(table.restore(first, &aor("1"), "r").map(|p| p.number), Some(first));
        table.unreserve(first + 1);
        assert_eq!(table.restore(first + 1, &aor("3"), "r").map(|p| p.number), Some(first + 1));
        let again = Table::new(2, 10);
        again.keep_away_from(first);
        assert_ne!(again.get_or_create(&aor("1"), "r", None, keep).unwrap() / 64, first / 64);
    }

    #[test]
    fn makers_and_leavers_on_many_threads_never_lose_a_presentity() {
        let table = Table::new(1, 10);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..2_000 {
                        let set = (i % 2 == 0).then_some(CallState::Early);
                        table.get_or_create(&aor("x"), "r", None, |_, state| state.manual = set).unwrap();
                    }
                });
            }
        });
        table.get_or_create(&aor("x"), "r", None, |_, state| state.manual = Some(CallState::Early)).unwrap();
        assert_eq!((table.len(), table.of_account(A).len(), table.by_number.len()), (1, 1, 1));
    }
}

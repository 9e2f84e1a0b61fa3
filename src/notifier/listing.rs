//! Listing of the subscriptions and publications of an account, page by page.
//!
//! Each page is bounded in records and in octets, however many watchers an extension has and however long the bodies
//! are. Between two pages only the position of the next one is kept, and the caller keeps it.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

use super::Notifier;
use super::control::{ListingPage, PageStart, PublicationRecord, SubscriptionRecord};
use crate::directory::AccountNo;
use crate::package::PackageId;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};

/// Maximum number of presentities that one page goes through; some of them may have no matching record.
const AT_ONCE: usize = 256;
/// Number of records that fill a page.
const ENOUGH: usize = 256;
/// Number of octets that fill a page; the last record may go beyond it.
const ENOUGH_OCTETS: usize = 256 * 1024;

impl Notifier {
    /// Returns a page of the subscriptions of an account, from a position on; with `package`, only those of that
    /// event package.
    pub fn subscriptions_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<SubscriptionRecord> {
        self.part(account, from, |presentity, state, behind, records| {
            let wanted = state.watchers.iter().filter(|s| !s.ended && package.is_none_or(|id| id == s.package));
            let candidates = wanted.map(|s| Candidate {
                package: s.package,
                key: s.dialog.call_id().into(),
                since: s.subscribed_at(),
                item: s,
            });
            records.fill(candidates, behind, |s| self.subscription_record(presentity, s))
        })
    }

    /// Returns a page of the publications of an account, from a position on; with `package`, only those of that event
    /// package.
    pub fn publications_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<PublicationRecord> {
        self.part(account, from, |presentity, state, behind, records| {
            let wanted = state.publications.iter().filter(|p| package.is_none_or(|id| id == p.package));
            let candidates = wanted.map(|p| Candidate {
                package: p.package,
                key: p.etag.to_string().into(),
                // Entity-tags are unique, so the time is not needed for the order.
                since: Tick(0),
                item: p,
            });
            records.fill(candidates, behind, |p| self.publication_record(presentity, state, p))
        })
    }

    /// Collects the records of the next presentities of an account until the page is full.
    fn part<T: Record>(
        &self,
        account: AccountNo,
        from: &PageStart,
        mut tell: impl FnMut(&Presentity, &State, Option<&Key>, &mut Records<T>) -> Option<Key>,
    ) -> ListingPage<T> {
        let mut records = Records { all: Vec::new(), octets: 0 };
        let presentities = self.table.of_account_from(account, &from.user, AT_ONCE);
        let mut next = None;
        for presentity in &presentities {
            let user = &*presentity.aor.user;
            if records.are_enough() {
                return ListingPage { records: records.all, next: Some(PageStart { user: user.into(), behind: None }) };
            }
            let behind = from.behind.as_ref().filter(|_| *user == *from.user);
            if let behind @ Some(_) = tell(presentity, &presentity.lock(), behind, &mut records) {
                return ListingPage { records: records.all, next: Some(PageStart { user: user.into(), behind }) };
            }
            // No user name contains a NUL, so this is the smallest string after it.
            next = Some(PageStart { user: format!("{user}\0"), behind: None });
        }
        ListingPage { records: records.all, next: next.filter(|_| presentities.len() == AT_ONCE) }
    }
}

/// Sort key of the records of one presentity.
type Key = (PackageId, String);

/// A possible record of the page, not built yet.
struct Candidate<'a, I> {
    package: PackageId,
    key: Cow<'a, str>,
    /// Time of the latest SUBSCRIBE. Of two candidates with the same key, only the later one is listed.
    since: Tick,
    item: &'a I,
}

impl<I> Candidate<'_, I> {
    fn key(&self) -> (u8, &str) {
        (self.package.0, &self.key)
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.key(), Reverse(self.since.0)).cmp(&(other.key(), Reverse(other.since.0)))
    }
}

/// Records of one page.
struct Records<T> {
    all: Vec<T>,
    octets: usize,
}

impl<T: Record> Records<T> {
    fn are_enough(&self) -> bool {
        self.all.len() >= ENOUGH || self.octets >= ENOUGH_OCTETS
    }

    /// Adds records in order, from the first one after the key `behind`, until the page is full. Returns the key of
    /// the last record added if more records follow; else `None`.
    fn fill<'a, I: 'a>(
        &mut self,
        candidates: impl Iterator<Item = Candidate<'a, I>>,
        behind: Option<&Key>,
        record: impl Fn(&I) -> T,
    ) -> Option<Key> {
        let is_behind = |c: &Candidate<'_, I>| behind.is_none_or(|(package, key)| c.key() > (package.0, key.as_str()));
        let mut candidates: Vec<_> = candidates.filter(is_behind).collect();
        let (count, room) = (candidates.len(), ENOUGH - self.all.len());
        // One extension may have thousands of watchers; only those that fit into the page are sorted.
        if count > room {
            candidates.select_nth_unstable_by(room, Candidate::order);
            candidates.truncate(room);
        }
        candidates.sort_unstable_by(Candidate::order);
        candidates.dedup_by(|b, a| a.key() == b.key());
        let owned = |c: &Candidate<'_, I>| (c.package, c.key.to_string());
        for (number, candidate) in candidates.iter().enumerate() {
            if self.are_enough() {
                return number.checked_sub(1).map(|last| owned(&candidates[last]));
            }
            let record = record(candidate.item);
            self.octets += record.octets();
            self.all.push(record);
        }
        candidates.last().filter(|_| count > room).map(owned)
    }
}

/// A record whose approximate size in memory is known.
trait Record {
    fn octets(&self) -> usize;
}

impl Record for SubscriptionRecord {
    fn octets(&self) -> usize {
        let texts = [Some(&self.user), Some(&self.call_id), Some(&self.from), self.user_agent.as_ref()];
        let texts = texts.into_iter().chain([self.proxy_route.as_ref(), self.last.as_ref().map(|last| &last.body)]);
        size_of::<Self>() + texts.flatten().map(String::len).sum::<usize>()
    }
}

impl Record for PublicationRecord {
    fn octets(&self) -> usize {
        size_of::<Self>() + self.user.len() + self.etag.len() + self.body.len()
    }
}

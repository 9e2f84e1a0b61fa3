//! The listing of an account in parts: each bounded in number and in octets, however many watch one extension and however
//! long their bodies are. Nothing is kept between two parts but where the next one begins.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

use super::Notifier;
use super::control::{Part, Position, PublicationRecord, SubscriptionRecord};
use crate::directory::AccountNo;
use crate::package::PackageId;
use crate::presence::Tick;
use crate::presence::presentity::{Presentity, State};

/// How many presentities a part looks at, at most: they may have nothing to tell.
const AT_ONCE: usize = 256;
/// How many records make a part ...
const ENOUGH: usize = 256;
/// ... and how many octets in them; the last record may go beyond that.
const ENOUGH_OCTETS: usize = 256 * 1024;

impl Notifier {
    /// Some subscriptions of an account, of one package or of all, from a position on.
    pub fn subscriptions_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &Position,
    ) -> Part<SubscriptionRecord> {
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

    /// Some publications of an account, of one package or of all, from a position on.
    pub fn publications_from(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &Position,
    ) -> Part<PublicationRecord> {
        self.part(account, from, |presentity, state, behind, records| {
            let wanted = state.publications.iter().filter(|p| package.is_none_or(|id| id == p.package));
            let candidates = wanted.map(|p| Candidate {
                package: p.package,
                key: p.etag.to_string().into(),
                // Entity-tags are unique.
                since: Tick(0),
                item: p,
            });
            records.fill(candidates, behind, |p| self.publication_record(presentity, state, p))
        })
    }

    /// The records of the next presentities of an account, until there are enough.
    fn part<T: Record>(
        &self,
        account: AccountNo,
        from: &Position,
        mut tell: impl FnMut(&Presentity, &State, Option<&Key>, &mut Records<T>) -> Option<Key>,
    ) -> Part<T> {
        let mut records = Records { all: Vec::new(), octets: 0 };
        let presentities = self.table.of_account_from(account, &from.user, AT_ONCE);
        let mut next = None;
        for presentity in &presentities {
            let user = &*presentity.aor.user;
            if records.are_enough() {
                return Part { records: records.all, next: Some(Position { user: user.into(), behind: None }) };
            }
            let behind = from.behind.as_ref().filter(|_| *user == *from.user);
            if let behind @ Some(_) = tell(presentity, &presentity.lock(), behind, &mut records) {
                return Part { records: records.all, next: Some(Position { user: user.into(), behind }) };
            }
            // No user has a NUL in it, so this is the least that is greater.
            next = Some(Position { user: format!("{user}\0"), behind: None });
        }
        Part { records: records.all, next: next.filter(|_| presentities.len() == AT_ONCE) }
    }
}

/// What orders the records of one presentity.
type Key = (PackageId, String);

/// What may become a record.
struct Candidate<'a, I> {
    package: PackageId,
    key: Cow<'a, str>,
    /// Of two with the same key, the later one is told.
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

/// The records of a part.
struct Records<T> {
    all: Vec<T>,
    octets: usize,
}

impl<T: Record> Records<T> {
    fn are_enough(&self) -> bool {
        self.all.len() >= ENOUGH || self.octets >= ENOUGH_OCTETS
    }

    /// Takes what has room, in order and behind a key. The last key that was taken, if there is more behind it.
    fn fill<'a, I: 'a>(
        &mut self,
        candidates: impl Iterator<Item = Candidate<'a, I>>,
        behind: Option<&Key>,
        record: impl Fn(&I) -> T,
    ) -> Option<Key> {
        let is_behind = |c: &Candidate<'_, I>| behind.is_none_or(|(package, key)| c.key() > (package.0, key.as_str()));
        let mut candidates: Vec<_> = candidates.filter(is_behind).collect();
        let (count, room) = (candidates.len(), ENOUGH - self.all.len());
        // Thousands may watch one extension; only those that have room are sorted.
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

/// A record, with about the memory that it takes.
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

//! List of recent refusals: the phones, publishers and API clients that were refused, with the reasons.
//!
//! Input: refusals as they happen. Output: [`RefusalRow`]s. Each account has a table of its own, and so have the
//! senders that belong to no account; so a flood in the name of one account evicts no entries of another. All tables
//! are bounded, and the least recently used entry is evicted. An accepted request never gets here.

use std::net::IpAddr;

use parking_lot::Mutex;
use serde::Serialize;

use super::lru::Lru;
use super::source::{harmless, shown};
use crate::directory::AccountNo;
use crate::presence::Tick;
use crate::transport::limited_as;

/// Maximum number of entries of all accounts together, as long as each account has [`LEAST_OF_ACCOUNT`]. An entry
/// takes about 400 octets, so this is 13 MB.
const MOST: usize = 32_768;
/// Maximum number of entries of one account: more than a person reads.
const MOST_OF_ACCOUNT: usize = 512;
/// Number of entries that each account has at least, however many accounts there are.
const LEAST_OF_ACCOUNT: usize = 16;
/// Maximum number of entries for each kind of [`UnaccountedSender`].
const MOST_OF_STRANGERS: usize = 512;
/// Longest name of a sender (characters). An extension of 128 octets and a realm of 253 would be legal, but names in
/// use are much shorter.
const MAX_WHO: usize = 128;
/// Longest User-Agent and longest detail (characters).
const MAX_TEXT: usize = 96;

/// Kind of a sender that belongs to no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnaccountedSender {
    /// SIP sender with a realm that no account has. The source of a datagram may be forged.
    Sip,
    /// HTTP client with an unknown token or none, or with the token of a superuser.
    Http,
    /// Sender above its rate limit, so that nothing but its address was read. The address may be forged.
    Unread,
}

/// Owner of a refusal, which decides the table that it goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Account of the sender, or the account that it addressed.
    Account(AccountNo),
    /// No account.
    None(UnaccountedSender),
}

/// Kind of a refused sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SenderKind {
    /// Sender of a SUBSCRIBE.
    Phone,
    /// Sender of a PUBLISH.
    Publisher,
    /// Client of the HTTP API.
    Client,
    /// Sender of any other SIP message.
    Peer,
}

/// A refusal as it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) owner: Owner,
    pub(crate) kind: SenderKind,
    /// `user@realm`, or the account of a token. Empty if the sender did not say, or if its message was not read.
    pub(crate) who: &'a str,
    pub(crate) address: IpAddr,
    /// SIP or HTTP method, from a fixed list.
    pub(crate) method: &'static str,
    /// Status of the response; 0 if there was none.
    pub(crate) status: u16,
    /// Reason, one of our own texts: the configuration key of a limit, or a reason phrase.
    pub(crate) reason: &'static str,
    /// Text of the response beyond the reason; may contain text of the sender.
    pub(crate) detail: &'a str,
    /// User-Agent of the sender.
    pub(crate) agent: &'a str,
}

/// Key of an entry. Refusals with the same key are counted in one entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: SenderKind,
    who: Box<str>,
    network: IpAddr,
    method: &'static str,
    status: u16,
    reason: &'static str,
}

#[derive(Debug, Default)]
struct Entry {
    number: u64,
    count: u64,
    first_at: Tick,
    last_at: Tick,
    detail: Box<str>,
    agent: Box<str>,
}

/// Entries, most recently used first, and the total number of refusals.
#[derive(Debug)]
struct Table {
    entries: Lru<Key, Entry>,
    noted: u64,
}

/// Entry of the list: the refusals of one sender for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusalRow {
    /// Kind of the sender.
    pub kind: SenderKind,
    /// `user@realm` of a SIP sender as it named itself, or the realm of the account of a token; `None` if the sender
    /// did not say.
    pub who: Option<String>,
    /// Source: an IPv4 address, or the /64 network of an IPv6 address.
    pub address: String,
    /// SIP or HTTP method; `other` for SIP methods that are not supported, and for messages that could not be parsed.
    pub method: &'static str,
    /// Status of the response; `None` if there was none.
    pub status: Option<u16>,
    /// Reason: the configuration key of a limit, or one of our reason phrases.
    pub reason: &'static str,
    /// Text of the latest response, if it says more than the reason.
    pub detail: Option<String>,
    /// Latest User-Agent of the sender.
    pub agent: Option<String>,
    /// Number of refusals.
    pub count: u64,
    /// Time of the first refusal (Unix ms).
    pub first_at: u64,
    /// Time of the latest refusal (Unix ms).
    pub last_at: u64,
    /// Number for paging: a later entry has a higher one.
    #[serde(skip)]
    pub number: u64,
}

/// Tables of all accounts, and of the senders without account.
#[derive(Debug)]
pub(super) struct RefusalLog {
    accounts: Box<[Mutex<Table>]>,
    /// Indexed by [`UnaccountedSender`].
    strangers: [Mutex<Table>; 3],
}

impl RefusalLog {
    /// Creates empty tables for this number of accounts.
    pub(super) fn new(accounts: usize) -> RefusalLog {
        let share = (MOST / accounts.max(1)).clamp(LEAST_OF_ACCOUNT, MOST_OF_ACCOUNT);
        let table = |capacity| Mutex::new(Table { entries: Lru::new(capacity), noted: 0 });
        RefusalLog {
            accounts: (0..accounts).map(|_| table(share)).collect(),
            strangers: std::array::from_fn(|_| table(MOST_OF_STRANGERS)),
        }
    }

    fn table(&self, owner: Owner) -> Option<&Mutex<Table>> {
        match owner {
            Owner::Account(account) => self.accounts.get(account.0 as usize),
            Owner::None(stranger) => self.strangers.get(stranger as usize),
        }
    }

    /// Adds a refusal.
    pub(super) fn note(&self, now: Tick, refusal: &Refusal<'_>) {
        let Refusal { owner, kind, who, address, method, status, reason, detail, agent } = *refusal;
        let Some(table) = self.table(owner) else { return };
        let who = harmless(who, MAX_WHO).into();
        let key = Key { kind, who, network: limited_as(address), method, status, reason };
        let short = |text| harmless(text, MAX_TEXT).into_boxed_str();
        let (detail, agent) = (short(detail), short(agent));
        let mut table = table.lock();
        table.noted += 1;
        let number = table.noted;
        let entry = table.entries.touch(&key);
        if entry.count == 0 {
            entry.first_at = now;
        }
        entry.number = number;
        entry.count += 1;
        entry.last_at = now;
        entry.detail = detail;
        if !agent.is_empty() {
            entry.agent = agent;
        }
    }

    /// Returns the entries of an account; with `None`, those of senders without account. The latest come first: at
    /// most `most` entries, and none with a number above `from`.
    pub(super) fn read(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
        match account {
            Some(account) => {
                let table = self.table(Owner::Account(account));
                table.map(|table| rows(&table.lock(), from, most)).unwrap_or_default()
            }
            None => {
                // Each table has numbers of its own. The merged list is sorted by time and numbered again, starting
                // with the earliest entry.
                let mut all: Vec<_> =
                    self.strangers.iter().flat_map(|table| rows(&table.lock(), None, MOST_OF_STRANGERS)).collect();
                all.sort_by_key(|row| (row.last_at, row.number));
                all.iter_mut().zip(1..).for_each(|(row, place)| row.number = place);
                let wanted = |row: &RefusalRow| from.is_none_or(|from| row.number <= from);
                all.into_iter().rev().filter(wanted).take(most).collect()
            }
        }
    }
}

fn rows(table: &Table, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let row = |(key, entry): (&Key, &Entry)| RefusalRow {
        kind: key.kind,
        who: some(&key.who),
        address: shown(key.network),
        method: key.method,
        status: Some(key.status).filter(|status| *status != 0),
        reason: key.reason,
        detail: some(&entry.detail).filter(|detail| detail != key.reason),
        agent: some(&entry.agent),
        count: entry.count,
        first_at: entry.first_at.0,
        last_at: entry.last_at.0,
        number: entry.number,
    };
    let wanted = |(_, entry): &(&Key, &Entry)| from.is_none_or(|from| entry.number <= from);
    table.entries.iter().filter(wanted).take(most).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountNo = AccountNo(0);
    const B: AccountNo = AccountNo(1);

    fn refusal(owner: Owner, who: &'static str, address: &str) -> Refusal<'static> {
        Refusal {
            owner,
            kind: SenderKind::Phone,
            who,
            address: address.parse().unwrap(),
            method: "SUBSCRIBE",
            status: 423,
            reason: "Interval Too Brief",
            detail: "Interval Too Brief",
            agent: "",
        }
    }

    #[test]
    fn refusals_of_one_sender_for_one_reason_are_one_entry() {
        let book = RefusalLog::new(2);
        let one = refusal(Owner::Account(A), "1001@acme.test", "2001:db8::1");
        book.note(Tick(1_000), &Refusal { agent: "Snom\r\nx", ..one });
        book.note(Tick(2_000), &Refusal { address: "2001:db8::2".parse().unwrap(), ..one });
        book.note(Tick(3_000), &Refusal { status: 489, reason: "Bad Event", detail: "Bad Event x", ..one });
        let rows = book.read(Some(A), None, 10);
        let brief: Vec<_> = rows.iter().map(|r| (r.status, r.count, r.first_at, r.last_at)).collect();
        assert_eq!(brief, [(Some(489), 1, 3_000, 3_000), (Some(423), 2, 1_000, 2_000)]);
        assert_eq!((&*rows[1].address, rows[1].agent.as_deref()), ("2001:db8::/64", Some("Snom\u{fffd}\u{fffd}x")));
        assert_eq!((rows[0].detail.as_deref(), rows[1].detail.as_deref()), (Some("Bad Event x"), None));
        assert_eq!(book.read(Some(B), None, 10), []);
        assert_eq!(book.read(None, None, 10), []);
    }

    #[test]
    fn a_flood_in_the_name_of_one_pushes_out_nothing_of_another() {
        let book = RefusalLog::new(2);
        book.note(Tick(1), &refusal(Owner::Account(B), "1001@umbrella.test", "192.0.2.1"));
        book.note(Tick(1), &refusal(Owner::None(UnaccountedSender::Http), "", "192.0.2.1"));
        for n in 0..20_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            for owner in
                [Owner::Account(A), Owner::None(UnaccountedSender::Sip), Owner::None(UnaccountedSender::Unread)]
            {
                book.note(Tick(2), &Refusal { address, ..refusal(owner, "x", "192.0.2.1") });
            }
        }
        assert_eq!(book.read(Some(A), None, 100_000).len(), MOST_OF_ACCOUNT);
        assert_eq!(book.read(Some(B), None, 100_000).len(), 1);
        let strangers = book.read(None, None, 100_000);
        assert_eq!(strangers.len(), 2 * MOST_OF_STRANGERS + 1);
        assert_eq!(strangers.last().map(|row| row.last_at), Some(1), "the latest first");
    }

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let book = RefusalLog::new(1);
        for n in 0..5_u8 {
            let address = IpAddr::from([192, 0, 2, n]);
            for owner in [Owner::Account(A), Owner::None(UnaccountedSender::Sip)] {
                book.note(Tick(u64::from(n)), &Refusal { address, ..refusal(owner, "x", "192.0.2.1") });
            }
        }
        for account in [Some(A), None] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let mut page = book.read(account, from, 3);
                from = page.get(2).map(|row| row.number);
                page.truncate(2);
                seen.extend(page.into_iter().map(|row| row.address));
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(seen, [4, 3, 2, 1, 0].map(|n| format!("192.0.2.{n}")), "{account:?}");
        }
    }

    #[test]
    fn many_accounts_share_the_room() {
        let book = RefusalLog::new(1_000);
        for n in 0..100_u8 {
            let address = IpAddr::from([192, 0, 2, n]);
            book.note(Tick(1), &Refusal { address, ..refusal(Owner::Account(A), "x", "192.0.2.1") });
        }
        assert_eq!(book.read(Some(A), None, 1_000).len(), MOST / 1_000);
    }
}

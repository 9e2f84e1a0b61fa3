//! Refusals: how many there were, and for what reason; which senders were refused lately ([`book`]); and what wrong passwords and
//! tokens lead to ([`guesses`]). [`record`] has the hooks by which the notifier reports them.
//!
//! In flow requests with their answers, as they are decided; out flow counts, and the entries of the book. Reasons are texts of our
//! own, so their number is small and no peer can make up more. A first challenge, and one for a stale nonce, is no refusal.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;

use super::answer::Answer;
use super::gate::Bucket;
use crate::count::{self, one_more};
use crate::directory::AccountNo;
use crate::per_thread::PerThread;
use crate::presence::Tick;
use crate::sip::wire::Verb;
use crate::sip::{Method, StatusCode};

mod book;
mod guesses;
mod lru;
mod record;
mod source;

pub use book::{RefusalRow, SenderKind};
pub use record::ApiRefusal;

use book::{Book, Refusal};
use guesses::Guesses;

/// The methods that are told apart.
pub const METHODS: [&str; 4] = ["SUBSCRIBE", "PUBLISH", "OPTIONS", "other"];
/// The reason of a refusal whose words depend on what was wrong where in the message.
const MALFORMED: &str = "Malformed";

/// The reason of a wrong password.
const WRONG_PASSWORD: &str = "Wrong Password";
/// The reason of a password for a user that no device has.
const UNKNOWN_USER: &str = "Unknown User";
/// The reason of a wrong token.
const WRONG_TOKEN: &str = "Wrong Token";

/// A refusal as it is counted: its method, the status, and why.
type Counted = (&'static str, u16, &'static str);

#[derive(Debug, Default)]
struct Requests {
    by_method: [AtomicU64; METHODS.len()],
    repeated: AtomicU64,
    challenged: AtomicU64,
}

/// Limits, and what meets them, are there from the first scrape on: an alert on what grows has to have seen nothing before.
const FROM_THE_START: [Counted; 9] = [
    ("SUBSCRIBE", 503, "limits.subscriptions"),
    ("SUBSCRIBE", 480, "limits.subscriptions_per_account"),
    ("SUBSCRIBE", 480, "limits.subscriptions_per_device"),
    ("SUBSCRIBE", 480, "limits.watchers_per_presentity"),
    ("SUBSCRIBE", 480, "limits.presentities_per_account"),
    ("PUBLISH", 480, "limits.presentities_per_account"),
    ("PUBLISH", 480, "limits.publications_per_presentity"),
    ("SUBSCRIBE", 401, WRONG_PASSWORD),
    ("PUBLISH", 401, WRONG_PASSWORD),
];
/// The same for the HTTP API.
const OF_API_FROM_THE_START: [Counted; 1] = [("GET", 401, WRONG_TOKEN)];

/// Counts requests and refusals, and remembers the latest of these.
#[derive(Debug)]
pub(super) struct Refusals {
    requests: PerThread<Requests>,
    refused: Counts,
    refused_by_api: Counts,
    book: Book,
    guesses: Guesses,
    /// How many of those that exceed their rate are noted.
    unread: Bucket,
}

impl Refusals {
    /// Nothing was refused yet, in so many accounts. `key` is secret.
    pub(super) fn new(accounts: usize, key: [u8; 16]) -> Refusals {
        Refusals {
            requests: PerThread::default(),
            refused: Counts::from_zero(&FROM_THE_START),
            refused_by_api: Counts::from_zero(&OF_API_FROM_THE_START),
            book: Book::new(accounts),
            guesses: Guesses::new(key),
            unread: Bucket::default(),
        }
    }

    /// A request that came again got what it had got before, or nothing while that is not known yet.
    pub(super) fn repeated(&self) {
        one_more(&self.requests.mine().repeated);
    }

    /// A request has been decided: counts it, and says how it was refused, if it was.
    pub(super) fn count(&self, verb: Verb<'_>, answer: &Answer) -> Option<Counted> {
        let method = match verb {
            Verb::Known(Method::Subscribe) => 0,
            Verb::Known(Method::Publish) => 1,
            Verb::Known(Method::Options) => 2,
            _ => METHODS.len() - 1,
        };
        let mine = self.requests.mine();
        one_more(&mine.by_method[method]);
        if answer.status.code() < 300 {
            return None;
        }
        if answer.status == StatusCode::Unauthorized {
            one_more(&mine.challenged);
            return None;
        }
        Some(self.count_refusal(METHODS[method], answer))
    }

    /// What cannot be read was refused; it counts as a request of no method that we know.
    pub(super) fn count_unreadable(&self, answer: &Answer) -> Counted {
        let method = METHODS.len() - 1;
        one_more(&self.requests.mine().by_method[method]);
        self.count_refusal(METHODS[method], answer)
    }

    fn count_refusal(&self, method: &'static str, answer: &Answer) -> Counted {
        let why = match (answer.limit_key(), &answer.reason) {
            (Some(limit), _) => limit,
            (None, Cow::Borrowed(reason)) => reason,
            (None, Cow::Owned(_)) => MALFORMED,
        };
        let refusal = (method, answer.status.code(), why);
        self.refused.add(refusal);
        refusal
    }

    /// Entries of an account, or of those without one, the latest first: no more than `most`, none later than `from`.
    pub(super) fn rows(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
        self.book.read(account, from, most)
    }

    fn note(&self, now: Tick, refusal: &Refusal<'_>) {
        self.book.note(now, refusal);
    }

    /// What has been counted so far.
    pub(super) fn read(&self) -> Answered {
        Answered {
            requests: std::array::from_fn(|method| count::sum(&self.requests, |counts| &counts.by_method[method])),
            repeated: count::sum(&self.requests, |counts| &counts.repeated),
            challenged: count::sum(&self.requests, |counts| &counts.challenged),
            refused: self.refused.read(),
            refused_by_api: self.refused_by_api.read(),
        }
    }
}

/// Refusals by method, status and reason.
#[derive(Debug)]
struct Counts(DashMap<Counted, AtomicU64>);

impl Counts {
    fn from_zero(known: &[Counted]) -> Counts {
        Counts(known.iter().map(|counted| (*counted, AtomicU64::new(0))).collect())
    }

    fn add(&self, counted: Counted) {
        match self.0.get(&counted) {
            Some(count) => one_more(&count),
            None => one_more(&self.0.entry(counted).or_default()),
        }
    }

    /// All of them, in a fixed order.
    fn read(&self) -> Vec<Refused> {
        let mut all: Vec<_> = self.0.iter().map(|entry| (*entry.key(), entry.load(Relaxed))).collect();
        all.sort_unstable();
        let refused = |((method, status, reason), count)| Refused { method, status, reason, count };
        all.into_iter().map(refused).collect()
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Requests by [`METHODS`], each counted once however often it came.
    pub requests: [u64; METHODS.len()],
    /// Those that came again.
    pub repeated: u64,
    /// Challenges: the answers to requests without a proof, with a wrong one, or with a stale nonce.
    pub challenged: u64,
    /// Those that were refused.
    pub refused: Vec<Refused>,
    /// Requests to the HTTP API that were refused.
    pub refused_by_api: Vec<Refused>,
}

/// How many requests were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of [`METHODS`], or a method of HTTP.
    pub method: &'static str,
    /// The status that they were answered with.
    pub status: u16,
    /// The reason phrase, or the key of the limit that was reached.
    pub reason: &'static str,
    /// So many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_method_and_by_our_own_words_only() {
        let refusals = Refusals::new(1, [7; 16]);
        let subscribe = Verb::Known(Method::Subscribe);
        refusals.count(subscribe, &Answer::ok());
        refusals.count(subscribe, &Answer::limit_of_one("limits.subscriptions_per_device", 1));
        refusals.count(Verb::Known(Method::Publish), &Answer::bad_request(format!("{} is no XML", "theirs")));
        refusals.count(Verb::Unknown("NONSENSE"), &Answer::new(StatusCode::NotImplemented, "Not Implemented"));
        refusals.count(subscribe, &Answer::limit_of_one("limits.subscriptions_per_device", 2));
        assert_eq!(refusals.count(subscribe, &Answer::new(StatusCode::Unauthorized, "Unauthorized")), None);
        let read = refusals.read();
        assert_eq!((read.requests, read.repeated, read.challenged), ([4, 1, 0, 1], 0, 1));
        let happened = read.refused.iter().filter(|r| r.count > 0);
        let refused: Vec<_> = happened.map(|r| (r.method, r.status, r.reason, r.count)).collect();
        let expected = [
            ("PUBLISH", 400, "Malformed", 1),
            ("SUBSCRIBE", 480, "limits.subscriptions_per_device", 2),
            ("other", 501, "Not Implemented", 1),
        ];
        assert_eq!(refused, expected);
    }
}

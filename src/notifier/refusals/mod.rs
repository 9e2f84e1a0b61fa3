//! Refusals: counters by reason, the recent refusals per sender (`log.rs`), and the back-off after wrong passwords
//! and tokens (`auth_backoff.rs`). `record.rs` has the hooks by which the notifier reports them.
//!
//! Input: requests with their responses. Output: counters, and the entries of the list. Reasons are our own texts, so
//! their number is small and no peer can add to it. A first challenge, or one for a stale nonce, is not a refusal.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;

use super::rate_limit::Bucket;
use super::response::Response;
use crate::directory::AccountNo;
use crate::presence::Tick;
use crate::sip::wire::RequestMethod;
use crate::sip::{Method, StatusCode};
use crate::util::counters::{self, increment};
use crate::util::per_thread::PerThread;

mod auth_backoff;
mod log;
mod lru;
mod record;
mod source;

pub use log::{RefusalRow, SenderKind};
pub use record::ApiRefusal;

use auth_backoff::AuthBackoff;
use log::{Refusal, RefusalLog};

/// Methods that are counted separately.
pub const METHODS: [&str; 4] = ["SUBSCRIBE", "PUBLISH", "OPTIONS", "other"];
/// Reason of a refusal whose text depends on the content of the message.
const MALFORMED: &str = "Malformed";

/// Reason for a wrong password.
const WRONG_PASSWORD: &str = "Wrong Password";
/// Reason for a password of a user name that no device has.
const UNKNOWN_USER: &str = "Unknown User";
/// Reason for a wrong token.
const WRONG_TOKEN: &str = "Wrong Token";

/// Key of a counter: method, status and reason.
type Counted = (&'static str, u16, &'static str);

#[derive(Debug, Default)]
struct RequestCounters {
    by_method: [AtomicU64; METHODS.len()],
    repeated: AtomicU64,
    challenged: AtomicU64,
}

/// Counters that exist from the first scrape on, with the value 0. An alert on an increase needs a value from before
/// it.
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

/// Counters of requests and refusals, and the recent refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    requests: PerThread<RequestCounters>,
    refused: Counts,
    refused_by_api: Counts,
    book: RefusalLog,
    guesses: AuthBackoff,
    /// Rate limit of the entries for messages above their own rate limit.
    unread: Bucket,
}

impl Refusals {
    /// Creates empty counters and lists for this number of accounts. `key` is secret.
    pub(super) fn new(accounts: usize, key: [u8; 16]) -> Refusals {
        Refusals {
            requests: PerThread::default(),
            refused: Counts::from_zero(&FROM_THE_START),
            refused_by_api: Counts::from_zero(&OF_API_FROM_THE_START),
            book: RefusalLog::new(accounts),
            guesses: AuthBackoff::new(key),
            unread: Bucket::default(),
        }
    }

    /// Counts a retransmission. It got the earlier response, or none while there is none yet.
    pub(super) fn repeated(&self) {
        increment(&self.requests.mine().repeated);
    }

    /// Counts a request that has been decided. Returns the key of the counter if it was refused.
    pub(super) fn count(&self, verb: RequestMethod<'_>, answer: &Response) -> Option<Counted> {
        let method = match verb {
            RequestMethod::Known(Method::Subscribe) => 0,
            RequestMethod::Known(Method::Publish) => 1,
            RequestMethod::Known(Method::Options) => 2,
            _ => METHODS.len() - 1,
        };
        let mine = self.requests.mine();
        increment(&mine.by_method[method]);
        if answer.status.code() < 300 {
            return None;
        }
        if answer.status == StatusCode::Unauthorized {
            increment(&mine.challenged);
            return None;
        }
        Some(self.count_refusal(METHODS[method], answer))
    }

    /// Counts a request that could not be parsed; its method is `other`.
    pub(super) fn count_unreadable(&self, answer: &Response) -> Counted {
        let method = METHODS.len() - 1;
        increment(&self.requests.mine().by_method[method]);
        self.count_refusal(METHODS[method], answer)
    }

    fn count_refusal(&self, method: &'static str, answer: &Response) -> Counted {
        let why = match (answer.limit_key(), &answer.reason) {
            (Some(limit), _) => limit,
            (None, Cow::Borrowed(reason)) => reason,
            (None, Cow::Owned(_)) => MALFORMED,
        };
        let refusal = (method, answer.status.code(), why);
        self.refused.add(refusal);
        refusal
    }

    /// Returns the recent refusals of an account; with `None`, those that belong to no account. The latest come
    /// first: at most `most` entries, and none with a number above `from`.
    pub(super) fn rows(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
        self.book.read(account, from, most)
    }

    fn note(&self, now: Tick, refusal: &Refusal<'_>) {
        self.book.note(now, refusal);
    }

    /// Returns all counters.
    pub(super) fn read(&self) -> RequestStats {
        RequestStats {
            requests: std::array::from_fn(|method| counters::total(&self.requests, |counts| &counts.by_method[method])),
            repeated: counters::total(&self.requests, |counts| &counts.repeated),
            challenged: counters::total(&self.requests, |counts| &counts.challenged),
            refused: self.refused.read(),
            refused_by_api: self.refused_by_api.read(),
        }
    }
}

/// Counters of refusals by method, status and reason.
#[derive(Debug)]
struct Counts(DashMap<Counted, AtomicU64>);

impl Counts {
    fn from_zero(known: &[Counted]) -> Counts {
        Counts(known.iter().map(|counted| (*counted, AtomicU64::new(0))).collect())
    }

    fn add(&self, counted: Counted) {
        match self.0.get(&counted) {
            Some(count) => increment(&count),
            None => increment(&self.0.entry(counted).or_default()),
        }
    }

    /// Returns all counters in a fixed order.
    fn read(&self) -> Vec<RejectedRequests> {
        let mut all: Vec<_> = self.0.iter().map(|entry| (*entry.key(), entry.load(Relaxed))).collect();
        all.sort_unstable();
        let refused = |((method, status, reason), count)| RejectedRequests { method, status, reason, count };
        all.into_iter().map(refused).collect()
    }
}

/// Counters of requests and refusals, as read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Requests by [`METHODS`]. A request counts once, however often it is retransmitted.
    pub requests: [u64; METHODS.len()],
    /// Retransmissions.
    pub repeated: u64,
    /// Challenges: responses to requests without credentials, with wrong credentials, or with a stale nonce.
    pub challenged: u64,
    /// Refused SIP requests.
    pub refused: Vec<RejectedRequests>,
    /// Refused requests of the HTTP API.
    pub refused_by_api: Vec<RejectedRequests>,
}

/// Number of requests that were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedRequests {
    /// One of [`METHODS`], or an HTTP method.
    pub method: &'static str,
    /// Status of the response.
    pub status: u16,
    /// Reason phrase, or the configuration key of the limit that was reached.
    pub reason: &'static str,
    /// Number of requests.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_method_and_by_our_own_words_only() {
        let refusals = Refusals::new(1, [7; 16]);
        let subscribe = RequestMethod::Known(Method::Subscribe);
        refusals.count(subscribe, &Response::ok());
        refusals.count(subscribe, &Response::account_limit_480("limits.subscriptions_per_device", 1));
        refusals
            .count(RequestMethod::Known(Method::Publish), &Response::bad_request(format!("{} is no XML", "theirs")));
        refusals
            .count(RequestMethod::Unknown("NONSENSE"), &Response::new(StatusCode::NotImplemented, "Not Implemented"));
        refusals.count(subscribe, &Response::account_limit_480("limits.subscriptions_per_device", 2));
        assert_eq!(refusals.count(subscribe, &Response::new(StatusCode::Unauthorized, "Unauthorized")), None);
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

//! How many requests came, and why how many of them were refused. Reasons are texts of our own, so their number is small and
//! no peer can make up more.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dashmap::DashMap;

use super::answer::Answer;
use crate::count::{self, one_more};
use crate::per_thread::PerThread;
use crate::sip::Method;
use crate::sip::wire::Verb;

/// The methods that are told apart.
pub const METHODS: [&str; 4] = ["SUBSCRIBE", "PUBLISH", "OPTIONS", "other"];
/// The reason of a refusal whose words depend on what was wrong where in the message.
const MALFORMED: &str = "Malformed";

/// A refusal as it is counted: its place in [`METHODS`], the status, and why.
type Refusal = (usize, u16, &'static str);

#[derive(Debug, Default)]
struct Requests {
    by_method: [AtomicU64; METHODS.len()],
    repeated: AtomicU64,
}

/// Limits, and what meets them, are there from the first scrape on: an alert on what grows has to have seen nothing before.
const LIMITS: [Refusal; 7] = [
    (0, 503, "limits.subscriptions"),
    (0, 480, "limits.subscriptions_per_account"),
    (0, 480, "limits.subscriptions_per_phone"),
    (0, 480, "limits.watchers_per_presentity"),
    (0, 480, "limits.presentities_per_account"),
    (1, 480, "limits.presentities_per_account"),
    (1, 480, "limits.publications_per_presentity"),
];

/// Counts requests and refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    requests: PerThread<Requests>,
    refused: DashMap<Refusal, AtomicU64>,
}

impl Default for Refusals {
    fn default() -> Self {
        let refused = LIMITS.into_iter().map(|limit| (limit, AtomicU64::new(0))).collect();
        Refusals { requests: PerThread::default(), refused }
    }
}

impl Refusals {
    /// A request that came again got what it had got before, or nothing while that is not known yet.
    pub(super) fn repeated(&self) {
        one_more(&self.requests.mine().repeated);
    }

    /// A request has been decided.
    pub(super) fn decided(&self, verb: Verb<'_>, answer: &Answer) {
        let method = match verb {
            Verb::Known(Method::Subscribe) => 0,
            Verb::Known(Method::Publish) => 1,
            Verb::Known(Method::Options) => 2,
            _ => METHODS.len() - 1,
        };
        one_more(&self.requests.mine().by_method[method]);
        if answer.status.code() >= 300 {
            self.refused(method, answer);
        }
    }

    /// What cannot be read was refused; it counts as a request of no method that we know.
    pub(super) fn unreadable(&self, answer: &Answer) {
        let method = METHODS.len() - 1;
        one_more(&self.requests.mine().by_method[method]);
        self.refused(method, answer);
    }

    fn refused(&self, method: usize, answer: &Answer) {
        let why = match (answer.limit_key(), &answer.reason) {
            (Some(limit), _) => limit,
            (None, Cow::Borrowed(reason)) => reason,
            (None, Cow::Owned(_)) => MALFORMED,
        };
        let refusal = (method, answer.status.code(), why);
        match self.refused.get(&refusal) {
            Some(count) => one_more(&count),
            None => one_more(&self.refused.entry(refusal).or_default()),
        }
    }

    /// What has been counted so far.
    pub(super) fn read(&self) -> Answered {
        let mut refused: Vec<_> = self.refused.iter().map(|entry| (*entry.key(), entry.load(Relaxed))).collect();
        refused.sort_unstable();
        let refused = refused.into_iter().map(|((method, status, reason), count)| Refused {
            method: METHODS[method],
            status,
            reason,
            count,
        });
        Answered {
            requests: std::array::from_fn(|method| count::sum(&self.requests, |counts| &counts.by_method[method])),
            repeated: count::sum(&self.requests, |counts| &counts.repeated),
            refused: refused.collect(),
        }
    }
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Requests by [`METHODS`], each counted once however often it came.
    pub requests: [u64; METHODS.len()],
    /// Those that came again.
    pub repeated: u64,
    /// Those that were refused.
    pub refused: Vec<Refused>,
}

/// How many requests were refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One of [`METHODS`].
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
    use crate::sip::StatusCode;

    #[test]
    fn refusals_are_told_apart_by_method_and_by_our_own_words_only() {
        let refusals = Refusals::default();
        let subscribe = Verb::Known(Method::Subscribe);
        refusals.decided(subscribe, &Answer::ok());
        refusals.decided(subscribe, &Answer::limit_of_one("limits.subscriptions_per_phone", 1));
        refusals.decided(Verb::Known(Method::Publish), &Answer::bad_request(format!("{} is no XML", "theirs")));
        refusals.decided(Verb::Unknown("NONSENSE"), &Answer::new(StatusCode::NotImplemented, "Not Implemented"));
        refusals.decided(subscribe, &Answer::limit_of_one("limits.subscriptions_per_phone", 2));
        let read = refusals.read();
        assert_eq!((read.requests, read.repeated), ([3, 1, 0, 1], 0));
        let happened = read.refused.iter().filter(|r| r.count > 0);
        let refused: Vec<_> = happened.map(|r| (r.method, r.status, r.reason, r.count)).collect();
        let expected = [
            ("SUBSCRIBE", 480, "limits.subscriptions_per_phone", 2),
            ("PUBLISH", 400, "Malformed", 1),
            ("other", 501, "Not Implemented", 1),
        ];
        assert_eq!(refused, expected);
    }
}

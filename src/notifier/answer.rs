//! Answers to requests, before they are bytes.

use std::borrow::Cow;

use crate::presence::subscription::Place;
use crate::sip::StatusCode;
use crate::sip::wire::{HeaderLines, Value};

/// The tag that an answer puts into a To without one (RFC 3261 section 8.2.6.2).
#[derive(Clone, Debug)]
pub(super) enum ToTag {
    /// There is no dialog: it only has to be the same for repetitions of the request.
    Stateless,
    /// That of a dialog which this answer makes.
    Dialog(Place),
    /// That of another answer.
    Same(String),
    /// None: it is the final answer's to give.
    None,
}

/// The limits that may be reached, by their keys.
const LIMITS: [&str; 7] = [
    "limits.subscriptions",
    "limits.subscriptions_per_account",
    "limits.subscriptions_per_device",
    "limits.watchers_per_presentity",
    "limits.publications_per_presentity",
    "limits.presentities_per_account",
    "rate_limits",
];

/// An answer: status, reason phrase, and the headers that make it more than that.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) reason: Cow<'static, str>,
    pub(super) headers: HeaderLines,
    pub(super) to_tag: ToTag,
    /// Goes back with the answer to a request that makes a dialog (RFC 3261 section 12.1.1).
    pub(super) record_route: bool,
    /// The limit that is reached: its place in [`LIMITS`]. Answers travel as errors, and have to be small.
    pub(super) limit: Option<u8>,
    /// What it grants, if it is all that this answer says.
    pub(super) granted: Option<Granted>,
}

/// What the answer to a SUBSCRIBE says.
#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub(super) grant: Grant,
    /// The user part of our Contact.
    pub(super) user: String,
    /// Our Contact is a sips URI.
    pub(super) sips: bool,
}

/// What a SUBSCRIBE was granted: with the request, all that its answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// A subscription that was not there before, for so many seconds.
    New { place: Place, seconds: u32 },
    /// More seconds in the same dialog, or the end; `told`: a NOTIFY follows.
    Again { seconds: u32, told: bool },
}

impl Grant {
    /// For how many seconds; 0 is the end.
    pub(super) fn seconds(self) -> u32 {
        match self {
            Grant::New { seconds, .. } | Grant::Again { seconds, .. } => seconds,
        }
    }
}

/// An answer as it is remembered for repetitions of its request. Nearly all are grants, and there may be some hundred
/// thousand of them: those are written anew should anybody ask, rather than kept.
#[derive(Clone, Debug)]
pub(super) enum Remembered {
    Grant(Grant),
    Whole(Box<[u8]>),
}

impl Remembered {
    /// What is to be remembered of an answer that was written as `bytes`.
    pub(super) fn of(answer: &Answer, bytes: &[u8]) -> Remembered {
        match &answer.granted {
            Some(granted) => Remembered::Grant(granted.grant),
            None => Remembered::Whole(bytes.into()),
        }
    }
}

impl Answer {
    /// An answer whose reason phrase says to a person what was wrong.
    pub(super) fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Answer {
        Answer {
            status,
            reason: reason.into(),
            headers: HeaderLines::default(),
            to_tag: ToTag::Stateless,
            record_route: false,
            limit: None,
            granted: None,
        }
    }

    /// 200.
    pub(super) fn ok() -> Answer {
        Answer::new(StatusCode::OK, "OK")
    }

    /// 400 and what is wrong.
    pub(super) fn bad_request(reason: impl Into<Cow<'static, str>>) -> Answer {
        Answer::new(StatusCode::BadRequest, reason)
    }

    /// 481: there is no such subscription here (RFC 6665 section 4.2.1).
    pub(super) fn no_subscription() -> Answer {
        Answer::new(StatusCode::CallTransactionDoesNotExist, "Subscription Does Not Exist")
    }

    /// The limit of one account or address: 480, so that a proxy in between does not take the whole server for
    /// overloaded (law 7).
    pub(super) fn limit_of_one(key: &'static str, retry_after: u32) -> Answer {
        Answer::new(StatusCode::TemporarilyUnavailable, "Limit Reached").at_limit(key, retry_after)
    }

    /// The limit of the whole server: 503.
    pub(super) fn limit_of_all(key: &'static str, retry_after: u32) -> Answer {
        Answer::new(StatusCode::ServiceUnavailable, "Server Full").at_limit(key, retry_after)
    }

    fn at_limit(self, key: &'static str, retry_after: u32) -> Answer {
        let warning = ("399 lamplighter \"The limit ", key, " is reached\"");
        let limit = LIMITS.iter().position(|limit| *limit == key).map(|place| place as u8);
        debug_assert!(limit.is_some(), "{key} is missing in LIMITS");
        Answer { limit, ..self.with("Retry-After", retry_after).with("Warning", warning) }
    }

    /// The key of the limit that is reached.
    pub(super) fn limit_key(&self) -> Option<&'static str> {
        LIMITS.get(usize::from(self.limit?)).copied()
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: impl Value) -> Answer {
        self.headers.add(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for every request of the last half minute.
    #[test]
    fn a_remembered_answer_is_small() {
        assert!(size_of::<Remembered>() <= 24, "{}", size_of::<Remembered>());
    }
}

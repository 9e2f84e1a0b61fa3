//! Responses to requests, before they are encoded.

use std::borrow::Cow;

use crate::presence::subscription::SubscriptionId;
use crate::sip::StatusCode;
use crate::sip::wire::{HeaderLines, Value};

/// Tag that a response adds to a To without one (RFC 3261 section 8.2.6.2).
#[derive(Clone, Debug)]
pub(super) enum ToTag {
    /// There is no dialog. The tag only has to be the same for retransmissions of the request.
    Stateless,
    /// Tag of the dialog that this response creates.
    Dialog(SubscriptionId),
    /// Copy of the tag of another response.
    Same(String),
    /// No tag: a provisional response leaves it to the final one.
    None,
}

/// Configuration keys of the limits that a request may reach.
const LIMITS: [&str; 7] = [
    "limits.subscriptions",
    "limits.subscriptions_per_account",
    "limits.subscriptions_per_device",
    "limits.watchers_per_presentity",
    "limits.publications_per_presentity",
    "limits.presentities_per_account",
    "rate_limits",
];

/// A response: status, reason phrase, and the headers that are special to it.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) reason: Cow<'static, str>,
    pub(super) headers: HeaderLines,
    pub(super) to_tag: ToTag,
    /// Copies the Record-Route of a request that creates a dialog (RFC 3261 section 12.1.1).
    pub(super) record_route: bool,
    /// The limit that was reached, as an index into [`LIMITS`]. Responses are returned as errors, and have to be small.
    pub(super) limit: Option<u8>,
    /// The grant, if the response contains nothing else.
    pub(super) granted: Option<GrantedResponse>,
}

/// Contents of the response to a SUBSCRIBE.
#[derive(Clone, Debug)]
pub(super) struct GrantedResponse {
    pub(super) grant: Grant,
    /// User part of our Contact.
    pub(super) user: String,
    /// True if our Contact is a `sips` URI.
    pub(super) sips: bool,
}

/// Outcome of a SUBSCRIBE. Together with the request it is enough to rebuild the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// A new subscription, and its lifetime in seconds.
    New { place: SubscriptionId, seconds: u32 },
    /// A refresh in the same dialog, or its end (0 seconds). `told` is true if a NOTIFY follows.
    Again { seconds: u32, told: bool },
}

impl Grant {
    /// Granted lifetime in seconds; 0 ends the subscription.
    pub(super) fn seconds(self) -> u32 {
        match self {
            Grant::New { seconds, .. } | Grant::Again { seconds, .. } => seconds,
        }
    }
}

/// A response cached for retransmissions of its request. There may be some hundred thousand, and nearly all are grants:
/// those are stored in short form and encoded again when a retransmission arrives.
#[derive(Clone, Debug)]
pub(super) enum CachedResponse {
    Grant(Grant),
    Whole(Box<[u8]>),
}

impl CachedResponse {
    /// Cache entry of a response that was encoded as `bytes`.
    pub(super) fn of(answer: &Response, bytes: &[u8]) -> CachedResponse {
        match &answer.granted {
            Some(granted) => CachedResponse::Grant(granted.grant),
            None => CachedResponse::Whole(bytes.into()),
        }
    }
}

impl Response {
    /// Response with a reason phrase that tells a person what is wrong.
    pub(super) fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Response {
        Response {
            status,
            reason: reason.into(),
            headers: HeaderLines::default(),
            to_tag: ToTag::Stateless,
            record_route: false,
            limit: None,
            granted: None,
        }
    }

    /// Response 200 (OK).
    pub(super) fn ok() -> Response {
        Response::new(StatusCode::OK, "OK")
    }

    /// Response 400 (Bad Request) that says what is wrong.
    pub(super) fn bad_request(reason: impl Into<Cow<'static, str>>) -> Response {
        Response::new(StatusCode::BadRequest, reason)
    }

    /// Response 481: there is no such subscription (RFC 6665 section 4.2.1).
    pub(super) fn no_subscription() -> Response {
        Response::new(StatusCode::CallTransactionDoesNotExist, "Subscription Does Not Exist")
    }

    /// Response 480: a limit of one account or address is reached. It is not 503, so that a proxy on the path does not
    /// take the whole server for overloaded (rule 7). `retry_after` is in seconds.
    pub(super) fn account_limit_480(key: &'static str, retry_after: u32) -> Response {
        Response::new(StatusCode::TemporarilyUnavailable, "Limit Reached").at_limit(key, retry_after)
    }

    /// Response 503: a limit of the whole server is reached. `retry_after` is in seconds.
    pub(super) fn server_limit_503(key: &'static str, retry_after: u32) -> Response {
        Response::new(StatusCode::ServiceUnavailable, "Server Full").at_limit(key, retry_after)
    }

    fn at_limit(self, key: &'static str, retry_after: u32) -> Response {
        let warning = ("399 lamplighter \"The limit ", key, " is reached\"");
        let limit = LIMITS.iter().position(|limit| *limit == key).map(|place| place as u8);
        debug_assert!(limit.is_some(), "{key} is missing in LIMITS");
        Response { limit, ..self.with("Retry-After", retry_after).with("Warning", warning) }
    }

    /// Configuration key of the limit that was reached.
    pub(super) fn limit_key(&self) -> Option<&'static str> {
        LIMITS.get(usize::from(self.limit?)).copied()
    }

    /// Adds a header field.
    pub(super) fn with(mut self, name: &'static str, value: impl Value) -> Response {
        self.headers.add(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one entry for every request of the last half minute.
    #[test]
    fn a_remembered_answer_is_small() {
        assert!(size_of::<CachedResponse>() <= 24, "{}", size_of::<CachedResponse>());
    }
}

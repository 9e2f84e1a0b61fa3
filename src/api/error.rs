//! Every fault that the API can answer, with its status, its name and what it says of the cause.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::notifier::control::Refusal;

use super::body;
use super::share::Limit;

/// Seconds after which somebody who was refused for want of room may come back; a random part of as much is added.
const RETRY_AFTER: u32 = 30;
/// How much of the JSON reader's complaint is passed on, in characters.
const MAX_WHY: usize = 200;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A part of the request breaks HTTP or our bounds.
    Malformed { part: &'static str, problem: &'static str },
    /// The body is not JSON, or no object.
    BadJson { why: String },
    /// The envelope is without `data`, or it is no object.
    DataMissing { there: bool },
    /// A field has a value that it cannot have.
    NotAllowed { field: &'static str, allowed: &'static [&'static str], value: Value },
    /// A field is missing.
    Required { field: &'static str, allowed: &'static [&'static str] },
    /// A device or user was to be reset without saying so.
    ResetRequired,
    /// An extension that can be none.
    BadExtension,
    /// No token, or none where it is looked for.
    Unauthenticated { cause: Option<&'static str> },
    /// A token that is not known.
    WrongToken,
    /// The same, from an address that had too many already; the seconds after which another may be tried.
    TooManyWrongTokens { seconds: u32 },
    /// A known token, for another account.
    Forbidden,
    /// The list of refusals that only a superuser sees. To ask for it is how a client learns whether its token is one.
    NoSuperuser,
    /// Nothing is served under this path.
    NotFound,
    /// No account, device or user with this id.
    BadIdentifier(String),
    /// POST where there is nothing to post to.
    FaultyRequest,
    /// A known method that the resource does not have.
    MethodNotAllowed { allow: &'static str, cause: Option<&'static str> },
    /// A client that takes no JSON.
    NotAcceptable,
    /// The body did not come in time.
    TooSlow,
    /// A body beyond [`body::MAX`].
    TooLarge,
    /// A request target that is too long.
    TargetTooLong { limit: usize },
    /// A body of a type that is not read.
    UnsupportedType,
    /// Header fields that are too large together.
    HeadersTooLarge { limit: usize },
    /// A method that nobody knows.
    UnknownMethod,
    /// Logins, which are not available.
    NoLogins,
    /// The notifier has no room.
    Refused(Refusal),
    /// All of something that there is only so much of is taken: by all clients, or this client's share of it.
    NoRoom(Limit),
    /// The server starts or drains.
    NotReady,
}

/// A fault as it is written.
pub(super) struct Shape {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
    pub(super) data: Value,
    /// Upstream's way: the status alone.
    pub(super) empty: bool,
}

impl Fault {
    pub(super) fn malformed(part: &'static str, problem: &'static str) -> Self {
        Self::Malformed { part, problem }
    }

    /// A body that the JSON reader refuses. Its words may hold a whole string of the body, so there is an end to them.
    pub(super) fn because_of(error: &serde_json::Error) -> Self {
        Self::BadJson { why: error.to_string().chars().take(MAX_WHY).collect() }
    }

    /// Seconds for Retry-After, where trying again helps.
    pub(super) fn retry_after(&self) -> Option<u32> {
        if let Self::TooManyWrongTokens { seconds } = self {
            return Some(*seconds);
        }
        if !matches!(self, Self::Refused(_) | Self::NoRoom(_) | Self::NotReady) {
            return None;
        }
        // Spread, so that those who were refused together do not come back together.
        let mut random = [0u8];
        let _ = getrandom::fill(&mut random);
        Some(RETRY_AFTER + u32::from(random[0]) * RETRY_AFTER / 256)
    }

    /// Whether the connection is of no more use: the next request begins behind a body that nobody reads.
    pub(super) fn closes(&self) -> bool {
        matches!(self, Self::TooSlow | Self::TooLarge | Self::NoRoom(_))
    }

    /// The form of the fault; `strict` for upstream's oddities, `version_1` for the simpler form below `/v1`.
    pub(super) fn shape(&self, strict: bool, version_1: bool) -> Shape {
        // A validation error: field, rule, what is wrong and more about it.
        let rule = |field: &str, rule: &str, message: &str, more: Value| {
            let inner = if version_1 {
                json!(message)
            } else {
                let mut inner = json!({ "message": message });
                if let (Some(inner), Value::Object(more)) = (inner.as_object_mut(), more) {
                    inner.extend(more);
                }
                inner
            };
            json!({ field: { rule: inner } })
        };
        let caused = |message: &str, cause: Option<&str>| match cause {
            Some(cause) => json!({ "message": message, "cause": cause }),
            None => json!({ "message": message }),
        };
        let (status, message, data) = match self {
            Self::Malformed { part, problem } => {
                (400, "malformed_request", rule(part, "invalid", problem, json!({ "target": part })))
            }
            Self::BadJson { why } => (
                400,
                "parse_error",
                rule(
                    "json",
                    "invalid",
                    &format!("The body is not a JSON envelope: {why}"),
                    json!({ "target": "body" }),
                ),
            ),
            Self::DataMissing { there: false } => (
                400,
                "invalid request",
                rule("data", "required", "Field is required but missing", json!({ "target": "required" })),
            ),
            Self::DataMissing { there: true } => {
                (400, "invalid request", rule("data", "type", "Value must be an object", json!({ "target": "object" })))
            }
            Self::NotAllowed { field, allowed, value } => {
                let more = json!({ "target": allowed, "value": value });
                (400, "invalid request", rule(field, "enum", "Value not found in enumerated list of values", more))
            }
            Self::Required { field, allowed } => {
                let more = json!({ "target": allowed, "value": field });
                (400, "invalid request", rule(field, "required", "Field is required but missing", more))
            }
            Self::ResetRequired => {
                let status = if strict { 500 } else { 400 };
                (
                    status,
                    "invalid request",
                    rule("reset", "required", "Field must be set to true", json!({ "target": "required" })),
                )
            }
            Self::BadExtension => {
                let problem = "An extension has 1 to 128 bytes and no control characters";
                (400, "invalid request", rule("extension", "invalid", problem, json!({ "target": "extension" })))
            }
            Self::Unauthenticated { cause } => (401, "invalid_credentials", caused("invalid credentials", *cause)),
            Self::WrongToken => (401, "invalid_credentials", caused("invalid credentials", None)),
            Self::TooManyWrongTokens { .. } => (429, "too_many_requests", caused("too many wrong tokens", None)),
            Self::Forbidden | Self::NoSuperuser => (403, "forbidden", caused("forbidden", None)),
            Self::NotFound => (404, "not_found", caused("not found", None)),
            Self::BadIdentifier(id) => (404, "bad_identifier", caused("bad identifier", Some(id))),
            Self::FaultyRequest => (404, "faulty request", json!({})),
            Self::MethodNotAllowed { cause, .. } => (405, "invalid_method", caused("method not allowed", *cause)),
            Self::NotAcceptable => (406, "not_acceptable", caused("only application/json can be sent", None)),
            Self::TooSlow => (408, "request_timeout", caused("the body did not come in time", None)),
            Self::TooLarge => {
                let more = json!({ "target": body::MAX });
                (413, "request_entity_too_large", rule("file", "maxSize", "The body is larger than is allowed", more))
            }
            Self::TargetTooLong { limit } => {
                (414, "uri_too_long", json!({ "message": "the request target is too long", "limit": limit }))
            }
            Self::UnsupportedType => (415, "unsupported_media_type", caused("only application/json is read", None)),
            Self::HeadersTooLarge { limit } => (
                431,
                "header_fields_too_large",
                json!({ "message": "the header fields are too large", "limit": limit }),
            ),
            Self::UnknownMethod => (501, "not_implemented", caused("unknown method", None)),
            Self::NoLogins => {
                let cause = "there are no logins; tokens are named in the server's configuration";
                (501, "not_implemented", caused("not implemented", Some(cause)))
            }
            Self::Refused(Refusal::Stopping) => {
                (503, "service_unavailable", caused("not ready", Some(&Refusal::Stopping.to_string())))
            }
            Self::Refused(refusal) => (503, "service_unavailable", caused("limit reached", Some(&refusal.to_string()))),
            Self::NoRoom(Limit { key, most }) => {
                let cause = Refusal::LimitReached { key, limit: *most }.to_string();
                (503, "service_unavailable", caused("limit reached", Some(&cause)))
            }
            Self::NotReady => (503, "service_unavailable", caused("not ready", None)),
        };
        let empty = strict && matches!(self, Self::BadJson { .. } | Self::DataMissing { .. } | Self::UnsupportedType);
        // Every number above is a status of HTTP.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Shape { status, message, data, empty }
    }
}

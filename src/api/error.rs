//! Errors of the API, each with its HTTP status, message and details.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::notifier::control::ControlError;

use super::body;
use super::quota::Limit;

/// Base of Retry-After (seconds) for a client refused because a limit was reached; a random part of up to the same
/// length is added.
const RETRY_AFTER: u32 = 30;
/// Longest part of the JSON parser's error message that is passed on (characters).
const MAX_WHY: usize = 200;

/// Reason for refusing a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// A part of the request breaks the rules of HTTP or a limit of ours.
    Malformed { part: &'static str, problem: &'static str },
    /// The body is not JSON, or not an object.
    BadJson { why: String },
    /// The envelope has no `data`, or `data` is not an object (`there` is then true).
    DataMissing { there: bool },
    /// A field has a value that is not allowed.
    NotAllowed { field: &'static str, allowed: &'static [&'static str], value: Value },
    /// A required field is missing.
    Required { field: &'static str, allowed: &'static [&'static str] },
    /// A POST to a device or user without `reset: true`.
    ResetRequired,
    /// A name that cannot be an extension.
    BadExtension,
    /// No token, or none in a place where it is read.
    Unauthenticated { cause: Option<&'static str> },
    /// An unknown token.
    WrongToken,
    /// An unknown token from an address that had too many already; `seconds` is the time until it may try again.
    TooManyWrongTokens { seconds: u32 },
    /// A valid token of another account.
    Forbidden,
    /// Access to the list of refusals that only a superuser may see. Clients ask for it to learn if their token is a
    /// superuser's.
    NoSuperuser,
    /// Nothing is served under this path.
    NotFound,
    /// No account, device or user with this id.
    BadIdentifier(String),
    /// POST on a resource that accepts nothing.
    FaultyRequest,
    /// A known method that the resource does not support.
    MethodNotAllowed { allow: &'static str, cause: Option<&'static str> },
    /// A client that does not accept JSON.
    NotAcceptable,
    /// The body was not received in time.
    TooSlow,
    /// A body larger than [`body::MAX`].
    TooLarge,
    /// A request target longer than `limit` octets.
    TargetTooLong { limit: usize },
    /// A Content-Type that the API does not read.
    UnsupportedType,
    /// Header fields that together exceed `limit` octets.
    HeadersTooLarge { limit: usize },
    /// A method that the API does not know.
    UnknownMethod,
    /// A login, which this server does not offer.
    NoLogins,
    /// The notifier refused the change, for example because a limit is reached.
    Refused(ControlError),
    /// A limited resource is used up, by all clients together or by this client's share.
    NoRoom(Limit),
    /// The server is starting or draining.
    NotReady,
}

/// An error as it is sent.
pub(super) struct ErrorBody {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
    pub(super) data: Value,
    /// True for Kazoo's form of the response: the status without a body.
    pub(super) empty: bool,
}

impl ApiError {
    pub(super) fn malformed(part: &'static str, problem: &'static str) -> Self {
        Self::Malformed { part, problem }
    }

    /// Error for a body that the JSON parser refuses. The parser may quote a whole string of the body, so its message
    /// is cut.
    pub(super) fn from_json_error(error: &serde_json::Error) -> Self {
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
        // Random, so that clients refused at the same time do not come back at the same time.
        let mut random = [0u8];
        let _ = getrandom::fill(&mut random);
        Some(RETRY_AFTER + u32::from(random[0]) * RETRY_AFTER / 256)
    }

    /// Returns true if the connection cannot be reused: the unread rest of the body stands before the next request.
    pub(super) fn closes_connection(&self) -> bool {
        matches!(self, Self::TooSlow | Self::TooLarge | Self::NoRoom(_))
    }

    /// Form of the error. `strict` selects Kazoo's deviations, `version_1` the simpler form below `/v1`.
    pub(super) fn shape(&self, strict: bool, version_1: bool) -> ErrorBody {
        // A validation error: the field, the rule, the message and details.
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
            Self::Refused(ControlError::Stopping) => {
                (503, "service_unavailable", caused("not ready", Some(&ControlError::Stopping.to_string())))
            }
            Self::Refused(refusal) => (503, "service_unavailable", caused("limit reached", Some(&refusal.to_string()))),
            Self::NoRoom(Limit { key, most }) => {
                let cause = ControlError::LimitReached { key, limit: *most }.to_string();
                (503, "service_unavailable", caused("limit reached", Some(&cause)))
            }
            Self::NotReady => (503, "service_unavailable", caused("not ready", None)),
        };
        let empty = strict && matches!(self, Self::BadJson { .. } | Self::DataMissing { .. } | Self::UnsupportedType);
        // Every number above is a valid HTTP status.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ErrorBody { status, message, data, empty }
    }
}

//! Form of every response: Kazoo's JSON envelope and the HTTP headers.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, PrettyFormatter};
use serde_json::{Value, json};

use super::connection_slots::BusyGuard;
use super::error::ApiError;
use super::listing::Listing;
use super::quota::QuotaGuard;
use super::request::RequestContext;
use super::{Api, ApiState, cors, streaming_body};
use crate::notifier::control::DrainStatus;
use crate::notifier::explain::report::{Lamp, LampReport, Overview, SubscriptionReport, TraceReport, WatcherRow};
use crate::notifier::refusals::RefusalRow;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Expires header in the past: Kazoo's way to forbid caching.
const LONG_AGO: &str = "Fri, 01 Jan 1999 00:00:00 GMT";

/// A successful response.
pub(super) enum Reply {
    /// 200 without a body.
    Empty,
    /// 200 to a health probe, which expects no envelope.
    Healthy,
    /// 200 with `data`.
    Data(Data),
    /// 200 with `data` that may be too long to hold in memory. Until it is sent, the [`Hold`] keeps its share reserved
    /// and its connection from being evicted.
    Long(Listing, Hold),
    /// 200 with one page of a list under `data`, and beside it which page it is.
    Page(Data, Page),
    /// 200 with a body without an end: Server-Sent Events.
    Stream(Body),
    /// A file of the dashboard, with its own headers.
    File(Response),
}

/// Resources that a streamed response holds until its body is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) _share: QuotaGuard,
    pub(super) _busy: Option<BusyGuard>,
}

/// Content of `data`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Data {
    /// Confirmation of a command.
    Text(String),
    /// The accounts that the token may see.
    Accounts(Vec<AccountRow>),
    /// States of several lamps.
    Lamps(Vec<Lamp>),
    /// State of one lamp.
    Lamp(Box<Lamp>),
    /// Explanation of one lamp.
    Story(Box<LampReport>),
    /// Subscriptions in brief.
    Watchers(Vec<WatcherRow>),
    /// Full report of one subscription.
    Subscription(Box<SubscriptionReport>),
    /// Messages traced in one subscription.
    Trace(Box<TraceReport>),
    /// Overview of an account.
    Overview(Box<Overview>),
    /// Work that a draining server still has.
    DrainStatus(DrainStatus),
    /// Requests refused recently.
    Refusals(Vec<RefusalRow>),
}

/// An account in brief.
#[derive(Serialize)]
pub(super) struct AccountRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) realm: String,
}

/// Position of a page in a list, with Kazoo's keys.
#[derive(Serialize)]
pub(super) struct Page {
    /// Start key of the next page; `None` on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_start_key: Option<String>,
    /// Number of entries on this page.
    pub(super) page_size: usize,
    /// Start key of this page.
    pub(super) start_key: String,
}

#[derive(Serialize)]
struct Success<'a, D> {
    auth_token: &'a str,
    data: &'a D,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    page: Option<&'a Page>,
    request_id: &'a str,
    revision: &'static str,
    status: &'static str,
}

/// Value of `revision`. A configuration file has no revisions; Kazoo sends this word in that case.
pub(super) const REVISION: &str = "undefined";
/// Value of `status` for a success.
pub(super) const SUCCESS: &str = "success";

#[derive(Serialize)]
struct Failure<'a> {
    auth_token: &'a str,
    data: Value,
    /// Always a string: the HTTP status code in digits.
    error: String,
    message: &'a str,
    request_id: &'a str,
    status: &'static str,
}

/// Turns an outcome into an HTTP response.
pub(super) async fn response(api: &Api, ask: &RequestContext, outcome: Result<Reply, ApiError>) -> Response {
    let failed = outcome.is_err();
    let success = |data: &Data, page: Option<&Page>| {
        let (auth_token, request_id) = (&ask.token, &ask.id);
        let success = Success { auth_token, data, page, request_id, revision: REVISION, status: SUCCESS };
        whole(api, ask, &success)
    };
    let mut response = match outcome {
        Ok(Reply::Empty) => Response::new(Body::empty()),
        Ok(Reply::Healthy) => with_body(ask, StatusCode::OK, &json!({"status": "ok"})),
        Ok(Reply::Data(data)) => success(&data, None),
        Ok(Reply::Long(listing, hold)) => long(ask, listing, hold).await,
        Ok(Reply::Page(data, page)) => success(&data, Some(&page)),
        Ok(Reply::Stream(body)) => stream(body),
        Ok(Reply::File(response)) => return with_request_id(response, ask),
        Err(fault) => failure(&api.state, ask, &fault),
    };
    response = with_request_id(response, ask);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if ask.verb.reads() {
        headers.insert(EXPIRES, HeaderValue::from_static(LONG_AGO));
    }
    if ask.cors || failed {
        cors::decorate(headers, ask);
    }
    response
}

/// Sends a long listing, which is written while it is being sent.
async fn long(ask: &RequestContext, listing: Listing, hold: Hold) -> Response {
    let body = match ask.pretty {
        true => streaming_body::body(listing.writer(ask, PrettyFormatter::new()), hold).await,
        false => streaming_body::body(listing.writer(ask, CompactFormatter), hold).await,
    };
    of_type(content_type(ask), body)
}

/// Adds `X-Request-ID` to every response, also to pages and metrics.
fn with_request_id(mut response: Response, ask: &RequestContext) -> Response {
    if let Ok(id) = HeaderValue::try_from(&ask.id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    // Tells a proxy such as nginx not to buffer: events must pass at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn failure(state: &ApiState, ask: &RequestContext, fault: &ApiError) -> Response {
    let shape = fault.shape(state.strict_compat, ask.is_v1);
    tracing::debug!(request_id = ask.id, status = shape.status.as_u16(), fault = ?fault, "API request refused");
    let mut response = if shape.empty {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = shape.status;
        response
    } else {
        let failure = Failure {
            auth_token: &ask.token,
            data: shape.data,
            error: shape.status.as_u16().to_string(),
            message: shape.message,
            request_id: &ask.id,
            status: "error",
        };
        with_body(ask, shape.status, &failure)
    };
    let headers = response.headers_mut();
    if shape.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"lamplighter\""));
    }
    if let ApiError::MethodNotAllowed { allow, .. } = fault {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = fault.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.closes_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Response for a success that is held in memory as a whole. A long one is charged to the client's share until it is
/// sent; 503 if the share is used up.
fn whole(api: &Api, ask: &RequestContext, content: &impl Serialize) -> Response {
    let body = written(ask, content);
    let body = match ask.client {
        Some(client) if body.len() > streaming_body::PIECE => match api.answers.take(client, body.len()) {
            Ok(share) => streaming_body::whole(body, share),
            Err(fault) => return failure(&api.state, ask, &fault),
        },
        _ => Body::from(body),
    };
    of_type(content_type(ask), body)
}

fn with_body(ask: &RequestContext, status: StatusCode, content: &impl Serialize) -> Response {
    let mut response = of_type(content_type(ask), Body::from(written(ask, content)));
    *response.status_mut() = status;
    response
}

fn written(ask: &RequestContext, content: &impl Serialize) -> Vec<u8> {
    let written = if ask.pretty { serde_json::to_vec_pretty(content) } else { serde_json::to_vec(content) };
    // serde fails only for keys that are not strings and for numbers that are not finite; our own types have neither.
    let mut body = written.unwrap_or_default();
    if let Some(callback) = &ask.jsonp {
        body.splice(..0, callback.bytes().chain([b'(']));
        body.extend_from_slice(b");");
    }
    body
}

fn content_type(ask: &RequestContext) -> &'static str {
    if ask.jsonp.is_some() { "application/javascript" } else { "application/json" }
}

fn of_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Part of the content comes from outside: no browser may guess another media type.
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

//! The form of every answer: Kazoo's envelope and the headers around it.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPIRES, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, PrettyFormatter};
use serde_json::{Value, json};

use super::error::Fault;
use super::listing::Listing;
use super::request::Ask;
use super::seats::Busy;
use super::share::Share;
use super::{Api, ApiState, cors, flow};
use crate::notifier::control::Left;
use crate::notifier::explain::story::{Lamp, LampStory, Overview, SubscriptionStory, TraceStory, WatcherRow};
use crate::notifier::refusals::RefusalRow;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Kazoo's way of saying that an answer may not be kept.
const LONG_AGO: &str = "Fri, 01 Jan 1999 00:00:00 GMT";

/// An answer that is no fault.
pub(super) enum Reply {
    /// 200 without a body.
    Empty,
    /// 200 to a probe, which expects no envelope.
    Healthy,
    /// 200 with `data`.
    Data(Data),
    /// 200 with `data` that may be too long to be held; for as long as that takes, it takes up a place.
    Long(Listing, Hold),
    /// 200 with a part of what there is under `data`, and beside it which.
    Page(Data, Page),
    /// 200 with a body that goes on: Server-Sent Events.
    Stream(Body),
    /// A file of the dashboard, with headers of its own.
    File(Response),
}

/// What an answer that goes on takes up until its body is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) _share: Share,
    pub(super) _busy: Option<Busy>,
}

/// What stands under `data`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Data {
    /// What has been done.
    Text(String),
    /// The accounts that a token opens.
    Accounts(Vec<AccountRow>),
    /// What lamps show.
    Lamps(Vec<Lamp>),
    /// What one shows.
    Lamp(Box<Lamp>),
    /// Why it does.
    Story(Box<LampStory>),
    /// Subscriptions in brief.
    Watchers(Vec<WatcherRow>),
    /// All about one.
    Subscription(Box<SubscriptionStory>),
    /// What was said in it.
    Trace(Box<TraceStory>),
    /// An account as a whole.
    Overview(Box<Overview>),
    /// What a server that drains still has.
    Left(Left),
    /// Those that were refused lately.
    Refusals(Vec<RefusalRow>),
}

/// An account in brief.
#[derive(Serialize)]
pub(super) struct AccountRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) realm: String,
}

/// Which part of a list `data` holds, in Kazoo's words.
#[derive(Serialize)]
pub(super) struct Page {
    /// Where the next one begins; none if this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_start_key: Option<String>,
    /// How many there are on this one.
    pub(super) page_size: usize,
    /// Where this one begins.
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

/// There are no revisions where the configuration is the source; upstream says so in this word.
pub(super) const REVISION: &str = "undefined";
/// The status of a success.
pub(super) const SUCCESS: &str = "success";

#[derive(Serialize)]
struct Failure<'a> {
    auth_token: &'a str,
    data: Value,
    /// A string, always.
    error: String,
    message: &'a str,
    request_id: &'a str,
    status: &'static str,
}

/// Puts an outcome into its form.
pub(super) async fn response(api: &Api, ask: &Ask, outcome: Result<Reply, Fault>) -> Response {
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

/// The same as for other data, but that it leaves while it is being written.
async fn long(ask: &Ask, listing: Listing, hold: Hold) -> Response {
    let body = match ask.pretty {
        true => flow::body(listing.writer(ask, PrettyFormatter::new()), hold).await,
        false => flow::body(listing.writer(ask, CompactFormatter), hold).await,
    };
    of_type(content_type(ask), body)
}

/// Every answer names the request that it is to, pages and metrics too.
fn with_request_id(mut response: Response, ask: &Ask) -> Response {
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
    // A proxy in between must not wait until there is enough to be worth sending.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn failure(state: &ApiState, ask: &Ask, fault: &Fault) -> Response {
    let shape = fault.shape(state.strict_compat, ask.version_1);
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
    if let Fault::MethodNotAllowed { allow, .. } = fault {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(seconds) = fault.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A success that is held as a whole. If it is long, it takes up room until it is read.
fn whole(api: &Api, ask: &Ask, content: &impl Serialize) -> Response {
    let body = written(ask, content);
    let body = match ask.client {
        Some(client) if body.len() > flow::PIECE => match api.answers.take(client, body.len()) {
            Ok(share) => flow::whole(body, share),
            Err(fault) => return failure(&api.state, ask, &fault),
        },
        _ => Body::from(body),
    };
    of_type(content_type(ask), body)
}

fn with_body(ask: &Ask, status: StatusCode, content: &impl Serialize) -> Response {
    let mut response = of_type(content_type(ask), Body::from(written(ask, content)));
    *response.status_mut() = status;
    response
}

fn written(ask: &Ask, content: &impl Serialize) -> Vec<u8> {
    let written = if ask.pretty { serde_json::to_vec_pretty(content) } else { serde_json::to_vec(content) };
    // Our own types have string keys and finite numbers, which is all that can go wrong here.
    let mut body = written.unwrap_or_default();
    if let Some(callback) = &ask.jsonp {
        body.splice(..0, callback.bytes().chain([b'(']));
        body.extend_from_slice(b");");
    }
    body
}

fn content_type(ask: &Ask) -> &'static str {
    if ask.jsonp.is_some() { "application/javascript" } else { "application/json" }
}

fn of_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Some of the content is a stranger's: no browser may take it for anything else.
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

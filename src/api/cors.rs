//! CORS headers (Fetch standard), as Kazoo sends them: they allow browser pages of other origins to use the API.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue};

use super::envelope::Reply;
use super::error::Fault;
use super::request::Ask;
use super::route::Target;

const ALLOW_HEADERS: &str = "Content-Type, Depth, User-Agent, X-Http-Method-Override, X-File-Size, X-Requested-With, \
    If-Modified-Since, X-File-Name, Cache-control, X-Auth-Token, X-Kazoo-Cluster-ID, If-Match, X-Request-ID, Authorization";
const EXPOSE_HEADERS: &str = "Content-Type, X-Auth-Token, X-Request-ID, X-Kazoo-Cluster-ID, Location, ETag";
const MAX_AGE: &str = "86400";

/// Returns true if the request has a CORS header.
pub(super) fn applies(headers: &HeaderMap) -> bool {
    [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Answer to OPTIONS: an empty 200 for a browser, without a token and before any other check; 405 for any other client.
pub(super) fn preflight(ask: &Ask, target: &Target) -> Result<Reply, Fault> {
    match target {
        Target::Unknown { .. } => Err(Fault::NotFound),
        _ if ask.cors => Ok(Reply::Empty),
        _ => Err(Fault::MethodNotAllowed { allow: without_options(ask.allow), cause: None }),
    }
}

/// Removes OPTIONS from an Allow list: where OPTIONS has just been refused, it is not a method of the resource.
fn without_options(allow: &'static str) -> &'static str {
    allow.strip_suffix(", OPTIONS").unwrap_or(allow)
}

/// Adds the CORS headers to a response.
pub(super) fn decorate(headers: &mut HeaderMap, ask: &Ask) {
    let methods = match without_options(ask.allow) {
        "" => "OPTIONS".to_owned(),
        methods => format!("OPTIONS, {methods}"),
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if let Ok(methods) = HeaderValue::try_from(methods) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
}

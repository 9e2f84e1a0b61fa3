//! A request as the checks see it: decoded path, parameters from all places, and the form of the response.

use std::fmt::Write as _;

use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Version};

use crate::directory::TokenScope;

use super::cors;
use super::error::ApiError;
use super::quota::Client;
use super::request_body::{Envelope, Field};

/// Longest request target (octets); clients of this API need a few hundred.
const MAX_TARGET: usize = 8 * 1024;
/// Limit of all header fields together (octets).
const MAX_HEADERS: usize = 32 * 1024;
/// Longest request id accepted from a client.
const MAX_REQUEST_ID: usize = 128;
/// Longest name of a JSONP callback.
const MAX_CALLBACK: usize = 128;

/// HTTP methods that Kazoo knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    const ALL: [Self; 7] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// Parses a method; 501 if it is unknown.
    pub(super) fn known(name: &str) -> Result<Self, ApiError> {
        Self::ALL.into_iter().find(|verb| verb.name() == name).ok_or(ApiError::UnknownMethod)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Returns true for GET and HEAD.
    pub(super) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// Everything learnt about a request so far. At any time it is enough to answer in the right form.
#[derive(Debug)]
pub(super) struct RequestContext {
    /// Request id sent by the client, or one that we made.
    pub(super) id: String,
    /// Method, also one tunnelled through POST.
    pub(super) verb: Method,
    /// True below `/v1`, where validation errors have a simpler form.
    pub(super) is_v1: bool,
    /// Methods of the resource, for CORS; empty until the resource is known.
    pub(super) allow: &'static str,
    /// The token, once it is known to be valid; envelopes repeat it.
    pub(super) token: String,
    /// Owner of the token.
    pub(super) bearer: Option<TokenScope>,
    /// JSONP callback that the response is wrapped in.
    pub(super) jsonp: Option<String>,
    /// True if the response is to be indented.
    pub(super) pretty: bool,
    /// True if the request has CORS headers.
    pub(super) cors: bool,
    /// True if the body was too large for a client without a token in the head, and was not read.
    pub(super) unread: bool,
    /// Client that the request is charged to, once its token is known to be valid.
    pub(super) client: Option<Client>,
    query: Vec<(String, String)>,
    envelope: Envelope,
}

impl RequestContext {
    pub(super) fn new(head: &Parts) -> Self {
        Self {
            id: request_id(&head.headers),
            verb: Method::Get,
            is_v1: false,
            allow: "",
            token: String::new(),
            bearer: None,
            jsonp: None,
            pretty: head.headers.get("x-pretty-print").is_some_and(|value| value == "true"),
            cors: cors::applies(&head.headers),
            unread: false,
            client: None,
            query: Vec::new(),
            envelope: Envelope::default(),
        }
    }

    /// Parses the query string, and applies the parameters that set the form of the response.
    pub(super) fn read_query(&mut self, head: &Parts) -> Result<(), ApiError> {
        for pair in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| decode(text).ok_or_else(|| ApiError::malformed("query", "is not UTF-8 in %XX escapes"));
            self.query.push((decode(name)?, decode(value)?));
        }
        self.pretty |= self.query("pretty_print") == Some("true");
        if let Some(name) = self.query("jsonp") {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$');
            if name.is_empty() || name.len() > MAX_CALLBACK || !name.bytes().all(plain) {
                return Err(ApiError::malformed("jsonp", "must be 1 to 128 letters, digits, \"_\", \".\" and \"$\""));
            }
            self.jsonp = Some(name.to_owned());
        }
        Ok(())
    }

    /// Parses the body if its type is accepted; any other type is refused later by [`check_content_type`].
    pub(super) fn read_body(&mut self, head: &Parts, body: &[u8]) -> Result<(), ApiError> {
        if has_readable_type(&head.headers) {
            self.envelope = Envelope::read(body)?;
        }
        Ok(())
    }

    /// Replaces POST by the method in the parameter `verb`, if there is one.
    pub(super) fn apply_tunnelled_verb(&mut self) -> Result<(), ApiError> {
        if self.verb == Method::Post
            && let Some(verb) = self.query("verb").or_else(|| self.envelope.top.text("verb"))
        {
            self.verb = Method::known(&verb.to_ascii_uppercase())?;
        }
        Ok(())
    }

    /// First query parameter of this name.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Parameter from any place: first in `data`, then in the query string, then beside `data`.
    pub(super) fn parameter(&self, name: &str) -> Option<Field> {
        let query = || self.query(name).map(|value| Field::Text(value.to_owned()));
        self.envelope.data.get(name).cloned().or_else(query).or_else(|| self.envelope.top.get(name).cloned())
    }
}

/// Request id of the client if it is safe in a header and in logs, else 32 random hex digits.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&b))
    };
    if let Some(id) = headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(sane) {
        return id.to_owned();
    }
    let mut random = [0u8; 16];
    // If the random source fails, the id is only not unique; the request is still served.
    let _ = getrandom::fill(&mut random);
    random.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Checks rules of HTTP that the HTTP library does not enforce.
pub(super) fn well_formed(head: &Parts) -> Result<(), ApiError> {
    if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
        return Err(ApiError::malformed("host", "must be there exactly once"));
    }
    let target = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    if target > MAX_TARGET {
        return Err(ApiError::TargetTooLong { limit: MAX_TARGET });
    }
    if head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > MAX_HEADERS {
        return Err(ApiError::HeadersTooLarge { limit: MAX_HEADERS });
    }
    Ok(())
}

/// Splits and decodes a path; one trailing slash is ignored.
pub(super) fn path(path: &str) -> Result<Vec<String>, ApiError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    // Split before decoding: an encoded slash belongs to its segment.
    let part = |part| decode(part).ok_or_else(|| ApiError::malformed("path", "is not UTF-8 in %XX escapes"));
    path.split('/').map(part).collect()
}

/// Decodes `%XX`. A raw `+` is a space, in the path too, as in Kazoo 3.22.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Returns true for JSON, for the type that `curl -d` sends by default, and without a Content-Type.
fn has_readable_type(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    ["application/json", "application/x-json", "application/x-www-form-urlencoded"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

/// Returns 415 for a body of a type that is not read.
pub(super) fn check_content_type(head: &Parts, verb: Method) -> Result<(), ApiError> {
    if verb.reads() || has_readable_type(&head.headers) { Ok(()) } else { Err(ApiError::UnsupportedType) }
}

/// Returns 406 if the client does not accept our media type.
pub(super) fn check_accept(head: &Parts, ask: &RequestContext, ours: &str) -> Result<(), ApiError> {
    let wanted = match ask.parameter("accept") {
        Some(Field::Text(wanted)) => wanted,
        _ => {
            let values: Vec<&str> = head.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
            values.join(",")
        }
    };
    if accepts(&wanted, ours) { Ok(()) } else { Err(ApiError::NotAcceptable) }
}

/// Media type of most responses.
pub(super) const JSON: &str = "application/json";
/// Media type of JSONP.
pub(super) const SCRIPT: &str = "application/javascript";

/// Content negotiation (RFC 9110 section 12.5.1): the most specific media range that covers our type decides.
fn accepts(wanted: &str, ours: &str) -> bool {
    let of_ours = ours.split_once('/').map_or("", |(kind, _)| kind);
    let mut decided = None;
    for range in wanted.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let rank = match parts.next().unwrap_or_default().as_str() {
            "*/*" | "*" => 1,
            name if name.strip_suffix("/*") == Some(of_ours) => 2,
            name if name == ours || (name == "application/x-json" && ours == JSON) => 3,
            _ => 0,
        };
        let refused = parts.any(|part| part.strip_prefix("q=").and_then(|q| q.trim().parse().ok()) == Some(0.0f32));
        if decided.is_none_or(|(best, _)| rank > best) {
            decided = Some((rank, rank > 0 && !refused));
        }
    }
    decided.is_none_or(|(_, accepted)| accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_before_they_are_decoded() {
        let parts = |text: &str| path(text).unwrap();
        assert_eq!(parts("/v2/accounts/a/presence/"), ["v2", "accounts", "a", "presence"]);
        assert_eq!(parts("/a%2Fb/%2a3101/%C3%BC"), ["a/b", "*3101", "ü"]);
        assert_eq!(parts("/a//b//"), ["a", "", "b", ""]);
        assert_eq!(parts("/+1555/%2B1555"), [" 1555", "+1555"]);
        for broken in ["/%", "/%2", "/%zz", "/%ff", "/%+1"] {
            assert!(path(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn accept_is_decided_by_the_most_specific_range() {
        for yes in ["", "*/*", "text/html, */*;q=0.1", "application/*", "Application/JSON; q=0.5", "application/x-json"]
        {
            assert!(accepts(yes, JSON), "{yes}");
        }
        for no in ["text/xml", "application/json;q=0, */*", "*/*;q=0", "application/javascript", "application/*;q=0.0"]
        {
            assert!(!accepts(no, JSON), "{no}");
        }
        assert!(accepts("application/javascript", SCRIPT));
        assert!(accepts("text/event-stream", "text/event-stream") && !accepts("text/html", "text/event-stream"));
        assert!(accepts("*/*;q=0, application/json", JSON));
    }

    #[test]
    fn only_sane_request_ids_are_taken_over() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", value.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(id("abc-1.2:3"), "abc-1.2:3");
        for odd in ["", "a b", "a\"b", "<x>", &"a".repeat(129)] {
            let given = id(odd);
            assert!(given.len() == 32 && given.bytes().all(|b| b.is_ascii_hexdigit()), "{odd}: {given}");
        }
        assert_ne!(id(""), id(""));
    }
}

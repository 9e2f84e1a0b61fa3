//! HTTP upgrade that opens a WebSocket (RFC 6455 section 4.2, RFC 7118 section 4), parsed by hyper.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tungstenite::handshake::derive_accept_key;

use super::handshake::BoxStream;

/// Paths of the SIP WebSocket. The examples of RFC 7118 use the first, most other servers the second.
const PATHS: [&str; 2] = ["/", "/ws"];
/// WebSocket subprotocol (RFC 7118 section 4.1).
const SIP: &str = "sip";
/// Most octets of the request's head. Browsers send cookies, which may be long.
const MAX_HEAD: usize = 16 * 1024;
/// Timeout of the request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Reads one HTTP request. Returns the upgraded connection and the octets that came directly after the request. Any
/// other request is answered with a text that says what is wrong, and the connection is closed.
pub(super) async fn accept(
    duplex: Box<dyn BoxStream>,
    origins: Arc<[String]>,
) -> io::Result<(Box<dyn BoxStream>, Bytes)> {
    let agreed = Mutex::new(None);
    let service = service_fn(|mut request: Request<hyper::body::Incoming>| {
        let answer = match decide(&request, &origins) {
            Ok(key) => {
                *agreed.lock() = Some(hyper::upgrade::on(&mut request));
                switch(&key)
            }
            Err(refusal) => refusal.answer(),
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD);
    builder.serve_connection(TokioIo::new(duplex), service).with_upgrades().await.map_err(io::Error::other)?;
    let upgrade: Option<OnUpgrade> = agreed.into_inner();
    let upgraded = upgrade.ok_or_else(|| io::Error::other("no WebSocket was agreed upon"))?;
    let upgraded = upgraded.await.map_err(io::Error::other)?;
    let parts =
        upgraded.downcast::<TokioIo<Box<dyn BoxStream>>>().map_err(|_| io::Error::other("another connection"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Reasons to refuse a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakeError {
    Path,
    Method,
    NotAnUpgrade,
    Version,
    Key,
    Subprotocol,
    Origin,
}

impl HandshakeError {
    fn answer(self) -> Response<String> {
        let upgrade = (UPGRADE, HeaderValue::from_static("websocket"));
        let (status, text, more) = match self {
            HandshakeError::Path => (StatusCode::NOT_FOUND, "SIP over WebSocket is at / and /ws", None),
            HandshakeError::Method => {
                let allow = (ALLOW, HeaderValue::from_static("GET"));
                (StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET", Some(allow))
            }
            HandshakeError::NotAnUpgrade => {
                (StatusCode::UPGRADE_REQUIRED, "this is SIP over WebSocket (RFC 7118)", Some(upgrade))
            }
            HandshakeError::Version => {
                let version = (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                (StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version has to be 13", Some(version))
            }
            HandshakeError::Key => (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or malformed", None),
            HandshakeError::Subprotocol => {
                (StatusCode::BAD_REQUEST, "Sec-WebSocket-Protocol has to offer sip (RFC 7118)", None)
            }
            HandshakeError::Origin => (StatusCode::FORBIDDEN, "sip.ws_origins does not name this Origin", None),
        };
        let mut answer = Response::new(format!("{text}\n"));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = more {
            answer.headers_mut().insert(name, value);
            if status == StatusCode::UPGRADE_REQUIRED {
                answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
        }
        answer
    }
}

/// Checks a request for a SIP WebSocket. Returns its key, or the reason to refuse it.
fn decide<B>(request: &Request<B>, origins: &[String]) -> Result<HeaderValue, HandshakeError> {
    let headers = request.headers();
    if !PATHS.contains(&request.uri().path()) {
        return Err(HandshakeError::Path);
    }
    if request.method() != Method::GET {
        return Err(HandshakeError::Method);
    }
    if !names(headers, &UPGRADE, "websocket") || !names(headers, &CONNECTION, "upgrade") {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
        return Err(HandshakeError::Version);
    }
    // 16 octets in base64 (RFC 6455 section 4.1).
    let well_formed = |key: &&HeaderValue| key.len() == 24 && key.as_bytes().ends_with(b"==");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(well_formed).ok_or(HandshakeError::Key)?;
    if !names(headers, &SEC_WEBSOCKET_PROTOCOL, SIP) {
        return Err(HandshakeError::Subprotocol);
    }
    // Clients other than browsers may omit Origin or send any value. The check protects against foreign web pages only.
    if let Some(origin) = headers.get(ORIGIN).filter(|_| !origins.is_empty()) {
        let known = |known: &String| origin.as_bytes().eq_ignore_ascii_case(known.as_bytes());
        if !origins.iter().any(known) {
            return Err(HandshakeError::Origin);
        }
    }
    Ok(key.clone())
}

/// Returns true if a header that is a comma-separated list contains `what`, in any case.
fn names(headers: &HeaderMap, header: &HeaderName, what: &str) -> bool {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(what))
}

fn switch(key: &HeaderValue) -> Response<String> {
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SIP));
    answer
}

//! The dashboard: web pages for people, built into the binary. They use the public API like any other client.
//!
//! The files hold no data of an account, so they are served without a token. The Content-Security-Policy lets a browser
//! run only these files and connect only to this server.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use sha2::{Digest as _, Sha256};

/// Content-Security-Policy. Markup injected through data from outside has no effect: only our own scripts run, nothing
/// is loaded from elsewhere, and no other site may put the pages into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A served file: path, media type, content.
type File = (&'static str, &'static str, &'static str);

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        (concat!("/assets/", $name), $kind, include_str!(concat!("dashboard/", $name)))
    };
}

const FILES: [File; 21] = [
    ("/", HTML, include_str!("dashboard/index.html")),
    ("/docs", HTML, include_str!("dashboard/docs.html")),
    asset!("icon.svg", "image/svg+xml"),
    asset!("base.css", CSS),
    asset!("pages.css", CSS),
    asset!("api.js", JS),
    asset!("app.js", JS),
    asset!("docs.css", CSS),
    asset!("docs.js", JS),
    asset!("dom.js", JS),
    asset!("ladder.js", JS),
    asset!("lamp.js", JS),
    asset!("overview.js", JS),
    asset!("page.js", JS),
    asset!("refusals.js", JS),
    asset!("search.js", JS),
    asset!("store.js", JS),
    asset!("subscription.js", JS),
    asset!("talk.js", JS),
    asset!("theme.js", JS),
    asset!("wall.js", JS),
];

/// Entity tag of each file: the first 8 octets of its SHA-256 in hex.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |(_, _, text): &File| {
        let digest = Sha256::digest(text.as_bytes());
        let hex = digest[..8].iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
    };
    FILES.iter().map(tag).collect()
});

/// Answers a request for one of the files; `None` if the path is another one.
pub(super) fn answer(head: &Parts) -> Option<Response> {
    let number = FILES.iter().position(|(path, ..)| *path == head.uri.path())?;
    let (_, kind, text) = FILES[number];
    let tag = &TAGS[number];
    let mut response = Response::new(Body::empty());
    let known = head.headers.get(IF_NONE_MATCH).is_some_and(|theirs| theirs == tag);
    match head.method {
        Method::GET | Method::HEAD if known => *response.status_mut() = StatusCode::NOT_MODIFIED,
        Method::GET => *response.body_mut() = Body::from(text),
        Method::HEAD => {}
        // Other methods: the API answers with its own 405.
        _ => return None,
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(ETAG, tag.clone());
    // The browser may cache a file but must revalidate it each time: a new version of the server brings new pages at
    // once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn ask(method: Method, path: &str, tag: Option<&str>) -> Option<Response> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        answer(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn every_file_that_a_file_names_is_there() {
        for (path, _, text) in FILES {
            let named = text.split(['"', '\'']).filter_map(|word| match word.strip_prefix("./") {
                Some(module) if module.ends_with(".js") => Some(format!("/assets/{module}")),
                _ => word.starts_with("/assets/").then(|| word.to_owned()),
            });
            for name in named {
                assert!(ask(Method::GET, &name, None).is_some(), "{path} names {name}");
            }
            assert!(
                !text.contains("innerHTML")
                    && !text.contains("http://") | path.ends_with(".svg") | path.ends_with("dom.js"),
                "{path}"
            );
        }
    }

    #[test]
    fn files_are_kept_by_their_tag_and_run_nothing_else() {
        let first = ask(Method::GET, "/", None).unwrap();
        let policy = first.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        let tag = first.headers()[ETAG].to_str().unwrap();
        assert_eq!(ask(Method::GET, "/", Some(tag)).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(Method::GET, "/", Some("\"x\"")).unwrap().status(), StatusCode::OK);
        assert!(ask(Method::POST, "/", None).is_none() && ask(Method::GET, "/assets/../app.js", None).is_none());
    }
}

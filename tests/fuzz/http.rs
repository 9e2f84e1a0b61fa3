//! Target `http`: the bytes of one connection to the API, through the HTTP library and the API to a notifier.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::response;
use axum::response::Response;
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use lamplighter::api::{self, ApiState};
use lamplighter::config::Limits;
use lamplighter::directory::AccountNo;
use lamplighter::notifier::change_feed::Changed;
use lamplighter::notifier::control::{
    Control, ControlError, DrainStatus, ListingPage, PageStart, PublicationRecord, ServerStats, SubscriptionRecord,
};
use lamplighter::notifier::explain::Explain;
use lamplighter::notifier::explain::report::{
    Cursor, Lamp, LampReport, Overview, SubscriptionReport, TraceReport, WatcherRow,
};
use lamplighter::notifier::refusals::{ApiRefusal, RefusalRow};
use lamplighter::notifier::{Notifier, Outbox};
use lamplighter::package::PackageId;
use lamplighter::presence::Tick;
use lamplighter::presence::state::CallState;
use lamplighter::sip::uri::percent_decode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::fixtures::{PUBLISH, SUBSCRIBE};
use super::notifier::{House, udp_source};
use super::sound::ours_is_sound;
use super::target::Target;

const ACCOUNT: &str = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5";
const CHILD: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const ACCOUNTS: &str = r#"
[access]
trusted_proxies = ["192.0.2.0/24"]
[[token]]
value = "acme-token"
account = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
[[token]]
value = "child-token"
account = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1"
[[token]]
value = "root-token"
superuser = true
[[account]]
id = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
realm = "acme.test"
  [[account.user]]
  id = "alice"
  presence_id = "1001"
  [[account.device]]
  id = "d1"
  owner_id = "alice"
  sip = { username = "1002" }
[[account]]
id = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1"
realm = "child.test"
parent = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
[[account]]
id = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
realm = "umbrella.test"
"#;

/// Statuses that the API may return; 500 is never one of them.
const STATUSES: [u16; 15] = [200, 400, 401, 403, 404, 405, 406, 408, 413, 414, 415, 429, 431, 501, 503];
/// Responses of the HTTP library itself, without envelope (docs/architecture.md).
const BEFORE_US: [&str; 3] = ["HTTP/1.1 400 ", "HTTP/1.1 414 ", "HTTP/1.1 431 "];

/// Passes the API's commands to a notifier; its output is checked and dropped.
struct Desk(Notifier);

impl Desk {
    fn look(&self, out: &Outbox) {
        assert_eq!(self.0.panics(), 0);
        for packet in &out.messages {
            let head = ours_is_sound(&packet.bytes);
            assert!(matches!(head.start, lamplighter::sip::wire::StartLine::Request { method: "NOTIFY", .. }));
        }
    }
}

impl Control for Desk {
    fn subscriptions(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<SubscriptionRecord> {
        self.0.subscriptions_from(account, package, from)
    }
    fn publications(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<PublicationRecord> {
        self.0.publications_from(account, package, from)
    }
    fn reset(&self, account: AccountNo, users: &[String], request: &str) -> Result<(), ControlError> {
        let mut out = Outbox::default();
        for user in users {
            self.0.reset(Tick(2_000), account, user, &mut out);
            self.0.attribute_change(Tick(2_000), account, user, request);
        }
        self.look(&out);
        Ok(())
    }
    fn set(&self, account: AccountNo, users: &[String], state: CallState, request: &str) -> Result<(), ControlError> {
        let mut out = Outbox::default();
        let done = users.iter().try_for_each(|user| {
            self.0.set(Tick(2_000), account, user, state, &mut out)?;
            self.0.attribute_change(Tick(2_000), account, user, request);
            Ok(())
        });
        self.look(&out);
        done
    }
    fn drain(&self, _: bool) -> Result<(), ControlError> {
        // The notifier is used for all inputs, so that no input may change the state for the next one.
        Ok(())
    }
    fn left(&self) -> DrainStatus {
        self.0.left()
    }
    // Refusals are not recorded, for the same reason; and no input may be delayed because of wrong tokens in earlier
    // ones.
    fn note_refusal(&self, _: &ApiRefusal<'_>) {}
    fn wrong_token(&self, _: IpAddr) -> Duration {
        Duration::ZERO
    }
    fn refusals(&self, account: Option<AccountNo>, from: Option<u64>, most: usize) -> Vec<RefusalRow> {
        self.0.refusal_rows(account, from, most)
    }
}

impl Explain for Desk {
    fn lamp(&self, account: AccountNo, extension: &str) -> Option<Lamp> {
        self.0.lamp(account, extension)
    }
    fn lamps(&self, account: AccountNo, from: &str, most: usize) -> Vec<Lamp> {
        self.0.lamps(account, from, most)
    }
    fn lamp_story(&self, account: AccountNo, extension: &str) -> Option<LampReport> {
        self.0.lamp_story(Tick(2_000), account, extension)
    }
    fn subscription(&self, account: AccountNo, id: &str) -> Option<WatcherRow> {
        self.0.subscription(account, id)
    }
    fn subscription_story(&self, account: AccountNo, id: &str) -> Option<SubscriptionReport> {
        self.0.subscription_story(account, id)
    }
    fn find_watchers(&self, account: AccountNo, text: &str, from: &Cursor, most: usize) -> Vec<WatcherRow> {
        self.0.find_watchers(account, text, from, most)
    }
    fn resend(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError> {
        let mut out = Outbox::default();
        let found = self.0.resend(Tick(2_000), account, id, &mut out);
        self.0.attribute_notify(Tick(2_000), id, request);
        self.look(&out);
        Ok(found)
    }
    fn end(&self, account: AccountNo, id: &str, request: &str) -> Result<bool, ControlError> {
        let mut out = Outbox::default();
        let found = self.0.end(Tick(2_000), account, id, &mut out);
        self.0.attribute_notify(Tick(2_000), id, request);
        self.look(&out);
        Ok(found)
    }
    fn trace(&self, account: AccountNo, id: &str, seconds: u32) -> Result<bool, ControlError> {
        self.0.trace(Tick(2_000), account, id, seconds)
    }
    fn trace_story(&self, account: AccountNo, id: &str) -> Option<TraceReport> {
        self.0.trace_story(Tick(2_000), account, id)
    }
    fn forget_trace(&self, account: AccountNo, id: &str) -> bool {
        self.0.forget_trace(Tick(2_000), account, id)
    }
    fn overview(&self, account: AccountNo) -> Overview {
        self.0.overview(Tick(2_000), account)
    }
    fn vitals(&self) -> ServerStats {
        ServerStats { numbers: self.0.numbers(Tick(2_000), Tick(0)), ..ServerStats::default() }
    }
    fn listen(&self, on: bool) {
        self.0.listen(on);
    }
    fn changes(&self) -> (Vec<Changed>, bool) {
        self.0.changes()
    }
}

/// A notifier with a watcher and a call.
fn desk(house: &House) -> Arc<Desk> {
    let notifier = house.notifier();
    for message in [SUBSCRIBE, PUBLISH] {
        let mut out = Outbox::default();
        notifier.receive(Tick(1_000), udp_source("192.0.2.99:5070"), message.as_bytes(), &mut out);
        assert!(out.messages[0].bytes.starts_with(b"SIP/2.0 200"), "{:?}", out.messages[0].bytes);
    }
    Arc::new(Desk(notifier))
}

pub(crate) const TARGET: Target = Target { name: "http", run: http, seeds, words: WORDS };

fn http(bytes: &[u8]) {
    static HOUSE: LazyLock<House> = LazyLock::new(|| House::new(ACCOUNTS));
    let desk = desk(&HOUSE);
    let faults = asked(bytes, Arc::clone(&desk), false);
    // `strict_compat` affects only error responses.
    if faults > 0 {
        asked(bytes, desk, true);
    }
}

/// Sends the bytes, closes, and checks all responses; returns the number of errors among them.
fn asked(bytes: &[u8], control: Arc<Desk>, strict_compat: bool) -> usize {
    static HOUSE: LazyLock<House> = LazyLock::new(|| House::new(ACCOUNTS));
    let ready = Arc::new(AtomicBool::new(true));
    let state =
        // An event stream has no end, and here every response is read to its end.
        ApiState { directory: Arc::clone(&HOUSE.directory), control, strict_compat, ready, node: "pres1".into(), limits: Limits { event_streams: 0, ..Limits::default() } };
    let (answers, faults) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&answers), Arc::clone(&faults));
    let checked = middleware::from_fn(move |request: Request, next: middleware::Next| {
        let (answers, faults) = counters.clone();
        async move {
            let (asked, body) = request.into_parts();
            let response = next.run(Request::from_parts(asked.clone(), body)).await;
            answers.fetch_add(1, Ordering::Relaxed);
            faults.fetch_add(usize::from(!response.status().is_success()), Ordering::Relaxed);
            let (head, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.expect("a body of ours");
            answer_is_sound(&asked, &head, &body, strict_compat);
            Ok::<_, Infallible>(Response::from_parts(head, Body::from(body)))
        }
    });
    let written = converse(bytes, api::router(state).layer(checked));
    let answers = answers.load(Ordering::Relaxed);
    if answers == 0 && !written.is_empty() {
        let text = String::from_utf8_lossy(&written);
        assert!(BEFORE_US.iter().any(|start| text.starts_with(start)), "{text}");
    }
    faults.load(Ordering::Relaxed)
}

/// Both ends of one connection; the client sends everything and reads until the server closes.
fn converse(bytes: &[u8], router: Router) -> Vec<u8> {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));
    RUNTIME.block_on(async {
        let (ours, theirs) = duplex(bytes.len().max(64 * 1024));
        let mut builder = http1::Builder::new();
        // Half-closed connections are allowed, so that a client that has sent everything still receives the response;
        // a real client would wait for it.
        builder.timer(TokioTimer::new()).max_buf_size(128 * 1024).half_close(true);
        // The end of the service has to close the connection, whatever the reason, or the client would wait for ever.
        let connection =
            async { drop(builder.serve_connection(TokioIo::new(ours), TowerToHyperService::new(router)).await) };
        let client = async {
            let (mut from, mut to) = tokio::io::split(theirs);
            let mut written = Vec::new();
            let said = async {
                // The server may close before it has read everything.
                let _ = to.write_all(bytes).await;
                let _ = to.shutdown().await;
            };
            let (_, read) = tokio::join!(said, from.read_to_end(&mut written));
            read.expect("the end of the answers");
            written
        };
        let (mut connection, mut client) = (pin!(connection), pin!(client));
        tokio::select! {
            written = &mut client => written,
            () = &mut connection => client.await,
        }
    })
}

fn answer_is_sound(asked: &Parts, head: &response::Parts, body: &[u8], strict: bool) {
    let status = head.status.as_u16();
    let shown = || format!("{} to {} {}: {}", status, asked.method, asked.uri, String::from_utf8_lossy(body));
    assert!(STATUSES.contains(&status) || (strict && status == 500), "{}", shown());
    let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text"));
    if header("content-security-policy").is_some() {
        // The dashboard, which is public.
        assert!(status == 200 && (asked.uri.path() == "/" || asked.uri.path().starts_with("/assets/")), "{}", shown());
        return;
    }
    if header("content-type")
        .is_some_and(|kind| kind.starts_with("application/openmetrics-text") || kind.starts_with("text/plain"))
    {
        assert!(status == 200 && decoded(asked).trim_end_matches('/').ends_with("/metrics"), "{}", shown());
        return;
    }
    let id = header("x-request-id").unwrap_or_else(|| panic!("without id: {}", shown()));
    assert_eq!(header("cache-control"), Some("no-store"), "{}", shown());
    if body.is_empty() {
        // Preflights, and with `strict_compat` some errors; every other response has an envelope.
        assert!(status == 200 || strict, "{}", shown());
        return;
    }
    let text = std::str::from_utf8(body).expect("UTF-8");
    let text = match header("content-type") {
        Some("application/json") => text,
        Some("application/javascript") => {
            let (callback, rest) = text.split_once('(').expect("a call");
            assert!(callback.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.$".contains(&b)), "{}", shown());
            rest.strip_suffix(");").expect("the end of a call")
        }
        other => panic!("{other:?}: {}", shown()),
    };
    let json: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    if json == serde_json::json!({ "status": "ok" }) {
        assert!(["/healthz", "/readyz"].iter().any(|probe| decoded(asked).starts_with(probe)), "{}", shown());
        return;
    }
    assert_eq!(json["request_id"], id, "{}", shown());
    let token = json["auth_token"].as_str().unwrap_or_else(|| panic!("{}", shown()));
    match json["status"].as_str() {
        Some("success") => {
            assert_eq!((status, json["revision"].as_str()), (200, Some("undefined")), "{}", shown());
            assert!(!json["data"].is_null(), "{}", shown());
            sees_only_its_own(asked, token);
        }
        Some("error") => {
            assert_eq!(json["error"], status.to_string(), "{}", shown());
            assert!(json["message"].is_string() && json.get("data").is_some(), "{}", shown());
        }
        _ => panic!("{}", shown()),
    }
}

fn decoded(asked: &Parts) -> String {
    let path = percent_decode(asked.uri.path());
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// Checks the isolation of tenants (rule 8).
fn sees_only_its_own(asked: &Parts, token: &str) {
    let path = decoded(asked);
    if path.trim_end_matches('/').split('/').filter(|part| !part.is_empty()).count() == 2 {
        // The accounts that the token may access.
        return;
    }
    let account = path.trim_start_matches('/').split('/').nth(2).unwrap_or_default();
    let allowed = match token {
        "root-token" => true,
        "acme-token" => [ACCOUNT, CHILD].contains(&account),
        "child-token" => account == CHILD,
        _ => false,
    };
    assert!(allowed, "{token:?} for {path}");
}

fn seeds() -> Vec<Vec<u8>> {
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let post = |path: &str, body: &str| {
        let kind = "Content-Type: application/json\r\nX-Auth-Token: acme-token\r\n";
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{kind}Content-Length: {length}\r\n\r\n{body}")
    };
    let below = |path: &str| format!("/v2/accounts/{ACCOUNT}/{path}");
    let own = "X-Auth-Token: acme-token\r\n";
    let all = [
        get("/healthz", ""),
        get("/readyz?pretty_print=true", ""),
        get(&below("presence"), own),
        get(&below("presence?event=dialog&include_presentity=true"), own),
        get(&below("presence?auth_token=root-token&jsonp=f.x&pretty_print=true"), "Accept: */*\r\n"),
        get(&below("devices/d1/presence"), "Authorization: Bearer acme-token\r\nX-Request-ID: r1\r\n"),
        get("/v2/accounts/c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1/presence", "X-Auth-Token: child-token\r\n"),
        get("/v1/accounts/5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a/presence", own),
        get("/v2/user_auth", ""),
        get("/", ""),
        get("/v2/accounts", own),
        get("/metrics", "X-Auth-Token: root-token\r\n"),
        get("/v2/drain", "X-Auth-Token: root-token\r\n"),
        get("/v2/refusals?page_size=3&start_key=7", "X-Auth-Token: root-token\r\n"),
        get(&below("refusals?page_size=3"), own),
        get(&below("lamps?page_size=2&start_key=1001"), own),
        get(&below("lamps?filter=1&start_key=1001"), own),
        get(&below("subscriptions?page_size=1&start_key=0.1001"), own),
        get(&below("lamps/1001"), own),
        get(&below("subscriptions?filter=1"), own),
        get(&below("lamp_overview"), own),
        get(&below("lamp_events"), own),
        post(&below("subscriptions/1.0.0000000000000000"), "{\"data\":{\"action\":\"resend\"}}"),
        get(&below("presence"), own).replace("GET", "HEAD"),
        get(&below("presence/1001"), "Origin: http://x\r\nAccess-Control-Request-Method: POST\r\n")
            .replace("GET", "OPTIONS"),
        post(&below("presence/1001"), ""),
        post(&below("presence/%2A98"), "{\"data\":{\"action\":\"set\",\"state\":\"early\"}}"),
        post(&below("presence/1001"), "{\"data\":{\"action\":\"set\",\"state\":\"terminated\"},\"verb\":\"POST\"}"),
        post(&below("devices/d1/presence"), "{\"data\":{\"reset\":true},\"auth_token\":\"acme-token\"}"),
        post(&below("users/alice/presence"), "{\"data\":{\"Action\":\"reset\"}}"),
        post(&below("presence?verb=GET"), "{\"data\":{\"reset\":null,\"x\":[1.5,{}]}}"),
        post("/v1/accounts/x/presence/1", "{}").replace("Content-Length: 2\r\n\r\n{}", "Expect: 100-continue\r\n\r\n"),
        post(&below("presence/1001"), "").replace("Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n")
            + "b\r\n{\"data\":{}}\r\n0\r\n\r\n",
        get(&below("presence"), own) + &get("/healthz", "Connection: close\r\n"),
    ];
    all.map(String::into_bytes).into()
}

const WORDS: &[&[u8]] = &[
    b"X-Auth-Token: ",
    b"Authorization: Bearer ",
    b"Content-Type: ",
    b"Transfer-Encoding: chunked\r\n",
    b"{\"data\":{",
    b"Connection: keep-alive\r\n",
    b"Content-Length: ",
    b"\"action\":",
    b"\"reset\":true",
    b"?verb=",
    b"?jsonp=",
    b"%00",
    b"/presence/",
    b"/devices/",
    b"/users/",
    b"\r\n\r\n",
    b"Accept: ",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
];

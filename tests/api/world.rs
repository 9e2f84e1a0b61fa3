//! Test kit of the API: accounts, a notifier that only records its commands, and a client that can send invalid
//! requests.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lamplighter::api::{self, ApiState, Connections};
use lamplighter::config::{Config, Limits};
use lamplighter::directory::{AccountNo, Directory};
use lamplighter::notifier::change_feed::Changed;
use lamplighter::notifier::control::{
    Control, ControlError, DrainStatus, LastNotify, ListingPage, PageStart, PublicationRecord, ServerStats,
    SubscriptionRecord,
};
use lamplighter::notifier::explain::Explain;
use lamplighter::notifier::explain::report::{
    Cursor, Lamp, LampReport, Overview, SubscriptionReport, TraceReport, WatcherRow,
};
use lamplighter::notifier::refusals::{ApiRefusal, RefusalRow};
use lamplighter::package::{self, PackageId};
use lamplighter::presence::state::CallState;
use serde_json::Value;

pub(crate) const A: &str = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5";
pub(crate) const CHILD: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
pub(crate) const SIBLING: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// Token of account A.
pub(crate) const T: &str = "acme-token";

const ACCOUNTS: &str = r#"
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
  presence_id = "2000"
  [[account.user]]
  id = "bob"
  [[account.user]]
  id = "nobody"
  [[account.device]]
  id = "d1"
  owner_id = "alice"
  sip = { username = "1001" }
  presence_id = "Desk1"
  [[account.device]]
  id = "d2"
  owner_id = "bob"
  sip = { username = "1002" }
  [[account.device]]
  id = "d3"
  owner_id = "bob"
  sip = { username = "1003" }
[[account]]
id = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1"
realm = "child.test"
parent = "4642f64dc5e0a5d1e6a1d5e0c2d3b4a5"
[[account]]
id = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
realm = "umbrella.test"
"#;

/// A command that the notifier received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Reset(String, Vec<String>),
    Set(String, Vec<String>, CallState),
}

/// A reset, or a set to a state.
type Asked = (AccountNo, Vec<String>, Option<CallState>);

/// A notifier with fixed contents that records its commands.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) subscriptions: Mutex<Vec<(AccountNo, SubscriptionRecord)>>,
    pub(crate) publications: Mutex<Vec<(AccountNo, PublicationRecord)>>,
    changes: Mutex<Vec<Asked>>,
    pub(crate) full: AtomicBool,
}

/// Returns the smallest possible page: the first record behind a position. `key` defines the order; of two records
/// with the same key the later one is the younger.
fn one<T>(
    records: impl Iterator<Item = T>,
    key: impl Fn(&T) -> (&str, PackageId, &str),
    from: &PageStart,
) -> ListingPage<T> {
    let mut records: Vec<T> = records.collect();
    let plain = |record: &T| {
        let (user, package, key) = key(record);
        (user.to_owned(), Some((package, key.to_owned())))
    };
    // No record precedes the first record of a user.
    let rank = |(user, behind): (String, Option<(PackageId, String)>)| (user, behind.map(|(p, key)| (p.0, key)));
    let begin = rank((from.user.clone(), from.behind.clone()));
    records.retain(|record| rank(plain(record)) > begin);
    records.sort_by_key(|record| rank(plain(record)));
    let Some(first) = records.first().map(&plain) else { return ListingPage { records, next: None } };
    records.retain(|record| plain(record) == first);
    records.drain(..records.len() - 1);
    ListingPage { records, next: Some(PageStart { user: first.0, behind: first.1 }) }
}

impl Control for Notes {
    fn subscriptions(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<SubscriptionRecord> {
        let all = self.subscriptions.lock().unwrap();
        let mine = all.iter().filter(|(a, s)| *a == account && package.is_none_or(|p| p == s.package));
        one(mine.map(|(_, s)| s.clone()), |s| (&s.user, s.package, &s.call_id), from)
    }
    fn publications(
        &self,
        account: AccountNo,
        package: Option<PackageId>,
        from: &PageStart,
    ) -> ListingPage<PublicationRecord> {
        let all = self.publications.lock().unwrap();
        let mine = all.iter().filter(|(a, p)| *a == account && package.is_none_or(|id| id == p.package));
        one(mine.map(|(_, p)| p.clone()), |p| (&p.user, p.package, &p.etag), from)
    }
    fn reset(&self, account: AccountNo, users: &[String], _: &str) -> Result<(), ControlError> {
        self.changes.lock().unwrap().push((account, users.to_vec(), None));
        Ok(())
    }
    fn set(&self, account: AccountNo, users: &[String], state: CallState, _: &str) -> Result<(), ControlError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(ControlError::LimitReached { key: "limits.presentities_per_account", limit: 7 });
        }
        self.changes.lock().unwrap().push((account, users.to_vec(), Some(state)));
        Ok(())
    }
    fn drain(&self, _: bool) -> Result<(), ControlError> {
        Ok(())
    }
    fn left(&self) -> DrainStatus {
        DrainStatus::default()
    }
    fn note_refusal(&self, _: &ApiRefusal<'_>) {}
    fn wrong_token(&self, _: IpAddr) -> Duration {
        Duration::ZERO
    }
    fn refusals(&self, _: Option<AccountNo>, _: Option<u64>, _: usize) -> Vec<RefusalRow> {
        Vec::new()
    }
}

/// Explanations are tested with a real notifier (tests/lamps.rs); this one returns nothing.
impl Explain for Notes {
    fn lamp(&self, _: AccountNo, _: &str) -> Option<Lamp> {
        None
    }
    fn lamps(&self, _: AccountNo, _: &str, _: usize) -> Vec<Lamp> {
        Vec::new()
    }
    fn lamp_story(&self, _: AccountNo, _: &str) -> Option<LampReport> {
        None
    }
    fn subscription(&self, _: AccountNo, _: &str) -> Option<WatcherRow> {
        None
    }
    fn subscription_story(&self, _: AccountNo, _: &str) -> Option<SubscriptionReport> {
        None
    }
    fn find_watchers(&self, _: AccountNo, _: &str, _: &Cursor, _: usize) -> Vec<WatcherRow> {
        Vec::new()
    }
    fn resend(&self, _: AccountNo, _: &str, _: &str) -> Result<bool, ControlError> {
        Ok(false)
    }
    fn end(&self, _: AccountNo, _: &str, _: &str) -> Result<bool, ControlError> {
        Ok(false)
    }
    fn trace(&self, _: AccountNo, _: &str, _: u32) -> Result<bool, ControlError> {
        Ok(false)
    }
    fn trace_story(&self, _: AccountNo, _: &str) -> Option<TraceReport> {
        None
    }
    fn forget_trace(&self, _: AccountNo, _: &str) -> bool {
        false
    }
    fn overview(&self, _: AccountNo) -> Overview {
        Overview::default()
    }
    fn vitals(&self) -> ServerStats {
        ServerStats::default()
    }
    fn listen(&self, _: bool) {}
    fn changes(&self) -> (Vec<Changed>, bool) {
        (Vec::new(), false)
    }
}

/// A server on its own loopback port.
pub(crate) struct World {
    pub(crate) notes: Arc<Notes>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) directory: Arc<Directory>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_strict_compat(false)
    }

    pub(crate) fn with_strict_compat(strict_compat: bool) -> Self {
        let directory = Arc::new(Config::parse(ACCOUNTS, "accounts.toml").unwrap().directory());
        let notes = Arc::new(Notes::default());
        let ready = Arc::new(AtomicBool::new(true));
        let state = ApiState {
            directory: directory.clone(),
            control: notes.clone(),
            strict_compat,
            ready: ready.clone(),
            node: "pres1".into(),
            limits: Limits::default(),
        };
        let connections = Connections { most: 64, per_address: 64 };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(api::serve(listener, api::router(state), connections, std::future::pending()));
        Self { notes, ready, directory, address, _runtime: runtime }
    }

    /// Adds a subscription of account A whose first NOTIFY is not answered yet.
    pub(crate) fn subscribe(&self, user: &str, event: &str, call_id: &str, expires: u32) {
        self.subscribe_in(A, user, event, call_id, expires);
    }

    pub(crate) fn subscribe_in(&self, account: &str, user: &str, event: &str, call_id: &str, expires: u32) {
        let record = SubscriptionRecord {
            user: user.into(),
            package: package::by_name(event).unwrap(),
            call_id: call_id.into(),
            from: "Carol@acme.test".into(),
            expires,
            subscribed_at: 1_438_981_899,
            last: None,
            user_agent: None,
            proxy_route: None,
        };
        let account = self.directory.account_by_id(account).unwrap();
        self.notes.subscriptions.lock().unwrap().push((account, record));
    }

    /// Answers the NOTIFY of the latest subscription.
    pub(crate) fn answered(&self, cseq: u32, reply: u16, body: &str) {
        let mut all = self.notes.subscriptions.lock().unwrap();
        all.last_mut().unwrap().1.last = Some(LastNotify { cseq, reply, body: body.into() });
    }

    /// Commands that the notifier received since the last call.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let taken = std::mem::take(&mut *self.notes.changes.lock().unwrap());
        let name = |account| self.directory.realm(account).to_owned();
        taken
            .into_iter()
            .map(|(account, users, state)| match state {
                None => Change::Reset(name(account), users),
                Some(state) => Change::Set(name(account), users, state),
            })
            .collect()
    }

    /// Sends raw bytes and reads until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Answer::read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends a request with these header lines; a body adds its Content-Length.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            text += &format!("{header}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(format!("{text}\r\n{body}").as_bytes())
    }

    /// GET below account A, with its token.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", &format!("/v2/accounts/{A}/{path}"), &["X-Auth-Token: acme-token"], "")
    }

    /// POST of JSON below account A, with its token.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let headers = ["X-Auth-Token: acme-token", "Content-Type: application/json"];
        self.send("POST", &format!("/v2/accounts/{A}/{path}"), &headers, body)
    }
}

/// A response of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers: Vec<_> = lines.map(header).collect();
        let chunked = headers.contains(&("transfer-encoding".into(), "chunked".into()));
        let body = if chunked { Self::joined(body) } else { body.to_owned() };
        Self { status, headers, body }
    }

    /// Joins the chunks of a body (RFC 9112 section 7.1).
    fn joined(mut rest: &str) -> String {
        let mut body = String::new();
        loop {
            let (length, after) = rest.split_once("\r\n").unwrap_or_else(|| panic!("no chunk: {rest:?}"));
            let length = usize::from_str_radix(length, 16).unwrap();
            if length == 0 {
                return body;
            }
            body += &after[..length];
            rest = after[length..].strip_prefix("\r\n").unwrap();
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `data` of a successful response.
    pub(crate) fn data(&self) -> Value {
        let json = self.json();
        assert_eq!((self.status, &json["status"]), (200, &Value::from("success")), "{self:?}");
        json["data"].clone()
    }

    /// Checks that the response is an error envelope that agrees with its status, and returns its data.
    pub(crate) fn fault(&self, status: u16, message: &str) -> Value {
        let json = self.json();
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(json["status"], "error");
        assert_eq!(json["error"], Value::from(status.to_string()), "a string, and the status");
        assert_eq!(json["message"], message);
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
        assert!(json["auth_token"].is_string());
        json["data"].clone()
    }
}

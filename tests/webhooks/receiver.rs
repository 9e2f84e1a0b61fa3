//! HTTP server of a receiver, which handles deliveries as the test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver as Inbox};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

pub(crate) const SECRET: &str = "the key that both sides know";
/// Longest wait for a delivery.
const PATIENCE: Duration = Duration::from_secs(60);

/// A delivery as it was received.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The body, after a check of its signature over the received octets with our own key.
    pub(crate) fn json(&self) -> Value {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signed = format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.text);
        let signature = self.header("webhook-signature").strip_prefix("v1,").unwrap();
        hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(signature).unwrap()).expect("the signature is right");
        serde_json::from_str(&self.text).unwrap()
    }
}

/// One response.
pub(crate) type Answer = (u16, &'static [(&'static str, &'static str)]);

struct House {
    seen: mpsc::Sender<Seen>,
    answers: Mutex<VecDeque<Answer>>,
    gate: Semaphore,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    inbox: Inbox<Seen>,
    house: Arc<House>,
    _runtime: Runtime,
}

impl Receiver {
    /// Sends these responses, and 204 after that.
    pub(crate) fn new(answers: &[Answer]) -> Receiver {
        let (seen, inbox) = mpsc::channel();
        let answers = Mutex::new(answers.iter().copied().collect());
        let house = Arc::new(House { seen, answers, gate: Semaphore::new(Semaphore::MAX_PERMITS) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&house));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Receiver { address, inbox, house, _runtime: runtime }
    }

    /// Configuration lines that name the receiver.
    pub(crate) fn hook(&self, more: &str) -> String {
        hook(&format!("http://{}/hooks?k=1", self.address), more)
    }

    /// The next delivery.
    pub(crate) fn next(&self) -> Seen {
        self.inbox.recv_timeout(PATIENCE).expect("a delivery in time")
    }

    /// The next delivery with a change of a lamp.
    pub(crate) fn lamp(&self, extension: &str) -> (Seen, Value) {
        loop {
            let seen = self.next();
            let json = seen.json();
            let lamp = json["lamps"].as_array().unwrap().iter().find(|lamp| lamp["extension"] == extension).cloned();
            if let Some(lamp) = lamp {
                return (seen, lamp);
            }
        }
    }

    pub(crate) fn has_none(&self) -> bool {
        self.inbox.try_recv().is_err()
    }

    /// Accepts deliveries from now on without responding.
    pub(crate) fn hold(&self) {
        self.house.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Responds to the held deliveries, and to all later ones.
    pub(crate) fn release(&self) {
        self.house.gate.add_permits(1_000_000);
    }
}

pub(crate) fn hook(url: &str, more: &str) -> String {
    format!("  [[account.webhook]]\n  url = \"{url}\"\n  secret = \"{SECRET}\"\n  {more}\n")
}

async fn take(State(house): State<Arc<House>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let text = String::from_utf8(to_bytes(body, 10_000_000).await.unwrap().to_vec()).unwrap();
    let path = head.uri.path_and_query().unwrap().to_string();
    let _ = house.seen.send(Seen { path: format!("{} {path}", head.method), headers: head.headers, text });
    let (status, headers) = house.answers.lock().unwrap().pop_front().unwrap_or((204, &[]));
    drop(house.gate.acquire().await.unwrap());
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from("thank you")).unwrap()
}

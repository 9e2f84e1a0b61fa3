//! HTTP client for one receiver; its connection is reused from delivery to delivery. Every step has a timeout. Of a
//! response, only the status and Retry-After are used.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::settings::WebhookUrl;

/// Timeout for DNS lookup, connection and handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Timeout for a whole delivery.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest response body read to keep the connection (octets); with a longer one the connection is closed.
const MAX_ANSWER: usize = 64 * 1024;

/// Reason why a delivery was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A response that is not a success; `retry_after` is the time that the receiver asks us to wait.
    Refused { status: u16, retry_after: Option<Duration> },
    /// A redirect. It is not followed: only the configuration decides where deliveries go.
    Redirected { status: u16 },
    /// No response in time.
    TimedOut,
    /// The connection failed or broke.
    Unreachable(String),
}

/// Client for one receiver.
pub(super) struct Client {
    url: WebhookUrl,
    tls: Option<Arc<ClientConfig>>,
    open: Option<Open>,
}

/// An open connection; it is closed on drop.
struct Open {
    sender: SendRequest<Body>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(super) fn new(url: WebhookUrl, tls: Option<Arc<ClientConfig>>) -> Client {
        Client { url, tls, open: None }
    }

    /// Delivers a JSON body.
    pub(super) async fn post(&mut self, headers: &[(&'static str, String)], body: &str) -> Result<(), Failure> {
        let answered = timeout(ANSWER_WITHIN, self.exchange(headers, body)).await;
        let outcome = answered.unwrap_or(Err(Failure::TimedOut));
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    async fn exchange(&mut self, headers: &[(&'static str, String)], body: &str) -> Result<(), Failure> {
        // A kept connection may have been closed by the peer meanwhile. That is not a failure; we connect again.
        if let Some(mut open) = self.open.take()
            && open.sender.ready().await.is_ok()
            && let Ok(answer) = open.sender.send_request(self.request(headers, body)?).await
        {
            return self.judge(open, answer).await;
        }
        let mut open = timeout(CONNECT_WITHIN, self.connect()).await.map_err(|_| Failure::TimedOut)??;
        let answer = open.sender.send_request(self.request(headers, body)?).await.map_err(broken)?;
        self.judge(open, answer).await
    }

    async fn judge(&mut self, open: Open, answer: Response<Incoming>) -> Result<(), Failure> {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let whole = drained(answer.into_body()).await;
        match status.as_u16() {
            200..300 => {
                self.open = whole.then_some(open);
                Ok(())
            }
            300..400 => Err(Failure::Redirected { status: status.as_u16() }),
            status => Err(Failure::Refused { status, retry_after: retry_after.map(Duration::from_secs) }),
        }
    }

    fn request(&self, headers: &[(&'static str, String)], body: &str) -> Result<Request<Body>, Failure> {
        let mut request = Request::post(self.url.path_and_query())
            .header(HOST, self.url.authority())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, concat!("lamplighter/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.body(Body::from(body.to_owned())).map_err(|error| Failure::Unreachable(error.to_string()))
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await.map_err(broken)?;
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => open(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.url.host().to_owned()).map_err(broken)?;
                open(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(broken)?).await
            }
        }
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Open, Failure> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // The error is also seen by the sender half, so it is ignored here.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok(Open { sender, task })
}

fn broken(error: impl std::error::Error) -> Failure {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::Unreachable(format!("{error}{cause}"))
}

/// Reads a body to its end; false if it is too long or breaks.
async fn drained(mut body: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        read += frame.ok().and_then(|frame| frame.into_data().ok()).map_or(MAX_ANSWER, |data| data.len());
        if read >= MAX_ANSWER {
            return false;
        }
    }
    true
}

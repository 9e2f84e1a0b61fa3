//! HTTP connections: their number is limited, and a client that sends its request or reads its response too slowly is
//! disconnected.
//!
//! `axum::serve` limits neither. A thousand clients that send one byte a minute are an old attack (slowloris).
//! [`super::connection_slots`] decides which connection is closed when there are too many.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::connection_slots::{ConnectionSlots, Connections, Slot};
use super::refusals::Peer;
use super::write_timeout::WriteTimeout;
use super::{Service, webhooks};
use crate::util::log_limit::LogLimiter;

/// Timeout for the head of a request, and for an idle connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Timeout for a client that reads nothing of its response.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// Buffer for the head of a request. The API's own limits are lower, so that it can refuse with a clear error.
const MAX_HEAD: usize = 128 * 1024;
/// Pause after a failed accept. It fails for want of file descriptors, and would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause after a failed accept when an idle connection was evicted, which must be closed first.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(1);

/// Limits the log lines about failed accepts.
static NOT_ACCEPTED: LogLimiter = LogLimiter::new();

/// Serves HTTP until `stop` is ready, then finishes the requests that have begun and returns.
///
/// At most `connections` are open at once, plus a few for probes; a new connection replaces an idle one. The caller
/// should limit the time that it waits for the end: a client that does not read its response can delay it. Webhooks are
/// delivered meanwhile; at the end, the pending ones are delivered.
pub async fn serve(
    listener: TcpListener,
    service: impl Into<Service>,
    connections: Connections,
    stop: impl Future<Output = ()> + Send,
) {
    let Service { router, api } = service.into();
    let (said, stopping) = watch::channel(false);
    let stop = async move {
        stop.await;
        said.send_replace(true);
    };
    let seats = ConnectionSlots::new(connections);
    if let Some(api) = &api {
        // `set` succeeds the first time only, so the metrics report the connections of the first listener.
        let _ = api.seats.set(Arc::clone(&seats));
    }
    let deliveries = async {
        if let Some(api) = api {
            webhooks::run(api, stopping).await;
        }
    };
    tokio::join!(accept(listener, router, seats, stop, PATIENCE), deliveries);
}

async fn accept(
    listener: TcpListener,
    router: Router,
    seats: Arc<ConnectionSlots>,
    stop: impl Future<Output = ()> + Send,
    patience: Duration,
) {
    let (draining, drain) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let (stream, peer) = listener.accept().await?;
            Ok::<_, std::io::Error>((stream, seats.enter(peer).await))
        };
        match tokio::select! { () = &mut stop => break, next = next => next } {
            Ok((stream, seat)) => {
                tokio::spawn(serve_connection(stream, router.clone(), Arc::new(seat), drain.clone(), patience));
            }
            Err(error) => {
                if let Some(more) = NOT_ACCEPTED.check() {
                    tracing::warn!(%error, more, "no HTTP connection can be accepted");
                }
                let pause = if seats.give_one_up() { GIVE_UP_PAUSE } else { ACCEPT_PAUSE };
                tokio::time::sleep(pause).await;
            }
        }
    }
    drop(listener);
    draining.send_replace(true);
    seats.empty().await;
}

/// Serves one connection until it is closed. Its seat is released at the end.
async fn serve_connection(
    stream: TcpStream,
    router: Router,
    seat: Arc<Slot>,
    mut drain: watch::Receiver<bool>,
    patience: Duration,
) {
    // Responses are short and written whole; Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    // While nothing is sent, the kernel does not notice that the peer is gone.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(2 * UNREAD_FOR));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
    let (router, with) = (TowerToHyperService::new(router), Arc::clone(&seat));
    let service = service_fn(move |request| {
        let mut request: Request<hyper::body::Incoming> = request;
        request.extensions_mut().insert(Peer(with.peer().ip()));
        request.extensions_mut().insert(Arc::clone(&with));
        router.call(request)
    });
    let stream = WriteTimeout::new(stream, UNREAD_FOR);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        biased;
        () = seat.evicted() => return,
        outcome = connection.as_mut() => outcome,
        () = async { drop(drain.wait_for(|draining| *draining).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn seats(most: usize) -> Arc<ConnectionSlots> {
        ConnectionSlots::new(Connections { most, per_address: most })
    }

    /// Starts a server. Dropping the sender stops it; the handle completes when it has ended.
    async fn start(
        connections: usize,
        patience: Duration,
    ) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, stop) = oneshot::channel::<()>();
        let router = Router::new().fallback(|| async { "answer" });
        let task = tokio::spawn(async move {
            let stop = async { drop(stop.await) };
            accept(listener, router, seats(connections), stop, patience).await;
        });
        (address, sender, task)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(REQUEST).await.unwrap();
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await.unwrap();
        String::from_utf8_lossy(&piece[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_takes_too_long_ends_the_connection() {
        let (address, _stop, _task) = start(10, Duration::from_millis(20)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        assert!(slow.read_to_end(&mut Vec::new()).await.is_ok(), "closed by the server");
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut silent).await.contains("answer"));
        assert!(silent.read_to_end(&mut Vec::new()).await.is_ok(), "closed between requests too");
    }

    #[tokio::test]
    async fn who_comes_above_the_limit_takes_the_place_of_one_that_waits() {
        let (address, _stop, _task) = start(1, PATIENCE).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await.contains("answer"));
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut second).await.contains("answer"));
        assert_eq!(first.read_to_end(&mut Vec::new()).await.unwrap(), 0, "closed, for it said nothing");
        assert!(ask(&mut second).await.contains("answer"));
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_and_the_server() {
        let (address, stop, task) = start(10, PATIENCE).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut idle).await.contains("answer"));
        drop(stop);
        task.await.unwrap();
        assert!(idle.read_to_end(&mut Vec::new()).await.is_ok());
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}

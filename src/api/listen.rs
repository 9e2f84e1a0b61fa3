//! The HTTP connections: so many at once, and none that takes for ever to say what it wants.
//!
//! `axum::serve` bounds neither, and a client that sends one byte a minute, a thousand times over, is an old trick.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::refusals::Peer;
use super::{Service, webhooks};

/// How long the head of a request may take, and how long a connection may stay without one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may leave unread what was sent to him.
const UNREAD_FOR: Duration = Duration::from_secs(60);
/// Room for the head of a request; what the API itself takes is less, and refused with a better answer.
const MAX_HEAD: usize = 128 * 1024;
/// A pause after a failed accept: it fails for want of file descriptors, and at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP until `stop` is ready, then finishes the requests that have begun and returns.
///
/// At most `connections` are open at once; who comes later waits in the listener's queue. The caller bounds how long he
/// waits for the end: a client that does not read its answer can hold it up. Webhooks are delivered meanwhile, and at the
/// end what is left of them.
pub async fn serve(
    listener: TcpListener,
    service: impl Into<Service>,
    connections: usize,
    stop: impl Future<Output = ()> + Send,
) {
    let Service { router, api } = service.into();
    let (said, stopping) = watch::channel(false);
    let stop = async move {
        stop.await;
        said.send_replace(true);
    };
    let deliveries = async {
        if let Some(api) = api {
            webhooks::run(api, stopping).await;
        }
    };
    tokio::join!(serve_patiently(listener, router, connections, stop, PATIENCE), deliveries);
}

async fn serve_patiently(
    listener: TcpListener,
    router: Router,
    connections: usize,
    stop: impl Future<Output = ()> + Send,
    patience: Duration,
) {
    let connections = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
    let slots = Arc::new(Semaphore::new(connections as usize));
    let (draining, drain) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        match tokio::select! { () = &mut stop => break, next = next => next } {
            (Ok(slot), Ok((stream, _))) => {
                let connection = converse(stream, router.clone(), drain.clone(), patience);
                tokio::spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "no HTTP connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The slots are never closed.
            (Err(_), Ok(_)) => {}
        }
    }
    drop(listener);
    draining.send_replace(true);
    // All slots are free once every connection has ended.
    let _ = slots.acquire_many(connections).await;
}

async fn converse(stream: TcpStream, router: Router, mut drain: watch::Receiver<bool>, patience: Duration) {
    // Answers are short and written whole; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    // Who reads nothing of an answer for so long is as good as gone; a stream has no other end for him.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_FOR));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
    let peer = stream.peer_addr().map_or(IpAddr::from([0; 4]), |peer| peer.ip());
    let router = router.layer(Extension(Peer(peer)));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
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

    /// A server; dropping the sender stops it, the handle ends with it.
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
            serve_patiently(listener, router, connections, stop, patience).await;
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
    async fn who_comes_above_the_limit_waits_for_a_place() {
        let (address, _stop, _task) = start(1, PATIENCE).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut first).await.contains("answer"));
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        // The first is still answered, and the second has to wait for it to go.
        assert!(ask(&mut first).await.contains("answer"));
        assert_eq!(second.try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        let mut piece = [0; 15];
        second.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"HTTP/1.1 200 OK");
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

//! Thread and runtime of the HTTP API.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::StartError;
use crate::api::{self, Connections, Service};

/// Worker threads of the HTTP runtime.
const WORKERS: usize = 2;
/// Timeout of requests under way when the server stops.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Connections that may wait in the kernel to be accepted. Beyond it the kernel drops the first packet, and the client
/// repeats that after a second. The value is some tenths of a second of a connection flood, so that a readiness probe
/// need not wait.
const BACKLOG: u32 = 4_096;

/// Starts the thread. Its socket is bound when this returns.
pub(super) fn spawn(
    address: SocketAddr,
    service: Service,
    connections: Connections,
    mut stopping: watch::Receiver<bool>,
    ending: Sender<()>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let listener = runtime
        .block_on(async { listen(address) })
        .map_err(|source| StartError::Listen { what: format!("http://{address}"), source })?;
    let run = move || {
        runtime.block_on(async {
            let mut stop = stopping.clone();
            let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
            let too_late = async {
                drop(stopping.wait_for(|stop| *stop).await);
                tokio::time::sleep(FINISH_WITHIN).await;
            };
            tokio::select! {
                () = api::serve(listener, service, connections, stopped) => {}
                () = too_late => {}
            }
        });
        runtime.shutdown_background();
        drop(ending);
    };
    std::thread::Builder::new().name("http-main".into()).spawn(run).map_err(StartError::Thread)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without SO_REUSEADDR a restart fails while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

//! The running server: builds the modules from the configuration, starts their threads, and stops them.
//!
//! There is one I/O thread for each core. Each has its own sockets for every listener (the kernel distributes peers
//! over them), its own connections and a single-threaded runtime. HTTP has a small runtime of its own, so that it
//! cannot starve SIP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::api::{ApiState, Connections, Service, WebhookError, Webhooks};
use crate::capture::{Capture, LocalEndpoint, seen_address};
use crate::config::{Config, Durability, ListenTransport};
use crate::journal::{self, Journal, JournalError, Record};
use crate::notifier::{Notifier, new_secret};
use crate::sip::Transport;
use crate::transport::{ConnectionLimits, ConnectionTable, Listener, Tls, TlsError, is_free};

mod backlog;
mod clock;
mod control_handle;
mod dns_resolver;
mod flood_guard;
mod health_log;
mod http;
mod io_thread;
mod journal_setup;
mod readiness;
pub mod startup_banner;

use clock::Clock;
use control_handle::ControlHandle;
use dns_resolver::Resolver;
use health_log::HealthLog;
use io_thread::IoThread;
use readiness::Readiness;

/// Time that phones have to answer NOTIFYs in flight when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Outboxes of API calls that may wait to be sent. Further calls wait; their number is limited.
const ERRANDS: usize = 64;
/// Interval at which NOTIFYs in flight are checked while the server stops.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Time that the last captured messages have to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
/// Time that the threads have to stop after the drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Errors when the server starts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configured address cannot be listened on.
    #[error("cannot listen on {what}: {source}; is it in use, or not an address of this machine?")]
    Listen {
        /// Address as configured.
        what: String,
        /// Error of the system.
        source: io::Error,
    },
    /// The journal cannot be opened or written.
    #[error("data.dir: {0}")]
    Journal(#[from] JournalError),
    /// A file of `[tls]` cannot be used.
    #[error("[tls]: {0}")]
    Tls(#[from] TlsError),
    /// A webhook cannot be set up.
    #[error("[[account.webhook]]: {0}")]
    Webhook(#[from] WebhookError),
    /// The capture cannot be started.
    #[error("[hep]: cannot send to the capture server: {0}")]
    Capture(io::Error),
    /// No thread or no runtime could be created.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Running server. Dropping it stops the threads too, but without a drain.
#[derive(Debug)]
pub struct Server {
    notifier: Arc<Notifier>,
    stop: watch::Sender<bool>,
    doors: Arc<Readiness>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Channel whose senders the threads hold; it is closed when the last thread ends.
    ended: std::sync::mpsc::Receiver<()>,
    addresses: Vec<String>,
    tls: Option<Arc<Tls>>,
    journal: Option<Arc<Journal>>,
    tap: Option<Arc<Capture>>,
}

impl Server {
    /// Starts the server. When this returns, every address is listened on.
    ///
    /// # Errors
    /// [`StartError`], if any part cannot be started.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        let directory = Arc::new(config.directory());
        let clock = Clock::start();
        let listeners = listeners_of(config);
        let webhooks = Webhooks::new(&config.webhooks)?;
        let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
        for (listen, listener) in config.sip.listen.iter().zip(&listeners) {
            is_free(listener.address, listener.transport)
                .map_err(|source| StartError::Listen { what: listen.to_string(), source })?;
        }
        let tap = config.hep.as_ref().map(|hep| Capture::start(hep, local_endpoints(config))).transpose();
        let tap = tap.map_err(StartError::Capture)?;
        let (journal, recovered) = match config.data.durability {
            Durability::Memory => (None, Vec::new()),
            Durability::Strict => journal_setup::open(&config.data, journal::Durability::Strict)?,
            Durability::Relaxed => journal_setup::open(&config.data, journal::Durability::Relaxed)?,
        };
        let notifier =
            Arc::new(Notifier::new(config.notifier(Arc::clone(&directory), listeners.clone(), new_secret())));
        if let Some(journal) = &journal {
            let back = notifier.restore(clock.now(), recovered);
            keep_first(journal, back.starts, back.shortened)?;
            tracing::info!(
                subscriptions = back.subscriptions,
                behind = back.behind,
                states = back.states,
                "restored from journal"
            );
            for (account, records) in &back.dormant {
                tracing::warn!(
                    account,
                    records,
                    "the journal has records of an account, listener or package that is not configured; they are kept \
                     until it is again, or until their time is over"
                );
            }
        }
        let (failures, undeliverable) = mpsc::unbounded_channel();
        let is_latest = {
            let notifier = Arc::clone(&notifier);
            Box::new(move |ticket| notifier.is_latest(ticket))
        };
        let shared = ConnectionTable::new(
            ConnectionLimits {
                most: config.limits.tcp_connections,
                per_address: config.limits.tcp_connections_per_address,
                trusted: config.access.trusted_proxies.clone(),
            },
            tls.clone(),
            tap.clone(),
            failures,
            is_latest,
        );
        let (stop, stopping) = watch::channel(false);
        let (ending, ended) = std::sync::mpsc::channel();
        let (errands, errands_in) = mpsc::channel(ERRANDS);
        let (questions, questions_in) = mpsc::channel(dns_resolver::QUEUE);
        let resolver = Resolver::new(&config.dns, &listeners);
        let mut threads = Vec::new();
        let count = std::thread::available_parallelism().map_or(1, |n| n.get());
        // The first thread also sends the messages of API calls and timers, and resolves host names.
        let mut first = Some(io_thread::SharedTasks {
            errands: errands_in,
            undeliverable,
            questions: questions_in,
            resolver: Arc::clone(&resolver),
            watchman: HealthLog { notifier: Arc::clone(&notifier), shared: Arc::clone(&shared), tap: tap.clone() },
        });
        for number in 0..count {
            let thread = IoThread {
                notifier: Arc::clone(&notifier),
                clock,
                shared: Arc::clone(&shared),
                listeners: listeners.clone(),
                tls: tls.clone(),
                origins: config.sip.ws_origins.clone().into(),
                journal: journal.clone(),
                questions: questions.clone(),
                idle: Duration::from_secs(config.limits.tcp_idle_seconds),
                threads: count,
            };
            threads.push(thread.spawn(number, first.take(), stopping.clone(), ending.clone())?);
        }
        let doors = Arc::new(Readiness::new(Arc::clone(&notifier)));
        let desk = ControlHandle {
            notifier: Arc::clone(&notifier),
            clock,
            outbound: errands,
            journal: journal.clone(),
            shared,
            resolver,
            questions,
            tap: tap.clone(),
            doors: Arc::clone(&doors),
        };
        let state = ApiState {
            directory,
            control: Arc::new(desk),
            strict_compat: config.api.strict_compat,
            ready: doors.ready(),
            node: node_name(),
            limits: config.limits.clone(),
        };
        let service = Service::new(state, webhooks);
        let connections = Connections {
            most: config.limits.http_connections,
            per_address: config.limits.http_connections_per_address,
        };
        threads.push(http::spawn(config.http.listen, service, connections, stopping, ending)?);
        let mut addresses: Vec<_> = config.sip.listen.iter().map(|listen| format!("sip over {listen}")).collect();
        addresses.push(format!("http://{}", config.http.listen));
        Ok(Server { notifier, stop, doors, threads, ended, addresses, tls, journal, tap })
    }

    /// Listen addresses as text, for the startup banner.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Reloads the certificates, if any are configured. Open connections keep theirs.
    pub fn reload_certificates(&self) {
        match &self.tls {
            None => tracing::info!("there are no certificates to read again"),
            Some(tls) if tls.reload() => {}
            Some(_) => tracing::info!("the certificate has not changed, or cannot be used"),
        }
    }

    /// Starts a drain that cannot be undone: `/readyz` reports not ready, and new subscriptions are rejected.
    pub fn drain(&self) {
        self.doors.close(true);
    }

    /// Stops the server: drains it, waits for responses to NOTIFYs in flight, and closes the journal, so that every
    /// acknowledged change is on disk. It takes at most a few seconds. Phones that have not answered by then get their
    /// NOTIFY again from the next server.
    pub fn stop(mut self) {
        self.drain();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.notifier.awaits_answers() && Instant::now() < deadline {
            std::thread::sleep(DRAIN_POLL);
        }
        // An error means that all threads have ended already.
        let _ = self.stop.send(true);
        // Every thread holds a sender; the wait ends when the last one is dropped.
        let _ = self.ended.recv_timeout(STOP_TIMEOUT);
        if let Some(journal) = &self.journal {
            journal.close();
            tracing::info!("the journal is closed");
        }
        if let Some(tap) = &self.tap {
            tap.flush(FLUSH_TIMEOUT);
        }
        for thread in self.threads.drain(..).filter(|thread| thread.is_finished()) {
            let _ = thread.join();
        }
    }
}

/// Commits the count of starts and the shortened records before anything is served.
fn keep_first(journal: &Journal, starts: Option<Record>, shortened: Vec<Record>) -> Result<(), StartError> {
    if !shortened.is_empty() {
        tracing::info!(
            records = shortened.len(),
            "records of what has expired meanwhile, or was granted less, are written anew"
        );
    }
    let records: Vec<_> = starts.into_iter().chain(shortened).collect();
    let (done, kept) = std::sync::mpsc::sync_channel(1);
    journal.append(records, move |result| _ = done.send(result));
    match kept.recv() {
        Ok(Err(refused)) => Err(StartError::Journal(refused.why.into())),
        _ => Ok(()),
    }
}

fn listeners_of(config: &Config) -> Vec<Listener> {
    let sent_by = |address: SocketAddr| match &config.sip.advertise {
        Some(host) if host.contains(':') => format!("[{}]:{}", host.trim_matches(['[', ']']), address.port()),
        Some(host) => format!("{host}:{}", address.port()),
        None => address.to_string(),
    };
    let listener = |listen: &crate::config::Listen| Listener {
        transport: match listen.transport {
            ListenTransport::Udp => Transport::Udp,
            ListenTransport::Tcp => Transport::Tcp,
            ListenTransport::Tls => Transport::Tls,
            ListenTransport::Ws => Transport::Ws,
            ListenTransport::Wss => Transport::Wss,
        },
        address: listen.address,
        sent_by: sent_by(listen.address).into(),
    };
    config.sip.listen.iter().map(listener).collect()
}

/// Local sockets as they appear in captures.
fn local_endpoints(config: &Config) -> Vec<LocalEndpoint> {
    let advertised = config.sip.advertise.as_deref();
    let here = |listen: &crate::config::Listen| LocalEndpoint {
        address: seen_address(listen.address, advertised),
        datagrams: listen.transport == ListenTransport::Udp,
    };
    config.sip.listen.iter().map(here).collect()
}

/// Host name of this machine, which listings show.
fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "lamplighter".into(),
        name => name.into(),
    }
}

//! I/O thread: owns sockets and connections, passes messages to the notifier and sends what results.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use super::StartError;
use super::backlog::{Backlog, BacklogGuard};
use super::clock::Clock;
use super::dns_resolver::Resolver;
use super::flood_guard::FloodGuard;
use super::health_log::HealthLog;
use super::journal_setup;
use crate::journal::{Journal, JournalError, RefusedAppend};
use crate::notifier::dns_cache::DnsQuery;
use crate::notifier::{Notifier, Outbox};
use crate::sip::Transport;
use crate::sip::wire::ParseError;
use crate::transport::{
    Acceptor, BatchUdpSocket, Connection, ConnectionEvent, ConnectionTable, DeliveryToken, Handshaker, Listener,
    ListenerId, SipSender, Source, Tls,
};
use crate::util::log_limit::LogLimiter;

/// Time that the journal has at the end to commit what waits for it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest sleep of the timer task (ms). A deadline that another thread sets meanwhile is met at most this late.
const MAX_TIMER_SLEEP: u64 = 50;
/// Longest time that a message on a stream waits for its rate limit; then it is rejected like a datagram.
const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// Longest time between two checks of the rate limit (ms).
const HOLD_LOOK: u64 = 250;
/// So many datagrams at once are a sign that more wait: then other tasks have a turn before these.
const MANY: usize = 8;
/// Time that a busy datagram socket has before the other tasks of its thread get their turn.
const TURN: Duration = Duration::from_millis(1);
/// A disk that fails does so for every change.
static UNKEPT: LogLimiter = LogLimiter::new();
/// Interval at which the files of `[tls]` are checked.
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

pub(super) struct IoThread {
    pub(super) notifier: Arc<Notifier>,
    pub(super) clock: Clock,
    pub(super) shared: Arc<ConnectionTable>,
    pub(super) listeners: Vec<Listener>,
    pub(super) tls: Option<Arc<Tls>>,
    /// Web origins that WebSockets are accepted from.
    pub(super) origins: Arc<[String]>,
    pub(super) journal: Option<Arc<Journal>>,
    /// Channel of host names to resolve.
    pub(super) questions: mpsc::Sender<DnsQuery>,
    /// Idle timeout of connections.
    pub(super) idle: Duration,
    /// Number of I/O threads.
    pub(super) threads: usize,
}

/// Tasks that only one of the I/O threads runs.
pub(super) struct SharedTasks {
    /// Messages of API calls, to be sent.
    pub(super) errands: mpsc::Receiver<Outbox>,
    /// Tickets of messages that could not be sent. Their number is limited by the octets that may wait for connections,
    /// and nothing more is sent while the backlog is full.
    pub(super) undeliverable: mpsc::UnboundedReceiver<DeliveryToken>,
    /// Host names to resolve.
    pub(super) questions: mpsc::Receiver<DnsQuery>,
    /// DNS resolver.
    pub(super) resolver: Arc<Resolver>,
    /// Log of failures, once a minute.
    pub(super) watchman: HealthLog,
}

/// State that all tasks of the thread share.
#[derive(Clone)]
struct Worker {
    notifier: Arc<Notifier>,
    clock: Clock,
    hub: SipSender,
    idle: Duration,
    journal: Option<Arc<Journal>>,
    /// Channel from the journal's thread: outboxes that it has committed or refused. `backlog` limits its length.
    kept: mpsc::UnboundedSender<Committed>,
    backlog: Backlog,
    waiting: Arc<PendingCommits>,
    questions: mpsc::Sender<DnsQuery>,
}

/// Number of outboxes of one thread that wait for the journal.
#[derive(Debug, Default)]
struct PendingCommits {
    count: AtomicUsize,
    /// Signals that one of them was sent.
    left: Notify,
}

/// Outbox that the journal has committed or refused.
struct Committed {
    out: Outbox,
    /// True if it has records of its own; false if its messages only waited for earlier records.
    own: bool,
    result: Result<(), RefusedAppend>,
    /// Ends the count in the backlog when it is dropped.
    held: BacklogGuard,
}

impl IoThread {
    /// Starts the thread. Its sockets are bound when this returns.
    pub(super) fn spawn(
        self,
        number: usize,
        chores: Option<SharedTasks>,
        mut stopping: watch::Receiver<bool>,
        ending: Sender<()>,
    ) -> Result<JoinHandle<()>, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let entered = runtime.enter();
        // One message for each connection that the server opens, so `limits.tcp_connections` limits the channel.
        let (connected, connections) = mpsc::unbounded_channel();
        let mut sockets = Vec::new();
        let mut acceptors = Vec::new();
        for (no, listener) in (0..).map(ListenerId).zip(&self.listeners) {
            let what = || format!("{}://{}", listener.transport.to_string().to_lowercase(), listener.address);
            let listen = |source| StartError::Listen { what: what(), source };
            match listener.transport {
                Transport::Udp => {
                    let socket = BatchUdpSocket::bind(listener.address, no).map_err(listen)?;
                    self.shared.watch(&socket);
                    sockets.push(Some(Arc::new(socket)));
                }
                _ => {
                    sockets.push(None);
                    let shared = Arc::clone(&self.shared);
                    let door = Handshaker::new(listener.transport, self.tls.clone(), Arc::clone(&self.origins));
                    acceptors.push(Acceptor::bind(listener.address, no, door, shared).map_err(listen)?);
                }
            }
        }
        drop(entered);
        let run = move || {
            runtime.block_on(async move {
                let hub = SipSender::new(self.shared, sockets.clone(), self.listeners, connected);
                let (kept, keeping) = mpsc::unbounded_channel();
                let worker = Worker {
                    notifier: self.notifier,
                    clock: self.clock,
                    hub,
                    idle: self.idle,
                    journal: self.journal,
                    kept,
                    backlog: Backlog::of_thread(self.threads),
                    waiting: Arc::default(),
                    questions: self.questions,
                };
                tokio::spawn(worker.clone().send_committed(keeping));
                for socket in sockets.into_iter().flatten() {
                    tokio::spawn(worker.clone().serve_datagrams(socket));
                }
                for acceptor in acceptors {
                    let worker = worker.clone();
                    tokio::spawn(acceptor.run(move |connection| {
                        tokio::spawn(worker.clone().serve_connection(connection));
                    }));
                }
                tokio::spawn(worker.clone().serve_opened(connections));
                if let Some(chores) = chores {
                    let SharedTasks { errands, undeliverable, questions, resolver, watchman } = chores;
                    tokio::spawn(worker.clone().forward_outbound(errands, undeliverable));
                    tokio::spawn(worker.clone().resolve_names(questions, resolver));
                    tokio::spawn(worker.clone().run_timers());
                    tokio::spawn(watchman.run());
                    if let Some(tls) = self.tls {
                        tokio::spawn(watch_certificates(tls));
                    }
                }
                // An error means that the server was dropped without `stop`; the thread stops as well.
                let _ = stopping.wait_for(|stop| *stop).await;
                // If the disk takes longer, the requests get no response; the clients retransmit them to the next
                // server.
                let _ = tokio::time::timeout(COMMIT_TIMEOUT, worker.flush_pending()).await;
            });
            drop(ending);
        };
        std::thread::Builder::new().name(format!("io-{number}")).spawn(run).map_err(StartError::Thread)
    }
}

/// Reloads certificates when their files change. The files are polled, because a file system need not report changes (a
/// mounted secret does not).
async fn watch_certificates(tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(CERTIFICATE_POLL).await;
        let tls = Arc::clone(&tls);
        // An error means that reading a file panicked; the next check tries again.
        let _ = tokio::task::spawn_blocking(move || tls.reload()).await;
    }
}

impl Worker {
    /// Receives datagrams for as long as the thread runs.
    async fn serve_datagrams(self, socket: Arc<BatchUdpSocket>) {
        let (mut out, mut flood_guard, mut yielded_at) = (Outbox::default(), FloodGuard::default(), Instant::now());
        loop {
            let (mut taken, mut turned_away) = (0, 0);
            let received = socket
                .receive(|datagrams| {
                    self.ask_journal();
                    out.strained = self.backlog.is_strained();
                    let full = self.backlog.is_full();
                    let mut datagrams = datagrams
                        .inspect(|(source, bytes)| {
                            taken += 1;
                            self.hub.shared().on_received(*source, bytes);
                        })
                        .filter(|(source, bytes)| {
                            let is_request = !bytes.starts_with(b"SIP/");
                            let room = !full || !is_request;
                            turned_away += u64::from(!room);
                            flood_guard.passes(source.peer, is_request) && room
                        });
                    self.notifier.receive_all(self.clock.now(), &mut datagrams, &mut out);
                })
                .await;
            if let Err(e) = received {
                tracing::error!(error = %e, "a UDP socket failed");
                return;
            }
            self.notifier.count_overload(turned_away);
            let now = Instant::now();
            self.notifier.count_dropped_of_loudest(flood_guard.end_of_batch(now, taken));
            self.send(&mut out).await;
            // A yield asks the kernel about every socket, so not after each batch.
            if taken > MANY && now.duration_since(yielded_at) > TURN {
                tokio::task::yield_now().await;
                yielded_at = now;
            }
        }
    }

    /// Receives messages from one connection until it ends.
    async fn serve_connection(self, mut connection: Connection) {
        let source = connection.source();
        let worker = Worker { backlog: self.backlog.of_connection(), ..self };
        while let Some(arrival) = connection.next(worker.idle).await {
            worker.wait_for_turn(&source).await;
            let mut out = Outbox { strained: worker.backlog.is_strained(), ..Outbox::default() };
            let now = worker.clock.now();
            worker.ask_journal();
            match arrival {
                ConnectionEvent::Message(bytes) => worker.notifier.receive(now, source, &bytes, &mut out),
                ConnectionEvent::TooLarge(head) => {
                    worker.notifier.receive_malformed(now, source, ParseError::TooLarge, &head, &mut out);
                }
                ConnectionEvent::Idle => worker.notifier.count_keep_alive(now, source),
                ConnectionEvent::Broken(fault, bytes) => {
                    worker.notifier.receive_malformed(now, source, fault, &bytes, &mut out);
                    worker.send(&mut out).await;
                    break;
                }
            }
            worker.send(&mut out).await;
        }
        worker.notifier.connection_ended(&source);
    }

    /// Waits until a message from a stream may be handled: its source is within the rate limit, and the backlog has
    /// room. The stream is not read meanwhile (back-pressure).
    async fn wait_for_turn(&self, source: &Source) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < LONGEST_HOLD {
            match self.notifier.may_speak_in(self.clock.now(), source) {
                0 => break,
                wait => tokio::time::sleep(Duration::from_millis(wait.min(HOLD_LOOK))).await,
            }
        }
        self.backlog.room().await;
    }

    /// Reads from the connections that the server opens.
    async fn serve_opened(self, mut connections: mpsc::UnboundedReceiver<Connection>) {
        while let Some(connection) = connections.recv().await {
            tokio::spawn(self.clone().serve_connection(connection));
        }
    }

    /// Sends the messages of API calls, and reports failed deliveries to the notifier.
    async fn forward_outbound(
        self,
        mut errands: mpsc::Receiver<Outbox>,
        mut undeliverable: mpsc::UnboundedReceiver<DeliveryToken>,
    ) {
        loop {
            self.backlog.room().await;
            let mut out = Outbox::default();
            tokio::select! {
                Some(errand) = errands.recv() => out = errand,
                Some(ticket) = undeliverable.recv() => {
                    self.notifier.undeliverable(self.clock.now(), ticket, &mut out);
                }
                else => return,
            }
            self.send(&mut out).await;
        }
    }

    /// Resolves host names, each in a task of its own, and passes the results to the notifier.
    async fn resolve_names(self, mut questions: mpsc::Receiver<DnsQuery>, resolver: Arc<Resolver>) {
        while let Some(question) = questions.recv().await {
            let turn = resolver.turn().await;
            let (worker, resolver) = (self.clone(), Arc::clone(&resolver));
            tokio::spawn(async move {
                let answer = resolver.answer(&question).await;
                drop(turn);
                let mut out = Outbox::default();
                worker.notifier.on_dns_answer(worker.clock.now(), question, answer, &mut out);
                worker.send(&mut out).await;
            });
        }
    }

    /// Runs the notifier's timers, and starts compaction of the journal when it is due.
    async fn run_timers(self) {
        let mut out = Outbox::default();
        loop {
            let now = self.clock.now();
            self.ask_journal();
            if let Some(journal) = self.journal.as_ref().filter(|journal| journal.wants_compaction()) {
                self.compact(journal);
            }
            self.notifier.finish_rollbacks(now, &mut out);
            self.append_rollback(&mut out);
            // While the backlog is full nothing can be sent, so nothing is retransmitted either.
            if !self.backlog.is_full() {
                self.notifier.pass_time(now, &mut out);
                self.send(&mut out).await;
            }
            let wait = self.notifier.next_deadline().map_or(MAX_TIMER_SLEEP, |at| at.0.saturating_sub(now.0));
            tokio::time::sleep(Duration::from_millis(wait.clamp(1, MAX_TIMER_SLEEP))).await;
        }
    }

    /// Passes the state of the journal to the notifier, so that it makes no change that the journal would refuse.
    fn ask_journal(&self) {
        if let Some(journal) = &self.journal {
            self.notifier.set_journal_acceptance(journal.accepts());
        }
    }

    /// Compacts the journal: replaces it by a snapshot of the current state. A thread of its own does this, so that a
    /// disk that hangs blocks nothing else. The journal asks for no second snapshot before this one is done.
    fn compact(&self, journal: &Arc<Journal>) {
        let (journal, notifier) = (Arc::clone(journal), Arc::clone(&self.notifier));
        tokio::task::spawn_blocking(move || {
            let mut snapshot = match journal.begin_snapshot() {
                Ok(snapshot) => snapshot,
                // Two calls can be made before the first has begun.
                Err(JournalError::SnapshotRunning) => return,
                Err(error) => return tracing::warn!(%error, "the journal cannot be compacted now"),
            };
            let mut written = Ok(());
            notifier.snapshot(|key, value| {
                if written.is_ok() {
                    written = snapshot.write([(key, value)]);
                }
            });
            match written.and_then(|()| snapshot.finish()) {
                Ok(()) => tracing::info!("the journal was compacted"),
                Err(error) => tracing::warn!(%error, "the journal could not be compacted; it goes on growing"),
            }
        });
    }

    /// Sends the outbox once the journal has committed its records (rule 5). It does not wait for the disk: the rest
    /// happens in `send_committed`. The outbox is left empty, to be reused.
    async fn send(&self, out: &mut Outbox) {
        for question in out.dns_queries.drain(..) {
            // If the queue is full this query is dropped, and its NOTIFYs are sent to the source address instead.
            let _ = self.questions.try_send(question);
        }
        self.remark(out);
        if let Some(journal) = &self.journal {
            // Messages without a record wait too. A retransmitted NOTIFY, or one about a change of another thread, must
            // not show state that a crash could still undo.
            if !out.records.is_empty() || !out.messages.is_empty() {
                let pool = std::mem::take(&mut out.pool);
                let mut out = std::mem::replace(out, Outbox { pool, ..Outbox::default() });
                let held = self.backlog.hold(&out);
                let (records, kept) = (out.take_records(), self.kept.clone());
                self.waiting.count.fetch_add(1, Ordering::Relaxed);
                let own = !records.is_empty();
                return journal.append(records, move |result| {
                    // The thread is gone only while the server stops.
                    let _ = kept.send(Committed { out, own, result, held });
                });
            }
        }
        self.dispatch(out).await;
    }

    /// Appends deferred records to the journal; no message waits for them.
    fn remark(&self, out: &mut Outbox) {
        if let Some(journal) = self.journal.as_ref().filter(|_| !out.deferred_records.is_empty()) {
            // If they are lost, a phone gets a NOTIFY after a restart with a state that it knows already.
            let _ = journal.append_deferred(std::mem::take(&mut out.deferred_records));
        }
    }

    /// Appends the records that restore the state after a rollback, so that the journal accepts changes again.
    fn append_rollback(&self, out: &mut Outbox) {
        journal_setup::append_rollback(self.journal.as_deref(), out);
    }

    /// Sends outboxes that the journal has committed. For a refused one it rolls the change back and sends what
    /// results.
    async fn send_committed(self, mut kept: mpsc::UnboundedReceiver<Committed>) {
        while let Some(Committed { mut out, own, result, held }) = kept.recv().await {
            let now = self.clock.now();
            match result {
                Ok(()) => self.notifier.on_committed(now, &mut out),
                Err(RefusedAppend { why, hold }) => {
                    if own && let Some(more) = UNKEPT.check() {
                        tracing::warn!(%why, more, "a change could not be stored; it is rolled back and refused");
                    }
                    let refused = std::mem::take(&mut out);
                    self.notifier.roll_back(now, refused, Some(hold), &mut out);
                    self.append_rollback(&mut out);
                }
            }
            self.dispatch(&mut out).await;
            drop(held);
            self.waiting.count.fetch_sub(1, Ordering::Relaxed);
            self.waiting.left.notify_one();
        }
    }

    /// Waits until no outbox waits for the journal.
    async fn flush_pending(&self) {
        while self.waiting.count.load(Ordering::Relaxed) > 0 {
            self.waiting.left.notified().await;
        }
    }

    /// Sends messages in order. An unfinished fan-out continues in a task of its own, slice by slice, so that responses
    /// are received in between.
    async fn dispatch(&self, out: &mut Outbox) {
        self.hub.send_all(&mut out.messages).await;
        out.pool.recycle();
        for presentity in out.pending_fan_outs.drain(..) {
            tokio::spawn(self.clone().finish_fan_out(presentity));
        }
    }

    /// Continues a fan-out until it is done. Boxed, because the future is recursive: `send` may start another fan-out.
    fn finish_fan_out(self, presentity: u32) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut out = Outbox::default();
            loop {
                self.backlog.room().await;
                self.notifier.continue_fan_out(self.clock.now(), presentity, &mut out);
                let unfinished = std::mem::take(&mut out.pending_fan_outs);
                self.send(&mut out).await;
                if unfinished.is_empty() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
    }
}

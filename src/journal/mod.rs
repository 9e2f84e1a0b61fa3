//! What must survive: an append-only log of records, and the embedded store behind it.
//!
//! In flow [`Record`]s, each the latest word on one key; out flow, at the next start, the latest word on every key.
//! The journal knows neither what a record means nor when to keep one back: whoever acknowledges a change waits until
//! the records of that change are durable (law 5).
//!
//! On disk there is one image, `snapshot-N`, and the segments `log-N` and later that came after it; `format.rs` says
//! how they look, `store.rs` how a directory is opened after any crash, `writer.rs` how many appends share one
//! fdatasync, `snapshot.rs` how the log is replaced by an image of the live state so that it stays bounded.

mod disk;
mod error;
mod format;
mod latest;
mod mem_disk;
mod queue;
mod snapshot;
mod store;
mod tape;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::count::Spread;
pub use error::{JournalError, WriteFailed};
pub use snapshot::Snapshot;
pub use store::{Cut, Report};
pub(crate) use tape::Tape;

use disk::{Disk, RealDisk};
use queue::{Entry, Shared};

/// Names what a record is about. The meaning of the numbers is the notifier's; equal keys replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64, pub u32);

/// The latest word on a key: a value, or none for gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub key: Key,
    /// What holds of it now.
    pub value: Option<bytes::Bytes>,
    /// Tells which of two words on a key is the later one: whoever changes what the key names draws it under the lock
    /// that he does that under. What he then appends may be overtaken on the way here, and counts no more then.
    pub order: u64,
}

/// When an append counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk: survives a power cut.
    Strict,
    /// At once; with the kernel moments later, on disk within a second.
    Relaxed,
}

/// What an earlier run left behind.
#[derive(Debug)]
pub struct Recovered {
    /// The latest value of every key that has one, in the order of the keys.
    pub records: Vec<(Key, Bytes)>,
    /// What was read, and what was cut off.
    pub report: Report,
}

/// Whether the disk takes what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Good,
    /// It does not; the journal tries again every second.
    Failed {
        /// Since when.
        since: Instant,
        /// The disk's own words.
        why: Arc<str>,
    },
}

/// Numbers for metrics, counted since the journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records written.
    pub records: u64,
    /// Octets written to the log.
    pub octets: u64,
    /// Writes made; in strict mode each is one fdatasync.
    pub commits: u64,
    /// How long the last of them took, from the writer's taking it to its being kept.
    pub last_commit: Duration,
    /// Octets of log and image on disk.
    pub on_disk: u64,
    /// Octets that are queued, being written or not yet synced.
    pub queued: usize,
    /// Appends whose fate somebody waits for.
    pub awaited: usize,
    /// Whether the disk takes what it is given.
    pub good: bool,
    /// How often it has begun to refuse.
    pub failures: u64,
    /// How long commits took (microseconds).
    pub took: Spread,
    /// How many records were written at once.
    pub batches: Spread,
    /// Appends that were refused, and why.
    pub refused: [(&'static str, u64); 4],
}

/// What bounds the journal. Production uses the default; tests shrink it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Octets that are queued, being written or not yet synced. At 1 M records/s of 200 octets it is 80 ms of work: a
    /// disk further behind than that will not catch up before the senders retransmit (T1 is 500 ms).
    queue: usize,
    /// How long a lazy record may wait for company, and a relaxed one for its fdatasync.
    within: Duration,
    /// The least between the beginnings of two commits. A single change does not wait; under load, the more share a
    /// fdatasync the less each of them costs.
    apart: Duration,
    /// How often a failed disk is tried.
    probe_every: Duration,
    /// Octets written to see whether there is room again. As much as a busy commit, so that the journal does not
    /// recover into the next failure.
    probe: usize,
    /// A log below this is never worth an image: it is replayed in a fraction of a second.
    compact_from: u64,
    /// A log is replaced once it is this many times the last image, so that rewriting the live state costs at most a
    /// quarter of what was written anyway, and the disk holds at most about six times the live state.
    compact_factor: u64,
    /// How long to leave it after a snapshot that failed; each attempt writes the whole live state.
    snapshot_retry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 16 << 20,
            within: Duration::from_secs(1),
            apart: Duration::from_millis(1),
            probe_every: Duration::from_secs(1),
            probe: 1 << 20,
            compact_from: 64 << 20,
            compact_factor: 4,
            snapshot_retry: Duration::from_secs(60),
        }
    }
}

/// The open journal. All methods may be called from any thread; dropping it is [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `dir`, creating the directory if need be, and returns what an earlier run left in it.
    ///
    /// The directory stays locked until the journal and its last [`Snapshot`] are gone.
    ///
    /// # Errors
    /// When the directory is another server's, foreign, of a newer format or damaged, and when the disk refuses; the
    /// error names the path and says what to do. Only what a crash can leave is mended; see [`Report::cut`].
    pub fn open(dir: &Path, durability: Durability) -> Result<(Self, Recovered), JournalError> {
        store::prepare(dir)?;
        let lock = store::lock(dir)?;
        Self::open_on(Arc::new(RealDisk::new(dir)), Some(lock), durability, Limits::default())
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        lock: Option<std::fs::File>,
        durability: Durability,
        limits: Limits,
    ) -> Result<(Self, Recovered), JournalError> {
        let (opened, recovered) = store::open(&*disk)?;
        let shared = Arc::new(Shared::new(disk.clone(), lock, durability, limits, &opened));
        let writer = writer::Writer::new(shared.clone(), opened);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(|e| JournalError::io("start the thread of", disk.dir(), e))?;
        Ok((Self { shared, thread: Mutex::new(Some(thread)) }, recovered))
    }

    /// Appends `records`, all or none of them, and calls `done` once they are kept (see [`Durability`]) or refused.
    ///
    /// Appends are kept, and their `done`s called, in the order of the calls; only a refusal overtakes. `done` runs in
    /// the journal's thread, where it holds up all others, or in the caller's before this returns (relaxed, refused); no
    /// lock is held. After an error none of the records is kept and the last words before them stand. No records at all
    /// make a barrier: `done` is called once all earlier appends are kept, before this returns if they are already.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce(Result<(), WriteFailed>) + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        if records.is_empty() && self.shared.awaited.load(Relaxed) == 0 {
            drop(queue);
            return done(Ok(()));
        }
        if let Err(refused) = self.shared.admit(&mut queue, &records, true) {
            drop(queue);
            self.shared.numbers.refuse(&refused);
            return done(Err(refused));
        }
        let end = queue.frames.len();
        queue.urgent = true;
        match self.shared.durability {
            Durability::Strict => {
                self.shared.awaited.fetch_add(1, Relaxed);
                queue.entries.push(Entry { end, done: Some(Box::new(done)) });
                self.shared.wake.notify_one();
            }
            Durability::Relaxed => {
                queue.entries.push(Entry { end, done: None });
                self.shared.wake.notify_one();
                drop(queue);
                done(Ok(()));
            }
        }
    }

    /// Appends `records`, all or none of them, with the next commit or within a second, for whoever need not know when.
    ///
    /// A failing disk does not refuse them: they wait for its recovery, in order.
    ///
    /// # Errors
    /// When they were not even queued.
    pub fn append_lazily(&self, records: Vec<Record>) -> Result<(), WriteFailed> {
        let mut queue = self.shared.queue.lock();
        let admitted = self.shared.admit(&mut queue, &records, false);
        admitted.inspect_err(|refused| self.shared.numbers.refuse(refused))?;
        let end = queue.frames.len();
        queue.entries.push(Entry { end, done: None });
        // The writer must learn of the first one's deadline, and of a queue that fills; else it may sleep on.
        if queue.lazy_since.is_none() {
            queue.lazy_since = Some(Instant::now());
            self.shared.wake.notify_one();
        } else if queue.held > self.shared.limits.queue / 2 {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Whether the disk takes what it is given.
    pub fn health(&self) -> Health {
        self.shared.queue.lock().health.clone()
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Whether the log has grown so long that its owner should replace it by [`Journal::begin_snapshot`].
    pub fn wants_compaction(&self) -> bool {
        self.shared.wants_compaction()
    }

    /// Begins an image of the live state: from here on appends go to a new segment, and what the image holds replaces
    /// all that came before.
    ///
    /// So whatever was appended before this returned must show in what the owner then writes: change the memory first
    /// (or under the same lock) and append second, and read the memory after this returned. Blocks for a few
    /// fdatasyncs; never call it from a `done`.
    ///
    /// # Errors
    /// When another snapshot is being written, when the journal is closed, and when the disk refuses.
    pub fn begin_snapshot(&self) -> Result<Snapshot, JournalError> {
        let (answer, answered) = mpsc::channel();
        self.shared.ask_to_rotate(answer)?;
        let rotated = answered.recv().unwrap_or(Err(WriteFailed::Closed));
        Snapshot::begin(self.shared.clone(), rotated)
    }

    /// Keeps all that is queued and ends the journal's thread; later appends are refused. May be called again.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().take();
        // A `done` may drop the last handle: then it is the journal's own thread that is here, and cannot wait for itself.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            // It ends by panic only through a bug of ours, which has then been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

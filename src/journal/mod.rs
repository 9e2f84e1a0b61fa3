//! Journal: an append-only log of records with group commit and compaction, embedded in the server.
//!
//! Input: [`Record`]s, each with the current value of one key. Output, at the next start: the current value of every
//! key. The journal knows neither the meaning of a record nor which message waits for it. The caller acknowledges a
//! change only after its records are durable (rule 5).
//!
//! On disk there is one snapshot, `snapshot-N`, and the segments `log-N` and later that follow it. `format.rs`
//! describes the files, `store.rs` how a directory is opened after any crash, `writer.rs` how many appends share one
//! fdatasync, and `snapshot.rs` how the log is replaced by a snapshot of the current state, so that its size stays
//! limited.

mod counters;
mod damage;
mod disk;
mod error;
mod format;
mod hold;
mod mem_disk;
mod memory_journal;
mod ordering;
mod quarantine;
mod queue;
mod repair;
mod snapshot;
mod store;
mod survey;
mod watchdog;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod place_tests;
#[cfg(test)]
mod stall_tests;
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

use crate::util::counters::HistogramSnapshot;
pub use error::{JournalError, RefusedAppend, WriteError};
pub use hold::Hold;
pub(crate) use memory_journal::MemoryJournal;
pub use repair::{Repaired, check, repair};
pub use snapshot::Snapshot;
pub use store::{OpenReport, ReadFile, TornTail};
pub use survey::{BadPart, FileSurvey, Survey};

use disk::Disk;
use queue::{AppendState, Entry, QueueLimit, Shared};

/// Key of a record. The notifier defines the meaning of its numbers. A record replaces earlier ones with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64, pub u32);

/// Current value of a key, or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Key.
    pub key: Key,
    /// Current value; none is a tombstone: the key was removed.
    pub value: Option<bytes::Bytes>,
    /// Order among records of the same key; the highest is the newest. The caller draws it under the lock of the object
    /// that the key names, but appends after releasing that lock. So an older record may arrive after a newer one; it
    /// is then dropped.
    pub order: u64,
}

/// Time at which an append counts as committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync: it survives a power failure.
    Strict,
    /// At once. The records reach the kernel moments later, and the disk within a second.
    Relaxed,
}

/// Data that an earlier run left in the directory.
#[derive(Debug)]
pub struct Recovered {
    /// Current value of every key that has one, ordered by key.
    pub records: Vec<(Key, Bytes)>,
    /// Files that were read, and the torn tail that was cut off.
    pub report: OpenReport,
}

/// State of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Writes succeed.
    Good,
    /// Writes fail or hang. The journal tries again every second. It is good again once the disk is, all promised
    /// records are on it, and every refused change is rolled back.
    Failed {
        /// Time of the first failure.
        since: Instant,
        /// Error of the system, or a description of the operation that hangs.
        why: Arc<str>,
    },
}

/// Answer to the question whether a change that needs the journal may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Changes are accepted.
    Accepting,
    /// Not now: the disk does not keep up. The queue will have room again soon.
    Overloaded,
    /// Not now: the disk fails, or changes that it refused are still being rolled back.
    Failing,
}

/// Statistics of the journal since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records written.
    pub records: u64,
    /// Octets written to the log.
    pub octets: u64,
    /// Writes to the log. In strict mode each has one fdatasync.
    pub commits: u64,
    /// Time that the last commit took, from the writer's taking the batch until it was committed.
    pub last_commit: Duration,
    /// Octets of log and snapshot on disk.
    pub on_disk: u64,
    /// Octets that are queued, being written or not yet synced.
    pub queued: usize,
    /// Appends whose result a caller waits for.
    pub awaited: usize,
    /// True while the disk is good (see [`Health`]).
    pub good: bool,
    /// Number of times that the disk began to fail.
    pub failures: u64,
    /// Bad parts that a repair has put aside before this opening.
    pub repaired: u64,
    /// Histogram of the time of a commit (microseconds).
    pub took: HistogramSnapshot,
    /// Histogram of the records in one commit.
    pub batches: HistogramSnapshot,
    /// Refused appends by reason.
    pub refused: [(&'static str, u64); 5],
}

/// Limits of the journal. Production uses the default; tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Octets that are queued, being written or not yet synced, above which no change is accepted. At 1 M records/s of
    /// 200 octets it is 80 ms of work. A disk that is further behind will not catch up before the senders retransmit
    /// (T1 is 500 ms).
    queue: usize,
    /// Longest time that a deferred record waits for a commit, and a relaxed one for its fdatasync.
    within: Duration,
    /// Shortest time between the starts of two commits. A single change does not wait. Under load more changes share an
    /// fdatasync, so each of them costs less.
    apart: Duration,
    /// Time after which a commit that has not returned counts as failed. Phones retransmit a request for 32 s, so none
    /// has given up by then; and no healthy disk takes as long, not even a busy one.
    stall: Duration,
    /// Interval at which the directory is checked to be still at its path.
    look_every: Duration,
    /// Interval at which a failed disk is tried again.
    probe_every: Duration,
    /// Octets of a trial write after a failure. It is as large as a busy commit, so that the journal does not recover
    /// into the next failure.
    probe: usize,
    /// Size of the log below which it is not compacted: it is replayed in a fraction of a second.
    compact_from: u64,
    /// Size of the log, as a multiple of the last snapshot, from which it is compacted. So rewriting the current state
    /// costs at most a quarter of what was written anyway, and the disk holds at most about six times the current
    /// state.
    compact_factor: u64,
    /// Delay after a failed snapshot. Each attempt writes the whole current state.
    snapshot_retry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 16 << 20,
            within: Duration::from_secs(1),
            apart: Duration::from_millis(1),
            stall: Duration::from_secs(2),
            look_every: Duration::from_secs(1),
            probe_every: Duration::from_secs(1),
            probe: 1 << 20,
            compact_from: 64 << 20,
            compact_factor: 4,
            snapshot_retry: Duration::from_secs(60),
        }
    }
}

/// Open journal. All methods may be called from any thread. Dropping it does the same as [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Writer and watchdog.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal in `dir` and returns the data of an earlier run. The directory is created if it is missing.
    ///
    /// The directory stays locked until the journal and its last [`Snapshot`] are dropped.
    ///
    /// # Errors
    /// When another server uses the directory, when it belongs to other software, is of a newer format or damaged, and
    /// when the disk fails. The error names the path and the remedy. Only the effects of a crash are repaired
    /// automatically; see [`OpenReport::cut`].
    pub fn open(dir: &Path, durability: Durability) -> Result<(Self, Recovered), JournalError> {
        store::prepare(dir)?;
        Self::open_on(Arc::new(store::lock(dir)?), durability, Limits::default())
    }

    fn open_on(disk: Arc<dyn Disk>, durability: Durability, limits: Limits) -> Result<(Self, Recovered), JournalError> {
        let (opened, recovered) = store::open(&*disk)?;
        let shared = Arc::new(Shared::new(disk.clone(), durability, limits, &opened));
        let writer = writer::Writer::new(shared.clone(), opened);
        let watched = shared.clone();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(run);
            thread.map_err(|e| JournalError::io("start the thread of", disk.dir(), e))
        };
        let journal = Self { shared, threads: Mutex::default() };
        // If the second thread cannot start, dropping the journal ends the first.
        for (name, run) in [
            ("journal", Box::new(move || writer.run()) as Box<dyn FnOnce() + Send>),
            ("journal-watch", Box::new(move || watchdog::run(&watched))),
        ] {
            journal.threads.lock().push(spawn(name, run)?);
        }
        Ok((journal, recovered))
    }

    /// Returns whether a change may be made. The caller asks before the change, because it appends after it. Takes no
    /// lock.
    ///
    /// Once accepted, a change is appended even if the queue has exceeded its limit meanwhile. The excess is at most
    /// what all threads are working on at one moment.
    pub fn accepts(&self) -> Acceptance {
        self.shared.accepts()
    }

    /// Appends the `records` of a change that was made. Calls `done` once they are committed (see [`Durability`]) or
    /// refused.
    ///
    /// Appends are committed, and their `done`s called, in the order of the calls; only an immediate refusal (see
    /// below) may overtake. `done` runs in a thread of the journal, where it delays all others, or in the caller's
    /// thread before this returns (relaxed mode, or immediate refusal). No lock is held. Records that fit into one
    /// frame (8 MiB) are on disk all or none after any crash. More records are split over several frames, and `done` is
    /// called after the last.
    ///
    /// **Refusal.** When the disk fails, or has not answered for two seconds, all appends that callers wait for are
    /// refused, and later ones are refused at once. The caller must then roll the change back in memory and append the
    /// restored state by [`Journal::append_rollback`], in records with a new `order`: a refused record may have reached
    /// the disk nevertheless. After that the caller drops the [`Hold`] of the refusal. No change is accepted until all
    /// holds are dropped.
    ///
    /// **Barrier.** An append without records is a barrier: `done` is called once the results of all earlier appends
    /// were reported; before this returns if that is already so. A barrier is never refused, because it needs nothing
    /// from the disk. While the disk fails it waits only for refusals that are being reported.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce(Result<(), RefusedAppend>) + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        if records.is_empty() {
            let at_once = self.shared.wait_behind(&mut queue, Box::new(done));
            drop(queue);
            return at_once.into_iter().for_each(|done| done(Ok(())));
        }
        let end = match self.shared.admit(&mut queue, &records, QueueLimit::Change) {
            Ok(end) => end,
            Err(why) => {
                // Under the lock, so that the journal cannot become good in between.
                let refused = self.shared.refuse(why);
                drop(queue);
                return done(Err(refused));
            }
        };
        queue.urgent = true;
        match self.shared.durability {
            Durability::Strict => {
                self.shared.awaited.fetch_add(1, Relaxed);
                queue.entries.push(Entry { end, fate: AppendState::Awaited(Box::new(done)) });
                self.shared.wake.notify_one();
            }
            Durability::Relaxed => {
                queue.entries.push(Entry { end, fate: AppendState::Promised });
                self.shared.wake.notify_one();
                drop(queue);
                done(Ok(()));
            }
        }
    }

    /// Appends deferred `records`, for a caller that does not wait: they are written with the next commit or within a
    /// second.
    ///
    /// A failing disk does not refuse them: they wait, in order, until it recovers.
    ///
    /// # Errors
    /// When they could not be queued.
    pub fn append_deferred(&self, records: Vec<Record>) -> Result<(), WriteError> {
        self.promise(records, QueueLimit::Remark)
    }

    /// Appends the state that a rollback of a refused change has restored. It is written before any later append, and
    /// before the journal is good again. The caller must call this before it drops the [`Hold`] of the refusal.
    ///
    /// # Errors
    /// When the queue has no room. That happens only if the records of all rollbacks are several times as large as the
    /// refused ones.
    pub fn append_rollback(&self, records: Vec<Record>) -> Result<(), WriteError> {
        self.promise(records, QueueLimit::RollBack)
    }

    fn promise(&self, records: Vec<Record>, admission: QueueLimit) -> Result<(), WriteError> {
        let mut queue = self.shared.queue.lock();
        let admitted = self.shared.admit(&mut queue, &records, admission);
        let end = admitted.inspect_err(|refused| self.shared.numbers.refuse(refused))?;
        queue.entries.push(Entry { end, fate: AppendState::Promised });
        // The writer must wake for the deadline of the first deferred record, and for a queue that fills.
        if queue.lazy_since.is_none() {
            queue.lazy_since = Some(Instant::now());
            self.shared.wake.notify_one();
        } else if self.shared.held.load(Relaxed) > self.shared.limits.queue / 2 {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// State of the disk.
    pub fn health(&self) -> Health {
        self.shared.queue.lock().health.clone()
    }

    /// Sets [`Stats::repaired`]: the number of bad parts that a repair has put aside before this opening.
    pub fn count_repaired(&self, parts: u64) {
        self.shared.numbers.repaired.store(parts, Relaxed);
    }

    /// Statistics since the journal was opened.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Returns true if the log is so large that the owner should replace it by [`Journal::begin_snapshot`].
    pub fn wants_compaction(&self) -> bool {
        self.shared.wants_compaction()
    }

    /// Begins a snapshot of the current state. From here on appends go to a new segment, and the snapshot replaces all
    /// earlier ones.
    ///
    /// So everything appended before this returned must be part of the records that the owner then writes. To ensure
    /// it: change the memory first (or under the same lock), then append; and read the memory only after this returned.
    /// Blocks for a few fdatasyncs; never call it from a `done`.
    ///
    /// # Errors
    /// When another snapshot is being written, when the journal is closed, and when the disk fails.
    pub fn begin_snapshot(&self) -> Result<Snapshot, JournalError> {
        let (answer, answered) = mpsc::channel();
        self.shared.ask_to_rotate(answer)?;
        let rotated = answered.recv().unwrap_or(Err(WriteError::Closed));
        Snapshot::begin(self.shared.clone(), rotated)
    }

    /// Commits everything queued and ends the journal's threads. Later appends are refused. May be called again.
    ///
    /// A disk that hangs is waited for only as long as a commit may take. Whatever was not committed has been refused
    /// by then, and the threads end with the process.
    pub fn close(&self) {
        let mut queue = self.shared.queue.lock();
        queue.closing = true;
        self.shared.wake.notify_one();
        drop(queue);
        let threads = std::mem::take(&mut *self.threads.lock());
        let here = std::thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == here) {
            // A `done` dropped the last handle: a thread of the journal cannot wait for itself.
            return;
        }
        if self.shared.wait_for_end() {
            for thread in threads {
                // An error means that the thread panicked, which is a bug and has been printed.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

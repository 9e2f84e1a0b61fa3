//! What must survive: an append-only log of records, and the embedded store behind it.
//!
//! In flow [`Record`]s, each the latest word on one key; out flow, at the next start, the latest word on every key.
//! The journal knows neither what a record means nor when to keep one back: whoever acknowledges a change waits until
//! the records of that change are durable (law 5).
//!
//! On disk there is one image, `snapshot-N`, and the segments `log-N` and later that came after it; `format.rs` says
//! how they look, `store.rs` how a directory is opened after any crash, `writer.rs` how many appends share one
//! fdatasync, `snapshot.rs` how the log is replaced by an image of the live state so that it stays bounded.

mod aside;
mod damage;
mod disk;
mod error;
mod format;
mod hold;
mod latest;
mod mem_disk;
mod numbers;
mod queue;
mod repair;
mod snapshot;
mod store;
mod survey;
mod tape;
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

use crate::count::Spread;
pub use error::{JournalError, Refused, WriteFailed};
pub use hold::Hold;
pub use repair::{Repaired, check, repair};
pub use snapshot::Snapshot;
pub use store::{Cut, ReadFile, Report};
pub use survey::{BadPart, FileSurvey, Survey};
pub(crate) use tape::Tape;

use disk::Disk;
use queue::{Admission, Entry, Fate, Shared};

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
    /// It does not, or does not answer. The journal tries again every second, and is good again once the disk is, what
    /// was promised is on it, and every change that was refused is rolled back.
    Failed {
        /// Since when.
        since: Instant,
        /// The system's own words, or what the disk does not do.
        why: Arc<str>,
    },
}

/// Whether a change that the journal has to keep may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It may.
    Accepting,
    /// The disk does not keep up; soon there is room again.
    Overloaded,
    /// The disk fails, or what was refused when it did is still being rolled back.
    Failing,
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
    /// Bad parts that were put aside before the journal was opened.
    pub repaired: u64,
    /// How long commits took (microseconds).
    pub took: Spread,
    /// How many records were written at once.
    pub batches: Spread,
    /// Appends that were refused, and why.
    pub refused: [(&'static str, u64); 5],
}

/// What bounds the journal. Production uses the default; tests shrink it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Octets that are queued, being written or not yet synced, above which no change is accepted. At 1 M records/s of 200 octets it is 80 ms of work: a
    /// disk further behind than that will not catch up before the senders retransmit (T1 is 500 ms).
    queue: usize,
    /// How long a lazy record may wait for company, and a relaxed one for its fdatasync.
    within: Duration,
    /// The least between the beginnings of two commits. A single change does not wait; under load, the more share a
    /// fdatasync the less each of them costs.
    apart: Duration,
    /// How long the disk may take for one commit until it counts as failed: phones have given up on nothing yet (they
    /// repeat a request for 32 s), and no healthy disk takes so long, not even one that is busy.
    stall: Duration,
    /// How often it is looked whether the directory is still in its place.
    look_every: Duration,
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

/// The open journal. All methods may be called from any thread; dropping it is [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// The writer and the watchdog.
    threads: Mutex<Vec<JoinHandle<()>>>,
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
        // Should the second not start, dropping the journal ends the first.
        for (name, run) in [
            ("journal", Box::new(move || writer.run()) as Box<dyn FnOnce() + Send>),
            ("journal-watch", Box::new(move || watchdog::run(&watched))),
        ] {
            journal.threads.lock().push(spawn(name, run)?);
        }
        Ok((journal, recovered))
    }

    /// Whether a change may be made: to be asked before one is, for an append comes after. Takes no lock.
    ///
    /// What was accepted is appended all the same should the queue have grown beyond its bound meanwhile: that is at most
    /// what every thread has in hand at one moment.
    pub fn accepts(&self) -> Acceptance {
        self.shared.accepts()
    }

    /// Appends `records` of a change that was made, and calls `done` once they are kept (see [`Durability`]) or refused.
    ///
    /// Appends are kept, and their `done`s called, in the order of the calls; only a refusal at once (see below)
    /// overtakes. `done` runs in a thread of the journal, where it holds up all others, or in the caller's before this
    /// returns (relaxed, refused at once); no lock is held. Records that fit one frame (8 MiB) are on disk all or none
    /// whenever a crash comes; more are split over several frames, and `done` comes after the last.
    ///
    /// **Refusal.** When the disk fails, or has not answered for two seconds, all that is awaited is refused, and what is
    /// appended from then on is refused at once. The change then has to be rolled back in memory, and what holds again be
    /// appended by [`Journal::append_rollback`], in words with a fresh `order`: a record that was refused may have reached the
    /// disk all the same. The [`Hold`] of the refusal is dropped after that. Until all are, no change is accepted.
    ///
    /// **No records at all** make a barrier: `done` is called once the fate of all earlier appends was told, before this
    /// returns if it is already. A barrier is never refused, for it asks nothing of the disk; while the disk fails it
    /// waits only for those that are being told so.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce(Result<(), Refused>) + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        if records.is_empty() {
            let at_once = self.shared.wait_behind(&mut queue, Box::new(done));
            drop(queue);
            return at_once.into_iter().for_each(|done| done(Ok(())));
        }
        let end = match self.shared.admit(&mut queue, &records, Admission::Change) {
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
                queue.entries.push(Entry { end, fate: Fate::Awaited(Box::new(done)) });
                self.shared.wake.notify_one();
            }
            Durability::Relaxed => {
                queue.entries.push(Entry { end, fate: Fate::Promised });
                self.shared.wake.notify_one();
                drop(queue);
                done(Ok(()));
            }
        }
    }

    /// Appends `records` with the next commit or within a second, for a caller that need not know when.
    ///
    /// A failing disk does not refuse them: they wait for its recovery, in order.
    ///
    /// # Errors
    /// When they were not even queued.
    pub fn append_lazily(&self, records: Vec<Record>) -> Result<(), WriteFailed> {
        self.promise(records, Admission::Remark)
    }

    /// Appends what holds again of a change that was refused and is rolled back: it is written before anything that
    /// comes after, and before the journal is good again. To be called before the [`Hold`] of the refusal is dropped.
    ///
    /// # Errors
    /// When there is no room: only if all that is rolled back is several times as large as what was refused.
    pub fn append_rollback(&self, records: Vec<Record>) -> Result<(), WriteFailed> {
        self.promise(records, Admission::RollBack)
    }

    fn promise(&self, records: Vec<Record>, admission: Admission) -> Result<(), WriteFailed> {
        let mut queue = self.shared.queue.lock();
        let admitted = self.shared.admit(&mut queue, &records, admission);
        let end = admitted.inspect_err(|refused| self.shared.numbers.refuse(refused))?;
        queue.entries.push(Entry { end, fate: Fate::Promised });
        // The writer must learn of the first one's deadline, and of a queue that fills; else it may sleep on.
        if queue.lazy_since.is_none() {
            queue.lazy_since = Some(Instant::now());
            self.shared.wake.notify_one();
        } else if self.shared.held.load(Relaxed) > self.shared.limits.queue / 2 {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Whether the disk takes what it is given.
    pub fn health(&self) -> Health {
        self.shared.queue.lock().health.clone()
    }

    /// Notes how many bad parts a repair before this opening has put aside, for [`Stats::repaired`].
    pub fn count_repaired(&self, parts: u64) {
        self.shared.numbers.repaired.store(parts, Relaxed);
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

    /// Keeps all that is queued and ends the journal's threads; later appends are refused. May be called again.
    ///
    /// A disk that hangs is not waited for longer than a commit may take: then what was not kept has been refused, and the
    /// threads end with the process.
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
                // It ends by panic only through a bug of ours, which has then been printed.
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

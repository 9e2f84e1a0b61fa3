//! What appenders and the writer share: the queue, already in the shape of the file, and the numbers.

use std::{
    fmt,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::count::{Sizes, one_more};

use super::{
    Durability, Health, JournalError, Limits, Record, Stats, WriteFailed, disk::Disk, format, latest::Latest,
    store::Opened,
};

/// Called once the fate of an append is known.
pub(super) type Done = Box<dyn FnOnce(Result<(), WriteFailed>) + Send>;
/// Called with the number of the segment that a snapshot may begin at.
pub(super) type Rotated = mpsc::Sender<Result<u64, WriteFailed>>;

/// One append in the queue.
pub(super) struct Entry {
    /// Where its frame ends in the queue's octets.
    pub(super) end: usize,
    /// Whom to tell. Without it the append was promised when it was queued, and must outlive a failing disk.
    pub(super) done: Option<Done>,
}

/// What waits for the writer.
pub(super) struct Queue {
    pub(super) frames: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    pub(super) latest: Latest,
    pub(super) records: u64,
    /// Somebody waits, or wants it with the kernel now.
    pub(super) urgent: bool,
    pub(super) lazy_since: Option<Instant>,
    /// Octets queued, being written, or written and not yet synced.
    pub(super) held: usize,
    pub(super) health: Health,
    pub(super) closing: bool,
    pub(super) rotate: Option<Rotated>,
    pub(super) snapshot_running: bool,
    /// When the next snapshot may be wanted, after one that failed.
    pub(super) snapshot_retry: Option<Instant>,
}

/// The half of the journal that outlives no thread in particular.
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) durability: Durability,
    pub(super) limits: Limits,
    pub(super) numbers: Numbers,
    /// How many have been promised to be told and were not yet. Counted up under the queue's lock.
    pub(super) awaited: AtomicUsize,
    /// Held, never read: the kernel lets go of it when the last owner does, however that ends.
    _lock: Option<File>,
}

/// Upper bounds of how long a commit takes (microseconds): from a battery-backed cache to a disk in trouble.
static TIMES: [u64; 13] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];
/// Upper bounds of how many records are written at once.
static BATCHES: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];
/// Why appends are refused.
const REFUSALS: [&str; 4] = ["overloaded", "too_large", "disk", "closed"];

pub(super) struct Numbers {
    pub(super) records: AtomicU64,
    pub(super) octets: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) last_commit_nanos: AtomicU64,
    /// Octets of the segment that is written.
    pub(super) segment: AtomicU64,
    /// Octets of the segments before it.
    pub(super) older_segments: AtomicU64,
    pub(super) snapshot: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) took: Sizes<14>,
    pub(super) batches: Sizes<8>,
    refused: [AtomicU64; REFUSALS.len()],
}

impl Default for Numbers {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            records: zero(),
            octets: zero(),
            commits: zero(),
            last_commit_nanos: zero(),
            segment: zero(),
            older_segments: zero(),
            snapshot: zero(),
            failures: zero(),
            took: Sizes::new(&TIMES),
            batches: Sizes::new(&BATCHES),
            refused: Default::default(),
        }
    }
}

impl Numbers {
    /// An append was refused.
    pub(super) fn refuse(&self, why: &WriteFailed) {
        let place = match why {
            WriteFailed::Overloaded => 0,
            WriteFailed::TooLarge { .. } => 1,
            WriteFailed::Disk(_) => 2,
            WriteFailed::Closed => 3,
        };
        one_more(&self.refused[place]);
    }
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        lock: Option<File>,
        durability: Durability,
        limits: Limits,
        opened: &Opened,
    ) -> Self {
        let queue = Queue {
            frames: Vec::new(),
            entries: Vec::new(),
            latest: Latest::default(),
            records: 0,
            urgent: false,
            lazy_since: None,
            held: 0,
            health: Health::Good,
            closing: false,
            rotate: None,
            snapshot_running: false,
            snapshot_retry: None,
        };
        let numbers = Numbers {
            segment: opened.at.into(),
            older_segments: opened.older_segments.into(),
            snapshot: opened.snapshot.into(),
            ..Numbers::default()
        };
        Self {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            disk,
            durability,
            limits,
            numbers,
            awaited: AtomicUsize::new(0),
            _lock: lock,
        }
    }

    /// Queues the frame of one append, if it may be.
    pub(super) fn admit(
        &self,
        queue: &mut MutexGuard<'_, Queue>,
        records: &[Record],
        needs_disk: bool,
    ) -> Result<(), WriteFailed> {
        let octets = format::size(records);
        // An append that could never be queued must not be told to come again.
        let most = format::FRAME_MAX.min(self.limits.queue / 2);
        if queue.closing {
            return Err(WriteFailed::Closed);
        }
        if octets > most {
            return Err(WriteFailed::TooLarge { octets, most });
        }
        if let (true, Health::Failed { why, .. }) = (needs_disk, &queue.health) {
            return Err(WriteFailed::Disk(why.clone()));
        }
        if queue.held + octets > self.limits.queue {
            return Err(WriteFailed::Overloaded);
        }
        let Queue { frames, latest, .. } = &mut **queue;
        let before = frames.len();
        format::frame(frames, |out| {
            for record in records.iter().filter(|record| latest.admits(record)) {
                format::put(out, record.key, record.value.as_deref());
            }
        });
        queue.held += queue.frames.len() - before;
        queue.records += records.len() as u64;
        Ok(())
    }

    /// Asks the writer for a new segment on behalf of a snapshot; there is one at a time.
    pub(super) fn ask_to_rotate(&self, answer: Rotated) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Err(WriteFailed::Closed.into());
        }
        if queue.snapshot_running {
            return Err(JournalError::SnapshotRunning);
        }
        if let Health::Failed { why, .. } = &queue.health {
            return Err(WriteFailed::Disk(why.clone()).into());
        }
        queue.snapshot_running = true;
        queue.rotate = Some(answer);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn snapshot_ended(&self, well: bool) {
        let mut queue = self.queue.lock();
        queue.snapshot_running = false;
        queue.snapshot_retry = (!well).then(|| Instant::now() + self.limits.snapshot_retry);
    }

    pub(super) fn wants_compaction(&self) -> bool {
        let numbers = &self.numbers;
        let log = numbers.segment.load(Relaxed) + numbers.older_segments.load(Relaxed);
        let enough = numbers.snapshot.load(Relaxed).saturating_mul(self.limits.compact_factor);
        if log <= enough.max(self.limits.compact_from) {
            return false;
        }
        let queue = self.queue.lock();
        !queue.snapshot_running
            && !queue.closing
            && queue.health == Health::Good
            && queue.snapshot_retry.is_none_or(|at| at <= Instant::now())
    }

    pub(super) fn stats(&self) -> Stats {
        let numbers = &self.numbers;
        let [records, octets, commits, nanos, segment, older, snapshot] = [
            &numbers.records,
            &numbers.octets,
            &numbers.commits,
            &numbers.last_commit_nanos,
            &numbers.segment,
            &numbers.older_segments,
            &numbers.snapshot,
        ]
        .map(|number| number.load(Relaxed));
        let (queued, good) = {
            let queue = self.queue.lock();
            (queue.held, queue.health == Health::Good)
        };
        Stats {
            queued,
            good,
            awaited: self.awaited.load(Relaxed),
            failures: numbers.failures.load(Relaxed),
            took: numbers.took.read(),
            batches: numbers.batches.read(),
            refused: std::array::from_fn(|why| (REFUSALS[why], numbers.refused[why].load(Relaxed))),
            records,
            octets,
            commits,
            last_commit: Duration::from_nanos(nanos),
            on_disk: segment + older + snapshot,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dir", &self.disk.dir()).field("durability", &self.durability).finish()
    }
}

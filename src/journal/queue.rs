//! State that appenders, writer and watchdog share: mainly the queue, which holds frames in the format of the file.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
        mpsc,
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    Acceptance, Durability, Health, JournalError, Limits, Record, RefusedAppend, Stats, WriteError,
    counters::{Counters, REFUSALS},
    disk::Disk,
    format,
    hold::Holds,
    ordering::NewestPerKey,
    store::Opened,
};

/// Callback for the result of an append.
pub(super) type OnCommit = Box<dyn FnOnce(Result<(), RefusedAppend>) + Send>;
/// Channel for the number of the segment at which a snapshot may begin.
pub(super) type Rotated = mpsc::Sender<Result<u64, WriteError>>;

/// Progress of an append.
pub(super) enum AppendState {
    /// The caller was promised that it will be committed, so it must survive a failure of the disk.
    Promised,
    /// The caller waits for its result.
    Awaited(OnCommit),
    /// It has no records; its callback is called after those of all earlier appends.
    Barrier(OnCommit),
    /// The caller has been told that it is refused.
    RefusedAppend,
}

/// One append in the queue.
pub(super) struct Entry {
    /// Offset in the queue's octets at which its frames end.
    pub(super) end: usize,
    /// Progress.
    pub(super) fate: AppendState,
}

/// Work that the writer is doing. It is part of the shared state, so that it can be refused while the disk hangs.
pub(super) struct UnderWay {
    pub(super) since: Instant,
    pub(super) entries: Vec<Entry>,
    pub(super) rotate: Option<Rotated>,
}

/// Work that waits for the writer.
pub(super) struct Queue {
    pub(super) frames: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Barriers that were added while appends were being refused; their callbacks follow those refusals.
    barriers: Vec<OnCommit>,
    pub(super) under_way: Option<UnderWay>,
    pub(super) latest: NewestPerKey,
    pub(super) records: u64,
    /// True if a caller waits for a result, or the records have to reach the kernel now.
    pub(super) urgent: bool,
    pub(super) lazy_since: Option<Instant>,
    pub(super) health: Health,
    pub(super) closing: bool,
    /// True once the writer thread has ended.
    pub(super) ended: bool,
    pub(super) rotate: Option<Rotated>,
    pub(super) snapshot_running: bool,
    /// Earliest time of the next snapshot, after one that failed.
    pub(super) snapshot_retry: Option<Instant>,
}

impl Queue {
    /// Returns true if the writer has been in an operation of the disk for at least `stall`.
    pub(super) fn hangs(&self, stall: Duration) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.since.elapsed() >= stall)
    }

    /// Replaces the reason of the current failure by the latest one.
    pub(super) fn set_reason(&mut self, now: Arc<str>) {
        if let Health::Failed { why, .. } = &mut self.health {
            *why = now;
        }
    }

    /// Takes the callbacks of all appends that callers wait for out of the work under way and the queue, in their
    /// order; the flag is false for barriers. Promised appends stay.
    fn take_awaited(&mut self) -> Vec<(OnCommit, bool)> {
        let mut taken = Vec::new();
        let mut take = |fate: &mut AppendState| match std::mem::replace(fate, AppendState::RefusedAppend) {
            AppendState::Awaited(done) => taken.push((done, true)),
            AppendState::Barrier(done) => taken.push((done, false)),
            promised => *fate = promised,
        };
        self.under_way.iter_mut().flat_map(|under_way| &mut under_way.entries).for_each(|entry| take(&mut entry.fate));
        self.entries.iter_mut().for_each(|entry| take(&mut entry.fate));
        let (frames, entries) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.entries));
        promised(&frames, &entries, |frame| {
            self.frames.extend_from_slice(frame);
            self.entries.push(Entry { end: self.frames.len(), fate: AppendState::Promised });
        });
        taken
    }
}

/// Passes the frames of the promised entries to `each`.
pub(super) fn promised<'a>(frames: &'a [u8], entries: &[Entry], mut each: impl FnMut(&'a [u8])) {
    let mut start = 0;
    for entry in entries {
        if matches!(entry.fate, AppendState::Promised) {
            each(&frames[start..entry.end]);
        }
        start = entry.end;
    }
}

/// Factor from the soft limit of the queue to the hard one. A change is made before it is appended, so it must not be
/// refused for lack of room. Changes that were accepted below the soft limit can exceed it by at most one batch of each
/// thread, a few MiB. So the hard limit is reached only because of a bug.
const HARD: usize = 4;

/// Limit that applies to an append.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueLimit {
    /// A change that was made already: the hard limit, and the disk must be good.
    Change,
    /// A rollback: twice the hard limit, so that there is room even if everything that was queued is refused.
    RollBack,
    /// A deferred record, whose loss does no harm: the soft limit.
    Remark,
}

/// State shared by appenders, the writer thread and the watchdog.
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    /// Signals that the writer has ended.
    pub(super) ended: Condvar,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) durability: Durability,
    pub(super) limits: Limits,
    pub(super) numbers: Counters,
    /// Number of callbacks that are still to be called. Incremented under the queue's lock.
    pub(super) awaited: AtomicUsize,
    /// Octets queued, being written, or written and not yet synced. Changed only under the queue's lock.
    pub(super) held: AtomicUsize,
    /// Copy of `Queue::health` that can be read without the lock. Changed only under the queue's lock.
    good: AtomicBool,
    pub(super) holds: Holds,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>, durability: Durability, limits: Limits, opened: &Opened) -> Self {
        let queue = Queue {
            frames: Vec::new(),
            entries: Vec::new(),
            barriers: Vec::new(),
            under_way: None,
            latest: NewestPerKey::default(),
            records: 0,
            urgent: false,
            lazy_since: None,
            health: Health::Good,
            closing: false,
            ended: false,
            rotate: None,
            snapshot_running: false,
            snapshot_retry: None,
        };
        let numbers = Counters {
            segment: opened.at.into(),
            older_segments: opened.older_segments.into(),
            snapshot: opened.snapshot.into(),
            ..Counters::default()
        };
        Self {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            ended: Condvar::new(),
            disk,
            durability,
            limits,
            numbers,
            awaited: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            good: AtomicBool::new(true),
            holds: Holds::default(),
        }
    }

    /// Returns whether a change may be made now.
    pub(super) fn accepts(&self) -> Acceptance {
        if !self.good.load(Acquire) || self.holds.any() {
            Acceptance::Failing
        } else if self.held.load(Relaxed) > self.limits.queue {
            Acceptance::Overloaded
        } else {
            Acceptance::Accepting
        }
    }

    /// Adds the frames of one append to the queue if the limits allow it. Returns the offset of their end.
    pub(super) fn admit(
        &self,
        queue: &mut Queue,
        records: &[Record],
        admission: QueueLimit,
    ) -> Result<usize, WriteError> {
        if queue.closing {
            return Err(WriteError::Closed);
        }
        let most = format::FRAME_MAX;
        if let Some(octets) = records.iter().map(format::size).find(|octets| *octets > most) {
            return Err(WriteError::TooLarge { octets, most });
        }
        let (soft, hard) = (self.limits.queue, self.limits.queue.saturating_mul(HARD));
        let bound = match admission {
            QueueLimit::Change => {
                if let Health::Failed { why, .. } = &queue.health {
                    return Err(WriteError::Disk(why.clone()));
                }
                if self.holds.any() {
                    return Err(WriteError::RollingBack);
                }
                hard
            }
            QueueLimit::RollBack => 2 * hard,
            QueueLimit::Remark => soft,
        };
        let octets: usize = records.iter().map(format::size).sum();
        if self.held.load(Relaxed) + octets > bound {
            return Err(WriteError::Overloaded);
        }
        let Queue { frames, latest, .. } = &mut *queue;
        let before = frames.len();
        format::frames(frames, records.iter().filter(|record| latest.is_newest(record)));
        self.held.fetch_add(queue.frames.len() - before, Relaxed);
        queue.records += records.len() as u64;
        Ok(queue.frames.len())
    }

    /// Creates the refusal of an append, and counts it.
    pub(super) fn refuse(&self, why: WriteError) -> RefusedAppend {
        self.numbers.refuse(&why);
        RefusedAppend { why, hold: self.holds.give() }
    }

    /// Records that the disk fails or does not answer: refuses all appends that callers wait for, with one hold, and
    /// accepts no further change. Returns true if the disk was good before.
    pub(super) fn fail(&self, mut queue: MutexGuard<'_, Queue>, why: Arc<str>) -> bool {
        let new = queue.health == Health::Good;
        if new {
            self.numbers.failures.fetch_add(1, Relaxed);
            queue.health = Health::Failed { since: Instant::now(), why: why.clone() };
            self.good.store(false, Release);
        } else {
            queue.set_reason(why.clone());
        }
        // The hold lives until all callbacks were called; the journal cannot become good before.
        let hold = self.holds.give();
        let before = queue.frames.len();
        let taken = queue.take_awaited();
        self.held.fetch_sub(before - queue.frames.len(), Relaxed);
        let under_way = queue.under_way.as_mut().and_then(|under_way| under_way.rotate.take());
        let rotate = [under_way, queue.rotate.take()];
        queue.urgent = false;
        queue.records = 0;
        drop(queue);
        let failed = WriteError::Disk(why);
        for (done, changes) in taken {
            let fate = if changes { Err(RefusedAppend { why: failed.clone(), hold: hold.clone() }) } else { Ok(()) };
            self.tell(done, fate);
        }
        for answer in rotate.into_iter().flatten() {
            let _ = answer.send(Err(failed.clone()));
        }
        self.tell_barriers();
        new
    }

    /// Adds a barrier to the queue. If nothing is awaited, returns the callback instead, for the caller to call at
    /// once.
    pub(super) fn wait_behind(&self, queue: &mut Queue, done: OnCommit) -> Option<OnCommit> {
        if self.awaited.load(Relaxed) == 0 || queue.ended {
            return Some(done);
        }
        self.awaited.fetch_add(1, Relaxed);
        if queue.health == Health::Good {
            let end = queue.frames.len();
            queue.entries.push(Entry { end, fate: AppendState::Barrier(done) });
            queue.urgent = true;
            self.wake.notify_one();
        } else {
            // Refusals are being reported at this moment; these callbacks follow them.
            queue.barriers.push(done);
        }
        None
    }

    /// Ends a commit; `kept` octets are no longer held. Returns the work that was under way, so that the writer calls
    /// its callbacks. None if the watchdog has refused it meanwhile.
    pub(super) fn arrive(&self, kept: usize) -> Option<UnderWay> {
        let mut queue = self.queue.lock();
        if queue.health != Health::Good {
            return None;
        }
        self.held.fetch_sub(kept, Relaxed);
        queue.under_way.take()
    }

    /// Marks work other than a commit as under way: a new segment, or a check of the directory.
    pub(super) fn set_under_way(&self, rotate: Option<Rotated>) {
        let under_way = UnderWay { since: Instant::now(), entries: Vec::new(), rotate };
        self.queue.lock().under_way = Some(under_way);
    }

    /// Ends a successful trial; `kept` octets are no longer held. The journal is good again if no promised append and
    /// no hold is left. Returns true if it is good.
    pub(super) fn recover(&self, kept: usize) -> bool {
        let mut queue = self.queue.lock();
        self.held.fetch_sub(kept, Relaxed);
        queue.under_way = None;
        let recovered = queue.entries.is_empty() && !self.holds.any();
        if recovered {
            queue.health = Health::Good;
            self.good.store(true, Release);
        }
        recovered
    }

    /// Waits until the writer has ended. Returns false if the disk hangs.
    pub(super) fn wait_for_end(&self) -> bool {
        let mut queue = self.queue.lock();
        while !queue.ended && !queue.hangs(self.limits.stall) {
            // A disk that begins to hang signals nothing, so the wait needs a timeout.
            self.ended.wait_for(&mut queue, self.limits.stall / 4);
        }
        queue.ended
    }

    fn tell_barriers(&self) {
        loop {
            let barriers = std::mem::take(&mut self.queue.lock().barriers);
            if barriers.is_empty() {
                return;
            }
            barriers.into_iter().for_each(|done| self.tell(done, Ok(())));
        }
    }

    /// Calls the callback of an append. If the callback panics, the journal goes on.
    pub(super) fn tell(&self, done: OnCommit, fate: Result<(), RefusedAppend>) {
        if catch_unwind(AssertUnwindSafe(|| done(fate))).is_err() {
            tracing::error!("a callback of the journal panicked");
        }
        // Decremented last: an appender that reads 0 may then report at once without overtaking this callback.
        self.awaited.fetch_sub(1, Relaxed);
    }

    /// Asks the writer for a new segment, for a snapshot. Only one snapshot runs at a time.
    pub(super) fn ask_to_rotate(&self, answer: Rotated) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Err(WriteError::Closed.into());
        }
        if queue.snapshot_running {
            return Err(JournalError::SnapshotRunning);
        }
        if let Health::Failed { why, .. } = &queue.health {
            return Err(WriteError::Disk(why.clone()).into());
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
        Stats {
            queued: self.held.load(Relaxed),
            good: self.good.load(Acquire),
            awaited: self.awaited.load(Relaxed),
            failures: numbers.failures.load(Relaxed),
            repaired: numbers.repaired.load(Relaxed),
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

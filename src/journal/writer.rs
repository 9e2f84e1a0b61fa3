//! Writer thread: group commit, with one write and one fdatasync for everything that was queued meanwhile.
//!
//! The segment is known to be durable up to `synced`. Promised frames beyond that (of relaxed and deferred appends)
//! stay in memory until an fdatasync succeeds. After a failed fdatasync the kernel may have dropped the pages, and
//! report success the next time. So recovery always truncates the file to `synced` and writes the rest again.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::MutexGuard;

use super::{
    Durability, JournalError,
    disk::DiskFile,
    format::{self, Kind},
    queue::{AppendState, Entry, Queue, Shared, UnderWay, promised},
    store::{self, Opened},
};
use crate::util::log_limit::LogLimiter;

/// Time of a commit from which it is logged as slow: after two of them phones begin to retransmit (T1 is 500 ms).
const SLOW: Duration = Duration::from_millis(250);
/// Interval at which it is checked whether the refused changes are rolled back.
const ROLLED_BACK_LOOK: Duration = Duration::from_millis(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    number: u64,
    synced: u64,
    /// Promised frames after `synced`: written and not yet synced, or, on a failing disk, still to be written.
    tail: Vec<u8>,
    tail_since: Option<Instant>,
    /// Start of the latest commit.
    begun: Option<Instant>,
    /// Time of the next trial of a failing disk; none while the disk is good.
    probe_at: Option<Instant>,
    /// True if a failing disk has taken a whole trial write; only rollbacks are missing then.
    mended: bool,
    /// Time of the next check that the directory is still at its path.
    look_at: Instant,
    slow: LogLimiter,
    /// Octets of the latest commit: a MARK, if it follows a sync, and the frames.
    written: Vec<u8>,
    /// Octets of the MARK among the written and unsynced octets; the queue does not count it.
    mark: usize,
    /// Emptied buffers of the last commit, for reuse: no allocations in a steady state.
    spare: (Vec<u8>, Vec<Entry>),
}

/// Content of one commit. Its entries are in the shared state meanwhile; see [`UnderWay`].
struct Batch {
    frames: Vec<u8>,
    records: u64,
    rotate: bool,
    closing: bool,
    crowded: bool,
}

/// Guard that signals the end of the writer thread, even after a panic.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.ended.notify_all();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, opened: Opened) -> Self {
        let Opened { file, number, at, .. } = opened;
        let spare = (Vec::new(), Vec::new());
        Self {
            shared,
            file,
            number,
            synced: at,
            tail: Vec::new(),
            tail_since: None,
            begun: None,
            probe_at: None,
            mended: false,
            look_at: Instant::now(),
            slow: LogLimiter::new(),
            written: Vec::new(),
            mark: 0,
            spare,
        }
    }

    /// Runs until the journal is closed.
    pub(super) fn run(mut self) {
        let _ending = Ending(self.shared.clone());
        loop {
            let closing = if self.probe_at.is_some() {
                let closing = self.wait_to_probe();
                self.probe();
                closing
            } else if self.look_at <= Instant::now() {
                self.look();
                false
            } else if let Some(batch) = self.take() {
                let closing = batch.closing;
                self.commit(batch);
                // If this last commit failed, the promised appends get one more trial.
                closing && self.probe_at.is_none()
            } else {
                false
            };
            if closing && self.is_done() {
                return;
            }
        }
    }

    /// Returns true if a journal that is being closed has nothing left to do; a barrier may have been added after the
    /// last commit. Rollbacks that are missing on a failing disk are not waited for.
    fn is_done(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        queue.ended = self.probe_at.is_some() || queue.entries.is_empty();
        queue.ended
    }

    /// Checks that the directory is still at its path. If it was moved or removed, the next start would not find what
    /// is written into it.
    fn look(&mut self) {
        self.look_at = Instant::now() + self.shared.limits.look_every;
        self.shared.set_under_way(None);
        match self.shared.disk.check_place() {
            Ok(()) if self.shared.arrive(0).is_some() => {}
            Ok(()) => self.recover_later(&[], Duration::ZERO),
            Err(e) => {
                self.refuse(&e);
                self.recover_later(&[], self.shared.limits.probe_every);
            }
        }
    }

    /// Waits for work and takes all of it; none if the directory has to be checked first.
    fn take(&mut self) -> Option<Batch> {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        loop {
            let held = shared.held.load(Relaxed);
            let crowded = held > shared.limits.queue / 2;
            let hurried = queue.closing || queue.rotate.is_some() || (crowded && held > 0);
            let early = self.begun.and_then(|begun| shared.limits.apart.checked_sub(begun.elapsed()));
            if let Some(early) = early.filter(|_| queue.urgent && !hurried) {
                // No signal is needed: the sleep collects appends for a shared commit.
                MutexGuard::unlocked(&mut queue, || std::thread::sleep(early));
                self.begun = None;
                continue;
            }
            if queue.urgent || hurried {
                return Some(self.take_from(&mut queue, crowded));
            }
            let since = [queue.lazy_since, self.tail_since].into_iter().flatten().min();
            let (due, now) = (since.map(|since| since + shared.limits.within), Instant::now());
            if due.is_some_and(|due| due <= now) {
                return Some(self.take_from(&mut queue, crowded));
            }
            if self.look_at <= now {
                return None;
            }
            shared.wake.wait_until(&mut queue, due.map_or(self.look_at, |due| due.min(self.look_at)));
        }
    }

    fn take_from(&mut self, queue: &mut Queue, crowded: bool) -> Batch {
        let (frames, entries) = std::mem::take(&mut self.spare);
        let now = Instant::now();
        self.begun = Some(now);
        queue.urgent = false;
        queue.lazy_since = None;
        let rotate = queue.rotate.take();
        let batch = Batch {
            frames: std::mem::replace(&mut queue.frames, frames),
            records: std::mem::take(&mut queue.records),
            rotate: rotate.is_some(),
            closing: queue.closing,
            crowded,
        };
        let entries = std::mem::replace(&mut queue.entries, entries);
        queue.under_way = Some(UnderWay { since: now, entries, rotate });
        batch
    }

    fn commit(&mut self, mut batch: Batch) {
        let began = Instant::now();
        let overdue = self.tail_since.is_some_and(|since| since + self.shared.limits.within <= began);
        let sync =
            self.shared.durability == Durability::Strict || overdue || batch.rotate || batch.closing || batch.crowded;
        if let Err(e) = self.write(&batch.frames, sync) {
            return self.fail(&e, &batch.frames);
        }
        let kept = if sync { self.tail.len() + self.written.len() } else { 0 };
        let Some(UnderWay { mut entries, rotate, .. }) = self.shared.arrive(kept.saturating_sub(self.mark)) else {
            // The watchdog has refused it already. Recovery truncates what it has written.
            return self.recover_later(&batch.frames, Duration::ZERO);
        };
        let numbers = &self.shared.numbers;
        if !batch.frames.is_empty() {
            numbers.records.fetch_add(batch.records, Relaxed);
            numbers.octets.fetch_add(self.written.len() as u64, Relaxed);
            numbers.commits.fetch_add(1, Relaxed);
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            numbers.last_commit_nanos.store(nanos, Relaxed);
            numbers.took.count(nanos / 1_000);
            numbers.batches.count(batch.records);
            self.warn_slow_commit(began.elapsed(), &batch);
        }
        if sync {
            self.synced += kept as u64;
            self.tail.clear();
            self.tail_since = None;
            self.mark = 0;
        } else {
            self.tail.extend_from_slice(&self.written);
            self.tail_since = self.tail_since.or(Some(began));
        }
        self.count_segment();
        for entry in entries.drain(..) {
            if let AppendState::Awaited(done) | AppendState::Barrier(done) = entry.fate {
                self.shared.tell(done, Ok(()));
            }
        }
        batch.frames.clear();
        self.spare = (batch.frames, entries);
        if let Some(answer) = rotate {
            self.shared.set_under_way(Some(answer));
            self.rotate();
        }
    }

    fn warn_slow_commit(&self, took: Duration, batch: &Batch) {
        if took >= SLOW
            && let Some(more) = self.slow.check()
        {
            let (ms, records, octets) = (took.as_millis() as u64, batch.records, batch.frames.len());
            let dir = self.shared.disk.dir().display();
            tracing::warn!(%dir, ms, records, octets, more, "the disk is slow; every response waits for it");
        }
    }

    fn write(&mut self, frames: &[u8], sync: bool) -> io::Result<()> {
        self.written.clear();
        if !frames.is_empty() {
            if self.tail.is_empty() {
                format::mark(&mut self.written, self.synced);
                self.mark = self.written.len();
            }
            self.written.extend_from_slice(frames);
            self.file.write_at(&self.written, self.synced + self.tail.len() as u64)?;
        }
        if sync && self.tail.len() + self.written.len() > 0 {
            self.file.sync()?;
        }
        Ok(())
    }

    /// Completes the segment and begins the next, unless it is empty. Answers the snapshot that asked for it.
    fn rotate(&mut self) {
        if let Err(e) = self.begin_segment() {
            // Recovery truncates a partly written END.
            return self.fail(&e, &[]);
        }
        self.count_segment();
        match self.shared.arrive(0) {
            // The snapshot may have been dropped; the new segment is used anyway.
            Some(UnderWay { rotate: Some(answer), .. }) => drop(answer.send(Ok(self.number))),
            Some(_) => {}
            None => self.recover_later(&[], Duration::ZERO),
        }
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        if self.synced == format::HEADER as u64 {
            return Ok(());
        }
        let (disk, name) = (self.shared.disk.clone(), Kind::Log.name(self.number));
        let mut end = Vec::new();
        format::end(&mut end, self.synced);
        self.file.write_at(&end, self.synced).map_err(JournalError::on("write", disk.dir(), &name))?;
        self.file.sync().map_err(JournalError::on("sync", disk.dir(), &name))?;
        let next = self.number + 1;
        let file = store::create_log(&*disk, next).inspect_err(|_| {
            // `store::open` handles the file if it stays; this only tidies up.
            let _ = disk.remove(&Kind::Log.name(next));
        })?;
        self.shared.numbers.older_segments.fetch_add(self.synced + end.len() as u64, Relaxed);
        (self.file, self.number, self.synced) = (file, next, format::HEADER as u64);
        Ok(())
    }

    /// Handles a failed commit: refuses all appends that callers wait for, keeps the promised ones, and begins trials.
    fn fail(&mut self, why: &dyn ToString, frames: &[u8]) {
        // Frees the disk space, and removes what is about to be refused.
        let _ = self.file.set_len(self.synced);
        self.refuse(why);
        self.recover_later(frames, self.shared.limits.probe_every);
    }

    fn refuse(&self, why: &dyn ToString) {
        let why: Arc<str> = why.to_string().into();
        let dir = self.shared.disk.dir().display();
        tracing::error!(%dir, %why, "the journal cannot be written; retrying");
        self.shared.fail(self.shared.queue.lock(), why);
    }

    /// Keeps the promised frames of the batch under way, and begins trials. The other appends have been refused
    /// already.
    fn recover_later(&mut self, frames: &[u8], pause: Duration) {
        let mut queue = self.shared.queue.lock();
        let under_way = queue.under_way.take();
        if let Some(under_way) = &under_way {
            promised(frames, &under_way.entries, |frame| self.tail.extend_from_slice(frame));
        }
        self.shared.held.store(self.tail.len() + queue.frames.len(), Relaxed);
        drop(queue);
        self.mark = 0;
        self.mended = false;
        self.probe_at = Some(Instant::now() + pause);
    }

    fn wait_to_probe(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        while let Some(at) = self.probe_at
            && !queue.closing
            && Instant::now() < at
        {
            self.shared.wake.wait_until(&mut queue, at);
        }
        queue.closing
    }

    /// Tries the disk with a write as large as a busy commit, then writes the promised frames. The journal is good once
    /// this succeeds and every refused change is rolled back.
    fn probe(&mut self) {
        self.take_promised();
        if let Err(e) = self.try_again() {
            let _ = self.file.set_len(self.synced);
            self.mended = false;
            self.probe_at = Some(Instant::now() + self.shared.limits.probe_every);
            let mut queue = self.shared.queue.lock();
            queue.under_way = None;
            return queue.set_reason(e.to_string().into());
        }
        let kept = std::mem::take(&mut self.tail).len();
        self.synced += kept as u64;
        self.tail_since = None;
        self.mended = true;
        self.count_segment();
        if self.shared.recover(kept) {
            self.probe_at = None;
            tracing::info!(dir = %self.shared.disk.dir().display(), "the journal can be written again");
        } else {
            self.probe_at = Some(Instant::now() + ROLLED_BACK_LOOK);
        }
    }

    /// Moves the frames that were promised since the failure behind those that were promised before it.
    fn take_promised(&mut self) {
        let mut queue = self.shared.queue.lock();
        self.tail.append(&mut queue.frames);
        queue.entries.clear();
        queue.lazy_since = None;
        queue.urgent = false;
        queue.records = 0;
        queue.under_way = Some(UnderWay { since: Instant::now(), entries: Vec::new(), rotate: None });
    }

    fn try_again(&mut self) -> io::Result<()> {
        self.shared.disk.check_place()?;
        if !self.mended {
            self.file.set_len(self.synced)?;
            // Zeros are not a frame, so a crash during the trial leaves a torn tail.
            self.file.write_at(&vec![0; self.shared.limits.probe], self.synced)?;
            self.file.sync()?;
            self.file.set_len(self.synced)?;
        }
        if !self.tail.is_empty() || !self.mended {
            self.file.write_at(&self.tail, self.synced)?;
            self.file.sync()?;
        }
        Ok(())
    }

    fn count_segment(&self) {
        self.shared.numbers.segment.store(self.synced + self.tail.len() as u64, Relaxed);
    }
}

//! The thread that writes: one write and one fdatasync for all that was queued meanwhile.
//!
//! A segment is known to be good up to `synced`. What was promised beyond that (relaxed and lazy appends) is kept in
//! memory until an fdatasync succeeds, because after a failed one the kernel may have thrown its pages away and will
//! say yes the next time. So recovery always begins by cutting the file at `synced` and writing the rest anew.

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
    queue::{Entry, Fate, Queue, Shared, UnderWay, promised},
    store::{self, Opened},
};
use crate::seldom::Seldom;

/// A commit that takes so long is told of: two of them, and phones begin to repeat themselves (T1 is 500 ms).
const SLOW: Duration = Duration::from_millis(250);
/// How often it is looked whether the changes that were refused are rolled back.
const ROLLED_BACK_LOOK: Duration = Duration::from_millis(5);

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Box<dyn DiskFile>,
    number: u64,
    synced: u64,
    /// Promised frames after `synced`: written and not yet synced, or, on a failing disk, still to be written.
    tail: Vec<u8>,
    tail_since: Option<Instant>,
    /// When the latest commit began.
    begun: Option<Instant>,
    /// When a failing disk is tried next.
    probe_at: Option<Instant>,
    /// A failing disk has taken a whole probe: what is left are roll-backs.
    mended: bool,
    /// When it is looked next whether the directory is in its place.
    look_at: Instant,
    slow: Seldom,
    /// What the latest commit has written: a mark, if it follows a sync, and the frames.
    written: Vec<u8>,
    /// Octets of the mark that begins what is written and not synced: the queue does not count it.
    mark: usize,
    /// Emptied buffers of the last commit, so that a steady state allocates nothing.
    spare: (Vec<u8>, Vec<Entry>),
}

/// What is written at once. Its entries are in the shared state meanwhile; see [`UnderWay`].
struct Batch {
    frames: Vec<u8>,
    records: u64,
    rotate: bool,
    closing: bool,
    crowded: bool,
}

/// Tells those who wait for the writer's end, however it ends.
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
            slow: Seldom::new(),
            written: Vec::new(),
            mark: 0,
            spare,
        }
    }

    /// Writes until the journal is closed.
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
                // If this very commit failed, what was promised gets one more chance.
                closing && self.probe_at.is_none()
            } else {
                false
            };
            if closing && self.is_done() {
                return;
            }
        }
    }

    /// Whether a journal that closes has nothing left to do: a barrier may have come behind the last commit. Roll-backs
    /// that a failing disk still owes are not waited for.
    fn is_done(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        queue.ended = self.probe_at.is_some() || queue.entries.is_empty();
        queue.ended
    }

    /// Looks whether the directory is still in its place. What is written into one that was moved or removed would not be
    /// found by the next start.
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

    /// Waits until there is something to write, and takes all of it; none if it is time to look at the directory first.
    fn take(&mut self) -> Option<Batch> {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        loop {
            let held = shared.held.load(Relaxed);
            let crowded = held > shared.limits.queue / 2;
            let hurried = queue.closing || queue.rotate.is_some() || (crowded && held > 0);
            let early = self.begun.and_then(|begun| shared.limits.apart.checked_sub(begun.elapsed()));
            if let Some(early) = early.filter(|_| queue.urgent && !hurried) {
                // Nobody need wake us: whatever comes meanwhile is what we wait for.
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
            // The watchdog has refused it already. What that leaves on the disk is cut off again.
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
            self.complain_of_slowness(began.elapsed(), &batch);
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
            if let Fate::Awaited(done) | Fate::Barrier(done) = entry.fate {
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

    fn complain_of_slowness(&self, took: Duration, batch: &Batch) {
        if took >= SLOW
            && let Some(more) = self.slow.may_say()
        {
            let (ms, records, octets) = (took.as_millis() as u64, batch.records, batch.frames.len());
            let dir = self.shared.disk.dir().display();
            tracing::warn!(%dir, ms, records, octets, more, "the disk is slow; every answer waits for it");
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

    /// Completes the segment and begins the next, unless there is nothing in it, and answers the snapshot that asked.
    fn rotate(&mut self) {
        if let Err(e) = self.begin_segment() {
            // Recovery cuts the end off again.
            return self.fail(&e, &[]);
        }
        self.count_segment();
        match self.shared.arrive(0) {
            // The snapshot may be given up; then the new segment is simply where writing goes on.
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
            // `store::open` copes with it if it stays; this only keeps the directory tidy.
            let _ = disk.remove(&Kind::Log.name(next));
        })?;
        self.shared.numbers.older_segments.fetch_add(self.synced + end.len() as u64, Relaxed);
        (self.file, self.number, self.synced) = (file, next, format::HEADER as u64);
        Ok(())
    }

    /// Has all refused that waits, keeps what was promised, and turns to probing.
    fn fail(&mut self, why: &dyn ToString, frames: &[u8]) {
        // Gives room back, and takes away what is about to be refused.
        let _ = self.file.set_len(self.synced);
        self.refuse(why);
        self.recover_later(frames, self.shared.limits.probe_every);
    }

    fn refuse(&self, why: &dyn ToString) {
        let why: Arc<str> = why.to_string().into();
        let dir = self.shared.disk.dir().display();
        tracing::error!(%dir, %why, "the journal cannot be written; trying on");
        self.shared.fail(self.shared.queue.lock(), why);
    }

    /// After what waited was refused: keeps what was promised of the batch that was under way, and turns to probing.
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

    /// Tries whether the disk takes a busy commit again, and what was promised. All is good once it has taken that, and
    /// every change that was refused is rolled back.
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
            tracing::info!(dir = %self.shared.disk.dir().display(), "the journal is written again");
        } else {
            self.probe_at = Some(Instant::now() + ROLLED_BACK_LOOK);
        }
    }

    /// What was promised since the failure goes after what was promised before it.
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
            // Zeros are no frame: a crash amid the probe leaves a tail to cut.
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

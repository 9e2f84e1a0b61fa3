//! The thread that writes: one write and one fdatasync for all that was queued meanwhile.
//!
//! A segment is known to be good up to `synced`. What was promised beyond that (relaxed and lazy appends) is kept in
//! memory until an fdatasync succeeds, because after a failed one the kernel may have thrown its pages away and will
//! say yes the next time. So recovery always begins by cutting the file at `synced` and writing the rest anew.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::MutexGuard;

use super::{
    Durability, Health, WriteFailed,
    disk::DiskFile,
    format::{self, Kind},
    queue::{Entry, Queue, Rotated, Shared},
    store::{self, Opened},
};
use crate::seldom::Seldom;

/// A commit that takes so long is told of: two of them, and phones begin to repeat themselves (T1 is 500 ms).
const SLOW: Duration = Duration::from_millis(250);

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
    slow: Seldom,
    /// Emptied buffers of the last commit, so that a steady state allocates nothing.
    spare: (Vec<u8>, Vec<Entry>),
}

struct Batch {
    frames: Vec<u8>,
    entries: Vec<Entry>,
    records: u64,
    rotate: Option<Rotated>,
    closing: bool,
    crowded: bool,
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
            slow: Seldom::new(),
            spare,
        }
    }

    /// Writes until the journal is closed.
    pub(super) fn run(mut self) {
        loop {
            let closing = if self.probe_at.is_some() {
                let closing = self.wait_to_probe();
                self.probe();
                closing && self.probe_at.is_some()
            } else {
                let batch = self.take();
                let closing = batch.closing;
                self.commit(batch);
                // If this very commit failed, what was promised gets one more chance.
                closing && self.probe_at.is_none()
            };
            if closing {
                return;
            }
        }
    }

    /// Waits until there is something to do, and takes all of it.
    fn take(&mut self) -> Batch {
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        loop {
            let crowded = queue.held > shared.limits.queue / 2;
            let hurried = queue.closing || queue.rotate.is_some() || (crowded && queue.held > 0);
            let early = self.begun.and_then(|begun| shared.limits.apart.checked_sub(begun.elapsed()));
            if let Some(early) = early.filter(|_| queue.urgent && !hurried) {
                // Nobody need wake us: whatever comes meanwhile is what we wait for.
                MutexGuard::unlocked(&mut queue, || std::thread::sleep(early));
                self.begun = None;
                continue;
            }
            if queue.urgent || hurried {
                return self.take_from(&mut queue, crowded);
            }
            let since = [queue.lazy_since, self.tail_since].into_iter().flatten().min();
            match since.map(|since| since + shared.limits.within) {
                Some(due) if due <= Instant::now() => return self.take_from(&mut queue, crowded),
                Some(due) => drop(shared.wake.wait_until(&mut queue, due)),
                None => shared.wake.wait(&mut queue),
            }
        }
    }

    fn take_from(&mut self, queue: &mut Queue, crowded: bool) -> Batch {
        let (frames, entries) = std::mem::take(&mut self.spare);
        self.begun = Some(Instant::now());
        queue.urgent = false;
        queue.lazy_since = None;
        Batch {
            frames: std::mem::replace(&mut queue.frames, frames),
            entries: std::mem::replace(&mut queue.entries, entries),
            records: std::mem::take(&mut queue.records),
            rotate: queue.rotate.take(),
            closing: queue.closing,
            crowded,
        }
    }

    fn commit(&mut self, mut batch: Batch) {
        let began = Instant::now();
        let overdue = self.tail_since.is_some_and(|since| since + self.shared.limits.within <= began);
        let sync = self.shared.durability == Durability::Strict
            || overdue
            || batch.rotate.is_some()
            || batch.closing
            || batch.crowded;
        if let Err(e) = self.write(&batch.frames, sync) {
            return self.fail(&e, batch);
        }
        let numbers = &self.shared.numbers;
        if !batch.frames.is_empty() {
            numbers.records.fetch_add(batch.records, Relaxed);
            numbers.octets.fetch_add(batch.frames.len() as u64, Relaxed);
            numbers.commits.fetch_add(1, Relaxed);
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            numbers.last_commit_nanos.store(nanos, Relaxed);
            numbers.took.count(nanos / 1_000);
            numbers.batches.count(batch.records);
            self.complain_of_slowness(began.elapsed(), &batch);
        }
        if sync {
            let kept = self.tail.len() + batch.frames.len();
            self.synced += kept as u64;
            self.tail.clear();
            self.tail_since = None;
            self.shared.queue.lock().held -= kept;
        } else {
            self.tail.extend_from_slice(&batch.frames);
            self.tail_since = self.tail_since.or(Some(began));
        }
        self.count_segment();
        for entry in batch.entries.drain(..) {
            self.tell(entry, Ok(()));
        }
        if let Some(answer) = batch.rotate {
            let rotated = self.rotate();
            // Whoever asked may be gone; then the new segment is simply where writing goes on.
            let _ = answer.send(rotated);
        }
        batch.frames.clear();
        self.spare = (batch.frames, batch.entries);
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
        if !frames.is_empty() {
            self.file.write_at(frames, self.synced + self.tail.len() as u64)?;
        }
        if sync && self.tail.len() + frames.len() > 0 {
            self.file.sync()?;
        }
        Ok(())
    }

    /// Completes the segment and begins the next, unless there is nothing in it.
    fn rotate(&mut self) -> Result<u64, WriteFailed> {
        if self.synced == format::HEADER as u64 {
            return Ok(self.number);
        }
        let next = self.number + 1;
        let mut end = Vec::new();
        format::end(&mut end, self.synced);
        let done = self.file.write_at(&end, self.synced).and_then(|()| self.file.sync());
        let made = done.map_err(|e| e.to_string()).and_then(|()| {
            store::create_log(&*self.shared.disk, next).map_err(|e| {
                // `store::open` copes with it if it stays; this only keeps the directory tidy.
                let _ = self.shared.disk.remove(&Kind::Log.name(next));
                e.to_string()
            })
        });
        match made {
            Ok(file) => {
                let numbers = &self.shared.numbers;
                numbers.older_segments.fetch_add(self.synced + end.len() as u64, Relaxed);
                (self.file, self.number, self.synced) = (file, next, format::HEADER as u64);
                self.count_segment();
                Ok(next)
            }
            Err(why) => {
                // Recovery cuts the end off again.
                let nothing = Batch {
                    frames: Vec::new(),
                    entries: Vec::new(),
                    records: 0,
                    rotate: None,
                    closing: false,
                    crowded: false,
                };
                self.fail(&why, nothing);
                Err(WriteFailed::Disk(why.into()))
            }
        }
    }

    /// Tells whoever waits that it failed, keeps what was promised, and turns to probing.
    fn fail(&mut self, why: &dyn ToString, batch: Batch) {
        let why: Arc<str> = why.to_string().into();
        self.shared.numbers.failures.fetch_add(1, Relaxed);
        tracing::error!(dir = %self.shared.disk.dir().display(), %why, "the journal cannot be written; trying on");
        // Gives room back, and takes away what is about to be refused.
        let _ = self.file.set_len(self.synced);
        let mut refused = Vec::new();
        self.keep_promised(&batch.frames, batch.entries, &mut refused);
        let rotate = {
            let shared = self.shared.clone();
            let mut queue = shared.queue.lock();
            queue.health = Health::Failed { since: Instant::now(), why: why.clone() };
            queue.latest.forget();
            let later = self.take_from(&mut queue, false);
            self.keep_promised(&later.frames, later.entries, &mut refused);
            queue.held = self.tail.len();
            later.rotate
        };
        self.probe_at = Some(Instant::now() + self.shared.limits.probe_every);
        let error = WriteFailed::Disk(why);
        for entry in refused {
            self.tell(entry, Err(error.clone()));
        }
        for answer in [batch.rotate, rotate].into_iter().flatten() {
            let _ = answer.send(Err(error.clone()));
        }
    }

    fn keep_promised(&mut self, frames: &[u8], entries: Vec<Entry>, refused: &mut Vec<Entry>) {
        let mut start = 0;
        for entry in entries {
            let frame = start..entry.end;
            start = entry.end;
            if entry.done.is_some() {
                refused.push(entry);
            } else {
                self.tail.extend_from_slice(&frames[frame]);
            }
        }
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

    /// Tries whether the disk takes a busy commit again, and what was promised; if so, all is good.
    fn probe(&mut self) {
        match self.try_again() {
            Ok(()) => {
                self.synced += self.tail.len() as u64;
                self.probe_at = None;
                let mut queue = self.shared.queue.lock();
                queue.held -= self.tail.len();
                queue.health = Health::Good;
                drop(queue);
                self.tail = Vec::new();
                self.tail_since = None;
                self.count_segment();
                tracing::info!(dir = %self.shared.disk.dir().display(), "the journal is written again");
            }
            Err(e) => {
                let _ = self.file.set_len(self.synced);
                self.probe_at = Some(Instant::now() + self.shared.limits.probe_every);
                let why: Arc<str> = e.to_string().into();
                if let Health::Failed { why: now, .. } = &mut self.shared.queue.lock().health {
                    *now = why;
                }
            }
        }
    }

    fn try_again(&mut self) -> io::Result<()> {
        self.file.set_len(self.synced)?;
        // Zeros are no frame: a crash amid the probe leaves a tail to cut.
        self.file.write_at(&vec![0; self.shared.limits.probe], self.synced)?;
        self.file.sync()?;
        self.file.set_len(self.synced)?;
        self.file.write_at(&self.tail, self.synced)?;
        self.file.sync()
    }

    fn count_segment(&self) {
        self.shared.numbers.segment.store(self.synced + self.tail.len() as u64, Relaxed);
    }
}

impl Writer {
    /// Tells whoever waits. A callback that panics must not take the journal with it.
    fn tell(&self, entry: Entry, fate: Result<(), WriteFailed>) {
        let Some(done) = entry.done else { return };
        if catch_unwind(AssertUnwindSafe(|| done(fate))).is_err() {
            tracing::error!("a callback of the journal panicked");
        }
        // Only now: whoever finds nobody waiting comes after those who were told.
        self.shared.awaited.fetch_sub(1, Relaxed);
    }
}

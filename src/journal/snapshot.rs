//! Snapshots: images of the current state that replace the log before them (compaction).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;

use super::{
    JournalError, Key, WriteError,
    disk::{Disk, DiskFile},
    format::{self, Kind},
    queue::Shared,
    store::TMP,
};

/// Size at which a frame of the snapshot is closed (octets): so large that its head does not matter, so small that it
/// stays in the CPU cache.
const FRAME: usize = 64 << 10;
/// Octets between two fdatasyncs. A single one at the end would delay those of the log for as long as it takes.
const SYNC_EVERY: u64 = 8 << 20;

/// Snapshot that is being written. Dropping it unfinished discards it.
pub struct Snapshot {
    shared: Arc<Shared>,
    image: Image,
    ended: bool,
}

impl Snapshot {
    pub(super) fn begin(shared: Arc<Shared>, rotated: Result<u64, WriteError>) -> Result<Self, JournalError> {
        match rotated.map_err(JournalError::from).and_then(|number| Image::begin(shared.disk.clone(), number)) {
            Ok(image) => Ok(Self { shared, image, ended: false }),
            Err(e) => {
                shared.snapshot_ended(false);
                Err(e)
            }
        }
    }

    /// Writes a part of the current state. If a key is written twice, the later value counts.
    ///
    /// # Errors
    /// When the disk fails. The snapshot is useless then and has to be dropped.
    pub fn write(&mut self, records: impl IntoIterator<Item = (Key, Bytes)>) -> Result<(), JournalError> {
        self.image.write(records)
    }

    /// Makes the snapshot durable and removes the files that it replaces.
    ///
    /// # Errors
    /// When the disk fails. Nothing is lost then, but the log grows until the next snapshot.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.image.finish()?;
        self.ended = true;
        self.shared.numbers.snapshot.store(self.image.at, Relaxed);
        self.shared.numbers.older_segments.store(0, Relaxed);
        self.shared.snapshot_ended(true);
        self.image.remove_older()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.ended {
            // Frees the disk space now; if that fails, the next start does it.
            let _ = self.shared.disk.remove(&temporary(self.image.number));
            self.shared.snapshot_ended(false);
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("number", &self.image.number)
            .field("octets", &self.image.at)
            .finish_non_exhaustive()
    }
}

/// File of a snapshot. It works on any disk and without the writer thread, so repair and simulator use it too.
pub(super) struct Image {
    disk: Arc<dyn Disk>,
    number: u64,
    file: Box<dyn DiskFile>,
    at: u64,
    synced: u64,
    buffer: Vec<u8>,
}

impl Image {
    /// Begins the snapshot that replaces the segments before `number`.
    pub(super) fn begin(disk: Arc<dyn Disk>, number: u64) -> Result<Self, JournalError> {
        let name = temporary(number);
        let file = disk.create(&name).map_err(JournalError::on("create", disk.dir(), &name))?;
        Ok(Self { disk, number, file, at: 0, synced: 0, buffer: format::header(Kind::Snapshot, number).to_vec() })
    }

    pub(super) fn write(&mut self, records: impl IntoIterator<Item = (Key, Bytes)>) -> Result<(), JournalError> {
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut octets = 0;
            format::frame(&mut self.buffer, |out| {
                let start = out.len();
                while octets < FRAME
                    && let Some((key, value)) = records.next()
                {
                    format::put(out, key, Some(&value));
                    octets = out.len() - start;
                }
            });
            if self.buffer.len() >= 4 * FRAME {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let (dir, name) = (self.disk.dir(), temporary(self.number));
        self.file.write_at(&self.buffer, self.at).map_err(JournalError::on("write", dir, &name))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        if self.at - self.synced >= SYNC_EVERY {
            self.file.sync().map_err(JournalError::on("sync", dir, &name))?;
            self.synced = self.at;
        }
        Ok(())
    }

    /// Completes the file and gives it its final name, which is durable when this returns.
    pub(super) fn finish(&mut self) -> Result<(), JournalError> {
        let end = self.at + self.buffer.len() as u64;
        format::end(&mut self.buffer, end);
        self.flush()?;
        let (disk, dir) = (&self.disk, self.disk.dir());
        let (from, to) = (temporary(self.number), Kind::Snapshot.name(self.number));
        self.file.sync().map_err(JournalError::on("sync", dir, &from))?;
        disk.rename(&from, &to).map_err(JournalError::on("rename", dir, &from))?;
        disk.sync_names().map_err(|e| JournalError::io("sync", dir, e))
    }

    /// Removes the files that the snapshot replaces. After a crash or an error here, the next snapshot or start removes
    /// the rest.
    pub(super) fn remove_older(&self) -> Result<(), JournalError> {
        let (disk, dir) = (&self.disk, self.disk.dir());
        for (name, _) in disk.list().map_err(|e| JournalError::io("list", dir, e))? {
            if Kind::parse(&name).is_some_and(|(_, number)| number < self.number) {
                disk.remove(&name).map_err(JournalError::on("remove", dir, &name))?;
            }
        }
        Ok(())
    }
}

fn temporary(number: u64) -> String {
    Kind::Snapshot.name(number) + TMP
}

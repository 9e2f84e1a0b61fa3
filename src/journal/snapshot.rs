//! The image of the live state that takes the place of the log before it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;

use super::{
    JournalError, Key, WriteFailed,
    disk::{Disk, DiskFile},
    format::{self, Kind},
    queue::Shared,
    store::TMP,
};

/// A frame of the image is closed at this size: large enough for its head not to matter, small enough for the cache.
const FRAME: usize = 64 << 10;
/// How much is written between two fdatasyncs: one at the very end would stall the log's own for as long as it takes.
const SYNC_EVERY: u64 = 8 << 20;

/// An image being written. Dropped unfinished it is as if it had never been begun.
pub struct Snapshot {
    shared: Arc<Shared>,
    image: Image,
    ended: bool,
}

impl Snapshot {
    pub(super) fn begin(shared: Arc<Shared>, rotated: Result<u64, WriteFailed>) -> Result<Self, JournalError> {
        match rotated.map_err(JournalError::from).and_then(|number| Image::begin(shared.disk.clone(), number)) {
            Ok(image) => Ok(Self { shared, image, ended: false }),
            Err(e) => {
                shared.snapshot_ended(false);
                Err(e)
            }
        }
    }

    /// Writes a piece of the live state; of a key that comes twice the later word holds.
    ///
    /// # Errors
    /// When the disk refuses. The image is then worth nothing: drop it.
    pub fn write(&mut self, records: impl IntoIterator<Item = (Key, Bytes)>) -> Result<(), JournalError> {
        self.image.write(records)
    }

    /// Makes the image last, and removes what it replaces.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost then, and the log goes on growing until the next snapshot.
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
            // Gives its room back now; if that fails, the next start does it.
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

/// The file of an image, on any disk and in anybody's service.
pub(super) struct Image {
    disk: Arc<dyn Disk>,
    number: u64,
    file: Box<dyn DiskFile>,
    at: u64,
    synced: u64,
    buffer: Vec<u8>,
}

impl Image {
    /// Begins the image that takes the place of the segments before this one.
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

    /// Completes it and gives it its name, which lasts when this returns.
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

    /// Removes what it has replaced. A crash or an error here leaves files that the next snapshot or start removes.
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

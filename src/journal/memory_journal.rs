//! In-memory journal without a thread: its owner decides when it is written and synced. Format and recovery are the
//! code of the real journal, so the simulator can crash it at any octet, in virtual time.

use std::sync::Arc;

use super::{
    JournalError, Record, Recovered,
    disk::{Disk, DiskFile},
    format::{self, Kind},
    mem_disk::{CrashOutcome, MemDisk, torn},
    snapshot::Image,
    store,
};
use crate::journal::Key;
use bytes::Bytes;

/// Journal on an in-memory disk.
pub(crate) struct MemoryJournal {
    disk: MemDisk,
    file: Box<dyn DiskFile>,
    number: u64,
    synced: u64,
    /// Frames appended since the last sync.
    batch: Vec<u8>,
    image: Option<Image>,
}

impl MemoryJournal {
    /// Creates an empty journal.
    pub(crate) fn new() -> Result<MemoryJournal, JournalError> {
        MemoryJournal::open(MemDisk::default()).map(|(tape, _)| tape)
    }

    fn open(disk: MemDisk) -> Result<(MemoryJournal, Recovered), JournalError> {
        let (opened, recovered) = store::open(&disk)?;
        let (file, number, synced) = (opened.file, opened.number, opened.at);
        Ok((MemoryJournal { disk, file, number, synced, batch: Vec::new(), image: None }, recovered))
    }

    /// Adds the frame of one append to the batch that the next [`MemoryJournal::sync`] makes durable. Returns the offset of its
    /// end in the batch.
    pub(crate) fn append(&mut self, records: &[Record]) -> usize {
        format::frame(&mut self.batch, |out| {
            for record in records {
                format::put(out, record.key, record.value.as_deref());
            }
        });
        self.batch.len()
    }

    /// Makes all appends so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        let batch = std::mem::take(&mut self.batch);
        self.write(&batch)?;
        self.file.sync().map_err(|e| self.failed("sync", e))?;
        self.synced += batch.len() as u64;
        Ok(())
    }

    /// Discards the appends since the last sync, as when the disk refuses them.
    pub(crate) fn refuse(&mut self) {
        self.batch.clear();
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), JournalError> {
        self.file.write_at(octets, self.synced).map_err(|e| self.failed("write", e))
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> JournalError {
        JournalError::io(what, self.disk.dir().join(Kind::Log.name(self.number)), error)
    }

    /// Begins the next segment, and the snapshot that replaces the segments before it. All appends must be synced.
    pub(crate) fn begin_image(&mut self) -> Result<(), JournalError> {
        if self.synced > format::HEADER as u64 {
            let mut end = Vec::new();
            format::end(&mut end, self.synced);
            self.write(&end)?;
            self.file.sync().map_err(|e| self.failed("sync", e))?;
            self.number += 1;
            self.file = store::create_log(&self.disk, self.number)?;
            self.synced = format::HEADER as u64;
        }
        self.image = Some(Image::begin(Arc::new(self.disk.clone()), self.number)?);
        Ok(())
    }

    /// Writes records into the snapshot.
    pub(crate) fn write_image(&mut self, records: Vec<(Key, Bytes)>) -> Result<(), JournalError> {
        self.image.as_mut().map_or(Ok(()), |image| image.write(records))
    }

    /// Finishes the snapshot and removes the files that it replaces. With `life` the disk dies after this many
    /// operations; only a crash can follow then.
    pub(crate) fn finish_image(&mut self, life: Option<u64>) -> Result<(), JournalError> {
        let Some(mut image) = self.image.take() else { return Ok(()) };
        self.disk.world().life = life;
        let done = image.finish().and_then(|()| image.remove_older());
        if life.is_some() { Ok(()) } else { done }
    }

    /// Simulates a power failure: this share (in 65536ths) of the batch, and of each other unsynced write, has reached
    /// the disk. Returns the reopened journal, its recovered records, and the number of octets of the batch that
    /// survived.
    pub(crate) fn crash(mut self, share: u16) -> Result<(MemoryJournal, Recovered, usize), JournalError> {
        let batch = std::mem::take(&mut self.batch);
        // A disk that has died already fails this write.
        let written = self.write(&batch).is_ok();
        let (tape, recovered) = MemoryJournal::open(self.disk.after_crash(CrashOutcome::Torn(share)))?;
        Ok((tape, recovered, if written { torn(batch.len(), share) } else { 0 }))
    }
}

impl std::fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryJournal")
            .field("number", &self.number)
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{is, live, pairs};
    use super::*;

    #[test]
    fn what_was_synced_survives_a_crash_and_of_the_rest_whole_appends_do() {
        for share in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
            let mut tape = MemoryJournal::new().unwrap();
            tape.append(&[is(1, "one")]);
            tape.sync().unwrap();
            let ends = [tape.append(&[is(2, "two")]), tape.append(&[is(3, "three"), is(1, "uno")])];
            let (_, recovered, left) = tape.crash(share).unwrap();
            let expected = match ends.iter().filter(|end| **end <= left).count() {
                0 => pairs(&[(1, "one")]),
                1 => pairs(&[(1, "one"), (2, "two")]),
                _ => pairs(&[(1, "uno"), (2, "two"), (3, "three")]),
            };
            assert_eq!(live(&recovered), expected, "{left} octets");
        }
    }

    #[test]
    fn a_crash_around_an_image_loses_nothing() {
        for life in (0..12).map(Some).chain([None]) {
            for share in [0, 30_000, u16::MAX] {
                let mut tape = MemoryJournal::new().unwrap();
                tape.append(&[is(1, "one")]);
                tape.sync().unwrap();
                tape.begin_image().unwrap();
                tape.append(&[is(2, "two")]);
                tape.sync().unwrap();
                tape.write_image(vec![(Key(1, 7), "one".into()), (Key(2, 7), "two".into())]).unwrap();
                tape.finish_image(life).unwrap();
                let (mut tape, recovered, _) = tape.crash(share).unwrap();
                assert_eq!(live(&recovered), pairs(&[(1, "one"), (2, "two")]), "{life:?}");
                tape.append(&[is(3, "three")]);
                tape.sync().unwrap();
                assert_eq!(live(&tape.crash(share).unwrap().1).len(), 3);
            }
        }
    }
}

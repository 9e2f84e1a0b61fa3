//! The journal without its thread: on a disk in memory, written and synced by the hand of whoever owns it. Files, forms
//! and recovery are those of the real one, so a simulator can crash at any octet, in virtual time.

use std::sync::Arc;

use super::{
    JournalError, Record, Recovered,
    disk::{Disk, DiskFile},
    format::{self, Kind},
    mem_disk::{Leaves, MemDisk, torn},
    snapshot::Image,
    store,
};
use crate::journal::Key;
use bytes::Bytes;

/// A journal in memory.
pub(crate) struct Tape {
    disk: MemDisk,
    file: Box<dyn DiskFile>,
    number: u64,
    synced: u64,
    /// Appended since.
    batch: Vec<u8>,
    image: Option<Image>,
}

impl Tape {
    /// An empty one.
    pub(crate) fn new() -> Result<Tape, JournalError> {
        Tape::open(MemDisk::default()).map(|(tape, _)| tape)
    }

    fn open(disk: MemDisk) -> Result<(Tape, Recovered), JournalError> {
        let (opened, recovered) = store::open(&disk)?;
        let (file, number, synced) = (opened.file, opened.number, opened.at);
        Ok((Tape { disk, file, number, synced, batch: Vec::new(), image: None }, recovered))
    }

    /// Adds the frame of one append to the batch that the next [`Tape::sync`] makes last, and says where in the batch
    /// it ends.
    pub(crate) fn append(&mut self, records: &[Record]) -> usize {
        format::frame(&mut self.batch, |out| {
            for record in records {
                format::put(out, record.key, record.value.as_deref());
            }
        });
        self.batch.len()
    }

    /// What was appended lasts.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        let batch = std::mem::take(&mut self.batch);
        self.write(&batch)?;
        self.file.sync().map_err(|e| self.failed("sync", e))?;
        self.synced += batch.len() as u64;
        Ok(())
    }

    /// The disk refuses what was appended since.
    pub(crate) fn refuse(&mut self) {
        self.batch.clear();
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), JournalError> {
        self.file.write_at(octets, self.synced).map_err(|e| self.failed("write", e))
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> JournalError {
        JournalError::io(what, self.disk.dir().join(Kind::Log.name(self.number)), error)
    }

    /// Begins the next segment, and the image that is to take the place of those before. Nothing may be unsynced.
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

    /// Writes the image's records.
    pub(crate) fn write_image(&mut self, records: Vec<(Key, Bytes)>) -> Result<(), JournalError> {
        self.image.as_mut().map_or(Ok(()), |image| image.write(records))
    }

    /// Finishes the image and removes what it replaces. With `life` the disk dies after so many operations, so that
    /// only a crash can follow.
    pub(crate) fn finish_image(&mut self, life: Option<u64>) -> Result<(), JournalError> {
        let Some(mut image) = self.image.take() else { return Ok(()) };
        self.disk.world().life = life;
        let done = image.finish().and_then(|()| image.remove_older());
        if life.is_some() { Ok(()) } else { done }
    }

    /// The power fails: of the batch this share (in 65536ths) of its octets has reached the disk, of everything else
    /// unsynced likewise. Gives the journal that is opened afterwards, what it found, and how many octets of the batch
    /// there were.
    pub(crate) fn crash(mut self, share: u16) -> Result<(Tape, Recovered, usize), JournalError> {
        let batch = std::mem::take(&mut self.batch);
        // A disk that has died already takes no more.
        let written = self.write(&batch).is_ok();
        let (tape, recovered) = Tape::open(self.disk.after_crash(Leaves::Torn(share)))?;
        Ok((tape, recovered, if written { torn(batch.len(), share) } else { 0 }))
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("number", &self.number).field("synced", &self.synced).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{is, live, pairs};
    use super::*;

    #[test]
    fn what_was_synced_survives_a_crash_and_of_the_rest_whole_appends_do() {
        for share in (0..=u16::MAX).step_by(251).chain([u16::MAX]) {
            let mut tape = Tape::new().unwrap();
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
                let mut tape = Tape::new().unwrap();
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

//! Repair of a damaged journal: `check` reports what is bad, `repair` makes a directory that can be opened again.
//!
//! A repair reads every good record, including those after a bad part, puts the bad parts aside ([`super::quarantine`]), and
//! writes the resulting state as a new snapshot. Its steps have the order of any other snapshot, so a crash in between
//! leaves either the damaged directory or the repaired one.

use std::{path::Path, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    JournalError, Key,
    disk::{Disk, RealDisk},
    format::Kind,
    quarantine,
    snapshot::Image,
    store,
    survey::{self, Survey},
};

/// Result of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Damage that was found.
    pub survey: Survey,
    /// Files that the bad parts were put into, in the order of the survey.
    pub aside: Vec<PathBuf>,
    /// Number of keys that have a value after the repair.
    pub kept: usize,
    /// Number of keys with a lost record of which an older or newer good value is kept.
    pub older: usize,
}

impl Repaired {
    /// Number of bad parts, missing files included.
    pub fn parts(&self) -> u64 {
        let bad: usize = self.survey.files.iter().map(|file| file.bad.len()).sum();
        (bad + self.survey.missing.len()) as u64
    }
}

/// Checks the journal in `dir` without changing anything. A server may use it meanwhile; its last write may then look
/// like a torn tail.
///
/// # Errors
/// When the directory is not a journal, is of a newer format, or cannot be read.
pub fn check(dir: &Path) -> Result<Survey, JournalError> {
    let disk = RealDisk::open(dir).map_err(|e| JournalError::io("open", dir, e))?;
    survey::read(&disk).map(|read| read.survey)
}

/// Repairs the journal in `dir` and keeps every good record. Returns none if the journal is not damaged.
///
/// # Errors
/// When a server uses the directory, when it is not a journal or of a newer format, and when the disk fails.
pub fn repair(dir: &Path) -> Result<Option<Repaired>, JournalError> {
    // Checked first, so that no lock file is created in a directory that is not a journal.
    check(dir)?;
    repair_on(Arc::new(store::lock(dir)?))
}

pub(super) fn repair_on(disk: Arc<dyn Disk>) -> Result<Option<Repaired>, JournalError> {
    let survey::Read { survey, live, last } = survey::read(&*disk)?;
    if !survey.is_damaged() {
        return Ok(None);
    }
    let dir = disk.dir().to_owned();
    let mut aside = Vec::new();
    for file in &survey.files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let mut octets = Vec::new();
        if !file.bad.is_empty() {
            let mut read = disk.read(&name).map_err(JournalError::on("read", &dir, &name))?;
            read.read_to_end(&mut octets).map_err(JournalError::on("read", &dir, &name))?;
        }
        for bad in file.bad.iter().filter(|bad| bad.octets > 0) {
            let part = bad.offset as usize..(bad.offset + bad.octets) as usize;
            aside.push(quarantine::keep_bad(&*disk, &name, bad.offset, octets.get(part).unwrap_or_default())?);
        }
    }
    let lost = survey.files.iter().flat_map(|file| &file.bad).flat_map(|bad| &bad.lost);
    let older = lost.map(|(key, _)| key).collect::<std::collections::HashSet<_>>();
    let older = older.into_iter().filter(|key| live.contains_key(key)).count();
    let mut records: Vec<(Key, Bytes)> = live.into_iter().collect();
    records.sort_unstable_by_key(|(key, _)| *key);
    let kept = records.len();
    let next = last + 1;
    store::mark(&*disk)?;
    // Until the snapshot has its final name, the damaged files still count; the empty segment after them does no harm.
    store::create_log(&*disk, next)?;
    let mut image = Image::begin(disk.clone(), next)?;
    image.write(records)?;
    image.finish()?;
    image.remove_older()?;
    tracing::debug!(dir = %dir.display(), image = %Kind::Snapshot.name(next), "the journal is repaired");
    Ok(Some(Repaired { survey, aside, kept, older }))
}

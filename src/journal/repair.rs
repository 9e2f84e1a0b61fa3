//! The way on after damage: `check` says what is bad, `repair` makes a directory that starts again.
//!
//! A repair reads every good record, also those behind what is bad, puts what was bad aside ([`super::aside`]), and
//! writes what holds as a new image, in the same order of steps as any other image: a crash in the middle leaves the damaged
//! directory, or the repaired one.

use std::{path::Path, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    JournalError, Key, aside,
    disk::{Disk, RealDisk},
    format::Kind,
    snapshot::Image,
    store,
    survey::{self, Survey},
};

/// What a repair has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What it found.
    pub survey: Survey,
    /// Where the bad parts are now, in the order of the survey.
    pub aside: Vec<PathBuf>,
    /// How many keys have a value now.
    pub kept: usize,
    /// Of the keys of records that are lost: those whose value of before is kept.
    pub older: usize,
}

impl Repaired {
    /// How many parts were bad, missing files included.
    pub fn parts(&self) -> u64 {
        let bad: usize = self.survey.files.iter().map(|file| file.bad.len()).sum();
        (bad + self.survey.missing.len()) as u64
    }
}

/// Looks through the journal in `dir` and changes nothing. A server may use it meanwhile; its last write may then look torn.
///
/// # Errors
/// When the directory is not a journal's, of a newer format, or cannot be read.
pub fn check(dir: &Path) -> Result<Survey, JournalError> {
    let disk = RealDisk::open(dir).map_err(|e| JournalError::io("open", dir, e))?;
    survey::read(&disk).map(|read| read.survey)
}

/// Repairs the journal in `dir` if it is damaged, keeping every good record; none if it is not.
///
/// # Errors
/// When a server uses the directory, when it is not a journal's or of a newer format, and when the disk refuses.
pub fn repair(dir: &Path) -> Result<Option<Repaired>, JournalError> {
    // Before there is a lock file in what may be no directory of ours.
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
            aside.push(aside::keep_bad(&*disk, &name, bad.offset, octets.get(part).unwrap_or_default())?);
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
    // As long as the image has not its name, what is damaged still counts, and the empty segment behind it is nothing.
    store::create_log(&*disk, next)?;
    let mut image = Image::begin(disk.clone(), next)?;
    image.write(records)?;
    image.finish()?;
    image.remove_older()?;
    tracing::debug!(dir = %dir.display(), image = %Kind::Snapshot.name(next), "the journal is repaired");
    Ok(Some(Repaired { survey, aside, kept, older }))
}

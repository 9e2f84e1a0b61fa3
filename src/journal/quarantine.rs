//! Files put aside: octets that are removed from the journal are kept in files beside it, as evidence. They are never
//! read as journal.

use std::path::PathBuf;

use super::{JournalError, disk::Disk, format::Kind};

/// Most torn tails to keep: enough to see a pattern, few enough not to fill the disk.
const TORN_KEPT: usize = 8;
const TORN: &str = "torn-";
/// Most bad parts to keep, so that a dying medium cannot fill the rest of the disk.
const BAD_KEPT: usize = 64;
const BAD: &str = "bad-";

/// Keeps the torn tail of a log. On an error the start continues without it: nothing in a torn tail was acknowledged.
pub(super) fn keep_torn(disk: &dyn Disk, log: u64, offset: u64, octets: &[u8]) -> Option<PathBuf> {
    if octets.iter().all(|octet| *octet == 0) {
        return None;
    }
    let name = format!("{TORN}{}-{offset}", Kind::Log.name(log));
    let kept = put(disk, &name, octets).and_then(|()| trim(disk, TORN, TORN_KEPT));
    if let Err(error) = kept {
        tracing::warn!(%error, "the part that is cut off the end of the journal could not be saved");
        return None;
    }
    Some(disk.dir().join(name))
}

/// Keeps a bad part of the file `of`.
pub(super) fn keep_bad(disk: &dyn Disk, of: &str, offset: u64, octets: &[u8]) -> Result<PathBuf, JournalError> {
    let name = format!("{BAD}{of}-{offset}");
    put(disk, &name, octets)?;
    trim(disk, BAD, BAD_KEPT)?;
    Ok(disk.dir().join(name))
}

fn put(disk: &dyn Disk, name: &str, octets: &[u8]) -> Result<(), JournalError> {
    let dir = disk.dir();
    let mut file = disk.create(name).map_err(JournalError::on("create", dir, name))?;
    file.write_at(octets, 0).map_err(JournalError::on("write", dir, name))?;
    file.sync().map_err(JournalError::on("sync", dir, name))?;
    disk.sync_names().map_err(|e| JournalError::io("sync", dir, e))
}

/// Removes the oldest files, by the number of their log and their offset, until `keep` are left.
fn trim(disk: &dyn Disk, prefix: &str, keep: usize) -> Result<(), JournalError> {
    let dir = disk.dir();
    let names = disk.list().map_err(|e| JournalError::io("list", dir, e))?;
    let mut kept: Vec<(Vec<u64>, String)> = names
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, _)| (name.split('-').filter_map(|part| part.parse().ok()).collect(), name))
        .collect();
    kept.sort_unstable();
    for (_, name) in kept.iter().rev().skip(keep) {
        disk.remove(name).map_err(JournalError::on("remove", dir, name))?;
    }
    Ok(())
}

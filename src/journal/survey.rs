//! Survey of all files of a directory. Unlike opening, it continues after bad parts; `check` and `repair` use it.

use std::{collections::HashMap, path::PathBuf};

use bytes::Bytes;

use super::{
    JournalError, Key, damage,
    disk::Disk,
    format::{self, FRAME_HEAD, Head, Kind, RECORD_HEAD, Word},
    store,
};

/// Most records of one bad part to report: enough to show what is lost, and limited for any content.
const LOST_MOST: usize = 100_000;

/// Result for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSurvey {
    /// Path.
    pub path: PathBuf,
    /// Length (octets).
    pub octets: u64,
    /// Number of good records.
    pub records: u64,
    /// Bad parts, by offset.
    pub bad: Vec<BadPart>,
    /// Offset of its torn tail, if it has one; a torn tail is not damage.
    pub torn_at: Option<u64>,
}

/// Part of a file that differs from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPart {
    /// Offset.
    pub offset: u64,
    /// Length (octets).
    pub octets: u64,
    /// Description of the damage.
    pub what: &'static str,
    /// Records in it, as far as they can be separated; none of them is certain. A value of none is a tombstone.
    pub lost: Vec<(Key, Option<Bytes>)>,
}

/// Result for a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Files in the order in which they were written.
    pub files: Vec<FileSurvey>,
    /// Files that should exist but do not.
    pub missing: Vec<PathBuf>,
}

impl Survey {
    /// Returns true if anything is bad or missing; a torn tail does not count.
    pub fn is_damaged(&self) -> bool {
        !self.missing.is_empty() || self.files.iter().any(|file| !file.bad.is_empty())
    }
}

/// Data of a survey: the newest good value of each key.
pub(super) struct Read {
    pub(super) survey: Survey,
    pub(super) live: HashMap<Key, Bytes>,
    /// Highest file number.
    pub(super) last: u64,
}

/// Reads all files that an opening would read. If the snapshot is damaged, reads the files before it too.
pub(super) fn read(disk: &dyn Disk) -> Result<Read, JournalError> {
    let dir = disk.dir();
    let names = disk.list().map_err(|e| JournalError::io("list", dir, e))?;
    if !names.iter().any(|(name, _)| name == store::MARKER)
        && !names.iter().any(|(name, _)| Kind::parse(name).is_some())
    {
        let found = names.first().map_or_else(|| "nothing".into(), |(name, _)| name.clone());
        return Err(JournalError::Foreign { path: dir.to_owned(), found });
    }
    let mut files: Vec<(u64, Kind)> =
        names.iter().filter_map(|(name, _)| Kind::parse(name)).map(|(kind, number)| (number, kind)).collect();
    // A snapshot comes before the segment of the same number.
    files.sort_unstable_by_key(|(number, kind)| (*number, *kind == Kind::Log));
    let last = files.last().map_or(0, |(number, _)| *number);
    let mut survey = Survey::default();
    match store::check_marker(disk, &names) {
        Ok(_) => {}
        Err(JournalError::Damaged { path, offset, what }) => survey.files.push(marker(path, offset, what, &names)),
        Err(JournalError::Io { .. }) if !names.iter().any(|(name, _)| name == store::MARKER) => {
            survey.missing.push(dir.join(store::MARKER));
        }
        Err(error) => return Err(error),
    }
    let mut reader = Reader { disk, live: HashMap::new() };
    let image = files.iter().rev().find(|(_, kind)| *kind == Kind::Snapshot).map(|(number, _)| *number);
    let empty =
        |number| names.iter().any(|(name, len)| *name == Kind::Log.name(number) && *len <= format::HEADER as u64);
    let first = image.unwrap_or(1);
    let image_is_good = image_is_good(disk, image)?;
    let mut expected = first;
    for (number, kind) in files {
        if image_is_good && number < first {
            // Files that the snapshot has replaced, left over by a crash.
            continue;
        }
        let last_log = kind == Kind::Log && (number == last || (number + 1 == last && empty(last)));
        survey.files.push(reader.file(kind, number, last_log, number == last)?);
        if kind == Kind::Log && number >= expected {
            survey.missing.extend((expected..number).map(|number| dir.join(Kind::Log.name(number))));
            expected = number + 1;
        }
    }
    if expected == first {
        survey.missing.push(dir.join(Kind::Log.name(expected)));
    }
    Ok(Read { survey, live: reader.live, last })
}

fn marker(path: PathBuf, offset: u64, what: &'static str, names: &[(String, u64)]) -> FileSurvey {
    let octets = names.iter().find(|(name, _)| name == store::MARKER).map_or(0, |(_, len)| *len);
    let bad = BadPart { offset, octets: octets.saturating_sub(offset), what, lost: Vec::new() };
    FileSurvey { path, octets, records: 0, bad: vec![bad], torn_at: None }
}

fn image_is_good(disk: &dyn Disk, image: Option<u64>) -> Result<bool, JournalError> {
    let Some(number) = image else { return Ok(false) };
    let read = Reader { disk, live: HashMap::new() }.file(Kind::Snapshot, number, false, false)?;
    Ok(read.bad.is_empty())
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    live: HashMap<Key, Bytes>,
}

impl Reader<'_> {
    /// Reads a whole file. With `open_ended` it need not be complete; with `very_last` its header may be missing.
    fn file(&mut self, kind: Kind, number: u64, open_ended: bool, very_last: bool) -> Result<FileSurvey, JournalError> {
        let (dir, name) = (self.disk.dir(), kind.name(number));
        let mut octets = Vec::new();
        let mut file = self.disk.read(&name).map_err(JournalError::on("read", dir, &name))?;
        file.read_to_end(&mut octets).map_err(JournalError::on("read", dir, &name))?;
        let mut found = FileSurvey {
            path: dir.join(&name),
            octets: octets.len() as u64,
            records: 0,
            bad: Vec::new(),
            torn_at: None,
        };
        let head = &octets[..octets.len().min(format::HEADER)];
        let version = match format::judge(head, kind, number) {
            Head::Good(version) => version,
            Head::Newer(version) => {
                return Err(JournalError::Newer { path: found.path, found: version, known: format::VERSION });
            }
            Head::Bad if very_last && open_ended && octets.len() <= format::HEADER => {
                found.torn_at = Some(0);
                return Ok(found);
            }
            Head::Bad => {
                found.bad.push(bad_part(&octets, 0, head.len(), "its header"));
                format::VERSION
            }
        };
        let (mut at, mut complete) = (format::HEADER, false);
        while at < octets.len() {
            match damage::frame_at(&octets, at).filter(|_| !complete) {
                Some(frame) if matches!(frame.alone, Some((Key(offset, _), Word::End)) if offset == at as u64) => {
                    complete = true;
                    at = frame.end;
                }
                Some(frame) => {
                    found.records += self.take(&octets[frame.start + FRAME_HEAD..frame.end]);
                    at = frame.end;
                }
                None => {
                    let next = damage::next_frame(&octets, at + 1).filter(|_| !complete);
                    let end = next.map_or(octets.len(), |next| next.start);
                    let damage = damage::judge(&octets[at..], at as u64, version);
                    match damage {
                        // Nothing after the torn part of the last commit was acknowledged.
                        None if open_ended && !complete => {
                            found.torn_at = Some(at as u64);
                            return Ok(found);
                        }
                        _ => found.bad.push(bad_part(&octets, at, end, damage.unwrap_or("cut short"))),
                    }
                    at = end;
                }
            }
        }
        if !complete && !open_ended && found.bad.last().is_none_or(|bad| bad.offset + bad.octets < found.octets) {
            found.bad.push(bad_part(&octets, octets.len(), octets.len(), "no end"));
        }
        Ok(found)
    }

    fn take(&mut self, body: &[u8]) -> u64 {
        let mut count = 0;
        format::records(body, |key, word| match word {
            Word::Is(at, len) => {
                count += 1;
                self.live.insert(key, Bytes::copy_from_slice(&body[at..at + len]));
            }
            Word::Gone => {
                count += 1;
                self.live.remove(&key);
            }
            Word::Mark | Word::End => {}
        });
        count
    }
}

fn bad_part(octets: &[u8], start: usize, end: usize, what: &'static str) -> BadPart {
    let part = &octets[start..end];
    let mut lost = Vec::new();
    // After the frame's head record follows record, until one is not plausible.
    if let Some(body) = part.get(FRAME_HEAD..).filter(|body| body.len() >= RECORD_HEAD) {
        format::records(body, |key, word| {
            let value = match word {
                Word::Is(at, len) => Some(Bytes::copy_from_slice(&body[at..at + len])),
                Word::Gone => None,
                Word::Mark | Word::End => return,
            };
            if lost.len() < LOST_MOST {
                lost.push((key, value));
            }
        });
    }
    BadPart { offset: start as u64, octets: part.len() as u64, what, lost }
}

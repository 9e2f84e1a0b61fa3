//! Opening of a directory: recognises directories of other software, and reads every state that a crash may leave.
//!
//! The steps that change the directory are ordered, so that a crash between two of them leaves a state that `open` can
//! read:
//! - A new directory gets `log-1`, then `format`. So if `format` is there, a missing log is a loss and not a first
//!   start.
//! - A segment is completed and synced before the next one is created, and that one is synced before anything is
//!   written into it. So only the last one can have a torn tail.
//! - A snapshot gets its name once it is complete and synced. The files that it replaces are removed once its name is
//!   durable.

use std::{
    fs::{self, TryLockError},
    io::Read as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use std::collections::HashMap;

use super::{
    JournalError, Key, Recovered, damage,
    disk::{Disk, DiskFile, LOCK, RealDisk, sync_dir},
    format::{self, Head, Kind, Scan},
    quarantine,
};

pub(super) const MARKER: &str = "format";
const MARKER_TMP: &str = "format.tmp";
const MARKER_WORDS: &str = "lamplighter journal ";
pub(super) const TMP: &str = ".tmp";

/// Report of an opening, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// True if the directory was new.
    pub new: bool,
    /// Records read, older values and tombstones included.
    pub records: u64,
    /// Octets read.
    pub octets: u64,
    /// Files in the order of reading.
    pub files: Vec<ReadFile>,
    /// Torn tail that was cut off: the rest of a write that a crash interrupted. Nothing in it was acknowledged.
    pub cut: Option<TornTail>,
}

/// File that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// Path.
    pub path: PathBuf,
    /// Offset up to which it is good, without its END.
    pub octets: u64,
    /// Number of records in it.
    pub records: u64,
}

/// Torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// File that it was cut off from.
    pub path: PathBuf,
    /// Offset of the cut.
    pub offset: u64,
    /// Octets that were cut off.
    pub octets: u64,
    /// Description of the fault at the offset.
    pub what: &'static str,
    /// File that the tail was put into; none if it consisted of zeros, or could not be saved.
    pub aside: Option<PathBuf>,
}

/// Position at which the writer continues.
pub(super) struct Opened {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) number: u64,
    pub(super) at: u64,
    pub(super) older_segments: u64,
    pub(super) snapshot: u64,
}

/// Creates the directory if it is missing. Refuses a directory of other software before it writes anything there.
pub(super) fn prepare(dir: &Path) -> Result<(), JournalError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    for new in missing.into_iter().rev() {
        match fs::create_dir(new) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(JournalError::io("create", new, e));
            }
            _ => {}
        }
        let parent = new.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent).map_err(|e| JournalError::io("sync", parent, e))?;
    }
    let disk = RealDisk::open(dir).map_err(|e| JournalError::io("open", dir, e))?;
    let names = disk.list().map_err(|e| JournalError::io("list", dir, e))?;
    refuse_foreign(dir, &names)
}

/// Opens and locks the directory; the lock is released when the returned value is dropped.
pub(super) fn lock(dir: &Path) -> Result<RealDisk, JournalError> {
    let disk = RealDisk::open(dir).map_err(|e| JournalError::io("open", dir, e))?;
    let lock = disk.lock_file(LOCK).map_err(JournalError::on("open", dir, LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(disk.held_by(lock)),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(JournalError::io("lock", dir.join(LOCK), e)),
    }
}

fn refuse_foreign(dir: &Path, names: &[(String, u64)]) -> Result<(), JournalError> {
    if names.iter().any(|(name, _)| name == MARKER) {
        return Ok(());
    }
    // Files that an interrupted first start leaves before the marker, and a directory that a file system creates in its
    // root.
    let harmless = |(name, len): &&(String, u64)| match name.as_str() {
        LOCK => *len == 0,
        MARKER_TMP | "lost+found" => true,
        name => Kind::parse(name) == Some((Kind::Log, 1)) && *len <= format::HEADER as u64,
    };
    match names.iter().find(|entry| !harmless(entry)) {
        Some((found, _)) => Err(JournalError::Foreign { path: dir.to_owned(), found: found.clone() }),
        None => Ok(()),
    }
}

/// Reads the directory, cuts off a torn tail, and returns the position to continue at and the recovered records.
pub(super) fn open(disk: &dyn Disk) -> Result<(Opened, Recovered), JournalError> {
    let dir = disk.dir();
    let names = disk.list().map_err(|e| JournalError::io("list", dir, e))?;
    refuse_foreign(dir, &names)?;
    if !names.iter().any(|(name, _)| name == MARKER) {
        let file = create_log(disk, 1)?;
        mark(disk)?;
        let opened = Opened { file, number: 1, at: format::HEADER as u64, older_segments: 0, snapshot: 0 };
        let report = OpenReport { new: true, ..OpenReport::default() };
        return Ok((opened, Recovered { records: Vec::new(), report }));
    }
    let marked = check_marker(disk, &names)?;
    let numbers = |kind| {
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|(name, _)| Kind::parse(name)).filter(|f| f.0 == kind).map(|f| f.1).collect();
        numbers.sort_unstable();
        numbers
    };
    let snapshot = numbers(Kind::Snapshot).last().copied();
    let first = snapshot.unwrap_or(1);
    let logs: Vec<u64> = numbers(Kind::Log).into_iter().filter(|n| *n >= first).collect();
    let mut reader = Reader { disk, marked, names: &names, live: HashMap::new(), report: OpenReport::default() };
    let snapshot_octets = match snapshot {
        Some(number) => reader.complete(Kind::Snapshot, number)?,
        None => 0,
    };
    let mut opened = reader.logs(first, &logs)?;
    opened.snapshot = snapshot_octets;

    // Leftovers are removed only after everything was read: they have no value any more then.
    let stale = |name: &str| {
        Kind::parse(name).is_some_and(|(_, number)| number < first)
            || name.strip_suffix(TMP).is_some_and(|n| n == MARKER || Kind::parse(n).is_some())
    };
    for (name, _) in names.iter().filter(|(name, _)| stale(name)) {
        disk.remove(name).map_err(JournalError::on("remove", dir, name))?;
    }
    let Reader { live, report, .. } = reader;
    let mut records: Vec<_> = live.into_iter().collect();
    // A fixed order, so that the state that is built from it is the same in every run.
    records.sort_unstable_by_key(|(key, _)| *key);
    Ok((opened, Recovered { records, report }))
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    /// Format version of the directory.
    marked: u32,
    names: &'a [(String, u64)],
    live: HashMap<Key, Bytes>,
    report: OpenReport,
}

impl Reader<'_> {
    fn len(&self, name: &str) -> Option<u64> {
        self.names.iter().find(|(n, _)| n == name).map(|(_, len)| *len)
    }

    /// Reads a file; none if its header is incomplete, corrupt or of another file.
    fn scan(&mut self, kind: Kind, number: u64) -> Result<Option<Scan>, JournalError> {
        let name = kind.name(number);
        let unreadable = |e| JournalError::io("read", self.disk.dir().join(&name), e);
        let mut file = self.disk.read(&name).map_err(unreadable)?;
        let mut head = [0; format::HEADER];
        format::read_up_to(&mut *file, &mut head).map_err(unreadable)?;
        let version = match format::judge(&head, kind, number) {
            Head::Good(version) => version,
            Head::Bad => return Ok(None),
            Head::Newer(found) => {
                let path = self.disk.dir().join(&name);
                return Err(JournalError::Newer { path, found, known: format::VERSION });
            }
        };
        let live = &mut self.live;
        let scan = format::scan(&mut *file, version, |key, value| {
            match value {
                Some(value) => live.insert(key, value),
                None => live.remove(&key),
            };
        })
        .map_err(unreadable)?;
        self.report.records += scan.records;
        self.report.octets += scan.good;
        let path = self.disk.dir().join(&name);
        self.report.files.push(ReadFile { path, octets: scan.good, records: scan.records });
        Ok(Some(scan))
    }

    /// Reads a file that must be complete; returns its length.
    fn complete(&mut self, kind: Kind, number: u64) -> Result<u64, JournalError> {
        let path = self.disk.dir().join(kind.name(number));
        let damaged = |offset, what| JournalError::Damaged { path: path.clone(), offset, what };
        let scan = self.scan(kind, number)?.ok_or_else(|| damaged(0, "its header"))?;
        match scan.fault {
            Some(what) => Err(damaged(scan.good, what)),
            None if !scan.complete => Err(damaged(scan.good, "no end")),
            None => Ok(self.len(&kind.name(number)).unwrap_or(scan.good)),
        }
    }

    /// Reads the segments from `first` on; `found` are the numbers of those that exist.
    fn logs(&mut self, first: u64, found: &[u64]) -> Result<Opened, JournalError> {
        let (disk, dir) = (self.disk, self.disk.dir());
        if let Some(missing) = (first..).zip(found.iter().chain([&0])).find(|(want, is)| want != *is).map(|(w, _)| w)
            && (found.is_empty() || found.last().is_some_and(|last| missing < *last))
        {
            return Err(JournalError::Missing { path: dir.join(Kind::Log.name(missing)) });
        }
        let Some((last, older)) = found.split_last() else {
            return Err(JournalError::Missing { path: dir.join(Kind::Log.name(first)) });
        };
        let mut older_segments = 0;
        let empty = self.len(&Kind::Log.name(*last)).is_none_or(|len| len <= format::HEADER as u64);
        for number in older {
            if empty && number + 1 == *last {
                // If creating the last segment failed, the writer may have continued in the one before.
                let Some(scan) = self.scan(Kind::Log, *number)? else {
                    return Err(self.bad_header(*number));
                };
                if !scan.complete {
                    self.refuse_damage(*number, &scan)?;
                    let name = Kind::Log.name(*last);
                    disk.remove(&name).map_err(JournalError::on("remove", dir, &name))?;
                    disk.sync_names().map_err(|e| JournalError::io("sync", dir, e))?;
                    return self.go_on(*number, &scan, older_segments);
                }
                if let Some(what) = scan.fault {
                    let path = dir.join(Kind::Log.name(*number));
                    return Err(JournalError::Damaged { path, offset: scan.good, what });
                }
                older_segments += self.len(&Kind::Log.name(*number)).unwrap_or(scan.good);
            } else {
                older_segments += self.complete(Kind::Log, *number)?;
            }
        }
        match self.scan(Kind::Log, *last)? {
            Some(scan) => self.go_on(*last, &scan, older_segments),
            // The header is synced before anything follows it, so this is a creation that a crash interrupted.
            None if empty => {
                self.begin_version()?;
                let file = create_log(disk, *last)?;
                Ok(Opened { file, number: *last, at: format::HEADER as u64, older_segments, snapshot: 0 })
            }
            None => Err(self.bad_header(*last)),
        }
    }

    fn bad_header(&self, number: u64) -> JournalError {
        let path = self.disk.dir().join(Kind::Log.name(number));
        JournalError::Damaged { path, offset: 0, what: "its header" }
    }

    /// Fails if the octets after the last good frame are damage and not a torn tail.
    fn refuse_damage(&self, number: u64, scan: &Scan) -> Result<(), JournalError> {
        if scan.fault.is_none() {
            return Ok(());
        }
        match damage::judge(&self.rest(number, scan)?, scan.good, scan.version) {
            Some(what) => {
                let path = self.disk.dir().join(Kind::Log.name(number));
                Err(JournalError::Damaged { path, offset: scan.good, what })
            }
            None => Ok(()),
        }
    }

    /// Octets after the last good frame.
    fn rest(&self, number: u64, scan: &Scan) -> Result<Vec<u8>, JournalError> {
        let (dir, name) = (self.disk.dir(), Kind::Log.name(number));
        let mut file = self.disk.read(&name).map_err(JournalError::on("read", dir, &name))?;
        let mut rest = Vec::new();
        std::io::copy(&mut file.by_ref().take(scan.good), &mut std::io::sink())
            .and_then(|_| file.read_to_end(&mut rest))
            .map_err(JournalError::on("read", dir, &name))?;
        Ok(rest)
    }

    /// Cuts the last segment after its last good frame. Continues there, or in the next segment if this one is complete
    /// or of an older version.
    fn go_on(&mut self, number: u64, scan: &Scan, older_segments: u64) -> Result<Opened, JournalError> {
        let (disk, dir) = (self.disk, self.disk.dir());
        let name = Kind::Log.name(number);
        let len = self.len(&name).unwrap_or(scan.good);
        self.refuse_damage(number, scan)?;
        self.begin_version()?;
        let next = |older_segments| {
            let file = create_log(disk, number + 1)?;
            Ok(Opened { file, number: number + 1, at: format::HEADER as u64, older_segments, snapshot: 0 })
        };
        if scan.complete && scan.fault.is_none() {
            return next(older_segments + len);
        }
        let mut file = disk.open(&name).map_err(JournalError::on("open", dir, &name))?;
        if len > scan.good {
            let aside = quarantine::keep_torn(disk, number, scan.good, &self.rest(number, scan)?);
            file.set_len(scan.good).map_err(JournalError::on("cut", dir, &name))?;
            file.sync().map_err(JournalError::on("sync", dir, &name))?;
            let what = scan.fault.unwrap_or("an end in the wrong place");
            let (path, octets) = (dir.join(&name), len - scan.good);
            self.report.cut = Some(TornTail { path, offset: scan.good, octets, what, aside });
        }
        if scan.version < format::VERSION {
            let mut end = Vec::new();
            format::end(&mut end, scan.good);
            file.write_at(&end, scan.good).map_err(JournalError::on("write", dir, &name))?;
            file.sync().map_err(JournalError::on("sync", dir, &name))?;
            return next(older_segments + scan.good + end.len() as u64);
        }
        Ok(Opened { file, number, at: scan.good, older_segments, snapshot: 0 })
    }

    /// Writes the current version into the marker of an older directory, before anything of this version is written
    /// there.
    fn begin_version(&self) -> Result<(), JournalError> {
        if self.marked < format::VERSION { mark(self.disk) } else { Ok(()) }
    }
}

/// Creates a segment; its header and its name are durable when this returns.
pub(super) fn create_log(disk: &dyn Disk, number: u64) -> Result<Box<dyn DiskFile>, JournalError> {
    let (dir, name) = (disk.dir(), Kind::Log.name(number));
    let mut file = disk.create(&name).map_err(JournalError::on("create", dir, &name))?;
    file.write_at(&format::header(Kind::Log, number), 0).map_err(JournalError::on("write", dir, &name))?;
    file.sync().map_err(JournalError::on("sync", dir, &name))?;
    disk.sync_names().map_err(|e| JournalError::io("sync", dir, e))?;
    Ok(file)
}

/// Writes the marker file that identifies the directory as a journal, with the format version.
pub(super) fn mark(disk: &dyn Disk) -> Result<(), JournalError> {
    let dir = disk.dir();
    let words = format!("{MARKER_WORDS}{}\n", format::VERSION);
    let mut file = disk.create(MARKER_TMP).map_err(JournalError::on("create", dir, MARKER_TMP))?;
    file.write_at(words.as_bytes(), 0).map_err(JournalError::on("write", dir, MARKER_TMP))?;
    file.sync().map_err(JournalError::on("sync", dir, MARKER_TMP))?;
    disk.rename(MARKER_TMP, MARKER).map_err(JournalError::on("rename", dir, MARKER_TMP))?;
    disk.sync_names().map_err(|e| JournalError::io("sync", dir, e))
}

/// Reads the format version from the marker file.
pub(super) fn check_marker(disk: &dyn Disk, names: &[(String, u64)]) -> Result<u32, JournalError> {
    let path = || disk.dir().join(MARKER);
    let unreadable = |e| JournalError::io("read", path(), e);
    // More than any valid marker; not the whole file, because a `format` file of other software may be large.
    let mut words = [0; 64];
    let got = format::read_up_to(&mut *disk.read(MARKER).map_err(unreadable)?, &mut words).map_err(unreadable)?;
    let words = &words[..got];
    let version = std::str::from_utf8(words)
        .ok()
        .and_then(|words| words.strip_prefix(MARKER_WORDS)?.trim_end().parse::<u32>().ok())
        .filter(|version| *version > 0);
    if let Some(version) = version.filter(|version| *version <= format::VERSION) {
        return Ok(version);
    }
    // Valid files beside it show that only the marker is wrong.
    let mut others = names.iter().filter_map(|(name, _)| Some((name, Kind::parse(name)?)));
    let ours = others.any(|(name, (kind, number))| {
        let mut head = [0; format::HEADER];
        let read = disk.read(name).and_then(|mut file| format::read_up_to(&mut *file, &mut head));
        read.is_ok() && matches!(format::judge(&head, kind, number), Head::Good(_))
    });
    match version {
        _ if ours => {
            let same = words.iter().zip(MARKER_WORDS.as_bytes()).take_while(|(is, was)| is == was).count();
            Err(JournalError::Damaged { path: path(), offset: same as u64, what: "not what the files beside it say" })
        }
        Some(found) => Err(JournalError::Newer { path: path(), found, known: format::VERSION }),
        None => Err(JournalError::Foreign { path: disk.dir().to_owned(), found: MARKER.into() }),
    }
}

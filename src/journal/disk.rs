//! File operations that the journal needs, as a trait, so that tests can replace the disk by one that fails, fills up
//! or loses power at any operation.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

/// Name of the lock file. The server that uses the directory holds a lock on it.
pub(super) const LOCK: &str = "lock";

/// Access to one directory. File names contain no slashes.
pub(super) trait Disk: Send + Sync {
    /// Path of the directory, for error texts.
    fn dir(&self) -> &Path;
    /// Fails if the directory is no longer at its path, or its lock file is not the one that is locked. Called before
    /// each creation, rename and removal, and once a second by the writer.
    fn check_place(&self) -> io::Result<()> {
        Ok(())
    }
    /// Names and lengths of all files.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Opens a file for reading from its start.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read>>;
    /// Creates a file, or empties an existing one. A new name is durable only after [`Disk::sync_names`].
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file atomically, replacing an existing one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all creations, renames and removals so far durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// Open file. Each write names its offset, so nothing depends on the position at which a failed write stopped.
pub(super) trait DiskFile: Send {
    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// Real directory. It is used by an open handle and not by its path: if another directory is put at that path, no file
/// in it is touched.
pub(super) struct RealDisk {
    dir: PathBuf,
    handle: OwnedFd,
    /// Locked file, until this is dropped. The kernel releases the lock even if the process is killed.
    lock: Option<File>,
}

impl RealDisk {
    /// Opens a directory without locking it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), handle: File::open(dir)?.into(), lock: None })
    }

    /// Opens the file `name` in it for locking; creates it if it is missing.
    pub(super) fn lock_file(&self, name: &str) -> io::Result<File> {
        self.open_as(name, OFlags::WRONLY | OFlags::CREATE)
    }

    /// Keeps `lock`, which is the file [`LOCK`] in the directory, for as long as this lives.
    pub(super) fn held_by(self, lock: File) -> Self {
        Self { lock: Some(lock), ..self }
    }

    fn open_as(&self, name: &str, flags: OFlags) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.handle, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))?.into())
    }
}

impl Disk for RealDisk {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn check_place(&self) -> io::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let held = lock.metadata()?;
        match fs::metadata(self.dir.join(LOCK)) {
            Ok(found) if (found.dev(), found.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(io::Error::other("another directory stands in its place; put it back, or restart the server")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(io::Error::other(
                "the directory, or the lock file in it, is gone; put it back, or restart the server",
            )),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.handle)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(&self.handle, entry.file_name(), rustix::fs::AtFlags::empty())?;
            // The journal's file names are ASCII, so a lossy conversion does not matter.
            found.push((entry.file_name().to_string_lossy().into_owned(), u64::try_from(stat.st_size).unwrap_or(0)));
        }
        Ok(found)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(io::BufReader::with_capacity(1 << 20, self.open_as(name, OFlags::RDONLY)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.check_place()?;
        Ok(Box::new(self.open_as(name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.open_as(name, OFlags::WRONLY)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_place()?;
        Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_place()?;
        Ok(rustix::fs::unlinkat(&self.handle, name, rustix::fs::AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }
}

/// Makes the file names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl DiskFile for File {
    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()> {
        FileExt::write_all_at(self, octets, at)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync includes the length of the file; it omits only the times.
        self.sync_data()
    }
}

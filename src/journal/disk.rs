//! The few file operations that the journal stands on, so that tests can put a disk under it that fails, fills up or
//! loses its power at any of them.

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

/// The lock file: the server that uses the directory holds a lock on it.
pub(super) const LOCK: &str = "lock";

/// One directory. Names have no slashes.
pub(super) trait Disk: Send + Sync {
    /// Its path, for errors.
    fn dir(&self) -> &Path;
    /// Fails if the directory is not at its path any more, or the lock in it is not the one that is held. Asked before each
    /// creation, rename and removal, and by the writer each second.
    fn check_place(&self) -> io::Result<()> {
        Ok(())
    }
    /// The names in it, each with its length.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// A file from its start.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read>>;
    /// A new file, or an old one emptied. Its name lasts only after [`Disk::sync_names`].
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// An old file, to be written on.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Atomic, replacing what had the name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all creations, renames and removals so far last.
    fn sync_names(&self) -> io::Result<()>;
}

/// One file. Writes name their place, so that nothing depends on where a failed one stopped.
pub(super) trait DiskFile: Send {
    fn write_at(&mut self, octets: &[u8], at: u64) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// The one that is not for tests. It works by a handle of the directory, not by its path: should another directory come to
/// stand at that path, no file in it is ever touched.
pub(super) struct RealDisk {
    dir: PathBuf,
    handle: OwnedFd,
    /// Held until this is dropped: the kernel lets go of it when its last owner does, however that ends.
    lock: Option<File>,
}

impl RealDisk {
    /// A directory to look at.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), handle: File::open(dir)?.into(), lock: None })
    }

    /// The file `name` in it, to be locked; made if it is not there.
    pub(super) fn lock_file(&self, name: &str) -> io::Result<File> {
        self.open_as(name, OFlags::WRONLY | OFlags::CREATE)
    }

    /// From now on the directory is held by `lock`, which is the file [`LOCK`] in it.
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
            // A name that is no UTF-8 is none of ours, which is all that this list is asked for.
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

/// Makes the names in a directory last.
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
        // The length is of the data that fdatasync keeps; only times are left out.
        self.sync_data()
    }
}

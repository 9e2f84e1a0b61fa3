//! The few file operations that the journal stands on, so that tests can put a disk under it that fails, fills up or
//! loses its power at any of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// One directory. Names have no slashes.
pub(super) trait Disk: Send + Sync {
    /// Its path, for errors.
    fn dir(&self) -> &Path;
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

/// The one that is not for tests.
pub(super) struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Disk for RealDisk {
    fn dir(&self) -> &Path {
        &self.dir
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // A name that is no UTF-8 is none of ours, which is all that this list is asked for.
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
        }
        Ok(found)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(io::BufReader::with_capacity(1 << 20, File::open(self.dir.join(name))?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(self.dir.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(self.dir.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_dir(&self.dir)
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

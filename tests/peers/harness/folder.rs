//! Temporary folder of the test, kept only when the test fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lamplighter-{}-{serial}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder below the system's temporary one");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("evidence kept in {}", self.0.display());
        } else {
            // A leftover in the temporary folder must not fail a test that passed.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

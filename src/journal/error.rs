//! Errors of the journal. Their texts tell the operator the path and the remedy.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Hold;

/// Reasons why the journal could not be opened, or a snapshot not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process holds the lock of the directory.
    #[error("{path}: another server uses this data directory; stop it, or give this one a data.dir of its own")]
    Locked {
        /// Directory.
        path: PathBuf,
    },
    /// The directory contains files of other software.
    #[error(
        "{path}: not empty and no data directory of Lamplighter's (it holds {found:?}); \
         point data.dir at an empty or a new directory"
    )]
    Foreign {
        /// Directory.
        path: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// The directory was written by a newer version of Lamplighter.
    #[error(
        "{path}: written in format {found}, this version reads up to {known}; start the newer Lamplighter again, or \
         point data.dir at a new directory"
    )]
    Newer {
        /// File that contains the newer format number.
        path: PathBuf,
        /// Format number of the file.
        found: u32,
        /// Newest format number that this version reads.
        known: u32,
    },
    /// A file is damaged in a way that no crash causes: the medium, or other software, has changed durable data.
    #[error(
        "{path}: damaged at octet {offset} ({what}); nothing is changed. `lamplighter journal repair` with the directory \
         keeps every record that is good; or restore the directory from a copy, or move it away to start empty: phones then \
         come back with their next refresh"
    )]
    Damaged {
        /// File.
        path: PathBuf,
        /// Offset of the first octet that may be bad.
        offset: u64,
        /// Description of the damage.
        what: &'static str,
    },
    /// A required file is missing.
    #[error(
        "{path}: missing, and with it records that were acknowledged; `lamplighter journal repair` with the directory keeps \
         every record that is there; or restore the directory from a copy, or move it away to start empty: phones then come \
         back with their next refresh"
    )]
    Missing {
        /// File.
        path: PathBuf,
    },
    /// An operation of the system failed.
    #[error("{path}: cannot {what} it: {source}")]
    Io {
        /// Operation, as a verb for the text.
        what: &'static str,
        /// File or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another snapshot is being written.
    #[error("a snapshot is already being written")]
    SnapshotRunning,
    /// The journal is closed, or its disk fails.
    #[error("no snapshot can be begun: {0}")]
    NotNow(#[from] WriteError),
}

impl JournalError {
    /// Returns true if the operator has to do something about the directory; a restart alone would meet the same error.
    pub fn needs_the_operator(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Newer { .. } | Self::Damaged { .. } | Self::Missing { .. })
    }

    /// Returns true if `lamplighter journal repair` can help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    /// Constructor for `map_err`, for a file given by its name.
    pub(super) fn on(what: &'static str, dir: &Path, name: &str) -> impl FnOnce(io::Error) -> Self {
        let path = dir.join(name);
        move |source| Self::Io { what, path, source }
    }
}

/// Refusal of an append. The caller has to roll its change back; see [`Journal::append`](super::Journal::append).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct RefusedAppend {
    /// Reason.
    #[source]
    pub why: WriteError,
    /// Hold that the caller drops once the change is rolled back; until then the journal accepts no other change.
    pub hold: Hold,
}

/// Reasons why an append was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk does not keep up; the queue will have room again later.
    #[error("the journal's queue is full")]
    Overloaded,
    /// A record is larger than a frame may be.
    #[error("{octets} octets in one record, and {most} are the most")]
    TooLarge {
        /// Size of the record (octets).
        octets: usize,
        /// Largest allowed size (octets).
        most: usize,
    },
    /// The disk fails or does not answer.
    #[error("the journal cannot be written: {0}")]
    Disk(Arc<str>),
    /// An earlier change was refused and is not rolled back yet.
    #[error("a change that was refused is still being rolled back")]
    RollingBack,
    /// [`Journal::close`](super::Journal::close) was called.
    #[error("the journal is closed")]
    Closed,
}

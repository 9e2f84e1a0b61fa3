//! What can go wrong, in words for the one who has to mend it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Hold;

/// Why the journal could not be opened or its image not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process has it.
    #[error("{path}: another server uses this data directory; stop it, or give this one a data.dir of its own")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It has files, and not ours.
    #[error(
        "{path}: not empty and no data directory of Lamplighter's (it holds {found:?}); \
         point data.dir at an empty or a new directory"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// Written by a later Lamplighter.
    #[error(
        "{path}: written in format {found}, this version reads up to {known}; start the newer Lamplighter again, or \
         point data.dir at a new directory"
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// What no crash of ours can leave: the medium or somebody changed what was already kept.
    #[error(
        "{path}: damaged at octet {offset} ({what}); nothing is changed. `lamplighter journal repair` with the directory \
         keeps every record that is good; or restore the directory from a copy, or move it away to start empty: phones then \
         come back with their next refresh"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where its first bad octet may be.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A file that must be there is not.
    #[error(
        "{path}: missing, and with it records that were acknowledged; `lamplighter journal repair` with the directory keeps \
         every record that is there; or restore the directory from a copy, or move it away to start empty: phones then come \
         back with their next refresh"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot {what} it: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// One image at a time.
    #[error("a snapshot is already being written")]
    SnapshotRunning,
    /// The journal is closed, or its disk fails.
    #[error("no snapshot can be begun: {0}")]
    NotNow(#[from] WriteFailed),
}

impl JournalError {
    /// Whether an operator has to do something about the directory: another start alone meets the same.
    pub fn needs_the_operator(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Newer { .. } | Self::Damaged { .. } | Self::Missing { .. })
    }

    /// Whether a repair can help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. })
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    /// For `map_err`: the same for a file by its name.
    pub(super) fn on(what: &'static str, dir: &Path, name: &str) -> impl FnOnce(io::Error) -> Self {
        let path = dir.join(name);
        move |source| Self::Io { what, path, source }
    }
}

/// An append that was not kept. What its records tell of has to be rolled back; see
/// [`Journal::append`](super::Journal::append).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// Why.
    #[source]
    pub why: WriteFailed,
    /// To be dropped once the change is rolled back: until then the journal accepts no other.
    pub hold: Hold,
}

/// Why an append was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFailed {
    /// The disk does not keep up; later there is room again.
    #[error("the journal's queue is full")]
    Overloaded,
    /// More than one record may ever hold.
    #[error("{octets} octets in one record, and {most} are the most")]
    TooLarge {
        /// What was asked.
        octets: usize,
        /// What there is.
        most: usize,
    },
    /// The disk refused, or does not answer.
    #[error("the journal cannot be written: {0}")]
    Disk(Arc<str>),
    /// An earlier change was refused and is not rolled back yet.
    #[error("a change that was refused is still being rolled back")]
    RollingBack,
    /// [`Journal::close`](super::Journal::close) came first.
    #[error("the journal is closed")]
    Closed,
}

//! `lamplighter journal`: checks and repairs the journal of a server that does not start. These commands read the disk
//! and need no running server.

use std::fmt::Write as _;
use std::path::Path;

use super::{OperatorError, put};
use crate::journal::{self, JournalError, Survey};
use crate::notifier::lost;

/// Error of a journal command.
#[derive(Debug, thiserror::Error)]
pub enum JournalCommandError {
    /// The journal is damaged.
    #[error("{dir}: damaged; `lamplighter journal repair {dir}` keeps every record that is good")]
    Damaged {
        /// Directory as given on the command line.
        dir: String,
    },
    /// The journal cannot be read or cannot be repaired.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Standard output cannot be written.
    #[error(transparent)]
    Output(#[from] OperatorError),
}

impl JournalCommandError {
    /// Returns true if the journal cannot be used until the operator acts.
    pub fn needs_the_operator(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Journal(error) => error.needs_the_operator(),
            Self::Output(_) => false,
        }
    }
}

/// `lamplighter journal check`: prints the content and the damage of every file.
pub fn check_journal(dir: &Path) -> Result<(), JournalCommandError> {
    let survey = journal::check(dir)?;
    put(&described(&survey))?;
    match survey.is_damaged() {
        true => Err(JournalCommandError::Damaged { dir: dir.display().to_string() }),
        false => Ok(()),
    }
}

/// `lamplighter journal repair`: keeps the valid records, moves damaged parts aside, and prints which records are lost.
pub fn repair_journal(dir: &Path) -> Result<(), JournalCommandError> {
    let Some(repaired) = journal::repair(dir)? else {
        put(&format!("{}: not damaged, nothing is changed\n", dir.display()))?;
        return Ok(());
    };
    let mut text = described(&repaired.survey);
    for path in &repaired.aside {
        let _ = writeln!(text, "put aside: {}", path.display());
    }
    let _ = writeln!(text, "{} records hold", repaired.kept);
    for line in lost(&repaired.survey) {
        let _ = writeln!(text, "lost: {line}");
    }
    if repaired.older > 0 {
        let _ = writeln!(text, "of what is lost, {} records are back in their state of before", repaired.older);
    }
    put(&text)?;
    Ok(())
}

fn described(survey: &Survey) -> String {
    let mut text = String::new();
    for file in &survey.files {
        let path = file.path.display();
        let _ = writeln!(text, "{path}: {} octets, {} good records", file.octets, file.records);
        for bad in &file.bad {
            let _ = writeln!(text, "{path}: DAMAGED at octet {}, {} octets: {}", bad.offset, bad.octets, bad.what);
        }
        if let Some(at) = file.torn_at {
            let torn = file.octets - at;
            let _ =
                writeln!(text, "{path}: ends in a torn write at octet {at}, {torn} octets; the next start cuts it off");
        }
    }
    for path in &survey.missing {
        let _ = writeln!(text, "{}: MISSING", path.display());
    }
    text
}

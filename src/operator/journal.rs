//! `lamplighter journal`: looks at and repairs a journal whose server does not start. These commands read the disk and ask
//! no server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{OperatorError, put};
use crate::journal::{self, BadPart, JournalError, Survey};
use crate::notifier::describe;

/// Why a journal command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum JournalCommandError {
    /// The journal is damaged.
    #[error("{dir}: damaged; `lamplighter journal repair {dir}` keeps every record that is good")]
    Damaged {
        /// The directory, as it was given.
        dir: String,
    },
    /// It cannot be read, or not be repaired.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Standard output cannot be written.
    #[error(transparent)]
    Output(#[from] OperatorError),
}

impl JournalCommandError {
    /// Whether the directory cannot be used as it is.
    pub fn needs_the_operator(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Journal(error) => error.needs_the_operator(),
            Self::Output(_) => false,
        }
    }
}

/// `lamplighter journal check`: says what every file holds, and what is bad in it.
pub fn check_journal(dir: &Path) -> Result<(), JournalCommandError> {
    let survey = journal::check(dir)?;
    put(&described(&survey))?;
    match survey.is_damaged() {
        true => Err(JournalCommandError::Damaged { dir: dir.display().to_string() }),
        false => Ok(()),
    }
}

/// `lamplighter journal repair`: keeps what is good, puts aside what is not, and says what is lost.
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

/// What is lost, by kind and account, as far as it can be told; and what cannot.
pub fn lost(survey: &Survey) -> Vec<String> {
    let bad: Vec<&BadPart> = survey.files.iter().flat_map(|file| &file.bad).collect();
    let mut counts = BTreeMap::new();
    for (key, value) in bad.iter().flat_map(|bad| &bad.lost) {
        let about = describe(*key, value.as_deref());
        *counts.entry((about.account, about.kind, value.is_none())).or_insert(0_u64) += 1;
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|((account, kind, removal), count)| {
            let what = if removal { "removals of a " } else { "" };
            let whose = account.map_or_else(String::new, |account| format!(", account {account}"));
            format!("{what}{kind}{whose}: {count}")
        })
        .collect();
    let unreadable: u64 = bad.iter().filter(|bad| bad.lost.is_empty()).map(|bad| bad.octets).sum();
    if unreadable > 0 {
        lines.push(format!("{unreadable} octets in which nothing can be told apart"));
    }
    lines.extend(survey.missing.iter().map(|path| format!("all of {}, which is missing", path.display())));
    lines
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

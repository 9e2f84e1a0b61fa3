//! Shell completion and manual pages, generated from the command line's definition.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{OperatorError, put};
use crate::cli::Cli;

/// `lamplighter completion`: prints a completion script for a shell.
pub fn completion(shell: Shell) -> Result<(), OperatorError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lamplighter", &mut script);
    put(&String::from_utf8_lossy(&script))
}

/// `lamplighter man`: prints the manual page, or writes one page for each command into a folder.
pub fn man(folder: Option<&Path>) -> Result<(), OperatorError> {
    match folder {
        Some(folder) => std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
            .map_err(|error| OperatorError::Pages(folder.into(), error)),
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page).map_err(OperatorError::Output)?;
            put(&String::from_utf8_lossy(&page))
        }
    }
}

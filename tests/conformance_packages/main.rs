//! Conformance list, groups E to K: dialogs, the notifier, the packages, publications, extensions. One file per group,
//! on the virtual clock of the scenarios; docs/conformance.md names the test for each row.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "../scenarios/office.rs"]
#[allow(dead_code)] // each suite uses what it needs of it
mod office;

mod conditions;
mod dialog_package;
mod dialogs;
mod extensions;
mod message_summary;
mod named;
mod notifier;
mod presence;
mod publish;
mod rates;

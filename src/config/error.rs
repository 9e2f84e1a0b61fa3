//! Configuration errors, with enough detail for the operator to correct the file.

use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A refused configuration: place, key, problem and, if possible, the correct form.
///
/// It never holds a value that may be a secret, nor the text of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Name of the file as it was given.
    pub file: String,
    /// Line and column, from 1; `None` if the problem is with the whole file.
    pub place: Option<(usize, usize)>,
    /// Key with its tables, as in `account[0].realm`; empty if there is none.
    pub key: String,
    /// The problem and, where they can be listed, the allowed values.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Keys that had another name before 0.1.0 was released, and the name that they have.
const RENAMED: [(&str, &str); 7] = [
    ("access.open_to_the_world", "access.allow_unauthenticated"),
    ("access.trusted", "access.trusted_proxies"),
    ("hep.node", "hep.agent_id"),
    ("limits.subscriptions_per_phone", "limits.subscriptions_per_device"),
    ("presence.large_notify", "presence.oversize_notify"),
    ("presence.notify_gap_ms", "presence.min_notify_interval_ms"),
    ("rates", "rate_limits` with the keys `verified_source`, `unverified_source`, `per_address`, `unverified_total"),
];

/// Text of the file; converts a byte range into a place and a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Error at `span`.
    pub(super) fn fault(&self, span: Range<usize>, key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            place: Some(self.place(span.start)),
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// Error about the whole file.
    pub(super) fn whole(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.to_owned(), place: None, key: String::new(), problem: problem.into() }
    }

    /// Error of the TOML parser. Only its message is used: its `Display` quotes the line, which may hold a password.
    pub(super) fn unreadable(&self, error: &toml::de::Error) -> ConfigError {
        let problem = error.message().replace(['\n', '\r'], " ");
        let Some(span) = error.span() else { return self.whole(problem) };
        let key = self.key_at(&span);
        match RENAMED.iter().find(|(old, _)| *old == key && problem.starts_with("unknown field")) {
            Some((_, new)) => self.fault(span, key, format!("was renamed; it is `{new}` now")),
            None => self.fault(span, key, problem),
        }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Path of the key whose name or value covers `span` most narrowly; of several with equal width, the deepest.
    fn key_at(&self, span: &Range<usize>) -> String {
        let mut best = Best { span: span.clone(), width: usize::MAX, key: String::new() };
        if let Ok(root) = DeTable::parse(self.text) {
            best.look_into(root.get_ref(), "");
        }
        best.key
    }
}

/// Narrowest match so far.
struct Best {
    span: Range<usize>,
    width: usize,
    key: String,
}

impl Best {
    fn offer(&mut self, at: Range<usize>, key: &str) {
        if at.start <= self.span.start && self.span.end <= at.end && at.len() <= self.width {
            self.width = at.len();
            key.clone_into(&mut self.key);
        }
    }

    fn look_into(&mut self, table: &DeTable<'_>, path: &str) {
        for (name, value) in table.iter() {
            let key = if path.is_empty() { name.get_ref().to_string() } else { format!("{path}.{}", name.get_ref()) };
            self.offer(name.span(), &key);
            self.offer(value.span(), &key);
            self.look_at(value.get_ref(), &key);
        }
    }

    fn look_at(&mut self, value: &DeValue<'_>, key: &str) {
        match value {
            DeValue::Table(table) => self.look_into(table, key),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let key = format!("{key}[{i}]");
                    self.offer(item.span(), &key);
                    self.look_at(item.get_ref(), &key);
                }
            }
            _ => {}
        }
    }
}

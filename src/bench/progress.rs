//! Progress report on stderr: continuous on a terminal, occasional lines in a file.

use std::io::{IsTerminal as _, Write as _};

use super::ops::MS;

#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    terminal: bool,
    next: u64,
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { what: String::new(), terminal: std::io::stderr().is_terminal(), next: 0, shown: false }
    }

    /// Begins a new task.
    pub(super) fn begin(&mut self, now: u64, what: String) {
        self.end();
        self.what = what;
        self.next = now + if self.terminal { 0 } else { 5_000 * MS };
    }

    pub(super) fn show(&mut self, now: u64, done: u64, all: u64) {
        if now < self.next {
            return;
        }
        let share = (done * 100).checked_div(all).unwrap_or(100);
        let mut err = std::io::stderr().lock();
        // A failed write of the progress is harmless.
        let _ = if self.terminal {
            write!(err, "\r\x1b[K{}: {done} of {all} ({share} %)", self.what)
        } else {
            writeln!(err, "{}: {done} of {all} ({share} %)", self.what)
        };
        let _ = err.flush();
        self.shown = true;
        self.next = now + if self.terminal { 200 * MS } else { 5_000 * MS };
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.shown) && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

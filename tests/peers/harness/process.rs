//! Child processes that end with the test. They are ended by their own id only.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Returns true and prints a message if `program` is missing, so that the test should be skipped.
pub(crate) fn skip_without(program: &str) -> bool {
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    // Debian installs daemons in a folder that is not in an ordinary user's PATH.
    let installed = installed || Path::new("/usr/sbin").join(program).is_file();
    skip_unless(installed, program, "")
}

/// The same for a file; `remedy` explains how to get it.
pub(crate) fn skip_without_file(file: &Path, remedy: &str) -> bool {
    skip_unless(file.is_file(), &file.display().to_string(), remedy)
}

/// The same for anything that a test has checked itself.
pub(crate) fn skip_unless(installed: bool, what: &str, remedy: &str) -> bool {
    if !installed {
        let required = std::env::var("LAMPLIGHTER_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "{what} is not installed, but LAMPLIGHTER_REQUIRE_PEERS=1 {remedy}");
        eprintln!("skipped: {what} is not installed {remedy}");
    }
    !installed
}

/// A running child. When dropped, it is ended with SIGTERM, and killed if it does not end.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; its output goes to `<name>.out` in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let out = std::fs::File::create(folder.join(format!("{name}.out"))).expect("a file for the child's output");
        let err = out.try_clone().expect("a second handle of that file");
        command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir(folder);
        Self::adopt(name, command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}")))
    }

    pub(crate) fn adopt(name: &str, child: Child) -> Self {
        Self { name: name.to_owned(), child }
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("cannot ask for {}: {error}", self.name))
    }

    /// Waits for the child to end by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.has_ended() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                ended => return ended,
            }
        }
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        // The standard library can only send SIGKILL; other signals need the system's `kill`.
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        sent.expect("`kill` runs");
    }

    /// Sends SIGTERM, and waits for a clean end.
    pub(crate) fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.has_ended().is_none() {
            self.signal("TERM");
        }
        self.wait(patience)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.terminate(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

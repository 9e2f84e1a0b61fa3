//! Child processes that end with the test, by their own id and nobody else's.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// True, after saying so, when `program` is missing and the test should be skipped.
pub(crate) fn skip_without(program: &str) -> bool {
    let installed = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    // Debian keeps daemons where an ordinary user's PATH does not look.
    let installed = installed || Path::new("/usr/sbin").join(program).is_file();
    skip_unless(installed, program, "")
}

/// The same for a file; `remedy` says how to get it.
pub(crate) fn skip_without_file(file: &Path, remedy: &str) -> bool {
    skip_unless(file.is_file(), &file.display().to_string(), remedy)
}

/// The same for whatever a test has looked for itself.
pub(crate) fn skip_unless(installed: bool, what: &str, remedy: &str) -> bool {
    if !installed {
        let required = std::env::var("LAMPLIGHTER_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "{what} is not installed, but LAMPLIGHTER_REQUIRE_PEERS=1 {remedy}");
        eprintln!("skipped: {what} is not installed {remedy}");
    }
    !installed
}

/// A running child. Dropped, it is ended: asked with SIGTERM, and killed if it does not listen.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; what it prints goes to `<name>.out` in `folder`.
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
        // The standard library can only kill; asking politely takes the `kill` of the system.
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        sent.expect("`kill` runs");
    }

    /// SIGTERM, then the time it has to leave in good order.
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

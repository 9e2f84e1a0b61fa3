//! Headless Chromium, controlled by the test (tests/peers/web/remote.js).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Longest wait for a page (ms). It is generous, because other work may use the two cores as well.
pub(crate) const PATIENCE: u64 = 60_000;

pub(crate) struct Browser {
    node: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    profile: PathBuf,
}

impl Browser {
    pub(crate) fn start(name: &str) -> Browser {
        let profile = std::env::temp_dir().join(format!("lamplighter-{}-{name}-chromium", std::process::id()));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/web/remote.js");
        let mut command = Command::new("node");
        command.arg(script).arg("chromium").arg(&profile).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = command.stderr(Stdio::null()).spawn().expect("node starts");
        let (to, from) = (node.stdin.take(), BufReader::new(node.stdout.take().unwrap()));
        Browser { node, to, from, profile }
    }

    fn tell(&mut self, command: &Value) -> Value {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{command}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?} to {command}"));
        assert!(answer.get("error").is_none(), "{command}: {}", answer["error"].as_str().unwrap_or_default());
        answer["ok"].clone()
    }

    pub(crate) fn go(&mut self, url: &str) {
        self.tell(&json!({ "go": url }));
    }

    /// Value of an expression.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        self.tell(&json!({ "eval": expression }))
    }

    /// Waits until an expression is true; returns its value.
    pub(crate) fn until(&mut self, expression: &str) -> Value {
        self.tell(&json!({ "wait": expression, "ms": PATIENCE }))["value"].clone()
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        self.tell(&json!({ "size": [width, height] }));
    }

    /// Selects the colour scheme, `light` or `dark`.
    pub(crate) fn scheme(&mut self, scheme: &str) {
        self.tell(&json!({ "scheme": scheme }));
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.tell(&json!({ "key": key }));
    }

    pub(crate) fn shot(&mut self, file: &Path, full: bool) {
        self.tell(&json!({ "shot": file, "full": full }));
    }

    /// CPU milliseconds of the page so far: scripts, styles, layout, and its whole main thread.
    pub(crate) fn work(&mut self) -> [f64; 4] {
        let metrics = self.tell(&json!({ "metrics": true }));
        ["ScriptDuration", "RecalcStyleDuration", "LayoutDuration", "TaskDuration"]
            .map(|name| metrics[name].as_f64().unwrap() * 1_000.0)
    }

    /// Script errors and violations of the content security policy since the last call.
    pub(crate) fn complaints(&mut self) -> Value {
        self.tell(&json!({ "complaints": true }))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // At the end of its input the script ends the browser and then itself.
        drop(self.to.take());
        let _ = self.node.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

//! `lamplighter bench` as a user runs it: it finds no violation in our own server, and names the violations of faulty
//! servers.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

mod liar;
#[path = "../peers/harness/ports.rs"]
mod ports;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use liar::{Liar, Lie};
use serde_json::Value;

fn lamplighter() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lamplighter"))
}

/// Temporary folder of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("lamplighter-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `bench`; returns its output and its results.
fn bench(folder: &Path, args: &[&str]) -> (Output, Value) {
    let json = folder.join("results.json");
    let output = lamplighter().arg("bench").args(args).arg("--json").arg(&json).output().unwrap();
    let results = std::fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    (output, results)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Writes the configuration with `bench config`; returns the command that starts the server, and its address.
fn configure(folder: &Path, more: &[&str]) -> (String, String) {
    let (sip, http) = (format!("127.0.0.1:{}", ports::free()), format!("127.0.0.1:{}", ports::free()));
    let file = folder.join("lamplighter.toml");
    let mut config = lamplighter();
    config.args(["bench", "config"]).arg(&file).args(["--listen", &sip, "--http", &http]).args(more);
    let output = config.arg("--data").arg(folder.join("data")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    (format!("{} serve --config {}", env!("CARGO_BIN_EXE_lamplighter"), file.display()), sip)
}

/// Small enough for a debug build on a busy machine.
const SMALL: [&str; 14] = [
    "--subscriptions",
    "200",
    "--widths",
    "1,30",
    "--notifies-per-second",
    "400",
    "--seconds",
    "1",
    "--storm-seconds",
    "1",
    "--settle",
    "0",
    "--phones",
    "120",
];

fn number(results: &Value, scenario: &str, name: &str) -> f64 {
    let rows = results["results"].as_array().unwrap();
    let row =
        rows.iter().find(|row| row["scenario"] == scenario).unwrap_or_else(|| panic!("no {scenario}: {results:#}"));
    row[name]["median"].as_f64().unwrap_or_else(|| panic!("no {name} in {scenario}: {row:#}"))
}

#[test]
fn all_scenarios_with_passwords_and_a_journal() {
    let folder = Folder::new("all");
    let (server, target) = configure(&folder.0, &["--digest", "--phones", "120", "--durability", "strict"]);
    let args = ["--target", &target, "--server-command", &server, "--storm-phones", "100", "--repeat", "2"];
    let (output, results) = bench(&folder.0, &[&SMALL[..], &args].concat());
    assert!(output.status.success(), "{}\n{results:#}", text(&output));
    assert_eq!(results["faults"], Value::Array(vec![]));
    assert_eq!(results["settings"]["subscriptions"], 200);
    for scenario in ["subscribe", "refresh", "unsubscribe"] {
        assert_eq!(number(&results, scenario, "operations"), 200.0, "{scenario}");
        assert!(number(&results, scenario, "per_second") > 0.0);
        assert!(number(&results, scenario, "notify_p99_ms") >= number(&results, scenario, "notify_p50_ms"));
    }
    assert_eq!(number(&results, "subscribe", "challenges"), 200.0);
    assert!(number(&results, "subscribe", "cpu_per_1000") > 0.0);
    assert!(number(&results, "subscribe", "rss_bytes") > 1e6);
    assert!(number(&results, "subscribe", "bytes_per_subscription").is_finite());
    assert!(number(&results, "steady", "news") > 0.0);
    assert_eq!(number(&results, "steady", "stale_lamps"), 0.0);
    assert_eq!(number(&results, "fan-out 30", "news"), 30.0 * number(&results, "fan-out 30", "rounds"));
    assert_eq!(number(&results, "storm", "operations"), 100.0);
    assert_eq!(number(&results, "storm", "challenges"), 100.0);
    assert_eq!(number(&results, "storm", "server_errors") + number(&results, "storm", "dark_phones"), 0.0);
    assert_eq!(number(&results, "cold", "kept_percent"), 100.0);
    let words = text(&output);
    for word in ["settings: target", "fan-out 30", "CPU s/1000", "octets of memory per subscription"] {
        assert!(words.contains(word), "{word}: {words}");
    }

    // Comparing a file with itself is valid too.
    let (file, plots) = (folder.0.join("results.json"), folder.0.join("plots"));
    let output =
        lamplighter().args(["bench", "compare"]).args([&file, &file]).arg("--plot").arg(&plots).output().unwrap();
    assert!(output.status.success() && text(&output).contains(" | 1.0 |"), "{}", text(&output));
    let pictures = std::fs::read_dir(&plots).unwrap().flatten();
    for picture in pictures {
        assert!(std::fs::read_to_string(picture.path()).unwrap().ends_with("</svg>\n"));
    }
}

#[test]
fn a_server_without_mistakes_passes() {
    let liar = Liar::start(Lie::None);
    let folder = Folder::new("honest");
    let (output, results) =
        bench(&folder.0, &["--target", &liar.address, "--subscriptions", "20", "--scenario", HONEST]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(results["faults"], Value::Array(vec![]));
}

const HONEST: &str = "subscribe,refresh,unsubscribe";

#[test]
fn mistakes_are_named() {
    for (lie, named) in [
        (Lie::NoNotify, "no NOTIFY came after a SUBSCRIBE"),
        (Lie::NoAnswer, "a request was never answered"),
        (Lie::SameCSeq, "two NOTIFYs have the same CSeq"),
        (Lie::CSeqFalls, "CSeq fell"),
        (Lie::VersionStays, "a document's version did not rise by one"),
        (Lie::VersionJumps, "a document's version did not rise by one"),
        (Lie::OtherEntity, "a document is about somebody else"),
        (Lie::ForeignState, "a document shows a state that was not published"),
        (Lie::EndsAtOnce, "the server ended a subscription"),
        (Lie::OtherTag, "a NOTIFY is of a dialog that we do not have"),
        (Lie::Error, "a request was answered with 5xx"),
        (Lie::Garbage, "a message cannot be read"),
    ] {
        let liar = Liar::start(lie);
        let folder = Folder::new(&format!("{lie:?}"));
        let common = ["--target", &liar.address, "--subscriptions", "3", "--scenario", "subscribe,refresh"];
        let (output, results) = bench(&folder.0, &[&common[..], &["--give-up", "1", "--settle", "0"]].concat());
        assert_eq!(output.status.code(), Some(1), "{lie:?}: {}", text(&output));
        let faults = results["faults"].as_array().unwrap();
        assert!(faults.iter().any(|fault| fault["fault"] == named), "{lie:?}: {results:#}");
        assert!(text(&output).contains(named), "{lie:?}: {}", text(&output));
    }
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let cold = lamplighter().args(["bench", "--scenario", "cold"]).output().unwrap();
    assert_eq!(cold.status.code(), Some(2));
    assert!(text(&cold).contains("--server-command"), "{}", text(&cold));
    let unknown = lamplighter().args(["bench", "--scenario", "warm"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    let ended = lamplighter().args(["bench", "--server-command", "false"]).output().unwrap();
    assert!(!ended.status.success() && text(&ended).contains("has ended at once"), "{}", text(&ended));
}

//! External load generator as a check: every NOTIFY is well-formed, has the right entity, and version and CSeq that
//! rise by one, and none is lost. Speed is not checked here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{PATIENCE, Process, Server, Settings, skip_without};

/// Source folder of the load generator, which is not part of this repository; the test is skipped without it.
fn source() -> Option<PathBuf> {
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|place| place.join("shared/bench/loadgen"));
    places.into_iter().find(|place| place.join("Cargo.toml").is_file())
}

#[test]
fn two_thousand_subscriptions_without_a_fault() {
    let Some(source) = source() else {
        eprintln!("skipped: shared/bench/loadgen is not here");
        return;
    };
    if skip_without("curl") {
        return;
    }
    let loadgen = build(&source);
    let server = Server::start("load", &Settings::default());
    let mut command = Command::new(loadgen);
    command.args(["--target", &format!("127.0.0.1:{}", server.sip_port()), "--domain", "acme.test"]);
    command.args(["--subs", "2000", "--fanout", "500", "--mix-secs", "3", "--strict"]);
    let mut run = Process::start("loadgen", &mut command, server.folder());
    let ended = run.wait(6 * PATIENCE);
    let said = std::fs::read_to_string(server.folder().join("loadgen.out")).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}:\n{said}");
}

/// Builds a copy (the original may be read-only) below our own target directory, so that the next run finds it built.
fn build(source: &Path) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loadgen");
    std::fs::create_dir_all(place.join("src")).expect("a folder for the copy");
    let files = ["Cargo.toml", "Cargo.lock"].map(PathBuf::from).into_iter();
    let sources = std::fs::read_dir(source.join("src")).expect("its sources").flatten();
    for file in files.chain(sources.map(|entry| Path::new("src").join(entry.file_name()))) {
        let text = std::fs::read(source.join(&file)).expect("a source file");
        let copy = place.join(&file);
        // An equal file is not written again, so that cargo has nothing to build.
        if std::fs::read(&copy).ok().as_ref() != Some(&text) {
            std::fs::write(copy, text).expect("a copy of it");
        }
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--offline", "--target-dir", "target"]);
    let built = Process::start("cargo-build", &mut cargo, &place).wait(Duration::from_secs(300));
    assert!(built.is_some_and(|status| status.success()), "loadgen does not build; see {}", place.display());
    place.join("target/release/presence-loadgen")
}

//! Fuzzing campaign of one target, guided by coverage or at random. `.ci/fuzz` builds it; docs/fuzzing.md explains how
//! to run it.
//!
//! It is an example and not a test because of the way it must be built: alone, without the server's own binary, and
//! with the fuzzer on the main thread, because only there its alarm for hangs works.

#[path = "mod.rs"]
mod fuzz;

use std::fs;
use std::path::Path;

use fuzz::target::Target;
use fuzz::{bodies, http, message, stream, values};

const TARGETS: [Target; 5] = [message::TARGET, stream::TARGET, values::TARGET, bodies::TARGET, http::TARGET];
/// Number of passes over a corpus, to see whether memory grows.
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let target = |name: &str| TARGETS.into_iter().find(|target| target.name == name);
    match arguments.as_slice() {
        ["targets"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["seeds", name, folder] if let Some(target) = target(name) => write_seeds(&target, Path::new(folder)),
        ["dictionary", name] if let Some(target) = target(name) => print_dictionary(&target),
        ["replay", name, folder] if let Some(target) = target(name) => replay(&target, Path::new(folder)),
        [name] if let Some(target) = target(name) => bolero::check!().for_each(target.run),
        _ => {
            eprintln!("usage: fuzz TARGET | targets | seeds TARGET FOLDER | dictionary TARGET | replay TARGET FOLDER");
            std::process::exit(2);
        }
    }
}

fn write_seeds(target: &Target, folder: &Path) {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:04}")), seed).expect("a place for the seeds");
    }
}

/// Prints the dictionary in libFuzzer's format.
fn print_dictionary(target: &Target) {
    for word in target.words {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        println!("\"{escaped}\"");
    }
}

/// Runs a corpus repeatedly: memory that grows with the passes is leaked by the server's code, not by the fuzzer.
fn replay(target: &Target, folder: &Path) {
    let entries = fs::read_dir(folder).expect("a corpus");
    let inputs: Vec<_> = entries.map(|entry| fs::read(entry.expect("a file").path()).expect("an input")).collect();
    for round in 1..=ROUNDS {
        inputs.iter().for_each(|input| (target.run)(input));
        println!("round {round}: {} inputs, {} kB resident", inputs.len(), resident());
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse().ok()).unwrap_or(0)
}

//! The structure of the repository: modules use only those below them, and references to rules and files resolve.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the server from the lowest to the highest. A module uses only those before it.
const FLOORS: [&str; 18] = [
    "util",
    "logging",
    "sip",
    "capture",
    "transport",
    "presence",
    "package",
    "directory",
    "journal",
    "notifier",
    "api",
    "config",
    "server",
    "ctl",
    "watch",
    "demo",
    "simulator",
    "bench",
];
/// Not a floor: the command line knows every command, and commands take their arguments from it.
const WITHOUT_FLOOR: [&str; 2] = ["cli", "test_util"];
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose name ends so, as paths relative to the repository.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && !["node_modules", ".venv", "target"].iter().any(|skipped| name == *skipped) {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == extension) {
                found.push(path.strip_prefix(root()).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file in {folder}");
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Source text without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = text(path);
    let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    production.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// First segments of the paths that begin with `crate::`, also those in braces.
fn modules_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let group = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(group, _)| group);
        let names = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
        for name in names {
            let end = |c: char| !(c.is_ascii_lowercase() || c == '_');
            used.insert(name.trim().split(end).next().unwrap_or_default().to_owned());
        }
    }
    used
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|name| *name == module)
}

/// Uses of a higher module in these files, as (user, used, file).
fn upward(sources: impl Iterator<Item = (String, String, String)>) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (module, file, code) in sources {
        let Some(own) = floor(&module) else {
            assert!(WITHOUT_FLOOR.contains(&&*module), "{module} has no place among the floors of this test");
            continue;
        };
        for used in modules_used(&code) {
            if floor(&used).is_some_and(|used| used > own) {
                found.push((module.clone(), used, file.clone()));
            }
        }
    }
    found
}

fn sources() -> impl Iterator<Item = (String, String, String)> {
    let paths =
        files("src", "rs").into_iter().filter(|path| path.components().count() > 2 || path.ends_with("logging.rs"));
    paths.filter(|path| !path.starts_with("src/bin") && !path.to_string_lossy().contains("tests")).map(|path| {
        let module = path
            .components()
            .nth(1)
            .map(|part| part.as_os_str().to_string_lossy())
            .unwrap_or_default()
            .replace(".rs", "");
        (module, path.display().to_string(), code(&path))
    })
}

#[test]
fn no_module_uses_a_higher_one() {
    assert_eq!(upward(sources()), []);
}

#[test]
fn an_upward_use_is_noticed_in_every_form_of_a_path() {
    for code in ["use crate::api::Api;", "use crate::{sip::Uri, api::Api};", "let x = crate::api::serve();"] {
        let source = ("presence".to_owned(), "presence/x.rs".to_owned(), code.to_owned());
        assert_eq!(upward([source].into_iter()).len(), 1, "{code}");
    }
    let below = ("api".to_owned(), "api/x.rs".to_owned(), "use crate::sip::Uri;".to_owned());
    assert_eq!(upward([below].into_iter()), []);
}

/// Numbers behind "rule" or "rules", as in "(rule 5)" and "rules 1, 2 and 6".
fn cited(text: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (at, _) in text.match_indices("rule") {
        let before = text[..at].chars().next_back();
        let rest = &text[at + 4..];
        let Some(rest) = rest.strip_prefix("s ").or_else(|| rest.strip_prefix(' ')) else { continue };
        if before.is_some_and(char::is_alphanumeric) {
            continue;
        }
        for word in rest.split([' ', ',']).filter(|word| !word.is_empty() && *word != "and") {
            let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
            let Ok(number) = digits.parse() else { break };
            numbers.push(number);
            if digits.len() < word.len() {
                break;
            }
        }
    }
    numbers
}

#[test]
fn every_cited_rule_exists() {
    assert_eq!(cited("(rule 5), rules 1, 2 and 6; rule 10. no rule, ruler 3, rules of 4"), [5, 1, 2, 6, 10]);
    let rules = text(Path::new("docs/internals/rules.md"));
    let known: BTreeSet<u32> =
        (rules.lines()).filter_map(|line| line.strip_prefix("## Rule ")?.split_once(':')?.0.parse().ok()).collect();
    assert_eq!(known, (1..=10).collect(), "docs/internals/rules.md");
    let mut citations = 0;
    for path in
        ["src", "tests", "benches"].into_iter().flat_map(|folder| files(folder, "rs")).chain(files("docs", "md"))
    {
        if path.ends_with("structure.rs") {
            continue;
        }
        let text = text(&path);
        let numbers = cited(&text);
        citations += numbers.len();
        for number in numbers {
            assert!(known.contains(&number), "{} cites rule {number}", path.display());
        }
        for stale in ["(law ", "(laws "] {
            assert!(!text.contains(stale), "{} cites a law; the rules are in docs/internals/rules.md", path.display());
        }
    }
    assert!(citations > 60, "{citations}");
}

#[test]
fn every_source_file_that_a_document_or_a_module_head_names_exists() {
    let sources: BTreeSet<String> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|path| path.display().to_string())
        .collect();
    let exists = |name: &str| sources.iter().any(|path| path == name || path.ends_with(&format!("/{name}")));
    let (mut named, mut missing) = (0, Vec::new());
    let heads = files("src", "rs").into_iter().map(|path| {
        let head = text(&path).lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
        (path, head)
    });
    for (path, text) in files("docs", "md").into_iter().map(|path| (path.clone(), text(&path))).chain(heads) {
        for quoted in
            text.split('`').skip(1).step_by(2).filter(|quoted| quoted.ends_with(".rs") && !quoted.contains(' '))
        {
            named += 1;
            if !exists(quoted) {
                missing.push(format!("{} names {quoted}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 100, "{named}");
}

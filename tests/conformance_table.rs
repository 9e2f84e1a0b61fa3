//! Conformance table: every row of a finished group stands in docs/conformance.md once, in order, and names tests that
//! exist.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::collections::HashMap;
use std::path::Path;

/// Number of rows in each group of the conformance list.
const ROWS: [(&str, usize); 14] = [
    ("A", 53),
    ("B", 49),
    ("T", 49),
    ("V", 12),
    ("C", 30),
    ("D", 42),
    ("E", 22),
    ("F", 61),
    ("G", 52),
    ("H", 36),
    ("I", 22),
    ("J", 14),
    ("K", 33),
    ("L", 40),
];

/// A table row: its id, its requirement, and its tests or the reason why there is none.
struct Row<'a> {
    id: &'a str,
    held_by: &'a str,
    remark: &'a str,
}

fn rows(section: &str) -> Vec<Row<'_>> {
    let cells = |line: &str| line.trim_matches('|').split(" | ").count();
    let lines = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Row "));
    lines
        .map(|line| {
            assert_eq!(cells(line), 4, "row, what is asked, held by, remark: {line}");
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            Row { id: cells[0], held_by: cells[2], remark: cells[3] }
        })
        .collect()
}

#[test]
fn every_row_of_a_finished_group_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let mut sources = HashMap::new();
    for (group, count) in ROWS {
        let heading = format!("\n## {group}. ");
        let section = table.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {group}"));
        let section = section.split("\n## ").next().unwrap();
        if section.lines().next().unwrap().ends_with("(not yet)") {
            continue;
        }
        let rows = rows(section);
        let expected: Vec<_> = (1..=count).map(|n| format!("{group}-{n:03}")).collect();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), expected, "the rows of {group}");
        for Row { id, held_by, remark } in rows {
            assert!(held_by != "-" || !remark.is_empty(), "{id} is held by no test and says not why");
            for test in held_by.split("<br>").filter(|test| *test != "-") {
                let named = test.trim_matches('`').split_once("::").filter(|_| test.starts_with('`'));
                let (file, name) = named.unwrap_or_else(|| panic!("{id}: `FILE::TEST`, not {test}"));
                let source = sources.entry(file.to_string()).or_insert_with(|| {
                    std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{id}: {file}: {e}"))
                });
                assert!(source.contains(&format!("fn {name}(")), "{id}: no test {name} in {file}");
            }
        }
    }
}

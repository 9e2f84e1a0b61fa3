//! Comparison of results: a Markdown table with ratios to the first file, and charts.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::plot::{Group, Line, bars, lines, short};

/// One file of results.
struct Results {
    label: String,
    json: Value,
}

/// Numbers to compare: key, title, and the scenarios for which the number is meaningful (prefixes of their names).
const SHOWN: [(&str, &str, &[&str]); 9] = [
    ("cpu_per_1000", "CPU s per 1,000", &[""]),
    ("per_second", "per second", &["subscribe", "refresh", "unsubscribe", "steady"]),
    ("notify_p99_ms", "NOTIFY p99, ms", &["subscribe", "refresh", "steady", "unsubscribe", "storm"]),
    ("last_notify_p50_ms", "last NOTIFY, ms", &["fan-out"]),
    ("last_notify_seconds", "last NOTIFY, s", &["storm"]),
    ("bytes_per_subscription", "octets per subscription", &["subscribe"]),
    ("first_answer_ms", "start to first answer, ms", &["cold"]),
    ("kept_percent", "subscriptions that survived, %", &["cold"]),
    ("server_errors", "answers with 5xx", &["storm"]),
];

impl Results {
    fn read(file: &Path) -> io::Result<Results> {
        let text = std::fs::read_to_string(file).map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
        let json: Value =
            serde_json::from_str(&text).map_err(|e| io::Error::other(format!("{}: {e}", file.display())))?;
        let label = json["settings"]["label"].as_str().filter(|label| !label.is_empty()).map(String::from);
        let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Results { label: label.unwrap_or_else(stem), json })
    }

    fn rows(&self) -> impl Iterator<Item = &Value> {
        self.json["results"].as_array().into_iter().flatten()
    }

    fn number(&self, scenario: &str, name: &str, which: &str) -> Option<f64> {
        self.rows().find(|row| row["scenario"] == scenario)?[name][which].as_f64()
    }
}

/// Reads results, writes the charts and returns the table.
pub(super) fn run(files: &[PathBuf], plot: Option<&Path>) -> io::Result<String> {
    let all = files.iter().map(|file| Results::read(file)).collect::<io::Result<Vec<_>>>()?;
    if let Some(folder) = plot {
        std::fs::create_dir_all(folder)?;
        for (name, svg) in pictures(&all) {
            std::fs::write(folder.join(name), svg)?;
        }
    }
    Ok(table(&all))
}

/// Scenarios in the order in which they first occur.
fn scenarios(all: &[Results]) -> Vec<&str> {
    let mut names = Vec::new();
    for name in all.iter().flat_map(Results::rows).filter_map(|row| row["scenario"].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Converts days since 1970 to year, month and day (400 years of the calendar have 146,097 days).
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months are counted from March, so that the leap day is the last day of the year.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

/// Describes the machine, date and settings of each measurement.
fn preface(all: &[Results]) -> String {
    let mut out = String::new();
    for Results { label, json } in all {
        let (about, settings) = (&json["about"], &json["settings"]);
        let day = date(about["unix_time"].as_u64().unwrap_or(0) / 86_400);
        let machine = about["machine"].as_str().unwrap_or("an unknown machine");
        let text = |name: &str| settings[name].to_string().replace(['"', '[', ']'], "").replace(',', ", ");
        let _ = writeln!(
            out,
            "- {label}: {day}, {machine}; {} subscriptions, window {}, steady {} NOTIFYs a second for {} s, storm {} phones in \
             {} s, {} sockets, repeated {} times, scenarios {}",
            text("subscriptions"),
            text("window"),
            text("notifies_per_second"),
            text("seconds"),
            text("storm_phones"),
            text("storm_seconds"),
            text("sockets"),
            text("repeat"),
            text("scenario")
        );
    }
    out
}

fn table(all: &[Results]) -> String {
    let mut out = preface(all) + "\n| | |";
    for (i, results) in all.iter().enumerate() {
        let _ = write!(out, " {} |{}", results.label, if i > 0 { " ratio |" } else { "" });
    }
    let _ = write!(out, "\n|---|---|{}\n", "---:|".repeat(all.len() * 2 - 1));
    for scenario in scenarios(all) {
        for (name, words, about) in SHOWN {
            if !about.iter().any(|start| scenario.starts_with(start)) {
                continue;
            }
            let values: Vec<_> = all.iter().map(|results| results.number(scenario, name, "median")).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(out, "| {scenario} | {words} |");
            for (i, value) in values.iter().enumerate() {
                let ends = |results: &Results| {
                    let (least, most) =
                        (results.number(scenario, name, "min")?, results.number(scenario, name, "max")?);
                    (least < most).then(|| format!(" ({} to {})", short(least), short(most)))
                };
                let text = value.map_or("-".into(), short) + &ends(&all[i]).unwrap_or_default();
                let _ = write!(out, " {text} |");
                if i > 0 {
                    let ratio = value.zip(values[0]).filter(|(_, first)| *first > 0.0).map(|(v, first)| v / first);
                    let _ = write!(out, " {} |", ratio.map_or("-".into(), |ratio| format!("{ratio:.1}")));
                }
            }
            out.push('\n');
        }
    }
    for results in all {
        let faults = results.json["faults"].as_array().into_iter().flatten();
        for fault in faults {
            let _ = writeln!(out, "\n{} was wrong {} times: {}.", results.label, fault["count"], fault["fault"]);
        }
    }
    out
}

fn pictures(all: &[Results]) -> Vec<(&'static str, String)> {
    let names: Vec<&str> = all.iter().map(|results| &*results.label).collect();
    let groups = |name: &str, wanted: &dyn Fn(&str) -> bool| -> Vec<Group> {
        let wanted = scenarios(all).into_iter().filter(|scenario| wanted(scenario));
        let group = |scenario: &str| {
            let values: Vec<_> = all.iter().map(|results| results.number(scenario, name, "median")).collect();
            Group { name: scenario.into(), values }
        };
        wanted.map(group).filter(|group| group.values.iter().any(Option::is_some)).collect()
    };
    let is_fan_out = |scenario: &str| scenario.starts_with("fan-out");
    let fan_outs = |results: &Results| {
        let width = |scenario: &str| scenario.strip_prefix("fan-out ")?.parse().ok();
        let points = scenarios(all)
            .into_iter()
            .filter_map(|scenario| Some((width(scenario)?, results.number(scenario, "last_notify_p50_ms", "median")?)));
        Line { name: results.label.clone(), points: points.collect() }
    };
    let fan_out: Vec<Line> = all.iter().map(fan_outs).filter(|line| !line.points.is_empty()).collect();
    vec![
        (
            "cpu.svg",
            bars(
                "CPU seconds of the server per 1,000 operations",
                &names,
                &groups("cpu_per_1000", &|s| !is_fan_out(s)),
            ),
        ),
        (
            "cpu-fan-out.svg",
            bars(
                "CPU seconds of the server per 1,000 NOTIFYs of a fan-out",
                &names,
                &groups("cpu_per_1000", &is_fan_out),
            ),
        ),
        (
            "rate.svg",
            bars(
                "Operations per second",
                &names,
                &groups("per_second", &|s| matches!(s, "subscribe" | "refresh" | "unsubscribe")),
            ),
        ),
        ("fan-out.svg", lines("From a PUBLISH to the last NOTIFY", "watchers", "ms", &fan_out)),
        ("memory.svg", bars("Memory per subscription, octets", &names, &groups("bytes_per_subscription", &|_| true))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(label: &str, cpu: f64) -> Results {
        let json = serde_json::json!({
            "settings": {"label": label},
            "results": [{"scenario": "subscribe", "cpu_per_1000": {"median": cpu, "min": cpu, "max": cpu * 2.0}}],
            "faults": [],
        });
        Results { label: label.into(), json }
    }

    #[test]
    fn days_are_dates() {
        let days = [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_783, "2026-11-26"), (47_540, "2100-02-28")];
        for (day, text) in days {
            assert_eq!(date(day), text);
        }
    }

    #[test]
    fn ratios_are_to_the_first() {
        let all = [results("ours", 0.02), results("theirs", 0.09)];
        let line = "| subscribe | CPU s per 1,000 | 0.0200 (0.0200 to 0.0400) | 0.0900 (0.0900 to 0.1800) | 4.5 |";
        assert!(table(&all).contains(line), "{}", table(&all));
        assert_eq!(pictures(&all).len(), 5);
    }
}

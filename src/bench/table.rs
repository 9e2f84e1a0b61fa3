//! Results as a table for people.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::result::Row;
use super::settings::Settings;
use super::tally::Faults;

/// Title, key of the number, and digits after the point.
const COLUMNS: [(&str, &str, usize); 12] = [
    ("operations", "operations", 0),
    ("failed", "failed", 0),
    ("per second", "per_second", 0),
    ("answer p50", "answer_p50_ms", 2),
    ("p99 ms", "answer_p99_ms", 2),
    ("NOTIFY p50", "notify_p50_ms", 2),
    ("p99", "notify_p99_ms", 2),
    ("p99.9 ms", "notify_p999_ms", 2),
    ("last ms", "last_notify_p50_ms", 1),
    ("resent", "repeated_requests", 0),
    ("CPU s/1000", "cpu_per_1000", 4),
    ("PSS MiB", "pss_bytes", 1),
];

/// Writes the whole report.
pub(super) fn write(settings: &Settings, about: &Map<String, Value>, rows: &[Row], faults: &Faults) -> String {
    let mut out = String::new();
    for (name, value) in about {
        let _ = writeln!(out, "{name}: {}", value.as_str().map_or_else(|| value.to_string(), String::from));
    }
    let _ = writeln!(out, "settings: {}", in_words(settings));
    let _ = write!(out, "\n{:<14}", "");
    for (title, ..) in COLUMNS {
        let _ = write!(out, " {title:>10}");
    }
    out.push('\n');
    for row in rows {
        let _ = write!(out, "{:<14}", row.name);
        for (_, name, digits) in COLUMNS {
            let scale = if name == "pss_bytes" { 1.0 / f64::from(1 << 20) } else { 1.0 };
            match row.median(name) {
                Some(median) => _ = write!(out, " {:>10.digits$}", median * scale),
                None => _ = write!(out, " {:>10}", "-"),
            }
        }
        out.push('\n');
        if settings.repeat > 1 {
            let range = |name, digits: usize| {
                let (least, most) = row.range(name)?;
                Some(format!("{least:.digits$} to {most:.digits$}"))
            };
            let rate = range("per_second", 0).unwrap_or_default();
            let cpu = range("cpu_per_1000", 4).map(|cpu| format!(", CPU s/1000 {cpu}")).unwrap_or_default();
            let _ = writeln!(out, "{:<14} {rate} per second{cpu}", "");
        }
    }
    for row in rows {
        let more = [
            ("last_notify_seconds", "seconds until the last phone had its lamp", 2),
            ("challenges", "challenges answered", 0),
            ("sent_away", "requests sent away to come again", 0),
            ("dark_phones", "phones without a lamp in the end", 0),
            ("server_errors", "answers with 5xx", 0),
            ("first_answer_ms", "ms from the start of the server to its first answer", 0),
            ("kept_percent", "percent of the subscriptions survived", 0),
            ("unasked_notifies", "NOTIFYs that nobody had asked for after the start", 0),
            ("bytes_per_subscription", "octets of memory per subscription", 0),
            ("overtaken", "states overtaken by newer ones", 0),
            ("missed_notifies", "NOTIFYs that never came", 0),
            ("dropped_datagrams", "datagrams dropped by this machine", 0),
            ("notify_copies", "NOTIFYs that came twice", 0),
            ("left_out", "changes left out because the server did not answer", 0),
        ];
        for (name, words, digits) in more {
            if let Some(median) = row.median(name).filter(|median| *median != 0.0) {
                let _ = writeln!(out, "{}: {median:.digits$} {words}", row.name);
            }
        }
    }
    if !faults.is_empty() {
        out.push_str("\nWrong:\n");
        for (what, count, first) in faults.iter() {
            let _ = writeln!(out, "  {count} x {what}; first: {first}");
        }
    }
    out
}

/// Describes the settings on which results depend.
fn in_words(settings: &Settings) -> String {
    let words = serde_json::to_value(settings).unwrap_or_default();
    let fields = words.as_object().into_iter().flatten();
    let shown = fields.filter(|(_, value)| !value.is_null() && **value != "" && **value != Value::Array(Vec::new()));
    let text: Vec<String> =
        shown.map(|(name, value)| format!("{name} {}", value.to_string().replace(['"', '[', ']'], ""))).collect();
    text.join(", ")
}

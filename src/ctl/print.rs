//! Formats API results as lines and tables for a terminal. Control characters are replaced, because part of the text
//! comes from outside.

use std::fmt::Write as _;

use serde_json::Value;

/// A value as text without control characters, which could control the terminal.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Time since or until a moment, in its largest suitable unit.
fn span(at: &Value, now: u64) -> String {
    let Some(at) = at.as_u64() else { return String::new() };
    let seconds = at.abs_diff(now) / 1_000;
    let amount = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if at > now { format!("in {amount}") } else { format!("{amount} ago") }
}

/// A table with column heads; each column is as wide as its longest cell.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).chain([heads[i].len()]).max().unwrap_or(0);
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let mut out = String::new();
    let heads = heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>();
    for row in [&heads].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    out
}

fn rows<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn with(side: &Value) -> String {
    let name = text(&side["name"]);
    if name.is_empty() { text(&side["number"]) } else { name }
}

fn answer(reply: &Value) -> String {
    match reply.as_u64() {
        None => String::new(),
        Some(0) => "superseded".into(),
        Some(408) => "no answer".into(),
        Some(other) => other.to_string(),
    }
}

/// Table of accounts.
pub(super) fn accounts(accounts: &[Value]) -> String {
    let row = |account: &Value| vec![text(&account["realm"]), text(&account["name"]), text(&account["id"])];
    table(&["REALM", "NAME", "ID"], &accounts.iter().map(row).collect::<Vec<_>>())
}

/// Table of one account's subscriptions.
pub(super) fn subscriptions(found: &[Value], now: u64) -> String {
    let heads = [&["EXTENSION"][..], &WATCHER].concat();
    let row = |one: &Value| [vec![text(&one["extension"])], watcher(one, now)].concat();
    table(&heads, &found.iter().map(row).collect::<Vec<_>>())
}

/// Lamps and subscriptions found in several accounts.
pub(super) fn found(found_lamps: &[Value], subscriptions: &[Value], now: u64) -> String {
    if found_lamps.is_empty() && subscriptions.is_empty() {
        return "nothing has that in it\n".into();
    }
    let address = |row: &Value| format!("{}@{}", text(&row["extension"]), text(&row["realm"]));
    let mut out = String::new();
    if !found_lamps.is_empty() {
        let named = |lamp: &Value| {
            let mut lamp = lamp.clone();
            lamp["extension"] = address(&lamp).into();
            lamp
        };
        out += "Lamps\n";
        out += &lamps(&found_lamps.iter().map(named).collect::<Vec<_>>(), now);
    }
    if !subscriptions.is_empty() {
        let heads = [&["EXTENSION"][..], &WATCHER].concat();
        let row = |one: &Value| [vec![address(one)], watcher(one, now)].concat();
        let gap = if out.is_empty() { "" } else { "\n" };
        let rows: Vec<_> = subscriptions.iter().map(row).collect();
        let _ = write!(out, "{gap}Subscriptions\n{}", table(&heads, &rows));
    }
    out
}

/// Table of recent refusals, each with the realm of its account, if it has one.
pub(super) fn refusals(rows: &[Value], now: u64) -> String {
    if rows.is_empty() {
        return "no recent refusals\n".into();
    }
    let row = |one: &Value| {
        let status = text(&one["status"]);
        let reason = [text(&one["reason"]), text(&one["detail"])];
        let reason = reason.iter().filter(|text| !text.is_empty()).map(String::as_str).collect::<Vec<_>>().join(": ");
        vec![
            text(&one["realm"]),
            text(&one["kind"]),
            text(&one["who"]),
            text(&one["address"]),
            text(&one["method"]),
            format!("{status} {reason}").trim_start().to_owned(),
            text(&one["count"]),
            span(&one["first_at"], now),
            span(&one["last_at"], now),
        ]
    };
    let heads = ["ACCOUNT", "KIND", "WHO", "FROM", "METHOD", "REFUSED", "TIMES", "FIRST", "LAST"];
    table(&heads, &rows.iter().map(row).collect::<Vec<_>>())
}

/// Status of a drain.
pub(super) fn left(left: &Value, now: u64) -> String {
    let begin = match left["draining"] == true {
        true => "Draining: /readyz answers 503, new subscriptions are sent away.",
        false => "Not draining: new subscriptions are taken.",
    };
    let ends = match span(&left["last_expires_at"], now) {
        none if none.is_empty() => none,
        ends => format!(", the last ends {ends} unless refreshed"),
    };
    let (subscriptions, publications) = (text(&left["subscriptions"]), text(&left["publications"]));
    format!(
        "{begin}\n  {} NOTIFY(s) not answered yet\n  {subscriptions} subscription(s){ends}\n  \
         {publications} publication(s)\n",
        text(&left["unanswered"])
    )
}

/// Column heads for [`watcher`].
const WATCHER: [&str; 9] =
    ["WATCHER", "EVENT", "PHONE", "FROM", "STANDING", "BEHIND", "ANSWERED", "EXPIRES", "SUBSCRIPTION"];

/// One subscription as a row.
fn watcher(row: &Value, now: u64) -> Vec<String> {
    let behind = match row["behind"].as_u64() {
        None | Some(0) => String::new(),
        Some(n) if row["stale_since"].is_null() => n.to_string(),
        Some(n) => format!("{n}, since {}", span(&row["stale_since"], now)),
    };
    vec![
        text(&row["watcher"]),
        text(&row["event"]),
        text(&row["vendor"]),
        format!("{} {}", text(&row["transport"]), text(&row["peer"])),
        text(&row["delivery_status"]),
        behind,
        answer(&row["last"]["reply"]),
        span(&row["expires_at"], now),
        text(&row["id"]),
    ]
}

/// Table of lamps.
pub(super) fn lamps(lamps: &[Value], now: u64) -> String {
    let row = |lamp: &Value| {
        let count = |key: &str| text(&lamp[key]);
        vec![
            text(&lamp["extension"]),
            text(&lamp["name"]),
            text(&lamp["state"]),
            with(&lamp["with"]),
            span(&lamp["changed_at"], now),
            count("watchers"),
            count("behind"),
            count("failing"),
        ]
    };
    let rows: Vec<_> = lamps.iter().map(row).collect();
    table(&["EXTENSION", "NAME", "LAMP", "WITH", "CHANGED", "WATCHERS", "BEHIND", "NOT REACHED"], &rows)
}

/// Explanation of a lamp.
pub(super) fn lamp_story(story: &Value, now: u64) -> String {
    let mut out = String::new();
    let address = story["uri"].as_str().map_or_else(|| text(&story["extension"]), |_| text(&story["uri"]));
    let _ = write!(out, "{address} is {}", text(&story["state"]));
    if !with(&story["with"]).is_empty() {
        let _ = write!(out, " with {}", with(&story["with"]));
    }
    let changed = span(&story["changed_at"], now);
    let _ = writeln!(out, "{}", if changed.is_empty() { String::new() } else { format!(", changed {changed}") });
    for line in rows(story, "why") {
        let _ = writeln!(out, "  {}", text(line));
    }
    let calls: Vec<_> = rows(story, "live_calls")
        .map(|call| {
            let held = if call["held"] == true { ", on hold" } else { "" };
            let state = format!("{}{held}", text(&call["state"]));
            vec![
                text(&call["id"]),
                state,
                with(&call["with"]),
                span(&call["said_at"], now),
                span(&call["lapses_at"], now),
            ]
        })
        .collect();
    let publications: Vec<_> = rows(story, "publications")
        .map(|one| {
            let source = &one["source"];
            vec![
                text(&one["event"]),
                text(&source["from"]),
                text(&source["user_agent"]),
                text(&source["address"]),
                span(&one["expires_at"], now),
            ]
        })
        .collect();
    let watching: Vec<_> = rows(story, "watching").map(|row| watcher(row, now)).collect();
    for (title, heads, rows) in [
        ("Calls", &["ID", "STATE", "WITH", "HEARD OF", "LAPSES"][..], calls),
        ("Publications", &["EVENT", "BY", "AGENT", "FROM", "EXPIRES"], publications),
        ("Watchers", &WATCHER, watching),
    ] {
        if !rows.is_empty() {
            let _ = write!(out, "\n{title}\n{}", table(heads, &rows));
        }
    }
    out
}

/// Messages exchanged in a subscription.
pub(super) fn subscription(story: &Value, now: u64) -> String {
    let mut out = format!("\nExchanges with {}\n", text(&story["watcher"]));
    let exchanges: Vec<_> = rows(story, "exchanges")
        .map(|one| {
            vec![
                span(&one["at"], now),
                format!("{} {}", text(&one["method"]), text(&one["cseq"])),
                text(&one["version"]),
                answer(&one["reply"]),
                one["delay_ms"].as_u64().map(|ms| format!("{ms} ms")).unwrap_or_default(),
                text(&one["bytes"]),
                text(&one["transport"]),
                text(&one["copies"]),
            ]
        })
        .collect();
    if story["earlier"].as_u64().unwrap_or_default() > 0 {
        let _ = writeln!(out, "  up to {} earlier NOTIFYs are not in the history any more", text(&story["earlier"]));
    }
    out + &table(&["WHEN", "REQUEST", "VERSION", "ANSWER", "DELAY", "OCTETS", "OVER", "COPIES"], &exchanges)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lamp_is_told_in_lines_and_columns() {
        let story = json!({
            "uri": "sip:1001@acme.test", "state": "ringing", "with": {"name": "Carol\u{1b}[31m"}, "changed_at": 90_000,
            "why": ["Call c is early."], "live_calls": [], "publications": [],
            "watching": [{"watcher": "1002@acme.test", "delivery_status": "silent", "behind": 2, "stale_since": 40_000,
                "last": {"reply": 408}, "expires_at": 400_000, "id": "1.0.x", "event": "dialog", "vendor": "Snom",
                "transport": "UDP", "peer": "192.0.2.1:5060"}]
        });
        let told = lamp_story(&story, 100_000);
        assert!(
            told.starts_with(
                "sip:1001@acme.test is ringing with Carol\u{fffd}[31m, changed 10 s ago\n  Call c is early.\n"
            ),
            "{told}"
        );
        assert!(told.contains("silent    2, since 60 s ago  no answer  in 5 min"), "{told}");
        assert!(!told.contains("Publications"), "{told}");
    }
}

//! Results: numbers by name, one value per repetition, with their median.

use serde_json::{Map, Value, json};

use super::settings::Settings;
use super::tally::{Faults, Tally};
use super::usage::Usage;

/// One scenario, measured once or several times.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Name of the scenario, with the width of a fan-out.
    pub(super) name: String,
    /// Unit of `operations`.
    pub(super) unit: &'static str,
    pub(super) numbers: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    pub(super) fn add(&mut self, name: &'static str, value: f64) {
        match self.numbers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.numbers.push((name, vec![value])),
        }
    }

    /// Median of a number; none if it was not measured.
    pub(super) fn median(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| *known == name).map(|(_, values)| median(values))
    }

    /// Value of a number in the latest repetition.
    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| *known == name).and_then(|(_, values)| values.last().copied())
    }

    /// Smallest and largest value.
    pub(super) fn range(&self, name: &str) -> Option<(f64, f64)> {
        let (_, values) = self.numbers.iter().find(|(known, _)| *known == name)?;
        let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
        Some((fold(f64::min)?, fold(f64::max)?))
    }
}

/// The middle value, or the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// State of the machine and the server before and after a measurement.
pub(super) struct Around {
    pub(super) before: Usage,
    pub(super) after: Usage,
    pub(super) generator_cpu: f64,
    pub(super) dropped: u64,
    pub(super) seconds: f64,
    /// Memory of the server before the first request (octets).
    pub(super) at_start: Usage,
}

/// Adds the measurement of one repetition. CPU and rate are per `operations`.
pub(super) fn add_measurement(row: &mut Row, tally: &Tally, around: &Around, operations: u64) {
    let ms = |ns: u64| ns as f64 / 1e6;
    let count = operations as f64;
    row.add("operations", count);
    row.add("seconds", around.seconds);
    row.add("per_second", count / around.seconds.max(1e-9));
    for (histogram, names) in [
        (&tally.answer, ["answer_p50_ms", "answer_p99_ms", "answer_p999_ms", "answer_max_ms"]),
        (&tally.notify, ["notify_p50_ms", "notify_p99_ms", "notify_p999_ms", "notify_max_ms"]),
    ] {
        if histogram.count() > 0 {
            for (name, share) in names.into_iter().zip([0.5, 0.99, 0.999, 1.0]) {
                row.add(name, ms(if share < 1.0 { histogram.quantile(share) } else { histogram.largest() }));
            }
        }
    }
    if around.after.processes > 0 {
        let cpu = around.after.cpu - around.before.cpu;
        row.add("cpu_seconds", cpu);
        row.add("cpu_per_1000", cpu * 1_000.0 / count.max(1.0));
        row.add("rss_bytes", around.after.rss as f64);
        row.add("pss_bytes", around.after.pss as f64);
        row.add("rss_growth_bytes", around.after.rss as f64 - around.at_start.rss as f64);
        row.add("pss_growth_bytes", around.after.pss as f64 - around.at_start.pss as f64);
    }
    for (name, number) in [
        ("failed", tally.failed),
        ("lost", tally.lost),
        ("server_errors", tally.server_errors()),
        ("repeated_requests", tally.repeated),
        ("notifies", tally.notifies),
        ("notify_copies", tally.notify_copies),
        ("news", tally.news),
        ("overtaken", tally.overtaken),
        ("missed_notifies", tally.missed),
        ("challenges", tally.challenges),
        ("dropped_datagrams", around.dropped),
    ] {
        row.add(name, number as f64);
    }
    row.add("generator_cpu_seconds", around.generator_cpu);
}

/// Writes all results as JSON.
pub(super) fn to_json(settings: &Settings, about: &Map<String, Value>, rows: &[Row], faults: &Faults) -> Value {
    let number = |values: &[f64]| {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        json!({"median": median(values), "min": least, "max": most, "values": values})
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut object = Map::new();
            object.insert("scenario".into(), row.name.clone().into());
            object.insert("unit".into(), row.unit.into());
            for (name, values) in &row.numbers {
                object.insert((*name).into(), number(values));
            }
            object.into()
        })
        .collect();
    let faults: Vec<Value> =
        faults.iter().map(|(what, count, first)| json!({"fault": what, "count": count, "first": first})).collect();
    json!({"about": about, "settings": settings, "results": rows, "faults": faults})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_number_keeps_all_its_repetitions() {
        let mut row = Row { name: "subscribe".into(), unit: "request", numbers: Vec::new() };
        [5.0, 1.0, 3.0].into_iter().for_each(|value| row.add("x", value));
        assert_eq!((row.median("x"), row.range("x"), row.median("y")), (Some(3.0), Some((1.0, 5.0)), None));
    }
}

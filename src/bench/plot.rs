//! Charts of results: hand-written SVG, readable on light and dark pages.

use std::fmt::Write as _;

/// One colour per server.
const COLOURS: [&str; 6] = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00"];
const WIDTH: f64 = 760.0;
/// Margin for the names on the left, and for the numbers on the right.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const TOP: f64 = 56.0;

/// A group of bars, one per server; none where a server was not measured.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// Points of one server.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

fn begin(title: &str, names: &[&str], height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#777\">\n<text x=\"8\" y=\"20\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    let mut x = 8.0;
    for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"40\">{}</text>",
            x + 17.0,
            escape(name)
        );
        x += 40.0 + 7.0 * name.len() as f64;
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Formats a number with its significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.0},{:03}", (value / 1_000.0).floor(), value.round() as i64 % 1_000),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Draws a bar chart from zero, with the numbers behind the bars.
pub(super) fn bars(title: &str, names: &[&str], groups: &[Group]) -> String {
    let step = BAR * names.len() as f64 + 12.0;
    let height = TOP + step * groups.len() as f64 + 8.0;
    let largest =
        groups.iter().flat_map(|group| group.values.iter().flatten()).fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
    let mut svg = begin(title, names, height);
    for (i, group) in groups.iter().enumerate() {
        let y = TOP + step * i as f64;
        let middle = y + BAR * names.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            escape(&group.name)
        );
        for (j, value) in group.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (y, width) = (y + BAR * j as f64, (WIDTH - LEFT - RIGHT) * value / largest);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                BAR - 2.0,
                COLOURS[j % COLOURS.len()],
                LEFT + width + 6.0,
                y + BAR - 5.0,
                short(*value)
            );
        }
    }
    svg + "</svg>\n"
}

/// Draws a line chart with logarithmic scales, one grid line per decade.
pub(super) fn lines(title: &str, x_name: &str, y_name: &str, series: &[Line]) -> String {
    let names: Vec<&str> = series.iter().map(|line| &*line.name).collect();
    let (height, bottom) = (400.0, 350.0);
    let mut svg = begin(title, &names, height);
    let points = || series.iter().flat_map(|line| &line.points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let decades = |of: fn(&(f64, f64)) -> f64| {
        let logs = || points().map(of).map(f64::log10);
        let (least, most) = (logs().fold(f64::MAX, f64::min).floor(), logs().fold(f64::MIN, f64::max).ceil());
        if least > most { (0.0, 1.0) } else { (least, most.max(least + 1.0)) }
    };
    let ((x0, x1), (y0, y1)) = (decades(|p| p.0), decades(|p| p.1));
    let left = 70.0;
    let x = |value: f64| left + (value.log10() - x0) / (x1 - x0) * (WIDTH - left - 30.0);
    let y = |value: f64| bottom - (value.log10() - y0) / (y1 - y0) * (bottom - TOP - 10.0);
    for decade in x0 as i32..=x1 as i32 {
        let (value, at) = (10f64.powi(decade), x(10f64.powi(decade)));
        let _ = writeln!(svg, "<path d=\"M{at:.1} {}V{bottom}\" stroke=\"#7774\"/>", TOP + 10.0);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", bottom + 18.0);
    }
    for decade in y0 as i32..=y1 as i32 {
        let (value, at) = (10f64.powi(decade), y(10f64.powi(decade)));
        let _ = writeln!(svg, "<path d=\"M{left} {at:.1}H{}\" stroke=\"#7774\"/>", WIDTH - 30.0);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6.0, at + 4.0);
    }
    for (line, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1} {:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(svg, "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join("L"));
        for (a, b) in &line.points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(*a),
                y(*b),
                x(*a) + 7.0,
                y(*b) - 6.0,
                short(*b)
            );
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        WIDTH / 2.0,
        height - 10.0,
        escape(x_name)
    );
    let _ = writeln!(svg, "<text x=\"8\" y=\"{TOP}\">{}</text>", escape(y_name));
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_picture_and_what_is_missing_has_none() {
        let group = |name: &str, values: &[Option<f64>]| Group { name: name.into(), values: values.to_vec() };
        let svg = bars("A & B", &["a", "b"], &[group("x", &[Some(10.0), None]), group("y", &[Some(5.0), Some(2.5)])]);
        assert!(svg.contains("A &amp; B") && svg.contains("width=\"520.0\"") && svg.contains("width=\"130.0\""));
        assert_eq!(svg.matches("<rect x=\"150\"").count(), 3);
    }

    #[test]
    fn lines_go_over_whole_decades() {
        let line = Line { name: "a".into(), points: vec![(1.0, 0.2), (20_000.0, 110.0)] };
        let svg = lines("t", "x", "y", &[line]);
        for label in [">0.1<", ">1000<", ">100000<", ">1<", ">110<"] {
            assert!(svg.contains(label), "{label}");
        }
        assert!(lines("t", "x", "y", &[]).ends_with("</svg>\n"));
    }

    #[test]
    fn numbers_are_as_short_as_they_may_be() {
        let all = [0.0, 0.0123, 1.234, 12.34, 123.4, 12_345.6].map(short);
        assert_eq!(all, ["0", "0.0123", "1.23", "12.3", "123", "12,346"]);
    }
}

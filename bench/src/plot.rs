//! The picture that belongs to the page of results: an SVG of bars on logarithmic axes.

use std::fmt::Write as _;

use crate::floors::Floors;
use crate::latency::Tail;

const WIDTH: f64 = 860.0;
/// Where bars begin, and how long the axis is.
const LEFT: f64 = 390.0;
const AXIS: f64 = 400.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const GOOD: &str = "#2f7d5b";
const BAD: &str = "#b3362b";
const TAIL_COLOURS: [&str; 3] = ["#24557a", "#6f9fc0", "#c3d8e6"];

/// Bars of how far every figure lies on the good side of its bound, then of latencies.
pub(crate) fn svg(floors: &Floors, tails: &[Tail]) -> String {
    let mut drawing = Drawing::default();
    if !floors.0.is_empty() {
        drawing.title("Measured beside what is promised: 1 is just held, longer is better");
        drawing.axis(
            &Axis {
                from: 0.25,
                to: 64.0,
            },
            &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            floors.0.len(),
        );
        for floor in &floors.0 {
            let colour = if floor.holds() { GOOD } else { BAD };
            let axis = Axis {
                from: 0.25,
                to: 64.0,
            };
            drawing.row(&floor.name, &[(floor.margin(), colour)], &axis, "×");
        }
    }
    if !tails.is_empty() {
        drawing.space();
        drawing.title("From publishing to delivery, ms: median, 99 of 100, longest");
        let axis = Axis {
            from: 0.5,
            to: 2_000.0,
        };
        drawing.axis(
            &axis,
            &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0],
            tails.len(),
        );
        for tail in tails {
            let [first, second, third] = TAIL_COLOURS;
            let bars = [(tail.max, third), (tail.p99, second), (tail.median, first)];
            drawing.row(&tail.name, &bars, &axis, "");
        }
    }
    drawing.finish()
}

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        AXIS * (value / self.from).ln() / (self.to / self.from).ln()
    }
}

#[derive(Default)]
struct Drawing {
    body: String,
    y: f64,
}

impl Drawing {
    fn title(&mut self, text: &str) {
        self.y += 30.0;
        self.text(14.0, self.y, "start", text, 14);
        self.y += 12.0;
    }

    fn space(&mut self) {
        self.y += 16.0;
    }

    /// Lines behind the rows that follow, and their numbers above.
    fn axis(&mut self, axis: &Axis, ticks: &[f64], rows: usize) {
        self.y += 12.0;
        let (top, bottom) = (self.y + 4.0, self.y + 8.0 + ROW * rows as f64);
        for &tick in ticks {
            let x = LEFT + axis.at(tick);
            let colour = if tick == 1.0 { "#444" } else { "#ccc" };
            self.put(&format!(
                r#"<line x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="{colour}"/>"#
            ));
            self.text(x, self.y, "middle", &tick.to_string(), 11);
        }
        self.y += 8.0;
    }

    /// A name and bars over each other, the longest first; the last one's number is shown first.
    fn row(&mut self, name: &str, bars: &[(f64, &str)], axis: &Axis, unit: &str) {
        self.text(LEFT - 8.0, self.y + BAR - 2.0, "end", name, 11);
        for &(value, colour) in bars {
            let (y, width) = (self.y, axis.at(value).max(1.0));
            self.put(&format!(
                r#"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR}" fill="{colour}"/>"#
            ));
        }
        let longest = bars
            .iter()
            .map(|(value, _)| axis.at(*value))
            .fold(0.0, f64::max);
        let numbers: Vec<_> = bars.iter().rev().map(|(value, _)| short(*value)).collect();
        let text = format!("{}{unit}", numbers.join(" / "));
        self.text(LEFT + longest + 5.0, self.y + BAR - 2.0, "start", &text, 11);
        self.y += ROW;
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str, size: u32) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(&format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{text}</text>"#
        ));
    }

    fn put(&mut self, element: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    fn finish(self) -> String {
        let height = self.y + 14.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn short(value: f64) -> String {
    match value {
        ..2.0 => format!("{value:.2}"),
        2.0..10.0 => format!("{value:.1}"),
        10.0..10_000.0 => format!("{value:.0}"),
        10_000.0.. => "far more ".to_owned(),
        _ => "?".to_owned(),
    }
}

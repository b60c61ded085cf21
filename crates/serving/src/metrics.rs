//! Counters and gauges in the text format of Prometheus.

use std::fmt::Write as _;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What it is called.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it is.
    pub help: &'static str,
}

impl Metric {
    /// One that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        let kind = "counter";
        Self { name, kind, help }
    }

    /// One that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        let kind = "gauge";
        Self { name, kind, help }
    }

    /// The row of the table in which a page of the reference lists it.
    pub fn row(&self) -> String {
        format!("| `{}` | {} | {} |", self.name, self.kind, self.help)
    }

    /// Whether it is called as it is the custom.
    pub fn is_named_well(&self) -> bool {
        self.name.starts_with("sealcast_")
            && self.name.ends_with("_total") == (self.kind == "counter")
    }
}

/// One that has one value.
pub fn one(text: &mut String, metric: Metric, labels: &[(&str, &str)], value: u64) {
    head(text, metric);
    line(text, metric, labels, value);
}

/// What comes before the values of one.
pub fn head(text: &mut String, of: Metric) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP {} {}\n# TYPE {} {}",
        of.name, of.help, of.name, of.kind
    );
}

/// One of its values. Labels name things by their number or the beginning of their id, and nothing else.
pub fn line(text: &mut String, of: Metric, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", labels.join(",")),
    };
    let _ = writeln!(text, "{}{labels} {value}", of.name);
}

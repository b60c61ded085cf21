//! The page of results.

use std::fmt::{Display, Write as _};
use std::fs;
use std::process::Command;

use crate::contest::Outcome;

/// A page in Markdown that grows from top to bottom.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    pub(crate) fn title(&mut self, title: &str) {
        self.line(format_args!("# {title}"));
    }

    pub(crate) fn heading(&mut self, title: &str) {
        self.line(format_args!("\n## {title}"));
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        self.line(format_args!("\n{text}"));
    }

    /// A table's head; all columns but the first are set to the right.
    pub(crate) fn head(&mut self, columns: &[&str]) {
        let rule = "|---:".repeat(columns.len().saturating_sub(1));
        self.line(format_args!("\n| {} |\n|---{rule}|", columns.join(" | ")));
    }

    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        let cells: Vec<_> = cells.iter().map(ToString::to_string).collect();
        self.line(format_args!("| {} |", cells.join(" | ")));
    }

    /// Outcomes beside their baseline, which is the first.
    pub(crate) fn contest(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let micros = outcome.spread().over(1_000.0);
            match outcomes.first().filter(|first| first.name != outcome.name) {
                Some(baseline) => {
                    self.row(&[&outcome.name, &micros, &outcome.against(baseline)]);
                }
                None => self.row(&[&outcome.name, &micros, &"1"]),
            }
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What the figures were measured on and from.
pub(crate) fn provenance(page: &mut Page, command: &str) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let value = cpu
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(": "));
        value.map_or("?", |(_, value)| value).to_owned()
    };
    let has = |flag: &str| field("flags").split(' ').any(|of| of == flag);
    let flags: Vec<_> = ["aes", "vaes", "avx2", "avx512f"]
        .into_iter()
        .filter(|flag| has(flag))
        .collect();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let family = format!("family {}, model {}", field("cpu family"), field("model\t"));
    page.head(&["", ""]);
    page.row(&[
        &"machine",
        &format_args!(
            "{} ({family}; {}), {cores} cores, shared",
            field("model name"),
            flags.join(", ")
        ),
    ]);
    page.row(&[
        &"system",
        &format_args!(
            "Linux {}, {}",
            output("uname", &["-r"]),
            output("uname", &["-m"])
        ),
    ]);
    page.row(&[&"compiler", &output("rustc", &["--version"])]);
    page.row(&[&"date", &output("date", &["-u", "+%Y-%m-%d"])]);
    page.row(&[&"commit", &commit()]);
    page.row(&[&"command", &format_args!("`{command}`")]);
}

/// The commit, and whether anything but what is written here was changed since.
fn commit() -> String {
    let commit = output("git", &["describe", "--always", "--exclude=*"]);
    let status = ["status", "--porcelain", "--", ":/"];
    let results = [":!/bench/*.md", ":!/bench/*.svg"];
    let changed = output("git", &[&status[..], &results].concat());
    match changed.is_empty() {
        true => commit,
        false => commit + "-dirty",
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "?".to_owned())
}

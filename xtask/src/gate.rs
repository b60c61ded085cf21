//! `cargo xtask test`: every check and every test, in one command.

mod built;
mod elsewhere;
mod testing;
mod tools;
pub(crate) mod watched;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use built::{Kind, build};
use elsewhere::{build_for_browsers, vectors_in_python, vectors_in_webassembly};
use testing::test;
use tools::prepare;

use crate::summary::Summary;
use crate::tidy;

/// One thing that must succeed before the next is tried.
struct Step {
    name: &'static str,
    run: fn(&Path) -> anyhow::Result<Option<Summary>>,
}

const STEPS: &[Step] = &[
    Step {
        name: "what the tests need",
        run: prepare,
    },
    Step {
        name: "fmt",
        run: |root| cargo(root, &["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        run: |root| {
            let warnings = ["--", "-D", "warnings"];
            let args = ["clippy", "--workspace", "--all-targets", "--all-features"];
            cargo(root, &[&args[..], &warnings].concat())
        },
    },
    Step {
        name: "tidy",
        run: |root| tidy::run(root).map(|()| None),
    },
    Step {
        name: "test",
        run: test,
    },
    Step {
        name: "doc",
        run: doc,
    },
    Step {
        name: "examples",
        run: examples,
    },
    Step {
        name: "build for browsers",
        run: build_for_browsers,
    },
    Step {
        name: "vectors in WebAssembly",
        run: vectors_in_webassembly,
    },
    Step {
        name: "vectors in Python",
        run: vectors_in_python,
    },
];

/// The examples; each checks itself and must end well.
const EXAMPLES: &[&str] = &["chat", "late_reader", "sensor"];

/// Runs the steps in order, stopping at the first that fails. The last line printed is
/// `N passed, N failed` once tests have run.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut summary = None;
    for step in STEPS {
        println!("\n== {} ==", step.name);
        let start = Instant::now();
        let outcome = (step.run)(root);
        times.push((step.name, start.elapsed()));
        summary = match outcome {
            Ok(found) => found.or(summary),
            Err(error) => {
                report(&times, Some(&format!("{error:#}")));
                bail!("stopped at `{}`", step.name);
            }
        };
        if let Some(summary) = summary.filter(|summary| !summary.all_passed()) {
            report(&times, Some("tests failed; their names stand above"));
            println!("{summary}");
            bail!("stopped at `{}`", step.name);
        }
    }
    report(&times, None);
    println!("{}", summary.unwrap_or_default());
    Ok(())
}

/// Installs what the tests need, and no more.
pub(crate) fn tools(root: &Path) -> anyhow::Result<()> {
    prepare(root).map(|_| ())
}

fn report(times: &[(&str, Duration)], failure: Option<&str>) {
    println!();
    for (index, (name, time)) in times.iter().enumerate() {
        let failed = failure.is_some() && index + 1 == times.len();
        let mark = if failed { "FAILED" } else { "ok" };
        println!("{mark:<6} {:>7.1} s  {name}", time.as_secs_f64());
    }
    if let Some(failure) = failure {
        println!("{failure}");
    }
}

fn cargo(root: &Path, args: &[&str]) -> anyhow::Result<Option<Summary>> {
    let mut cargo = crate::cargo(root);
    cargo.args(args);
    must(cargo)
}

fn doc(root: &Path) -> anyhow::Result<Option<Summary>> {
    let mut cargo = crate::cargo(root);
    cargo.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    must(cargo)
}

/// Runs those that were built with the tests: built alone, what they stand on would be built anew with
/// other features.
fn examples(root: &Path) -> anyhow::Result<Option<Summary>> {
    let built = build(root)?;
    for name in EXAMPLES {
        let is_it = |of: &&built::Built| of.kind == Kind::Example && of.name == *name;
        let example = built.iter().find(is_it);
        let example = example.with_context(|| format!("there is no example {name}"))?;
        let mut command = Command::new(&example.program);
        command.current_dir(root);
        must(command)?;
    }
    Ok(None)
}

fn must(mut command: Command) -> anyhow::Result<Option<Summary>> {
    let name = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "this failed: {name}");
    Ok(None)
}

//! `cargo xtask test`: every check and every test, in one command.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

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
        run: |root| {
            for example in EXAMPLES {
                cargo(root, &["run", "-q", "-p", "sealcast", "--example", example])?;
            }
            Ok(None)
        },
    },
];

/// The examples; each checks itself and must end well.
const EXAMPLES: &[&str] = &["chat", "late_reader", "sensor"];

/// Commands that building or testing starts, and the Debian package of each.
const NEEDED: &[(&str, &str)] = &[("cc", "build-essential")];

/// Parts of the toolchain that the steps use.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

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

/// Installs what is missing where that is possible, and otherwise says what to install.
fn prepare(root: &Path) -> anyhow::Result<Option<Summary>> {
    let missing = NEEDED
        .iter()
        .filter(|(command, _)| !answers(Command::new(command)));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        install(&packages)?;
    }
    for (command, component) in COMPONENTS {
        let mut cargo = crate::cargo(root);
        cargo.arg(command);
        if !answers(cargo) {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", component]);
            must(rustup).with_context(|| format!("install {component} for this toolchain"))?;
        }
    }
    Ok(None)
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    let may_install = answers(Command::new("apt-get")) && is_root();
    ensure!(may_install, "please install what Debian calls: {list}");
    println!("installing {list}");
    for args in [
        &["update", "-qq"][..],
        &["install", "-qq", "-y", "--no-install-recommends"],
    ] {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        if args.contains(&"install") {
            apt.args(packages);
        }
        must(apt)?;
    }
    Ok(())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whether a command can be started and knows its own version.
fn answers(mut command: Command) -> bool {
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
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

fn must(mut command: Command) -> anyhow::Result<Option<Summary>> {
    let name = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "this failed: {name}");
    Ok(None)
}

/// Runs all tests, those in the docs included, and counts them as they go by.
fn test(root: &Path) -> anyhow::Result<Option<Summary>> {
    let mut cargo = crate::cargo(root);
    cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.add(&line);
    }
    Ok(Some(summary.close(child.wait()?.success())))
}

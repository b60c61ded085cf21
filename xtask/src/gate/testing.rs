//! The tests: several programs at a time, so that one that waits leaves no core idle.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use super::built::{Built, Kind, build};
use super::watched::{self, Ran};
use crate::summary::Summary;

/// Programs that take longest, by the names of their targets. They begin first, so that none of them
/// is left alone in the end.
const LONG: &[&str] = &[
    "cli", "sdk", "crash", "seeds", "amqp", "mqtt", "nats", "postgres", "engine",
];

/// A program of tests says something whenever one of them ends, or has gone on for a minute; some of
/// them are long on a slow machine.
const SILENCE: Duration = Duration::from_secs(600);

/// Runs all tests, those in the docs included, and counts them.
pub(super) fn test(root: &Path) -> anyhow::Result<Option<Summary>> {
    let mut programs = build(root)?;
    settle()?;
    programs.retain(|of| of.kind == Kind::Test);
    let place = |of: &Built| LONG.iter().position(|name| *name == of.name);
    programs.sort_by_key(|of| place(of).unwrap_or(LONG.len()));
    let output = root.join("target/output");
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    let (mut summary, failures) = run_all(&programs, &output)?;
    summary += doc_tests(root)?;
    // Once more where the rest is not so long that nobody finds them.
    for failure in failures {
        println!("failed: {failure}");
    }
    Ok(Some(summary.or_none()))
}

/// Has the disk take what the compiler wrote, gigabytes of it, so that no test shares it with that.
fn settle() -> anyhow::Result<()> {
    let synced = Command::new("sync").status().context("starting sync")?;
    ensure!(synced.success(), "sync failed");
    Ok(())
}

/// One more at a time than there are cores: most of them wait now and then. What they came to, and which
/// of their tests failed.
fn run_all(programs: &[Built], output: &Path) -> anyhow::Result<(Summary, Vec<String>)> {
    let waiting = Mutex::new(programs.iter());
    let next = || waiting.lock().ok()?.next();
    let results = Mutex::new((Summary::default(), Vec::new()));
    let work = || -> anyhow::Result<()> {
        while let Some(of) = next() {
            let ran = run(of, output).with_context(|| of.program.display().to_string())?;
            let mut results = results
                .lock()
                .map_err(|_| anyhow!("another one panicked"))?;
            results.0 += print(of, &ran);
            if !ran.is_success {
                let which: Vec<_> = unfinished(&ran.text).into_iter().collect();
                results.1.push(format!("{}: {}", of.name, which.join(", ")));
            }
        }
        Ok(())
    };
    let count = available_parallelism().map_or(1, usize::from) + 1;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| match worker.join() {
            Ok(end) => end,
            Err(_) => Err(anyhow!("running the tests panicked")),
        });
        ends.collect::<anyhow::Result<Vec<_>>>()
    })?;
    results
        .into_inner()
        .map_err(|_| anyhow!("a worker panicked"))
}

/// The tests that failed, and those that took long and had not ended when their program did.
fn unfinished(text: &str) -> BTreeSet<&str> {
    let (mut failed, mut long) = (BTreeSet::new(), BTreeSet::new());
    for said in text.lines().filter_map(|line| line.strip_prefix("test ")) {
        if let Some(name) = said.strip_suffix(" has been running for over 60 seconds") {
            long.insert(name);
        } else if let Some((name, end)) = said.split_once(" ... ") {
            long.remove(name);
            failed.extend((end == "FAILED").then_some(name));
        }
    }
    failed.append(&mut long);
    failed
}

/// Runs one as cargo would.
fn run(of: &Built, output: &Path) -> anyhow::Result<Ran> {
    let name = of.program.file_name().context("a program has a name")?;
    println!("begins: {}", of.program.display());
    let mut command = Command::new(&of.program);
    command.current_dir(&of.folder);
    command.env("CARGO_MANIFEST_DIR", &of.folder);
    watched::run(command, &output.join(name), SILENCE)
}

/// Prints all that one said in one piece, and counts it.
fn print(of: &Built, ran: &Ran) -> Summary {
    let Ran { time, text, .. } = ran;
    let seconds = time.as_secs_f64();
    println!("\n{}, {seconds:.1} s\n{text}", of.program.display());
    let mut summary = Summary::default();
    text.lines().for_each(|line| summary.add(line));
    summary.ended(ran.is_success)
}

fn doc_tests(root: &Path) -> anyhow::Result<Summary> {
    let mut cargo = crate::cargo(root);
    cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    cargo.arg("--doc");
    let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary.add(&line);
    }
    Ok(summary.ended(child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_failed_or_never_ended_are_found_by_what_was_said() {
        let said = "running 4 tests\ntest a ... ok\ntest b has been running for over 60 seconds\n\
            test c has been running for over 60 seconds\ntest b ... ok\ntest d ... FAILED\n";
        assert_eq!(unfinished(said), BTreeSet::from(["c", "d"]));
    }
}

//! Running many seeds.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{fs, io, thread};

use sealcast_sim::Report;

use crate::scene::Scene;
use crate::{cpu, numbers};

/// Where the event log of a failed run goes.
const FOLDER: &str = "target/sim";

#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    devices_max: usize,
    records: usize,
    records_max: usize,
    events: usize,
    opened: usize,
    sealed: BTreeMap<&'static str, usize>,
    asking: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.devices_max = self.devices_max.max(report.devices);
        self.records += report.records;
        self.records_max = self.records_max.max(report.records);
        self.events += report.trace.lines().len();
        self.opened += report.tally.opened;
        for (cause, count) in &report.tally.sealed {
            *self.sealed.entry(cause).or_default() += count;
        }
        for (kind, count) in &report.asking {
            *self.asking.entry(kind).or_default() += count;
        }
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

#[derive(Debug)]
struct Orders {
    seeds: u64,
    from: u64,
    jobs: u64,
}

impl Orders {
    fn parse(scene: Scene, words: &[&str]) -> Result<Self, String> {
        let jobs = thread::available_parallelism().map_or(1, NonZero::get);
        let mut orders = Self {
            seeds: scene.seeds(),
            from: 0,
            jobs: jobs as u64,
        };
        let places = &mut [
            ("--seeds", &mut orders.seeds),
            ("--from", &mut orders.from),
            ("--jobs", &mut orders.jobs),
        ];
        numbers::read(words, places)?;
        orders.jobs = orders.jobs.max(1);
        Ok(orders)
    }
}

/// Runs seeds, and says what they came to.
pub(crate) fn run(scene: Scene, words: &[&str]) -> Result<(), String> {
    let orders = Orders::parse(scene, words)?;
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let sums = Mutex::new(Sums::default());
    let worst: Mutex<Vec<Report>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..orders.jobs {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= orders.seeds {
                        break;
                    }
                    let report = scene.run(orders.from + at);
                    sums.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(&report);
                    if report.violation.is_some() {
                        failed.store(true, Ordering::Relaxed);
                        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                        worst.push(report);
                    }
                }
            });
        }
    });
    tell(&sums.into_inner().unwrap_or_else(PoisonError::into_inner));
    let worst = worst.into_inner().unwrap_or_else(PoisonError::into_inner);
    match worst.iter().min_by_key(|report| report.seed) {
        None => Ok(()),
        Some(report) => Err(complaint(scene, report)),
    }
}

fn complaint(scene: Scene, report: &Report) -> String {
    let violation = report.violation.as_ref().map(ToString::to_string);
    let file = match write(scene, Path::new(FOLDER), report) {
        Ok(file) => file.display().to_string(),
        Err(error) => format!("nowhere: {error}"),
    };
    let seed = report.seed;
    format!(
        "seed {seed} failed: {}\nits events are in {file}; `cargo xtask replay {seed}{}` shows them",
        violation.unwrap_or_default(),
        scene.option()
    )
}

/// Writes the event log of a run.
fn write(scene: Scene, folder: &Path, report: &Report) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("{}-{}.log", scene.name(), report.seed));
    let mut text = format!("seed {}\n", report.seed);
    for line in report.trace.lines() {
        text += line;
        text += "\n";
    }
    if let Some(violation) = &report.violation {
        text += &format!("VIOLATION {violation}\n");
    }
    fs::write(&file, text)?;
    Ok(file)
}

fn tell(sums: &Sums) {
    let runs = sums.runs.max(1);
    println!(
        "{} seeds, {} devices at most, {} records ({} in one run at most), {} events",
        sums.runs, sums.devices_max, sums.records, sums.records_max, sums.events
    );
    if let Some(seconds) = cpu::seconds() {
        println!(
            "{seconds:.1} CPU seconds, {:.3} a seed",
            seconds / runs as f64
        );
    }
    println!("at rest, messages times devices: {} opened", sums.opened);
    for (cause, count) in &sums.sealed {
        println!("{count:>12} sealed: {cause}");
    }
    for (kind, count) in &sums.asking {
        println!("{count:>12} in asking: {kind}");
    }
    for (kind, count) in &sums.faults {
        println!("{count:>12} faults: {kind}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_options_and_nothing_else_is_taken() {
        let parse = |words: &[&str]| Orders::parse(Scene::Nodes, words);
        let orders = parse(&["--from", "7", "--seeds", "3", "--jobs", "0"]).unwrap();
        assert_eq!((orders.from, orders.seeds, orders.jobs), (7, 3, 1));
        assert_eq!(parse(&[]).unwrap().seeds, 5_000);
        for wrong in [&["--seeds"][..], &["--seeds", "x"], &["--often", "3"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

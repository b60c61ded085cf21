//! Showing a run, step by step.

use std::fs;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;

use crate::scene::Scene;

/// Shows the events of a seed, run anew, or of a file that a failed run wrote. On a terminal it waits
/// for the enter key after each step.
pub(crate) fn run(what: &str, mut words: &[&str]) -> Result<(), String> {
    let (mut device, mut stops) = (None, io::stdin().is_terminal());
    let mut scene = Scene::World;
    while let [option, rest @ ..] = words {
        words = match (*option, rest) {
            ("--all", rest) => {
                stops = false;
                rest
            }
            ("--nodes", rest) => {
                scene = Scene::Nodes;
                rest
            }
            ("--device", [number, rest @ ..]) => {
                device = Some(format!(" d{number} "));
                rest
            }
            _ => return Err(format!("no such option: {option}")),
        };
    }
    let lines = lines_of(scene, what)?;
    let is_shown = |line: &&String| {
        device
            .as_ref()
            .is_none_or(|device| line.contains(device.as_str()) || is_for_all(line))
    };
    let shown: Vec<_> = lines.iter().filter(is_shown).collect();
    match show(&shown, stops) {
        // Whoever reads it has read enough.
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
        shown => shown.map_err(|why| why.to_string()),
    }
}

fn show(lines: &[&String], stops: bool) -> io::Result<()> {
    let (mut out, mut step) = (io::stdout().lock(), None);
    for line in lines {
        let of = line.split_whitespace().next().map(str::to_owned);
        if step.is_some() && step != of {
            writeln!(out)?;
            if stops {
                io::stdin().lock().read_line(&mut String::new())?;
            }
        }
        step = of;
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn is_for_all(line: &str) -> bool {
    line.starts_with("seed") || line.starts_with("VIOLATION")
}

fn lines_of(scene: Scene, what: &str) -> Result<Vec<String>, String> {
    if let Ok(seed) = what.parse() {
        let report = scene.run(seed);
        let mut lines = vec![format!("seed {seed}: {}", scene.plan(seed))];
        lines.extend(report.trace.lines().iter().cloned());
        lines.push(match &report.violation {
            Some(violation) => format!("VIOLATION {violation}"),
            None => "end: nothing is wrong".to_owned(),
        });
        return Ok(lines);
    }
    let text = fs::read_to_string(Path::new(what)).map_err(|why| format!("{what}: {why}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

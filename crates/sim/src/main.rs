//! Runs seeds, and shows what happened in one.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

mod cpu;
mod numbers;
mod replay;
mod scene;
mod seeds;
mod storm_table;

use std::env;
use std::process::ExitCode;

use scene::Scene;

const USAGE: &str = "\
sealcast-sim run [--seeds N] [--from SEED] [--jobs N]   run seeds, and stop at the first that fails
sealcast-sim nodes [--seeds N] [--from SEED] [--jobs N] as `run`, around key nodes
sealcast-sim replay SEED|FILE [--nodes] [--device N] [--all]   show what happened, step by step
sealcast-sim storm [--devices N] [--seed S]             let very many devices ask at once, and count";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["run", options @ ..] => seeds::run(Scene::World, options),
        ["nodes", options @ ..] => seeds::run(Scene::Nodes, options),
        ["replay", what, options @ ..] => replay::run(what, options),
        ["storm", options @ ..] => storm_table::run(options),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

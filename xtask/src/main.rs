//! Chores of this repository. `cargo xtask` lists them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

mod arrows;
mod conformance;
mod crash;
mod faults;
mod finding;
mod fuzz;
mod gate;
mod hooks;
mod lengths;
mod licences;
mod links;
mod manifests;
mod numbers;
mod plant;
mod sim;
mod sources;
mod summary;
mod tidy;
mod tree;
mod unrest;
mod wiping;
mod words;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const MENU: &str = "\
cargo xtask test             install what the tests need, then run every check and test
cargo xtask tools            install what the tests need
cargo xtask tidy             check the rules that no other tool checks
cargo xtask tidy --bless     the same, after recording that spec/ was reread
cargo xtask vectors          write the cases of vectors/ anew
cargo xtask vectors --check  compare them with what their generators make
cargo xtask faults           list the faults of spec/faults.md and the tests that cite them
cargo xtask crash            kill programs 10,000 times (`--kills N`, `--seed S`) and cut power everywhere
cargo xtask unrest           kill agents and commands at random for ten minutes (`--minutes N`, `--seed S`)
cargo xtask relays           kill MQTT proxies, cut ways and restart a broker under load for ten minutes (`--minutes N`, `--seed S`)
cargo xtask conformance      run mosquitto's tests of brokers at it and through MQTT proxies (`conformance NAME` for some)
cargo xtask plant            take defences out one by one and see tests fail (`plant NAME` for some)
cargo xtask sim              run 20,000 seeds of the simulator, and 5,000 around key nodes (`--seeds N`, `--from SEED`, `--jobs N`)
cargo xtask replay SEED      show what happened in a seed, step by step, or in a FILE that a failed run wrote
cargo xtask storm            let 2,000 devices ask for keys within a second, and count (`--devices N`, `--seed S`)
cargo xtask fuzz             fuzz every target for a minute (`fuzz NAME` for some, `--seconds N`)
cargo xtask fuzz --seeds     write what fuzzing starts from, out of vectors/
cargo xtask fuzz --keep      take some of what was found into fuzz/corpus/
cargo xtask hooks            run fmt and tidy before each commit in this clone";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let root = root();
    let outcome = match words.as_slice() {
        ["test"] => gate::run(&root),
        ["tools"] => gate::tools(&root),
        ["tidy"] => tidy::run(&root),
        ["tidy", "--bless"] => tidy::bless(&root).and_then(|()| tidy::run(&root)),
        ["vectors", options @ ..] => vectors(&root, options),
        ["crash", options @ ..] => crash::run(&root, options),
        [name @ ("unrest" | "relays"), options @ ..] => unrest::run(&root, name, options),
        ["conformance", names @ ..] => conformance::run(&root, names),
        ["plant", names @ ..] => plant::run(&root, names),
        ["sim", options @ ..] => sim::run(&root, options),
        ["storm", options @ ..] => sim::storm(&root, options),
        ["replay", options @ ..] => sim::replay(&root, options),
        ["fuzz", options @ ..] => fuzz::run(&root, options),
        ["faults"] => faults::print(&root),
        ["hooks"] => hooks::install(&root),
        [] | ["help" | "--help" | "-h"] => {
            println!("{MENU}");
            Ok(())
        }
        _ => Err(anyhow::anyhow!("no such chore; there are:\n{MENU}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's top folder: where cargo says this package lies now, or lay when it was built.
fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map_or(here.clone(), Path::to_path_buf)
}

/// The makers of the vectors stand on the libraries, so that they are no part of this program.
fn vectors(root: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut cargo = cargo(root);
    cargo.args(["run", "-q", "-p", "sealcast-make-vectors", "--"]);
    let status = cargo.args(options).status()?;
    anyhow::ensure!(status.success(), "the vectors are not in order");
    Ok(())
}

/// The cargo that runs this chore, in the repository's top folder.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

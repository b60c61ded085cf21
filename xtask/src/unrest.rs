//! `cargo xtask unrest` and `cargo xtask relays`: the long runs of tests in which processes are killed at random.

use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use crate::numbers;

/// How long it lasts where nobody says.
const MINUTES: u64 = 10;

/// What the environment tells the test.
struct Orders {
    minutes: u64,
    seed: u64,
}

/// Runs the one of a name, with a seed that is printed.
pub(crate) fn run(root: &Path, name: &str, words: &[&str]) -> anyhow::Result<()> {
    let Orders { minutes, seed } = Orders::parse(words)?;
    println!("seed {seed}, {minutes} minutes");
    let mut cargo = crate::cargo(root);
    cargo.args(["test", "--all-features", "-p", "sealcast-cli"]);
    cargo.args(["--test", "cli", &format!("{name}::"), "--", "--nocapture"]);
    let variable = |of: &str| format!("SEALCAST_{}_{of}", name.to_uppercase());
    cargo
        .env(variable("SECONDS"), (minutes * 60).to_string())
        .env(variable("SEED"), seed.to_string());
    let status = cargo.stdin(Stdio::null()).status().context("cargo")?;
    ensure!(status.success(), "failed, with seed {seed}");
    Ok(())
}

impl Orders {
    fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut orders = Self {
            minutes: MINUTES,
            seed: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        let places = &mut [
            ("--minutes", &mut orders.minutes),
            ("--seed", &mut orders.seed),
        ];
        numbers::read(words, places)?;
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_and_seed_are_taken_in_any_order_and_nothing_else_is() {
        let orders = Orders::parse(&["--seed", "7", "--minutes", "3"]).unwrap();
        assert_eq!((orders.seed, orders.minutes), (7, 3));
        assert_eq!(Orders::parse(&[]).unwrap().minutes, MINUTES);
        for wrong in [&["--minutes"][..], &["--minutes", "x"], &["--hours", "3"]] {
            assert!(Orders::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

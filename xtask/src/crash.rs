//! `cargo xtask crash`: the long run of the tests that kill programs and cut power.

use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};

use crate::numbers;

/// Kills where nobody says how many.
const KILLS: u64 = 10_000;

/// The tests of each crate that take longer when they are let: package, target and filter.
const TESTS: &[(&str, &[&str])] = &[
    ("sealcast-cli", &["--test", "cli", "kills::"]),
    ("sealcast", &["--test", "crash"]),
    ("sealcast-store", &["--test", "power"]),
    ("sealcast-bus", &["--test", "power"]),
];

/// What the environment tells the tests.
struct Orders {
    kills: u64,
    seed: u64,
}

/// Runs them all, with as many kills as asked for, and every prefix of what was written.
pub(crate) fn run(root: &Path, words: &[&str]) -> anyhow::Result<()> {
    let orders = Orders::parse(words)?;
    println!("seed {}, {} kills", orders.seed, orders.kills);
    for (package, filter) in TESTS {
        let mut cargo = crate::cargo(root);
        cargo.args(["test", "--all-features", "-p", package]);
        cargo.args(*filter).args(["--", "--nocapture"]);
        cargo
            .env("SEALCAST_CRASH_KILLS", orders.kills.to_string())
            .env("SEALCAST_CRASH_SEED", orders.seed.to_string())
            .env("SEALCAST_CRASH_WHOLE", "1");
        let status = cargo.stdin(Stdio::null()).status().context("cargo")?;
        ensure!(status.success(), "failed, with seed {}", orders.seed);
    }
    Ok(())
}

impl Orders {
    fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut orders = Self {
            kills: KILLS,
            seed: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        let places = &mut [("--kills", &mut orders.kills), ("--seed", &mut orders.seed)];
        numbers::read(words, places)?;
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_and_seed_are_taken_in_any_order_and_nothing_else_is() {
        let orders = Orders::parse(&["--seed", "7", "--kills", "3"]).unwrap();
        assert_eq!((orders.seed, orders.kills), (7, 3));
        assert_eq!(Orders::parse(&[]).unwrap().kills, KILLS);
        for wrong in [&["--kills"][..], &["--kills", "x"], &["--often", "3"]] {
            assert!(Orders::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! Short seeds, and the same seed twice.
#![cfg(test)]

use sealcast_sim::{Plan, run};

/// Seeds that each of the tests below runs.
const SEEDS: u64 = 125;

fn all_hold(from: u64) {
    for seed in from..from + SEEDS {
        let report = run(&Plan::new(seed), None);
        if let Some(violation) = report.violation {
            let trace = report.trace.lines().join("\n");
            panic!("{trace}\nseed {seed}: {violation}; see `cargo xtask replay {seed}`");
        }
    }
}

#[test]
fn what_must_hold_holds_in_the_first_quarter_of_the_seeds() {
    all_hold(0);
}

#[test]
fn what_must_hold_holds_in_the_second_quarter_of_the_seeds() {
    all_hold(SEEDS);
}

#[test]
fn what_must_hold_holds_in_the_third_quarter_of_the_seeds() {
    all_hold(2 * SEEDS);
}

#[test]
fn what_must_hold_holds_in_the_last_quarter_of_the_seeds() {
    all_hold(3 * SEEDS);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| run(&Plan::new(seed), None);
    for seed in [3, 81, 90_001] {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        let (other, digest) = (run(seed + 1), first.trace.digest());
        assert_ne!(digest, other.trace.digest(), "seed {seed}");
    }
}

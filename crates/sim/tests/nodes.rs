//! Key nodes, some of which lie: short seeds, the same seed twice, and faults planted in the driver.
#![cfg(test)]

use std::collections::BTreeSet;
use std::thread;

use sealcast_sim::{NodePlan, Plant, Report, Violation, run_nodes};

/// Seeds that each half of the first test runs.
const SEEDS: u64 = 24;
/// Seeds in which a planted fault must show.
const PLANTED: u64 = 240;

fn all_hold(from: u64) -> Vec<Report> {
    let mut reports = Vec::new();
    for seed in from..from + SEEDS {
        let report = run_nodes(&NodePlan::new(seed), None);
        if let Some(violation) = report.violation {
            let trace = report.trace.lines().join("\n");
            panic!("{trace}\nseed {seed}: {violation}; see `cargo xtask replay {seed} --nodes`");
        }
        reports.push(report);
    }
    reports
}

/// Seeds in which nobody is given anything, or nobody lies, prove nothing.
#[test]
fn what_must_hold_holds_and_every_lie_is_told() {
    let first = thread::spawn(|| all_hold(0));
    let mut reports = all_hold(SEEDS);
    reports.extend(first.join().unwrap());
    let asking: BTreeSet<_> = reports.iter().flat_map(|of| of.asking.keys()).collect();
    let faults: BTreeSet<_> = reports.iter().flat_map(|of| of.faults.keys()).collect();
    for kind in [
        "released by a node",
        "refused by a node",
        "lie that was named",
        "session that nodes opened",
        "session that nodes did not open",
        "approval",
        "approval taken back",
        "approver removed",
        "released by approvals",
    ] {
        assert!(asking.contains(&kind), "{kind}");
    }
    for kind in [
        "false share",
        "false proof",
        "garbage answer",
        "answer that does not open",
        "false pepper",
        "answer in another's name",
        "replayed answer",
        "false refusal",
        "silence",
        "stale log",
        "other log",
        "fork",
        "sets apart",
        "stop",
        "old home",
        "inbox replay",
        "request beyond right",
    ] {
        assert!(faults.contains(&kind), "{kind}");
    }
    let opened: usize = reports.iter().map(|of| of.tally.opened).sum();
    assert!(opened > 500, "{opened}");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| run_nodes(&NodePlan::new(seed), None);
    for seed in [4, 81] {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        let (other, digest) = (run(seed + 1), first.trace.digest());
        assert_ne!(digest, other.trace.digest(), "seed {seed}");
    }
}

/// Finds a seed in which a planted fault shows as what it is.
fn is_caught(plant: Plant, is_it: impl Fn(&Violation) -> bool) {
    let violation = |seed| run_nodes(&NodePlan::new(seed), Some(plant)).violation;
    let found = (0..PLANTED).filter_map(violation).find(is_it);
    assert!(found.is_some(), "{plant:?} stays hidden in {PLANTED} seeds");
}

#[test]
fn a_secret_that_outlives_a_key_node_is_found() {
    is_caught(Plant::KeepSecret, |of| {
        matches!(of, Violation::TooFewOpen { .. })
    });
}

#[test]
fn records_that_are_not_on_the_bus_are_missed() {
    is_caught(Plant::NoSegments, |of| {
        matches!(of, Violation::StaysSealed { .. })
    });
}

#[test]
fn a_node_that_decides_by_an_old_log_is_found() {
    is_caught(Plant::StaleLog, |of| {
        matches!(of, Violation::Released { .. })
    });
}

#[test]
fn an_answer_that_leaves_before_it_is_noted_is_found() {
    is_caught(
        Plant::AnswerFirst,
        |of| matches!(of, Violation::Released { what, .. } if what.contains("noted")),
    );
}

#[test]
fn a_node_that_forgets_what_it_released_is_found() {
    is_caught(
        Plant::ForgetAudit,
        |of| matches!(of, Violation::Released { what, .. } if what.contains("twice")),
    );
}

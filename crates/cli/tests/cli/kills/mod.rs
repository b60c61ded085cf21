//! Promise 6 under `kill -9`: whatever was acknowledged stays, no message key is used twice, and the
//! home goes on.
//!
//! `cargo xtask crash --kills N --seed S` runs any number; a failed run leaves its folder.

#![expect(
    clippy::print_stdout,
    reason = "a failed run is repeated by what it prints"
)]

mod scene;
mod victim;

use sealcast_crash::Chance;

use scene::Scene;
use victim::{Claim, Kind};

const KILLS: &str = "SEALCAST_CRASH_KILLS";
const SEED: &str = "SEALCAST_CRASH_SEED";
const KILLS_IN_CI: usize = 200;
/// Kills that one home goes through.
const KILLS_A_HOME: usize = 250;
/// Rounds between two looks at everything.
const ROUNDS_A_LOOK: usize = 30;

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Commands that had ended by themselves.
    late: usize,
    /// Publishers that had said nothing yet, and those that had.
    silent: usize,
    storing: usize,
    grants: usize,
    stored: u64,
}

impl Tally {
    fn add(&mut self, claim: &Claim) {
        self.kills += 1;
        self.late += usize::from(claim.is_done);
        self.grants += usize::from(claim.grant.is_some());
        self.stored += claim.stored;
        if claim.kind == Kind::Publish {
            self.silent += usize::from(claim.stored == 0);
            self.storing += usize::from(claim.stored > 0);
        }
    }
}

/// Kills until it was often enough. `alter` may change what is taken for acknowledged.
fn run(
    kills: usize,
    seed: u64,
    may_keep: bool,
    mut alter: impl FnMut(&mut Claim),
) -> Result<Tally, String> {
    let mut chance = Chance::new(seed);
    let mut tally = Tally::default();
    while tally.kills < kills {
        let mut scene = Scene::new();
        let end = kills.min(tally.kills + KILLS_A_HOME);
        let mut round = 0;
        while tally.kills < end {
            round += 1;
            let claims = round_of(&scene, round, &mut chance);
            let mut claims: Vec<_> = claims.into_iter().map(|of| of.join().unwrap()).collect();
            for claim in &mut claims {
                tally.add(claim);
                alter(claim);
            }
            let mut checked = scene.settle(round, &claims);
            if round % ROUNDS_A_LOOK == 0 || tally.kills >= end {
                checked = checked.and_then(|()| scene.look_at_all());
            }
            if tally.kills >= end {
                println!("seed {seed}: {} kills", tally.kills);
            }
            if let Err(fault) = checked {
                let (kills, left) = (tally.kills, may_keep.then(|| scene.keep()));
                return Err(format!(
                    "seed {seed}, kill {kills}, round {round}: {fault}; {claims:?}; left in {left:?}"
                ));
            }
        }
    }
    Ok(tally)
}

/// One command, or at times several of one home at once.
fn round_of(
    scene: &Scene,
    round: usize,
    chance: &mut Chance,
) -> Vec<std::thread::JoinHandle<Claim>> {
    let count = match chance.hits(1, 4) {
        true => 2 + chance.below(2),
        false => 1,
    };
    let start = |at| {
        let kind = match chance.below(5) {
            0..3 => Kind::Publish,
            3 => Kind::Grant,
            _ => Kind::Rekey,
        };
        let delay = scene.delay(kind, chance);
        let own = Chance::new(chance.draw());
        victim::start(&scene.alice, kind, format!("v{round}-{at}"), delay, own)
    };
    (0..count).map(start).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn killed_commands_lose_nothing_they_acknowledged_and_use_no_key_twice() {
    let kills = number(KILLS).map_or(KILLS_IN_CI, |of| usize::try_from(of).unwrap());
    let seed = number(SEED).unwrap_or(1);
    println!("seed {seed}");
    let run = |kills, seed| {
        let tally = run(kills, seed, true, |_| ()).unwrap_or_else(|fault| panic!("{fault}"));
        println!("seed {seed}: {tally:?}");
        tally
    };
    let tally = run(kills, seed);
    if kills < KILLS_IN_CI {
        return;
    }
    // Kills that all came too early or too late would show nothing.
    let publishers = tally.silent + tally.storing;
    assert!(tally.storing * 5 > publishers, "{tally:?}");
    assert!(tally.silent * 50 > publishers, "{tally:?}");
    assert!(tally.late * 2 < tally.kills, "{tally:?}");
    // A machine that grows slower meanwhile may end none of the few grants in time.
    let more = || (1..=4).any(|more| run(KILLS_IN_CI / 2, seed + more).grants > 0);
    assert!(tally.grants > 0 || more(), "{tally:?}");
}

/// The test of the test: lines that were handed over are no acknowledged lines, and a program that
/// says so is found out.
#[test]
fn a_publisher_that_acknowledges_too_early_is_found_out() {
    let early = run(60, 1, false, |claim| claim.stored = claim.written);
    let fault = early.err().unwrap_or_default();
    assert!(fault.contains("said to be stored"), "{fault}");
}

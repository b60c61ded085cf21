//! Unrest: two agents of one user and the command line on the same homes and bus, killed at random.
//! Nothing is lost, nothing is stuck, and nobody reads what is not theirs.
//!
//! `cargo xtask unrest --minutes N --seed S` lasts as long as wanted; a failed run leaves its folder,
//! with what happened in `events.log`. The seed repeats what was done, not how the system took it.

#![expect(
    clippy::print_stdout,
    reason = "a failed run is repeated by what it prints"
)]

mod agents;
mod commands;
mod followers;
mod judge;
mod ledger;
mod process;
mod publishers;
mod world;

use std::fs;
use std::thread;
use std::time::Duration;

use sealcast_crash::Chance;

use agents::Post;
use followers::From;
use world::World;

const SECONDS: &str = "SEALCAST_UNREST_SECONDS";
const SEED: &str = "SEALCAST_UNREST_SEED";
const SECONDS_IN_CI: u64 = 60;
/// Milliseconds between two agents of a home, and between two that are one too many.
const REST_MS_MAX: u64 = 2_000;
const RIVAL_REST_MS_MAX: u64 = 12_000;
/// Events that a failed run prints; the rest lies in its folder.
const EVENTS_SHOWN: usize = 60;

/// Everybody acts until the time is over, or something goes wrong.
fn act(world: &World, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut chances = std::iter::from_fn(|| Some(Chance::new(chance.draw())));
    let mut draw = || chances.next().unwrap();
    let posts = [Post::default(), Post::default(), Post::default()];
    let homes = [
        ("alice", &world.alice),
        ("phone", &world.phone),
        ("lee", &world.lee),
    ];
    thread::scope(|scope| {
        let mut actors = Vec::new();
        for (name, person) in [
            ("a", &world.alice),
            ("b", &world.alice),
            ("c", &world.phone),
            ("d", &world.pat),
        ] {
            let chance = draw();
            actors.push(scope.spawn(move || {
                world.judge(name, publishers::publish(world, person, name, chance));
            }));
        }
        for ((name, person), post) in homes.into_iter().zip(&posts) {
            for rest in [REST_MS_MAX, RIVAL_REST_MS_MAX] {
                let chance = draw();
                actors.push(scope.spawn(move || {
                    world.judge(name, agents::serve(world, person, post, rest, chance));
                }));
            }
        }
        for act in [
            commands::command,
            commands::grant_pieces,
            commands::grant_again,
            commands::grant_and_revoke,
        ] {
            let chance = draw();
            actors.push(scope.spawn(move || world.judge("commands", act(world, chance))));
        }
        let followers = [
            ("alice", &world.alice, From::Missed),
            ("phone", &world.phone, From::Missed),
            ("bob", &world.bob, From::Missed),
            ("lee", &world.lee, From::Now),
        ];
        for ((name, person, from), heard) in followers.into_iter().zip(&world.heard) {
            let chance = draw();
            scope.spawn(move || {
                world.judge(name, followers::follow(world, person, from, heard, chance));
            });
        }
        let died = actors.into_iter().filter_map(|actor| actor.join().err());
        if died.count() > 0 {
            world.judge("the test", Err("an actor panicked".to_owned()));
        }
        if world.faults().is_empty() {
            world.judge("in the end", judge::settle(world));
        }
    });
}

/// What there was.
fn report(world: &World) -> String {
    let tally = &world.tally;
    let heard: Vec<_> = world.heard.iter().map(|of| of.lock().unwrap()).collect();
    let sum = |of: fn(&ledger::Heard) -> u64| heard.iter().map(|heard| of(heard)).sum::<u64>();
    format!(
        "{} commands, {} killed, {} told to end, {} stopped for a while; {} agents served, {} \
         refused; {} records stored, {} delivered, {} of them twice, {} after they had waited; {} \
         pieces granted, {} revocations, {} rekeys",
        tally.commands.get(),
        tally.kills.get(),
        tally.told.get(),
        tally.stops.get(),
        tally.served.get(),
        tally.refused.get(),
        world.ledger().stored(),
        sum(|of| of.delivered),
        sum(|of| of.twice),
        sum(|of| of.waited),
        tally.grants.get(),
        tally.revocations.get(),
        tally.rekeys.get(),
    )
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn two_agents_and_commands_that_are_killed_lose_nothing_and_get_stuck_nowhere() {
    let lasts = Duration::from_secs(number(SECONDS).unwrap_or(SECONDS_IN_CI));
    let seed = number(SEED).unwrap_or(1);
    println!("seed {seed}, {lasts:?}");
    let mut world = World::new(lasts);
    act(&world, seed);
    println!("seed {seed}: {}", report(&world));
    let faults = world.faults();
    if !faults.is_empty() {
        let events = fs::read_to_string(world.folder("events.log")).unwrap();
        let events: Vec<_> = events.lines().collect();
        let last = events[events.len().saturating_sub(EVENTS_SHOWN)..].join("\n");
        let place = world.rig.keep().display().to_string();
        panic!("seed {seed}: {faults:#?}\n{last}\nleft in {place}");
    }
    // Where nothing died, nothing was shown.
    let tally = &world.tally;
    let counts = [
        &tally.kills,
        &tally.stops,
        &tally.served,
        &tally.refused,
        &tally.grants,
    ];
    assert!(counts.iter().all(|of| of.get() > 0), "{}", report(&world));
}

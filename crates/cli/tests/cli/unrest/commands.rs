//! Commands on the same homes and bus, and grants that come and go.

use sealcast_crash::Chance;

use super::ledger::record;
use super::process::Fate;
use super::world::{Step, World, field, now_ms, time_text};
use crate::rig::Person;

/// Milliseconds within which a command is killed or stopped, and a little later.
const RUNS_MS: u64 = 900;
const REST_MS_MAX: u64 = 600;
/// How far an interval of eve's reaches into the past and the future.
const REACH_MS_MAX: u64 = 8_000;

/// Runs commands of all kinds.
pub(super) fn command(world: &World, mut chance: Chance) -> Result<(), String> {
    while world.goes_on() {
        let fate = Fate::draw(&mut chance, RUNS_MS);
        let own = [&world.alice, &world.phone][usize::from(chance.hits(1, 2))];
        let people = world.people();
        let (_, any) = people[usize::try_from(chance.below(7)).unwrap()];
        let reads = [own, &world.bob][usize::from(chance.hits(1, 2))];
        let asks =
            [&world.lee, &world.bob, &world.phone][usize::try_from(chance.below(3)).unwrap()];
        let publishes = [own, &world.pat][usize::from(chance.hits(1, 3))];
        let serves = [own, &world.lee][usize::from(chance.hits(1, 3))];
        let (person, args, codes): (_, &[&str], &[i32]) = match chance.below(12) {
            0 => (reads, &["read", "s", "--from", "-3s"], &[0, 3]),
            1 => (asks, &["request", "s", "--wait", "3s"], &[0, 3, 4]),
            2 => (own, &["device", "list"], &[0]),
            3 | 4 => (serves, &["agent", "status"], &[0, 5, 7]),
            5 => (any, &["doctor"], &[0]),
            6 => (any, &["who", "s"], &[0]),
            7 | 8 => {
                world.tally.rekeys.add(1);
                (publishes, &["rekey", "s"], &[0])
            }
            9 => (publishes, &["rotate", "s"], &[0]),
            10 => (
                own,
                &["sub", "s", "--from", "-2s", "--for", "1s"],
                &[0, 3, 5],
            ),
            _ => (any, &["stream", "list"], &[0]),
        };
        world.command(person, &[args, &["--json"]].concat(), codes, fate)?;
        world.rest(&mut chance, REST_MS_MAX);
    }
    Ok(())
}

fn giver<'a>(world: &'a World, chance: &mut Chance) -> &'a Person {
    match chance.hits(1, 2) {
        true => &world.alice,
        false => &world.phone,
    }
}

/// Gives lee one piece of the past after another: each begins where the one before ended.
pub(super) fn grant_pieces(world: &World, mut chance: Chance) -> Result<(), String> {
    let mut from = "start".to_owned();
    while world.goes_on() {
        let args = [
            "grant", "s", "lee", "--from", &from, "--until", "now", "--json",
        ];
        let fate = Fate::draw(&mut chance, RUNS_MS);
        let ended = world.command(giver(world, &mut chance), &args, &[0], fate)?;
        if ended.code == Some(0) {
            world.tally.grants.add(1);
            let until = ended.lines.first().and_then(|line| field(line, "until"));
            from = until.ok_or("a grant without an end")?;
        }
        world.rest(&mut chance, 4_000);
    }
    Ok(())
}

/// Grants everything to bob, again and again.
pub(super) fn grant_again(world: &World, mut chance: Chance) -> Result<(), String> {
    while world.goes_on() {
        let args = ["grant", "s", "bob", "--from", "start", "--json"];
        let fate = Fate::draw(&mut chance, RUNS_MS);
        let ended = world.command(giver(world, &mut chance), &args, &[0], fate)?;
        // A line that came whole was meant, whatever came then.
        let grant = ended.lines.first().and_then(|line| field(line, "grant"));
        world.grants().extend(grant);
        world.rest(&mut chance, 12_000);
    }
    Ok(())
}

/// Grants pieces to eve and takes all back, in turn.
pub(super) fn grant_and_revoke(world: &World, mut chance: Chance) -> Result<(), String> {
    while world.goes_on() {
        let fate = Fate::draw(&mut chance, RUNS_MS);
        let by = giver(world, &mut chance);
        match chance.hits(1, 2) {
            true => {
                let from = now_ms() - chance.below(REACH_MS_MAX);
                let until = now_ms() + 1 + chance.below(REACH_MS_MAX);
                grant_piece(world, by, (from, until), fate)?;
            }
            false => {
                world.steps().push((Step::Revoke, false));
                let revoke = ["revoke", "s", "eve", "--json"];
                // There may be nothing to revoke.
                let ended = world.command(by, &revoke, &[0, 7], fate)?;
                if ended.code == Some(0) {
                    world.tally.revocations.add(1);
                    world.steps().last_mut().ok_or("no step")?.1 = true;
                }
            }
        }
        read_as_eve(world, Fate::draw(&mut chance, RUNS_MS))?;
        world.rest(&mut chance, 4_000);
    }
    Ok(())
}

/// Grants one piece to eve.
pub(super) fn grant_piece(
    world: &World,
    by: &Person,
    (from, until): (u64, u64),
    fate: Fate,
) -> Result<(), String> {
    world.steps().push((Step::Grant(from, until), false));
    let (from, until) = (time_text(from), time_text(until));
    let args = ["grant", "s", "eve", "--from", &from, "--until", &until];
    let ended = world.command(by, &args, &[0], fate)?;
    if ended.code == Some(0) {
        world.steps().last_mut().ok_or("no step")?.1 = true;
    }
    Ok(())
}

/// What eve can read, which is remembered.
fn read_as_eve(world: &World, fate: Fate) -> Result<(), String> {
    let args = ["read", "s", "--from", "-20s", "--json"];
    let ended = world.command(&world.eve, &args, &[0, 3], fate)?;
    let texts = ended.lines.iter().filter_map(|line| field(line, "text"));
    for text in texts {
        let record = record(&text)?;
        world.opened_by_eve().insert(record);
    }
    Ok(())
}

//! Those who publish.

use std::time::{Duration, Instant};

use sealcast_crash::Chance;

use super::ledger::text;
use super::process::{Fate, Next, PATIENCE, Running, stop_for};
use super::world::World;
use crate::rig::Person;

const LIFE_MS_MAX: u64 = 6_000;
/// Lines that are handed over at once, at most.
const BURST_MAX: u64 = 8;
/// Milliseconds between two bursts, at most.
const REST_MS_MAX: u64 = 300;
/// How long to wait for the next acknowledgement before looking at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// Publishes by one program after another, each with a tag of its own.
pub(super) fn publish(
    world: &World,
    person: &Person,
    name: &str,
    mut chance: Chance,
) -> Result<(), String> {
    let mut number = 0;
    while world.goes_on() {
        let tag = format!("{name}{number}");
        number += 1;
        world.begin(&tag);
        match chance.hits(1, 6) {
            true => publish_one(world, person, &tag, &mut chance)?,
            false => publish_lines(world, person, &tag, &mut chance)?,
        }
        world.ledger().over(&tag);
        world.rest(&mut chance, REST_MS_MAX);
    }
    Ok(())
}

fn publish_one(
    world: &World,
    person: &Person,
    tag: &str,
    chance: &mut Chance,
) -> Result<(), String> {
    world.ledger().write(tag, 1);
    let fate = Fate::draw(chance, 800);
    let ended = world.command(person, &["pub", "s", "-m", &text(tag, 0), "-q"], &[0], fate)?;
    match ended.code {
        Some(0) => world.ledger().store(tag, 1),
        _ => Ok(()),
    }
}

/// How a publisher of lines ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    Told,
    /// There are no more lines.
    Closed,
}

fn publish_lines(
    world: &World,
    person: &Person,
    tag: &str,
    chance: &mut Chance,
) -> Result<(), String> {
    let mut running = Running::start(world, person, &["pub", "s", "-l", "--acks", "-q"]);
    let life = Instant::now() + Duration::from_millis(chance.below(LIFE_MS_MAX));
    feed(world, &mut running, tag, life, chance)?;
    let end = match chance.below(10) {
        0..5 => End::Killed,
        5..7 => End::Told,
        _ => End::Closed,
    };
    match end {
        End::Killed => running.kill(world),
        End::Told => running.tell(world),
        End::Closed => running.close(),
    }
    let what = running.what.clone();
    let ended = running.meet(world, Fate::Lives)?;
    let last = ended.lines.last().map(|ack| number(ack)).transpose()?;
    if let Some(stored) = last {
        world.ledger().store(tag, stored)?;
    }
    let wrong = || Err(format!("{what}: {:?}: {}", ended.code, ended.said));
    match (end, ended.code) {
        (End::Killed, _) | (End::Told, None | Some(0)) => Ok(()),
        (End::Closed, Some(0)) => {
            let run = world.ledger().0[tag].clone();
            match run.stored == run.written {
                true => Ok(()),
                false => Err(format!(
                    "{what}: ended well, and not all is stored: {run:?}"
                )),
            }
        }
        (End::Told | End::Closed, _) => wrong(),
    }
}

/// Hands lines over in bursts, each when the one before is stored, until its time is over.
fn feed(
    world: &World,
    running: &mut Running,
    tag: &str,
    life: Instant,
    chance: &mut Chance,
) -> Result<(), String> {
    let (mut written, mut stored) = (0, 0);
    let mut since = Instant::now();
    while Instant::now() < life && world.goes_on() {
        if stored == written {
            let until = written + 1 + chance.below(BURST_MAX);
            let burst: String = (written..until).map(|n| text(tag, n) + "\n").collect();
            world.ledger().write(tag, until);
            if !running.takes(&burst) {
                return Err(format!("{}: it ended: {}", running.what, running.said()));
            }
            (written, since) = (until, Instant::now());
            if chance.hits(1, 60) {
                running.stop(world, stop_for(chance));
            }
        }
        match running.next(LOOK.min(life.saturating_duration_since(Instant::now()))) {
            Next::Line(ack) => {
                stored = number(&ack)?;
                world.ledger().store(tag, stored)?;
                if stored == written && chance.hits(2, 3) {
                    world.rest(chance, REST_MS_MAX);
                }
            }
            Next::Nothing if since.elapsed() > PATIENCE => {
                return Err(running.stuck("it acknowledges nothing"));
            }
            Next::Nothing => {}
            Next::End => return Err(format!("{}: it ended: {}", running.what, running.said())),
        }
    }
    Ok(())
}

fn number(ack: &str) -> Result<u64, String> {
    ack.parse().map_err(|_| format!("no number: {ack}"))
}

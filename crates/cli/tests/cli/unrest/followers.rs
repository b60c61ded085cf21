//! Those who follow the stream.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sealcast_crash::Chance;

use super::ledger::Heard;
use super::process::{Fate, Next, Running, stop_for};
use super::world::{World, field, now_ms, time_text};
use crate::rig::Person;

const LIFE_MS_MAX: u64 = 8_000;
const LOOK: Duration = Duration::from_millis(20);
/// Of so many messages that had waited, one is a moment to die.
const MOMENTS: u64 = 60;

/// From when on somebody follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// From whatever it may have missed.
    Missed,
    /// From now on, and what waits.
    Now,
}

/// Follows by one program after another; after the unrest by one until everything is settled, or
/// the agent that it follows through ends.
pub(super) fn follow(
    world: &World,
    person: &Person,
    from: From,
    heard: &Mutex<Heard>,
    mut chance: Chance,
) -> Result<(), String> {
    while !world.is_settled() {
        let mut args = Vec::from(["sub", "s", "--json"]);
        let since = heard.lock().unwrap().since(&world.ledger());
        let since = time_text(since.unwrap_or_else(now_ms));
        if from == From::Missed {
            args.extend(["--from", &since]);
        }
        heard.lock().unwrap().runs.push(Vec::new());
        let running = Running::start(world, person, &args);
        follow_once(world, running, heard, &mut chance)?;
    }
    Ok(())
}

fn follow_once(
    world: &World,
    running: Running,
    heard: &Mutex<Heard>,
    chance: &mut Chance,
) -> Result<(), String> {
    let what = running.what.clone();
    let take = |line: &str| {
        world.hear(&what, line);
        let taken = heard.lock().unwrap().take(line, &world.ledger());
        taken.map_err(|fault| format!("{what}: {fault}"))
    };
    let life = Instant::now() + Duration::from_millis(chance.below(LIFE_MS_MAX));
    let mut is_to_die = false;
    let mut has_ended = false;
    while !world.is_settled() && !is_to_die && !has_ended {
        let mut is_late = false;
        match running.next(LOOK) {
            Next::Line(line) => {
                take(&line)?;
                is_late = line.contains("\"waited\"");
            }
            Next::Nothing => {}
            Next::End => has_ended = true,
        }
        // What had waited comes in heaps: amid one is the moment to die, here or in the agent.
        if is_late && chance.hits(1, MOMENTS) {
            world.is_moment.store(true, Ordering::Relaxed);
        }
        let is_over = Instant::now() >= life || (is_late && chance.hits(1, MOMENTS));
        is_to_die = is_over && world.goes_on();
    }
    let is_left_alone = has_ended;
    let fate = match chance.below(8) {
        _ if has_ended => Fate::Lives,
        _ if world.is_settled() => Fate::Killed(Duration::ZERO),
        0 => {
            running.stop(world, stop_for(chance));
            // It goes on a little.
            Fate::Killed(Duration::from_millis(chance.below(2_000)))
        }
        1..3 => Fate::Told(Duration::ZERO),
        _ => Fate::Killed(Duration::ZERO),
    };
    let ended = running.meet(world, fate)?;
    ended.lines.iter().try_for_each(|line| take(line))?;
    let is_of_agent = ended
        .said
        .lines()
        .any(|line| field(line, "code").is_some_and(|code| code.starts_with("agent.")));
    match ended.code {
        None | Some(0 | 3) if !is_left_alone => Ok(()),
        Some(5) if is_of_agent => Ok(()),
        code => Err(format!("{what}: ended with {code:?}: {}", ended.said)),
    }
}

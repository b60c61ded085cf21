//! Agents: one a home, however many are started.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sealcast_crash::Chance;

use super::process::{Fate, PATIENCE, Running, stop_for};
use super::world::World;
use crate::rig::Person;

const LIFE_MS_MAX: u64 = 9_000;
const LOOK: Duration = Duration::from_millis(5);

/// The agents of one home, by their processes.
#[derive(Default)]
pub(super) struct Post {
    agents: Mutex<BTreeMap<u32, Agent>>,
    coming: Mutex<Coming>,
}

/// Agents that are about to be started, and all that ever were.
#[derive(Default)]
struct Coming {
    now: u64,
    ever: u64,
}

/// An agent that was started and has not ended.
#[derive(Default)]
struct Agent {
    serves: bool,
    /// Whether it was killed or told to end.
    is_doomed: bool,
}

/// Starts one agent after another.
pub(super) fn serve(
    world: &World,
    person: &Person,
    post: &Post,
    rest_ms_max: u64,
    mut chance: Chance,
) -> Result<(), String> {
    while world.goes_on() {
        let life = Duration::from_millis(chance.below(LIFE_MS_MAX));
        serve_once(world, person, post, life, &mut chance)?;
        world.rest(&mut chance, rest_ms_max);
    }
    Ok(())
}

fn serve_once(
    world: &World,
    person: &Person,
    post: &Post,
    life: Duration,
    chance: &mut Chance,
) -> Result<(), String> {
    let (had_company, before) = post.announce();
    let mut running = Running::start(world, person, &["agent"]);
    let id = running.id();
    post.begin(id);
    let ended = live(world, &mut running, post, life);
    if ended? {
        let what = running.what.clone();
        let ended = running.meet(world, Fate::Lives)?;
        // Whoever came meanwhile is company too.
        let had_company = had_company || post.ever() > before + 1;
        post.end(id);
        let is_refused = ended.said.contains("an agent serves this home already");
        return match ended.code {
            Some(2) if is_refused && had_company => {
                world.tally.refused.add(1);
                Ok(())
            }
            code => Err(format!(
                "{what}: ended with {code:?}, alone: {}: {}",
                !had_company, ended.said
            )),
        };
    }
    if chance.hits(1, 3) {
        running.stop(world, stop_for(chance));
    }
    post.doom(id);
    let is_told = chance.hits(1, 4);
    match is_told {
        true => running.tell(world),
        false => running.kill(world),
    }
    let what = running.what.clone();
    let ended = running.meet(world, Fate::Lives)?;
    post.end(id);
    let is_wrong = is_told && ended.code.is_some_and(|code| code != 0 && code != 2);
    match is_wrong {
        true => Err(format!(
            "{what}: told to end: {:?}: {}",
            ended.code, ended.said
        )),
        false => Ok(()),
    }
}

/// Lets an agent live for so long. Returns whether it has ended.
fn live(world: &World, running: &mut Running, post: &Post, life: Duration) -> Result<bool, String> {
    let since = Instant::now();
    let mut serves = false;
    while since.elapsed() < life && world.goes_on() {
        if running.has_ended().is_some() {
            return Ok(true);
        }
        if !serves && running.said().contains("agent started") {
            serves = true;
            world.tally.served.add(1);
            post.serves(running)?;
        }
        if serves && world.is_moment.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
    Ok(false)
}

impl Post {
    /// Whether any agent is here or about to be, and how many ever were, before one more is started.
    fn announce(&self) -> (bool, u64) {
        let mut coming = self.coming.lock().unwrap();
        let has_company = coming.now > 0 || !self.agents.lock().unwrap().is_empty();
        let before = coming.ever;
        coming.now += 1;
        coming.ever += 1;
        (has_company, before)
    }

    fn begin(&self, id: u32) {
        let mut coming = self.coming.lock().unwrap();
        self.agents.lock().unwrap().insert(id, Agent::default());
        coming.now -= 1;
    }

    fn ever(&self) -> u64 {
        self.coming.lock().unwrap().ever
    }

    fn doom(&self, id: u32) {
        let mut agents = self.agents.lock().unwrap();
        agents.entry(id).or_default().is_doomed = true;
    }

    fn end(&self, id: u32) {
        self.agents.lock().unwrap().remove(&id);
    }

    /// Notes that one serves the home; no other may.
    fn serves(&self, running: &Running) -> Result<(), String> {
        let mut agents = self.agents.lock().unwrap();
        let others = agents.iter().filter(|(_, of)| of.serves && !of.is_doomed);
        let others: Vec<_> = others.map(|(id, _)| *id).collect();
        agents.entry(running.id()).or_default().serves = true;
        match others.as_slice() {
            [] => Ok(()),
            others => Err(format!("{}: serves beside {others:?}", running.what)),
        }
    }
}

/// Starts the agents of homes anew, each of which must come to attend to its stream.
pub(super) fn start_all<'a>(
    world: &World,
    people: impl IntoIterator<Item = &'a Person>,
) -> Result<Vec<Running>, String> {
    let mut all = Vec::new();
    for person in people {
        let mut running = Running::start(world, person, &["agent"]);
        let since = Instant::now();
        while !running.said().contains("stream attended to") {
            if running.has_ended().is_some() {
                return Err(format!("{}: it ended: {}", running.what, running.said()));
            }
            if since.elapsed() > PATIENCE {
                return Err(running.stuck("it attends to nothing"));
            }
            thread::sleep(LOOK);
        }
        all.push(running);
    }
    Ok(all)
}

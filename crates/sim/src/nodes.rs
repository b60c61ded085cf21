//! Key nodes: publishers, readers and nodes come and go around a stream whose keys nobody else hands
//! out, nodes are replaced, stopped, put back to older states and shown other logs than others are, and
//! fewer of them lie than are needed.
//!
//! ```text
//!   owner ──names──► n nodes ◄──deals, records── publishers
//!     │ grants          │ what the bus shows each
//!     ▼                 ▼
//!   readers ──ask──► k of them: at rest each reader has what it may read, and with k - 1 nothing
//! ```

mod mischief;
mod rest;
mod shares;

use sealcast_crash::Chance;
use sealcast_protocol::{Condition, Demand, KeyNode, KeyNodes, Position, Roles, Sharing, UserId};

use crate::around::Stop;
use crate::device::{Acting, Bound, Nature, Terms};
use crate::ground::Entries;
use crate::outcome::Tally;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::released::in_force;
use crate::violation::Violation;
use crate::world::World;

/// The first devices of those who are always there, by their numbers.
const OWNER: usize = 0;
const PUBLISHER: usize = 1;
const ADMIN: usize = 2;
const READERS: usize = 3;

/// What a seed comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Everything else is drawn from it.
    pub seed: u64,
    /// How many nodes are needed, at least.
    pub threshold: u8,
    /// Nodes at first.
    pub nodes: usize,
    /// Nodes besides, that may come in the place of others.
    pub spare: usize,
    /// How many of the first ones lie.
    pub liars: usize,
    /// Users who may read.
    pub readers: usize,
    /// Steps before the faults stop.
    pub steps: usize,
    /// Of a hundred steps, so many come with a fault.
    pub faults: u64,
    /// Whether homes are put back to older states.
    pub restores: bool,
    /// Whether an admin writes two logs, of which each of the others is shown one.
    pub forks: bool,
}

impl NodePlan {
    /// What a seed comes to. One in 10 meets no fault but crashes.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x0dea_1700);
        let mut below = |end| chance.below(end);
        let threshold = 1 + below(3) as u8;
        let nodes = usize::from(threshold) + below(3) as usize;
        let calm = seed.is_multiple_of(10);
        Self {
            seed,
            threshold,
            nodes,
            spare: 1 + below(2) as usize,
            liars: below(u64::from(threshold)) as usize,
            readers: 1 + below(3) as usize,
            steps: 40 + below(60) as usize,
            faults: if calm { 0 } else { 10 + below(30) },
            restores: below(2) == 0 && !calm,
            forks: below(3) == 0 && !calm,
        }
    }
}

/// Everything that takes part in a run.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) world: World,
    plan: NodePlan,
    /// All nodes that there will be, by their numbers.
    nodes: Vec<usize>,
}

impl Field {
    /// The owner has named nodes, the publisher may publish, and nobody has done anything more.
    pub(crate) fn new(plan: NodePlan, plant: Option<Plant>) -> Result<Self, Stop> {
        let first_node = READERS + plan.readers;
        let users = first_node + plan.nodes + plan.spare;
        let of_world = Plan {
            seed: plan.seed,
            users: users - 1,
            more_devices: plan.readers,
            steps: plan.steps,
            batch_max: 3,
            faults: plan.faults,
            restores: plan.restores,
            forgets: false,
            sharing: Sharing::Manual,
            leave: 0,
        };
        let mut world = World::new(of_world, plant)?;
        // What is published stays: whether it opens is what this is about.
        world.around.lossy = 0;
        for device in &mut world.devices {
            device.answers = false;
        }
        let mut field = Self {
            world,
            plan,
            nodes: (first_node..users).collect(),
        };
        field.choose_liars();
        for at in 0..users {
            field.world.start(at);
        }
        field.begin()?;
        Ok(field)
    }

    fn choose_liars(&mut self) {
        let mut first: Vec<_> = self.nodes.iter().copied().take(self.plan.nodes).collect();
        let mut liars = Vec::new();
        for _ in 0..self.plan.liars {
            let pick = self.world.below(first.len());
            liars.push(first.swap_remove(pick));
        }
        for at in &self.nodes {
            if let Some(device) = self.world.devices.get_mut(*at) {
                device.node = Some(match liars.contains(at) {
                    true => Nature::Liar,
                    false => Nature::Honest,
                });
                device.run = None;
            }
        }
    }

    fn begin(&mut self) -> Result<(), Stop> {
        let (publisher, admin) = (self.user(PUBLISHER), self.user(ADMIN));
        self.grant_to(publisher, Roles::PUBLISHER, Bound::At(Position::END))?;
        if self.plan.forks {
            self.grant_to(admin, Roles::ADMIN, Bound::At(Position::END))?;
        }
        let first = self.nodes.iter().take(self.plan.nodes);
        let set = KeyNodes {
            threshold: self.plan.threshold,
            nodes: sorted(first.filter_map(|at| self.key_node(*at))),
            condition: Condition::default(),
            generation: 0,
        };
        self.name(set)?;
        for at in self.nodes.clone() {
            self.world.copy_home(at)?;
        }
        Ok(())
    }

    fn user(&self, at: usize) -> UserId {
        let device = self.world.devices.get(at);
        device.map_or(UserId([0; 32]), |of| of.user())
    }

    fn key_node(&self, at: usize) -> Option<KeyNode> {
        let (user, device) = self.world.devices.get(at)?.who();
        Some(KeyNode { user, device })
    }

    fn grant_to(&mut self, to: UserId, roles: Roles, until: Bound) -> Result<(), Stop> {
        let terms = Terms {
            roles,
            from: Bound::At(Position::START),
            until,
            reshare: false,
            devices: Vec::new(),
        };
        self.grant_on(to, terms)
    }

    fn grant_on(&mut self, to: UserId, terms: Terms) -> Result<(), Stop> {
        self.act(OWNER, |acting| acting.grant(to, terms))
            .map(|_| ())
    }

    fn name(&mut self, set: KeyNodes) -> Result<(), Stop> {
        self.act(OWNER, |acting| acting.name_key_nodes(set))
            .map(|_| ())
    }

    /// Lets a device do something.
    fn act<T>(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut Acting<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        match self.world.at(at) {
            Some((device, around)) => device.act(around, step),
            None => Err(Stop::Refused("there is no such device")),
        }
    }

    /// The key nodes that were named last.
    fn named(&self) -> Option<KeyNodes> {
        let ground = &self.world.around.ground;
        let mut all = Entries::default();
        (0..ground.entries.len()).for_each(|number| all.insert(number));
        in_force(ground, &all).map(|(_, set)| set.clone())
    }

    /// A run to its end.
    pub(crate) fn play(&mut self) -> Result<Tally, Violation> {
        for _ in 0..self.plan.steps {
            self.step();
            if let Some(violation) = self.world.around.violation.take() {
                return Err(violation);
            }
        }
        self.rest()
    }

    /// One step: time passes, something may go wrong, somebody does something.
    fn step(&mut self) {
        self.world.around.step += 1;
        let ms = match self.world.around.chance.below(20) {
            0..=9 => self.world.around.chance.below(20),
            10..=14 => self.world.around.chance.below(3_000),
            15..=17 => self.world.around.chance.below(60_000),
            _ => self.world.around.chance.below(1_500_000),
        };
        self.world.pass(ms);
        if self.world.around.chance.hits(self.plan.faults, 100) {
            self.inject();
        }
        self.world.mend_some();
        self.world.start_some();
        if self.world.around.chance.hits(6, 100) {
            self.world.around.fuse = Some(self.world.around.chance.below(12));
        }
        let (who, result) = self.do_something();
        self.world.ended(who, result);
    }

    fn some_reader(&mut self) -> usize {
        let readers = READERS..READERS + self.plan.readers;
        let more = READERS + self.plan.readers + self.nodes.len()..self.world.devices.len();
        let all: Vec<_> = readers.chain(more).collect();
        let pick = self.world.below(all.len());
        all.get(pick).copied().unwrap_or(READERS)
    }

    fn do_something(&mut self) -> (usize, Result<(), Stop>) {
        let reader = self.some_reader();
        let running = self.world.running();
        let pick = self.world.below(running.len());
        let some = running.get(pick).copied().unwrap_or(OWNER);
        match self.world.around.chance.below(100) {
            0..=24 => (PUBLISHER, self.world.publish(PUBLISHER)),
            25..=42 => (reader, self.world.follow(reader)),
            43..=57 => (reader, self.request(reader)),
            58..=66 => (OWNER, self.grant_a_reader()),
            67..=70 => (OWNER, self.revoke_a_reader(reader)),
            71..=77 => (OWNER, self.change_nodes()),
            78..=89 => (some, self.world.catch_up(some)),
            90..=95 => (some, self.world.copy_home(some)),
            _ => (reader, self.add_device()),
        }
    }

    fn request(&mut self, who: usize) -> Result<(), Stop> {
        let is_beyond_log = self.world.around.chance.hits(1, 4);
        self.act(who, |acting| acting.request(is_beyond_log))
            .map(|_| ())
    }

    fn grant_a_reader(&mut self) -> Result<(), Stop> {
        let reader = READERS + self.world.below(self.plan.readers);
        let to = self.user(reader);
        let near = |field: &mut Self| {
            let messages = field.world.around.ground.messages.len();
            let pick = field.world.below(messages);
            let of = field.world.around.ground.messages.get(pick);
            let now = Position(field.world.around.now);
            let at = of.map_or(now, |of| of.header.position);
            Bound::At(at.after(field.world.around.chance.below(200_000)))
        };
        let from = match self.world.around.chance.below(3) {
            0 => near(self),
            _ => Bound::At(Position::START),
        };
        let until = match self.world.around.chance.below(3) {
            0 => near(self),
            1 => Bound::Now,
            _ => Bound::At(Position::END),
        };
        let terms = Terms {
            roles: Roles::READER,
            from,
            until,
            reshare: false,
            devices: Vec::new(),
        };
        self.grant_on(to, terms)
    }

    fn revoke_a_reader(&mut self, reader: usize) -> Result<(), Stop> {
        let user = self.user(reader);
        self.act(OWNER, |acting| acting.revoke_user(user))
            .map(|_| ())
    }

    /// The owner replaces a node, takes one in or out, has more or fewer needed, or says when.
    fn change_nodes(&mut self) -> Result<(), Stop> {
        let Some(mut set) = self.named() else {
            return Ok(());
        };
        let all: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|at| self.key_node(*at))
            .collect();
        let out: Vec<_> = all
            .into_iter()
            .filter(|of| !set.nodes.contains(of))
            .collect();
        let new = out.get(self.world.below(out.len())).copied();
        let old = self.world.below(set.nodes.len());
        let needed = usize::from(set.threshold);
        let later = self.world.around.chance.below(600_000);
        match self.world.around.chance.below(8) {
            0..=2 => {
                if let Some(new) = new {
                    set.nodes.remove(old);
                    set.nodes.push(new);
                }
            }
            3 => set.nodes.extend(new),
            4 if set.nodes.len() > needed => {
                set.nodes.remove(old);
            }
            5 if set.nodes.len() > needed => set.threshold += 1,
            6 if set.threshold > self.plan.threshold => set.threshold -= 1,
            7 if set.condition.0.is_empty() => {
                let time = Position(self.world.around.now).after(later);
                set.condition = Condition(vec![vec![Demand::After(time)]]);
            }
            7 => set.condition = Condition::default(),
            _ => set.generation += 1,
        }
        set.nodes = sorted(set.nodes.into_iter());
        self.name(set)
    }

    /// A reader has another device.
    fn add_device(&mut self) -> Result<(), Stop> {
        let first = READERS + self.plan.readers + self.nodes.len();
        let more = self.world.devices.len().saturating_sub(first);
        if more >= self.plan.readers {
            return Ok(());
        }
        let user = READERS + self.world.below(self.plan.readers);
        self.new_device(user).map(|_| ())
    }

    fn new_device(&mut self, user: usize) -> Result<usize, Stop> {
        let at = self.world.devices.len();
        self.world.add_device(user)?;
        if let Some(device) = self.world.devices.get_mut(at) {
            device.answers = false;
        }
        Ok(at)
    }
}

/// Ascending by user, as the log has them.
fn sorted(nodes: impl Iterator<Item = KeyNode>) -> Vec<KeyNode> {
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_unstable();
    nodes
}

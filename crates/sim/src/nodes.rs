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

mod approving;
mod mischief;
mod rest;
mod shares;

use sealcast_crash::Chance;
use sealcast_protocol::{
    Condition, KeyNode, KeyNodes, LogBody, LogHash, Position, Roles, Sharing, UserId,
};

use crate::approvals::Reading;
use crate::around::Stop;
use crate::device::{Acting, Bound, Nature, Terms};
use crate::ground::Entries;
use crate::outcome::Tally;
use crate::plan::Plan;
use crate::plant::Plant;
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
    /// Whether nodes ask for approvals from the beginning.
    pub approvals: bool,
    /// Whether an admin names nodes, too, also when it does not know what the owner said last.
    pub sides: bool,
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
            approvals: below(5) < 3,
            sides: below(2) == 0 && !calm,
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
    /// Since when no condition waits for a time any more.
    rested_at: u64,
}

impl Field {
    /// The owner has named nodes, the publisher may publish, and nobody has done anything more.
    pub(crate) fn new(plan: NodePlan, plant: Option<Plant>) -> Result<Self, Stop> {
        let first_node = READERS + plan.readers;
        let nodes = first_node..first_node + plan.nodes + plan.spare;
        let users = nodes.end + approving::APPROVERS;
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
            nodes: nodes.collect(),
            rested_at: 0,
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
        if self.plan.forks || self.plan.sides {
            self.grant_to(admin, Roles::ADMIN, Bound::At(Position::END))?;
        }
        let condition = match self.plan.approvals {
            true => Condition(vec![vec![self.approved()]]),
            false => Condition::default(),
        };
        let first = self.nodes.iter().take(self.plan.nodes);
        let set = KeyNodes {
            threshold: self.plan.threshold,
            nodes: sorted(first.filter_map(|at| self.key_node(*at))),
            condition,
            generation: 0,
        };
        self.name(OWNER, set)?;
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

    fn name(&mut self, who: usize, set: KeyNodes) -> Result<(), Stop> {
        self.act(who, |acting| acting.name_key_nodes(set))
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

    /// The access log as whoever knows some entries reads it.
    fn reading<'a>(&'a self, known: &'a Entries) -> Reading<'a> {
        let around = &self.world.around;
        Reading {
            ground: &around.ground,
            owner: &around.owner,
            known,
        }
    }

    /// The key nodes in force for whoever knows all.
    fn named(&self) -> Option<KeyNodes> {
        let all = self.world.around.ground.all();
        self.reading(&all).in_force().map(|(_, set)| set.clone())
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
        let more = self.first_added()..self.world.devices.len();
        let all: Vec<_> = readers.chain(more).collect();
        let pick = self.world.below(all.len());
        all.get(pick).copied().unwrap_or(READERS)
    }

    fn do_something(&mut self) -> (usize, Result<(), Stop>) {
        let reader = self.some_reader();
        let running = self.world.running();
        let pick = self.world.below(running.len());
        let some = running.get(pick).copied().unwrap_or(OWNER);
        let approver = self.some_approver();
        let ruler = match self.plan.sides && self.world.around.chance.hits(1, 4) {
            true => ADMIN,
            false => OWNER,
        };
        match self.world.around.chance.below(100) {
            0..=19 => (PUBLISHER, self.world.publish(PUBLISHER)),
            20..=34 => (reader, self.world.follow(reader)),
            35..=49 => (reader, self.request(reader)),
            50..=57 => (OWNER, self.grant_a_reader()),
            58..=62 => (OWNER, self.revoke_a_reader(reader)),
            63..=69 => (ruler, self.change_nodes(ruler)),
            70..=80 if self.plan.approvals => (approver, self.approve(approver)),
            81 | 82 if self.plan.approvals => (ruler, self.revoke_approver(ruler, approver)),
            70..=91 => (some, self.world.catch_up(some)),
            92..=96 => (some, self.world.copy_home(some)),
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

    /// The owner takes back all that a reader was granted, or one grant.
    fn revoke_a_reader(&mut self, reader: usize) -> Result<(), Stop> {
        let user = self.user(reader);
        let ids: Vec<LogHash> = self.grants_to(&user);
        let pick = self.world.below(ids.len());
        let one = ids.get(pick).copied();
        let one = one.filter(|_| self.world.around.chance.hits(1, 2));
        let revoked = self.act(OWNER, |acting| match one {
            Some(id) => acting.revoke_grant(id),
            None => acting.revoke_user(user),
        });
        revoked.map(|_| ())
    }

    fn grants_to(&self, user: &UserId) -> Vec<LogHash> {
        let entries = self.world.around.ground.entries.iter();
        let grants =
            entries.filter(|of| matches!(&of.body, LogBody::Grant(of) if of.user == *user));
        grants.map(|of| of.hash).collect()
    }

    /// Somebody replaces a node, takes one in or out, has more or fewer needed, or says when.
    fn change_nodes(&mut self, who: usize) -> Result<(), Stop> {
        match self.varied_set(who) {
            Some(set) => self.name(who, set),
            None => Ok(()),
        }
    }

    /// What somebody knows of key nodes, and something else of them: where sets stand side by side mostly with
    /// what all of them ask for.
    fn varied_set(&mut self, who: usize) -> Option<KeyNodes> {
        let mut set = self.known_set(who)?;
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
        match self.world.around.chance.below(9) {
            0 | 1 => {
                if let Some(new) = new {
                    set.nodes.remove(old);
                    set.nodes.push(new);
                }
            }
            2 => set.nodes.extend(new),
            3 if set.nodes.len() > needed => {
                set.nodes.remove(old);
            }
            4 if set.nodes.len() > needed => set.threshold += 1,
            5 if set.threshold > self.plan.threshold => set.threshold -= 1,
            6 | 7 => set.condition = self.some_condition(),
            _ => set.generation += 1,
        }
        set.nodes = sorted(set.nodes.into_iter());
        Some(set)
    }

    /// The set of key nodes that a device that runs knows to be the newest.
    fn known_set(&mut self, who: usize) -> Option<KeyNodes> {
        let run = self.world.devices.get(who)?.run.as_ref()?;
        let known = self.world.around.ground.known_to(&run.view);
        let newest = self.reading(&known).newest_sets();
        let newest: Vec<KeyNodes> = newest.into_iter().map(|(_, set)| set.clone()).collect();
        let mut set = newest.get(self.world.below(newest.len()))?.clone();
        if self.world.around.chance.hits(3, 4) {
            let conditions = newest.iter().map(|of| of.condition.clone());
            let all = conditions.reduce(|one, two| one.and(&two).unwrap_or(one));
            set.condition = all.unwrap_or_default();
        }
        Some(set)
    }

    /// A reader has another device.
    fn add_device(&mut self) -> Result<(), Stop> {
        let first = self.first_added();
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

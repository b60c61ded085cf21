//! A run: users and devices around one stream, step by step.

use std::cell::RefCell;
use std::collections::BTreeSet;

use sealcast_crash::Chance;
use sealcast_crypto::{SigningKey, UnwrapKey};
use sealcast_engine::{Identity, genesis};
use sealcast_protocol::{CardList, Position, StreamTopics, UserId};

use crate::air::Air;
use crate::around::{Around, START, Stop};
use crate::bus::Bus;
use crate::device::Device;
use crate::forge::Forger;
use crate::ground::{Entries, Ground};
use crate::home::Home;
use crate::lists::Removed;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::seeded::Seeded;
use crate::trace::Trace;
use crate::violation::Violation;

/// Everything that takes part in a run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) around: Around,
    pub(crate) users: Vec<User>,
    pub(crate) devices: Vec<Device>,
    pub(crate) forger: Forger,
    /// Whether something was done that devices may be alarmed by.
    pub(crate) is_calm: bool,
    /// Topics that have something in them which none of those wrote whose topics they are.
    pub(crate) littered: BTreeSet<String>,
    /// What was still going on in the last round.
    pub(crate) restless: String,
    /// Devices that the bus deceived so that they cannot tell.
    pub(crate) deceived: BTreeSet<usize>,
    /// Devices that their users took out.
    pub(crate) removed: Vec<Removed>,
    /// Whether programs crash while time passes.
    pub(crate) crashes: bool,
}

/// A user: the list of its devices, as its first device writes it.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) list: CardList,
    /// Its devices; the first holds the root key.
    pub(crate) devices: Vec<usize>,
}

impl World {
    /// The owner has a stream; the others have keys and have not come yet.
    pub(crate) fn new(plan: Plan, plant: Option<Plant>) -> Result<Self, Stop> {
        let mut rng = Seeded::new(plan.seed);
        let now = Position(START);
        let owner = Identity::generate(&mut rng);
        let first = genesis(&owner, &mut rng, now, plan.sharing, false);
        let (stream, entry) = first.map_err(|_| Violation::Odd("the first entry"))?;
        let mut ground = Ground::default();
        ground.wrote(&entry, Entries::default());
        let mut chance = Chance::new(plan.seed);
        let of_faults = |chance: &mut Chance, most| match plan.faults {
            0 => 0,
            _ => chance.below(most),
        };
        let mut around = Around {
            bus: Bus::default(),
            air: Air::default(),
            now: START,
            stream,
            owner: owner.user(),
            ground,
            trace: Trace::default(),
            step: 0,
            plant,
            fuse: None,
            twice: of_faults(&mut chance, 8),
            lossy: of_faults(&mut chance, 4),
            unsure: of_faults(&mut chance, 60),
            faults: std::collections::BTreeMap::new(),
            violation: None,
            is_rough: plan.faults > 0,
            asking: std::collections::BTreeMap::new(),
            chance,
            rng,
        };
        let mut world = Self {
            plan,
            forger: Forger::new(&mut around),
            is_calm: true,
            littered: BTreeSet::new(),
            restless: String::new(),
            deceived: BTreeSet::new(),
            removed: Vec::new(),
            crashes: true,
            around,
            users: Vec::new(),
            devices: Vec::new(),
        };
        world.disturb_air();
        world.admit(owner)?;
        let chain = StreamTopics(stream).access(&world.first_device());
        world.around.bus.put(&chain, START, entry.wire());
        for _ in 0..plan.users {
            let identity = Identity::generate(&mut world.around.rng);
            world.admit(identity)?;
        }
        Ok(world)
    }

    /// How unsound ephemeral topics are in this run.
    fn disturb_air(&mut self) {
        if self.plan.faults > 0 {
            let chance = &mut self.around.chance;
            self.around.air.lossy = chance.below(25);
            self.around.air.twice = chance.below(25);
            self.around.air.late_ms = chance.below(12_000);
        }
    }

    pub(crate) fn first_device(&self) -> sealcast_protocol::DeviceId {
        let first = self.devices.first().map(|of| of.identity.device());
        first.unwrap_or(sealcast_protocol::DeviceId([0; 16]))
    }

    fn admit(&mut self, identity: Identity) -> Result<(), Stop> {
        let user = self.users.len();
        self.users.push(User {
            id: identity.user(),
            list: CardList::new(identity.user()),
            devices: Vec::new(),
        });
        self.add(user, identity)
    }

    /// Another device of a user.
    pub(crate) fn add_device(&mut self, user: usize) -> Result<(), Stop> {
        let Some(id) = self.users.get(user).map(|of| of.id) else {
            return Ok(());
        };
        // A device that is added later does not hold the root key.
        let signing = SigningKey::generate(&mut self.around.rng);
        let unwrap = UnwrapKey::generate(&mut self.around.rng);
        self.add(user, Identity::added(id, signing, unwrap))
    }

    fn add(&mut self, user: usize, identity: Identity) -> Result<(), Stop> {
        let (at, now) = (self.devices.len(), Position(self.around.now));
        let home = Home::new(self.around.stream);
        let Some(of) = self.users.get_mut(user) else {
            return Ok(());
        };
        let first = of.devices.first().and_then(|at| self.devices.get(*at));
        let root = first.map_or(&identity, |of| &of.identity).root();
        let root = root.ok_or(Violation::Odd("a first device without the root key"))?;
        let seq = of.list.next_seq();
        let card = of.list.append(root, now, identity.card(now));
        let card = card.map_err(|_| Violation::Odd("a card"))?;
        home.put_list_entry(&of.id, seq, card.wire())?;
        if let Some(first) = first {
            let known = first.home.list_entries()?.into_iter();
            let of_user = known.filter(|(user, _)| *user == of.id);
            let (bus, topic) = (&mut self.around.bus, of.id.devices_topic());
            let mut there = CardList::new(of.id);
            for item in bus.items(&topic) {
                let _is_of_list = there.apply(item).is_ok();
            }
            for (at, (user, entry)) in (0..).zip(of_user) {
                home.put_list_entry(&user, at, &entry)?;
                // Its first device may not have put it there yet.
                if at >= there.next_seq() {
                    bus.put(&topic, self.around.now, &entry);
                }
            }
            first.home.put_list_entry(&of.id, seq, card.wire())?;
            bus.put(&topic, self.around.now, card.wire());
        }
        of.devices.push(at);
        let answers = self.around.chance.hits(4, 5);
        self.devices.push(Device {
            at,
            identity,
            home,
            skew_ms: 0,
            run: None,
            is_gone: false,
            copies: Vec::new(),
            skew_max_ms: 0,
            was_restored: false,
            starts: 0,
            delivered: RefCell::default(),
            parked: RefCell::default(),
            gaps: RefCell::default(),
            answers,
            node: None,
        });
        self.around
            .note(at, format_args!("is there, of user {user}"));
        Ok(())
    }

    /// The device at a number, and what surrounds it.
    pub(crate) fn at(&mut self, at: usize) -> Option<(&mut Device, &mut Around)> {
        let device = self.devices.get_mut(at)?;
        Some((device, &mut self.around))
    }

    /// Devices that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        let devices = self.devices.iter().filter(|of| of.run.is_some());
        devices.map(|of| of.at).collect()
    }

    /// Notes how a step ended. A crash and a bus that is away are part of the game.
    pub(crate) fn ended(&mut self, who: usize, result: Result<(), Stop>) {
        self.around.fuse = None;
        match result {
            Ok(()) => {}
            Err(Stop::Crashed) => {}
            Err(Stop::Unreachable) => self.around.note(who, format_args!("cannot reach the bus")),
            Err(Stop::Refused(why)) => self.around.note(who, format_args!("refuses: {why}")),
            Err(Stop::Violated(violation)) => {
                self.around.violation.get_or_insert(violation);
            }
        }
    }

    /// Whether any two running devices that know the same entries disagree.
    pub(crate) fn invariant_states_agree(&self) -> Result<(), Violation> {
        let mut known: Vec<(usize, Entries, &sealcast_protocol::LogState)> = Vec::new();
        for device in &self.devices {
            let Some(run) = &device.run else {
                continue;
            };
            let entries = self.around.ground.known_to(&run.view);
            let state = run.view.state();
            let same = known.iter().find(|(_, of, _)| *of == entries);
            match same {
                Some((at, _, other)) if *other != state => {
                    return Err(Violation::StatesDiffer(*at, device.at));
                }
                Some(_) => {}
                None => known.push((device.at, entries, state)),
            }
        }
        Ok(())
    }
}

//! The faults stop: what must open by key nodes opens, and nothing opens by fewer than are needed.

use std::collections::BTreeSet;

use sealcast_crypto::POSITION_BITS;
use sealcast_protocol::{
    Deal, Interval, KeyNode, KeyNodes, Position, Segment, SegmentRecords, Unverified, UserId,
};

use super::{Field, READERS};
use crate::approvals::holds;
use crate::device::{Nature, Outcome};
use crate::ground::{Entries, Message, Written};
use crate::model::{must_open, must_read_all};
use crate::outcome::{Cause, Tally};
use crate::settle::failed;
use crate::violation::Violation;

/// Longer than any condition waits.
const CONDITIONS_MS: u64 = 700_000;
/// How far the clocks of nodes are off at rest, at most.
const SKEW_MS: u64 = 60_000;
/// Longer than anything is asked of nodes.
const ASKS_MS: u64 = 90_000;

impl Field {
    /// Everybody who is left works until nothing is left to do. Then what must hold is looked at.
    pub(super) fn rest(&mut self) -> Result<Tally, Violation> {
        self.world.settle()?;
        if self.say_last_words()? {
            self.world.settle()?;
        }
        self.world.pass(CONDITIONS_MS);
        self.rested_at = self.world.around.now;
        // What failed lately is left alone for a time.
        for at in self.readers() {
            if let Some(device) = self.world.devices.get_mut(at) {
                device.run = None;
            }
            self.world.start(at);
        }
        self.world.invariant_states_agree()?;
        self.world.ask_for_all()?;
        self.world.invariant_nothing_parked_is_lost()?;
        let tally = self.invariant_readers_have_what_they_may()?;
        self.invariant_no_few_open_what_they_must_not()?;
        self.invariant_too_few_give_nothing()?;
        Ok(tally)
    }

    /// Devices of readers, those that are gone among them.
    fn readers(&self) -> Vec<usize> {
        let of_users = READERS..READERS + self.plan.readers;
        let first = self.first_added();
        of_users.chain(first..self.world.devices.len()).collect()
    }

    /// What each reader may read by the log as it is on the bus opens, where enough honest nodes are there.
    fn invariant_readers_have_what_they_may(&mut self) -> Result<Tally, Violation> {
        self.world.around.step += 1;
        let on_bus = self.world.messages_on_bus();
        let entries = self.world.entries_on_bus();
        let mut tally = Tally::default();
        for at in self.readers() {
            if !self.world.running().contains(&at) {
                continue;
            }
            let outcomes = self.act(at, |acting| acting.history());
            let outcomes = outcomes.map_err(|stop| failed(at, stop))?;
            for number in &on_bus {
                let outcome = outcomes.get(number).copied();
                if outcome == Some(Outcome::Opened) {
                    tally.opened += 1;
                    continue;
                }
                let cause = self.cause(at, *number, &entries);
                *tally.sealed.entry(cause.name()).or_default() += 1;
                if matches!(cause, Cause::Unknown(_)) {
                    return Err(Violation::StaysSealed {
                        device: at,
                        message: *number,
                        why: format!("nodes must release it, and it says {outcome:?}"),
                    });
                }
            }
        }
        Ok(tally)
    }

    /// Why nodes do not give a reader a message.
    fn cause(&self, at: usize, number: usize, entries: &BTreeSet<usize>) -> Cause {
        let (ground, owner) = (&self.world.around.ground, &self.world.around.owner);
        let both = ground.messages.get(number).zip(self.world.devices.get(at));
        let Some((message, device)) = both else {
            return Cause::Unknown(String::new());
        };
        let is_on_bus = |of: &Written| {
            ground
                .number_of(&of.hash)
                .is_some_and(|at| entries.contains(&at))
        };
        let (who, minute) = (device.who(), minute_of(message));
        let place = (&message.user, &minute);
        let may = must_read_all(ground, owner, who, place, &is_on_bus)
            && must_open(ground, owner, who, message, &is_on_bus);
        if !may {
            return Cause::NotEntitled;
        }
        match self.nodes_in_force(entries) {
            Some(set) if !self.is_met(&set, &who.0, entries) => Cause::NotApproved,
            Some(set) if self.has_enough(message, &set) => Cause::Unknown(String::new()),
            Some(_) | None => Cause::NoHolderReachable,
        }
    }

    /// The entries of which the bus has the whole past.
    fn linked(&self, entries: &BTreeSet<usize>) -> Entries {
        let mut there = Entries::default();
        entries.iter().for_each(|number| there.insert(*number));
        self.world.around.ground.linked(&there)
    }

    /// The key nodes that whoever reads all of the bus finds in force.
    pub(super) fn nodes_in_force(&self, entries: &BTreeSet<usize>) -> Option<KeyNodes> {
        let known = self.linked(entries);
        self.reading(&known).in_force().map(|(_, set)| set.clone())
    }

    /// Whether the condition of a set holds for a reader, and held since all came to rest, by the clock of
    /// whichever node.
    fn is_met(&self, set: &KeyNodes, reader: &UserId, entries: &BTreeSet<usize>) -> bool {
        let known = self.linked(entries);
        let from = Position(self.rested_at.saturating_sub(SKEW_MS));
        let to = Position(self.world.around.now + SKEW_MS);
        let approves = |by: &UserId| {
            let ground = &self.world.around.ground;
            let is_whole = |number: &usize| known.contains(*number);
            let is_of =
                |number: &usize| ground.entries.get(*number).is_some_and(|of| of.user == *by);
            entries.iter().filter(|of| is_of(of)).all(is_whole)
                && self.reading(&known).approves(by, reader, to)
        };
        holds(&set.condition, (from, to), approves)
    }

    /// Nodes of a set that run and do not lie.
    fn honest(&self, set: &KeyNodes) -> Vec<KeyNode> {
        let nodes = self.nodes.iter().filter(|at| {
            let device = self.world.devices.get(**at);
            device.is_some_and(|of| of.run.is_some() && of.node == Some(Nature::Honest))
        });
        let nodes = nodes.filter_map(|at| self.key_node(*at));
        nodes.filter(|of| set.nodes.contains(of)).collect()
    }

    /// Whether enough honest nodes have shares for a message: those in force, where its publisher is there
    /// to deal and remembers what it sealed with, or else those that it dealt to.
    fn has_enough(&self, message: &Message, set: &KeyNodes) -> bool {
        let honest = self.honest(set);
        let mut devices = self.world.devices.iter();
        let publisher = devices.find(|of| of.identity.device() == message.header.device);
        let deals_on = publisher.is_some_and(|of| of.run.is_some() && !of.was_restored);
        let secrets = self.secrets_of(message);
        // While sets stand side by side nothing is sealed for nodes.
        let is_for_nodes = self.reading(&message.known).in_force().is_some();
        if deals_on && (is_for_nodes || !secrets.is_empty()) {
            return honest.len() >= usize::from(set.threshold);
        }
        let keys = self.world.around.keys();
        let items = self.world.around.bus.items(&keys);
        let mut deals = items.filter_map(|item| Unverified::<Deal>::decode(item).ok());
        deals.any(|deal| {
            let of = deal.claims();
            let Ok(dealing) = of.dealing() else {
                return false;
            };
            let needed = dealing.threshold();
            let is_its = of.dealer.device == message.header.device
                && dealing
                    .commitments()
                    .first()
                    .is_some_and(|first| secrets.contains(first));
            let held = of
                .holders()
                .filter(|holder| honest.contains(holder))
                .count();
            is_its && needed >= usize::from(set.threshold) && held >= needed
        })
    }

    /// The secrets with which there are records on the bus of the smallest segment that a message lies in.
    fn secrets_of(&self, message: &Message) -> BTreeSet<[u8; 32]> {
        let keys = self.world.around.keys();
        let minute = segment_of(message);
        let items = self.world.around.bus.items(&keys);
        let secrets = items.filter_map(|item| {
            let records = Unverified::<SegmentRecords>::decode(item).ok()?;
            let of = records.claims();
            let has = of.records.iter().any(|record| record.segment == minute);
            (has && of.session == message.header.session).then_some(of.secret)
        });
        secrets.collect()
    }

    /// With one node less than are needed, a new device of each reader opens nothing.
    fn invariant_too_few_give_nothing(&mut self) -> Result<(), Violation> {
        let entries = self.world.entries_on_bus();
        let Some(set) = self.nodes_in_force(&entries) else {
            return Ok(());
        };
        let mut left: Vec<_> = self.nodes.clone();
        left.retain(|at| self.key_node(*at).is_some_and(|of| set.nodes.contains(&of)));
        for _ in 1..set.threshold {
            let pick = self.world.below(left.len());
            left.swap_remove(pick);
        }
        for at in left {
            if let Some(device) = self.world.devices.get_mut(at) {
                (device.run, device.is_gone) = (None, true);
            }
        }
        for user in READERS..READERS + self.plan.readers {
            let at = self.new_device(user).map_err(|stop| failed(user, stop))?;
            self.world.start(at);
            self.opens_nothing(at)?;
        }
        Ok(())
    }

    fn opens_nothing(&mut self, at: usize) -> Result<(), Violation> {
        self.act(at, |acting| acting.request(false))
            .map_err(|stop| failed(at, stop))?;
        self.world.pass(ASKS_MS);
        if let Some(violation) = self.world.around.violation.take() {
            return Err(violation);
        }
        let outcomes = self.act(at, |acting| acting.history());
        let outcomes = outcomes.map_err(|stop| failed(at, stop))?;
        let mut opened = outcomes.iter();
        let opened = opened.find(|(_, outcome)| **outcome == Outcome::Opened);
        let message = opened.and_then(|(of, _)| self.world.around.ground.messages.get(*of));
        match message {
            Some(message) => Err(Violation::TooFewOpen {
                what: format!("device {at}, which too few nodes answered,"),
                session: message.header.session,
            }),
            None => Ok(()),
        }
    }
}

/// The smallest segment that a message lies in.
pub(super) fn segment_of(message: &Message) -> Segment {
    Segment {
        depth: POSITION_BITS as u8 - 16,
        index: message.header.position.0 >> 16,
    }
}

fn minute_of(message: &Message) -> Interval {
    segment_of(message).interval()
}

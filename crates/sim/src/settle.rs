//! The faults stop, everybody has its turn until nothing is left to do, and then everything that
//! should open does.

use std::collections::BTreeSet;

use sealcast_engine::Refusal;
use sealcast_protocol::{EnvelopeView, StreamTopics};

use crate::around::Stop;
use crate::device::Outcome;
use crate::ground::Written;
use crate::model::{is_user_never_targeted, may_open, must_open};
use crate::outcome::{Cause, Tally};
use crate::violation::Violation;
use crate::world::World;

/// Rounds in which everybody has its turn.
const ROUNDS_MAX: usize = 20;

impl World {
    /// Ends all faults, and lets everybody work until nothing is left to do.
    pub(crate) fn settle(&mut self) -> Result<(), Violation> {
        self.around.step += 1;
        self.around.bus.heal(None);
        self.around.fuse = None;
        (self.around.twice, self.around.lossy, self.around.unsure) = (0, 0, 0);
        // Longer than what was seen of a topic is taken for granted.
        self.around.now += 100_000;
        for at in 0..self.devices.len() {
            self.start(at);
        }
        for _ in 0..ROUNDS_MAX {
            self.around.step += 1;
            self.around.now += 10_000;
            let before = self.around.bus.size();
            let mut trouble = None;
            for at in self.running() {
                match self.catch_up(at) {
                    Ok(()) => {}
                    Err(Stop::Violated(violation)) => return Err(violation),
                    Err(stop @ (Stop::Crashed | Stop::Unreachable | Stop::Refused(_))) => {
                        trouble = Some(format!("d{at} {stop:?}, it knows {:?}", self.numbers(at)));
                    }
                }
            }
            if let Some(violation) = self.around.violation.take() {
                return Err(violation);
            }
            if self.around.bus.size() == before && trouble.is_none() {
                return self.find_deceived();
            }
            self.restless = trouble.unwrap_or_else(|| "the bus still grows".into());
        }
        Err(Violation::Restless {
            rounds: ROUNDS_MAX,
            why: self.restless.clone(),
        })
    }

    fn find_deceived(&mut self) -> Result<(), Violation> {
        for at in self.running() {
            let Some((device, around)) = self.at(at) else {
                continue;
            };
            let is_deceived = device.act(around, |acting| acting.was_deceived());
            if is_deceived.map_err(|stop| failed(at, stop))? {
                around.note(at, format_args!("was deceived and cannot tell"));
                self.deceived.insert(at);
            }
        }
        Ok(())
    }

    /// The numbers of the entries that a device knows.
    fn numbers(&self, at: usize) -> Vec<usize> {
        let run = self.devices.get(at).and_then(|of| of.run.as_ref());
        let known = run.map(|run| self.around.ground.known_to(&run.view));
        let known = known.unwrap_or_default();
        let all = 0..self.around.ground.entries.len();
        all.filter(|of| known.contains(*of)).collect()
    }

    /// Everybody knows the same entries.
    pub(crate) fn invariant_logs_are_whole(&self) -> Result<(), Violation> {
        let known = |at: &usize| {
            let run = self.devices.get(*at).and_then(|of| of.run.as_ref());
            run.map(|run| self.around.ground.known_to(&run.view))
        };
        let mut running = self.running();
        running.retain(|at| !self.deceived.contains(at));
        let Some(first) = running.first() else {
            return Ok(());
        };
        let of_first = known(first);
        let Some(other) = running.iter().find(|at| known(at) != of_first) else {
            return Ok(());
        };
        let known = format!("{:?} and {:?}", self.numbers(*first), self.numbers(*other));
        Err(Violation::LogsDiffer(*first, *other, known))
    }

    /// Where nothing went wrong with bus or homes, nobody is told that it did.
    pub(crate) fn invariant_no_false_alarm(&self) -> Result<(), Violation> {
        if !self.is_calm {
            return Ok(());
        }
        for device in &self.devices {
            let alarms = device.run.as_ref().map(|run| run.alarms.as_slice());
            if let Some(alarm) = alarms.unwrap_or_default().first() {
                return Err(Violation::FalseAlarm {
                    device: device.at,
                    alarm: alarm.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Every device reads all of history: what it must open opens, and whatever stays sealed has a
    /// cause that can be named.
    pub(crate) fn judge(&mut self) -> Result<Tally, Violation> {
        self.around.step += 1;
        let on_bus = self.messages_on_bus();
        let entries = self.entries_on_bus();
        let mut tally = Tally::default();
        for at in self.running() {
            let Some((device, around)) = self.at(at) else {
                continue;
            };
            let outcomes = device.act(around, |acting| acting.history());
            let outcomes = outcomes.map_err(|stop| failed(at, stop))?;
            for number in &on_bus {
                let outcome = outcomes.get(number).copied();
                if outcome == Some(Outcome::Opened) {
                    tally.opened += 1;
                    continue;
                }
                let mut cause = self.cause(at, *number, outcome, &entries);
                if matches!(cause, Cause::Unknown(_)) && self.is_deceived(at, *number) {
                    cause = Cause::Withheld;
                }
                *tally.sealed.entry(cause.name()).or_default() += 1;
                if let Cause::Unknown(why) = cause {
                    return Err(Violation::StaysSealed {
                        device: at,
                        message: *number,
                        why,
                    });
                }
            }
        }
        Ok(tally)
    }

    fn messages_on_bus(&self) -> BTreeSet<usize> {
        let data = self.around.data();
        let items = self.around.bus.items(&data);
        let views = items.filter_map(|item| EnvelopeView::parse(item).ok());
        let stream = self.around.stream;
        let ours = views.filter_map(|view| {
            let message = self.around.ground.message(view.header())?;
            (view.hash(&stream, b"") == message.hash).then_some(message.number)
        });
        ours.collect()
    }

    fn entries_on_bus(&self) -> BTreeSet<usize> {
        let topics = StreamTopics(self.around.stream);
        let is_there = |of: &Written| {
            let chain = topics.access(&of.device);
            self.around.bus.items(&chain).any(|item| item == of.wire)
        };
        let entries = self.around.ground.entries.iter().enumerate();
        let there = entries.filter(|(_, of)| is_there(of));
        there.map(|(number, _)| number).collect()
    }

    /// Why a device does not open a message.
    fn cause(
        &self,
        at: usize,
        number: usize,
        outcome: Option<Outcome>,
        entries: &BTreeSet<usize>,
    ) -> Cause {
        let (ground, owner) = (&self.around.ground, &self.around.owner);
        let Some((message, device)) = ground.messages.get(number).zip(self.devices.get(at)) else {
            return Cause::Unknown("it is not there".into());
        };
        let user = device.user();
        let is_on_bus = |of: &Written| {
            ground
                .number_of(&of.hash)
                .is_some_and(|at| entries.contains(&at))
        };
        let must = must_open(ground, owner, &user, message, &is_on_bus);
        let is_sender_sound =
            message.user == *owner || is_user_never_targeted(ground, &message.user);
        match outcome {
            Some(Outcome::Sealed { .. }) if !self.has_holder(message) => Cause::NoHolderReachable,
            Some(Outcome::Rejected(Refusal::UnknownSession)) if !self.has_record(message) => {
                Cause::Withheld
            }
            _ if must => Cause::Unknown(format!("it must, and says {outcome:?}")),
            Some(Outcome::Sealed { is_granted: false }) => {
                match may_open(ground, owner, &user, message) {
                    true => Cause::Revoked,
                    false => Cause::NotEntitled,
                }
            }
            Some(Outcome::Rejected(Refusal::NotEntitled | Refusal::AfterRevocation))
                if !is_sender_sound || self.lacks_grant(message, entries) =>
            {
                Cause::SenderRevoked
            }
            Some(Outcome::Rejected(Refusal::UnknownSender))
                if !is_sender_sound || self.lacks_grant(message, entries) =>
            {
                Cause::SenderRevoked
            }
            outcome => Cause::Unknown(format!("it says {outcome:?}")),
        }
    }

    /// Whether a grant that a message's sender went by is lost.
    fn lacks_grant(&self, message: &crate::ground::Message, entries: &BTreeSet<usize>) -> bool {
        let all = 0..self.around.ground.entries.len();
        let mut known = all.filter(|at| message.known.contains(*at));
        let forked = self.around.ground.forked();
        let is_of_forked = |at: &usize| {
            let entry = self.around.ground.entries.get(*at);
            entry.is_some_and(|of| forked.contains(&of.device))
        };
        known.any(|at| !entries.contains(&at) || is_of_forked(&at))
    }

    /// Whether a device that runs holds the session's root and may hand it out.
    fn has_holder(&self, message: &crate::ground::Message) -> bool {
        let running = self.devices.iter().filter_map(|of| of.run.as_ref());
        let mut holds = running.map(|run| {
            let (user, device) = run.view.me();
            run.view.root(&message.header.session).is_some()
                && run.view.state().is_keyholder(&user, &device, &message.user)
        });
        holds.any(|holds| holds)
    }

    /// Whether a device, or one that could give it the keys of a message, does not know what the bus
    /// shows and cannot tell.
    fn is_deceived(&self, at: usize, number: usize) -> bool {
        let lane = self.around.ground.messages.get(number).map(|of| of.user);
        let holds = |at: &usize| {
            let run = self.devices.get(*at).and_then(|of| of.run.as_ref());
            run.zip(lane).is_some_and(|(run, lane)| {
                let (user, device) = run.view.me();
                run.view.state().is_keyholder(&user, &device, &lane)
            })
        };
        self.deceived.contains(&at) || self.deceived.iter().any(holds)
    }

    fn has_record(&self, message: &crate::ground::Message) -> bool {
        let (session, device) = (message.header.session, message.header.device);
        let keys = self.around.keys();
        self.around.bus.items(&keys).any(|item| {
            let record =
                sealcast_protocol::Unverified::<sealcast_protocol::SessionRecord>::decode(item);
            record.is_ok_and(|of| (of.claims().session, of.claims().device) == (session, device))
        })
    }
}

fn failed(device: usize, stop: Stop) -> Violation {
    match stop {
        Stop::Violated(violation) => violation,
        Stop::Crashed | Stop::Unreachable | Stop::Refused(_) => Violation::Failed {
            device,
            why: format!("{stop:?}"),
        },
    }
}

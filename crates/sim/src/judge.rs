//! Who opens what in the end, and why the rest stays sealed.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::Refusal;
use sealcast_protocol::{EnvelopeView, SessionRecord, Sharing, StreamTopics, Unverified};

use crate::device::Outcome;
use crate::ground::{Message, Written};
use crate::model::{is_user_never_targeted, may_open, must_give, must_open};
use crate::outcome::{Cause, Tally};
use crate::settle::failed;
use crate::violation::Violation;
use crate::world::World;

/// What became of each message, for each device that runs.
type Outcomes = BTreeMap<usize, BTreeMap<usize, Outcome>>;

impl World {
    /// Every device reads all of history: what it must open opens, and whatever stays sealed has a
    /// cause that can be named.
    pub(crate) fn judge(&mut self) -> Result<Tally, Violation> {
        self.around.step += 1;
        let on_bus = self.messages_on_bus();
        let entries = self.entries_on_bus();
        let mut tally = Tally::default();
        let mut outcomes = Outcomes::new();
        for at in self.running() {
            if let Some((device, around)) = self.at(at) {
                let of_device = device.act(around, |acting| acting.history());
                let of_device = of_device.map_err(|stop| failed(at, stop))?;
                outcomes.insert(at, of_device);
            }
        }
        for (at, of_device) in &outcomes {
            let at = *at;
            for number in &on_bus {
                let outcome = of_device.get(number).copied();
                if outcome == Some(Outcome::Opened) {
                    tally.opened += 1;
                    self.invariant_what_opens_does_not_wait(at, *number)?;
                    continue;
                }
                let mut cause = self.cause(at, *number, &outcomes, &entries);
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

    pub(crate) fn messages_on_bus(&self) -> BTreeSet<usize> {
        let data = self.around.data();
        let items = self.around.bus.items(&data);
        let ours = items.filter_map(|item| {
            let view = EnvelopeView::parse(item).ok()?;
            let message = self.around.ground.message(view.header())?;
            (*item == message.bytes).then_some(message.number)
        });
        ours.collect()
    }

    pub(crate) fn entries_on_bus(&self) -> BTreeSet<usize> {
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
        outcomes: &Outcomes,
        entries: &BTreeSet<usize>,
    ) -> Cause {
        let outcome = outcomes.get(&at).and_then(|of| of.get(&number)).copied();
        let (ground, owner) = (&self.around.ground, &self.around.owner);
        let Some((message, device)) = ground.messages.get(number).zip(self.devices.get(at)) else {
            return Cause::Unknown("it is not there".into());
        };
        let who = device.who();
        let is_on_bus = |of: &Written| {
            ground
                .number_of(&of.hash)
                .is_some_and(|at| entries.contains(&at))
        };
        let must = must_open(ground, owner, who, message, &is_on_bus);
        let has_holder = self.has_holder(message)
            || outcomes.keys().any(|of| {
                let opens = outcomes.get(of).and_then(|of| of.get(&number)).copied();
                let giver = self.devices.get(*of).filter(|of| of.answers && of.at != at);
                let gives = giver.is_some_and(|giver| {
                    must_give(ground, owner, giver.who(), who.0, message, &is_on_bus)
                });
                opens == Some(Outcome::Opened) && gives
            });
        let is_sender_sound = !ground.is_ever_out(&message.header.device)
            && (message.user == *owner || is_user_never_targeted(ground, &message.user));
        match outcome {
            Some(Outcome::Sealed { .. } | Outcome::Rejected(Refusal::NotAuthentic))
                if !has_holder =>
            {
                Cause::NoHolderReachable
            }
            Some(Outcome::Rejected(Refusal::UnknownSession)) if !self.has_record(message) => {
                Cause::Withheld
            }
            _ if must => Cause::Unknown(format!("it must, and says {outcome:?}")),
            // Its user took it out, and may not have lived to say so in the log.
            Some(Outcome::Sealed { .. }) if ground.is_ever_out(&who.1) => Cause::Revoked,
            Some(Outcome::Sealed { is_granted: false }) => {
                match may_open(ground, owner, who, &message.spot()) {
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

    /// What a device opens does not wait in its store.
    fn invariant_what_opens_does_not_wait(
        &self,
        at: usize,
        number: usize,
    ) -> Result<(), Violation> {
        let live = self
            .devices
            .get(at)
            .and_then(|of| of.run.as_ref()?.live.as_ref());
        let message = self.around.ground.messages.get(number);
        match live.zip(message) {
            Some((live, message)) if live.waits(&message.hash) => Err(Violation::ParkedLost {
                device: at,
                message: number,
                why: "it opens, and waits on",
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a grant that a message's sender went by is lost.
    fn lacks_grant(&self, message: &Message, entries: &BTreeSet<usize>) -> bool {
        let all = 0..self.around.ground.entries.len();
        let mut known = all.filter(|at| message.known.contains(*at));
        let forked = self.around.ground.forked();
        let is_of_forked = |at: &usize| {
            let entry = self.around.ground.entries.get(*at);
            entry.is_some_and(|of| forked.contains(&of.device))
        };
        known.any(|at| !entries.contains(&at) || is_of_forked(&at))
    }

    /// Whether a device that runs holds the session's root and hands it out.
    fn has_holder(&self, message: &Message) -> bool {
        let shares = self.plan.sharing == Sharing::Active;
        let sharing = self.devices.iter().filter(|of| shares || of.answers);
        let mut running = sharing.filter_map(|of| of.run.as_ref());
        running.any(|run| {
            let (user, device) = run.view.me();
            run.view.root(&message.header.session).is_some()
                && run.view.state().is_keyholder(&user, &device, &message.user)
                && !self.around.ground.is_ever_out(&device)
        })
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

    fn has_record(&self, message: &Message) -> bool {
        let (session, device) = (message.header.session, message.header.device);
        let keys = self.around.keys();
        self.around.bus.items(&keys).any(|item| {
            let record = Unverified::<SessionRecord>::decode(item);
            record.is_ok_and(|of| (of.claims().session, of.claims().device) == (session, device))
        })
    }
}

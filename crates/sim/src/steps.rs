//! What happens in a step.

use sealcast_protocol::{DeviceId, Position, Roles, UserId};

use crate::around::Stop;
use crate::device::{Bound, Draft, Terms};
use crate::world::World;

impl World {
    /// One step: time passes, something may go wrong, a device does something.
    pub(crate) fn step(&mut self) {
        self.around.step += 1;
        let ms = match self.around.chance.below(20) {
            0..=9 => self.around.chance.below(20),
            10..=16 => self.around.chance.below(3_000),
            17 | 18 => self.around.chance.below(60_000),
            _ => self.around.chance.below(3_600_000),
        };
        self.pass(ms);
        if self.around.chance.hits(self.plan.faults, 100) {
            self.inject();
        }
        self.mend_some();
        self.start_some();
        let running = self.running();
        let Some(&who) = running.get(self.below(running.len())) else {
            return;
        };
        if self.around.chance.hits(6, 100) {
            self.around.fuse = Some(self.around.chance.below(12));
        }
        let result = self.do_something(who);
        self.ended(who, result);
        if self.around.step.is_multiple_of(16)
            && let Err(violation) = self.invariant_states_agree()
        {
            self.around.violation.get_or_insert(violation);
        }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.around.chance.below(end as u64) as usize
    }

    /// Starts devices that do not run: mostly soon.
    pub(crate) fn start_some(&mut self) {
        let down = self.devices.iter();
        let down = down.filter(|of| of.run.is_none() && !of.is_gone);
        let down: Vec<_> = down.map(|of| of.at).collect();
        for at in down {
            if at == 0 || self.around.chance.hits(30, 100) {
                self.start(at);
            }
        }
    }

    pub(crate) fn start(&mut self, at: usize) {
        if let Some((device, around)) = self.at(at) {
            let result = device.start(around);
            if result.is_ok() {
                around.note(at, format_args!("starts"));
            }
            self.ended(at, result);
        }
    }

    fn do_something(&mut self, who: usize) -> Result<(), Stop> {
        match self.around.chance.below(100) {
            0..=34 => self.publish(who),
            35..=49 => self.follow(who),
            50..=59 => self.catch_up(who),
            60..=76 => self.grant(),
            77..=82 => self.revoke(),
            83..=86 => self.cut(who),
            87 | 88 => self.read_history(who),
            89 | 90 => self.request(who),
            91..=93 => self.keep_place(who),
            94 | 95 => self.copy_home(who),
            96 | 97 => self.add_one(),
            98 => self.change_list(),
            _ => self.catch_up(who),
        }
    }

    /// A device that may publish seals something, or the one whose turn it is tries.
    pub(crate) fn publish(&mut self, who: usize) -> Result<(), Stop> {
        let may = |of: &usize| {
            let run = self.devices.get(*of).and_then(|of| of.run.as_ref());
            run.is_some_and(|run| {
                let (user, device) = run.view.me();
                let roles = run.view.state().roles(&user, &device);
                roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN)
            })
        };
        let may: Vec<_> = self.running().into_iter().filter(may).collect();
        let pick = self.below(may.len() + 1);
        let who = may.get(pick).copied().unwrap_or(who);
        let count = 1 + self.around.chance.below(self.plan.batch_max);
        let start = self.around.ground.records();
        let mut batch = Vec::new();
        let text = |at: usize| format!("{}.{at}", start).into_bytes();
        for at in 0..count as usize {
            batch.push(match self.around.chance.hits(1, 8) {
                true => Draft::Frame((0..3).map(|more| text(at * 4 + more)).collect()),
                false => Draft::Single(text(at * 4)),
            });
        }
        let Some((device, around)) = self.at(who) else {
            return Ok(());
        };
        let sent = device.act(around, |acting| acting.publish(&batch))?;
        around.note(who, format_args!("publishes {sent} envelopes"));
        Ok(())
    }

    pub(crate) fn follow(&mut self, who: usize) -> Result<(), Stop> {
        if let Some((device, around)) = self.at(who) {
            device.act(around, |acting| acting.follow())?;
        }
        match self.around.chance.hits(1, 2) {
            true => self.keep_place(who),
            false => Ok(()),
        }
    }

    fn keep_place(&mut self, who: usize) -> Result<(), Stop> {
        if let Some((device, around)) = self.at(who) {
            let delivered = device.act(around, |acting| acting.keep_place())?;
            device.delivered.get_mut().extend(delivered);
        }
        Ok(())
    }

    fn read_history(&mut self, who: usize) -> Result<(), Stop> {
        if let Some((device, around)) = self.at(who) {
            device.act(around, |acting| acting.history())?;
        }
        Ok(())
    }

    /// A device asks for all that it cannot open: of what it is granted, or of anything.
    fn request(&mut self, who: usize) -> Result<(), Stop> {
        let is_beyond_log = self.around.chance.hits(1, 2);
        if let Some((device, around)) = self.at(who) {
            device.act(around, |acting| acting.request(is_beyond_log))?;
        }
        Ok(())
    }

    pub(crate) fn catch_up(&mut self, who: usize) -> Result<(), Stop> {
        match self.at(who) {
            Some((device, around)) => device.act(around, |acting| {
                acting.level_list()?;
                acting.sync()?;
                acting.resend_entry()?;
                acting.announce_drawn()?;
                acting.send()?;
                acting.share_owed()?;
                acting.deal_owed()?;
                acting.go_on_asking()?;
                acting.go_on_answering()
            }),
            None => Ok(()),
        }
    }

    /// Somebody who may rule grants something: mostly the owner.
    fn grant(&mut self) -> Result<(), Stop> {
        let Some(who) = self.ruler() else {
            return Ok(());
        };
        let pick = self.below(self.users.len() + 1);
        let to = self.users.get(pick).map(|of| of.id);
        let is_forger = to.is_none() && self.plan.faults > 0;
        let to = to.unwrap_or(match is_forger {
            true => self.forger.user(),
            false => self.around.owner,
        });
        let (roles, from, until) = match self.around.chance.below(10) {
            _ if is_forger => (Roles::READER, self.begin(), self.end()),
            0 => (Roles::ADMIN, at(Position::START), at(Position::END)),
            1..=4 => {
                let roles = match self.around.chance.below(2) {
                    0 => Roles::PUBLISHER,
                    _ => Roles::PUBLISHER.with(Roles::READER),
                };
                (roles, self.begin(), at(Position::END))
            }
            _ => (Roles::READER, self.begin(), self.end()),
        };
        let terms = Terms {
            roles,
            from,
            until,
            reshare: self.around.chance.hits(1, 2),
            devices: self.some_devices(to),
        };
        match self.at(who) {
            Some((device, around)) => {
                let granted = device.act(around, |acting| acting.grant(to, terms));
                granted.map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// Mostly all devices of a user, and sometimes one.
    fn some_devices(&mut self, user: UserId) -> Vec<DeviceId> {
        let of = self.users.iter().find(|of| of.id == user);
        let devices = of.map_or(&[][..], |of| &of.devices).to_vec();
        let pick = self.below(devices.len());
        let device = devices.get(pick).and_then(|at| self.devices.get(*at));
        let device = device.map(|of| of.identity.device());
        match self.around.chance.hits(1, 8) {
            true => device.into_iter().collect(),
            false => Vec::new(),
        }
    }

    fn ruler(&mut self) -> Option<usize> {
        let rules = |of: &usize| {
            let run = self.devices.get(*of).and_then(|of| of.run.as_ref());
            run.is_some_and(|run| run.view.rules())
        };
        let running = self.running();
        let mut rulers: Vec<_> = running.iter().copied().filter(rules).collect();
        if self.around.chance.hits(1, 5) {
            rulers = running;
        }
        let pick = self.below(rulers.len());
        rulers.get(pick).copied()
    }

    /// Where an interval begins: often exactly where a message lies.
    fn begin(&mut self) -> Bound {
        match self.around.chance.below(4) {
            0 => Bound::Now,
            1 => at(Position::START),
            _ => self.near_a_message(),
        }
    }

    fn end(&mut self) -> Bound {
        match self.around.chance.below(5) {
            0 => Bound::Now,
            1 | 2 => at(Position::END),
            3 => self.near_a_message(),
            _ => {
                let later = self.around.chance.below(100_000);
                at(Position(self.around.now).after(later))
            }
        }
    }

    fn near_a_message(&mut self) -> Bound {
        let pick = self.below(self.around.ground.messages.len());
        let message = self.around.ground.messages.get(pick);
        let now = Position(self.around.now);
        let position = message.map_or(now, |of| of.header.position);
        at(position.after(self.around.chance.below(2)))
    }

    fn revoke(&mut self) -> Result<(), Stop> {
        let Some(who) = self.ruler() else {
            return Ok(());
        };
        let grants = match self.devices.get(who).and_then(|of| of.run.as_ref()) {
            Some(run) => run.view.state().grants().to_vec(),
            None => return Ok(()),
        };
        let pick = self.below(grants.len());
        let Some(grant) = grants.get(pick) else {
            return Ok(());
        };
        let is_whole = self.around.chance.hits(1, 2);
        let Some((device, around)) = self.at(who) else {
            return Ok(());
        };
        let revoked = device.act(around, |acting| match is_whole {
            true => acting.revoke_user(grant.grant.user),
            false => acting.revoke_grant(grant.id),
        });
        revoked.map(|_| ())
    }

    fn cut(&mut self, who: usize) -> Result<(), Stop> {
        let is_rekey = self.around.chance.hits(1, 2);
        if let Some((device, around)) = self.at(who) {
            let cut = device.act(around, |acting| {
                acting.sync()?;
                match (acting.has_lane(), is_rekey) {
                    (false, _) => Err(Stop::Refused("it has no lane")),
                    (true, true) => acting.cut_session(),
                    (true, false) => acting.cut(),
                }
            })?;
            around.note(who, format_args!("cuts at {}", cut.0));
        }
        Ok(())
    }

    pub(crate) fn copy_home(&mut self, who: usize) -> Result<(), Stop> {
        if let Some((device, around)) = self.at(who) {
            let copy = device.home.copied()?;
            device.copies.push(copy);
            around.note(who, format_args!("copies its home"));
        }
        Ok(())
    }

    fn add_one(&mut self) -> Result<(), Stop> {
        let user = self.below(self.users.len());
        let more = self.devices.len().saturating_sub(self.users.len());
        match more < self.plan.more_devices {
            true => self.add_device(user),
            false => Ok(()),
        }
    }
}

fn at(position: Position) -> Bound {
    Bound::At(position)
}

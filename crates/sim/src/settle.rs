//! The faults stop, everybody has its turn until nothing is left to do, and then everything that
//! should open does.

use sealcast_engine::Alarm;

use crate::around::Stop;
use crate::device::Acting;
use crate::violation::Violation;
use crate::world::World;

/// Rounds in which everybody has its turn.
const ROUNDS_MAX: usize = 20;
/// Rounds in which everybody asks for keys, and how long each takes.
const ASKED_MAX: usize = 6;
const ASKS_MS: u64 = 45_000;
/// How far clocks are off, at most, when all comes to rest.
const SKEW_MS: i64 = 50_000;

impl World {
    /// Ends all faults, and lets everybody work until nothing is left to do.
    pub(crate) fn settle(&mut self) -> Result<(), Violation> {
        self.around.step += 1;
        self.around.bus.heal(None);
        self.around.fuse = None;
        (self.around.twice, self.around.lossy, self.around.unsure) = (0, 0, 0);
        let air = &mut self.around.air;
        (air.twice, air.lossy, air.late_ms) = (0, 0, 0);
        (self.crashes, self.around.is_rough) = (false, false);
        self.lose_some();
        self.set_clocks_right();
        // Longer than what was seen of a topic is taken for granted.
        self.pass(100_000);
        for at in 0..self.devices.len() {
            self.start(at);
        }
        for _ in 0..ROUNDS_MAX {
            self.around.step += 1;
            self.pass(10_000);
            let before = self.around.bus.size();
            let mut trouble = self.finish_removals()?;
            for at in self.running() {
                let is_out = self.is_out(at);
                match self.catch_up(at) {
                    Ok(()) => {}
                    Err(Stop::Refused(_)) if is_out => {}
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

    /// Devices are gone for good, publishers and the owner among them.
    fn lose_some(&mut self) {
        if !self.is_calm {
            return;
        }
        for at in 0..self.devices.len() {
            let is_lost = self.around.chance.hits(self.plan.leave, 100);
            if let Some((device, around)) = self.at(at).filter(|_| is_lost) {
                (device.run, device.is_gone) = (None, true);
                around.fault("kill", format_args!("d{at} for good"));
            }
        }
    }

    /// Programs start anew by clocks that are as right as those of others must be who are answered.
    fn set_clocks_right(&mut self) {
        for device in &mut self.devices {
            if device.skew_ms.abs() > SKEW_MS {
                (device.skew_ms, device.run) = (0, None);
            }
        }
    }

    /// What crashes left undone of removals.
    fn finish_removals(&mut self) -> Result<Option<String>, Violation> {
        let mut trouble = None;
        for removed in self.removed.clone() {
            match self.finish_removal(&removed) {
                Ok(()) => {}
                Err(Stop::Violated(violation)) => return Err(violation),
                Err(stop) => trouble = Some(format!("of user {}: {stop:?}", removed.user)),
            }
        }
        Ok(trouble)
    }

    /// Whether an alarm names the forger, and rightly so.
    fn is_of_forger(&self, alarm: &Alarm) -> bool {
        let forger = self.forger.user();
        matches!(alarm, Alarm::LogForked(user, _) | Alarm::BadKeys(user, _) if *user == forger)
    }

    /// Whether an alarm is of a topic that somebody wrote to who may not.
    fn is_of_litter(&self, alarm: &Alarm) -> bool {
        let stream = self.around.stream;
        matches!(alarm, Alarm::Forged(of) if self.littered.contains(&of.name(stream)))
    }

    /// Whether a device's user took it out.
    pub(crate) fn is_out(&self, at: usize) -> bool {
        let device = self.devices.get(at).map(|of| of.identity.device());
        device.is_some_and(|of| self.around.ground.is_ever_out(&of))
    }

    /// Everybody asks for what it lacks, until nobody is given anything more.
    pub(crate) fn ask_for_all(&mut self) -> Result<(), Violation> {
        for round in 0..ASKED_MAX {
            self.around.step += 1;
            let mut lacking = 0;
            for at in self.running() {
                let is_beyond_log = round == 0 && at % 4 == 1;
                lacking += self.asks(at, |acting| acting.request(is_beyond_log))?;
            }
            self.pass(ASKS_MS);
            if let Some(violation) = self.around.violation.take() {
                return Err(violation);
            }
            let mut left = 0;
            for at in self.running() {
                left += self.asks(at, |acting| {
                    acting.follow()?;
                    Ok(acting.lacking())
                })?;
            }
            if lacking == left {
                break;
            }
        }
        Ok(())
    }

    fn asks(
        &mut self,
        at: usize,
        step: impl FnOnce(&mut Acting<'_>) -> Result<usize, Stop>,
    ) -> Result<usize, Violation> {
        match self.at(at) {
            Some((device, around)) => device.act(around, step).map_err(|stop| failed(at, stop)),
            None => Ok(0),
        }
    }

    /// What waited is delivered, or waits still.
    pub(crate) fn invariant_nothing_parked_is_lost(&self) -> Result<(), Violation> {
        for device in &self.devices {
            let Some(live) = device.run.as_ref().and_then(|run| run.live.as_ref()) else {
                continue;
            };
            for message in device.parked.borrow().iter() {
                let Some(of) = self.around.ground.messages.get(*message) else {
                    continue;
                };
                let delivered = device.delivered.borrow();
                let mut records = delivered.range((*message, 0)..(*message + 1, 0));
                let is_delivered = records.next().is_some() || live.has_delivered(*message);
                let why = match (is_delivered, live.waits(&of.hash)) {
                    (true, false) | (false, true) => continue,
                    (true, true) => "it was delivered, and waits on",
                    (false, false) => "it does not wait, and was not delivered",
                };
                return Err(Violation::ParkedLost {
                    device: device.at,
                    message: *message,
                    why,
                });
            }
        }
        Ok(())
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
            // What a device wrote that is out may be held back by some.
            let ground = &self.around.ground;
            run.map(|run| ground.known_of_those_in(&run.view))
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
            let run = device.run.as_deref();
            let mut alarms = run.into_iter().flat_map(|run| &run.alarms);
            let is_right = |of: &Alarm| self.is_of_forger(of) || self.is_of_litter(of);
            if let Some(alarm) = alarms.find(|alarm| !is_right(alarm)) {
                return Err(Violation::FalseAlarm {
                    device: device.at,
                    alarm: alarm.to_string(),
                });
            }
        }
        Ok(())
    }
}

pub(crate) fn failed(device: usize, stop: Stop) -> Violation {
    match stop {
        Stop::Violated(violation) => violation,
        Stop::Crashed | Stop::Unreachable | Stop::Refused(_) => Violation::Failed {
            device,
            why: format!("{stop:?}"),
        },
    }
}

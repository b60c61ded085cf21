//! Answering who asks for keys: what drives the engine's responder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealcast_engine::{
    ControlTopic, Decision, Handout, HandoutKey, Question, Responder, ResponderInput,
    ResponderLimits, ResponderOutput, wrap_handout,
};
use sealcast_protocol::{CoverSpec, DeviceId, RequestId, UserId, Want};

use super::Acting;
use super::asker::brief;
use crate::around::Stop;
use crate::model::{Spot, may_give, may_open};
use crate::plant::Plant;
use crate::violation::Violation;

/// How long to wait before what failed is tried again, and until followed topics are looked at again.
const PAUSE_MS: u64 = 1_000;
/// Items of an inbox that are looked at, at most, before those that come.
const INBOX_ITEMS: u64 = 256;
/// The longest that whoever decides takes.
const DECIDES_MS: u64 = 8_000;

/// What answers others in the name of a device.
#[derive(Debug)]
pub(crate) struct Answering {
    machine: Responder,
    todo: VecDeque<Todo>,
    /// Devices whose inboxes are followed, and where to read on in each.
    followed: BTreeMap<DeviceId, u64>,
    /// What is being decided, and until when.
    deciding: Vec<(u64, Question)>,
    paused_until: Option<u64>,
    ticked_at: u64,
    read_at: u64,
    /// What was given to which request.
    given: BTreeMap<(DeviceId, RequestId, UserId, CoverSpec), usize>,
}

#[derive(Debug)]
enum Todo {
    Do(ResponderOutput),
    /// Bring the view up to date, and say so.
    Learn,
    Decided(Question),
}

impl Answering {
    pub(super) fn new() -> Self {
        Self {
            machine: Responder::new(ResponderLimits::default()),
            todo: VecDeque::from([Todo::Learn]),
            followed: BTreeMap::new(),
            deciding: Vec::new(),
            paused_until: None,
            ticked_at: 0,
            read_at: 0,
            given: BTreeMap::new(),
        }
    }

    /// When it has something to do, by the clock of the run.
    pub(super) fn next_at(&self, skew_ms: i64) -> Option<u64> {
        if self.paused_until.is_some() {
            return self.paused_until;
        }
        let timeout = self.machine.next_timeout();
        let timeout = timeout.map(|at| at.0.saturating_add_signed(-skew_ms));
        let is_busy = self.machine.open_requests() + self.machine.unchecked_requests() > 0;
        let look = is_busy.then(|| self.read_at + PAUSE_MS);
        let decided = self.deciding.iter().map(|(at, _)| *at);
        let next = timeout.into_iter().chain(look).chain(decided).min();
        next.map(|at| at.max(self.ticked_at + 1))
    }
}

impl Acting<'_> {
    /// An item of the `ask` topic came.
    pub(crate) fn answer_item(&mut self, bytes: &Arc<[u8]>) -> Result<(), Stop> {
        self.answer(ResponderInput::Item(bytes));
        self.go_on_answering()
    }

    /// Time has passed.
    pub(crate) fn tick_answering(&mut self) -> Result<(), Stop> {
        let now = self.around.now;
        let Some(answering) = &mut self.run.answering else {
            return Ok(());
        };
        answering.ticked_at = now;
        let (due, later) = std::mem::take(&mut answering.deciding)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        answering.deciding = later;
        let decided = due.into_iter().map(|(_, question)| Todo::Decided(question));
        answering.todo.extend(decided);
        if now >= answering.read_at + PAUSE_MS {
            answering.read_at = now;
            answering.todo.push_back(Todo::Learn);
            let followed = answering.followed.clone();
            let read = self.read_followed(followed);
            self.paused_by(read)?;
        }
        self.answer(ResponderInput::Tick);
        self.go_on_answering()
    }

    fn read_followed(&mut self, followed: BTreeMap<DeviceId, u64>) -> Result<(), Stop> {
        for (device, at) in followed {
            let inbox = device.inbox_topic();
            for item in self.around.read(self.device.at, &inbox, at, usize::MAX)? {
                self.answer(ResponderInput::InboxItem(&item.bytes));
                if let Some(answering) = &mut self.run.answering {
                    answering.followed.insert(device, item.offset + 1);
                }
            }
        }
        Ok(())
    }

    /// Hands something in, and notes what is to be done about it.
    fn answer(&mut self, input: ResponderInput<'_>) {
        let (now, run) = (self.now(), &mut *self.run);
        let Some(answering) = &mut run.answering else {
            return;
        };
        let machine = &mut answering.machine;
        machine.handle(now, &run.view, input);
        while let Some(output) = machine.poll_output() {
            answering.todo.push_back(Todo::Do(output));
        }
    }

    /// Does what is to be done. What fails is done later.
    pub(crate) fn go_on_answering(&mut self) -> Result<(), Stop> {
        let now = self.around.now;
        let Some(answering) = &mut self.run.answering else {
            return Ok(());
        };
        if answering.paused_until.is_some_and(|at| now < at) {
            return Ok(());
        }
        answering.paused_until = None;
        let mut done = Ok(());
        while done.is_ok()
            && let Some(todo) = self.next_todo()
        {
            done = self.do_one(todo);
        }
        self.paused_by(done)
    }

    fn next_todo(&mut self) -> Option<Todo> {
        self.run.answering.as_mut()?.todo.pop_front()
    }

    fn paused_by(&mut self, done: Result<(), Stop>) -> Result<(), Stop> {
        match (done, &mut self.run.answering) {
            (Err(Stop::Unreachable | Stop::Refused(_)), Some(answering)) => {
                answering.paused_until = Some(self.around.now + PAUSE_MS);
                Ok(())
            }
            (done, _) => done,
        }
    }

    fn again(&mut self, todo: Todo) {
        if let Some(answering) = &mut self.run.answering {
            answering.todo.push_front(todo);
        }
    }

    fn do_one(&mut self, todo: Todo) -> Result<(), Stop> {
        match todo {
            Todo::Learn => {
                if let Err(stop) = self.sync() {
                    self.again(Todo::Learn);
                    return Err(stop);
                }
                match self.share_owed() {
                    Ok(()) | Err(Stop::Unreachable | Stop::Refused(_)) => (),
                    Err(stop) => return Err(stop),
                }
                self.answer(ResponderInput::Learned);
                Ok(())
            }
            Todo::Decided(question) => self.conclude(question),
            Todo::Do(output) => match output {
                ResponderOutput::Send(body) => self.send_ask(body),
                ResponderOutput::Decide(question) => {
                    self.decide(question);
                    Ok(())
                }
                ResponderOutput::Give(handout) => {
                    if let Err(stop) = self.freshen() {
                        self.again(Todo::Do(ResponderOutput::Give(handout)));
                        return Err(stop);
                    }
                    self.give(&handout)
                }
                ResponderOutput::Follow(device) => self.begin_to_follow(device),
                ResponderOutput::Unfollow(device) => {
                    if let Some(answering) = &mut self.run.answering {
                        answering.followed.remove(&device);
                    }
                    Ok(())
                }
                ResponderOutput::ReadList(user) => self.read_list(user),
            },
        }
    }

    /// The log decides: at once, or as late as a person or a program would.
    fn decide(&mut self, question: Question) {
        let at = match self.around.is_rough && self.around.chance.hits(1, 6) {
            true => self.around.now + self.around.chance.below(DECIDES_MS),
            false => self.around.now,
        };
        if let Some(answering) = &mut self.run.answering {
            match at > self.around.now {
                true => answering.deciding.push((at, question)),
                false => answering.todo.push_back(Todo::Decided(question)),
            }
        }
    }

    /// Does what was decided, by what the log says now.
    fn conclude(&mut self, question: Question) -> Result<(), Stop> {
        if let Err(stop) = self.freshen() {
            self.again(Todo::Decided(question));
            return Err(stop);
        }
        self.answer(ResponderInput::Learned);
        self.answer(ResponderInput::Decided {
            asker: question.asker,
            request: question.request,
            decision: Decision::Give,
        });
        Ok(())
    }

    /// Gives keys, if that is allowed at this moment.
    fn give(&mut self, handout: &Handout) -> Result<(), Stop> {
        let rng = &mut self.around.rng;
        let bundle = wrap_handout(&self.run.view, &self.device.identity, rng, handout);
        let bundle = bundle.map_err(|_| Violation::Odd("a bundle of our own"))?;
        let Some(bundle) = bundle else {
            return Ok(());
        };
        self.invariant_answers_are_due(handout)?;
        if self.around.plant == Some(Plant::NoAnswer) {
            return Ok(());
        }
        let inbox = handout.device.inbox_topic();
        let bundle = bundle.wire().to_vec();
        self.around.append(self.device.at, &inbox, &[bundle])?;
        if let HandoutKey::OneUse { request, .. } = &handout.to {
            let count = handout.covers.len();
            self.note(format_args!("gives {count} covers to {}", brief(request)));
        }
        let (me, device) = self.run.view.me();
        let state = self.run.view.state();
        let kind = match state.is_keyholder(&me, &device, &handout.lane) {
            true => "bundle of a keyholder",
            false if me == handout.user => "bundle of another device of the user",
            false => "bundle of a co-reader",
        };
        self.around.count_asking(kind);
        Ok(())
    }

    /// An answer goes to a device that asked, once, that the log as it is known here gives what it
    /// is given, by one whom the log lets give it.
    fn invariant_answers_are_due(&mut self, handout: &Handout) -> Result<(), Stop> {
        let (giver, asker) = (self.device.at, handout.device);
        let HandoutKey::OneUse { request, .. } = &handout.to else {
            return Err(Violation::Odd("an answer to a long-lived key").into());
        };
        let wrong = |what| Stop::from(Violation::Answered { giver, asker, what });
        let wants = self.around.ground.wants(asker, *request);
        let wants = wants.ok_or_else(|| wrong("without having been asked"))?;
        let wants = wants.to_vec();
        let list = self.run.view.list(&handout.user);
        let of = list.and_then(|list| list.device(&asker));
        if of.is_none_or(|of| of.revoked.is_some()) {
            return Err(wrong("though its card is revoked"));
        }
        let known = self.known();
        let (ground, owner) = (&self.around.ground, &self.around.owner);
        let me = (self.device.user(), self.device.identity.device());
        for spec in &handout.covers {
            let last = sealcast_protocol::Position(spec.interval.until.0.saturating_sub(1));
            for at in [spec.interval.from, last] {
                let spot = Spot {
                    lane: &handout.lane,
                    at,
                    known: &known,
                };
                if !may_open(ground, owner, (handout.user, asker), &spot) {
                    return Err(wrong("though nothing entitles it"));
                }
                if !may_give(ground, owner, me, handout.user, &spot) {
                    return Err(wrong("though nothing lets the giver"));
                }
            }
            // Two wants may come to one cover where the log gives less than was asked for.
            let is_in = |of: &&Want| {
                of.lane == handout.lane
                    && of.names(&spec.session)
                    && of.interval.covers(&spec.interval)
            };
            let most = wants.iter().filter(is_in).count();
            let place = (asker, *request, handout.lane, *spec);
            if let Some(answering) = &mut self.run.answering {
                let count = answering.given.entry(place).or_default();
                *count += 1;
                if *count > most {
                    return Err(wrong("too often"));
                }
            }
        }
        Ok(())
    }

    fn begin_to_follow(&mut self, device: DeviceId) -> Result<(), Stop> {
        let end = self.around.end(self.device.at, &device.inbox_topic())?;
        if let Some(answering) = &mut self.run.answering {
            let from = end.saturating_sub(INBOX_ITEMS);
            answering.followed.insert(device, from);
            let from = BTreeMap::from([(device, from)]);
            self.read_followed(from)?;
        }
        Ok(())
    }

    /// Reads the device list of a user.
    fn read_list(&mut self, user: UserId) -> Result<(), Stop> {
        let (of, who) = (ControlTopic::Devices(user), self.device.at);
        let name = of.name(self.around.stream);
        for item in self.around.read(who, &name, 0, usize::MAX)? {
            self.run.view.handle(&of, &item.bytes);
        }
        self.run.view.settle();
        self.answer(ResponderInput::Learned);
        Ok(())
    }
}

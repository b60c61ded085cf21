//! Asking for keys: what drives the engine's asker.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealcast_crypto::UnwrapKey;
use sealcast_engine::{
    Alarm, AskBody, Asker, AskerEvent, AskerInput, AskerLimits, AskerOutput, CombinerInput,
    CombinerOutput, End, Event, Missing, OneUse,
};
use sealcast_protocol::{Header, Interval, Position, Receipt, RequestId, SessionId, UserId, Want};

use super::Acting;
use super::combiner::Combining;
use crate::around::Stop;
use crate::plant::Plant;
use crate::violation::Violation;

/// How long to wait before what failed is tried again, and until the inbox is looked at again.
const PAUSE_MS: u64 = 1_000;

/// What asks for the keys of a device.
#[derive(Debug)]
pub(crate) struct Asking {
    machine: Asker,
    /// What asks key nodes first, where there are any.
    pub(super) nodes: Combining,
    pub(super) todo: VecDeque<Todo>,
    follows_inbox: bool,
    /// Where to read on in the inbox, while a request is open.
    inbox_at: Option<u64>,
    paused_until: Option<u64>,
    ticked_at: u64,
    read_at: u64,
    /// What each request asks for.
    requests: BTreeMap<RequestId, Vec<Want>>,
}

#[derive(Debug)]
pub(super) enum Todo {
    Do(AskerOutput),
    Nodes(CombinerOutput),
    /// Make durable what was given.
    Keep,
}

/// What happens to the machine.
enum Input {
    Missing(Missing),
    Want(Want),
    Unwant(Want),
    Opened(SessionId, Position),
    Drawn(OneUse),
    InboxItem(Arc<[u8]>),
    Tick,
}

impl Asking {
    pub(super) fn new() -> Self {
        Self {
            machine: Asker::new(AskerLimits::default()),
            nodes: Combining::new(),
            todo: VecDeque::new(),
            follows_inbox: false,
            inbox_at: None,
            paused_until: None,
            ticked_at: 0,
            read_at: 0,
            requests: BTreeMap::new(),
        }
    }

    /// When it has something to do, by the clock of the run.
    pub(super) fn next_at(&self, skew_ms: i64) -> Option<u64> {
        if self.paused_until.is_some() {
            return self.paused_until;
        }
        let timeouts = [
            self.machine.next_timeout(),
            self.nodes.machine.next_timeout(),
        ];
        let timeout = timeouts.into_iter().flatten().min();
        let timeout = timeout.map(|at| at.0.saturating_add_signed(-skew_ms));
        let look = self.follows_inbox.then(|| self.read_at + PAUSE_MS);
        let next = timeout.into_iter().chain(look).min();
        next.map(|at| at.max(self.ticked_at + 1))
    }

    /// Whether anything that was asked for has not come.
    pub(crate) fn open_requests(&self) -> usize {
        self.machine.open_requests() + self.nodes.machine.open_requests()
    }
}

/// Telling it.
impl Acting<'_> {
    /// Tells what became of an envelope.
    pub(super) fn note_event(&mut self, event: &Event) {
        match event {
            Event::Opened { header, .. } => {
                self.ask(Input::Opened(header.session, header.position));
            }
            Event::Sealed {
                header,
                user,
                is_granted: true,
                ..
            } => self.miss(header, *user),
            Event::Rejected {
                header: Some(header),
                user: Some(user),
                givers,
                ..
            } if !givers.is_empty() => self.miss(header, *user),
            Event::BadCover { giver, session } => {
                self.run.view.doubt(session, giver);
                self.tell(Alarm::BadKeys(giver.0, giver.1));
            }
            Event::Sealed { .. } | Event::Rejected { .. } | Event::Noticed { .. } => (),
        }
    }

    fn miss(&mut self, header: &Header, lane: UserId) {
        let interval = Interval {
            from: header.position,
            until: header.position.after(1),
        };
        self.ask(Input::Missing(Missing {
            lane,
            session: header.session,
            interval,
            is_granted: true,
            is_announced: true,
        }));
    }

    /// Tells of what waits for keys that the log gives.
    pub(super) fn lack(&mut self, missing: Vec<Missing>) {
        for of in missing.into_iter().filter(|of| of.is_granted) {
            self.ask(Input::Missing(of));
        }
    }

    /// Asks for something at once.
    pub(super) fn want(&mut self, want: Want) {
        self.ask(Input::Want(want));
    }

    /// Waits for something no more.
    pub(super) fn unwant(&mut self, want: Want) {
        self.ask(Input::Unwant(want));
    }

    /// Hands something in, and notes what is to be done about it.
    fn ask(&mut self, input: Input) {
        match input {
            Input::Missing(of) => {
                let (lane, session, interval) = (of.lane, of.session, of.interval);
                let want = Want {
                    lane,
                    session,
                    interval,
                };
                if !self.ask_nodes(want, false) {
                    self.ask_others(AskerInput::Missing {
                        lane,
                        session,
                        interval,
                    });
                }
            }
            Input::Want(want) => {
                if !self.ask_nodes(want, true) {
                    self.ask_others(AskerInput::Want(want));
                }
            }
            Input::Unwant(want) => {
                self.unwant_of_nodes(&want);
                self.ask_others(AskerInput::Unwant(want));
            }
            Input::Opened(session, position) => {
                self.ask_others(AskerInput::Opened { session, position });
            }
            Input::Drawn(drawn) => self.ask_others(AskerInput::Drawn(drawn)),
            Input::InboxItem(bytes) => self.ask_others(AskerInput::InboxItem(&bytes)),
            Input::Tick => {
                self.hand_to_nodes(CombinerInput::Tick);
                self.ask_others(AskerInput::Tick);
            }
        }
    }

    /// Hands something in to what asks other devices.
    pub(super) fn ask_others(&mut self, input: AskerInput<'_>) {
        let (now, run) = (self.now(), &mut *self.run);
        let machine = &mut run.asking.machine;
        machine.handle(now, &run.view, input);
        while let Some(output) = machine.poll_output() {
            run.asking.todo.push_back(Todo::Do(output));
        }
    }
}

/// Doing what it says.
impl Acting<'_> {
    /// Time has passed, or something may lie in the inbox.
    pub(crate) fn tick_asking(&mut self) -> Result<(), Stop> {
        let now = self.around.now;
        self.run.asking.ticked_at = now;
        self.ask(Input::Tick);
        self.run.asking.read_at = now;
        self.go_on_asking()
    }

    /// Does what is to be done. What fails is done later; nothing else waits for it.
    pub(crate) fn go_on_asking(&mut self) -> Result<(), Stop> {
        let now = self.around.now;
        if self.run.asking.paused_until.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.run.asking.paused_until = None;
        match self.do_all() {
            Ok(()) => Ok(()),
            Err(Stop::Unreachable | Stop::Refused(_)) => {
                // What follows an inbox and has failed is made anew.
                self.run.asking.follows_inbox = false;
                self.run.asking.paused_until = Some(now + PAUSE_MS);
                // Whatever the bus does, a request ends in time.
                self.ask(Input::Tick);
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    fn do_all(&mut self) -> Result<(), Stop> {
        loop {
            while let Some(todo) = self.run.asking.todo.pop_front() {
                self.perform(todo)?;
            }
            match self.run.asking.open_requests() {
                0 => self.leave_inbox(),
                _ => {
                    self.follow_inbox()?;
                    self.read_inbox()?;
                }
            }
            if self.run.asking.todo.is_empty() {
                return Ok(());
            }
        }
    }

    fn perform(&mut self, todo: Todo) -> Result<(), Stop> {
        match todo {
            Todo::Keep => {
                let is_early = self.around.plant == Some(Plant::ReceiptFirst);
                if !is_early && let Err(stop) = self.keep() {
                    self.run.asking.todo.push_front(Todo::Keep);
                    return Err(stop);
                }
                self.open_parked()?;
                self.try_requested()
            }
            Todo::Do(AskerOutput::Draw) => {
                // What came by itself meanwhile is not asked for.
                let ready = self.sync().and_then(|()| self.follow_inbox());
                if let Err(stop) = ready {
                    let draw = Todo::Do(AskerOutput::Draw);
                    self.run.asking.todo.push_front(draw);
                    return Err(stop);
                }
                let drawn = self.draw();
                self.ask(Input::Drawn(drawn));
                Ok(())
            }
            Todo::Nodes(output) => self.perform_for_nodes(output),
            // What the bus does not take is lost, as all may be that is sent there.
            Todo::Do(AskerOutput::Send(body)) => self.send_ask(body),
            Todo::Do(AskerOutput::Take(answer)) => {
                self.run.asking.todo.push_front(Todo::Keep);
                self.run.view.take_answer(answer);
                Ok(())
            }
            Todo::Do(AskerOutput::Tell(event)) => {
                self.note_told(&event);
                Ok(())
            }
        }
    }

    fn note_told(&mut self, event: &AskerEvent) {
        let kind = match event {
            AskerEvent::Asked { request, wants } => {
                self.note(format_args!(
                    "asks for {wants} things in {}",
                    brief(request)
                ));
                "request"
            }
            AskerEvent::BadAnswer { giver, .. } => {
                self.tell(Alarm::BadKeys(giver.0, giver.1));
                "bad answer"
            }
            AskerEvent::Ended { request, end } => {
                self.note(format_args!("is done with {}: {end:?}", brief(request)));
                self.run.asking.requests.remove(request);
                match end {
                    End::Opened => "all opened",
                    End::Partly => "some opened",
                    End::TimedOut => "timed out",
                    End::Refused(_) => "refused",
                }
            }
            AskerEvent::Settled { .. } | _ => return,
        };
        self.around.count_asking(kind);
    }

    pub(super) fn draw(&mut self) -> OneUse {
        let rng = &mut self.around.rng;
        let mut request = [0; 16];
        rand_core::Rng::fill_bytes(rng, &mut request);
        OneUse {
            request: RequestId(request),
            key: UnwrapKey::generate(rng),
        }
    }

    /// Signs what goes to the `ask` topic, and sends it to whoever listens, and to an inbox if it
    /// goes there, too.
    pub(super) fn send_ask(&mut self, body: AskBody) -> Result<(), Stop> {
        match &body {
            AskBody::Solicitation(of) => {
                self.around.ground.asked(of);
                let wants = of.wants.clone();
                self.run.asking.requests.insert(of.request, wants);
            }
            AskBody::Receipt(receipt) => self.invariant_receipts_are_durable(receipt)?,
            AskBody::Claim(_) => self.around.count_asking("claim"),
            AskBody::Refusal(_) => self.around.count_asking("refusal"),
        }
        let inbox = body.inbox();
        let wire = body.sign(self.device.identity.signing());
        let wire = wire.map_err(|_| Violation::Odd("an object about keys"))?;
        self.around.send(self.device.at, &wire)?;
        match inbox {
            Some(of) => self
                .around
                .append(self.device.at, &of.inbox_topic(), &[wire]),
            None => Ok(()),
        }
    }

    /// Whoever says that keys work has them for good.
    fn invariant_receipts_are_durable(&self, receipt: &Receipt) -> Result<(), Stop> {
        let wants = self.run.asking.requests.get(&receipt.request);
        for at in &receipt.wants {
            let want = wants.and_then(|of| of.get(usize::from(*at)));
            let want = want.filter(|of| of.session != Want::EVERY_SESSION);
            if let Some(want) = want
                && !self.device.home.has_key(&want.session)?
            {
                return Err(Violation::ReceiptTooSoon {
                    device: self.device.at,
                    session: want.session,
                }
                .into());
            }
        }
        Ok(())
    }

    pub(super) fn follow_inbox(&mut self) -> Result<(), Stop> {
        if self.run.asking.follows_inbox {
            return Ok(());
        }
        if self.run.asking.inbox_at.is_none() {
            // Whatever lies there was given to requests that are over.
            let inbox = self.device.identity.device().inbox_topic();
            let end = self.around.end(self.device.at, &inbox)?;
            self.run.asking.inbox_at = Some(end);
        }
        self.run.asking.follows_inbox = true;
        self.run.asking.read_at = self.around.now;
        Ok(())
    }

    fn leave_inbox(&mut self) {
        if std::mem::take(&mut self.run.asking.follows_inbox) {
            self.run.asking.inbox_at = None;
        }
    }

    fn read_inbox(&mut self) -> Result<(), Stop> {
        let (inbox, who) = (self.device.identity.device().inbox_topic(), self.device.at);
        let at = self.run.asking.inbox_at.unwrap_or_default();
        for item in self.around.read(who, &inbox, at, usize::MAX)? {
            self.run.asking.inbox_at = Some(item.offset + 1);
            self.hear_nodes(&item.bytes)?;
            self.ask(Input::InboxItem(item.bytes));
        }
        Ok(())
    }
}

pub(super) fn brief(request: &RequestId) -> String {
    let text = request.0.iter().take(3).map(|byte| format!("{byte:02x}"));
    text.collect()
}

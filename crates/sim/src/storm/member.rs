//! One device in a storm: the steps of the client, which asks, answers, or does both.

use std::rc::Rc;

use sealcast_crypto::UnwrapKey;
use sealcast_engine::{
    AskBody, Asker, AskerInput, AskerLimits, AskerOutput, Decision, Event, Mode, OneUse, Question,
    Reader, Responder, ResponderInput, ResponderLimits, ResponderOutput, wrap_handout,
};
use sealcast_protocol::{DeviceId, Position, RequestId};

use super::bus::{Bus, Happening, Side};
use super::past::{Known, Past, keep, year};
use super::traffic::Kind;
use crate::violation::Violation;

/// Everything but the members.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) past: Past,
    pub(super) bus: Bus,
}

#[derive(Debug)]
pub(super) struct Member {
    at: usize,
    side: Side,
    known: Known,
    asker: Asker,
    responder: Option<Responder>,
    /// When it will be woken.
    wakes_at: Option<Position>,
    began: Position,
    opened_at: Option<Position>,
}

impl Member {
    pub(super) fn new(at: usize, side: Side, known: Known) -> Self {
        let answers = side == Side::Answers;
        Self {
            at,
            side,
            known,
            asker: Asker::new(AskerLimits::default()),
            responder: answers.then(|| Responder::new(ResponderLimits::default())),
            wakes_at: None,
            began: Position::START,
            opened_at: None,
        }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.known.identity.device()
    }

    /// How long it took from the look for messages until all of the year was open.
    pub(super) fn waited_ms(&self) -> Option<u64> {
        self.opened_at.map(|at| at.0 - self.began.0)
    }

    /// Signatures of requests that it checked.
    pub(super) fn checked(&self) -> u64 {
        self.responder
            .as_ref()
            .map_or(0, Responder::checked_requests)
    }

    /// Requests that it has neither checked nor done with.
    pub(super) fn queue(&self) -> (usize, usize) {
        let responder = self.responder.as_ref();
        responder.map_or((0, 0), |of| (of.unchecked_requests(), of.open_requests()))
    }

    /// Lets something happen to it.
    pub(super) fn meet(&mut self, around: &mut Around, what: Happening) -> Result<(), Violation> {
        match what {
            Happening::Begin => {
                self.began = around.bus.now;
                self.read(around)?;
            }
            Happening::Tick if self.wakes_at == Some(around.bus.now) => {
                self.wakes_at = None;
                self.ask(around, AskerInput::Tick)?;
                self.respond(around, ResponderInput::Tick)?;
            }
            Happening::Tick => return Ok(()),
            Happening::Ask(bytes) => {
                around.bus.note_heard(self.side, &bytes);
                self.respond(around, ResponderInput::Item(&bytes))?;
            }
            Happening::Inbox(of, bytes) => self.hear_inbox(around, of, &bytes)?,
        }
        self.plan_tick(&mut around.bus);
        Ok(())
    }

    fn plan_tick(&mut self, bus: &mut Bus) {
        let responder = self.responder.as_ref();
        let timeouts = [
            self.asker.next_timeout(),
            responder.and_then(Responder::next_timeout),
        ];
        let next = timeouts.into_iter().flatten().min();
        let next = next.map(|at| at.max(bus.now.after(1)));
        if let Some(at) = next.filter(|_| next != self.wakes_at) {
            self.wakes_at = next;
            bus.plan(at, self.at, Happening::Tick);
        }
    }

    fn hear_inbox(
        &mut self,
        around: &mut Around,
        of: DeviceId,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        if of == self.device() && self.asker.open_requests() > 0 {
            around.bus.note_heard(self.side, bytes);
            self.ask(around, AskerInput::InboxItem(bytes))?;
        }
        if around.bus.is_followed(of, self.at) {
            around.bus.note_heard(self.side, bytes);
            self.respond(around, ResponderInput::InboxItem(bytes))?;
        }
        Ok(())
    }

    /// Reads the year; what does not open is asked for.
    fn read(&mut self, around: &mut Around) -> Result<(), Violation> {
        let mut reader = Reader::new(Mode::History(year()));
        for item in &around.past.data {
            reader.handle(&self.known.view, item);
        }
        reader.give_up(&self.known.view, true);
        let mut opened = 0;
        while let Some(event) = reader.poll_event() {
            match event {
                Event::Opened { header, .. } => {
                    opened += 1;
                    let (session, position) = (header.session, header.position);
                    self.ask(around, AskerInput::Opened { session, position })?;
                }
                Event::Sealed { header, user, .. } => {
                    let position = header.position;
                    let missing = AskerInput::Missing {
                        lane: user,
                        session: header.session,
                        interval: sealcast_protocol::Interval {
                            from: position,
                            until: position.after(1),
                        },
                    };
                    self.ask(around, missing)?;
                }
                Event::Rejected { .. } | Event::Noticed { .. } | Event::BadCover { .. } => {
                    return Err(self.fail("it does not take what was published"));
                }
            }
        }
        if opened == around.past.data.len() {
            self.opened_at.get_or_insert(around.bus.now);
        }
        Ok(())
    }

    fn fail(&self, why: &str) -> Violation {
        Violation::Failed {
            device: self.at,
            why: why.into(),
        }
    }

    fn send(&self, around: &mut Around, body: AskBody) -> Result<(), Violation> {
        let (kind, inbox) = (Kind::of(&body), body.inbox());
        let signed = body.sign(self.known.identity.signing());
        let bytes: Rc<[u8]> = signed
            .map_err(|_| self.fail("it signs what is odd"))?
            .into();
        around.bus.send(self.side, kind, &bytes);
        if let Some(device) = inbox {
            around.bus.append(self.side, kind, device, bytes);
        }
        Ok(())
    }
}

/// Asking.
impl Member {
    fn ask(&mut self, around: &mut Around, input: AskerInput<'_>) -> Result<(), Violation> {
        self.asker.handle(around.bus.now, &self.known.view, input);
        while let Some(output) = self.asker.poll_output() {
            match output {
                AskerOutput::Draw => {
                    around.past.read(&mut self.known)?;
                    let mut request = [0; 16];
                    rand_core::Rng::fill_bytes(&mut around.past.rng, &mut request);
                    let drawn = AskerInput::Drawn(OneUse {
                        request: RequestId(request),
                        key: UnwrapKey::generate(&mut around.past.rng),
                    });
                    self.asker.handle(around.bus.now, &self.known.view, drawn);
                }
                AskerOutput::Send(body) => self.send(around, body)?,
                AskerOutput::Take(answer) => {
                    self.known.view.take_answer(answer);
                    keep(&mut self.known.view)?;
                    self.read(around)?;
                }
                AskerOutput::Tell(_) => (),
            }
        }
        Ok(())
    }
}

/// Answering.
impl Member {
    fn respond(&mut self, around: &mut Around, input: ResponderInput<'_>) -> Result<(), Violation> {
        let Some(responder) = &mut self.responder else {
            return Ok(());
        };
        responder.handle(around.bus.now, &self.known.view, input);
        while let Some(output) = self.responder.as_mut().and_then(Responder::poll_output) {
            match output {
                ResponderOutput::Send(body) => self.send(around, body)?,
                ResponderOutput::Decide(question) => self.decide(around, &question)?,
                ResponderOutput::Give(handout) => {
                    let of = &self.known;
                    let rng = &mut around.past.rng;
                    let bundle = wrap_handout(&of.view, &of.identity, rng, &handout);
                    let bundle = bundle.map_err(|_| self.fail("it wraps what is odd"))?;
                    if let Some(bundle) = bundle {
                        let (device, bytes) = (handout.device, bundle.wire().into());
                        around.bus.append(self.side, Kind::Bundle, device, bytes);
                    }
                }
                ResponderOutput::Follow(device) => {
                    for item in around.bus.follow(device, self.at) {
                        around.bus.note_heard(self.side, &item);
                        self.respond(around, ResponderInput::InboxItem(&item))?;
                    }
                }
                ResponderOutput::Unfollow(device) => around.bus.unfollow(device, self.at),
                ResponderOutput::ReadList(_) => {
                    return Err(self.fail("it lacks a device list"));
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, around: &mut Around, question: &Question) -> Result<(), Violation> {
        around.past.read(&mut self.known)?;
        self.respond(around, ResponderInput::Learned)?;
        let decided = ResponderInput::Decided {
            asker: question.asker,
            request: question.request,
            decision: Decision::Give,
        };
        self.respond(around, decided)
    }
}

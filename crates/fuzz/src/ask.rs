//! A device that asks, one that answers, and a bus between them that carries anything.
//!
//! Nothing is given to whom the access log does not entitle, and what is remembered is bounded.

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use sealcast_crypto::UnwrapKey;
use sealcast_engine::{
    AskBody, Asker, AskerInput, AskerLimits, AskerOutput, Decision, Handout, Identity, OneUse,
    Question, Responder, ResponderInput, ResponderLimits, ResponderOutput, StreamView,
    wrap_handout,
};
use sealcast_protocol::{
    AskItem, Claim, DeviceId, EnvelopeView, Header, Interval, Position, Receipt, Refusal,
    RefusalReason, RequestId, SessionId, Sharing, Signable, Solicitation, Want, sign,
};

use crate::seeded::Seeded;
use crate::stage::{
    CO_READER, HOUR_MS, NOON, OWNER, PUBLISHER, READER, STRANGER, Stage, readers_hour,
};

const STEPS_MAX: usize = 48;
/// Outputs of one step, at most.
const OUTPUTS_MAX: usize = 1_024;

pub(crate) fn asking(bytes: &[u8]) {
    static STAGE: OnceLock<Option<Stage>> = OnceLock::new();
    let stage = STAGE.get_or_init(|| Stage::set(Sharing::OnRequest));
    let Some(mut play) = stage.as_ref().and_then(Play::begin) else {
        return assert!(stage.is_none() && bytes.is_empty(), "there is a stage");
    };
    let mut choices = Unstructured::new(bytes);
    for _ in 0..STEPS_MAX {
        if choices.is_empty() || play.step(&mut choices).is_err() {
            break;
        }
        play.look();
    }
}

struct Play<'a> {
    stage: &'a Stage,
    rng: Seeded,
    now: Position,
    /// What the reader knows, and what the owner does.
    views: [StreamView; 2],
    asker: Asker,
    responder: Responder,
    is_drawing: bool,
    asked: Vec<Vec<u8>>,
    given: Vec<Vec<u8>>,
    questions: Vec<Question>,
    header: Header,
}

/// Who looks at an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Asker,
    Responder,
}

impl<'a> Play<'a> {
    fn begin(stage: &'a Stage) -> Option<Self> {
        let first = stage.data.first()?;
        Some(Self {
            stage,
            rng: Seeded::new(9),
            now: NOON.after(3 * HOUR_MS),
            views: [stage.view(READER)?, stage.view(OWNER)?],
            asker: Asker::new(AskerLimits::default()),
            responder: Responder::new(ResponderLimits::default()),
            is_drawing: false,
            asked: Vec::new(),
            given: Vec::new(),
            questions: Vec::new(),
            header: *EnvelopeView::parse(first).ok()?.header(),
        })
    }

    fn ask(&mut self, input: AskerInput<'_>) {
        let [view, _] = &self.views;
        self.asker.handle(self.now, view, input);
    }

    fn respond(&mut self, input: ResponderInput<'_>) {
        let [_, view] = &self.views;
        self.responder.handle(self.now, view, input);
    }

    fn step(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        match choices.int_in_range(0..=15)? {
            0 => self.ask(AskerInput::Missing {
                lane: self.stage.user(PUBLISHER),
                session: self.header.session,
                interval: Interval {
                    from: self.header.position,
                    until: self.header.position.after(1),
                },
            }),
            1 => {
                let want = self.want(choices)?;
                self.ask(AskerInput::Want(want));
            }
            2 => {
                let want = self.want(choices)?;
                self.ask(AskerInput::Unwant(want));
            }
            3 => self.draw(choices.ratio(7, 8)?),
            4 => self.ask(AskerInput::Opened {
                session: self.header.session,
                position: NOON.after(choices.int_in_range(0..=HOUR_MS)?),
            }),
            5 | 6 => self.pass_time(choices)?,
            7 | 8 => {
                let item = choices.choose(&self.asked)?.clone();
                self.hand_over(Side::Responder, &item);
            }
            9 => {
                let item = choices.choose(&self.given)?.clone();
                self.ask(AskerInput::InboxItem(&item));
            }
            10 => {
                let (side, item) = (side(choices)?, self.altered(choices)?);
                self.hand_over(side, &item);
            }
            11 | 12 => {
                let (side, item) = (side(choices)?, self.forged(choices)?);
                self.hand_over(side, &item);
                self.asked.push(item);
            }
            13 => self.decide(choices)?,
            14 => self.respond(ResponderInput::Learned),
            _ => {
                let item = choices.choose(&self.given)?.clone();
                self.respond(ResponderInput::InboxItem(&item));
            }
        }
        Ok(())
    }

    /// Every topic that a side listens to carries it.
    fn hand_over(&mut self, side: Side, item: &[u8]) {
        match side {
            Side::Asker => self.ask(AskerInput::InboxItem(item)),
            Side::Responder => {
                self.respond(ResponderInput::Item(item));
                self.respond(ResponderInput::InboxItem(item));
            }
        }
    }

    fn session(&self, choices: &mut Unstructured<'_>) -> Result<SessionId> {
        let some = [self.header.session, Want::EVERY_SESSION, SessionId([9; 16])];
        choices.choose(&some).copied()
    }

    fn want(&self, choices: &mut Unstructured<'_>) -> Result<Want> {
        let lanes = [PUBLISHER, OWNER, STRANGER];
        let from = NOON.after(choices.int_in_range(0..=HOUR_MS)?);
        let intervals = [
            readers_hour(),
            Interval::ALL,
            Interval {
                from,
                until: from.after(1),
            },
            Interval { from, until: from },
        ];
        Ok(Want {
            lane: self.stage.user(*choices.choose(&lanes)?),
            session: self.session(choices)?,
            interval: *choices.choose(&intervals)?,
        })
    }

    fn draw(&mut self, is_good: bool) {
        if self.is_drawing || !is_good {
            self.is_drawing = false;
            let key = UnwrapKey::generate(&mut self.rng);
            let number = self.asked.len() as u8;
            let request = match is_good {
                true => RequestId([number.saturating_add(1); 16]),
                false => RequestId::NONE,
            };
            self.ask(AskerInput::Drawn(OneUse { request, key }));
        }
    }

    /// A little, to when something is due, or much.
    fn pass_time(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let timeouts = [self.asker.next_timeout(), self.responder.next_timeout()];
        let next = timeouts.into_iter().flatten().min();
        self.now = match choices.int_in_range(0..=3)? {
            0 => self.now.after(choices.int_in_range(0..=1_000)?),
            1 => self.now.after(choices.int_in_range(0..=600_000)?),
            _ => self.now.max(next.unwrap_or(self.now)),
        };
        self.ask(AskerInput::Tick);
        self.respond(ResponderInput::Tick);
        Ok(())
    }

    fn decide(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let decisions = [
            Decision::Give,
            Decision::Refuse(RefusalReason::NotEntitled),
            Decision::Refuse(RefusalReason::PendingApproval),
        ];
        let decision = *choices.choose(&decisions)?;
        let (asker, request) = match self.questions.pop() {
            Some(question) => (question.asker, question.request),
            None => (DeviceId([7; 16]), RequestId([7; 16])),
        };
        self.respond(ResponderInput::Decided {
            asker,
            request,
            decision,
        });
        Ok(())
    }

    /// An item that there is, of which a byte is altered, or something made up.
    fn altered(&self, choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let all: Vec<_> = self.asked.iter().chain(&self.given).collect();
        let Ok(item) = choices.choose(&all) else {
            let len = choices.len().min(64);
            return Ok(choices.bytes(len)?.to_vec());
        };
        let mut item = (*item).clone();
        let at = choices.choose_index(item.len().max(1))?;
        let by: u8 = choices.arbitrary()?;
        item.iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= by);
        Ok(item)
    }

    /// Something that somebody signed, about a request that there is or is not.
    fn forged(&self, choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let by = *choices.choose(&[READER, CO_READER, STRANGER])?;
        let Some(by) = self.stage.people.get(by) else {
            return Ok(Vec::new());
        };
        let (asker, request) = self.request(choices)?;
        let (version, stream) = (1, self.stage.stream);
        let (user, device) = (by.user(), by.device());
        let lists: [&[u8]; 4] = [&[0], &[1], &[0, 1], &[0, 127]];
        let wants = choices.choose(&lists)?.to_vec();
        Ok(match choices.int_in_range(0..=3)? {
            0 => self.solicitation(choices, by, request)?,
            1 => wire(
                by,
                Claim {
                    version,
                    stream,
                    asker,
                    request,
                    user,
                    device,
                    wants,
                },
            ),
            2 => {
                let reasons = [RefusalReason::NotEntitled, RefusalReason::UnknownSession];
                let reason = *choices.choose(&reasons)?;
                wire(
                    by,
                    Refusal {
                        version,
                        stream,
                        asker,
                        request,
                        user,
                        device,
                        wants,
                        reason,
                    },
                )
            }
            _ => wire(
                by,
                Receipt {
                    version,
                    stream,
                    user,
                    device,
                    request,
                    wants,
                },
            ),
        })
    }

    /// Who asked, and its request.
    fn request(&self, choices: &mut Unstructured<'_>) -> Result<(DeviceId, RequestId)> {
        let known = self
            .asked
            .iter()
            .filter_map(|item| match AskItem::decode(item) {
                Ok(AskItem::Solicitation(of)) => Some((of.claims().device, of.claims().request)),
                Ok(AskItem::Claim(_) | AskItem::Refusal(_) | AskItem::Receipt(_)) | Err(_) => None,
            });
        let made_up = (
            DeviceId([7; 16]),
            RequestId([choices.int_in_range(1..=3)?; 16]),
        );
        let known: Vec<_> = known.chain([made_up]).collect();
        choices.choose(&known).copied()
    }

    fn solicitation(
        &self,
        choices: &mut Unstructured<'_>,
        by: &Identity,
        request: RequestId,
    ) -> Result<Vec<u8>> {
        let [_, view] = &self.views;
        let Some(list) = view.list(&by.user()).and_then(|list| list.pin()) else {
            return Ok(Vec::new());
        };
        let mut wants = vec![self.want(choices)?, self.want(choices)?];
        wants.sort_unstable();
        wants.dedup();
        let time = self.now.after(choices.int_in_range(0..=400_000)?);
        let body = Solicitation {
            version: 1,
            stream: self.stage.stream,
            user: by.user(),
            device: by.device(),
            list,
            request,
            key: by.unwrap_key().wrap_key().as_bytes().to_vec(),
            wants,
            heads: Vec::new(),
            time,
            expires: time.after(choices.int_in_range(1..=300_000)?),
        };
        Ok(wire(by, body))
    }

    /// Does what came out, and looks at it.
    fn look(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            let (asked, answered) = (self.asker.poll_output(), self.responder.poll_output());
            if asked.is_none() && answered.is_none() {
                return self.are_bounded();
            }
            asked.into_iter().for_each(|output| self.do_asked(output));
            answered
                .into_iter()
                .for_each(|output| self.do_answered(output));
        }
        assert!(self.asked.is_empty(), "there is no end of it");
    }

    fn are_bounded(&self) {
        let (asker, responder) = (AskerLimits::default(), ResponderLimits::default());
        assert!(self.asker.open_requests() <= asker.requests_max);
        assert!(self.asker.wants() <= STEPS_MAX);
        assert!(self.responder.open_requests() <= responder.open_max);
        assert!(self.responder.unchecked_requests() <= 2 * STEPS_MAX);
    }

    fn do_asked(&mut self, output: AskerOutput) {
        match output {
            AskerOutput::Draw => self.is_drawing = true,
            AskerOutput::Send(body) => self.send(READER, body),
            AskerOutput::Take(answer) => {
                let [view, _] = &mut self.views;
                view.take_answer(answer);
                view.settle();
            }
            AskerOutput::Tell(_) => (),
        }
    }

    fn do_answered(&mut self, output: ResponderOutput) {
        match output {
            ResponderOutput::Send(body) => self.send(OWNER, body),
            ResponderOutput::Decide(question) => {
                // By the access log, where it says yes; otherwise some day.
                let is_entitled = |of: &(Want, Decision)| of.1 == Decision::Give;
                match question.wants.iter().any(is_entitled) {
                    true => self.respond(ResponderInput::Decided {
                        asker: question.asker,
                        request: question.request,
                        decision: Decision::Give,
                    }),
                    false => self.questions.push(question),
                }
            }
            ResponderOutput::Give(handout) => self.give(&handout),
            ResponderOutput::Follow(_)
            | ResponderOutput::Unfollow(_)
            | ResponderOutput::ReadList(_) => (),
        }
    }

    fn send(&mut self, by: usize, body: AskBody) {
        let Some(by) = self.stage.people.get(by) else {
            return;
        };
        let signed = body.sign(by.signing());
        assert!(signed.is_ok(), "what is sent can be taken");
        self.asked.extend(signed);
    }

    /// Only what the log entitles to is given, however it was asked for.
    fn give(&mut self, handout: &Handout) {
        let [_, view] = &self.views;
        let readable = view
            .state()
            .readable(&handout.user, &handout.device, &handout.lane);
        for spec in &handout.covers {
            let is_entitled = readable.iter().any(|of| of.covers(&spec.interval));
            assert!(is_entitled, "{handout:?} is not for everybody");
        }
        if let Some(owner) = self.stage.people.get(OWNER) {
            let bundle = wrap_handout(view, owner, &mut self.rng, handout);
            let bundle = bundle.ok().flatten();
            self.given
                .extend(bundle.map(|bundle| bundle.wire().to_vec()));
        }
    }
}

fn side(choices: &mut Unstructured<'_>) -> Result<Side> {
    Ok(match choices.arbitrary()? {
        true => Side::Asker,
        false => Side::Responder,
    })
}

fn wire<T: Signable>(by: &Identity, body: T) -> Vec<u8> {
    let signed = sign(by.signing(), body);
    signed.map(|of| of.wire().to_vec()).unwrap_or_default()
}

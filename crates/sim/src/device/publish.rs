//! Sealing: the steps between a record and the bus.

use sealcast_engine::{ControlTopic, NotSealed, Sealed, SharedWith};
use sealcast_protocol::{Frame, SessionId, SessionKind};

use super::{Acting, new_run};
use crate::around::Stop;
use crate::plant::Plant;
use crate::violation::Violation;

/// How often a batch is tried again after what it lacked was done.
const TRIES_MAX: usize = 8;
/// Handouts that are written before a new session's first message.
const HANDOUTS_AHEAD: usize = 64;

/// What goes into one envelope.
#[derive(Debug)]
pub(crate) enum Draft {
    Single(Vec<u8>),
    Frame(Vec<Vec<u8>>),
}

impl Draft {
    fn payloads(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Single(payload) => vec![payload.clone()],
            Self::Frame(payloads) => payloads.clone(),
        }
    }
}

enum Lack {
    /// The access log was read too long ago.
    Stale,
    Of(NotSealed),
}

impl Acting<'_> {
    /// Seals a batch and puts it on the bus. Returns how many envelopes that were.
    pub(crate) fn publish(&mut self, batch: &[Draft]) -> Result<usize, Stop> {
        let sent = self.publish_whole(batch)?;
        match self.share_owed() {
            // The batch is out. Keys that could not be handed out now stay owed.
            Ok(()) | Err(Stop::Unreachable | Stop::Refused(_)) => Ok(sent),
            Err(stop) => Err(stop),
        }
    }

    fn publish_whole(&mut self, batch: &[Draft]) -> Result<usize, Stop> {
        self.send()?;
        let mut looked_again = false;
        for _ in 0..TRIES_MAX {
            self.freshen()?;
            match self.try_seal(batch)? {
                Ok(sealed) => {
                    let envelopes = sealed.envelopes.into_iter().map(|of| of.bytes);
                    self.run.unsent.extend(envelopes);
                    let count = self.run.unsent.len();
                    self.send()?;
                    return Ok(count);
                }
                Err(Lack::Stale) => self.sync()?,
                // The right may have been given just now.
                Err(Lack::Of(NotSealed::NotEntitled)) if !looked_again => {
                    looked_again = true;
                    self.sync()?;
                }
                Err(Lack::Of(lack)) => self.supply(lack)?,
            }
        }
        Err(Stop::Refused("a batch could not be sealed"))
    }

    fn try_seal(&mut self, batch: &[Draft]) -> Result<Result<Sealed, Lack>, Stop> {
        if !self.may_seal() {
            return Ok(Err(Lack::Stale));
        }
        let now = self.now();
        let frames: Vec<_> = batch.iter().map(|of| framed(of, now.0)).collect();
        let drafts = batch.iter().zip(&frames).map(|(draft, frame)| match draft {
            Draft::Single(payload) => sealcast_protocol::Draft::Single(payload),
            Draft::Frame(_) => sealcast_protocol::Draft::Frame(frame),
        });
        let drafts: Vec<_> = drafts.collect();
        self.effect("keep its lane")?;
        let (publisher, view) = (&mut self.run.publisher, &self.run.view);
        let sealed = self
            .device
            .home
            .change_lane(|lane, _| Ok(publisher.seal(now, lane, view, &drafts)))?;
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(lack) => return Ok(Err(Lack::Of(lack))),
        };
        self.run.publisher.advance(&sealed);
        let (known, user) = (self.known(), self.device.user());
        for (of, draft) in sealed.envelopes.iter().zip(batch) {
            let payloads = draft.payloads();
            let number = self.around.ground.sealed(user, of, &known, payloads)?;
            let header = self.around.ground.messages.get(number).map(|of| of.header);
            if let Some(header) = header.filter(|_| batch.len() < 8) {
                let (at, session) = (header.position.0, header.session);
                self.note(format_args!("seals m{number} at {at} under {session}"));
            }
        }
        Ok(Ok(sealed))
    }

    /// Puts sealed envelopes on the bus.
    pub(crate) fn send(&mut self) -> Result<(), Stop> {
        if self.run.unsent.is_empty() {
            return Ok(());
        }
        let data = self.around.data();
        self.around
            .append(self.device.at, &data, &self.run.unsent)?;
        self.run.unsent.clear();
        Ok(())
    }

    /// Does what a batch lacked.
    fn supply(&mut self, lack: NotSealed) -> Result<(), Stop> {
        match lack {
            NotSealed::NeedsSession => {
                self.sync()?;
                self.start_session()
            }
            NotSealed::UnknownSession(session) => match self.adopt_session(session)? {
                true => Ok(()),
                false => self.start_session(),
            },
            NotSealed::NotAnnounced(session) => self.announce(session),
            NotSealed::LogIncomplete(_) => {
                self.sync()?;
                let view = &self.run.view;
                match view.missing_entries() == 0 && view.state().has_begun() {
                    true => Ok(()),
                    false => Err(Stop::Refused("access-log entries are missing")),
                }
            }
            NotSealed::Exhausted => {
                self.run.publisher = new_run(&self.device.identity, self.around);
                Ok(())
            }
            NotSealed::Closed => Err(Stop::Refused("the stream is closed")),
            NotSealed::NotEntitled => Err(Stop::Refused("no grant lets it publish now")),
            NotSealed::ClockBehind(_) => Err(Stop::Refused("its clock is behind")),
            NotSealed::NeedsSegments(session, at) => self.cover_segments(session, at),
            NotSealed::OutOfRange => Err(Violation::Odd("a batch out of range").into()),
        }
    }

    /// Draws a session, keeps it, announces it, and hands out the first of its keys.
    fn start_session(&mut self) -> Result<(), Stop> {
        let session = self.draw_session()?;
        if self.around.plant == Some(Plant::EnvelopeFirst) {
            return self.danger_go_by(session);
        }
        self.announce(session)?;
        self.share(SharedWith::Everyone, HANDOUTS_AHEAD)?;
        self.run.owes_keys = true;
        Ok(())
    }

    fn draw_session(&mut self) -> Result<SessionId, Stop> {
        let (now, kind) = (self.now(), SessionKind::Live);
        let (run, home) = (&mut *self.run, &self.device.home);
        let seen = home.lane()?;
        let start = run.publisher.position(now, &seen, &run.view);
        let start = start.map_err(|_| Stop::Refused("it may not start a session now"))?;
        let rng = &mut self.around.rng;
        let new = run
            .publisher
            .start_session(rng, now, start, kind, &run.view);
        let new = new.map_err(|_| Violation::Odd("a session record of our own"))?;
        let device = self.device.identity.device();
        self.effect("keep a session")?;
        self.device.home.change_lane(|lane, txn| {
            lane.session = new.session;
            lane.is_announced = false;
            lane.seal_at(start);
            self.device.home.put_session(txn, &device, &new)
        })?;
        self.around.ground.drew(new.session, device);
        self.note(format_args!("draws session {}", new.session));
        Ok(new.session)
    }

    /// Puts a session's record on the bus, notes that it is there, and only then goes by it.
    fn announce(&mut self, session: SessionId) -> Result<(), Stop> {
        let device = self.device.identity.device();
        let kept = self.device.home.session(&session, &device)?;
        let kept = kept.ok_or(Violation::Odd("a session without a record"))?;
        let keys = self.around.keys();
        self.around
            .append(self.device.at, &keys, std::slice::from_ref(&kept.record))?;
        self.sync()?;
        self.effect("note that its session is announced")?;
        self.device.home.session_announced(session, &device)?;
        self.take_session(session)
    }

    /// Announces what this home drew and did not live to announce.
    pub(crate) fn announce_drawn(&mut self) -> Result<(), Stop> {
        for session in self.device.home.drawn_sessions()? {
            self.announce(session)?;
        }
        Ok(())
    }

    fn adopt_session(&mut self, session: SessionId) -> Result<bool, Stop> {
        let device = self.device.identity.device();
        match self.device.home.session(&session, &device)? {
            Some(kept) if kept.is_drawn => self.announce(session)?,
            Some(_) => self.take_session(session)?,
            None => return Ok(false),
        }
        Ok(self.run.view.record(&session, &device).is_some())
    }

    fn take_session(&mut self, session: SessionId) -> Result<(), Stop> {
        let device = self.device.identity.device();
        let Some(kept) = self.device.home.session(&session, &device)? else {
            return Ok(());
        };
        self.run.owes_keys = true;
        self.run.view.restore_root(session, &kept.root);
        self.run.view.handle(&ControlTopic::Keys, &kept.record);
        Ok(())
    }

    /// Goes by a session that nobody heard of.
    fn danger_go_by(&mut self, session: SessionId) -> Result<(), Stop> {
        let device = self.device.identity.device();
        self.device.home.session_announced(session, &device)?;
        self.take_session(session)
    }
}

fn framed(draft: &Draft, now: u64) -> Frame {
    let mut frame = Frame::with_capacity(1024);
    if let Draft::Frame(payloads) = draft {
        for payload in payloads {
            let _fits = frame
                .push(sealcast_protocol::Position(now), payload)
                .is_ok();
        }
    }
    frame
}

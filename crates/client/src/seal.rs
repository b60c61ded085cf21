//! Sealing and sessions: the steps between a record and the bus.
//!
//! A batch is sealed inside the store transaction that holds the lane; only when that is durable do
//! its envelopes leave. A session is stored, then announced, then sealed with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sealcast_engine::{
    Draft, Handout, Lane, NotSealed, Publisher, Sealed, SharedWith, plan_handouts, wrap_handout,
};
use sealcast_protocol::{Frame, Position, SealedEnvelope, SessionId, SessionKind, StreamTopics};
use zeroize::Zeroizing;

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::vault::put_session;

/// How often a batch is tried again after what it lacked was done.
const TRIES_MAX: usize = 8;
/// Handouts that are written before a new session's first message; the others follow it.
const HANDOUTS_AHEAD: usize = 64;

/// What is to be sealed.
#[derive(Debug)]
pub(crate) enum Batch {
    /// One message at once.
    Single(Zeroizing<Vec<u8>>),
    /// Frames, and records too long for one.
    Parts(Vec<Part>),
    /// Older data, in a backfill session.
    Past(SessionId, Vec<(Position, Vec<u8>)>),
}

#[derive(Debug)]
pub(crate) enum Part {
    Frame(Frame),
    Long(Zeroizing<Vec<u8>>),
}

/// Seals for one stream in one run of this process.
#[derive(Clone, Debug)]
pub(crate) struct Sealer {
    pub(crate) core: Arc<Core>,
    publisher: Arc<Mutex<Publisher>>,
    /// Whether keys that others wait for are still to be handed out in this run.
    owes_keys: Arc<AtomicBool>,
}

impl Sealer {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let publisher = Publisher::new(core.id(), core.identity(), &mut clock::rng());
        Self {
            core,
            publisher: Arc::new(Mutex::new(publisher)),
            owes_keys: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Seals a batch and stores it on the bus. Returns where its last envelope lies, and how many
    /// envelopes there were.
    pub(crate) async fn publish(&self, batch: Batch) -> Result<(Position, u64), Error> {
        let batch = Arc::new(batch);
        for _ in 0..TRIES_MAX {
            self.core.freshen().await?;
            let now = clock::now();
            match self.try_seal(now, batch.clone()).await? {
                Ok(sealed) => {
                    let (position, envelopes) = (sealed.position, sealed.envelopes.len() as u64);
                    self.send(sealed.envelopes).await?;
                    if self.owes_keys.swap(false, Ordering::Relaxed) {
                        self.core.share(SharedWith::Everyone, usize::MAX).await?;
                    }
                    return Ok((position, envelopes));
                }
                Err(lack) => self.supply(lack, now).await?,
            }
        }
        Err(Error::Internal("a batch could not be sealed"))
    }

    async fn try_seal(
        &self,
        now: Position,
        batch: Arc<Batch>,
    ) -> Result<Result<Sealed, NotSealed>, Error> {
        let (core, publisher) = (self.core.clone(), self.publisher.clone());
        off_thread(move || {
            let mut publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
            let view = core.view();
            let sealed = core.vault().change_lane(&core.id(), |lane, _| {
                let sealed = match &*batch {
                    Batch::Single(payload) => {
                        publisher.seal(now, lane, &view, &[Draft::Single(payload)])
                    }
                    Batch::Parts(parts) => {
                        let drafts: Vec<_> = parts.iter().map(Part::draft).collect();
                        publisher.seal(now, lane, &view, &drafts)
                    }
                    Batch::Past(session, records) => {
                        publisher.seal_past(lane, &view, *session, records)
                    }
                };
                Ok(sealed)
            })?;
            if let Ok(sealed) = &sealed {
                publisher.advance(sealed);
            }
            Ok(sealed)
        })
        .await?
    }

    /// Puts envelopes on the bus, in appends that it takes.
    async fn send(&self, envelopes: Vec<SealedEnvelope>) -> Result<(), Error> {
        let data = self.core.data_topic()?;
        let limit = self.core.bus.limits().batch_max;
        let (mut append, mut size) = (Vec::new(), 0);
        for envelope in envelopes {
            if size + envelope.bytes.len() > limit && !append.is_empty() {
                self.core
                    .bus
                    .append(&data, std::mem::take(&mut append))
                    .await?;
                size = 0;
            }
            size += envelope.bytes.len();
            append.push(envelope.bytes);
        }
        self.core.bus.append(&data, append).await?;
        Ok(())
    }

    /// Does what a batch lacked.
    async fn supply(&self, lack: NotSealed, now: Position) -> Result<(), Error> {
        match lack {
            NotSealed::NeedsSession => {
                self.start_session(now, SessionKind::Live).await?;
                Ok(())
            }
            NotSealed::UnknownSession(session) => {
                let core = self.core.clone();
                let is_here = off_thread(move || core.adopt_session(session)).await??;
                if !is_here {
                    self.start_session(now, SessionKind::Live).await?;
                }
                Ok(())
            }
            NotSealed::NotAnnounced(session) => self.announce(session).await,
            NotSealed::LogIncomplete(missing) => {
                self.core.sync().await?;
                let view = self.core.view();
                match view.missing_entries() == 0 && view.state().has_begun() {
                    true => Ok(()),
                    false => Err(Error::LogIncomplete(missing)),
                }
            }
            NotSealed::Exhausted => {
                let fresh = Publisher::new(self.core.id(), self.core.identity(), &mut clock::rng());
                *self
                    .publisher
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = fresh;
                Ok(())
            }
            NotSealed::Closed
            | NotSealed::NotEntitled
            | NotSealed::ClockBehind(_)
            | NotSealed::OutOfRange => Err(refused(lack)),
        }
    }

    /// Draws a session, keeps it, announces it, and hands out the first of its keys.
    pub(crate) async fn start_session(
        &self,
        now: Position,
        kind: SessionKind,
    ) -> Result<SessionId, Error> {
        let (core, publisher) = (self.core.clone(), self.publisher.clone());
        let session = off_thread(move || {
            let publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
            draw_session(&core, &publisher, now, kind)
        })
        .await??;
        self.announce(session).await?;
        self.core
            .share(SharedWith::Everyone, HANDOUTS_AHEAD)
            .await?;
        Ok(session)
    }

    /// Puts a session's record on the bus, and then notes that it is there.
    async fn announce(&self, session: SessionId) -> Result<(), Error> {
        let core = self.core.clone();
        let device = core.identity().device();
        let of = core.clone();
        let kept = off_thread(move || of.vault().session(&of.id(), &session, &device)).await??;
        let (record, _) = kept.ok_or(Error::Internal("a session has no record"))?;
        let keys = StreamTopics(core.id()).keys();
        core.append(&keys, record.expose().to_vec()).await?;
        off_thread(move || {
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.is_announced |= lane.session() == Some(session);
                Ok(())
            })
        })
        .await?
    }
}

impl Part {
    fn draft(&self) -> Draft<'_> {
        match self {
            Self::Frame(frame) => Draft::Frame(frame),
            Self::Long(payload) => Draft::Single(payload),
        }
    }
}

/// Draws a session and keeps it. Where another process of the home drew one meanwhile, that one is
/// taken.
fn draw_session(
    core: &Core,
    publisher: &Publisher,
    now: Position,
    kind: SessionKind,
) -> Result<SessionId, Error> {
    let mut view = core.view();
    let seen = core.vault().lane(&core.id())?;
    let position = |lane: &Lane| publisher.position(now, lane, &view).map_err(refused);
    let start = match kind {
        SessionKind::Live => position(&seen)?,
        SessionKind::Backfill { .. } => {
            let start = seen.next_position(now, view.state().mark());
            start.map_err(|by| refused(by.into()))?
        }
    };
    let new = publisher.start_session(&mut clock::rng(), now, start, kind, &view);
    let new = new.map_err(|_| Error::Internal("a session record is odd"))?;
    let device = core.identity().device();
    let kept = core.vault().change_lane(&core.id(), |lane, txn| {
        if kind == SessionKind::Live {
            if let Some(other) = lane.session().filter(|_| lane.session != seen.session) {
                return Ok(other);
            }
            lane.session = new.session;
            lane.is_announced = false;
            // Nothing of the session may lie below its start, wherever the lane has come by now.
            lane.seal_at(start);
        }
        put_session(txn, &core.id(), &device, &new)?;
        Ok(new.session)
    })?;
    if kept == new.session {
        let root = sealcast_crypto::SecretBytes::from(new.root.expose().to_vec());
        view.restore_root(new.session, &root);
        view.handle(&sealcast_engine::ControlTopic::Keys, new.record.wire());
    }
    Ok(kept)
}

fn refused(lack: NotSealed) -> Error {
    match lack {
        NotSealed::Closed => Error::Closed,
        NotSealed::NotEntitled => Error::NotAllowed("no grant lets you publish now"),
        NotSealed::ClockBehind(by) => Error::ClockBehind {
            behind_ms: by.behind_ms,
        },
        NotSealed::LogIncomplete(missing) => Error::LogIncomplete(missing),
        NotSealed::OutOfRange => Error::Internal("a record is out of range"),
        NotSealed::NeedsSession
        | NotSealed::UnknownSession(_)
        | NotSealed::NotAnnounced(_)
        | NotSealed::Exhausted => Error::Internal("a batch could not be sealed"),
    }
}

/// What was handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) bundles: usize,
    pub(crate) bytes: usize,
}

impl Core {
    /// Hands out the keys that others are entitled to and were not given, at most so many bundles.
    pub(crate) async fn share(
        self: &Arc<Self>,
        with: SharedWith,
        bundles_max: usize,
    ) -> Result<Shared, Error> {
        let core = self.clone();
        let wrapped = off_thread(move || core.wrap_handouts(with, bundles_max)).await??;
        if wrapped.is_empty() {
            return Ok(Shared::default());
        }
        let shared = Shared {
            bundles: wrapped.len(),
            bytes: wrapped.iter().map(Vec::len).sum(),
        };
        let keys = StreamTopics(self.id()).keys();
        for some in wrapped.chunks(64) {
            self.bus
                .append(&crate::home::topic(&keys)?, some.to_vec())
                .await?;
        }
        self.sync().await?;
        Ok(shared)
    }

    fn wrap_handouts(&self, with: SharedWith, bundles_max: usize) -> Result<Vec<Vec<u8>>, Error> {
        let view = self.view();
        let plan: Vec<Handout> = plan_handouts(&view, clock::now(), with);
        let mut wrapped = Vec::new();
        for handout in plan.iter().take(bundles_max) {
            let bundle = wrap_handout(&view, self.identity(), &mut clock::rng(), handout);
            let bundle = bundle.map_err(|_| Error::Internal("a bundle is odd"))?;
            wrapped.extend(bundle.map(|bundle| bundle.wire().to_vec()));
        }
        Ok(wrapped)
    }

    /// Steps past every position sealed so far in this home's lane. Returns the first free one.
    pub(crate) async fn cut(self: &Arc<Self>) -> Result<Position, Error> {
        let core = self.clone();
        off_thread(move || {
            let mark = core.view().state().mark();
            core.vault().change_lane(&core.id(), |lane, _| {
                let cut = lane.cut(clock::now(), mark);
                cut.map_err(|by| Error::ClockBehind {
                    behind_ms: by.behind_ms,
                })
            })
        })
        .await?
    }

    /// Makes the next message of this home start a session.
    pub(crate) async fn end_session(self: &Arc<Self>) -> Result<(), Error> {
        let core = self.clone();
        off_thread(move || {
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.end_session();
                Ok(())
            })
        })
        .await?
    }

    /// Whether this device may publish, so that it has a lane to cut.
    pub(crate) fn has_lane(&self) -> bool {
        let view = self.view();
        let (user, device) = view.me();
        view.state()
            .may_publish(&user, &device, clock::now().max(view.state().mark()))
    }
}

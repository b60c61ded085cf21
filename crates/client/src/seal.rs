//! Sealing: the steps between a record and the bus.
//!
//! A batch is sealed inside the store transaction that holds the lane; only when that is durable do
//! its envelopes leave, in the order in which they were sealed. The next batch may be sealed while
//! they are on their way.

mod singly;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_crypto::{SecretBytes, leaving_no_trace};
use sealcast_engine::{Lane, NotSealed, Publisher, Sealed, StreamView};
use sealcast_protocol::{
    BATCH_OVERHEAD_MAX, DataTopic, Draft, ENVELOPE_OVERHEAD, Frame, Interval, PAYLOAD_MAX,
    Position, SessionId, SessionKind,
};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::blocking::{off_thread, to_its_end};
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::outbox::{Errand, Outbox};
use crate::singles::{Message, Singles, Way};

/// How often a batch is tried again after what it lacked was done.
const TRIES_MAX: usize = 8;

/// What is to be sealed.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Messages by themselves, to the bus or to whoever carries them.
    Singles(Vec<Arc<Message>>),
    /// Frames, and records too long for one.
    Parts(Vec<Part>),
    /// Older data, in a backfill session.
    Past(Past),
}

#[derive(Debug)]
pub(crate) enum Part {
    Frame(Frame),
    Long(SecretBytes),
}

/// Older data, ascending by time, and where more of it may lie.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) session: Mutex<Option<SessionId>>,
    pub(crate) until: Position,
    pub(crate) records: Vec<(Position, Zeroizing<Vec<u8>>)>,
}

/// A message that was sealed and that the caller carries; made by [`Stream::seal`](crate::Stream::seal).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedMessage {
    /// The envelope. It travels as it is, on the topic for which it was sealed; on another it does not
    /// open.
    pub envelope: Vec<u8>,
    /// Where it was sealed.
    pub position: Position,
}

/// Shows how long it is.
impl fmt::Debug for SealedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedMessage")
            .field("envelope_len", &self.envelope.len())
            .field("position", &self.position)
            .finish()
    }
}

/// A batch that is sealed, and durable, but for its way.
#[derive(Debug)]
struct Done {
    envelopes: Vec<Vec<u8>>,
    /// Where the last one was sealed.
    position: Position,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// Where its last envelope lies.
    pub(crate) position: Position,
    pub(crate) envelopes: u64,
    /// The backfill session that took it.
    pub(crate) session: Option<SessionId>,
}

/// Seals for one stream in one run of this process.
#[derive(Clone, Debug)]
pub(crate) struct Sealer {
    pub(crate) core: Arc<Core>,
    publisher: Arc<Mutex<Publisher>>,
    /// Held by whoever seals, so that envelopes are put out in their order.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Messages that wait for that turn.
    singles: Arc<Singles>,
    outbox: Arc<Outbox>,
    /// Where below the stream it publishes; older data lies in the stream itself.
    topic: Option<DataTopic>,
}

/// A batch that was sealed and is on its way to the bus. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Leaving(JoinHandle<Result<Left, Error>>);

impl Leaving {
    /// Waits until it is stored there. A caller may stop waiting and come back, unless it was told.
    pub(crate) async fn stored(&mut self) -> Result<Left, Error> {
        let left = (&mut self.0).await;
        left.map_err(|_| Error::Internal("a task ended early"))?
    }
}

/// Why a batch was not sealed yet.
enum Lack {
    /// The access log was read too long ago.
    Stale,
    Of(NotSealed),
}

impl Sealer {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let publisher = new_run(&core);
        Self {
            core,
            publisher: Arc::new(Mutex::new(publisher)),
            turn: Arc::default(),
            singles: Arc::default(),
            outbox: Arc::default(),
            topic: None,
        }
    }

    /// The same run, publishing on a topic below the stream.
    pub(crate) fn on(&self, topic: &DataTopic) -> Self {
        Self {
            topic: Some(topic.clone()),
            ..self.clone()
        }
    }

    /// The longest record that the bus takes in one envelope.
    pub(crate) fn payload_max(&self) -> usize {
        self.payload_max_on(self.topic.as_ref())
    }

    fn payload_max_on(&self, topic: Option<&DataTopic>) -> usize {
        let besides = topic.map_or(0, DataTopic::overhead);
        let taken = self.core.bus.limits().payload_max;
        let room = taken.saturating_sub(ENVELOPE_OVERHEAD + BATCH_OVERHEAD_MAX + besides);
        room.min(PAYLOAD_MAX)
    }

    pub(crate) fn check_size(&self, size: usize) -> Result<(), Error> {
        self.check_size_on(self.topic.as_ref(), size)
    }

    fn check_size_on(&self, topic: Option<&DataTopic>, size: usize) -> Result<(), Error> {
        let limit = self.payload_max_on(topic);
        match size > limit {
            true => Err(Error::TooLarge { size, limit }),
            false => Ok(()),
        }
    }

    /// Seals a batch and stores it on the bus. It goes on when the caller stops waiting.
    pub(crate) async fn publish(&self, batch: Batch) -> Result<Left, Error> {
        self.seal(Arc::new(batch)).await?.stored().await
    }

    /// Seals a batch, and has it leave. It goes on when the caller stops waiting.
    pub(crate) async fn seal(&self, batch: Arc<Batch>) -> Result<Leaving, Error> {
        let sealer = self.clone();
        to_its_end(async move {
            let _turn = sealer.turn.lock().await;
            sealer.make_room().await?;
            let sealed = sealer.seal_whole(&batch).await?;
            let left = Left {
                position: sealed.position,
                envelopes: sealed.envelopes.len() as u64,
                session: batch.past_session(),
            };
            let errand = sealer.outbox.put(sealed.envelopes.into_iter());
            Ok(sealer.leave(left, errand))
        })
        .await
    }

    /// Seals a message with those that others publish at the same time, each in an envelope of its own,
    /// and stores it on the bus. It goes on when the caller stops waiting.
    pub(crate) async fn publish_single(
        &self,
        topic: Option<&DataTopic>,
        payload: &[u8],
    ) -> Result<Left, Error> {
        self.check_size_on(topic, payload.len())?;
        let message = Message {
            topic: topic.cloned(),
            payload: SecretBytes::from(payload.to_vec()),
        };
        self.serve(Vec::from([Arc::new(message)]), Way::Bus).await
    }

    /// Seals messages, all or none, with those that others seal at the same time, for the caller to carry.
    pub(crate) async fn hand_out(
        &self,
        messages: Vec<Message>,
    ) -> Result<Vec<SealedMessage>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let messages = messages.into_iter().map(Arc::new).collect();
        self.serve(messages, Way::Carrier).await
    }

    /// Does all that comes before sealing, and seals nothing.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let sealer = self.clone();
        to_its_end(async move {
            let _turn = sealer.turn.lock().await;
            let nothing = Arc::new(Batch::Parts(Vec::new()));
            sealer.seal_whole(&nothing).await.map(drop)
        })
        .await
    }

    /// Hands out keys that are due while the caller goes on. Those that could not be handed out now stay
    /// owed.
    fn share_soon(&self) {
        if self.core.takes_debt() {
            self.core.owe_keys();
            let core = self.core.clone();
            tokio::spawn(async move { core.share_owed().await.is_ok() });
        }
    }

    /// Has what was sealed leave.
    fn leave(&self, left: Left, errand: Errand) -> Leaving {
        let core = self.core.clone();
        Leaving(tokio::spawn(async move {
            let data = core.data_topic()?;
            errand.send(&core.bus, &data).await?;
            // The batch is out. Keys that could not be handed out now stay owed.
            let _is_shared = core.share_owed().await.is_ok();
            Ok(left)
        }))
    }

    /// Waits until more may be sealed for the bus.
    async fn make_room(&self) -> Result<(), Error> {
        let data = self.core.data_topic()?;
        Ok(self.outbox.make_room(&self.core.bus, &data).await?)
    }

    /// Seals a batch. Its envelopes are to be put out before the turn is over.
    async fn seal_whole(&self, batch: &Arc<Batch>) -> Result<Done, Error> {
        let mut looked_again = false;
        for _ in 0..TRIES_MAX {
            self.core.freshen().await?;
            let now = self.core.now();
            match self.try_seal(now, batch.clone()).await? {
                Ok(sealed) => return Ok(sealed),
                Err(Lack::Stale) => self.core.sync().await?,
                // The right may have been given just now.
                Err(Lack::Of(NotSealed::NotEntitled)) if !looked_again => {
                    looked_again = true;
                    self.core.sync().await?;
                }
                Err(Lack::Of(lack)) => self.supply(lack, now, batch).await?,
            }
        }
        Err(Error::Internal("a batch could not be sealed"))
    }

    async fn try_seal(
        &self,
        now: Position,
        batch: Arc<Batch>,
    ) -> Result<Result<Done, Lack>, Error> {
        let sealer = self.clone();
        off_thread(move || {
            let mut publisher = sealer.publisher();
            let view = sealer.core.view();
            let core = &sealer.core;
            let mut has_gone_on = false;
            let sealed = core.vault().change_lane(&core.id(), |lane, _| {
                if !core.may_seal() {
                    return Ok(Err(Lack::Stale));
                }
                let topic = sealer.topic.as_ref();
                let sealed = match &*batch {
                    Batch::Singles(messages) => {
                        let gone_on = &mut has_gone_on;
                        seal_each(&mut publisher, now, (lane, &view), messages, gone_on)
                    }
                    Batch::Parts(parts) => {
                        let drafts: Vec<_> = parts.iter().map(Part::draft).collect();
                        let sealed = publisher.seal_on(topic, now, lane, &view, &drafts);
                        sealed.map(|of| Vec::from([of]))
                    }
                    Batch::Past(past) => match batch.past_session() {
                        Some(session) => {
                            let sealed = publisher.seal_past(lane, &view, session, &past.records);
                            sealed.map(|of| Vec::from([of]))
                        }
                        None => Err(NotSealed::NeedsSession),
                    },
                };
                Ok(sealed.map_err(Lack::Of))
            });
            match &sealed {
                Ok(Ok(sealed)) => sealed
                    .last()
                    .into_iter()
                    .for_each(|of| publisher.advance(of)),
                // It has numbered what is not sealed.
                Ok(Err(_)) | Err(_) if has_gone_on => *publisher = new_run(core),
                Ok(Err(_)) | Err(_) => {}
            }
            Ok(sealed?.map(Done::of))
        })
        .await?
    }

    pub(crate) fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a batch lacked.
    async fn supply(&self, lack: NotSealed, now: Position, batch: &Batch) -> Result<(), Error> {
        match (lack, batch) {
            (NotSealed::NeedsSession, _) | (NotSealed::UnknownSession(_), Batch::Past(_)) => {
                // Another process may have ended the session for a removal that is not known here.
                self.core.sync().await?;
                self.session_for(now, batch).await
            }
            (NotSealed::UnknownSession(session), _) => {
                match self.core.adopt_session(session).await? {
                    true => Ok(()),
                    false => self.session_for(now, batch).await,
                }
            }
            (NotSealed::NotAnnounced(session), _) => self.core.announce(session).await,
            (NotSealed::LogIncomplete(missing), _) => {
                self.core.sync().await?;
                let view = self.core.view();
                match view.missing_entries() == 0 && view.state().has_begun() {
                    true => Ok(()),
                    false => Err(Error::LogIncomplete(missing)),
                }
            }
            (NotSealed::NeedsSegments(session, _), Batch::Past(past)) => {
                let positions = past.records.iter().map(|(at, _)| *at);
                if !self.cover_past(session, positions.collect()).await? {
                    past.end_session();
                }
                Ok(())
            }
            (NotSealed::NeedsSegments(session, position), _) => {
                self.cover_segments(session, position).await
            }
            (NotSealed::Exhausted, _) => {
                *self.publisher() = new_run(&self.core);
                Ok(())
            }
            (
                NotSealed::Closed
                | NotSealed::NotEntitled
                | NotSealed::ClockBehind(_)
                | NotSealed::OutOfRange,
                _,
            ) => Err(refused(lack)),
        }
    }

    async fn session_for(&self, now: Position, batch: &Batch) -> Result<(), Error> {
        let Batch::Past(past) = batch else {
            self.start_session(now, SessionKind::Live).await?;
            return Ok(());
        };
        let first = past.records.first().map_or(Position::START, |(at, _)| *at);
        let interval = Interval {
            from: first,
            until: past.until,
        };
        let kind = SessionKind::Backfill { interval };
        let session = self.start_session(now, kind).await?;
        *past.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        Ok(())
    }
}

/// Seals messages in their order, those of one topic that follow each other at once. Tells whether the
/// publisher has gone on behind some of them.
fn seal_each(
    publisher: &mut Publisher,
    now: Position,
    (lane, view): (&mut Lane, &StreamView),
    messages: &[Arc<Message>],
    has_gone_on: &mut bool,
) -> Result<Vec<Sealed>, NotSealed> {
    let before = *lane;
    let mut all = Vec::new();
    for some in messages.chunk_by(|one, next| one.topic == next.topic) {
        if let Some(last) = all.last() {
            publisher.advance(last);
            *has_gone_on = true;
        }
        let topic = some.first().and_then(|of| of.topic.as_ref());
        let drafts = some.iter().map(|of| Draft::Single(of.payload.expose()));
        let drafts: Vec<_> = drafts.collect();
        match publisher.seal_on(topic, now, lane, view, &drafts) {
            Ok(sealed) => all.push(sealed),
            Err(lack) => {
                *lane = before;
                return Err(lack);
            }
        }
    }
    Ok(all)
}

fn new_run(core: &Core) -> Publisher {
    leaving_no_trace(|| Publisher::new(core.id(), core.identity(), &mut clock::rng()))
}

impl Done {
    fn of(sealed: Vec<Sealed>) -> Self {
        let position = sealed.last().map_or(Position::START, |of| of.position);
        let envelopes = sealed.into_iter().flat_map(|of| of.envelopes);
        Self {
            envelopes: envelopes.map(|of| of.bytes).collect(),
            position,
        }
    }
}

impl SealedMessage {
    /// Takes the topic off that an item has before its envelope.
    fn of(message: &Message, mut item: Vec<u8>, position: Position) -> Self {
        let topic = message.topic.as_ref().map_or(0, DataTopic::overhead);
        item.drain(..topic.min(item.len()));
        Self {
            envelope: item,
            position,
        }
    }
}

impl Past {
    /// Has what is left be sealed in another session.
    fn end_session(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Batch {
    fn past_session(&self) -> Option<SessionId> {
        match self {
            Self::Past(past) => *past.session.lock().unwrap_or_else(PoisonError::into_inner),
            Self::Singles(_) | Self::Parts(_) => None,
        }
    }
}

impl Part {
    /// Number of records.
    pub(crate) fn records(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.len() as u64,
            Self::Long(_) => 1,
        }
    }

    fn draft(&self) -> Draft<'_> {
        match self {
            Self::Frame(frame) => Draft::Frame(frame),
            Self::Long(payload) => Draft::Single(payload.expose()),
        }
    }
}

pub(crate) fn refused(lack: NotSealed) -> Error {
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
        | NotSealed::NeedsSegments(..)
        | NotSealed::Exhausted => Error::Internal("a batch could not be sealed"),
    }
}

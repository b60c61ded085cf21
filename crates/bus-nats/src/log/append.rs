//! Appending: one message, behind the last one of its subject.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sealcast_bus::{BusError, Offset, Packed, Topic, Turn, jittered};
use tokio::time::sleep;

use super::known::TopicState;
use super::{Found, Head, Logs};
use crate::fault::Fault;
use crate::message::{AppendId, Body, HEADER_BYTES, Header, Message, PARTS_MAX};
use crate::server::Published;

/// The most bytes of an append with the table of its lengths.
pub(crate) const PACKED_MAX: usize = 128 << 20;
/// Bytes of packed payloads that go into the message itself: whoever wants to know how a topic ends
/// reads its last message.
const INLINE_MAX: usize = 128 << 10;
/// Bytes of a part, unless there would be too many: one for which a client need not grow its buffers.
const PART_BYTES_MAX: usize = 63 << 10;
/// Parts of an append that are on their way at once.
const PARTS_AT_ONCE: usize = 64;
/// Room in a message for what NATS adds to it.
const ENVELOPE_BYTES: usize = 1 << 10;

/// After so many times that others came first, an append waits before it tries again.
const CROWDED: u32 = 3;
const CROWD_PAUSE: Duration = Duration::from_millis(10);

const TOO_MANY: Fault = Fault::Odd("more payloads than an append may have");

/// What an append puts behind the head of a topic.
struct Addition {
    id: AppendId,
    count: u32,
    body: Body,
    /// What is trimmed with it.
    before: u64,
}

impl Logs {
    /// Appends payloads, where the topic ends at `at` if that is given; returns the first offset, or
    /// nothing where it ends elsewhere.
    pub(crate) async fn append(
        &self,
        topic: &Topic,
        at: Option<Offset>,
        payloads: &[Vec<u8>],
    ) -> Result<Option<Offset>, BusError> {
        let appending = async {
            let cut = self.cut(payloads)?;
            // Parts whose append finds another end would stay, so that it is looked for before.
            if let (Some(at), 2..) = (at, cut.len())
                && self.look_at_end(topic).await?.0.end != at.0
            {
                return Ok(None);
            }
            let addition = self.prepare(topic, payloads.len(), &cut).await?;
            self.put(topic, at, &addition).await
        };
        let head = appending.await.map_err(|fault| self.server.fault(fault))?;
        if let Some(head) = &head {
            self.tell(topic, head).await;
            self.server.let_leave().await;
        }
        Ok(head.map(|head| Offset(head.first)))
    }

    /// Appends payloads behind those whose turns came before. Parts need not wait for these.
    pub(crate) async fn append_in_turn(
        &self,
        topic: &Topic,
        payloads: &[Bytes],
        mut turn: Turn,
    ) -> Result<(), BusError> {
        let fault = |fault| self.server.fault(fault);
        let state = self.known.topic(topic);
        let in_turn = state.in_turn();
        let cut = self.cut(payloads).map_err(fault)?;
        if turn.has_failed() {
            return Err(BusError::OutOfTurn);
        }
        let addition = {
            let mut preparing = pin!(self.prepare(topic, payloads.len(), &cut));
            // The parts are on their way, in their order, once it was polled. Those of the next lie behind them then, and
            // are read with the next.
            let early = poll_fn(|cx| Poll::Ready(preparing.as_mut().poll(cx))).await;
            if cut.len() > 1 {
                turn.pass();
            }
            match early {
                Poll::Ready(addition) => addition,
                // Parts that nobody needs would stay.
                Poll::Pending => tokio::select! {
                    biased;
                    () = turn.is_lost() => return Err(BusError::OutOfTurn),
                    addition = preparing => addition,
                },
            }
        };
        let addition = addition.map_err(fault)?;
        turn.come().await?;
        let head = self.put(topic, None, &addition).await.map_err(fault)?;
        turn.stored();
        if let Some(head) = &head {
            self.tell(topic, head).await;
        }
        // Otherwise this leaves with what is behind it.
        if in_turn.is_last() {
            self.server.let_leave().await;
        }
        Ok(())
    }

    /// Stores the parts, if there are to be any.
    async fn prepare(&self, topic: &Topic, count: usize, cut: &[Bytes]) -> Result<Addition, Fault> {
        let id = new_id()?;
        Ok(Addition {
            id,
            count: u32::try_from(count).map_err(|_| TOO_MANY)?,
            body: match cut {
                [] => Body::Inline(Bytes::new()),
                [whole] => Body::Inline(whole.clone()),
                parts => self.store(topic, id, parts).await?,
            },
            before: 0,
        })
    }

    /// Tells those who follow a topic how it ends now.
    async fn tell(&self, topic: &Topic, head: &Head) {
        let subject = self.server.subjects.new_end(topic);
        self.server.hint(subject, head.end).await;
    }

    /// Writes down how far a topic is trimmed.
    pub(super) async fn put_trim(&self, topic: &Topic, before: u64) -> Result<Head, Fault> {
        let addition = Addition {
            id: new_id()?,
            count: 0,
            body: Body::Inline(Bytes::new()),
            before,
        };
        let head = self.put(topic, None, &addition).await?;
        head.ok_or(Fault::Odd("a trim has no place to be at"))
    }

    /// What goes into the message, in one piece, or else into parts before it.
    fn cut(&self, payloads: &[impl AsRef<[u8]>]) -> Result<Vec<Bytes>, Fault> {
        let sizes = payloads.iter().map(|of| of.as_ref().len());
        let bytes: usize = sizes.map(|size| size + size_of::<u32>()).sum();
        if bytes > PACKED_MAX {
            return Err(TOO_MANY);
        }
        let room = self.server.message_max();
        let room = room.saturating_sub(ENVELOPE_BYTES + HEADER_BYTES).max(1);
        let part_max = match bytes <= room.min(INLINE_MAX) {
            true => bytes,
            false => room.min(PART_BYTES_MAX.max(bytes.div_ceil(PARTS_MAX))),
        };
        let parts = Packed::pack_in_parts(payloads, part_max, |_| Vec::new());
        parts.ok_or(TOO_MANY)
    }

    /// Stores parts, several at once.
    async fn store(&self, topic: &Topic, id: AppendId, parts: &[Bytes]) -> Result<Body, Fault> {
        let subject = self.server.subjects.part(topic);
        let stored = parts.iter().cloned().enumerate().map(|(number, part)| {
            let subject = &subject;
            let id = format!("{:032x}-{number}", u128::from_be_bytes(id));
            async move { self.server.publish(subject, &id, part).await }
        });
        let stored = stream::iter(stored).buffered(PARTS_AT_ONCE);
        Ok(Body::InParts(stored.try_collect().await?))
    }

    /// Puts a message behind the last one, unless the topic does not end at `at`.
    async fn put(
        &self,
        topic: &Topic,
        at: Option<Offset>,
        addition: &Addition,
    ) -> Result<Option<Head>, Fault> {
        let state = self.known.topic(topic);
        let _turn = state.appending.lock().await;
        let subject = self.server.subjects.log(topic);
        let mut known = state.head();
        for attempt in 0_u32.. {
            if attempt >= CROWDED {
                sleep(jittered(CROWD_PAUSE)).await;
            }
            let head = match known.take() {
                Some(head) if at.is_none_or(|at| at.0 == head.end) => head,
                _ => self.find_head(topic, &state, &subject).await?.0,
            };
            state.put_head(head);
            if at.is_some_and(|at| at.0 != head.end) {
                return Ok(None);
            }
            // While its fate is open, nothing is known of how the topic ends.
            state.forget_head();
            let put = self.put_behind(&state, &subject, &head, addition).await?;
            if put.is_some() {
                return Ok(put);
            }
        }
        Err(Fault::Odd("others were always first"))
    }

    /// Puts a message behind `head`; `None` where another is there.
    async fn put_behind(
        &self,
        state: &TopicState,
        subject: &str,
        head: &Head,
        addition: &Addition,
    ) -> Result<Option<Head>, Fault> {
        let full = || Fault::Odd("no more offsets are left");
        let end = head.end.checked_add(u64::from(addition.count));
        let end = end.ok_or_else(full)?;
        let header = Header {
            prev: head.last,
            first: head.end,
            count: addition.count,
            left: head.left.max(addition.before.min(end)),
            id: addition.id,
        };
        let body = addition.body.clone();
        let message = Message { header, body };
        let bytes = message.encode().into();
        let seq = match self
            .server
            .publish_behind(subject, head.last, bytes)
            .await?
        {
            Published::At(seq) => Some(seq),
            Published::LastIsAnother { may_be_own: false } => None,
            Published::LastIsAnother { may_be_own: true } => {
                self.own_behind(subject, &header).await?
            }
        };
        let Some(seq) = seq else { return Ok(None) };
        let head = Head::of(&Found { seq, message }, seq);
        state.put_head(head);
        Ok(Some(head))
    }

    /// Where the message with this header lies, if it does.
    async fn own_behind(&self, subject: &str, header: &Header) -> Result<Option<u64>, Fault> {
        let next = self.server.next(subject, header.prev + 1).await?;
        let next = next.ok_or(Fault::Unknowable)?;
        match self.read_message(&next)? {
            Some(found) if found.header.id == header.id => Ok(Some(next.seq)),
            // It took the place itself, so that ours did not.
            Some(found) if found.header.prev == header.prev => Ok(None),
            _ => Err(Fault::Unknowable),
        }
    }
}

fn new_id() -> Result<AppendId, Fault> {
    let mut id = AppendId::default();
    getrandom::fill(&mut id).map_err(|_| Fault::Odd("no randomness"))?;
    Ok(id)
}

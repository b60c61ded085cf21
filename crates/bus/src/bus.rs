use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::{BusError, Topic, Turn};

/// What the calls of a bus return.
pub type BusFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BusError>> + Send + 'a>>;

/// Carries opaque bytes on topics of two kinds: logs, which it stores, and ephemeral topics, where
/// only those who listen hear what is sent.
///
/// A log exists from its first item on; one that nobody wrote to reads as empty. Items of one log
/// have one order, the same for everyone; items of different logs have none. The kinds do not mix:
/// a log and an ephemeral topic of one name have nothing to do with each other. Every implementation
/// must pass the `conformance` suite of this crate.
pub trait Bus: Send + Sync + fmt::Debug {
    /// Says what one append may hold.
    fn limits(&self) -> Limits;

    /// Appends `payloads` in order, all of them or none, next to each other; returns the offset of
    /// the first.
    ///
    /// They are durable when this returns. Without payloads nothing is written, and the offset is
    /// the topic's end. Dropping the future does not take the append back.
    ///
    /// # Errors
    ///
    /// [`BusError::TooLarge`] when a payload or the batch exceeds [`limits`](Self::limits), and
    /// whatever keeps the bus from writing. Nothing was appended then, except where the error's
    /// docs say that this is not known.
    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset>;

    /// Appends as [`append`](Self::append) does, but only where the topic ends at `end`; returns
    /// whether it did. So of several who read a topic to its end and then write, one comes first and
    /// the others learn it before they have written.
    ///
    /// A bus that can compare and append in one step overrides this. As it stands here others may
    /// append in between, and then both lie there.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        let topic = topic.clone();
        Box::pin(async move {
            let is_there = self.end(&topic).await? == end;
            if is_there {
                self.append(&topic, payloads).await?;
            }
            Ok(is_there)
        })
    }

    /// Appends as [`append`](Self::append) does, but may set out while appends whose turns came before are under way, and
    /// lets the next set out while it is.
    ///
    /// It is added behind all of these, or not at all: where one of them fails, so does this.
    ///
    /// A bus whose appends wait for answers overrides this. As it stands here the next sets out when this one is stored.
    ///
    /// # Errors
    ///
    /// [`BusError::OutOfTurn`] where one whose turn came before failed; otherwise as [`append`](Self::append).
    fn append_in_turn(&self, topic: &Topic, payloads: Vec<Bytes>, turn: Turn) -> BusFuture<'_, ()> {
        let topic = topic.clone();
        Box::pin(turn.take(async move {
            let payloads = payloads.into_iter().map(Vec::from).collect();
            self.append(&topic, payloads).await
        }))
    }

    /// Reads items in order, the first being the one at `from` or, if it is gone, the next that is
    /// left.
    ///
    /// Returns at least one item if there is one, and stops before the payloads exceed `bytes_max`
    /// bytes in all or sooner, so only an empty answer means that the end was reached.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read.
    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>>;

    /// Says which offset the next appended item gets; 0 for a topic that nobody wrote to.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read.
    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset>;

    /// Follows several topics at once, each from its offset on.
    ///
    /// A topic that is named twice is followed once, from the lower offset.
    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail>;

    /// Removes the items of a log that lie before an offset, for everyone and for good; all of them
    /// where that is beyond the end.
    ///
    /// The end stays what it is. For a log that has one taker alone, which trims what it has taken.
    /// Dropping the future does not take it back.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be written to. Nothing was removed then, except where the error's
    /// docs say that this is not known.
    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()>;

    /// Sends to whoever listens to an ephemeral topic at this moment, the sender too; no one has to.
    ///
    /// Nothing tells whether anybody heard it, and it is not kept, so what is sent is to be small and
    /// to be sent again where no answer comes. Dropping the future does not take it back.
    ///
    /// # Errors
    ///
    /// [`BusError::TooLarge`] for more than [`Limits::SENT_MAX`] bytes, and whatever keeps the bus
    /// from sending. Nothing was sent then, except where the error's docs say that this is not known.
    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()>;

    /// Listens to ephemeral topics: whatever is sent there once this has returned is heard, and
    /// nothing that was sent before it was called.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>>;
}

/// Follows topics; made by [`Bus::tail`].
pub trait Tail: Send + fmt::Debug {
    /// Waits until some topic has items and returns the next of them, in order, a few MiB at most
    /// unless one item alone is larger.
    ///
    /// Every item of a topic comes exactly once, unless it was trimmed before. A busy topic does not keep the others waiting for
    /// ever. Dropping the future loses nothing, nor does an error: the next call goes on where the
    /// last successful one ended.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read; may be called again.
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)>;
}

/// What a tail follows: each topic once, from the lowest of its offsets.
pub fn each_once(topics: Vec<(Topic, Offset)>) -> BTreeMap<Topic, Offset> {
    let mut followed = BTreeMap::new();
    for (topic, from) in topics {
        let lowest = followed.entry(topic).or_insert(from);
        *lowest = from.min(*lowest);
    }
    followed
}

/// Hears what is sent on ephemeral topics; made by [`Bus::listen`].
pub trait Listener: Send + fmt::Debug {
    /// Waits for the next payload.
    ///
    /// None is heard twice, and those that one handle sent on one topic are heard in the order in
    /// which it sent them. At least [`Limits::SENT_WAITING_MIN`] payloads wait for a listener that is
    /// late; of more, the oldest may be lost. So may be what is sent while the bus fails. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be read; may be called again. After [`BusError::Damaged`] listen
    /// anew.
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<u8>)>;
}

/// The place of an item in its topic: 0 for the first, then one more for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What lies at one offset of a topic.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it lies.
    pub offset: Offset,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("offset", &self.offset.0)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// What one append may hold, and, for every bus, what may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes of one payload.
    pub payload_max: usize,
    /// The most bytes of all payloads of one append together.
    pub batch_max: usize,
}

impl Limits {
    /// The most bytes of a payload that is sent on an ephemeral topic of any bus.
    pub const SENT_MAX: usize = 64 << 10;
    /// The payloads, at least, that any bus keeps for a listener that is late.
    pub const SENT_WAITING_MIN: usize = 256;

    /// States the limits of a bus: the most bytes of one payload, and of one append.
    pub fn new(payload_max: usize, batch_max: usize) -> Self {
        Self {
            payload_max,
            batch_max,
        }
    }

    /// Refuses what does not fit.
    ///
    /// # Errors
    ///
    /// [`BusError::TooLarge`] for the first payload that is too large, or for the batch.
    pub fn check(&self, payloads: &[impl AsRef<[u8]>]) -> Result<(), BusError> {
        let mut batch: usize = 0;
        for payload in payloads.iter().map(AsRef::as_ref) {
            within(payload.len(), self.payload_max)?;
            batch = batch.saturating_add(payload.len());
        }
        within(batch, self.batch_max)
    }

    /// Refuses what may not be sent on an ephemeral topic.
    ///
    /// # Errors
    ///
    /// [`BusError::TooLarge`] for more than [`SENT_MAX`](Self::SENT_MAX) bytes.
    pub fn check_sent(payload: &[u8]) -> Result<(), BusError> {
        within(payload.len(), Self::SENT_MAX)
    }
}

fn within(size: usize, limit: usize) -> Result<(), BusError> {
    if size > limit {
        return Err(BusError::TooLarge { size, limit });
    }
    Ok(())
}

impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn limits(&self) -> Limits {
        (**self).limits()
    }

    fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
        (**self).append(topic, payloads)
    }

    fn append_at(&self, topic: &Topic, end: Offset, payloads: Vec<Vec<u8>>) -> BusFuture<'_, bool> {
        (**self).append_at(topic, end, payloads)
    }

    fn append_in_turn(&self, topic: &Topic, payloads: Vec<Bytes>, turn: Turn) -> BusFuture<'_, ()> {
        (**self).append_in_turn(topic, payloads, turn)
    }

    fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
        (**self).read(topic, from, bytes_max)
    }

    fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
        (**self).end(topic)
    }

    fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
        (**self).tail(topics)
    }

    fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
        (**self).trim(topic, before)
    }

    fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
        (**self).send(topic, payload)
    }

    fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
        (**self).listen(topics)
    }
}

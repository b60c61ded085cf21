//! The logs of a bus: how they are read, appended to and trimmed.

mod append;
mod feed;
mod known;
mod scan;
mod trim;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future;
use sealcast_bus::{BusError, Item, Offset, Packed, Topic};

use crate::fault::Fault;
use crate::message::{Header, Message, Odd};
use crate::server::{Server, Stored};
use feed::Feeds;
use known::{Known, TopicState};

/// How long a reader that goes on needs not look how a topic begins and ends.
const LOOK: Duration = Duration::from_secs(1);

/// Logs on one server.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) server: Arc<Server>,
    known: Known,
    feeds: Arc<Feeds>,
    /// The payloads that were read last and not to their end: the next read goes on in them.
    halfway: Mutex<Option<(Header, Packed)>>,
}

/// How a topic ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The sequence number of the last message of its subject, whatever that is; 0 for none.
    pub(crate) last: u64,
    /// The sequence number of the last message that belongs there.
    pub(crate) seq: u64,
    /// The offset of the first item in that message.
    pub(crate) first: u64,
    /// The offset of the next item.
    pub(crate) end: u64,
    /// The first offset that is not trimmed.
    pub(crate) left: u64,
}

/// A message that belongs where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) message: Message,
}

impl Head {
    fn of(found: &Found, last: u64) -> Self {
        let header = &found.message.header;
        Self {
            last,
            seq: found.seq,
            first: header.first,
            end: header.end(),
            left: header.left,
        }
    }
}

/// Reading.
impl Logs {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let known = Known::new(server.misses());
        Self {
            server,
            known,
            feeds: Arc::default(),
            halfway: Mutex::new(None),
        }
    }

    pub(crate) async fn end(&self, topic: &Topic) -> Result<Offset, BusError> {
        let (head, _) = self.head(topic).await?;
        Ok(Offset(head.end))
    }

    pub(crate) async fn read(
        &self,
        topic: &Topic,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<Item>, BusError> {
        if let Some(items) = self.read_on(topic, from.0, bytes_max).await? {
            return Ok(items);
        }
        let mut fault = Fault::Missing { expected: from.0 };
        // What is missing may have been trimmed meanwhile, and what was remembered be wrong.
        for care in [
            scan::Care::Remembered,
            scan::Care::Searched,
            scan::Care::Whole,
        ] {
            let (head, last) = self.head(topic).await?;
            let from = from.0.max(head.left);
            if from >= head.end {
                return Ok(Vec::new());
            }
            let wanted = scan::Wanted { from, bytes_max };
            match self.collect(topic, &head, last, wanted, care).await {
                Err(missing @ (Fault::Missing { .. } | Fault::Parts)) => fault = missing,
                collected => return collected.map_err(|fault| self.server.fault(fault)),
            }
        }
        Err(self.server.fault(fault))
    }

    /// Reads on where another read ended. How the topic ends is looked at beside that, and not each
    /// time: the answer comes behind all that is on its way already. Nothing, where what is remembered
    /// does not hold, or ends there and nothing more has come.
    async fn read_on(
        &self,
        topic: &Topic,
        from: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Item>>, BusError> {
        let state = self.known.topic(topic);
        let (Some((known, since)), Some(place)) = (state.seen_head(), state.place(from)) else {
            return Ok(None);
        };
        if !(known.left..=known.end).contains(&from)
            || !self.feeds.has(topic, place.seq, state.misses())
        {
            return Ok(None);
        }
        let look = async {
            // What comes behind the end that is known says itself how the topic ends.
            match since.elapsed() < LOOK || from == known.end {
                true => Ok(known),
                false => self.head(topic).await.map(|(head, _)| head),
            }
        };
        let wanted = scan::Wanted { from, bytes_max };
        let collect = self.collect(topic, &known, None, wanted, scan::Care::Remembered);
        let (head, items) = future::join(look, collect).await;
        let head = head?;
        match items {
            Ok(items) if head.left <= from && head.end >= known.end => Ok(Some(items)),
            Ok(_) | Err(Fault::Missing { .. } | Fault::Parts) => Ok(None),
            Err(fault) => Err(self.server.fault(fault)),
        }
    }

    /// How a topic ends on the server at this moment, and its last message where that was read.
    pub(crate) async fn head(&self, topic: &Topic) -> Result<(Head, Option<Found>), BusError> {
        let found = self.look_at_end(topic).await;
        found.map_err(|fault| self.server.fault(fault))
    }

    async fn look_at_end(&self, topic: &Topic) -> Result<(Head, Option<Found>), Fault> {
        let state = self.known.topic(topic);
        let subject = self.server.subjects.log(topic);
        let (head, found) = self.find_head(topic, &state, &subject).await?;
        state.put_head(head);
        Ok((head, found))
    }

    async fn find_head(
        &self,
        topic: &Topic,
        state: &TopicState,
        subject: &str,
    ) -> Result<(Head, Option<Found>), Fault> {
        let Some(stored) = self.server.last(subject).await? else {
            return Ok((Head::default(), None));
        };
        let last = stored.seq;
        let known = state.head();
        if let Some(message) = self.read_message(&stored)? {
            let found = Found { seq: last, message };
            let prev = found.message.header.prev;
            let is_known = known.is_some_and(|head| head.last == prev || head.seq == last);
            if is_known || self.is_behind(subject, prev, last).await? {
                return Ok((Head::of(&found, last), Some(found)));
            }
        }
        // Somebody else wrote there; what belongs there lies before it.
        let head = self.walk_to_end(topic, subject, known, last).await?;
        Ok((head, None))
    }

    /// Whether a message says rightly which one was before it.
    async fn is_behind(&self, subject: &str, prev: u64, seq: u64) -> Result<bool, Fault> {
        if prev >= seq {
            return Ok(false);
        }
        if prev == seq - 1 {
            return Ok(true);
        }
        let next = self.server.next(subject, prev + 1).await?;
        Ok(next.is_some_and(|stored| stored.seq == seq))
    }

    /// The message that was stored, if it is one.
    fn read_message(&self, stored: &Stored) -> Result<Option<Message>, Fault> {
        match Message::decode(&stored.bytes) {
            Ok(message) => Ok(Some(message)),
            Err(Odd::Garbled) => Ok(None),
            Err(Odd::TooNew(version)) => Err(Fault::TooNew(version)),
        }
    }

    fn halfway(&self) -> std::sync::MutexGuard<'_, Option<(Header, Packed)>> {
        self.halfway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

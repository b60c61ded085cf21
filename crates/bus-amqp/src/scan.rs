//! Goes along the queue of a log and gives what belongs to its topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sealcast_bus::{Packed, Topic};

use crate::chain::{Chain, Fit, Place};
use crate::fault::Fault;
use crate::feed::{Delivered, Feed, Start, left_out};
use crate::known::Recent;
use crate::message::{Body, Header, Message, Odd, Part, PartsId, Record};
use crate::server::{Desk, Server};

/// Bytes of parts that are kept until the message that they are of comes; beyond that they are fetched
/// once more.
const PARTS_BYTES_MAX: usize = 5 << 20;
/// Parts that an append may have, and that are kept.
const PARTS_MAX: usize = 1_024;
/// The most bytes of an append with the table of its lengths.
pub(crate) const PACKED_MAX: usize = 124 << 20;

/// The queue of a log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) server: Arc<Server>,
    pub(crate) topic: Topic,
    pub(crate) queue: String,
}

/// A message that belongs where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) at: u64,
    pub(crate) header: Header,
    pub(crate) payloads: Payloads,
}

/// The payloads of a message.
#[derive(Clone, Debug)]
pub(crate) enum Payloads {
    Here(Packed),
    /// In the queue, from there on, in so many parts of that name.
    Apart {
        id: PartsId,
        since: u64,
        count: u32,
    },
    /// Not as they were written.
    Odd,
}

impl Found {
    /// Bytes that it takes up here.
    pub(crate) fn len(&self) -> usize {
        match &self.payloads {
            Payloads::Here(packed) => packed.size(),
            Payloads::Apart { .. } | Payloads::Odd => 0,
        }
    }
}

impl Log {
    pub(crate) fn new(server: &Arc<Server>, topic: &Topic) -> Self {
        Self {
            server: Arc::clone(server),
            topic: topic.clone(),
            queue: server.names.queue(topic),
        }
    }

    /// What was delivered, if it is anything that this program knows.
    pub(crate) fn read(&self, delivered: &Delivered) -> Option<Record> {
        Record::decode(&delivered.bytes, &self.topic).ok()
    }

    /// Gets the payloads of a message, wherever they are.
    pub(crate) async fn payloads(&self, desk: &Desk, found: &Found) -> Result<Packed, Fault> {
        match &found.payloads {
            Payloads::Here(packed) => Ok(packed.clone()),
            Payloads::Odd => Err(Fault::Parts),
            Payloads::Apart { id, since, count } => {
                let fetch = || self.fetch(desk, found.at, *id, *since, *count);
                let wanted = match fetch().await {
                    // Something may have been left out.
                    Err(Fault::Parts) => fetch().await?,
                    fetched => fetched?,
                };
                found.header.packed(wanted).ok_or(Fault::Parts)
            }
        }
    }

    /// Gets the parts of the append at `at`.
    async fn fetch(
        &self,
        desk: &Desk,
        at: u64,
        id: PartsId,
        since: u64,
        count: u32,
    ) -> Result<Vec<Bytes>, Fault> {
        let mut feed = Feed::attach(desk, &self.queue, Start::At(since)).await?;
        let mut parts = Parts::of_at_most(PACKED_MAX);
        loop {
            let delivered = feed.next().await?;
            if delivered.at >= at {
                return Err(Fault::Parts);
            }
            if let Some(Record::Part(part)) = self.read(&delivered)
                && part.id == id
                && part.number < count
            {
                parts.keep(part);
                if let Some(whole) = parts.whole(id, count) {
                    return Ok(whole);
                }
            }
        }
    }
}

/// Parts that came last, the oldest first.
#[derive(Debug)]
struct Parts {
    kept: VecDeque<Part>,
    bytes: usize,
    bytes_max: usize,
}

impl Parts {
    fn of_at_most(bytes_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn keep(&mut self, part: Part) {
        let is_there = |of: &Part| of.id == part.id && of.number == part.number;
        if self.kept.iter().any(is_there) {
            return;
        }
        self.bytes += part.bytes.len();
        self.kept.push_back(part);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max || self.kept.len() > PARTS_MAX {
            let Some(gone) = self.kept.pop_front() else {
                return;
            };
            self.bytes -= gone.bytes.len();
        }
    }

    /// The parts of one append in their order, if all are there.
    fn whole(&self, id: PartsId, count: u32) -> Option<Vec<Bytes>> {
        let mut parts: Vec<&Part> = self.kept.iter().filter(|part| part.id == id).collect();
        parts.sort_by_key(|part| part.number);
        let numbers = parts.iter().map(|part| part.number);
        if !numbers.eq(0..count) {
            return None;
        }
        Some(parts.into_iter().map(|part| part.bytes.clone()).collect())
    }

    fn forget(&mut self, id: PartsId) {
        self.kept.retain(|part| part.id != id);
        self.bytes = self.kept.iter().map(|part| part.bytes.len()).sum();
    }
}

/// Goes along the queue of one log.
#[derive(Debug)]
pub(crate) struct Scan {
    log: Log,
    feed: Feed,
    chain: Chain,
    parts: Parts,
    /// Where in the queue it has come to: everything before was seen.
    seen: u64,
}

impl Scan {
    pub(crate) fn new(log: &Log, feed: Feed, chain: Chain) -> Self {
        Self {
            log: log.clone(),
            feed,
            chain,
            parts: Parts::of_at_most(PARTS_BYTES_MAX),
            seen: 0,
        }
    }

    /// Goes on behind a place. What lies there comes first: it says that the rest was delivered.
    pub(crate) async fn behind(log: &Log, desk: &Desk, place: Place) -> Result<Self, Fault> {
        let start = place.last.map_or(Start::First, Start::At);
        let feed = Feed::attach(desk, &log.queue, start).await?;
        Ok(Self::new(log, feed, Chain::from(place)))
    }

    /// Goes on at `at`, with what followed on a place, if anything lies exactly there.
    pub(crate) async fn at(
        log: &Log,
        desk: &Desk,
        place: Place,
        at: u64,
    ) -> Result<Option<Self>, Fault> {
        let mut feed = Feed::attach(desk, &log.queue, Start::At(at)).await?;
        let first = feed.next().await?;
        let is_there = first.at == at;
        feed.put_back(first);
        let mut scan = Self::new(log, feed, Chain::from(place));
        // What lies between needs not be seen.
        scan.seen = at;
        Ok(is_there.then_some(scan))
    }

    /// Keeps few bytes of parts from now on.
    pub(crate) fn keep_few_parts(&mut self, bytes_max: usize) {
        self.parts.bytes_max = bytes_max;
        self.parts.shrink();
    }

    /// Ends the delivery, and takes what came before.
    pub(crate) async fn end(&mut self, recent: &mut Recent) -> Result<(), Fault> {
        let came = self.feed.end().await?;
        for delivered in &came {
            recent.extend(self.take(delivered)?);
        }
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.feed.is_up()
    }

    pub(crate) fn place(&self) -> Place {
        self.chain.place()
    }

    /// Where everything that comes lies, or behind it.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Waits for the next message of the queue, which is known to be there.
    pub(crate) async fn next_delivered(&mut self) -> Result<Delivered, Fault> {
        self.feed.next().await
    }

    /// Takes the next message of the queue, and gives it if it belongs.
    pub(crate) fn take(&mut self, delivered: &Delivered) -> Result<Option<Found>, Fault> {
        let is_first = self.seen == 0;
        if is_first && self.chain.start() != delivered.at {
            return Err(left_out());
        }
        let record = match Record::decode(&delivered.bytes, &self.log.topic) {
            // In the way only where it belongs.
            Err(Odd::TooNew { version, header }) if self.chain.fits(&header) => {
                return Err(Fault::TooNew(version));
            }
            record => record,
        };
        self.seen = delivered.at.saturating_add(1);
        let Message { header, body } = match record {
            Err(_) | Ok(Record::Opening) => return Ok(None),
            Ok(Record::Part(part)) => {
                self.parts.keep(part);
                return Ok(None);
            }
            Ok(Record::Message(message)) => message,
        };
        match self.chain.takes(delivered.at, &header) {
            Fit::Belongs => {}
            Fit::DoesNot => return Ok(None),
            Fit::Refutes => {
                let says = "what is left of the log begins elsewhere";
                return Err(Fault::no_answer(says));
            }
        }
        let payloads = self.payloads_of(delivered.at, &header, body);
        Ok(Some(Found {
            at: delivered.at,
            header,
            payloads,
        }))
    }

    fn payloads_of(&mut self, at: u64, header: &Header, body: Body) -> Payloads {
        let packed = match body {
            Body::Inline(packed) => vec![packed],
            Body::InParts { id, since, count } => {
                // Nothing is waited for that cannot be there.
                let is_possible = usize::try_from(count).is_ok_and(|count| count <= PARTS_MAX);
                if since >= at || !is_possible {
                    return Payloads::Odd;
                }
                let whole = self.parts.whole(id, count);
                self.parts.forget(id);
                match whole {
                    Some(packed) => packed,
                    None => return Payloads::Apart { id, since, count },
                }
            }
        };
        header.packed(packed).map_or(Payloads::Odd, Payloads::Here)
    }

    /// The next message that belongs, as it comes.
    pub(crate) fn poll_found(&mut self, context: &mut Context<'_>) -> Poll<Result<Found, Fault>> {
        loop {
            let Poll::Ready(delivered) = self.feed.poll_next(context)? else {
                return Poll::Pending;
            };
            if let Some(found) = self.take(&delivered)? {
                return Poll::Ready(Ok(found));
            }
        }
    }

    /// The next message that belongs, up to the one at `last`, which is known to be there.
    pub(crate) async fn found_until(&mut self, last: u64) -> Result<Option<Found>, Fault> {
        while self.seen <= last {
            let delivered = self.feed.next().await?;
            if let Some(found) = self.take(&delivered)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next message that belongs, which is on its way.
    pub(crate) async fn found(&mut self) -> Result<Found, Fault> {
        loop {
            let delivered = self.feed.next().await?;
            if let Some(found) = self.take(&delivered)? {
                return Ok(found);
            }
        }
    }

    /// Takes what has been delivered, without asking.
    pub(crate) fn take_ready(&mut self, recent: &mut Recent) -> Result<(), Fault> {
        while let Some(delivered) = self.feed.ready()? {
            recent.extend(self.take(&delivered)?);
        }
        Ok(())
    }

    /// Takes all that lies in the queue at this moment, unless that is much: says whether it did.
    pub(crate) async fn catch_up(
        &mut self,
        recent: &mut Recent,
        asks_max: usize,
    ) -> Result<bool, Fault> {
        for _ in 0..asks_max {
            if !self.feed.ask().await? {
                return Ok(false);
            }
            self.take_ready(recent)?;
            if self.feed.is_at_end() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u8, number: u32, bytes: &'static [u8]) -> Part {
        Part {
            id: [id; 16],
            number,
            bytes: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn parts_take_up_little_however_many_and_small_they_are() {
        let mut parts = Parts::of_at_most(8);
        parts.keep(part(1, 0, b"gone"));
        for number in 0..2_000 {
            parts.keep(part(2, number, b""));
        }
        assert!(parts.kept.len() <= PARTS_MAX);
        parts.keep(part(3, 1, b"last"));
        parts.keep(part(3, 0, b"own "));
        parts.keep(part(3, 0, b"not"));
        assert_eq!(
            parts.whole([3; 16], 2),
            Some(vec![
                Bytes::from_static(b"own "),
                Bytes::from_static(b"last")
            ])
        );
        assert_eq!(parts.whole([1; 16], 1), None);
    }
}

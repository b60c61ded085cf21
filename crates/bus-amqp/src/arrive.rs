//! How a handle that knows nothing of a log comes to its end, or to one of its items.

use std::sync::Arc;

use crate::chain::{Chain, Place, Remains};
use crate::fault::Fault;
use crate::feed::{Delivered, Feed, Start, left_out};
use crate::known::Recent;
use crate::message::{Header, Record};
use crate::scan::{Log, Scan};
use crate::server::{CREDIT, Desk, Hearing};

/// A queue that is no longer than this is read from its beginning.
const SHORT: u64 = 128;
/// How far the search for an item goes before the queue is gone along.
const NEAR: u64 = 24;

/// At the end of a log.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) scan: Scan,
    /// What belongs, of what was seen on the way.
    pub(crate) recent: Recent,
}

impl Log {
    /// Comes to the end of the log, if there is one, or if one may be created.
    pub(crate) async fn arrive(
        &self,
        hearing: &Arc<Hearing>,
        desk: &Desk,
        may_create: bool,
    ) -> Result<Option<Arrival>, Fault> {
        let messages = match hearing.messages(&self.queue).await? {
            None if !may_create => return Ok(None),
            None => {
                hearing.declare(&self.queue).await?;
                0
            }
            Some(messages) => messages,
        };
        if messages == 0 {
            self.server.scout(&self.queue, &self.topic).await?;
        }
        let mut feed = Feed::attach(desk, &self.queue, Start::Last).await?;
        let first = feed.next().await?;
        if first.at == 0 {
            let scan = Scan::new(self, feed, Chain::from(Place::default()));
            return self.go_on_to_end(scan, &first).await.map(Some);
        }
        let (last, header) = self.look_through(feed, &first).await?;
        let header = match (header, last < SHORT) {
            (_, true) => None,
            (Some(header), false) => Some(header),
            (None, false) => self.header_before(desk, first.at).await?,
        };
        let scan = self.believed_or_beginning(desk, header).await?;
        self.go_to_end(scan).await.map(Some)
    }

    /// Goes on behind a message of which another says that it belongs, if what lies there bears that out.
    async fn believed_or_beginning(
        &self,
        desk: &Desk,
        says: Option<Header>,
    ) -> Result<Scan, Fault> {
        if let Some(says) = says
            && let Some(prev) = says.prev
        {
            let mut feed = Feed::attach(desk, &self.queue, Start::At(prev)).await?;
            let there = feed.next().await?;
            if there.at == prev
                && let Some(header) = self.header(&there)
                && header.may_be_before(&says)
            {
                let place = Place::behind(prev, &header);
                let mut scan = Scan::new(self, feed, Chain::from(place));
                scan.take(&there)?;
                return Ok(scan);
            }
        }
        self.at_the_beginning(desk).await
    }

    /// Begins with the first message. Where a queue has lost its beginning, what begins there is
    /// believed.
    pub(crate) async fn at_the_beginning(&self, desk: &Desk) -> Result<Scan, Fault> {
        let mut feed = Feed::attach(desk, &self.queue, Start::First).await?;
        let first = feed.next().await?;
        let chain = match first.at {
            0 => Chain::from(Place::default()),
            at => {
                // A channel that is new misses nothing.
                let new = self.server.hearing().await?.desk_of(CREDIT).await?;
                self.what_remains(&new, at).await?.chain()
            }
        };
        feed.put_back(first);
        Ok(Scan::new(self, feed, chain))
    }

    /// Looks through a queue that has lost its beginning, until it is told which messages belong.
    async fn what_remains(&self, desk: &Desk, begins: u64) -> Result<Remains, Fault> {
        let mut remains = Remains::new(begins);
        let mut feed = Feed::attach(desk, &self.queue, Start::First).await?;
        let mut next = Some(feed.next().await?);
        if next.as_ref().is_some_and(|of| of.at != begins) {
            return Err(left_out());
        }
        loop {
            while let Some(delivered) = next {
                let header = self.header(&delivered);
                if header.is_some_and(|header| remains.takes(delivered.at, &header)) {
                    return Ok(remains);
                }
                next = feed.ready()?;
            }
            let is_asked = feed.ask().await?;
            next = feed.ready()?;
            if next.is_none() && (!is_asked || feed.is_at_end()) {
                return Ok(remains);
            }
        }
    }

    /// Where the last message is that a feed has at this moment, and the last that looks like one.
    async fn look_through(
        &self,
        mut feed: Feed,
        first: &Delivered,
    ) -> Result<(u64, Option<Header>), Fault> {
        let (mut last, mut header) = (first.at, self.header(first));
        loop {
            let is_asked = feed.ask().await?;
            while let Some(delivered) = feed.ready()? {
                last = delivered.at;
                header = self.header(&delivered).or(header);
            }
            if !is_asked || feed.is_at_end() {
                return Ok((last, header));
            }
        }
    }

    pub(crate) async fn go_to_end(&self, mut scan: Scan) -> Result<Arrival, Fault> {
        let first = scan.next_delivered().await?;
        self.go_on_to_end(scan, &first).await
    }

    async fn go_on_to_end(&self, mut scan: Scan, first: &Delivered) -> Result<Arrival, Fault> {
        let mut recent = Recent::default();
        recent.extend(scan.take(first)?);
        match scan.catch_up(&mut recent, usize::MAX).await? {
            true => Ok(Arrival { scan, recent }),
            false => Err(Fault::no_answer("the server holds back what lies there")),
        }
    }

    /// What the last message ahead of `first` says that looks like one.
    async fn header_before(&self, desk: &Desk, mut first: u64) -> Result<Option<Header>, Fault> {
        let mut step = SHORT;
        loop {
            let Some(start) = first.checked_sub(step).filter(|start| *start > 0) else {
                return Ok(None);
            };
            step = step.saturating_mul(4);
            let mut feed = Feed::attach(desk, &self.queue, Start::At(start)).await?;
            let mut delivered = feed.next().await?;
            let mut header = None;
            while delivered.at < first {
                header = self.header(&delivered).or(header);
                delivered = feed.next().await?;
            }
            if header.is_some() {
                return Ok(header);
            }
            first = start;
        }
    }

    /// What a message of the topic says, if it can be where it lies.
    fn header(&self, delivered: &Delivered) -> Option<Header> {
        match self.read(delivered) {
            Some(Record::Message(message)) => {
                let header = message.header;
                let is_possible = header.prev.is_none_or(|prev| prev < delivered.at);
                is_possible.then_some(header)
            }
            _ => None,
        }
    }

    /// Comes to a place from which the item at `offset` is not far; the log ends at `last`.
    pub(crate) async fn search(&self, desk: &Desk, offset: u64, last: u64) -> Result<Scan, Fault> {
        if offset == 0 {
            return self.at_the_beginning(desk).await;
        }
        let (mut low, mut high) = (0, last);
        let mut best = None;
        while high.saturating_sub(low) > NEAR {
            let middle = low + (high - low) / 2;
            match self.first_from(desk, middle, high).await? {
                Some((at, header)) if header.first <= offset => {
                    low = at.max(middle);
                    best = Some(header);
                }
                _ => high = middle,
            }
        }
        self.believed_or_beginning(desk, best).await
    }

    /// The first message from `start` on and before `until` that looks like one.
    async fn first_from(
        &self,
        desk: &Desk,
        start: u64,
        until: u64,
    ) -> Result<Option<(u64, Header)>, Fault> {
        let mut feed = Feed::attach(desk, &self.queue, Start::At(start)).await?;
        loop {
            let delivered = feed.next().await?;
            if delivered.at >= until {
                return Ok(None);
            }
            if let Some(header) = self.header(&delivered) {
                return Ok(Some((delivered.at, header)));
            }
        }
    }
}

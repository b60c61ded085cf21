//! Finding items: the messages of a subject, from the one with a certain item on.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sealcast_bus::{Item, Packed, Topic};

use super::append::PACKED_MAX;
use super::feed::Feed;
use super::known::{Place, TopicState};
use super::{Found, Head, Logs};
use crate::fault::Fault;
use crate::message::Body;
use crate::server::Stored;

/// Messages and parts that are asked for one by one, before more come by themselves.
const ONE_BY_ONE: usize = 3;
/// Parts that are asked for at once.
const ASKED_AT_ONCE: usize = 16;

/// How much of what is remembered a read goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// It begins where another read ended.
    Remembered,
    /// It searches for its first item.
    Searched,
    /// It goes through the whole topic.
    Whole,
}

/// What a read is to return.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) from: u64,
    pub(super) bytes_max: usize,
}

/// Goes through the messages of a topic.
struct Walk<'a> {
    logs: &'a Logs,
    topic: &'a Topic,
    subject: &'a str,
    /// The last message that was looked at; the next lies behind it.
    at: u64,
    /// Whether any message was looked at.
    is_under_way: bool,
    asked: usize,
    feed: Option<Feed>,
    /// What was looked at last.
    taken: Option<Stored>,
}

impl<'a> Walk<'a> {
    fn behind(logs: &'a Logs, topic: &'a Topic, subject: &'a str, at: u64) -> Self {
        Self {
            logs,
            topic,
            subject,
            at,
            is_under_way: false,
            asked: 0,
            feed: None,
            taken: None,
        }
    }

    /// Begins where another walk ended.
    fn resume(
        logs: &'a Logs,
        topic: &'a Topic,
        subject: &'a str,
        place: Place,
        misses: u64,
    ) -> Self {
        Self {
            asked: place.asked,
            feed: logs.feeds.take(topic, place.seq, misses),
            ..Self::behind(logs, topic, subject, place.seq)
        }
    }

    /// The next message that belongs there, up to the one at `last`.
    async fn next(&mut self, last: u64) -> Result<Option<Found>, Fault> {
        while self.at < last {
            let Some(stored) = self.next_stored().await? else {
                return Ok(None);
            };
            if stored.seq > last {
                self.give_back(stored, self.at);
                return Ok(None);
            }
            if let Some(found) = self.look_at(stored).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next message that belongs there, where it comes by itself: has come already, or comes before the server says how
    /// the topic ends, if that is waited for.
    async fn next_come(&mut self, waits: bool) -> Result<Option<Found>, Fault> {
        let (logs, topic) = (self.logs, self.topic);
        while let Some(feed) = &mut self.feed {
            let stored = match waits {
                true => tokio::select! {
                    biased;
                    stored = feed.next() => stored,
                    _ = logs.look_at_end(topic) => None,
                },
                false => feed.come(),
            };
            let Some(stored) = stored else { break };
            if let Some(found) = self.look_at(stored).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Goes past what is stored next, and says whether it belongs there.
    async fn look_at(&mut self, stored: Stored) -> Result<Option<Found>, Fault> {
        let seq = stored.seq;
        let before = std::mem::replace(&mut self.at, seq);
        let is_first = !std::mem::replace(&mut self.is_under_way, true);
        let message = self.logs.read_message(&stored)?;
        self.taken = Some(stored);
        let Some(message) = message else {
            return Ok(None);
        };
        let prev = message.header.prev;
        // Between the last one and this there is none, unless this is where the walk began.
        let belongs = prev < seq
            && (prev >= before
                || (is_first && self.logs.is_behind(self.subject, prev, seq).await?));
        Ok(belongs.then_some(Found { seq, message }))
    }

    async fn next_stored(&mut self) -> Result<Option<Stored>, Fault> {
        let server = &self.logs.server;
        if self.feed.is_none() && self.asked >= ONE_BY_ONE {
            self.feed = Feed::open(server, self.subject, self.at).await;
            self.asked = 0;
        }
        if let Some(feed) = &mut self.feed {
            match feed.next().await {
                Some(stored) => return Ok(Some(stored)),
                None => self.feed = None,
            }
        }
        self.asked += 1;
        server.next(self.subject, self.at + 1).await
    }

    /// Lets the next walk begin with a message that comes behind the one at `at`.
    fn give_back(&mut self, stored: Stored, at: u64) {
        if let Some(feed) = &mut self.feed {
            feed.give_back(stored, at);
        }
    }

    /// The payloads of a message, wherever they are.
    async fn payloads(&mut self, found: &Found) -> Result<Packed, Fault> {
        let header = &found.message.header;
        let parts = match &found.message.body {
            Body::Inline(packed) => {
                return header.packed(vec![packed.clone()]).ok_or(Fault::Parts);
            }
            Body::InParts(parts) => parts,
        };
        if let Some((of, packed)) = &*self.logs.halfway()
            && of == header
        {
            return Ok(packed.clone());
        }
        header.packed(self.parts(parts).await?).ok_or(Fault::Parts)
    }

    /// Parts as they come by themselves, or else asked for several at once.
    async fn parts(&mut self, parts: &[u64]) -> Result<Vec<Bytes>, Fault> {
        let (mut taken, mut bytes) = (Vec::with_capacity(parts.len()), 0);
        let mut take = |part: Bytes| {
            bytes += part.len();
            taken.push(part);
            (bytes <= PACKED_MAX).then_some(()).ok_or(Fault::Parts)
        };
        if self.feed.is_some() {
            for part in parts {
                take(self.part(*part).await?)?;
            }
        } else {
            self.asked += parts.len();
            let server = &self.logs.server;
            let subject = server.subjects.part(self.topic);
            let asked = stream::iter(parts.to_vec()).map(|part| server.at(&subject, part));
            let mut coming = asked.buffered(ASKED_AT_ONCE);
            while let Some(part) = coming.next().await {
                take(part?.ok_or(Fault::Parts)?.bytes)?;
            }
        }
        Ok(taken)
    }

    async fn part(&mut self, seq: u64) -> Result<Bytes, Fault> {
        let server = &self.logs.server;
        let subject = server.subjects.part(self.topic);
        if let Some(feed) = &mut self.feed
            && let Some(bytes) = feed.part(server, &subject, seq).await
        {
            return Ok(bytes);
        }
        self.asked += 1;
        let stored = server.at(&subject, seq).await?.ok_or(Fault::Parts)?;
        Ok(stored.bytes)
    }

    /// Keeps what comes by itself for the next walk.
    fn finish(&mut self) {
        if let Some(feed) = self.feed.take() {
            self.logs.feeds.put(self.topic, feed);
        }
    }
}

impl Logs {
    /// Reads items below a topic's end.
    pub(super) async fn collect(
        &self,
        topic: &Topic,
        head: &Head,
        last: Option<Found>,
        wanted: Wanted,
        care: Care,
    ) -> Result<Vec<Item>, Fault> {
        let state = self.known.topic(topic);
        let subject = self.server.subjects.log(topic);
        let place = state.place(wanted.from);
        let mut walk = match (care, place) {
            (Care::Remembered, Some(place)) => {
                Walk::resume(self, topic, &subject, place, state.misses())
            }
            _ => Walk::behind(self, topic, &subject, 0),
        };
        let mut reading = Reading::new(self, &state, wanted);
        // Whoever gets what comes as it comes need not get it ahead, unless that is a lot.
        let is_at_once = |of: &Found| {
            let is_next = place.is_some_and(|place| place.seq == of.message.header.prev);
            head.first <= wanted.from && (of.message.is_inline() || !is_next)
        };
        if let Some(found) = last.filter(|of| walk.feed.is_none() && is_at_once(of)) {
            walk.asked = 0;
            reading.add(&mut walk, &found).await?;
            return Ok(reading.items);
        }
        walk.at = match (care, place) {
            (Care::Remembered, Some(place)) => place.seq,
            (Care::Whole, _) => 0,
            (Care::Searched, _) => {
                state.forget_places();
                self.search(&subject, head, wanted.from).await?
            }
            (Care::Remembered, None) => self.search(&subject, head, wanted.from).await?,
        };
        loop {
            let found = match walk.next(head.seq).await? {
                Some(found) => found,
                // Where more comes, no answer about the end is waited for: it would come behind that.
                None => match walk.next_come(reading.items.is_empty()).await? {
                    Some(found) => found,
                    None => break,
                },
            };
            if found.seq > head.seq {
                state.see_head(Head::of(&found, found.seq));
            }
            match reading.add(&mut walk, &found).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) if reading.items.is_empty() => return Err(fault),
                Err(_) => return Ok(reading.items),
            }
        }
        walk.finish();
        match reading.items.is_empty() {
            true => Err(Fault::Missing {
                expected: wanted.from,
            }),
            false => Ok(reading.items),
        }
    }

    /// How a topic ends before messages that do not belong there. What lies before its end as it is
    /// `known` is not looked at.
    pub(super) async fn walk_to_end(
        &self,
        topic: &Topic,
        subject: &str,
        known: Option<Head>,
        last: u64,
    ) -> Result<Head, Fault> {
        let mut head = known.filter(|of| of.last <= last).unwrap_or_default();
        let mut walk = Walk::behind(self, topic, subject, head.last);
        while let Some(found) = walk.next(last).await? {
            head = Head::of(&found, last);
        }
        head.last = last;
        Ok(head)
    }

    /// What lies below a topic's first offset that is left, in whole messages.
    pub(super) async fn trimmed(
        &self,
        topic: &Topic,
        subject: &str,
        head: &Head,
    ) -> Result<Trimmed, Fault> {
        let mut walk = Walk::behind(self, topic, subject, 0);
        let mut parts = Vec::new();
        while let Some(found) = walk.next(head.seq).await? {
            let is_left = found.message.header.end() > head.left;
            if is_left || found.seq == head.seq {
                let until = found.seq;
                return Ok(Trimmed { parts, until });
            }
            if let Body::InParts(of) = found.message.body {
                parts.extend(of);
            }
        }
        // Others have trimmed it meanwhile, and more.
        let (parts, until) = (Vec::new(), 1);
        Ok(Trimmed { parts, until })
    }

    /// Finds a message behind which the one with the item at `offset` is, not far.
    async fn search(&self, subject: &str, head: &Head, offset: u64) -> Result<u64, Fault> {
        let Some(oldest) = self.server.next(subject, 1).await? else {
            return Ok(0);
        };
        // The item is in a message at `low` or behind it, and before `high`.
        let (mut low, mut high) = (oldest.seq, head.seq);
        while high.saturating_sub(low) > 1 {
            let middle = low + (high - low) / 2;
            let Some((seq, first)) = self.readable(subject, middle, high).await? else {
                high = middle;
                continue;
            };
            match first <= offset {
                true => low = seq,
                false => high = middle,
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// The first message from `seq` on and before `until` that is one, and its first offset.
    async fn readable(
        &self,
        subject: &str,
        mut seq: u64,
        until: u64,
    ) -> Result<Option<(u64, u64)>, Fault> {
        while let Some(stored) = self.server.next(subject, seq).await? {
            if stored.seq >= until {
                return Ok(None);
            }
            if let Some(message) = self.read_message(&stored)? {
                return Ok(Some((stored.seq, message.header.first)));
            }
            seq = stored.seq + 1;
        }
        Ok(None)
    }
}

/// What a trim can free.
#[derive(Debug)]
pub(super) struct Trimmed {
    /// Parts of large appends, by sequence number.
    pub(super) parts: Vec<u64>,
    /// The message before which all others can go; 1 for none.
    pub(super) until: u64,
}

/// Items on their way to whoever reads.
struct Reading<'a> {
    logs: &'a Logs,
    state: &'a TopicState,
    items: Vec<Item>,
    /// The next offset.
    next: u64,
    /// Bytes that there is room for.
    room: usize,
}

impl<'a> Reading<'a> {
    fn new(logs: &'a Logs, state: &'a TopicState, wanted: Wanted) -> Self {
        Self {
            logs,
            state,
            items: Vec::new(),
            next: wanted.from,
            room: wanted.bytes_max,
        }
    }

    /// Adds what is wanted of a message; says whether there is room for more.
    async fn add(&mut self, walk: &mut Walk<'_>, found: &Found) -> Result<bool, Fault> {
        let header = &found.message.header;
        if header.end() <= self.next {
            return Ok(true);
        }
        if header.first > self.next {
            return Err(Fault::Missing {
                expected: self.next,
            });
        }
        let packed = walk.payloads(found).await?;
        let is_whole = packed.add_to(&mut self.items, self.next, &mut self.room);
        let asked = walk.asked;
        match is_whole {
            true => {
                self.next = header.end();
                let seq = found.seq;
                self.state.put_place(self.next, Place { seq, asked });
                self.logs.halfway().take_if(|(of, _)| of == header);
            }
            false => {
                let seq = header.prev;
                self.state.put_place(header.first, Place { seq, asked });
                if let Some(stored) = walk.taken.take() {
                    walk.give_back(stored, seq);
                }
                if matches!(found.message.body, Body::InParts(_)) {
                    *self.logs.halfway() = Some((*header, packed));
                }
            }
        }
        Ok(is_whole && self.room > 0)
    }
}

//! Finding items: the messages of a subject, from the one with a certain item on.

use std::collections::VecDeque;

use sealcast_bus::{Item, Topic};

use super::known::TopicState;
use super::{Found, Head, Logs};
use crate::fault::Fault;
use crate::message::Body;
use crate::server::Stored;

/// Messages that are asked for one by one, before several are asked for at once.
const ONE_BY_ONE: usize = 3;

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

/// Goes through the messages of a subject.
struct Walk<'a> {
    logs: &'a Logs,
    subject: &'a str,
    /// The last message that was looked at; the next lies behind it.
    at: u64,
    /// Whether any message was looked at.
    is_under_way: bool,
    asked: usize,
    ahead: VecDeque<Stored>,
}

impl<'a> Walk<'a> {
    fn behind(logs: &'a Logs, subject: &'a str, at: u64) -> Self {
        Self {
            logs,
            subject,
            at,
            is_under_way: false,
            asked: 0,
            ahead: VecDeque::new(),
        }
    }

    /// The next message that belongs there, up to the one at `last`.
    async fn next(&mut self, last: u64) -> Result<Option<Found>, Fault> {
        while self.at < last {
            let Some(stored) = self.next_stored().await? else {
                return Ok(None);
            };
            let before = std::mem::replace(&mut self.at, stored.seq);
            let is_first = !std::mem::replace(&mut self.is_under_way, true);
            if stored.seq > last {
                return Ok(None);
            }
            let Some(message) = self.logs.read_message(&stored)? else {
                continue;
            };
            let prev = message.header.prev;
            let (logs, subject, seq) = (self.logs, self.subject, stored.seq);
            // Between the last one and this there is none, unless this is where the walk began.
            let belongs = prev < seq
                && (prev >= before || (is_first && logs.is_behind(subject, prev, seq).await?));
            if belongs {
                return Ok(Some(Found { seq, message }));
            }
        }
        Ok(None)
    }

    async fn next_stored(&mut self) -> Result<Option<Stored>, Fault> {
        if let Some(stored) = self.ahead.pop_front() {
            return Ok(Some(stored));
        }
        let (server, from) = (&self.logs.server, self.at + 1);
        self.asked += 1;
        if self.asked > ONE_BY_ONE {
            self.ahead = server.ahead(self.subject, from).await.into();
        }
        match self.ahead.pop_front() {
            Some(stored) => Ok(Some(stored)),
            None => server.next(self.subject, from).await,
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
        let mut reading = Reading::new(self, &state, wanted);
        if let Some(found) = last.filter(|_| head.first <= wanted.from) {
            reading.add(&found).await?;
            return Ok(reading.items);
        }
        let subject = self.server.subjects.log(topic);
        let start = match care {
            Care::Remembered => match state.place(wanted.from) {
                Some(seq) => seq,
                None => self.search(&subject, head, wanted.from).await?,
            },
            Care::Searched => {
                state.forget_places();
                self.search(&subject, head, wanted.from).await?
            }
            Care::Whole => 0,
        };
        let mut walk = Walk::behind(self, &subject, start);
        while let Some(found) = walk.next(head.seq).await? {
            match reading.add(&found).await {
                Ok(true) => {}
                Ok(false) => return Ok(reading.items),
                Err(fault) if reading.items.is_empty() => return Err(fault),
                Err(_) => return Ok(reading.items),
            }
        }
        match reading.items.is_empty() {
            true => Err(Fault::Missing {
                expected: wanted.from,
            }),
            false => Ok(reading.items),
        }
    }

    /// How a topic ends before messages that do not belong there.
    pub(super) async fn walk_to_end(&self, subject: &str, last: u64) -> Result<Head, Fault> {
        let mut walk = Walk::behind(self, subject, 0);
        let mut head = Head::default();
        while let Some(found) = walk.next(last).await? {
            head = Head::of(&found, last);
        }
        head.last = last;
        Ok(head)
    }

    /// What lies below a topic's first offset that is left, in whole messages.
    pub(super) async fn trimmed(&self, subject: &str, head: &Head) -> Result<Trimmed, Fault> {
        let mut walk = Walk::behind(self, subject, 0);
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
    async fn add(&mut self, found: &Found) -> Result<bool, Fault> {
        let header = &found.message.header;
        if header.end() <= self.next {
            return Ok(true);
        }
        if header.first > self.next {
            return Err(Fault::Missing {
                expected: self.next,
            });
        }
        let packed = self.logs.payloads(&found.message).await?;
        let is_whole = packed.add_to(&mut self.items, self.next, &mut self.room);
        match is_whole {
            true => {
                self.next = header.end();
                self.state.put_place(self.next, found.seq);
                self.logs.halfway().take_if(|(id, _)| *id == header.id);
            }
            false => {
                self.state.put_place(header.first, header.prev);
                if matches!(found.message.body, Body::InParts(_)) {
                    *self.logs.halfway() = Some((header.id, packed));
                }
            }
        }
        Ok(is_whole && self.room > 0)
    }
}

//! Appending: one message, which belongs if no other came first. A trim is one without items.

use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::{Attempts, BusError, Offset, Packed, Topic, jittered};
use tokio::time::sleep;

use super::Logs;
use crate::chain::Place;
use crate::fault::Fault;
use crate::known::{Head, Open};
use crate::message::{
    AppendId, Body, HEAD_BYTES_MAX, Header, Message, PartsId, Record, pack_in_parts,
};
use crate::scan::{PACKED_MAX, Scan};
use crate::server::FRAME_MAX;

/// Bytes of packed payloads that go into one message, so that it fits into one frame of those who read.
const INLINE_MAX: usize = 124 << 10;
const _: () = assert!(INLINE_MAX + HEAD_BYTES_MAX < FRAME_MAX as usize);

/// After so many times that others came first, an append waits before it tries again.
const CROWDED: u32 = 3;
const CROWD_PAUSE: Duration = Duration::from_millis(10);

/// What an append puts behind the end of a topic.
pub(super) struct Addition {
    /// Another one for each message of which it is known that it does not belong: whoever has seen that may use its name.
    pub(super) id: AppendId,
    count: u32,
    pub(super) content: Content,
    /// What is trimmed with it.
    before: u64,
}

/// The packed payloads of an append.
pub(super) enum Content {
    Whole(Bytes),
    /// Messages, and where in the queue they are, or behind that, once they are there.
    Parts {
        id: PartsId,
        parts: Vec<Bytes>,
        since: Option<u64>,
    },
}

/// How far an append has come.
#[derive(Default)]
pub(super) struct Progress {
    /// It was published behind this place, and its fate is open.
    pub(super) behind: Option<Place>,
    lost: u32,
}

/// A message that belongs, and where it lies.
type Put = (u64, Header);

impl Logs {
    /// Appends payloads, where the topic ends at `at` if that is given; returns the first offset, or
    /// nothing where it ends elsewhere.
    pub(crate) async fn append(
        &self,
        topic: &Topic,
        at: Option<Offset>,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Option<Offset>, BusError> {
        let appended = async {
            let mut addition = Addition::of(&payloads)?;
            drop(payloads);
            let open = self.known.open(topic);
            self.put(&open, at, &mut addition, Progress::default())
                .await
        };
        let put = appended.await;
        let put = put.map_err(|fault| self.server.fault(fault))?;
        Ok(put.map(|(_, header)| Offset(header.first)))
    }

    pub(crate) async fn trim(&self, topic: &Topic, before: Offset) -> Result<(), BusError> {
        let trimmed = async {
            let open = self.known.open(topic);
            let mut attempts = Attempts::new();
            let place = loop {
                match self.place(&open).await {
                    Ok(place) => break place,
                    Err(fault) => attempts.after(fault).await?,
                }
            };
            if before.0.min(place.end) > place.left {
                let mut addition = Addition {
                    id: new_id()?,
                    count: 0,
                    content: Content::Whole(Bytes::new()),
                    before: before.0,
                };
                self.put(&open, None, &mut addition, Progress::default())
                    .await?;
            }
            Ok(())
        };
        trimmed.await.map_err(|fault| self.server.fault(fault))
    }

    /// Puts a message behind the last one, unless the topic does not end at `at`.
    pub(super) async fn put(
        &self,
        open: &Open,
        at: Option<Offset>,
        addition: &mut Addition,
        mut progress: Progress,
    ) -> Result<Option<Put>, Fault> {
        let mut attempts = Attempts::new();
        loop {
            let mut slot = open.head.lock().await;
            let tried = self
                .try_put(open, &mut slot, at, addition, &mut progress)
                .await;
            let fault = match tried {
                Ok(Some(put)) => return Ok(put),
                Ok(None) => {
                    drop(slot);
                    if progress.behind.is_none() {
                        addition.id = new_id()?;
                    }
                    progress.lost += 1;
                    if progress.lost >= CROWDED {
                        sleep(jittered(CROWD_PAUSE)).await;
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            // What is remembered may be of a connection that broke.
            *slot = None;
            // Others may read while this waits.
            drop(slot);
            let waited = attempts.after(fault).await;
            waited.map_err(|fault| progress.judge(fault))?;
        }
    }

    /// Tries once. Nothing is returned where others came first, `Some(None)` where the topic does
    /// not end at `at`.
    async fn try_put(
        &self,
        open: &Open,
        slot: &mut Option<Head>,
        at: Option<Offset>,
        addition: &mut Addition,
        progress: &mut Progress,
    ) -> Result<Option<Option<Put>>, Fault> {
        if let Some(behind) = progress.behind {
            let next = self.next_behind(open, slot, behind).await?;
            if let Some(next) = next {
                progress.behind = None;
                return Ok((next.1.id == addition.id).then_some(Some(next)));
            }
        }
        let mut head = self.head_to_write(open, slot, at).await?;
        let place = head.scan.place();
        if progress.behind.is_some_and(|behind| behind.id != place.id) {
            // Stored a moment ago: what lies behind that place is to be seen first.
            *slot = Some(head);
            return Ok(None);
        }
        if at.is_some_and(|at| at.0 != place.end) {
            *slot = Some(head);
            return Ok(Some(None));
        }
        let header = addition.header(&place)?;
        let mut alone_at = None;
        if addition.content.has_parts_to_send() {
            // None of them is to be delivered back.
            head.scan.end(&mut head.recent).await?;
            if head.scan.place() != place {
                return Ok(None);
            }
            let seen = head.scan.seen();
            alone_at = self.send_parts(open, addition, seen).await?;
        }
        let message = Record::Message(Message {
            header,
            body: addition.body(),
        });
        self.server.check_room().await?;
        // From here on it is not known whether it was stored, until it or another is seen.
        progress.behind = Some(place);
        let bytes = Bytes::from(message.encode(&open.log.topic));
        self.server.publish(&open.log.queue, &[bytes]).await?;
        let next = match alone_at {
            None => {
                let found = head.scan.found().await?;
                let next = (found.at, found.header);
                head.recent.extend([found]);
                *slot = Some(head);
                Some(next)
            }
            Some(at) => match self.find_alone(open, place, header.id, at).await? {
                Some(head) => {
                    *slot = Some(head);
                    Some((at, header))
                }
                None => self.next_behind(open, slot, place).await?,
            },
        };
        let Some(next) = next else {
            return Ok(None);
        };
        progress.behind = None;
        Ok((next.1.id == addition.id).then_some(Some(next)))
    }

    /// Stores the parts of a large append. Returns where its message will lie if nothing else comes.
    async fn send_parts(
        &self,
        open: &Open,
        addition: &mut Addition,
        seen: u64,
    ) -> Result<Option<u64>, Fault> {
        let Content::Parts { parts, since, .. } = &mut addition.content else {
            return Ok(None);
        };
        self.server.publish(&open.log.queue, parts).await?;
        *since = Some(seen);
        Ok(seen.checked_add(parts.len() as u64))
    }

    /// Finds an append where it lies if nothing but its parts came since the place was seen. Its parts lie
    /// between that place and it, so that there is room for nothing else, and they need not be read.
    async fn find_alone(
        &self,
        open: &Open,
        place: Place,
        id: AppendId,
        at: u64,
    ) -> Result<Option<Head>, Fault> {
        let hearing = self.server.hearing().await?;
        let scan = Scan::at(&open.log, &hearing.desk, place, at).await?;
        let Some(mut scan) = scan else {
            return Ok(None);
        };
        let found = scan.found_until(at).await?;
        let is_there = found.is_some_and(|found| found.header.id == id);
        Ok(is_there.then(|| Head::from(scan)))
    }

    /// What came behind a place, at which an append is in doubt, if anything did.
    async fn next_behind(
        &self,
        open: &Open,
        slot: &mut Option<Head>,
        place: Place,
    ) -> Result<Option<Put>, Fault> {
        let hearing = self.server.hearing().await?;
        let scan = Scan::behind(&open.log, &hearing.desk, place).await?;
        let arrival = open.log.go_to_end(scan).await?;
        let next = arrival.recent.first();
        *slot = Some(Head::from(arrival));
        Ok(next)
    }

    /// The end of a log, which is created if it is not there. It may be older than this moment, if it
    /// is as wanted.
    pub(super) async fn head_to_write(
        &self,
        open: &Open,
        slot: &mut Option<Head>,
        at: Option<Offset>,
    ) -> Result<Head, Fault> {
        if let Some(mut head) = slot.take().filter(|of| of.scan.is_up()) {
            head.scan.take_ready(&mut head.recent)?;
            if at.is_none_or(|at| at.0 == head.scan.place().end) {
                return Ok(head);
            }
            *slot = Some(head);
        }
        if slot.is_some() {
            self.come_to_end(open, slot).await?;
        }
        if slot.is_none() {
            *slot = self.begin(open, true).await?;
        }
        slot.take()
            .ok_or_else(|| Fault::no_answer("the queue is gone"))
    }
}

impl Progress {
    /// Nothing can be said of an append whose fate is open: the server may store it yet.
    fn judge(&self, fault: Fault) -> Fault {
        if self.behind.is_none() || matches!(fault, Fault::NoAnswer(_)) {
            return fault;
        }
        Fault::NoAnswer(Box::new(fault))
    }
}

impl Addition {
    pub(super) fn of(payloads: &[impl AsRef<[u8]>]) -> Result<Self, Fault> {
        let too_many = || Fault::Odd("more payloads than an append may have");
        Ok(Self {
            id: new_id()?,
            count: u32::try_from(payloads.len()).map_err(|_| too_many())?,
            content: Content::of(new_id()?, payloads).ok_or_else(too_many)?,
            before: 0,
        })
    }

    /// What its message says of it where it is put behind a place.
    pub(super) fn header(&self, place: &Place) -> Result<Header, Fault> {
        let full = || Fault::Odd("no more offsets are left");
        let end = place.end.checked_add(u64::from(self.count));
        let end = end.ok_or_else(full)?;
        Ok(Header {
            prev: place.last,
            behind: place.id,
            first: place.end,
            count: self.count,
            left: place.left.max(self.before.min(end)),
            id: self.id,
        })
    }

    fn body(&self) -> Body {
        let since = match &self.content {
            Content::Parts { since, .. } => *since,
            Content::Whole(_) => None,
        };
        self.body_since(since.unwrap_or_default())
    }

    /// Its body, where parts are at a place in the queue or behind.
    pub(super) fn body_since(&self, since: u64) -> Body {
        match &self.content {
            Content::Whole(packed) => Body::Inline(packed.clone()),
            Content::Parts { id, parts, .. } => Body::InParts {
                id: *id,
                since,
                count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
            },
        }
    }
}

impl Content {
    /// Packs payloads, unless that is too many bytes.
    fn of(id: PartsId, payloads: &[impl AsRef<[u8]>]) -> Option<Self> {
        let sizes = payloads.iter().map(|of| of.as_ref().len());
        let bytes: usize = sizes.map(|size| size + size_of::<u32>()).sum();
        if bytes <= INLINE_MAX {
            return Some(Self::Whole(Packed::pack(payloads)?.into()));
        }
        if bytes > PACKED_MAX {
            return None;
        }
        Some(Self::Parts {
            id,
            parts: pack_in_parts(id, payloads, INLINE_MAX)?,
            since: None,
        })
    }

    /// Its parts are there, of which the first lies at a place in the queue or behind.
    pub(super) fn came_since(&mut self, at: u64) {
        if let Self::Parts { since, .. } = self {
            *since = Some(at);
        }
    }

    fn has_parts_to_send(&self) -> bool {
        matches!(self, Self::Parts { since: None, .. })
    }
}

pub(super) fn new_id() -> Result<AppendId, Fault> {
    let mut id = AppendId::default();
    getrandom::fill(&mut id).map_err(|_| Fault::Odd("no randomness"))?;
    Ok(id)
}

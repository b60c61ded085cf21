//! Copying a stream to another bus, still sealed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Bus, BusError, BusUrl, Item, Offset, Place, Tail, Topic};
use tokio::time::{Instant, timeout};

use crate::core::{Core, READ_BYTES};
use crate::error::Error;
use crate::home::{check_there, topic};

mod copy;
mod guide;
mod lacking;

pub use copy::{BusCopy, StreamCopy};
use guide::{Guide, Rank};
use lacking::Lacking;

/// How often to look whether there are new topics.
const TICK: Duration = Duration::from_secs(1);
/// How often to look whether the bus still shows what was copied from it.
const COMPARE_AGAIN: Duration = Duration::from_secs(30);
/// Before the name of the topic that says where the items of another come from.
const ORIGIN: &str = "archive/";

/// Copies all that a bus has of a stream to another bus, topic by topic, item by item; made by
/// [`Stream::archive_to`](crate::Stream::archive_to).
///
/// Nothing is opened, so that no key is needed. What was copied is a bus of its own with the same
/// topics: a ticket that names it leads readers to it. Each batch is read back and compared. Items
/// are copied once, in order: the place where the next comes from is known by the items that are
/// there, and by a note in a topic of the archive where the bus has trimmed or lost some.
pub struct Archive {
    way: Way,
    cursors: BTreeMap<Topic, Cursor>,
    /// Topics that are not copied yet as far as they are to be.
    behind: BTreeMap<(Rank, Topic), Offset>,
    tail: Option<Box<dyn Tail>>,
    /// What the bus handed out and that is not copied yet.
    inbox: Option<(Topic, Vec<Item>)>,
    /// When it was last compared with the bus where it stands.
    compared_at: Instant,
}

/// From the bus of a stream to the archive.
#[derive(Debug)]
struct Way {
    guide: Guide,
    from: Arc<dyn Bus>,
    to: Arc<dyn Bus>,
    /// What the archive is called in errors.
    place: String,
}

/// What one step of an [`Archive`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Archived {
    /// Items that were copied.
    pub items: u64,
    /// Bytes of these items.
    pub bytes: u64,
    /// Whether a topic of the archive did not end with what was copied from the bus: the bus was
    /// emptied or put back to an older state, or somebody wrote to the archive. It keeps what it
    /// has, and takes in what it lacks.
    pub differed: bool,
}

/// Where a topic of the archive ends, and where the next item comes from.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    end: Offset,
    next: Offset,
    /// Whether the last item of the archive is the one before the next of the bus.
    is_in_step: bool,
}

impl Archive {
    pub(crate) async fn open(core: Arc<Core>, url: &BusUrl) -> Result<Self, Error> {
        let own = BusUrl::parse(core.ticket.bus()).map_err(Error::BusUrl)?;
        if same_bus(&own, url) {
            return Err(Error::ArchiveIsBus);
        }
        check_there(url)?;
        core.sync().await?;
        let mut to = core.home.connect(url).await?;
        if to.end(&core.data_topic()?).await.is_err() {
            // Another folder may have taken the place of the one that is open.
            core.home.disconnect(url);
            to = core.home.connect(url).await?;
        }
        Ok(Self::along(Way {
            from: core.bus.clone(),
            guide: Guide::Core(core),
            to,
            place: url.to_string(),
        }))
    }

    fn along(way: Way) -> Self {
        Self {
            way,
            cursors: BTreeMap::new(),
            behind: BTreeMap::new(),
            tail: None,
            inbox: None,
            compared_at: Instant::now(),
        }
    }

    /// Copies the next items, waiting for some where there are none. A caller may stop waiting and
    /// come back: nothing is lost, and nothing copied twice.
    ///
    /// # Errors
    ///
    /// Fails when one of the two buses cannot be used, or the archive does not give back what was
    /// written to it. It may be called again, after a while, and goes on.
    pub async fn next(&mut self) -> Result<Archived, Error> {
        let step = self.step().await;
        if step.is_err() {
            self.begin_anew();
        }
        step
    }

    async fn step(&mut self) -> Result<Archived, Error> {
        loop {
            if self.compared_at.elapsed() >= COMPARE_AGAIN {
                self.begin_anew();
            }
            if let Some(copied) = self.copy_behind().await? {
                return Ok(copied);
            }
            if let Some((topic, items)) = self.inbox.take() {
                // Back in its place until it is copied: this future may be dropped.
                self.inbox = Some((topic.clone(), items.clone()));
                let copied = self.copy(&topic, &items).await?;
                self.inbox = None;
                self.way.guide.learn_of(&topic).await?;
                if copied != Archived::default() {
                    return Ok(copied);
                }
            }
            let from = &self.way.from;
            let places = || self.cursors.iter().map(|(of, at)| (of.clone(), at.next));
            let tail = self
                .tail
                .get_or_insert_with(|| from.tail(places().collect()));
            if let Ok(news) = timeout(TICK, tail.next()).await {
                self.inbox = Some(news?);
            }
        }
    }

    /// Forgets where it stands; the archive itself says so.
    fn begin_anew(&mut self) {
        self.cursors.clear();
        self.behind.clear();
        self.tail = None;
        self.inbox = None;
        self.compared_at = Instant::now();
    }

    /// Copies some of what is not copied yet of the topics that are behind; `None` where none is.
    async fn copy_behind(&mut self) -> Result<Option<Archived>, Error> {
        loop {
            self.take_up_topics()?;
            let Some((of, until)) = self.behind.first_key_value() else {
                return Ok(None);
            };
            let (of, until) = (of.clone(), *until);
            let topic = &of.1;
            let (cursor, mended) = self.cursor(topic).await?;
            if mended.differed {
                return Ok(Some(mended));
            }
            let items = match cursor.next < until {
                true => self.way.from.read(topic, cursor.next, READ_BYTES).await?,
                false => Vec::new(),
            };
            if items.is_empty() {
                self.behind.remove(&of);
                continue;
            }
            let copied = self.copy(topic, &items).await?;
            self.way.guide.learn_of(topic).await?;
            return Ok(Some(copied));
        }
    }

    /// Begins with the topics that came to be known.
    fn take_up_topics(&mut self) -> Result<(), Error> {
        for of in self.way.guide.topics()? {
            let is_known = self.cursors.contains_key(&of.1) || self.behind.contains_key(&of);
            if !is_known {
                self.behind.insert(of, Offset(u64::MAX));
                self.tail = None;
            }
        }
        Ok(())
    }

    /// Where a topic stands, looked up in the archive where this is not known.
    async fn cursor(&mut self, topic: &Topic) -> Result<(Cursor, Archived), Error> {
        let mut mended = Archived::default();
        let cursor = match self.cursors.get(topic) {
            Some(cursor) => *cursor,
            None => {
                let mut cursor = self.way.look_up(topic).await?;
                if !self.way.agrees(topic, cursor).await? {
                    (cursor, mended) = self.way.mend(topic, cursor).await?;
                }
                cursor
            }
        };
        self.cursors.insert(topic.clone(), cursor);
        Ok((cursor, mended))
    }

    /// Copies items of a topic, those that are not copied yet.
    async fn copy(&mut self, topic: &Topic, items: &[Item]) -> Result<Archived, Error> {
        let (mut cursor, mut copied) = self.cursor(topic).await?;
        let new = items.iter().filter(|item| item.offset >= cursor.next);
        let new: Vec<&Item> = new.collect();
        for run in new.chunk_by(|a, b| behind(a) == b.offset) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            if first.offset != cursor.next {
                self.way.note(topic, cursor.end, first.offset).await?;
            }
            let payloads: Vec<_> = run.iter().map(|item| item.payload.clone()).collect();
            copied.count(&payloads);
            cursor.end = self.way.write(topic, cursor.end, payloads).await?;
            cursor.next = behind(last);
            cursor.is_in_step = true;
            self.cursors.insert(topic.clone(), cursor);
        }
        Ok(copied)
    }
}

impl Way {
    async fn look_up(&self, topic: &Topic) -> Result<Cursor, Error> {
        let end = self.to.end(topic).await?;
        let notes = origin(topic)?;
        let last = self.to.end(&notes).await?.0.checked_sub(1);
        let note = match last {
            Some(last) => self.to.read(&notes, Offset(last), 1).await?,
            None => Vec::new(),
        };
        let note = note.first().and_then(|item| Note::read(&item.payload));
        let note = note.unwrap_or_default();
        Ok(Cursor {
            end,
            next: Offset(note.from.saturating_add(end.0.saturating_sub(note.at))),
            is_in_step: end.0 > note.at,
        })
    }

    /// Whether the bus still shows what was copied from it, as far as its last item tells.
    async fn agrees(&self, topic: &Topic, cursor: Cursor) -> Result<bool, Error> {
        let from = &self.from;
        let before = |offset: Offset| offset.0.checked_sub(1).map(Offset);
        let (Some(copied), Some(shown)) = (before(cursor.end), before(cursor.next)) else {
            return Ok(true);
        };
        if !cursor.is_in_step {
            return Ok(from.end(topic).await? >= cursor.next);
        }
        let copied = self.to.read(topic, copied, 1).await?;
        let first = from.read(topic, shown, 1).await?;
        Ok(match (copied.first(), first.first()) {
            (Some(copied), Some(first)) => first.offset > shown || first.payload == copied.payload,
            (_, None) => false,
            (None, _) => true,
        })
    }

    /// Takes in what a bus that went back shows and the archive lacks.
    async fn mend(&self, topic: &Topic, cursor: Cursor) -> Result<(Cursor, Archived), Error> {
        let mut lacking = Lacking::of(&*self.from, (&*self.to, cursor), topic);
        let mut mended = Archived {
            differed: true,
            ..Archived::default()
        };
        let mut end = cursor.end;
        while let Some(payloads) = lacking.next().await? {
            mended.count(&payloads);
            end = self.write(topic, end, payloads).await?;
        }
        let next = lacking.reached();
        self.note(topic, end, next).await?;
        let cursor = Cursor {
            end,
            next,
            is_in_step: false,
        };
        Ok((cursor, mended))
    }

    /// Appends to a topic of the archive that ends at an offset, and reads back what was appended.
    /// Returns where it ends then.
    async fn write(
        &self,
        topic: &Topic,
        end: Offset,
        payloads: Vec<Vec<u8>>,
    ) -> Result<Offset, Error> {
        if payloads.is_empty() {
            return Ok(end);
        }
        if !self.to.append_at(topic, end, payloads.clone()).await? {
            return Err(Error::Bus(BusError::Busy {
                place: self.place.clone(),
            }));
        }
        let mut at = end;
        let mut wanted = payloads.iter();
        while wanted.len() > 0 {
            let items = self.to.read(topic, at, READ_BYTES).await?;
            let is_there = !items.is_empty()
                && items
                    .iter()
                    .zip(&mut wanted)
                    .all(|(item, wanted)| item.payload == *wanted);
            if !is_there {
                return Err(Error::Bus(BusError::Damaged {
                    place: self.place.clone(),
                    cause: "it does not give back what was written".into(),
                }));
            }
            at = items.last().map_or(at, behind);
        }
        Ok(Offset(end.0.saturating_add(payloads.len() as u64)))
    }

    /// Notes that the item that comes next to lie in the archive has another place on the bus than
    /// follows from the one before.
    async fn note(&self, topic: &Topic, at: Offset, from: Offset) -> Result<(), Error> {
        let note = Note {
            at: at.0,
            from: from.0,
        };
        let bytes = note.to_bytes();
        self.to.append(&origin(topic)?, vec![bytes]).await?;
        Ok(())
    }
}

impl Archived {
    fn add(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.differed |= other.differed;
    }

    fn count(&mut self, payloads: &[Vec<u8>]) {
        self.items += payloads.len() as u64;
        self.bytes += payloads.iter().map(|of| of.len() as u64).sum::<u64>();
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("topics", &self.cursors.len())
            .field("behind", &self.behind.len())
            .finish_non_exhaustive()
    }
}

/// From the item at `at` of the archive on, items come from `from` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Note {
    at: u64,
    from: u64,
}

impl Note {
    fn to_bytes(self) -> Vec<u8> {
        [self.at.to_be_bytes(), self.from.to_be_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk()?;
        Some(Self {
            at: u64::from_be_bytes(*at),
            from: u64::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

fn origin(of: &Topic) -> Result<Topic, Error> {
    topic(&format!("{ORIGIN}{of}"))
}

fn behind(item: &Item) -> Offset {
    Offset(item.offset.0.saturating_add(1))
}

/// Whether two URLs name one bus, as far as that can be told without asking it.
pub(crate) fn same_bus(a: &BusUrl, b: &BusUrl) -> bool {
    let (Place::File(a), Place::File(b)) = (a.place(), b.place()) else {
        return a == b;
    };
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_from_its_bytes_and_from_no_others() {
        let note = Note { at: 3, from: 7 };
        assert_eq!(Note::read(&note.to_bytes()), Some(note));
        assert_eq!(Note::read(&note.to_bytes()[..15]), None);
        assert_eq!(Note::read(&[0; 17]), None);
    }
}

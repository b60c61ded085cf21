//! A file bus that takes in what another bus brings, each message once.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::far::{FAR_MIN, FarPlace, FarWriter};
use super::fault::Fault;
use super::known::{Known, Tail, digest};
use super::pack::{self, Packing};
use super::schema::Format;
use super::write::{self, Action, Change};
use super::{FileBus, scan, schema};
use crate::{Bus as _, BusError, Offset, Topic};

/// Parts that are kept, of all messages together; of more, the oldest are dropped.
const PARTS_MAX: i64 = 4_096;
/// The bytes of them beyond which the oldest are dropped, too.
const PART_BYTES_MAX: i64 = 512 << 20;
/// The most bytes of a whole; of what has more nothing is joined.
const WHOLE_MAX: i64 = 64 << 20;
/// How far above the end of a topic stamps may be. Whoever writes higher ones has no say in the next.
const STAMPS_AHEAD_MAX: u64 = 1 << 32;

/// What a message on another bus is known by.
pub type ArrivalId = [u8; 16];

/// An append that was made on another bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub topic: Topic,
    /// What it is known by there.
    pub id: ArrivalId,
    /// A number by which its writer placed it.
    pub stamp: u64,
    /// What was appended.
    pub payloads: Vec<Bytes>,
    /// Whether this home wrote it.
    pub is_own: bool,
    /// In how many parts it came; 0 for one that came in one piece.
    pub parts: u32,
}

/// Where an arrival lies in a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What it is known by.
    pub id: ArrivalId,
    /// The number by which its writer placed it.
    pub stamp: u64,
    /// The offset of its first item.
    pub first: Offset,
    /// The offset behind its last.
    pub behind: Offset,
    /// Whether this home wrote it.
    pub is_own: bool,
    /// When it was taken in, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// In how many parts it came last; 0 for one that came in one piece.
    pub parts: u32,
}

/// A part of an arrival that is too large for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivalPart {
    /// Where the whole belongs.
    pub topic: Topic,
    /// What the whole is known by.
    pub id: ArrivalId,
    /// Which part it is, from 0 on.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A [`FileBus`] in which a home keeps what another bus brings.
///
/// For a bus that has no stored log, or none with one order: items lie here in the order in which
/// this home got them, and each once, however often they come. Several processes may take in at
/// once. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Mirror {
    bus: FileBus,
}

impl Mirror {
    /// Opens the mirror in `folder`; creates what is missing of it.
    ///
    /// # Errors
    ///
    /// As [`FileBus::open`].
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, BusError> {
        let folder = folder.as_ref().to_owned();
        let opening = scan::run_blocking(move || FileBus::open_as(&folder, Format::MIRROR));
        let mirror = Self {
            bus: opening.await?,
        };
        let folder = mirror.bus.readers.folder().to_owned();
        let sweep = move |connection: &mut Connection| FarWriter::new(&folder).sweep(connection);
        mirror.bus.readers.run(sweep).await?;
        Ok(mirror)
    }

    /// What lies there, to read and to follow.
    pub fn bus(&self) -> &FileBus {
        &self.bus
    }

    /// Takes in arrivals in their order, and returns where the first item of each lies. One that is
    /// there already, with the same payloads, is not taken in again.
    ///
    /// All of it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// As [`append`](crate::Bus::append). None of the arrivals was taken in then; they may come again.
    pub async fn take_in(
        &self,
        arrivals: impl Into<Arc<[Arrival]>>,
    ) -> Result<Vec<Offset>, BusError> {
        let arrivals = arrivals.into();
        let Some(first) = arrivals.first() else {
            return Ok(Vec::new());
        };
        for arrival in &*arrivals {
            self.bus.limits().check(&arrival.payloads)?;
        }
        let (done, outcome) = oneshot::channel();
        let change = Change {
            topic: first.topic.clone(),
            action: Action::TakeIn(arrivals),
            done,
        };
        let sent = self.bus.changes.send(vec![change]).await;
        sent.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }

    /// Keeps a part, in the place of one with its number that came before: whoever guesses what a whole
    /// will be known by does not keep it out. Returns the whole once all parts are there, again and again
    /// until they are [dropped](Self::drop_parts). Parts of what this home wrote and took in are not kept.
    ///
    /// # Errors
    ///
    /// As [`append`](crate::Bus::append).
    pub async fn keep_part(&self, part: ArrivalPart) -> Result<Option<Vec<u8>>, BusError> {
        let (topic, id, count) = (part.topic.clone(), part.id, part.count);
        let kept = self.bus.hand_over(topic.clone(), Action::KeepPart(part));
        kept.await?;
        let read = move |connection: &mut Connection| whole(connection, &topic, &id, count);
        self.bus.readers.run(read).await
    }

    /// Drops the parts of an arrival, which was taken in or is of no use.
    ///
    /// # Errors
    ///
    /// As [`append`](crate::Bus::append).
    pub async fn drop_parts(&self, topic: &Topic, id: ArrivalId) -> Result<(), BusError> {
        let dropped = self.bus.hand_over(topic.clone(), Action::DropParts(id));
        dropped.await.map(drop)
    }

    /// Takes an arrival for one that this home did not write, as far as it is there.
    ///
    /// # Errors
    ///
    /// As [`append`](crate::Bus::append).
    pub async fn disown(&self, topic: &Topic, id: ArrivalId) -> Result<(), BusError> {
        let disowned = self.bus.hand_over(topic.clone(), Action::Disown(id));
        disowned.await.map(drop)
    }

    /// The stamp of what is written to a topic now: the end of the topic, or one more than the highest
    /// stamp there, whichever is more. Stamps that are too far above the end are passed over.
    ///
    /// # Errors
    ///
    /// Fails when the mirror cannot be read.
    pub async fn next_stamp(&self, topic: &Topic) -> Result<u64, BusError> {
        let topic = topic.clone();
        let read = move |connection: &mut Connection| next_stamp(connection, &topic);
        self.bus.readers.run(read).await
    }

    /// Where arrivals of a topic lie that have items from an offset on, in order; `count_max` at most.
    ///
    /// # Errors
    ///
    /// Fails when the mirror cannot be read.
    pub async fn origins(
        &self,
        topic: &Topic,
        from: Offset,
        count_max: u32,
    ) -> Result<Vec<Origin>, BusError> {
        let topic = topic.clone();
        let read = move |connection: &mut Connection| origins(connection, &topic, from, count_max);
        self.bus.readers.run(read).await
    }

    /// The topics that begin with `start`, in order.
    ///
    /// # Errors
    ///
    /// Fails when the mirror cannot be read.
    pub async fn topics(&self, start: &str) -> Result<Vec<Topic>, BusError> {
        let start = start.to_owned();
        let read = move |connection: &mut Connection| topics(connection, &start);
        self.bus.readers.run(read).await
    }
}

fn stopped() -> BusError {
    BusError::Backend(Box::new(Fault::WriterStopped))
}

/// What a mirror's writer has besides the database.
#[derive(Debug)]
pub(super) struct Besides {
    pub(super) far: FarWriter,
    pub(super) known: Known,
}

/// Appends what arrived, but what is there; returns where the first item of each lies.
pub(super) fn take_in(
    connection: &Connection,
    besides: &mut Besides,
    arrivals: &[Arrival],
) -> Result<Vec<Offset>, Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let Besides { far, known } = besides;
    let mut firsts = Vec::with_capacity(arrivals.len());
    for of_topic in arrivals.chunk_by(|one, next| one.topic == next.topic) {
        let Some(arrival) = of_topic.first() else {
            continue;
        };
        let end = End::of(connection, &arrival.topic)?;
        let tail = known.tail(connection, end.row)?;
        let mut taking = Taking {
            connection,
            now,
            end,
            tail,
            packing: None,
        };
        for arrival in of_topic {
            firsts.push(taking.take(far, arrival)?);
        }
        taking.finish()?;
    }
    Ok(firsts)
}

/// What arrived on one topic, as it is taken in.
struct Taking<'a> {
    connection: &'a Connection,
    now: i64,
    end: End,
    tail: &'a mut Tail,
    packing: Option<Packing>,
}

impl Taking<'_> {
    fn take(&mut self, far: &mut FarWriter, arrival: &Arrival) -> Result<Offset, Fault> {
        let there = self.find(arrival)?;
        if let Some(key) = there {
            return Ok(Offset(schema::key_offset(key)));
        }
        let first = self.end.next;
        let key = schema::item_key(self.end.row, first.0).ok_or(Fault::Exhausted)?;
        self.tail.add(&arrival.id, key);
        match &*arrival.payloads {
            [payload] if Packing::takes(arrival) => {
                if self.packing.as_ref().is_none_or(|of| !of.has_room(arrival)) {
                    self.put_packed()?;
                }
                let salt = || RandomState::new().hash_one(first.0).cast_signed();
                let packing = self
                    .packing
                    .get_or_insert_with(|| Packing::begin(key, arrival.is_own, salt()));
                packing.push(&arrival.id, payload)?;
                self.end.next = Offset(first.0.saturating_add(1));
            }
            _ => {
                self.put_packed()?;
                put(self.connection, far, (&mut self.end, self.now), arrival)?;
            }
        }
        Ok(first)
    }

    fn find(&mut self, arrival: &Arrival) -> Result<Option<i64>, Fault> {
        let found = self.tail.places_of(&arrival.id);
        let packing = self.packing.as_ref().map(Packing::first);
        // What is not in the database yet is looked for there.
        if packing.is_some_and(|first| found.is_some_and(|last| last >= first)) {
            self.put_packed()?;
        }
        self.tail.find_again(self.connection, arrival)
    }

    fn put_packed(&mut self) -> Result<(), Fault> {
        match self.packing.take() {
            Some(packing) => packing.put(self.connection, self.now),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<(), Fault> {
        self.put_packed()?;
        self.end.note(self.connection)?;
        let start = key(self.end.row, Offset(0))?;
        let seen = start.saturating_add(signed(self.end.next.0)?);
        self.tail.settle(self.connection, seen)
    }
}

/// Where a topic ends.
struct End {
    row: i64,
    next: Offset,
    /// As it is noted.
    noted: Offset,
}

impl End {
    fn of(connection: &Connection, topic: &Topic) -> Result<Self, Fault> {
        let (row, next) = match scan::topic_row(connection, topic)? {
            Some(found) => found,
            None => {
                connection
                    .prepare_cached("INSERT INTO topic (name, next_offset) VALUES (?1, 0)")?
                    .execute([topic.as_ref()])?;
                (connection.last_insert_rowid(), Offset(0))
            }
        };
        let noted = next;
        Ok(Self { row, next, noted })
    }

    fn note(&self, connection: &Connection) -> Result<(), Fault> {
        if self.next != self.noted {
            connection
                .prepare_cached("UPDATE topic SET next_offset = ?2 WHERE id = ?1")?
                .execute((self.row, signed(self.next.0)?))?;
        }
        Ok(())
    }
}

/// Puts what arrived at the end of its topic.
fn put(
    connection: &Connection,
    far: &mut FarWriter,
    (end, now): (&mut End, i64),
    arrival: &Arrival,
) -> Result<(), Fault> {
    let first = end.next;
    for payload in &arrival.payloads {
        let key = schema::item_key(end.row, end.next.0).ok_or(Fault::Exhausted)?;
        match payload.len() >= FAR_MIN {
            true => put_place(connection, key, far.put(payload)?)?,
            false => write::insert_item(connection, key, payload)?,
        }
        end.next = Offset(end.next.0.saturating_add(1));
    }
    let salt = RandomState::new().hash_one(first.0).cast_signed();
    connection
        .prepare_cached(
            "INSERT INTO arrival (key, topic, id, count, stamp, own, time, parts, salt, digest) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            key(end.row, first)?,
            end.row,
            arrival.id,
            signed(arrival.payloads.len() as u64)?,
            arrival.stamp.cast_signed(),
            arrival.is_own,
            now,
            arrival.parts,
            salt,
            digest(salt, &arrival.payloads),
        ))?;
    Ok(())
}

fn put_place(connection: &Connection, key: i64, place: FarPlace) -> Result<(), Fault> {
    connection
        .prepare_cached("INSERT INTO far (key, file, place, length) VALUES (?1, ?2, ?3, ?4)")?
        .execute((key, place.file, signed(place.at)?, signed(place.length)?))?;
    Ok(())
}

pub(super) fn keep_part(
    connection: &Connection,
    known: &mut Known,
    part: &ArrivalPart,
) -> Result<(), Fault> {
    if let Some((row, _)) = scan::topic_row(connection, &part.topic)? {
        let kept = known.tail(connection, row)?.find(connection, &part.id)?;
        if kept.iter().any(|of| of.is_own) {
            return Ok(());
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO part (topic, id, number, count, bytes) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET bytes = excluded.bytes",
        )?
        .execute((
            part.topic.as_ref(),
            part.id,
            part.number,
            part.count,
            &part.bytes,
        ))?;
    connection
        .prepare_cached("DELETE FROM part WHERE key <= (SELECT max(key) FROM part) - ?1")?
        .execute([PARTS_MAX])?;
    connection
        .prepare_cached(
            "DELETE FROM part WHERE key <= (SELECT max(key) FROM (SELECT key, \
             sum(length(bytes)) OVER (ORDER BY key DESC) AS behind FROM part) WHERE behind > ?1)",
        )?
        .execute([PART_BYTES_MAX])?;
    Ok(())
}

pub(super) fn drop_parts(
    connection: &Connection,
    topic: &Topic,
    id: &ArrivalId,
) -> Result<(), Fault> {
    connection
        .prepare_cached("DELETE FROM part WHERE topic = ?1 AND id = ?2")?
        .execute((topic.as_ref(), id))?;
    Ok(())
}

pub(super) fn disown(
    connection: &Connection,
    known: &mut Known,
    topic: &Topic,
    id: &ArrivalId,
) -> Result<(), Fault> {
    match scan::topic_row(connection, topic)? {
        Some((row, _)) => known.tail(connection, row)?.disown(connection, id),
        None => Ok(()),
    }
}

fn whole(
    connection: &Connection,
    topic: &Topic,
    id: &ArrivalId,
    count: u32,
) -> Result<Option<Vec<u8>>, Fault> {
    let of = (topic.as_ref(), id, count);
    let (found, bytes): (u32, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(bytes)), 0) FROM part \
             WHERE topic = ?1 AND id = ?2 AND count = ?3",
        )?
        .query_row(of, |row| Ok((row.get(0)?, row.get(1)?)))?;
    if found != count || count == 0 || bytes > WHOLE_MAX {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached(
        "SELECT bytes FROM part WHERE topic = ?1 AND id = ?2 AND count = ?3 ORDER BY number",
    )?;
    let mut whole = Vec::new();
    let mut rows = statement.query(of)?;
    while let Some(row) = rows.next()? {
        whole.extend_from_slice(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    }
    Ok(Some(whole))
}

fn origins(
    connection: &Connection,
    topic: &Topic,
    from: Offset,
    count_max: u32,
) -> Result<Vec<Origin>, Fault> {
    let row = scan::topic_row(connection, topic)?.filter(|_| from.0 <= schema::OFFSET_MAX);
    let Some((row_of_topic, _)) = row else {
        return Ok(Vec::new());
    };
    let from = key(row_of_topic, from)?;
    let start = key(row_of_topic, Offset(0))?;
    let end = key(row_of_topic, Offset(schema::OFFSET_MAX))?;
    // The one that holds the item at `from` may begin before it.
    let before: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT key, count FROM arrival WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1",
        )?
        .query_row((start, from), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let holding = before.filter(|(key, count)| key.saturating_add(*count) > from);
    let start = holding.map_or(from, |(key, _)| key);
    let mut statement = connection.prepare_cached(
        "SELECT id, stamp, key, count, own, time, parts FROM arrival \
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut rows = statement.query((start, end, count_max))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let first = schema::key_offset(row.get(2)?);
        found.push(Origin {
            id: row.get(0)?,
            stamp: row.get::<_, i64>(1)?.cast_unsigned(),
            first: Offset(first),
            behind: Offset(first.saturating_add(unsigned(row.get(3)?)?)),
            is_own: row.get(4)?,
            time_ms: unsigned(row.get(5)?)?,
            parts: row.get(6)?,
        });
    }
    let topic_start = key(row_of_topic, Offset(0))?;
    let count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
    found.extend(pack::origins(
        connection,
        (topic_start, from, end),
        count_max,
    )?);
    found.sort_by_key(|origin| origin.first);
    found.truncate(count_max);
    Ok(found)
}

fn next_stamp(connection: &Connection, topic: &Topic) -> Result<u64, Fault> {
    let Some((row, end)) = scan::topic_row(connection, topic)? else {
        return Ok(0);
    };
    let highest: Option<i64> = connection
        .prepare_cached(
            "SELECT max(stamp) FROM arrival WHERE topic = ?1 AND stamp > 0 AND stamp <= ?2",
        )?
        .query_row((row, signed(end.0 + STAMPS_AHEAD_MAX)?), |row| row.get(0))?;
    let above = match highest {
        Some(highest) => unsigned(highest)?.saturating_add(1),
        None => 0,
    };
    Ok(end.0.max(above))
}

fn topics(connection: &Connection, start: &str) -> Result<Vec<Topic>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT name FROM topic WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?;
    let names = statement.query_map([start], |row| row.get::<_, String>(0))?;
    let topics = names.map(|name| Topic::new(&name?).map_err(|_| Fault::OutOfRange));
    topics.collect()
}

fn key(row: i64, offset: Offset) -> Result<i64, Fault> {
    schema::item_key(row, offset.0).ok_or(Fault::OutOfRange)
}

fn signed(offset: u64) -> Result<i64, Fault> {
    i64::try_from(offset).map_err(|_| Fault::OutOfRange)
}

fn unsigned(offset: i64) -> Result<u64, Fault> {
    u64::try_from(offset).map_err(|_| Fault::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::new("s/1f00/keys").unwrap()
    }

    fn arrival(id: u8, payloads: &[&str]) -> Arrival {
        Arrival {
            topic: topic(),
            id: [id; 16],
            stamp: u64::from(id),
            payloads: payloads
                .iter()
                .map(|of| Bytes::copy_from_slice(of.as_bytes()))
                .collect(),
            is_own: false,
            parts: 0,
        }
    }

    async fn shown(mirror: &Mirror) -> Vec<String> {
        let items = mirror.bus().read(&topic(), Offset(0), 1 << 20).await;
        let text = |item: crate::Item| String::from_utf8(item.payload).unwrap();
        items.unwrap().into_iter().map(text).collect()
    }

    fn part(number: u32, count: u32, bytes: &[u8]) -> ArrivalPart {
        ArrivalPart {
            topic: topic(),
            id: [9; 16],
            number,
            count,
            bytes: bytes.to_vec(),
        }
    }

    #[tokio::test]
    async fn what_arrives_again_is_there_once_for_every_handle() {
        let folder = tempfile::tempdir().unwrap();
        let mirrors = [
            Mirror::open(folder.path()).await.unwrap(),
            Mirror::open(folder.path()).await.unwrap(),
        ];
        let (one, two) = (arrival(1, &["a", "b"]), arrival(2, &["c"]));
        for mirror in &mirrors {
            let both = vec![one.clone(), two.clone(), one.clone()];
            let offsets = mirror.take_in(both).await.unwrap();
            assert_eq!(offsets, [Offset(0), Offset(2), Offset(0)]);
        }
        assert_eq!(shown(&mirrors[0]).await, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn whoever_takes_an_id_first_does_not_keep_the_right_one_out() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let all = [
            arrival(1, &["forged"]),
            arrival(1, &["a"]),
            arrival(1, &["a", "b"]),
        ];
        for _ in 0..2 {
            let offsets = mirror.take_in(all.to_vec()).await.unwrap();
            assert_eq!(offsets, [Offset(0), Offset(1), Offset(2)]);
        }
        assert_eq!(shown(&mirror).await, ["forged", "a", "a", "b"]);
    }

    #[tokio::test]
    async fn what_was_trimmed_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let both = vec![arrival(1, &["a", "b"]), arrival(2, &["c"])];
        mirror.take_in(both.clone()).await.unwrap();
        for before in [1, 2, 3] {
            mirror.bus().trim(&topic(), Offset(before)).await.unwrap();
            let offsets = mirror.take_in(both.clone()).await.unwrap();
            assert_eq!(offsets, [Offset(0), Offset(2)]);
        }
        assert_eq!(mirror.bus().end(&topic()).await.unwrap(), Offset(3));
    }

    #[tokio::test]
    async fn a_forged_one_that_was_trimmed_does_not_keep_the_right_one_out() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let (forged, right) = (arrival(1, &["forged"]), arrival(1, &["a"]));
        mirror.take_in(vec![forged.clone()]).await.unwrap();
        mirror.bus().trim(&topic(), Offset(1)).await.unwrap();
        for _ in 0..2 {
            let both = vec![right.clone(), forged.clone()];
            let offsets = mirror.take_in(both).await.unwrap();
            assert_eq!(offsets, [Offset(1), Offset(0)]);
        }
        assert_eq!(shown(&mirror).await, ["a"]);
    }

    #[tokio::test]
    async fn what_is_written_next_is_stamped_above_all_that_came_within_reach() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let next = async || mirror.next_stamp(&topic()).await.unwrap();
        assert_eq!(next().await, 0);
        let stamped = |id, stamp| Arrival {
            stamp,
            ..arrival(id, &["a", "b"])
        };
        mirror.take_in(vec![stamped(1, 0)]).await.unwrap();
        assert_eq!(next().await, 2);
        // Whoever wrote it had seen what was trimmed since.
        mirror.take_in(vec![stamped(2, 70)]).await.unwrap();
        assert_eq!(next().await, 71);
        for (id, stamp) in [(3, u64::MAX), (4, 1 << 63), (5, 2 * STAMPS_AHEAD_MAX)] {
            mirror.take_in(vec![stamped(id, stamp)]).await.unwrap();
            assert_eq!(next().await, 71);
        }
    }

    #[tokio::test]
    async fn it_is_known_where_arrivals_lie() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let own = Arrival {
            is_own: true,
            ..arrival(2, &["c"])
        };
        let all = vec![arrival(1, &["a", "b"]), own, arrival(3, &["d"])];
        mirror.take_in(all).await.unwrap();
        let ids = async |from, count_max| {
            let found = mirror.origins(&topic(), Offset(from), count_max).await;
            let told = |of: &Origin| (of.id[0], of.first.0, of.behind.0, of.is_own);
            found.unwrap().iter().map(told).collect::<Vec<_>>()
        };
        let (one, two, three) = ((1, 0, 2, false), (2, 2, 3, true), (3, 3, 4, false));
        assert_eq!(ids(0, 9).await, [one, two, three]);
        assert_eq!(ids(1, 9).await, [one, two, three]);
        assert_eq!(ids(2, 1).await, [two]);
        assert_eq!(ids(u64::MAX, 9).await, []);
        mirror.disown(&topic(), [2; 16]).await.unwrap();
        assert_eq!(ids(2, 1).await, [(2, 2, 3, false)]);
        assert_eq!(mirror.topics("s/1f00/").await.unwrap(), [topic()]);
        assert_eq!(mirror.topics("s/1f01/").await.unwrap(), []);
    }

    #[tokio::test]
    async fn parts_become_a_whole_in_whatever_order_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        // A forged one that comes first does not count.
        for (number, bytes) in [(2, b"xx"), (0, b"aa"), (2, b"cc")] {
            let kept = mirror.keep_part(part(number, 3, bytes)).await.unwrap();
            assert_eq!(kept, None);
        }
        // Of another cut, somebody else's.
        assert_eq!(mirror.keep_part(part(0, 2, b"zz")).await.unwrap(), None);
        for _ in 0..2 {
            let whole = mirror.keep_part(part(1, 3, b"bb")).await.unwrap();
            assert_eq!(whole.as_deref(), Some(&b"aabbcc"[..]));
        }
        mirror.drop_parts(&topic(), [9; 16]).await.unwrap();
        assert_eq!(mirror.keep_part(part(1, 3, b"bb")).await.unwrap(), None);
    }

    /// Payloads of which the long ones lie in files.
    fn long(id: u8, lens: &[usize]) -> Arrival {
        Arrival {
            payloads: lens.iter().map(|len| vec![id; *len].into()).collect(),
            ..arrival(id, &[])
        }
    }

    async fn lens(mirror: &Mirror, from: u64) -> Vec<(u8, usize)> {
        let items = mirror.bus().read(&topic(), Offset(from), 1 << 30).await;
        let told = |item: crate::Item| (item.payload[0], item.payload.len());
        items.unwrap().into_iter().map(told).collect()
    }

    fn far_files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder.join("far")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn long_payloads_lie_in_files_and_are_read_among_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let one = Mirror::open(folder.path()).await.unwrap();
        let two = Mirror::open(folder.path()).await.unwrap();
        let all = vec![
            long(1, &[FAR_MIN, 1, 70_000]),
            long(2, &[FAR_MIN - 1, FAR_MIN]),
        ];
        for mirror in [&one, &two] {
            let offsets = mirror.take_in(all.clone()).await.unwrap();
            assert_eq!(offsets, [Offset(0), Offset(3)]);
        }
        two.take_in(vec![long(3, &[100_000])]).await.unwrap();
        let expected = [
            (1, FAR_MIN),
            (1, 1),
            (1, 70_000),
            (2, FAR_MIN - 1),
            (2, FAR_MIN),
            (3, 100_000),
        ];
        for mirror in [&one, &two] {
            assert_eq!(lens(mirror, 0).await, expected);
            assert_eq!(lens(mirror, 2).await, expected[2..]);
        }
        let sizes = far_files(folder.path())
            .into_iter()
            .map(|path| path.metadata().unwrap().len());
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_unstable();
        // What was there already was not written again.
        assert_eq!(sizes, [100_000, 2 * FAR_MIN as u64 + 70_000]);
        // One that has as many bytes as were asked for is the last.
        let items = one
            .bus()
            .read(&topic(), Offset(0), FAR_MIN + 1)
            .await
            .unwrap();
        assert_eq!(items.len(), 2);
        let mut tail = one.bus().tail(vec![(topic(), Offset(5))]);
        assert_eq!(tail.next().await.unwrap().1[0].payload, vec![3; 100_000]);
    }

    #[tokio::test]
    async fn a_file_goes_when_all_that_lies_there_was_trimmed_and_nobody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Mirror::open(folder.path()).await.unwrap();
        first
            .take_in(vec![long(1, &[FAR_MIN, FAR_MIN])])
            .await
            .unwrap();
        let second = Mirror::open(folder.path()).await.unwrap();
        second.take_in(vec![long(2, &[FAR_MIN])]).await.unwrap();
        second.bus().trim(&topic(), Offset(2)).await.unwrap();
        assert_eq!(far_files(folder.path()).len(), 2);
        assert_eq!(lens(&second, 0).await, [(2, FAR_MIN)]);
        first.take_in(vec![long(3, &[FAR_MIN])]).await.unwrap();
        drop(second);
        first.bus().trim(&topic(), Offset(3)).await.unwrap();
        let is_one = async || {
            while far_files(folder.path()).len() > 1 {
                // Its writer is about to end.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                drop(Mirror::open(folder.path()).await.unwrap());
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), is_one()).await;
        waited.expect("what nobody needs goes");
        assert_eq!(lens(&first, 0).await, [(3, FAR_MIN)]);
    }

    #[tokio::test]
    async fn a_file_that_is_cut_short_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        mirror
            .take_in(vec![long(1, &[FAR_MIN, FAR_MIN])])
            .await
            .unwrap();
        let path = far_files(folder.path()).remove(0);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(2 * FAR_MIN as u64 - 1).unwrap();
        assert_eq!(lens(&mirror, 0).await, [(1, FAR_MIN)]);
        let read = mirror.bus().read(&topic(), Offset(1), 1).await;
        assert!(matches!(read, Err(BusError::Damaged { .. })), "{read:?}");
    }

    #[tokio::test]
    async fn a_mirror_of_the_version_before_that_is_converted_and_an_older_program_refuses_a_newer_one()
     {
        let folder = tempfile::tempdir().unwrap();
        let before = FileBus::open(folder.path()).await.unwrap();
        let payloads = vec![vec![1; 20_000], vec![2; 3]];
        before.append(&topic(), payloads).await.unwrap();
        let kept = "INSERT INTO arrival VALUES (1, ?1, 0, 2, 7, 1, 99, 2, 10, ?2)";
        let known = Arrival {
            payloads: vec![vec![1; 20_000].into(), vec![2; 3].into()],
            ..arrival(1, &[])
        };
        let digest = digest(10, &known.payloads);
        let fill = move |connection: &mut Connection| {
            connection.execute_batch(include_str!("../../tests/fixtures/mirror-2.sql"))?;
            Ok(connection.execute(kept, ([1_u8; 16], digest))?)
        };
        before.readers.run(fill).await.unwrap();
        drop(before);
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let both = vec![known, long(2, &[FAR_MIN])];
        let offsets = mirror.take_in(both).await.unwrap();
        assert_eq!(offsets, [Offset(0), Offset(2)]);
        assert_eq!(lens(&mirror, 0).await, [(1, 20_000), (2, 3), (2, FAR_MIN)]);
        let first = mirror.origins(&topic(), Offset(1), 1).await.unwrap()[0];
        let expected = Origin {
            id: [1; 16],
            stamp: 7,
            first: Offset(0),
            behind: Offset(2),
            is_own: true,
            time_ms: 99,
            parts: 0,
        };
        assert_eq!(first, expected);
        assert_eq!(mirror.next_stamp(&topic()).await.unwrap(), 8);
        let opened = FileBus::open(folder.path()).await;
        let Err(BusError::TooNew { found, known, .. }) = opened else {
            panic!("{opened:?}");
        };
        assert_eq!((found, known), (4, 2));
    }

    /// A short message by itself, as they are packed.
    fn short(id: u64, is_own: bool) -> Arrival {
        Arrival {
            id: u128::from(id).to_be_bytes(),
            stamp: 0,
            payloads: vec![id.to_string().into()],
            is_own,
            ..arrival(0, &[])
        }
    }

    async fn count(mirror: &Mirror, table: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let read = move |connection: &mut Connection| {
            Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?)
        };
        let counted = mirror.bus().readers.run(read).await.unwrap();
        counted.cast_unsigned()
    }

    #[tokio::test]
    async fn short_messages_lie_packed_and_each_is_there_once_for_every_handle() {
        let folder = tempfile::tempdir().unwrap();
        let mirrors = [
            Mirror::open(folder.path()).await.unwrap(),
            Mirror::open(folder.path()).await.unwrap(),
        ];
        // One that comes twice at once, and one of another kind among them.
        let mut all: Vec<_> = (0..5).map(|id| short(id, false)).collect();
        all.extend([short(3, false), arrival(9, &["a", "b"]), short(5, false)]);
        for mirror in &mirrors {
            let offsets = mirror.take_in(all.clone()).await.unwrap();
            assert_eq!(offsets, [0, 1, 2, 3, 4, 3, 5, 7].map(Offset));
        }
        let shown = async |from, bytes_max| {
            let items = mirrors[0]
                .bus()
                .read(&topic(), Offset(from), bytes_max)
                .await;
            let text = |item: crate::Item| String::from_utf8(item.payload).unwrap();
            items.unwrap().into_iter().map(text).collect::<String>()
        };
        assert_eq!(shown(0, 99).await, "01234ab5");
        assert_eq!(shown(2, 99).await, "234ab5");
        assert_eq!(shown(2, 2).await, "23");
        assert_eq!(shown(4, 3).await, "4ab");
        assert_eq!(shown(7, 0).await, "5");
        assert_eq!(count(&mirrors[0], "item").await, 2);
        let read = mirrors[1].bus().read(&topic(), Offset(8), 99).await;
        assert_eq!(read.unwrap(), []);
    }

    #[tokio::test]
    async fn what_others_forge_under_an_id_of_a_pack_keeps_nothing_out() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let forged = Arrival {
            payloads: vec![Bytes::from_static(b"x")],
            ..short(1, false)
        };
        let all = vec![short(0, false), forged, short(1, false), short(2, false)];
        for _ in 0..2 {
            let offsets = mirror.take_in(all.clone()).await.unwrap();
            assert_eq!(offsets, [0, 1, 2, 3].map(Offset));
        }
    }

    #[tokio::test]
    async fn a_pack_is_trimmed_in_its_middle_and_what_went_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let all: Vec<_> = (0..6).map(|id| short(id, false)).collect();
        mirror.take_in(all[..3].to_vec()).await.unwrap();
        mirror.take_in(all.clone()).await.unwrap();
        for (before, left) in [(1, "12345"), (4, "45"), (6, "")] {
            mirror.bus().trim(&topic(), Offset(before)).await.unwrap();
            let offsets = mirror.take_in(all.clone()).await.unwrap();
            assert_eq!(offsets, [0, 1, 2, 3, 4, 5].map(Offset));
            assert_eq!(shown(&mirror).await.concat(), left);
        }
        assert_eq!(count(&mirror, "packed").await, 0);
        assert_eq!(mirror.bus().end(&topic()).await.unwrap(), Offset(6));
    }

    #[tokio::test]
    async fn one_message_of_a_pack_becomes_another_writers_or_this_homes() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let own: Vec<_> = (0..3).map(|id| short(id, true)).collect();
        mirror.take_in(own).await.unwrap();
        mirror.take_in(vec![short(3, false)]).await.unwrap();
        mirror.disown(&topic(), short(1, true).id).await.unwrap();
        mirror.take_in(vec![short(3, true)]).await.unwrap();
        // Of this home it stays, whoever brings it.
        mirror.take_in(vec![short(0, false)]).await.unwrap();
        let owners = async |from, count_max| {
            let found = mirror.origins(&topic(), Offset(from), count_max).await;
            let told = |of: &Origin| (of.first.0, of.is_own);
            found.unwrap().iter().map(told).collect::<Vec<_>>()
        };
        let all = [(0, true), (1, false), (2, true), (3, true)];
        assert_eq!(owners(0, 9).await, all);
        assert_eq!(owners(1, 2).await, all[1..3]);
        assert_eq!(owners(3, 9).await, all[3..]);
        // A part of what this home wrote is not kept.
        for (id, kept) in [(0_u64, None), (1, Some(b"x".to_vec()))] {
            let part = ArrivalPart {
                id: u128::from(id).to_be_bytes(),
                ..part(0, 1, b"x")
            };
            assert_eq!(mirror.keep_part(part).await.unwrap(), kept, "{id}");
        }
    }

    #[tokio::test]
    async fn many_messages_are_known_by_the_index_and_by_what_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let mirrors = [
            Mirror::open(folder.path()).await.unwrap(),
            Mirror::open(folder.path()).await.unwrap(),
        ];
        let all: Vec<_> = (0..40_000).map(|id| short(id, false)).collect();
        for (some, mirror) in all.chunks(1_500).zip(mirrors.iter().cycle()) {
            mirror.take_in(some.to_vec()).await.unwrap();
        }
        assert!(count(&mirrors[0], "known").await >= 32_000);
        let third = Mirror::open(folder.path()).await.unwrap();
        for mirror in mirrors.iter().chain([&third]) {
            let offsets = mirror.take_in(all.clone()).await.unwrap();
            assert!(offsets.iter().zip(0..).all(|(of, at)| of.0 == at));
        }
        assert_eq!(third.bus().end(&topic()).await.unwrap(), Offset(40_000));
    }

    #[tokio::test]
    async fn a_transaction_that_failed_leaves_nothing_known() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(folder.path()).await.unwrap();
        mirror.take_in(vec![short(0, false)]).await.unwrap();
        let set = |next: i64| {
            let sql = format!("UPDATE topic SET next_offset = {next}");
            move |connection: &mut Connection| Ok(connection.execute_batch(&sql)?)
        };
        let last = i64::try_from(schema::OFFSET_MAX).unwrap();
        mirror.bus().readers.run(set(last)).await.unwrap();
        let both = vec![short(1, false), short(2, false)];
        let taken_in = mirror.take_in(both.clone()).await;
        assert!(
            matches!(taken_in, Err(BusError::Full { .. })),
            "{taken_in:?}"
        );
        mirror.bus().readers.run(set(1)).await.unwrap();
        let offsets = mirror.take_in(both).await.unwrap();
        assert_eq!(offsets, [Offset(1), Offset(2)]);
    }

    #[tokio::test]
    async fn a_mirror_of_the_version_before_is_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let opening = scan::run_blocking(move || FileBus::open_as(&path, Format::MIRROR_3));
        let before = opening.await.unwrap();
        let payloads = (0..3_u64).map(|id| id.to_string().into_bytes()).collect();
        before.append(&topic(), payloads).await.unwrap();
        let fill = move |connection: &mut Connection| {
            for id in 0..3 {
                let Arrival {
                    id: of, payloads, ..
                } = short(id, false);
                let key = (1_i64 << 40) + id.cast_signed();
                connection.execute(
                    "INSERT INTO arrival VALUES (?1, 1, ?2, 1, 0, ?3, 99, 0, 10, ?4)",
                    (key, of, id == 1, digest(10, &payloads)),
                )?;
            }
            Ok(())
        };
        before.readers.run(fill).await.unwrap();
        drop(before);
        let mirror = Mirror::open(folder.path()).await.unwrap();
        let all: Vec<_> = (0..4).map(|id| short(id, false)).collect();
        let offsets = mirror.take_in(all).await.unwrap();
        assert_eq!(offsets, [0, 1, 2, 3].map(Offset));
        let found = mirror.origins(&topic(), Offset(0), 9).await.unwrap();
        let owned: Vec<_> = found.iter().map(|of| of.is_own).collect();
        assert_eq!(owned, [false, true, false, false]);
    }
}

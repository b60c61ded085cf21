//! A file bus that takes in what another bus brings, each message once.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::fault::Fault;
use super::write::{self, Action, Change};
use super::{FileBus, scan, schema};
use crate::{Bus as _, BusError, Offset, Topic};

/// The tables that a mirror has besides those of a file bus; `spec/bus-mqtt.md`, section 8.
const TABLES: &str = include_str!("../../migrations/mirror.sql");
/// Parts that are kept, of all messages together; of more, the oldest are dropped.
const PARTS_MAX: i64 = 4_096;
/// The bytes of them beyond which the oldest are dropped, too.
const PART_BYTES_MAX: i64 = 512 << 20;
/// The most bytes of a whole; of what has more nothing is joined.
const WHOLE_MAX: i64 = 64 << 20;
/// How far above the end of a topic stamps may be. Whoever writes higher ones has no say in the next.
const STAMPS_AHEAD_MAX: u64 = 1 << 32;
/// What digests are counted modulo: 2^61 - 1, a prime.
const DIGEST_PRIME: u64 = (1 << 61) - 1;

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
        let bus = FileBus::open(folder).await?;
        let mirror = Self { bus };
        let create = |connection: &mut Connection| Ok(connection.execute_batch(TABLES)?);
        mirror.bus.readers.run(create).await?;
        Ok(mirror)
    }

    /// What lies there, to read and to follow.
    pub fn bus(&self) -> &FileBus {
        &self.bus
    }

    /// Takes in arrivals in their order, and returns where the first item of each lies. One that is
    /// there already, with the same payloads, is not taken in again.
    ///
    /// All that is not refused is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// As [`append`](crate::Bus::append). Some of the arrivals may have been taken in then; they may
    /// come again.
    pub async fn take_in(&self, arrivals: Vec<Arrival>) -> Result<Vec<Offset>, BusError> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes = Vec::with_capacity(arrivals.len());
        let mut changes = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            self.bus.limits().check(&arrival.payloads)?;
            let (done, outcome) = oneshot::channel();
            changes.push(Change {
                topic: arrival.topic.clone(),
                action: Action::TakeIn(arrival),
                done,
            });
            outcomes.push(outcome);
        }
        let sent = self.bus.changes.send(changes).await;
        sent.map_err(|_| stopped())?;
        let mut offsets = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let offset = outcome.await.map_err(|_| stopped())??;
            offsets.push(offset.unwrap_or_default());
        }
        Ok(offsets)
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

/// Appends what arrived, unless it is there.
pub(super) fn take_in(connection: &Connection, arrival: &Arrival) -> Result<Offset, Fault> {
    if let Some(first) = find(connection, arrival)? {
        return Ok(first);
    }
    let inserted = write::insert(connection, &arrival.topic, &arrival.payloads)?;
    let (row, first) = (inserted.row, inserted.first);
    let behind = first.0.saturating_add(arrival.payloads.len() as u64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let salt = RandomState::new().hash_one(first.0).cast_signed();
    connection
        .prepare_cached(
            "INSERT INTO arrival (topic, id, first, behind, stamp, own, time, parts, salt, digest) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute((
            row,
            arrival.id,
            signed(first.0)?,
            signed(behind)?,
            arrival.stamp.cast_signed(),
            arrival.is_own,
            now,
            arrival.parts,
            salt,
            digest(salt, &arrival.payloads),
        ))?;
    Ok(first)
}

/// Where what arrived lies already, or lay before it was trimmed; notes how it came this time.
fn find(connection: &Connection, arrival: &Arrival) -> Result<Option<Offset>, Fault> {
    let mut known = connection.prepare_cached(
        "SELECT first, behind, salt, digest, topic FROM arrival \
         WHERE topic = (SELECT id FROM topic WHERE name = ?1) AND id = ?2",
    )?;
    let mut places = known.query((arrival.topic.as_ref(), arrival.id))?;
    while let Some(place) = places.next()? {
        let (first, behind): (i64, i64) = (place.get(0)?, place.get(1)?);
        let count = unsigned(behind)?.saturating_sub(unsigned(first)?);
        let (salt, kept): (i64, i64) = (place.get(2)?, place.get(3)?);
        if count != arrival.payloads.len() as u64 || digest(salt, &arrival.payloads) != kept {
            continue;
        }
        let row: i64 = place.get(4)?;
        connection
            .prepare_cached(
                "UPDATE arrival SET own = max(own, ?4), parts = ?5 \
                 WHERE topic = ?1 AND id = ?2 AND first = ?3 AND (own < ?4 OR parts <> ?5)",
            )?
            .execute((row, arrival.id, first, arrival.is_own, arrival.parts))?;
        return Ok(Some(Offset(unsigned(first)?)));
    }
    Ok(None)
}

/// By what payloads are known that may not lie here any more; `spec/bus-mqtt.md`, section 8. Whoever does
/// not know the salt finds no others with the same.
fn digest(salt: i64, payloads: &[Bytes]) -> i64 {
    let at = salt.cast_unsigned() % DIGEST_PRIME;
    let step = |hash: u64, term: u64| modulo(u128::from(hash) * u128::from(at) + u128::from(term));
    let mut hash = 1;
    for payload in payloads {
        hash = step(hash, payload.len() as u64);
        let (sevens, rest) = payload.as_chunks::<7>();
        for [a, b, c, d, e, f, g] in sevens {
            hash = step(hash, u64::from_be_bytes([0, *a, *b, *c, *d, *e, *f, *g]));
        }
        if !rest.is_empty() {
            let term = |all: u64, byte: &u8| all << 8 | u64::from(*byte);
            hash = step(hash, rest.iter().fold(0, term));
        }
    }
    hash.cast_signed()
}

/// A number below 2^122 modulo the prime. With 2^61 counting as 1, what is above the lowest 61 bits is added to
/// them; dividing takes ten times as long.
fn modulo(number: u128) -> u64 {
    let low = |of: u128| u64::try_from(of & u128::from(DIGEST_PRIME)).unwrap_or_default();
    let sum = low(number) + low(number >> 61);
    sum.checked_sub(DIGEST_PRIME).unwrap_or(sum)
}

pub(super) fn keep_part(connection: &Connection, part: &ArrivalPart) -> Result<(), Fault> {
    if let Some((row, _)) = scan::topic_row(connection, &part.topic)? {
        let own = "SELECT 1 FROM arrival WHERE topic = ?1 AND id = ?2 AND own";
        if connection.prepare_cached(own)?.exists((row, part.id))? {
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

pub(super) fn disown(connection: &Connection, topic: &Topic, id: &ArrivalId) -> Result<(), Fault> {
    if let Some((row, _)) = scan::topic_row(connection, topic)? {
        connection
            .prepare_cached("UPDATE arrival SET own = 0 WHERE topic = ?1 AND id = ?2")?
            .execute((row, id))?;
    }
    Ok(())
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
    let Some((row, _)) = row else {
        return Ok(Vec::new());
    };
    // The one that holds the item at `from` may begin before it.
    let before: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT first, behind FROM arrival WHERE topic = ?1 AND first <= ?2 \
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row((row, signed(from.0)?), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let from = signed(from.0)?;
    let holding = before.filter(|(_, behind)| *behind > from);
    let start = holding.map_or(from, |(first, _)| first);
    let mut statement = connection.prepare_cached(
        "SELECT id, stamp, first, behind, own, time, parts FROM arrival \
         WHERE topic = ?1 AND first >= ?2 ORDER BY first LIMIT ?3",
    )?;
    let mut rows = statement.query((row, start, count_max))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Origin {
            id: row.get(0)?,
            stamp: row.get::<_, i64>(1)?.cast_unsigned(),
            first: Offset(unsigned(row.get(2)?)?),
            behind: Offset(unsigned(row.get(3)?)?),
            is_own: row.get(4)?,
            time_ms: unsigned(row.get(5)?)?,
            parts: row.get(6)?,
        });
    }
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

    /// The worked example of the specification.
    #[test]
    fn payloads_are_known_by_what_the_specification_shows() {
        let payloads = |of: &[&str]| {
            of.iter()
                .map(|of| Bytes::copy_from_slice(of.as_bytes()))
                .collect::<Vec<_>>()
        };
        assert_eq!(digest(10, &payloads(&["a", "bc"])), 45_907);
        let long = digest(10, &payloads(&["a", "bcdefghi"]));
        assert_eq!(long, 276_938_305_667_544_625);
        let all = [
            payloads(&["ab", "c"]),
            payloads(&["a", "bc"]),
            payloads(&["abc"]),
            payloads(&["abc", ""]),
            payloads(&["ab", "d"]),
        ];
        let digests: std::collections::BTreeSet<_> = all
            .iter()
            .map(|of| digest(123_456_789_012_345, of))
            .collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn a_number_is_reduced_as_by_a_division() {
        let p = u128::from(DIGEST_PRIME);
        let largest = (p - 1) * (p - 1) + (1 << 56);
        for number in [
            0,
            1,
            p - 1,
            p,
            p + 1,
            2 * p - 1,
            2 * p,
            3 * p,
            largest - p,
            largest,
        ] {
            assert_eq!(u128::from(modulo(number)), number % p, "{number}");
        }
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
}

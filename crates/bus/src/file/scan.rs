//! Reads, each on a thread of the blocking pool.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::far::{Far, FarPlace};
use super::fault::{Fault, Kind};
use super::pack::{self, Table};
use super::place::Place;
use super::schema;
use crate::{BusError, Item, Offset, Topic};

/// Items of one read, whatever their size.
const ITEMS_MAX: usize = 16_384;
/// Connections kept for the next reads.
const IDLE_MAX: usize = 4;

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    place: Arc<Place>,
    /// Of a mirror.
    far: Option<Far>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(place: Arc<Place>, far: Option<Far>) -> Self {
        Self {
            place,
            far,
            idle: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    pub(super) fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Runs `read` with a connection, off the runtime's threads.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, BusError> {
        let readers = Arc::clone(self);
        run_blocking(move || {
            readers
                .with_connection(read)
                .map_err(|fault| readers.tell(fault))
        })
        .await
    }

    pub(super) fn far(&self) -> Option<&Far> {
        self.far.as_ref()
    }

    pub(super) fn tell(&self, fault: Fault) -> BusError {
        self.place.tell(fault)
    }

    fn with_connection<T>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.place.check()?;
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.place.connect()?,
        };
        let found = read(&mut connection)?;
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` on a thread that may block.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(BusError::Backend(Box::new(error))),
    }
}

/// The id of a topic and its end; `None` when nobody wrote to it.
pub(super) fn topic_row(
    connection: &Connection,
    topic: &Topic,
) -> Result<Option<(i64, Offset)>, Fault> {
    let row: Option<(i64, i64)> = connection
        .prepare_cached("SELECT id, next_offset FROM topic WHERE name = ?1")?
        .query_row([topic.as_ref()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, end)) = row else {
        return Ok(None);
    };
    let end = u64::try_from(end).map_err(|_| Fault::OutOfRange)?;
    Ok(Some((id, Offset(end))))
}

/// The offset after the last item.
pub(super) fn end(connection: &Connection, topic: &Topic) -> Result<Offset, Fault> {
    Ok(topic_row(connection, topic)?.map_or(Offset(0), |(_, end)| end))
}

/// The items from `from` on, one at least, then up to `bytes_max` bytes of payload. Damage behind
/// the first is left for the read that begins there.
pub(super) fn items(
    connection: &Connection,
    far: Option<&Far>,
    topic: &Topic,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<Item>, Fault> {
    let Some((topic, end)) = topic_row(connection, topic)? else {
        return Ok(Vec::new());
    };
    if from >= end {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    let walked = walk((connection, far), topic, from, bytes_max, &mut items);
    match walked {
        Err(fault) if items.is_empty() || fault.kind() != Kind::Damaged => return Err(fault),
        Ok(()) | Err(_) => (),
    }
    // Items are trimmed from the low end only, so that nothing is missing above one that is left.
    let first = items.first().map_or(end, |item| item.offset);
    if first > from && has_below((connection, far), topic, from)? {
        let (found, expected) = (first.0, from.0);
        return Err(Fault::NotDense { found, expected });
    }
    Ok(items)
}

/// Whether a topic has items below an offset.
fn has_below(
    (connection, far): (&Connection, Option<&Far>),
    topic: i64,
    offset: Offset,
) -> Result<bool, Fault> {
    let first = schema::item_key(topic, 0).ok_or(Fault::OutOfRange)?;
    let end = schema::item_key(topic, offset.0).ok_or(Fault::OutOfRange)?;
    for table in ["item", "far", "packed"] {
        let sql = format!("SELECT 1 FROM {table} WHERE key >= ?1 AND key < ?2 LIMIT 1");
        let is_there = table == "item" || far.is_some();
        if is_there && connection.prepare_cached(&sql)?.exists((first, end))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a row has.
enum Found<'a> {
    One(&'a [u8]),
    Far(FarPlace),
    /// Several, one behind the other.
    Packed(Vec<&'a [u8]>),
}

fn found_in<'a>(row: &'a Row<'_>, is_mirror: bool) -> Result<Found<'a>, Fault> {
    let blob = |column| {
        row.get_ref(column)?
            .as_blob()
            .map_err(rusqlite::Error::from)
    };
    if !is_mirror {
        return Ok(Found::One(blob(1)?));
    }
    if row.get_ref(2)? != ValueRef::Null {
        let number =
            |column| u64::try_from(row.get::<_, i64>(column)?).map_err(|_| Fault::OutOfRange);
        return Ok(Found::Far(FarPlace {
            file: row.get(2)?,
            at: number(3)?,
            length: number(4)?,
        }));
    }
    match row.get_ref(5)? == ValueRef::Null {
        true => Ok(Found::One(blob(1)?)),
        false => Ok(Found::Packed(pack::payloads(blob(5)?, blob(1)?)?)),
    }
}

const WALK: &str = "SELECT key, payload FROM item WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
const WALK_MIRROR: &str = "SELECT key, payload, NULL, NULL, NULL, NULL FROM item \
    WHERE key BETWEEN ?1 AND ?2 UNION ALL \
    SELECT key, NULL, file, place, length, NULL FROM far WHERE key BETWEEN ?1 AND ?2 UNION ALL \
    SELECT key, bytes, NULL, NULL, NULL, ends FROM packed WHERE key BETWEEN ?3 AND ?2 ORDER BY 1";

/// Items as they are read.
struct Reading<'a> {
    far: Option<&'a Far>,
    from: u64,
    bytes_left: usize,
    items: &'a mut Vec<Item>,
}

impl Reading<'_> {
    /// Takes what a row has, and says whether there is room for more.
    fn take(&mut self, key: i64, found: Found<'_>) -> Result<bool, Fault> {
        let offset = schema::key_offset(key);
        match found {
            Found::One(payload) => {
                let read = |_: Option<&Far>| Ok(payload.to_vec());
                self.push(offset, payload.len(), read)
            }
            Found::Far(place) => {
                let length = usize::try_from(place.length).map_err(|_| Fault::OutOfRange)?;
                let read = |far: Option<&Far>| far.ok_or(Fault::OutOfRange)?.read(place);
                self.push(offset, length, read)
            }
            Found::Packed(all) => {
                for (offset, payload) in (offset..).zip(all) {
                    let read = |_: Option<&Far>| Ok(payload.to_vec());
                    if offset >= self.from && !self.push(offset, payload.len(), read)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    fn push(
        &mut self,
        found: u64,
        length: usize,
        read: impl FnOnce(Option<&Far>) -> Result<Vec<u8>, Fault>,
    ) -> Result<bool, Fault> {
        if length > self.bytes_left && !self.items.is_empty() {
            return Ok(false);
        }
        if let Some(before) = self.items.last()
            && before.offset.0 + 1 != found
        {
            let expected = before.offset.0 + 1;
            return Err(Fault::NotDense { found, expected });
        }
        self.items.push(Item {
            offset: Offset(found),
            payload: read(self.far)?,
        });
        self.bytes_left = self.bytes_left.saturating_sub(length);
        Ok(self.items.len() < ITEMS_MAX && self.bytes_left > 0)
    }
}

fn walk(
    (connection, far): (&Connection, Option<&Far>),
    topic: i64,
    from: Offset,
    bytes_max: usize,
    items: &mut Vec<Item>,
) -> Result<(), Fault> {
    let first = schema::item_key(topic, from.0).ok_or(Fault::OutOfRange)?;
    let last = schema::item_key(topic, schema::OFFSET_MAX).ok_or(Fault::OutOfRange)?;
    let is_mirror = far.is_some();
    let mut statement = connection.prepare_cached(match is_mirror {
        true => WALK_MIRROR,
        false => WALK,
    })?;
    let mut rows = match is_mirror {
        true => {
            let start = schema::item_key(topic, 0).ok_or(Fault::OutOfRange)?;
            let holding = pack::holding(connection, Table::Packed, (start, first))?;
            statement.query((first, last, holding.unwrap_or(first)))?
        }
        false => statement.query((first, last))?,
    };
    let mut reading = Reading {
        far,
        from: from.0,
        bytes_left: bytes_max,
        items,
    };
    while let Some(row) = rows.next()? {
        if !reading.take(row.get(0)?, found_in(row, is_mirror)?)? {
            break;
        }
    }
    Ok(())
}

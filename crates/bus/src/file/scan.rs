//! Reads, each on a thread of the blocking pool.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::far::{Far, FarPlace};
use super::fault::{Fault, Kind};
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
    for table in ["item", "far"] {
        let sql = format!("SELECT 1 FROM {table} WHERE key >= ?1 AND key < ?2 LIMIT 1");
        let is_there = table == "item" || far.is_some();
        if is_there && connection.prepare_cached(&sql)?.exists((first, end))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The payload, or where it lies.
type Found<'a> = Result<&'a [u8], FarPlace>;

fn payload_of<'a>(row: &'a Row<'_>, is_mirror: bool) -> Result<Found<'a>, Fault> {
    let payload = row.get_ref(1)?;
    if !is_mirror || payload != ValueRef::Null {
        return Ok(Ok(payload.as_blob().map_err(rusqlite::Error::from)?));
    }
    let number = |column| u64::try_from(row.get::<_, i64>(column)?).map_err(|_| Fault::OutOfRange);
    Ok(Err(FarPlace {
        file: row.get(2)?,
        at: number(3)?,
        length: number(4)?,
    }))
}

const WALK: &str = "SELECT key, payload FROM item WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
const WALK_MIRROR: &str = "SELECT key, payload, NULL, NULL, NULL FROM item WHERE key BETWEEN ?1 AND ?2 \
    UNION ALL SELECT key, NULL, file, place, length FROM far WHERE key BETWEEN ?1 AND ?2 ORDER BY 1";

fn walk(
    (connection, far): (&Connection, Option<&Far>),
    topic: i64,
    from: Offset,
    bytes_max: usize,
    items: &mut Vec<Item>,
) -> Result<(), Fault> {
    let first = schema::item_key(topic, from.0).ok_or(Fault::OutOfRange)?;
    let last = schema::item_key(topic, schema::OFFSET_MAX).ok_or(Fault::OutOfRange)?;
    let mut statement = connection.prepare_cached(match far {
        Some(_) => WALK_MIRROR,
        None => WALK,
    })?;
    let mut rows = statement.query((first, last))?;
    let mut bytes = 0;
    while items.len() < ITEMS_MAX && (bytes < bytes_max || items.is_empty()) {
        let Some(row) = rows.next()? else { break };
        let found = schema::key_offset(row.get(0)?);
        let payload = payload_of(row, far.is_some())?;
        bytes += match payload {
            Ok(payload) => payload.len(),
            Err(place) => usize::try_from(place.length).map_err(|_| Fault::OutOfRange)?,
        };
        if bytes > bytes_max && !items.is_empty() {
            break;
        }
        if let Some(before) = items.last()
            && before.offset.0 + 1 != found
        {
            let expected = before.offset.0 + 1;
            return Err(Fault::NotDense { found, expected });
        }
        items.push(Item {
            offset: Offset(found),
            payload: match (payload, far) {
                (Ok(payload), _) => payload.to_vec(),
                (Err(place), Some(far)) => far.read(place)?,
                (Err(_), None) => return Err(Fault::OutOfRange),
            },
        });
    }
    Ok(())
}

//! Messages of one short item each that lie in a mirror one behind the other: `spec/bus-mqtt.md`, section 8.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};

use super::fault::Fault;
use super::known::{Kept, digest};
use super::mirror::{Arrival, ArrivalId, Origin};
use super::{far, schema, write};
use crate::Offset;

/// Bytes of payloads beyond which the next pack begins, and messages of one.
const BYTES_MAX: usize = 64 << 10;
const COUNT_MAX: usize = 1_024;
/// What is known of each message: its id and its digest.
const KNOWN_LEN: usize = 16 + 8;
/// The same to the database.
const KNOWN_LEN_SQL: i64 = 24;

/// A pack that is being filled.
#[derive(Debug)]
pub(super) struct Packing {
    /// The key of its first item.
    first: i64,
    is_own: bool,
    salt: i64,
    ends: Vec<u8>,
    bytes: Vec<u8>,
    known: Vec<u8>,
}

impl Packing {
    /// Whether a message is packed at all.
    pub(super) fn takes(arrival: &Arrival) -> bool {
        let is_plain = arrival.stamp == 0 && arrival.parts == 0;
        is_plain && matches!(&*arrival.payloads, [one] if one.len() < far::FAR_MIN)
    }

    pub(super) fn begin(first: i64, is_own: bool, salt: i64) -> Self {
        Self {
            first,
            is_own,
            salt,
            ends: Vec::new(),
            bytes: Vec::new(),
            known: Vec::new(),
        }
    }

    /// The key of its first item.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// Whether a message goes behind those that are there.
    pub(super) fn has_room(&self, arrival: &Arrival) -> bool {
        let is_full = self.bytes.len() >= BYTES_MAX || self.ends.len() >= 4 * COUNT_MAX;
        self.is_own == arrival.is_own && !is_full
    }

    pub(super) fn push(&mut self, id: &ArrivalId, payload: &Bytes) -> Result<(), Fault> {
        self.bytes.extend_from_slice(payload);
        let end = u32::try_from(self.bytes.len()).map_err(|_| Fault::OutOfRange)?;
        self.ends.extend_from_slice(&end.to_be_bytes());
        self.known.extend_from_slice(id);
        let digest = digest(self.salt, std::slice::from_ref(payload));
        self.known.extend_from_slice(&digest.to_be_bytes());
        Ok(())
    }

    /// Puts it in the mirror.
    pub(super) fn put(self, connection: &Connection, now: i64) -> Result<(), Fault> {
        let count = i64::try_from(self.ends.len() / 4).map_err(|_| Fault::OutOfRange)?;
        connection
            .prepare_cached("INSERT INTO packed (key, count, ends, bytes) VALUES (?1, ?2, ?3, ?4)")?
            .execute((self.first, count, &self.ends, &self.bytes))?;
        connection
            .prepare_cached(
                "INSERT INTO batch (key, count, own, time, salt, known) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((self.first, count, self.is_own, now, self.salt, &self.known))?;
        Ok(())
    }
}

/// The payloads of a pack, or that it is damaged.
pub(super) fn payloads<'a>(ends: &[u8], bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Fault> {
    let mut begin = 0;
    let (ends, []) = ends.as_chunks::<4>() else {
        return Err(Fault::Short);
    };
    let each = ends.iter().map(|end| {
        let end = u32::from_be_bytes(*end) as usize;
        let payload = bytes.get(begin..end).ok_or(Fault::Short);
        begin = end;
        payload
    });
    each.collect()
}

/// Of the packs of a topic, the key of the one that has the item at `at` in its middle.
pub(super) fn holding(
    connection: &Connection,
    table: Table,
    (start, at): (i64, i64),
) -> Result<Option<i64>, Fault> {
    let sql = match table {
        Table::Packed => {
            "SELECT key, count FROM packed WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1"
        }
        Table::Batch => {
            "SELECT key, count FROM batch WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1"
        }
    };
    let before: Option<(i64, i64)> = connection
        .prepare_cached(sql)?
        .query_row((start, at), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let holding = before.filter(|(key, count)| key.saturating_add(*count) > at);
    Ok(holding.map(|(key, _)| key))
}

/// Where packs lie: their payloads, and by what these are known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Packed,
    Batch,
}

/// Removes the payloads of a topic that lie in packs, from its first key on and below another.
pub(super) fn trim(connection: &Connection, first: i64, end: i64) -> Result<(), Fault> {
    if let Some(key) = holding(connection, Table::Packed, (first, end))?
        && key < end
    {
        // Those that stay lie by themselves from now on.
        let (ends, bytes): (Vec<u8>, Vec<u8>) = connection
            .prepare_cached("SELECT ends, bytes FROM packed WHERE key = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (key, payload) in (key..).zip(payloads(&ends, &bytes)?) {
            if key >= end {
                write::insert_item(connection, key, payload)?;
            }
        }
    }
    connection
        .prepare_cached("DELETE FROM packed WHERE key >= ?1 AND key < ?2")?
        .execute((first, end))?;
    Ok(())
}

/// What a batch knows of one message, if it is the one with an id.
pub(super) fn kept(
    connection: &Connection,
    (start, key): (i64, i64),
    id: &ArrivalId,
) -> Result<Option<Kept>, Fault> {
    let mut batch = connection.prepare_cached(
        "SELECT key, own, salt, substr(known, ?3 * (?2 - key) + 1, ?3) FROM batch \
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key DESC LIMIT 1",
    )?;
    let mut rows = batch.query((start, key, KNOWN_LEN_SQL))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let known = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    let Some((of, digest)) = known.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let Some(digest) = digest.first_chunk::<8>().filter(|_| of == id) else {
        return Ok(None);
    };
    Ok(Some(Kept {
        key,
        batch: Some(row.get(0)?),
        count: 1,
        is_own: row.get(1)?,
        salt: row.get(2)?,
        digest: i64::from_be_bytes(*digest),
    }))
}

/// Has each message of a batch known by itself from now on, so that something else may be said of it.
pub(super) fn take_apart(connection: &Connection, topic: i64, batch: i64) -> Result<(), Fault> {
    let gone: Option<(bool, i64, i64, Vec<u8>)> = connection
        .prepare_cached("DELETE FROM batch WHERE key = ?1 RETURNING own, time, salt, known")?
        .query_row([batch], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    // It was taken apart for another message already.
    let Some((own, time, salt, known)) = gone else {
        return Ok(());
    };
    let mut insert = connection.prepare_cached(
        "INSERT INTO arrival (key, topic, id, count, stamp, own, time, parts, salt, digest) \
         VALUES (?1, ?2, ?3, 1, 0, ?4, ?5, 0, ?6, ?7)",
    )?;
    for (key, (id, digest)) in (batch..).zip(each(&known)) {
        let digest = i64::from_be_bytes(digest);
        insert.execute((key, topic, id, own, time, salt, digest))?;
    }
    Ok(())
}

/// The id and the digest of each message.
pub(super) fn each(known: &[u8]) -> impl Iterator<Item = (ArrivalId, [u8; 8])> {
    let (each, _) = known.as_chunks::<KNOWN_LEN>();
    each.iter().filter_map(|of| {
        let (id, digest) = of.split_first_chunk::<16>()?;
        Some((*id, *digest.first_chunk::<8>()?))
    })
}

/// Where messages of batches lie that have items from a key on, at most so many.
pub(super) fn origins(
    connection: &Connection,
    (start, from, end): (i64, i64, i64),
    count_max: usize,
) -> Result<Vec<Origin>, Fault> {
    let first = holding(connection, Table::Batch, (start, from))?.unwrap_or(from);
    let mut batches = connection.prepare_cached(
        "SELECT key, own, time, known FROM batch WHERE key BETWEEN ?1 AND ?2 ORDER BY key",
    )?;
    let mut rows = batches.query((first, end))?;
    let mut found = Vec::new();
    while found.len() < count_max
        && let Some(row) = rows.next()?
    {
        let (key, is_own, time): (i64, bool, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let time_ms = u64::try_from(time).map_err(|_| Fault::OutOfRange)?;
        let known = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        let all = (key..).zip(each(known)).filter(|(key, _)| *key >= from);
        found.extend(all.map(|(key, (id, _))| {
            let first = schema::key_offset(key);
            Origin {
                id,
                stamp: 0,
                first: Offset(first),
                behind: Offset(first.saturating_add(1)),
                is_own,
                time_ms,
                parts: 0,
            }
        }));
    }
    found.truncate(count_max);
    Ok(found)
}

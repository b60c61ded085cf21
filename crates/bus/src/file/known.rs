//! By what a mirror knows what it has taken in: `spec/bus-mqtt.md`, section 8.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};

use super::fault::Fault;
use super::mirror::{Arrival, ArrivalId};
use super::{pack, schema};

/// Messages of a topic that are not in the index, at most; of more all are brought there.
const TAIL_MAX: usize = 16_384;
/// Of all topics, as they are kept in memory.
const KEPT_MAX: usize = 65_536;
/// What digests are counted modulo: 2^61 - 1, a prime.
const DIGEST_PRIME: u64 = (1 << 61) - 1;

/// What is not in the index, topic by topic; after a transaction that failed, it has to be dropped.
#[derive(Debug, Default)]
pub(super) struct Known {
    tails: HashMap<i64, Tail>,
}

/// Of one topic.
#[derive(Debug, Default)]
pub(super) struct Tail {
    topic: i64,
    /// What has a key below is in the index.
    indexed: i64,
    /// Behind the last message that was looked at.
    seen: i64,
    /// The hash of each id, and the key of its message.
    places: BTreeSet<(i64, i64)>,
}

/// What is known of a message that was taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) key: i64,
    /// The key of the batch that knows it; nothing where it is known by itself.
    pub(super) batch: Option<i64>,
    pub(super) count: u64,
    pub(super) is_own: bool,
    pub(super) salt: i64,
    pub(super) digest: i64,
}

impl Known {
    /// What is known of a topic, up to what lies there.
    pub(super) fn tail(&mut self, connection: &Connection, topic: i64) -> Result<&mut Tail, Fault> {
        let kept: usize = self.tails.values().map(|tail| tail.places.len()).sum();
        if kept > KEPT_MAX {
            self.tails.retain(|of, _| *of == topic);
        }
        let start = start_of(topic)?;
        let tail = self.tails.entry(topic).or_insert_with(|| Tail {
            topic,
            indexed: start,
            seen: start,
            places: BTreeSet::new(),
        });
        tail.catch_up(connection)?;
        Ok(tail)
    }
}

impl Tail {
    /// Looks at what others have taken in, or brought to the index.
    fn catch_up(&mut self, connection: &Connection) -> Result<(), Fault> {
        let indexed: Option<i64> = connection
            .prepare_cached("SELECT until FROM indexed WHERE topic = ?1")?
            .query_row([self.topic], |row| row.get(0))
            .optional()?;
        if let Some(indexed) = indexed.filter(|until| *until > self.indexed) {
            self.indexed = indexed;
            self.seen = self.seen.max(indexed);
            self.places.retain(|(_, key)| *key >= indexed);
        }
        let end = schema::item_key(self.topic, schema::OFFSET_MAX).ok_or(Fault::OutOfRange)?;
        let mut new = connection.prepare_cached(
            "SELECT key, count, id, NULL FROM arrival WHERE key BETWEEN ?1 AND ?2 UNION ALL \
             SELECT key, count, NULL, known FROM batch WHERE key BETWEEN ?1 AND ?2 ORDER BY 1",
        )?;
        let mut rows = new.query((self.seen, end))?;
        while let Some(row) = rows.next()? {
            let (key, count): (i64, i64) = (row.get(0)?, row.get(1)?);
            match row.get::<_, Option<ArrivalId>>(2)? {
                Some(id) => self.add(&id, key),
                None => {
                    let known = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
                    let each = (key..).zip(pack::each(known));
                    each.for_each(|(key, (id, _))| self.add(&id, key));
                }
            }
            self.settle(connection, key.saturating_add(count))?;
        }
        Ok(())
    }

    /// Notes where a message lies.
    pub(super) fn add(&mut self, id: &ArrivalId, key: i64) {
        self.places.insert((hash(id), key));
    }

    /// Says that all below a key was added; brings it to the index where that is much.
    pub(super) fn settle(&mut self, connection: &Connection, seen: i64) -> Result<(), Fault> {
        self.seen = seen;
        if self.places.len() < TAIL_MAX {
            return Ok(());
        }
        let mut insert =
            connection.prepare_cached("INSERT OR IGNORE INTO known (hash, key) VALUES (?1, ?2)")?;
        for place in std::mem::take(&mut self.places) {
            insert.execute(place)?;
        }
        connection
            .prepare_cached("INSERT OR REPLACE INTO indexed (topic, until) VALUES (?1, ?2)")?
            .execute((self.topic, seen))?;
        self.indexed = seen;
        Ok(())
    }

    /// The key of the last message with an id that may not be in the database yet.
    pub(super) fn places_of(&self, id: &ArrivalId) -> Option<i64> {
        let hash = hash(id);
        let mut places = self.places.range((hash, i64::MIN)..=(hash, i64::MAX));
        places.next_back().map(|(_, key)| *key)
    }

    /// What is known of messages with an id, in their order.
    pub(super) fn find(&self, connection: &Connection, id: &ArrivalId) -> Result<Vec<Kept>, Fault> {
        let (start, hash) = (start_of(self.topic)?, hash(id));
        let mut keys = Vec::new();
        if self.indexed > start {
            // With `hash = ?1` it would be prepared anew each time: a small number may ask for another plan.
            let mut indexed = connection.prepare_cached(
                "SELECT key FROM known WHERE hash BETWEEN ?1 AND ?1 ORDER BY hash, key",
            )?;
            let mut rows = indexed.query([hash])?;
            while let Some(row) = rows.next()? {
                let key = row.get(0)?;
                if (start..self.indexed).contains(&key) {
                    keys.push(key);
                }
            }
        }
        let tail = self.places.range((hash, i64::MIN)..=(hash, i64::MAX));
        keys.extend(tail.map(|(_, key)| *key));
        let mut found = Vec::new();
        for key in keys {
            found.extend(match by_itself(connection, key, id)? {
                Some(kept) => Some(kept),
                None => pack::kept(connection, (start, key), id)?,
            });
        }
        Ok(found)
    }

    /// Where what arrived lies already, or lay before it was trimmed; notes how it came this time.
    pub(super) fn find_again(
        &self,
        connection: &Connection,
        arrival: &Arrival,
    ) -> Result<Option<i64>, Fault> {
        for kept in self.find(connection, &arrival.id)? {
            let is_as_long = kept.count == arrival.payloads.len() as u64;
            if !is_as_long || digest(kept.salt, &arrival.payloads) != kept.digest {
                continue;
            }
            if let Some(batch) = kept.batch {
                let is_as_known = kept.is_own >= arrival.is_own && arrival.parts == 0;
                if is_as_known {
                    return Ok(Some(kept.key));
                }
                pack::take_apart(connection, self.topic, batch)?;
            }
            connection
                .prepare_cached(
                    "UPDATE arrival SET own = max(own, ?2), parts = ?3 \
                     WHERE key = ?1 AND (own < ?2 OR parts <> ?3)",
                )?
                .execute((kept.key, arrival.is_own, arrival.parts))?;
            return Ok(Some(kept.key));
        }
        Ok(None)
    }

    /// Takes messages with an id for those of others.
    pub(super) fn disown(&self, connection: &Connection, id: &ArrivalId) -> Result<(), Fault> {
        for kept in self.find(connection, id)?.iter().filter(|of| of.is_own) {
            if let Some(batch) = kept.batch {
                pack::take_apart(connection, self.topic, batch)?;
            }
            connection
                .prepare_cached("UPDATE arrival SET own = 0 WHERE key = ?1")?
                .execute([kept.key])?;
        }
        Ok(())
    }
}

/// What is known of a message that no batch has, if it is the one with an id.
fn by_itself(connection: &Connection, key: i64, id: &ArrivalId) -> Result<Option<Kept>, Fault> {
    let mut arrival = connection.prepare_cached(
        "SELECT count, own, salt, digest FROM arrival WHERE key = ?1 AND id = ?2",
    )?;
    let mut rows = arrival.query((key, id))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(Kept {
        key,
        batch: None,
        count: u64::try_from(row.get::<_, i64>(0)?).map_err(|_| Fault::OutOfRange)?,
        is_own: row.get(1)?,
        salt: row.get(2)?,
        digest: row.get(3)?,
    }))
}

fn start_of(topic: i64) -> Result<i64, Fault> {
    schema::item_key(topic, 0).ok_or(Fault::OutOfRange)
}

/// By what an id is found.
fn hash(id: &ArrivalId) -> i64 {
    let [high, low] = [&id[..8], &id[8..]].map(|of| {
        let number = |all: u64, byte: &u8| all << 8 | u64::from(*byte);
        of.iter().fold(0, number)
    });
    (high ^ low.wrapping_mul(0x9e37_79b9_7f4a_7c15)).cast_signed()
}

/// By what payloads are known that may not lie here any more; `spec/bus-mqtt.md`, section 8. Whoever does
/// not know the salt finds no others with the same.
pub(super) fn digest(salt: i64, payloads: &[Bytes]) -> i64 {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let digests: BTreeSet<_> = all
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

    /// The worked example of the specification.
    #[test]
    fn an_id_is_found_by_what_the_specification_shows() {
        let id = |high: u64, low: u64| (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        assert_eq!(hash(&id(5, 0)), 5);
        assert_eq!(
            hash(&id(5, 1)),
            (5 ^ 0x9e37_79b9_7f4a_7c15_u64).cast_signed()
        );
        assert_eq!(hash(&id(0, 2)), 0x3c6e_f372_fe94_f82a);
    }
}

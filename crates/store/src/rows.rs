//! Sealed rows, and the tally by which a missing one is noticed (`spec/store.md`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand_core::CryptoRng;
use rusqlite::{Connection, Error as SqlError, OptionalExtension, params};
use sealcast_crypto::{StoreKey, delimited};

use crate::{Key, Space, StoreError, Value, fault};

const RECORD_LABEL: &str = "sealcast.v1 store record";

/// Number of the space that holds the tally; no [`Space`] has it.
const TALLY_SPACE: u16 = 256;

const TALLY_ENTRY_LEN: usize = 9;

/// Number of rows in each space that has any.
type Tally = BTreeMap<u8, u64>;

/// The rows as one handle sees them.
pub(crate) struct Rows<'a> {
    pub(crate) path: &'a Path,
    pub(crate) connection: &'a Connection,
    pub(crate) key: &'a StoreKey,
    /// Spaces found to hold every row that was written.
    pub(crate) whole: &'a RefCell<BTreeSet<u8>>,
    /// Rows added and removed in this transaction.
    pub(crate) added: RefCell<BTreeMap<u8, i64>>,
}

impl Rows<'_> {
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        let space = u16::from(key.space.0);
        match self.sealed(space, &key.id)? {
            Some(sealed) => self.open(space, &key.id, &sealed).map(Some),
            None => self.require_whole(key.space).map(|()| None),
        }
    }

    pub(crate) fn scan(
        &self,
        space: Space,
        prefix: &[u8],
    ) -> Result<Vec<(Key, Value)>, StoreError> {
        self.require_whole(space)?;
        let mut found = Vec::new();
        self.walk(space, prefix, |id, sealed| {
            let value = self.open(u16::from(space.0), id, sealed)?;
            found.push((Key::new(space, id), value));
            Ok(())
        })?;
        Ok(found)
    }

    pub(crate) fn scan_readable(
        &self,
        space: Space,
        prefix: &[u8],
    ) -> Result<(Vec<(Key, Value)>, u64), StoreError> {
        let (mut found, mut damaged) = (Vec::new(), 0);
        self.walk(space, prefix, |id, sealed| {
            match self.open(u16::from(space.0), id, sealed) {
                Ok(value) => found.push((Key::new(space, id), value)),
                Err(_) => damaged += 1,
            }
            Ok(())
        })?;
        Ok((found, damaged))
    }

    pub(crate) fn put(
        &self,
        rng: &mut dyn CryptoRng,
        key: &Key,
        value: &[u8],
    ) -> Result<(), StoreError> {
        if !self.holds(key)? {
            self.count(key, 1);
        }
        self.write(rng, u16::from(key.space.0), &key.id, value)
    }

    pub(crate) fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if self.holds(key)? {
            self.count(key, -1);
        }
        let sql = "DELETE FROM records WHERE space = ?1 AND id = ?2";
        self.change(sql, params![key.space.0, key.id])
    }

    /// Writes the tally of a new store.
    pub(crate) fn begin_tally(&self, rng: &mut dyn CryptoRng) -> Result<(), StoreError> {
        self.write(rng, TALLY_SPACE, &[], &[])
    }

    /// Carries what was added and removed into the tally; the last step before a commit.
    pub(crate) fn settle_tally(&self, rng: &mut dyn CryptoRng) -> Result<(), StoreError> {
        let mut added = self.added.take();
        added.retain(|_, added| *added != 0);
        if added.is_empty() {
            return Ok(());
        }
        let mut tally = self.tally()?;
        for (space, added) in added {
            let count = tally.entry(space).or_default();
            *count = count
                .checked_add_signed(added)
                .ok_or_else(|| fault::damaged(self.path, "more records than its tally says"))?;
        }
        tally.retain(|_, count| *count != 0);
        self.write(rng, TALLY_SPACE, &[], &encode(&tally))
    }

    /// Opens the tally, and tells a wrong key by it.
    pub(crate) fn check_key(&self) -> Result<(), StoreError> {
        let sealed = self
            .sealed(TALLY_SPACE, &[])?
            .ok_or_else(|| fault::damaged(self.path, "its tally is gone"))?;
        let context = context(TALLY_SPACE, &[]);
        self.key
            .open(&context, &sealed)
            .map(drop)
            .map_err(|_| StoreError::WrongKey {
                path: self.path.to_owned(),
            })
    }

    /// Makes sure that no row of `space` is missing or altered, by reading all of them once.
    fn require_whole(&self, space: Space) -> Result<(), StoreError> {
        if self.whole.borrow().contains(&space.0) {
            return Ok(());
        }
        // Tally and rows must be of one moment.
        let snapshot = match self.connection.is_autocommit() {
            true => Some(self.sql(self.connection.unchecked_transaction())?),
            false => None,
        };
        let added = self.added.borrow().get(&space.0).copied().unwrap_or(0);
        let tally = self.tally()?.get(&space.0).copied().unwrap_or(0);
        let mut count = 0_u64;
        let mut last: Option<Vec<u8>> = None;
        self.walk(space, &[], |id, sealed| {
            self.open(u16::from(space.0), id, sealed)?;
            if last.as_ref().is_some_and(|last| last.as_slice() >= id) {
                return Err(fault::damaged(self.path, "records out of order"));
            }
            last = Some(id.to_vec());
            count += 1;
            Ok(())
        })?;
        drop(snapshot);
        if tally.checked_add_signed(added) != Some(count) {
            let what = format!("{count} records in space {}, tally says {tally}", space.0);
            return Err(fault::damaged(self.path, what));
        }
        self.whole.borrow_mut().insert(space.0);
        Ok(())
    }

    /// Whether there is such a row. A damaged one is neither replaced nor removed: it may be another
    /// one whose id was altered, which the tally would not miss any more.
    fn holds(&self, key: &Key) -> Result<bool, StoreError> {
        let space = u16::from(key.space.0);
        let sealed = self.sealed(space, &key.id)?;
        let opened = sealed.map(|sealed| self.open(space, &key.id, &sealed));
        Ok(opened.transpose()?.is_some())
    }

    fn count(&self, key: &Key, added: i64) {
        *self.added.borrow_mut().entry(key.space.0).or_default() += added;
    }

    fn tally(&self) -> Result<Tally, StoreError> {
        let sealed = self.sealed(TALLY_SPACE, &[])?;
        let sealed = sealed.ok_or_else(|| fault::damaged(self.path, "its tally is gone"))?;
        let tally = self.open(TALLY_SPACE, &[], &sealed)?;
        decode(tally.expose()).ok_or_else(|| fault::damaged(self.path, "its tally is malformed"))
    }

    fn sealed(&self, space: u16, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT value FROM records WHERE space = ?1 AND id = ?2";
        let mut statement = self.sql(self.connection.prepare_cached(sql))?;
        let found = statement.query_row(params![space, id], |row| row.get(0));
        self.sql(found.optional())
    }

    fn walk(
        &self,
        space: Space,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT id, value FROM records WHERE space = ?1 AND id >= ?2 ORDER BY id";
        let mut statement = self.sql(self.connection.prepare_cached(sql))?;
        let mut rows = self.sql(statement.query(params![space.0, prefix]))?;
        while let Some(row) = self.sql(rows.next())? {
            let column = |at| row.get_ref(at)?.as_blob().map_err(SqlError::from);
            let (id, sealed) = self.sql(column(0).and_then(|id| Ok((id, column(1)?))))?;
            if !id.starts_with(prefix) {
                break;
            }
            each(id, sealed)?;
        }
        Ok(())
    }

    fn write(
        &self,
        rng: &mut dyn CryptoRng,
        space: u16,
        id: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        let sealed = self.key.seal(rng, &context(space, id), value);
        let sql = "INSERT INTO records (space, id, value) VALUES (?1, ?2, ?3)
            ON CONFLICT (space, id) DO UPDATE SET value = excluded.value";
        self.change(sql, params![space, id, sealed])
    }

    fn change(&self, sql: &str, row: impl rusqlite::Params) -> Result<(), StoreError> {
        let mut statement = self.sql(self.connection.prepare_cached(sql))?;
        self.sql(statement.execute(row)).map(drop)
    }

    fn open(&self, space: u16, id: &[u8], sealed: &[u8]) -> Result<Value, StoreError> {
        let context = context(space, id);
        let opened = self.key.open(&context, sealed);
        opened.map_err(|_| {
            let what = format!("a record of space {space} is not what was written");
            fault::damaged(self.path, what)
        })
    }

    fn sql<T>(&self, result: Result<T, SqlError>) -> Result<T, StoreError> {
        result.map_err(|error| fault::of_database(self.path, error))
    }
}

/// What a sealed value is bound to, so that it opens nowhere else.
fn context(space: u16, id: &[u8]) -> Vec<u8> {
    delimited(RECORD_LABEL, &[&space.to_be_bytes(), id])
}

fn encode(tally: &Tally) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tally.len() * TALLY_ENTRY_LEN);
    for (space, count) in tally {
        bytes.push(*space);
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Tally> {
    let entries = bytes.chunks_exact(TALLY_ENTRY_LEN);
    if !entries.remainder().is_empty() {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (space, count) = entry.split_first()?;
        Some((*space, u64::from_be_bytes(count.try_into().ok()?)))
    };
    entries.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ones::{Ones, hex};

    #[test]
    fn sealed_values_are_those_of_the_specification() {
        let key = StoreKey::init_with(|bytes| {
            bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = at);
        });
        let sealed = key.seal(&mut Ones, &context(1, b"id"), b"value");
        // Both computed by another implementation.
        assert_eq!(
            hex(&sealed),
            "010101010101010101010101a4e8a7c9c27e049dec82ed95b1a6c461d6d69f6928"
        );
        let tally = encode(&Tally::from([(1, 1)]));
        let sealed = key.seal(&mut Ones, &context(TALLY_SPACE, b""), &tally);
        let expected = "0101010101010101010101011592ed8ae703f5e17d9ce5c53ad9cba196155658c9c1bce0fb";
        assert_eq!(hex(&sealed), expected);
    }

    #[test]
    fn a_value_is_bound_to_the_context_of_the_specification() {
        let expected: [&[u8]; 6] = [
            b"\x18\0\0\0\0\0\0\0sealcast.v1 store record",
            b"\x02\0\0\0\0\0\0\0",
            b"\0\x01",
            b"\x02\0\0\0\0\0\0\0",
            b"id",
            b"",
        ];
        assert_eq!(context(1, b"id"), expected.concat());
    }

    /// fault 5
    #[test]
    fn no_two_places_have_one_context() {
        let mut contexts = Vec::new();
        for space in [0, 1, 255, TALLY_SPACE] {
            for id in [&b""[..], b"\0", b"\x01", b"\0\x01", b"id", b"i", b"d"] {
                contexts.push(context(space, id));
            }
        }
        let count = contexts.len();
        contexts.sort();
        contexts.dedup();
        assert_eq!(contexts.len(), count);
    }

    #[test]
    fn a_tally_comes_back_and_half_an_entry_is_refused() {
        let tally = Tally::from([(0, 1), (7, 0x0102_0304_0506_0708), (255, u64::MAX)]);
        let bytes = encode(&tally);
        assert_eq!(bytes[9..18], [7, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(decode(&bytes), Some(tally));
        assert_eq!(decode(&[]), Some(Tally::new()));
        for len in (1..bytes.len()).filter(|len| len % TALLY_ENTRY_LEN != 0) {
            assert_eq!(decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}

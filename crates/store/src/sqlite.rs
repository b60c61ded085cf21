use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{self, Path, PathBuf};
use std::time::Duration;

use rand_core::CryptoRng;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error as SqlError, OpenFlags, Transaction, TransactionBehavior};
use sealcast_crypto::StoreKey;

use crate::gate::Gate;
use crate::record::check_value;
use crate::rows::Rows;
use crate::schema::{self, APPLICATION_ID, Marks, VERSION};
use crate::{Key, Space, Store, StoreError, Txn, Value, fault, place};

/// How long a call waits for another process before it fails with [`StoreError::Busy`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SETTINGS: &str = "PRAGMA synchronous = FULL;
    PRAGMA fullfsync = ON;
    PRAGMA checkpoint_fullfsync = ON;
    PRAGMA secure_delete = ON;
    PRAGMA cell_size_check = ON;
    PRAGMA trusted_schema = OFF;
    PRAGMA temp_store = MEMORY;";

/// Keeps records in a file, each sealed under the key of the store.
///
/// Any number of handles, threads and processes may have one file open. Beside the file lie its
/// log (`-wal`) and the log's index (`-shm`) while it is in use; they belong to it. The folder must
/// be on a local disk, not on a network share.
///
/// What it keeps secret and what it notices is written in `spec/store.md`.
pub struct SqliteStore {
    path: PathBuf,
    gate: Gate<Handle>,
}

struct Handle {
    connection: Connection,
    key: StoreKey,
    rng: Box<dyn CryptoRng + Send>,
    whole: RefCell<BTreeSet<u8>>,
    commits: u32,
}

struct SqliteTxn<'a> {
    rows: Rows<'a>,
    rng: &'a mut dyn CryptoRng,
    failed: bool,
}

impl SqliteStore {
    /// Opens the store in the file `path`, and makes it, with its folder, when there is none.
    ///
    /// # Errors
    ///
    /// Fails when the key is not the one the store was made with, when the store is damaged or of
    /// a newer version, and when the file cannot be opened for reading and writing.
    pub fn open(
        path: impl AsRef<Path>,
        key: StoreKey,
        mut rng: Box<dyn CryptoRng + Send>,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // An absolute path cannot be taken for a URI by the database.
        let path = path::absolute(path).map_err(|error| fault::of_files(path, error))?;
        ensure_file(&path, &key, &mut *rng)?;
        let connection = connect(&path)?;
        let handle = Handle {
            connection,
            key,
            rng,
            whole: RefCell::default(),
            commits: 0,
        };
        handle.rows(&path).check_key()?;
        let gate = Gate::new(handle);
        Ok(Self { path, gate })
    }

    /// Empties the log of the store, in which sealed copies of deleted records may remain.
    ///
    /// To be called after secrets were deleted that must not be found even by someone who seizes
    /// this device with its keys.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Busy`] while another process reads or writes, and as
    /// [`Store::transact`] does.
    pub fn purge(&self) -> Result<(), StoreError> {
        let handle = self.gate.enter()?;
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: bool = handle
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| fault::of_database(&self.path, error))?;
        if busy {
            let path = self.path.clone();
            return Err(StoreError::Busy { path });
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.gate.enter()?.rows(&self.path).get(key)
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        self.gate.enter()?.rows(&self.path).scan(space, prefix)
    }

    fn scan_readable(
        &self,
        space: Space,
        prefix: &[u8],
    ) -> Result<(Vec<(Key, Value)>, u64), StoreError> {
        let handle = self.gate.enter()?;
        handle.rows(&self.path).scan_readable(space, prefix)
    }

    fn transact(
        &self,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut handle = self.gate.enter()?;
        handle.transact(&self.path, step)?;
        handle.commits = handle.commits.wrapping_add(1);
        Ok(())
    }

    fn version(&self) -> Result<u64, StoreError> {
        let handle = self.gate.enter()?;
        let others: u32 = handle
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|error| fault::of_database(&self.path, error))?;
        Ok(u64::from(others) << 32 | u64::from(handle.commits))
    }
}

impl Handle {
    fn rows<'a>(&'a self, path: &'a Path) -> Rows<'a> {
        rows(path, &self.connection, &self.key, &self.whole)
    }

    fn transact(
        &mut self,
        path: &Path,
        step: &mut dyn FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = |error| fault::of_database(path, error);
        let connection = &self.connection;
        let txn =
            Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(sql)?;
        let mut running = SqliteTxn {
            rows: rows(path, &txn, &self.key, &self.whole),
            rng: &mut *self.rng,
            failed: false,
        };
        step(&mut running)?;
        if running.failed {
            return Err(StoreError::Aborted);
        }
        running.rows.settle_tally(running.rng)?;
        txn.commit().map_err(sql)
    }
}

impl Txn for SqliteTxn<'_> {
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, space: Space, prefix: &[u8]) -> Result<Vec<(Key, Value)>, StoreError> {
        self.rows.scan(space, prefix)
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), StoreError> {
        key.check()
            .and_then(|()| check_value(value))
            .and_then(|()| self.rows.put(self.rng, key, value))
            .inspect_err(|_| self.failed = true)
    }

    fn delete(&mut self, key: &Key) -> Result<(), StoreError> {
        key.check()
            .and_then(|()| self.rows.delete(key))
            .inspect_err(|_| self.failed = true)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn rows<'a>(
    path: &'a Path,
    connection: &'a Connection,
    key: &'a StoreKey,
    whole: &'a RefCell<BTreeSet<u8>>,
) -> Rows<'a> {
    let added = RefCell::new(BTreeMap::new());
    Rows {
        path,
        connection,
        key,
        whole,
        added,
    }
}

/// Makes the store when there is none, whole or not at all.
fn ensure_file(path: &Path, key: &StoreKey, rng: &mut dyn CryptoRng) -> Result<(), StoreError> {
    // Looked for before the file itself, since another process may be making both.
    let log_found = place::beside(path, "-wal").exists();
    match path.metadata() {
        Ok(file) if file.len() == 0 => return Err(fault::damaged(path, "the file is empty")),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && log_found => {
            let what = "the file is gone while its log is there";
            return Err(fault::damaged(path, what));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fault::of_files(path, error)),
    }
    let files = |error| fault::of_files(path, error);
    let draft = place::Draft::begin(path, rng.next_u64()).map_err(files)?;
    fill(draft.path(), path, key, rng)?;
    match draft.put_in_place(path) {
        // Another process was first; whether it used the same key is found out on opening.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        placed => placed.map_err(files),
    }
}

/// Writes an empty store, meant for `path`, into the empty file `draft`.
fn fill(
    draft: &Path,
    path: &Path,
    key: &StoreKey,
    rng: &mut dyn CryptoRng,
) -> Result<(), StoreError> {
    let sql = |error| fault::of_database(path, error);
    let connection = Connection::open_with_flags(draft, flags()).map_err(sql)?;
    connection.execute_batch(SETTINGS).map_err(sql)?;
    use_log(&connection).map_err(sql)?;
    schema::migrate(&connection).map_err(sql)?;
    let whole = RefCell::default();
    rows(path, &connection, key, &whole).begin_tally(rng)?;
    connection.close().map_err(|(_, error)| sql(error))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let sql = |error| fault::of_database(path, error);
    let connection = Connection::open_with_flags(path, flags()).map_err(sql)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
    let marks = schema::marks(&connection).map_err(sql)?;
    check_marks(path, &marks)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
        .map_err(sql)?;
    connection.execute_batch(SETTINGS).map_err(sql)?;
    use_log(&connection).map_err(sql)?;
    if marks.version < VERSION {
        schema::migrate(&connection).map_err(sql)?;
    }
    match schema::is_intact(&connection).map_err(sql)? {
        true => Ok(connection),
        false => Err(fault::damaged(path, "its tables are not those of a store")),
    }
}

fn check_marks(path: &Path, marks: &Marks) -> Result<(), StoreError> {
    let path = path.to_owned();
    match *marks {
        Marks { application_id, .. } if application_id != APPLICATION_ID => {
            Err(StoreError::NotAStore { path })
        }
        Marks { version: 0, .. } => Err(fault::damaged(&path, "it has no version")),
        Marks { version, .. } if version > VERSION => Err(StoreError::TooNew {
            path,
            found: version,
            known: VERSION,
        }),
        Marks { .. } => Ok(()),
    }
}

fn use_log(connection: &Connection) -> Result<(), SqlError> {
    let sql = "PRAGMA journal_mode = WAL";
    connection
        .query_row(sql, [], |row| row.get::<_, String>(0))
        .map(drop)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use getrandom::SysRng;
    use rand_core::UnwrapErr;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_full_disk_is_told_and_changes_nothing() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        let key = Key::new(Space(1), *b"id");
        store.transact(&mut |txn| txn.put(&key, b"value")).unwrap();
        let limit = |pages: u32| {
            let handle = store.gate.enter().unwrap();
            let pragma = "max_page_count";
            handle
                .connection
                .pragma_update_and_check(None, pragma, pages, |_| Ok(()))
                .unwrap();
        };
        limit(8);
        let error = store
            .transact(&mut |txn| {
                txn.put(&key, b"dropped")?;
                txn.put(&Key::new(Space(1), *b"large"), &[7; 1 << 16])
            })
            .unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert_eq!(store.get(&key).unwrap().unwrap().expose(), b"value");
        assert_eq!(store.scan(Space(1), b"").unwrap().len(), 1);
        limit(1000);
        store
            .transact(&mut |txn| txn.put(&key, &[7; 1 << 16]))
            .unwrap();
    }

    #[test]
    fn a_store_that_stays_busy_is_told() {
        let folder = TempDir::new().unwrap();
        let (one, other) = (open(&folder), open(&folder));
        other
            .gate
            .enter()
            .unwrap()
            .connection
            .busy_timeout(Duration::ZERO)
            .unwrap();
        one.transact(&mut |_| {
            let error = other.transact(&mut |_| Ok(())).unwrap_err();
            assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
            Ok(())
        })
        .unwrap();
        other.transact(&mut |_| Ok(())).unwrap();
    }

    #[test]
    fn a_panic_in_a_step_rolls_back_and_leaves_the_store_usable() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        let key = Key::new(Space(1), *b"id");
        let panicked = thread::scope(|scope| {
            let step = || {
                store.transact(&mut |txn| {
                    txn.put(&key, b"dropped")?;
                    panic!("in the middle")
                })
            };
            scope.spawn(step).join().is_err()
        });
        assert!(panicked);
        assert!(store.get(&key).unwrap().is_none());
        store.transact(&mut |txn| txn.put(&key, b"value")).unwrap();
    }

    #[test]
    fn a_second_thread_waits_for_the_first_and_is_not_taken_for_it() {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        let key = Key::new(Space(1), *b"id");
        let entered = Barrier::new(2);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                entered.wait();
                store.get(&key)
            });
            store
                .transact(&mut |txn| {
                    entered.wait();
                    thread::yield_now();
                    txn.put(&key, b"value")
                })
                .unwrap();
            assert!(reader.join().unwrap().unwrap().is_some());
        });
    }

    fn open(folder: &TempDir) -> SqliteStore {
        let key = StoreKey::init_with(|bytes| bytes.fill(7));
        let rng = Box::new(UnwrapErr(SysRng));
        SqliteStore::open(folder.path().join("store.db"), key, rng).unwrap()
    }
}

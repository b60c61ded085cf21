//! Opens the database and brings it to the newest format; see `spec/bus-file.md`.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::{Fault, Kind};

pub(super) const FILE_NAME: &str = "bus.db";
/// What a database holds. Its newest version is the number of migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    migrations: &'static [&'static str],
    /// Bytes of a page, where it is created.
    page: u32,
}

impl Format {
    pub(super) const BUS: Self = Self {
        migrations: &[
            include_str!("../../migrations/001_init.sql"),
            include_str!("../../migrations/002_ephemeral.sql"),
        ],
        page: 4 << 10,
    };
    /// A bus and what a mirror has besides: whoever knows no mirrors of this version cannot read all items.
    pub(super) const MIRROR: Self = Self {
        migrations: &[
            include_str!("../../migrations/001_init.sql"),
            include_str!("../../migrations/002_ephemeral.sql"),
            include_str!("../../migrations/mirror.sql"),
            include_str!("../../migrations/mirror_packed.sql"),
        ],
        // A pack takes some pages, and not some dozen.
        page: 16 << 10,
    };

    /// A mirror of the version before.
    #[cfg(test)]
    pub(super) const MIRROR_3: Self = Self {
        migrations: Self::MIRROR
            .migrations
            .first_chunk::<3>()
            .expect("three")
            .as_slice(),
        ..Self::MIRROR
    };

    pub(super) fn version(self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// "SCBS".
const APPLICATION_ID: i32 = 0x5343_4253;

/// How long a lock of another process is waited for, and how often it is tried.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// Statements that a connection keeps: all that a mirror has.
const STATEMENTS_KEPT: usize = 64;
/// Bytes of the write-ahead log that are kept for reuse.
const LOG_KEPT_MAX: u32 = 16 << 20;

/// Key of the first item: `topic << OFFSET_BITS | offset`.
const OFFSET_BITS: u32 = 40;
pub(super) const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;
const TOPIC_MAX: i64 = (1 << (63 - OFFSET_BITS)) - 1;

/// The key of an item, or `None` for a topic or an offset that no item can have.
pub(super) fn item_key(topic: i64, offset: u64) -> Option<i64> {
    let offset = i64::try_from(offset).ok()?;
    let fits = (1..=TOPIC_MAX).contains(&topic) && offset >> OFFSET_BITS == 0;
    fits.then_some(topic << OFFSET_BITS | offset)
}

/// The offset in the key of an item.
pub(super) fn key_offset(key: i64) -> u64 {
    key.unsigned_abs() & OFFSET_MAX
}

/// Opens the database at `path`, creating it or bringing it to the newest format.
pub(super) fn create(path: &Path, format: Format) -> Result<Connection, Fault> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    let start = Instant::now();
    loop {
        match prepare(&mut connection, format) {
            // The switch to a write-ahead log may fail at once when another process makes it too.
            Err(fault) if fault.kind() == Kind::Busy && start.elapsed() < LOCK_WAIT_MAX => {
                thread::sleep(LOCK_RETRY);
            }
            Err(fault) => return Err(fault),
            Ok(()) => break,
        }
    }
    settle(&connection)?;
    Ok(connection)
}

/// Opens the database at `path`, which is there and has the newest format.
pub(super) fn connect(path: &Path) -> Result<Connection, Fault> {
    let connection = open(path, OpenFlags::empty())?;
    settle(&connection)?;
    Ok(connection)
}

/// Opens the database at `path` as it is, and says its format; `None` where nothing was written there
/// yet.
pub(super) fn look(path: &Path) -> Result<Option<(Connection, u32)>, Fault> {
    let connection = open(path, OpenFlags::empty())?;
    let found = found_version(&connection, Format::BUS)?;
    Ok((found > 0).then_some((connection, found)))
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Fault> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.busy_handler(Some(wait_for_lock))?;
    // The log stays when the last process leaves, so that who may only read always finds it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

/// Waits a moment for another process; `false` once it was `LOCK_WAIT_MAX`.
fn wait_for_lock(tries: i32) -> bool {
    thread::sleep(LOCK_RETRY);
    LOCK_RETRY.saturating_mul(tries.unsigned_abs()) < LOCK_WAIT_MAX
}

/// Settings that are not kept in the database.
fn settle(connection: &Connection) -> Result<(), Fault> {
    set_synced(connection, true)?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT_MAX, |_| Ok(()))?;
    Ok(())
}

/// Says whether the transactions from now on are on the disk when they are committed. Those that are
/// not are lost as if they had never been, the newest first, and lie there once a later one does.
pub(super) fn set_synced(connection: &Connection, is_synced: bool) -> Result<(), Fault> {
    let level = if is_synced { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", level)?;
    Ok(())
}

fn prepare(connection: &mut Connection, format: Format) -> Result<(), Fault> {
    // One transaction, since another process may be creating the tables at this moment.
    if found_version(&*connection.transaction()?, format)? == format.version() {
        return Ok(());
    }
    if connection.is_readonly("main")? {
        return Err(Fault::ReadOnly);
    }
    connection.pragma_update(None, "page_size", format.page)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::NoLog);
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = found_version(&change, format)?;
    for migration in format.migrations.iter().skip(found as usize) {
        change.execute_batch(migration)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID)?;
    change.pragma_update(None, "user_version", format.version())?;
    change.commit()?;
    Ok(())
}

/// The format of the database; 0 for one that was just created.
fn found_version(connection: &Connection, format: Format) -> Result<u32, Fault> {
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let newest = format.version();
    match (application, version, tables) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, 1.., 1..) if version <= newest => Ok(version),
        (APPLICATION_ID, found, _) if found > newest => Err(Fault::TooNew { found }),
        _ => Err(Fault::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_fresh_database_syncs_each_commit_to_its_log_and_carries_its_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        for connection in [create(&path, Format::BUS).unwrap(), connect(&path).unwrap()] {
            let value = |name: &str| -> rusqlite::types::Value {
                let value = connection.pragma_query_value(None, name, |row| row.get(0));
                value.unwrap()
            };
            assert_eq!(value("journal_mode"), "wal".to_owned().into());
            assert_eq!(value("synchronous"), 2.into());
            assert_eq!(value("application_id"), 0x5343_4253.into());
            assert_eq!(value("user_version"), 2.into());
        }
    }

    #[test]
    fn a_new_database_may_be_opened_by_many_at_once() {
        for _ in 0..30 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(FILE_NAME);
            let start = Barrier::new(8);
            let open = &|| {
                start.wait();
                create(&path, Format::BUS).map(drop)
            };
            thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                for thread in threads {
                    thread.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn a_key_is_topic_and_offset_and_has_bounds() {
        assert_eq!(item_key(1, 0), Some(1 << 40));
        assert_eq!(item_key(2, 5), Some((2 << 40) + 5));
        assert_eq!(item_key((1 << 23) - 1, OFFSET_MAX), Some(i64::MAX));
        for (topic, offset) in [(0, 0), (-1, 0), (1 << 23, 0), (1, 1 << 40), (1, u64::MAX)] {
            assert_eq!(
                item_key(topic, offset),
                None,
                "topic {topic}, offset {offset}"
            );
        }
        assert_eq!(key_offset((2 << 40) + 5), 5);
    }
}

use rusqlite::{Connection, Error as SqlError, Transaction, TransactionBehavior};

/// Marks a database as a sealcast store: "scst".
pub(crate) const APPLICATION_ID: u32 = 0x7363_7374;

/// Newest version of the tables.
pub(crate) const VERSION: u32 = 1;

/// The step to version 1, to version 2 and so on.
const MIGRATIONS: [&str; VERSION as usize] = [include_str!("../migrations/001_init.sql")];

/// What a database says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) application_id: u32,
    pub(crate) version: u32,
}

pub(crate) fn marks(connection: &Connection) -> Result<Marks, SqlError> {
    Ok(Marks {
        application_id: pragma(connection, "application_id")?,
        version: pragma(connection, "user_version")?,
    })
}

/// Brings the tables to the newest version, in one transaction.
pub(crate) fn migrate(connection: &Connection) -> Result<(), SqlError> {
    let txn = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let done = marks(&txn)?.version;
    for (step, version) in MIGRATIONS.iter().zip(1..).skip(done as usize) {
        txn.execute_batch(step)?;
        txn.pragma_update(None, "user_version", version)?;
    }
    txn.pragma_update(None, "application_id", APPLICATION_ID)?;
    txn.commit()
}

/// Whether the tables are those of the newest version, to the letter.
pub(crate) fn is_intact(connection: &Connection) -> Result<bool, SqlError> {
    let expected = Connection::open_in_memory()?;
    migrate(&expected)?;
    Ok(tables(connection)? == tables(&expected)?)
}

fn tables(connection: &Connection) -> Result<Vec<[Option<String>; 4]>, SqlError> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    })?;
    rows.collect()
}

fn pragma(connection: &Connection, name: &str) -> Result<u32, SqlError> {
    // SQLite keeps both as signed numbers of 32 bits.
    connection.pragma_query_value(None, name, |row| {
        row.get::<_, i32>(0).map(i32::cast_unsigned)
    })
}

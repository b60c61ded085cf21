//! What stands between SQLite and its files passes everything on, and records all of it.
#![cfg(test)]
#![cfg(unix)]

use std::fs;
use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use sealcast_crash::{Fault, Lasting, Loss, Watch};

fn open(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join("a.db")).unwrap();
    let mode = "PRAGMA journal_mode = WAL";
    connection
        .query_row(mode, [], |row| row.get::<_, String>(0))
        .unwrap();
    connection
        .execute_batch("PRAGMA synchronous = FULL")
        .unwrap();
    connection
}

fn fill(connection: &Connection, rows: usize) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x BLOB)")?;
    for _ in 0..rows {
        connection.execute("INSERT INTO t VALUES (randomblob(3000))", [])?;
    }
    Ok(())
}

fn count(connection: &Connection) -> u32 {
    let count = "SELECT count(*) FROM t";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

#[test]
fn the_whole_record_makes_the_very_files_that_are_there() {
    let (folder, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let watch = Watch::begin(folder.path()).unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    fill(&one, 20).unwrap();
    fill(&two, 20).unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    one.query_row(checkpoint, [], |_| Ok(())).unwrap();
    fill(&one, 20).unwrap();
    let recording = watch.recording();
    let image = recording.image(recording.len(), Loss::Nothing);
    image.restore(again.path()).unwrap();
    for name in ["a.db", "a.db-wal"] {
        let [there, made] = [&folder, &again].map(|of| fs::read(of.path().join(name)).unwrap());
        assert!(
            there == made,
            "{name}: {} and {} bytes",
            there.len(),
            made.len()
        );
    }
    drop((one, two));
    let recording = watch.recording();
    let image = recording.image(recording.len(), Loss::Nothing);
    assert!(image.has("a.db") && !image.has("a.db-wal"));
    image.restore(again.path()).unwrap();
    assert_eq!(count(&open(again.path())), 60);
}

#[test]
fn the_call_that_was_meant_fails_and_the_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let connection = open(folder.path());
    drop(connection);
    let watch = Watch::begin(folder.path()).unwrap();
    let connection = open(folder.path());
    fill(&connection, 1).unwrap();
    for (fault, code) in [
        (Fault::Full, ErrorCode::DiskFull),
        (Fault::Broken, ErrorCode::SystemIoFailure),
    ] {
        watch.fail(0, fault, Lasting::Once);
        let error = fill(&connection, 1).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(code));
        fill(&connection, 1).unwrap();
        assert!(watch.mend());
        watch.fail(1_000, fault, Lasting::On);
        fill(&connection, 1).unwrap();
        assert!(!watch.mend());
    }
    assert_eq!(count(&connection), 5);
}

#[test]
fn two_folders_are_watched_apart_and_a_third_not_at_all() {
    let [one, two, third] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let watches = [&one, &two].map(|of| Watch::begin(of.path()).unwrap());
    watches[0].fail(0, Fault::Full, Lasting::On);
    for folder in [&two, &third] {
        fill(&open(folder.path()), 3).unwrap();
    }
    assert!(watches[0].recording().is_empty());
    assert!(!watches[1].recording().is_empty());
}

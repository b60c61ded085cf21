use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sealcast_store::{Key, Space, Store, StoreError};
use tempfile::TempDir;

use crate::{folder, get, log_of, open, put};

/// What a store holds: space, id, value; ascending.
type Records = Vec<(u8, Vec<u8>, Vec<u8>)>;

#[test]
fn a_flipped_byte_is_an_error_or_without_effect() {
    let (folder, path, records) = filled_store();
    let intact = fs::read(&path).unwrap();
    let mut told = 0;
    for at in (0..intact.len()).step_by(97) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = intact.clone();
            bytes[at] ^= flip;
            told += errors_of(
                &place(&folder, &bytes),
                &records,
                &format!("{at} ^ {flip:#x}"),
            );
        }
    }
    assert!(told > intact.len() / 97, "damage is noticed: {told}");
}

#[test]
fn a_truncated_file_is_an_error_or_without_effect() {
    let (folder, path, records) = filled_store();
    let intact = fs::read(&path).unwrap();
    for len in (1..intact.len())
        .step_by(509)
        .chain((1..8).map(|page| page * 4096))
    {
        let told = errors_of(
            &place(&folder, &intact[..len]),
            &records,
            &format!("{len} bytes"),
        );
        // The last pages may be free ones.
        assert!(
            told > 0 || len > intact.len() / 2,
            "{len} bytes of {}",
            intact.len()
        );
    }
}

#[test]
fn a_page_of_zeros_is_an_error_or_without_effect() {
    let (folder, path, records) = filled_store();
    let intact = fs::read(&path).unwrap();
    for page in 0..intact.len() / 4096 {
        let mut bytes = intact.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        errors_of(&place(&folder, &bytes), &records, &format!("page {page}"));
    }
}

#[test]
fn a_page_in_the_place_of_another_is_an_error_or_without_effect() {
    let (folder, path, records) = filled_store();
    let intact = fs::read(&path).unwrap();
    let pages = intact.len() / 4096;
    for page in 1..pages {
        for source in (1..pages).step_by(3) {
            let mut bytes = intact.clone();
            bytes.copy_within(source * 4096..(source + 1) * 4096, page * 4096);
            errors_of(
                &place(&folder, &bytes),
                &records,
                &format!("page {source} at {page}"),
            );
        }
    }
}

#[test]
fn a_damaged_log_loses_last_transactions_whole_or_is_an_error() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    for number in 1..=8_u8 {
        let value = vec![number; 700];
        let step = |id| Key::new(Space(1), [id]);
        store
            .transact(&mut |txn| (0..6).try_for_each(|id| txn.put(&step(id), &value)))
            .unwrap();
    }
    let (file, log) = (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap());
    drop(store);
    for at in (0..log.len()).step_by(97) {
        let mut log = log.clone();
        log[at] ^= 0xff;
        let copy = place(&folder, &file);
        fs::write(log_of(&copy), log).unwrap();
        let Ok(store) = open(&copy) else { continue };
        let found: Result<Vec<_>, _> = (0..6).map(|id| get(&store, 1, &[id])).collect();
        match found {
            Ok(found) => assert!(found.windows(2).all(|two| two[0] == two[1]), "byte {at}"),
            Err(error) => assert!(is_clear(&error), "byte {at}: {error:?}"),
        }
    }
}

#[test]
fn swapped_values_do_not_open() {
    let (_folder, path, _) = filled_store();
    let sql = "UPDATE records SET value = (SELECT value FROM records AS other
        WHERE other.space = ?1 AND other.id = ?2) WHERE space = 1 AND id = x'02'";
    for (space, id) in [(1, [3]), (2, [2])] {
        alter(&path, sql, (space, id));
        let store = open(&path).unwrap();
        let error = get(&store, 1, &[2]).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(store.scan(Space(1), b"").is_err());
    }
}

#[test]
fn damage_to_one_record_leaves_the_others_readable() {
    let (_folder, path, records) = filled_store();
    alter(
        &path,
        "UPDATE records SET value = x'00' WHERE space = ?1 AND id = ?2",
        (1, [2]),
    );
    let store = open(&path).unwrap();
    for (space, id, value) in records
        .iter()
        .filter(|(space, id, _)| (*space, id) != (1, &vec![2]))
    {
        assert_eq!(get(&store, *space, id).unwrap().as_ref(), Some(value));
    }
    assert!(get(&store, 1, &[2]).is_err());
    let (found, damaged) = store.scan_readable(Space(1), b"").unwrap();
    let others = records
        .iter()
        .filter(|(space, id, _)| *space == 1 && *id != [2]);
    assert_eq!((found.len(), damaged), (others.count(), 1));
    assert!(
        get(&store, 1, b"never written").is_err(),
        "nobody knows in a damaged space"
    );
    assert!(get(&store, 2, b"never written").unwrap().is_none());
}

#[test]
fn a_removed_row_is_noticed() {
    let (_folder, path, _) = filled_store();
    alter(
        &path,
        "DELETE FROM records WHERE space = ?1 AND id = ?2",
        (1, [2]),
    );
    let store = open(&path).unwrap();
    let error = get(&store, 1, &[2]).unwrap_err();
    assert!(error.to_string().contains("tally"), "{error}");
    assert!(store.scan(Space(1), b"").is_err());
    let key = Key::new(Space(1), [2]);
    let result = store.transact(&mut |txn| txn.get(&key).map(drop));
    assert!(
        matches!(result, Err(StoreError::Damaged { .. })),
        "{result:?}"
    );
}

#[test]
fn a_row_under_another_id_is_noticed() {
    let (_folder, path, _) = filled_store();
    let sql = "UPDATE records SET id = x'02ff' WHERE space = ?1 AND id = ?2";
    alter(&path, sql, (1, [2]));
    let store = open(&path).unwrap();
    for id in [&[2][..], &[2, 0xff]] {
        let error = get(&store, 1, id).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
}

#[test]
fn a_missing_tally_is_damage() {
    let (_folder, path, _) = filled_store();
    alter(
        &path,
        "DELETE FROM records WHERE space = ?1 AND ?2 IS NOT NULL",
        (256, [0]),
    );
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_damaged_row_is_neither_replaced_nor_removed() {
    let (_folder, path, _) = filled_store();
    let sql = "UPDATE records SET id = x'02ff' WHERE space = ?1 AND id = ?2";
    alter(&path, sql, (1, [2]));
    let store = open(&path).unwrap();
    let (altered, original) = (Key::new(Space(1), [2, 0xff]), Key::new(Space(1), [2]));
    assert!(
        store
            .transact(&mut |txn| txn.put(&altered, b"new"))
            .is_err()
    );
    assert!(store.transact(&mut |txn| txn.delete(&altered)).is_err());
    assert!(
        store.get(&original).is_err(),
        "the row that was lost is still missed"
    );
}

/// Counts the calls that fail on the store at `path`, and checks that no other is wrong.
fn errors_of(path: &Path, records: &Records, what: &str) -> usize {
    let store = match open(path) {
        Ok(store) => store,
        Err(error) => {
            assert!(is_clear(&error), "{what}: {error:?}");
            return 1;
        }
    };
    let errors = read_errors(&store, records, what);
    // Writing may fail, but must not make anything else wrong.
    let key = Key::new(Space(9), *b"new");
    let written = store.transact(&mut |txn| txn.put(&key, &[7; 6000]));
    let kept = get(&store, 9, b"new");
    match (&written, &kept) {
        (Ok(()), Ok(kept)) => assert!(kept.as_deref() == Some(&[7; 6000]), "{what}: written"),
        (Err(error), Ok(kept)) => assert!(is_clear(error) && kept.is_none(), "{what}: {error:?}"),
        (_, Err(error)) => assert!(is_clear(error), "{what}: {error:?}"),
    }
    errors + read_errors(&store, records, what)
}

fn read_errors(store: &dyn Store, records: &Records, what: &str) -> usize {
    let mut errors = 0;
    for (space, id, value) in records {
        match get(store, *space, id) {
            Ok(found) => assert!(found.as_ref() == Some(value), "{what}: {space}/{id:?}"),
            Err(error) => errors += usize::from(is_clear_in(&error, what)),
        }
    }
    for space in [1, 2, 3] {
        let expected = records.iter().filter(|(it, ..)| *it == space);
        match store.scan(Space(space), b"") {
            Ok(found) => {
                let found = found
                    .iter()
                    .map(|(key, value)| (&key.id[..], value.expose()));
                let expected = expected.map(|(_, id, value)| (&id[..], &value[..]));
                assert!(found.eq(expected), "{what}: scan of {space}");
            }
            Err(error) => errors += usize::from(is_clear_in(&error, what)),
        }
        match get(store, space, b"never written") {
            Ok(found) => assert!(found.is_none(), "{what}: never written"),
            Err(error) => errors += usize::from(is_clear_in(&error, what)),
        }
    }
    errors
}

fn is_clear_in(error: &StoreError, what: &str) -> bool {
    assert!(is_clear(error), "{what}: {error:?}");
    true
}

fn is_clear(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Damaged { .. }
            | StoreError::NotAStore { .. }
            | StoreError::TooNew { .. }
            | StoreError::Unwritable { .. }
            | StoreError::WrongKey { .. }
    )
}

/// A closed store of three spaces, with free pages, long values, and a tree of several levels.
fn filled_store() -> (TempDir, PathBuf, Records) {
    let folder = folder();
    let path = folder.path().join("filled.db");
    let store = open(&path).unwrap();
    for space in 1..=3 {
        put(&store, space, b"deleted", &[space; 5000]);
    }
    let mut records = Records::new();
    for (space, count, len) in [(1, 40, 200), (2, 6, 1100), (3, 2, 6000)] {
        records.extend((0..count).map(|id| (space, vec![id], vec![space ^ id; len])));
    }
    for (space, id, value) in &records {
        put(&store, *space, id, value);
    }
    for space in 1..=3 {
        let key = Key::new(Space(space), *b"deleted");
        store.transact(&mut |txn| txn.delete(&key)).unwrap();
    }
    drop(store);
    assert!(!log_of(&path).exists(), "the last handle empties the log");
    (folder, path, records)
}

fn place(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("damaged.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("damaged.db{suffix}")));
    }
    fs::write(&path, bytes).unwrap();
    path
}

fn alter(path: &Path, sql: &str, at: (u16, [u8; 1])) {
    let raw = Connection::open(path).unwrap();
    assert_eq!(raw.execute(sql, at).unwrap(), 1);
}

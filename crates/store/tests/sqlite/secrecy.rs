use std::fs;
use std::path::Path;

use rusqlite::Connection;
use sealcast_crypto::{SecretBytes, StoreKey};
use sealcast_store::{Key, KeyFile, Protection, Space, Store};

use crate::{folder, log_of, open, put, store_key, system_rng};

const WINDOW: usize = 8;

/// fault 15
#[test]
fn the_files_hold_no_window_of_a_stored_secret_or_of_the_key() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let secrets: Vec<_> = (0..50)
        .map(|_| StoreKey::generate(&mut *system_rng()))
        .collect();
    for (number, secret) in (0_u8..).zip(&secrets) {
        put(
            &store,
            1,
            &[b"a public id ", [number].as_slice()].concat(),
            secret.expose(),
        );
    }
    let passphrase = SecretBytes::from(b"correct horse".to_vec());
    let guarded = folder.path().join("store.key");
    let protection = Protection::Passphrase(&passphrase);
    KeyFile::create(&guarded, &store_key(), protection, &mut *system_rng()).unwrap();

    let files = everything_in(folder.path());
    assert!(
        holds_window(&files, b"a public id "),
        "the search finds what is there"
    );
    assert!(
        fs::metadata(log_of(&path)).unwrap().len() > 0,
        "the log is searched too"
    );
    for secret in secrets.iter().chain([&store_key()]) {
        assert!(!holds_window(&files, secret.expose()));
    }
    assert!(!holds_window(&files, passphrase.expose()));
}

/// fault 15
#[test]
fn two_stores_made_without_a_passphrase_have_different_keys() {
    let folder = folder();
    let [one, other] = ["one", "other"].map(|home| {
        let path = folder.path().join(home).join("store.key");
        KeyFile::generate(path, Protection::Plain, &mut *system_rng()).unwrap()
    });
    assert_ne!(one.expose(), other.expose());
    assert_ne!(one.expose(), &[0; 32]);
}

#[test]
fn equal_values_are_sealed_differently_each_time() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    let mut sealed = Vec::new();
    for (space, id) in [(1, b"a"), (1, b"b"), (2, b"a"), (1, b"a")] {
        put(&store, space, id, b"the same value");
        sealed.push(sealed_value(&path, space, id));
    }
    sealed.sort();
    sealed.dedup();
    assert_eq!(sealed.len(), 4);
}

#[test]
fn after_a_purge_no_sealed_copy_of_a_deleted_record_is_left() {
    let folder = folder();
    let path = folder.path().join("store.db");
    let store = open(&path).unwrap();
    put(&store, 1, b"kept", b"a value that stays where it is");
    put(&store, 1, b"id", b"a value that is deleted again");
    let sealed = sealed_value(&path, 1, b"id");
    let key = Key::new(Space(1), *b"id");
    store.transact(&mut |txn| txn.delete(&key)).unwrap();
    assert!(
        holds_window(&everything_in(folder.path()), &sealed),
        "the log still has it"
    );
    store.purge().unwrap();
    assert!(!holds_window(&everything_in(folder.path()), &sealed));
    assert!(holds_window(
        &everything_in(folder.path()),
        &sealed_value(&path, 1, b"kept")
    ));
}

#[test]
fn debug_shows_no_value_and_no_key() {
    let folder = folder();
    let store = open(&folder.path().join("store.db")).unwrap();
    put(&store, 1, b"id", b"secret");
    let path = folder.path().join("store.db");
    assert_eq!(
        format!("{store:?}"),
        format!("SqliteStore {{ path: {path:?}, .. }}")
    );
}

fn sealed_value(path: &Path, space: u8, id: &[u8]) -> Vec<u8> {
    let sql = "SELECT value FROM records WHERE space = ?1 AND id = ?2";
    let raw = Connection::open(path).unwrap();
    raw.query_row(sql, (space, id), |row| row.get(0)).unwrap()
}

fn everything_in(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| fs::read(file.unwrap().path()).unwrap());
    files.collect::<Vec<_>>().concat()
}

fn holds_window(bytes: &[u8], secret: &[u8]) -> bool {
    let windows: Vec<_> = secret.windows(WINDOW).collect();
    bytes
        .windows(WINDOW)
        .any(|window| windows.contains(&window))
}

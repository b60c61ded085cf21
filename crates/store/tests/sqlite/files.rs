use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use sealcast_crypto::StoreKey;
use sealcast_store::{Key, Space, SqliteStore, Store, StoreError};

use crate::{folder, get, log_of, open, put, system_rng};

#[test]
fn records_are_there_when_the_store_is_opened_again() {
    let folder = folder();
    let path = folder.path().join("store.db");
    put(&open(&path).unwrap(), 1, b"id", b"value");
    assert_eq!(
        get(&open(&path).unwrap(), 1, b"id").unwrap().unwrap(),
        b"value"
    );
}

#[cfg(unix)]
#[test]
fn the_files_and_a_new_folder_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let home = folder.path().join("new").join("home");
    let store = open(&home.join("store.db")).unwrap();
    put(&store, 1, b"id", b"value");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(home.clone()), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&home).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(file.path()), 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["store.db", "store.db-shm", "store.db-wal"]);
}

#[test]
fn a_wrong_key_is_told_on_opening_and_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("store.db");
    put(&open(&path).unwrap(), 1, b"id", b"value");
    let wrong = StoreKey::init_with(|bytes| bytes.fill(9));
    let error = SqliteStore::open(&path, wrong, system_rng()).unwrap_err();
    assert!(matches!(error, StoreError::WrongKey { .. }), "{error:?}");
    assert_eq!(
        get(&open(&path).unwrap(), 1, b"id").unwrap().unwrap(),
        b"value"
    );
}

#[test]
fn a_newer_store_is_refused_and_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("store.db");
    drop(open(&path).unwrap());
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    newer.close().unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::TooNew {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_as_it_is() {
    let folder = folder();
    let path = folder.path().join("other.db");
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE records (space, id, value)")
        .unwrap();
    other.close().unwrap();
    let before = fs::read(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn an_emptied_file_is_damage_and_not_a_new_store() {
    let folder = folder();
    let path = folder.path().join("store.db");
    put(&open(&path).unwrap(), 1, b"id", b"value");
    fs::write(&path, b"").unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_log_without_its_file_is_damage_and_not_a_new_store() {
    let folder = folder();
    let path = folder.path().join("store.db");
    fs::write(log_of(&path), b"what another store left").unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, b"not a folder").unwrap();
    for path in [file.join("store.db"), folder.path().to_owned()] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Unwritable { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_looks_like_a_uri_is_a_name() {
    let folder = folder();
    let path = folder.path().join("file:store.db?mode=memory");
    put(&open(&path).unwrap(), 1, b"id", b"value");
    assert_eq!(
        get(&open(&path).unwrap(), 1, b"id").unwrap().unwrap(),
        b"value"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_file_system_is_told_and_changes_nothing() {
    let folder = folder();
    // Only root may mount; `a_full_disk_is_told_and_changes_nothing` does without.
    let Some(small) = SmallFileSystem::mount(folder.path()) else {
        return;
    };
    let (path, filler) = (small.0.join("store.db"), small.0.join("filler"));
    let store = open(&path).unwrap();
    let mut kept = 0_u8;
    let error = loop {
        let step = store.transact(&mut |txn| {
            (0..4).try_for_each(|id| txn.put(&Key::new(Space(1), [id]), &[kept + 1; 4000]))?;
            txn.put(&Key::new(Space(2), [kept]), &[kept; 4000])
        });
        match step {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    let read = |store: &SqliteStore| {
        (0..4).all(|id| get(store, 1, &[id]).unwrap().unwrap() == [kept; 4000])
    };
    assert!(kept > 0 && read(&store));
    drop(store);
    assert!(fs::write(&filler, vec![0; 1 << 20]).is_err());
    let other = open(&small.0.join("other.db"));
    assert!(matches!(other, Err(StoreError::Full { .. })), "{other:?}");
    fs::remove_file(filler).unwrap();
    assert!(read(&open(&path).unwrap()));
}

/// A file system of half a mebibyte, for as long as this lives.
struct SmallFileSystem<'a>(&'a Path);

impl<'a> SmallFileSystem<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(folder);
        let mounted = mount.stderr(Stdio::null()).status().ok()?.success();
        mounted.then_some(Self(folder))
    }
}

impl Drop for SmallFileSystem<'_> {
    fn drop(&mut self) {
        // Lazily, since a failed test may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

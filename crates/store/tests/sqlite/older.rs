//! Files of every version, written by `examples/write_fixtures.rs` of its day.

use std::fs;
use std::path::{Path, PathBuf};

use sealcast_crypto::SecretBytes;
use sealcast_store::{KeyFile, Space, SqliteStore, Store};

use crate::{folder, get, put, store_key, system_rng};

const PASSPHRASE: &[u8] = b"fixture";

#[test]
fn a_store_of_version_1_opens() {
    let folder = folder();
    let path = copy("v1.db", folder.path());
    let key = KeyFile::open(copy("v1-plain.key", folder.path()), None).unwrap();
    let store = SqliteStore::open(path, key, system_rng()).unwrap();
    assert_eq!(get(&store, 1, b"id").unwrap().unwrap(), b"value");
    assert_eq!(get(&store, 2, b"empty").unwrap().unwrap(), b"");
    assert_eq!(
        get(&store, 255, &[0xff; 256]).unwrap().unwrap(),
        [7; 10_000]
    );
    assert_eq!(store.scan(Space(1), b"").unwrap().len(), 1);
    assert!(get(&store, 1, b"deleted").unwrap().is_none());
    put(&store, 1, b"id", b"new value");
    assert_eq!(get(&store, 1, b"id").unwrap().unwrap(), b"new value");
}

#[test]
fn key_files_of_version_1_open() {
    let folder = folder();
    let plain = KeyFile::open(copy("v1-plain.key", folder.path()), None).unwrap();
    let path = copy("v1-passphrase.key", folder.path());
    let sealed = KeyFile::open(path, Some(&SecretBytes::from(PASSPHRASE.to_vec()))).unwrap();
    assert_eq!(plain.expose(), store_key().expose());
    assert_eq!(sealed.expose(), store_key().expose());
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Copies a fixture, with the permissions that a checkout does not keep.
fn copy(name: &str, folder: &Path) -> PathBuf {
    let path = folder.join(name);
    fs::copy(fixture(name), &path).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

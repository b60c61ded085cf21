//! The SQLite store: its contract, several processes, damage, secrecy, older files.
#![cfg(test)]
#![cfg(feature = "conformance")]

mod contract;
mod damage;
mod files;
mod older;
mod processes;
mod secrecy;

use std::path::{Path, PathBuf};

use getrandom::SysRng;
use rand_core::{CryptoRng, UnwrapErr};
use sealcast_crypto::StoreKey;
use sealcast_store::{Key, Space, SqliteStore, Store, StoreError};
use tempfile::TempDir;

/// A folder in memory where there is one, since these tests write much and prove nothing about
/// disks.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => TempDir::new_in(memory).unwrap(),
        false => TempDir::new().unwrap(),
    }
}

fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, store_key(), system_rng())
}

fn store_key() -> StoreKey {
    StoreKey::init_with(|bytes| bytes.copy_from_slice(b"a key of 32 bytes for tests only"))
}

fn system_rng() -> Box<dyn CryptoRng + Send> {
    Box::new(UnwrapErr(SysRng))
}

fn put(store: &dyn Store, space: u8, id: &[u8], value: &[u8]) {
    let key = Key::new(Space(space), id);
    store.transact(&mut |txn| txn.put(&key, value)).unwrap();
}

/// The value under a key of the test, copied out of its guard.
fn get(store: &dyn Store, space: u8, id: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let value = store.get(&Key::new(Space(space), id))?;
    Ok(value.map(|value| value.expose().to_vec()))
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

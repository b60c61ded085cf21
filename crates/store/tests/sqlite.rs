//! The SQLite store keeps the contract.
#![cfg(test)]
#![cfg(feature = "conformance")]

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_crypto::StoreKey;
use sealcast_store::{SqliteStore, conformance};
use tempfile::TempDir;

#[test]
fn the_sqlite_store_conforms() {
    let folder = TempDir::new().unwrap();
    let stores = std::cell::Cell::new(0);
    conformance::run(|| {
        stores.set(stores.get() + 1);
        open(&folder, &format!("{}.db", stores.get()))
    });
}

#[test]
fn two_handles_of_a_sqlite_store_conform() {
    let folder = TempDir::new().unwrap();
    let stores = std::cell::Cell::new(0);
    conformance::run_shared(|| {
        stores.set(stores.get() + 1);
        let name = format!("{}.db", stores.get());
        (open(&folder, &name), open(&folder, &name))
    });
}

fn open(folder: &TempDir, name: &str) -> SqliteStore {
    let key = StoreKey::init_with(|bytes| bytes.fill(7));
    SqliteStore::open(folder.path().join(name), key, Box::new(UnwrapErr(SysRng))).unwrap()
}

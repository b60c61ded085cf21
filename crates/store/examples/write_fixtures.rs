//! Writes a store and two key files to be kept in `tests/fixtures`, once for each version.
//!
//! Usage: `cargo run -p sealcast-store --example write_fixtures -- <folder>`

use std::env;
use std::error::Error;
use std::path::PathBuf;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_crypto::{SecretBytes, StoreKey};
use sealcast_store::{Key, KeyFile, Protection, Space, SqliteStore, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("name a folder")?);
    let mut rng = UnwrapErr(SysRng);
    let key =
        StoreKey::init_with(|bytes| bytes.copy_from_slice(b"a key of 32 bytes for tests only"));
    let passphrase = SecretBytes::from(b"fixture".to_vec());
    let sealed = Protection::Passphrase(&passphrase);
    KeyFile::create(
        folder.join("v1-plain.key"),
        &key,
        Protection::Plain,
        &mut rng,
    )?;
    KeyFile::create(folder.join("v1-passphrase.key"), &key, sealed, &mut rng)?;

    let store = SqliteStore::open(folder.join("v1.db"), key, Box::new(rng))?;
    let deleted = Key::new(Space(1), *b"deleted");
    store.transact(&mut |txn| {
        txn.put(&deleted, b"value")?;
        txn.put(&Key::new(Space(1), *b"id"), b"value")?;
        txn.put(&Key::new(Space(2), *b"empty"), b"")?;
        txn.put(&Key::new(Space(255), [0xff; 256]), &[7; 10_000])
    })?;
    store.transact(&mut |txn| txn.delete(&deleted))?;
    Ok(())
}

//! What lies in a home that no passphrase protects.

use std::path::Path;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_engine::{Identity, Space, persisted};
use sealcast_store::{Key, KeyFile, SqliteStore, Store as _};

use crate::Failure;

fn open(home: &Path) -> Result<SqliteStore, Failure> {
    let key = KeyFile::open(home.join("store.key"), None)?;
    let rng = UnwrapErr(SysRng);
    Ok(SqliteStore::open(
        home.join("store.db"),
        key,
        Box::new(rng),
    )?)
}

/// The keys of its device.
pub(crate) fn identity(home: &Path) -> Result<Identity, Failure> {
    let place = Key {
        space: sealcast_store::Space(Space::Home as u8),
        id: persisted(&[b"identity"]),
    };
    let kept = open(home)?.get(&place)?.ok_or("the home has no identity")?;
    Ok(Identity::from_bytes(kept.expose()).ok_or("the identity is odd")?)
}

/// All that a home's store holds, as its program reads it: the number of the [`Space`], and the record.
///
/// # Errors
///
/// Fails where there is no home, or a passphrase protects it.
pub fn kept(home: &Path) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
    let store = open(home)?;
    let mut kept = Vec::new();
    for space in 0..=u8::MAX {
        let records = store.scan(sealcast_store::Space(space), &[])?;
        let values = records.iter().map(|(_, value)| value.expose().to_vec());
        kept.extend(values.map(|value| (space, value)));
    }
    Ok(kept)
}

//! Where a home keeps its keys and its place.
//!
//! A [`Store`] holds records under [`Key`]s and changes them in transactions: all of one is kept
//! and durable, or nothing is, whichever process dies when. [`SqliteStore`] seals every value under
//! a [`StoreKey`](sealcast_crypto::StoreKey) that lies in a [`KeyFile`] and may be used by several
//! processes at once; [`MemoryStore`] forgets all on drop.
//!
//! ```
//! use getrandom::SysRng;
//! use rand_core::UnwrapErr;
//! use sealcast_store::{Key, KeyFile, Protection, Space, SqliteStore, Store};
//!
//! let home = tempfile::tempdir()?;
//! let key_path = home.path().join("store.key");
//! let mut rng = UnwrapErr(SysRng);
//! KeyFile::generate(&key_path, Protection::Plain, &mut rng)?;
//!
//! let store_key = KeyFile::open(&key_path, None)?;
//! let store = SqliteStore::open(home.path().join("store.db"), store_key, Box::new(rng))?;
//! let (root, place) = (Key::new(Space(1), *b"root"), Key::new(Space(2), *b"place"));
//! store.transact(&mut |txn| {
//!     txn.put(&root, &[7; 32])?;
//!     txn.put(&place, &1_u64.to_be_bytes())
//! })?;
//! assert_eq!(store.get(&root)?.ok_or("gone")?.expose(), &[7; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Damage to what is stored is told as an error and never read as another value, nor as the absence
//! of one. The files are specified in `spec/store.md`. A store written elsewhere should run the
//! suite in `conformance` (a feature of this crate).

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod fault;
mod gate;
mod keyfile;
mod memory;
#[cfg(test)]
mod ones;
mod place;
mod record;
mod rows;
mod schema;
mod sqlite;

pub use contract::{Store, Txn, transact_with};
pub use error::StoreError;
pub use keyfile::{KeyFile, KeyFileError, Protection};
pub use memory::MemoryStore;
pub use place::write_whole;
pub use record::{ID_BYTES_MAX, Key, Space, VALUE_BYTES_MAX, Value};
pub use sqlite::SqliteStore;

//! Where a home keeps its keys and its place.

#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod error;
mod fault;
mod gate;
mod keyfile;
mod memory;
mod place;
mod record;
mod rows;
mod schema;
mod sqlite;

pub use contract::{Store, Txn, transact_with};
pub use error::StoreError;
pub use keyfile::{KeyFile, KeyFileError, Protection};
pub use memory::MemoryStore;
pub use record::{ID_BYTES_MAX, Key, Space, VALUE_BYTES_MAX, Value};
pub use sqlite::SqliteStore;

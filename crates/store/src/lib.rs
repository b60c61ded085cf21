//! Where a home keeps its keys and its place.

mod contract;
mod error;
mod gate;
mod memory;
mod record;

pub use contract::{Store, Txn, transact_with};
pub use error::StoreError;
pub use memory::MemoryStore;
pub use record::{ID_BYTES_MAX, Key, Space, VALUE_BYTES_MAX, Value};

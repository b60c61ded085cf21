use std::error::Error as StdError;
use std::path::PathBuf;

use crate::record::{ID_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The step gave up, or went on after one of its writes had failed. Nothing was changed.
    #[error("the transaction was given up")]
    Aborted,
    /// A step used the store that it runs in. Use the transaction instead.
    #[error("the store was used from within its own transaction")]
    Nested,
    /// The id is longer than the store takes.
    #[error("record id has {len} bytes, at most {ID_BYTES_MAX} are allowed")]
    IdTooLong {
        /// Bytes of the id.
        len: usize,
    },
    /// The value is longer than the store takes.
    #[error("record value has {len} bytes, at most {VALUE_BYTES_MAX} are allowed")]
    ValueTooLong {
        /// Bytes of the value.
        len: usize,
    },
    /// The key does not open this store. Use the key file that was made with it.
    #[error("the key does not open store `{}`: it belongs to another store", path.display())]
    WrongKey {
        /// The store.
        path: PathBuf,
    },
    /// The store was written by a newer version of this program. Update the program.
    #[error("store `{}` has version {found}, this program knows up to {known}", path.display())]
    TooNew {
        /// The store.
        path: PathBuf,
        /// Version of the store.
        found: u32,
        /// Newest version that this program reads.
        known: u32,
    },
    /// The file is a database of another program. Name another file.
    #[error("`{}` is a database of another program", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// What is stored is not what was written. Nothing wrong was read from it.
    #[error(
        "store `{}` is damaged ({what}): keep a copy of its folder and restore the home from a \
         backup, or set this device up anew and ask for its keys again",
        path.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk is full. Nothing was changed; make room and try again.
    #[error("no room left to write store `{}`", path.display())]
    Full {
        /// The store.
        path: PathBuf,
    },
    /// The store may not be written or opened. Check who owns the file and its folder.
    #[error("store `{}` cannot be opened for writing", path.display())]
    Unwritable {
        /// The store.
        path: PathBuf,
        /// What refused it.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Another process kept the store for more than ten seconds. Nothing was changed; try again.
    #[error("store `{}` is busy: another process is writing to it", path.display())]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The backend failed in another way. Nothing was changed.
    #[error("store `{}` failed", path.display())]
    Backend {
        /// The store.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

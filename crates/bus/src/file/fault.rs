use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::BusError;

/// What went wrong with the database, before it is told which bus it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the database belongs to another program")]
    Foreign,
    #[error("the database has format {found}")]
    TooNew { found: u32 },
    #[error("offset {found} stands where {expected} belongs")]
    NotDense { found: u64, expected: u64 },
    #[error("a number is out of its range")]
    OutOfRange,
    #[error("a file beside the database is cut short")]
    Short,
    #[error("the database was moved or removed while in use")]
    Moved,
    #[error("the bus may be read but not written to")]
    ReadOnly,
    #[error("the file system offers no write-ahead log")]
    NoLog,
    #[error("no more topics or offsets are left")]
    Exhausted,
    #[error("the thread that writes has stopped")]
    WriterStopped,
}

/// What a fault means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unreachable,
    Busy,
    Full,
    Damaged,
    Backend,
}

const UNREACHABLE: [ErrorCode; 6] = [
    ErrorCode::CannotOpen,
    ErrorCode::ReadOnly,
    ErrorCode::PermissionDenied,
    ErrorCode::SystemIoFailure,
    ErrorCode::FileLockingProtocolFailed,
    ErrorCode::NoLargeFileSupport,
];
const DAMAGED: [ErrorCode; 3] = [
    ErrorCode::DatabaseCorrupt,
    ErrorCode::NotADatabase,
    ErrorCode::ConstraintViolation,
];

impl Fault {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(error) => sqlite_kind(error),
            Self::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => Kind::Full,
            Self::Io(_) | Self::Moved | Self::ReadOnly | Self::NoLog => Kind::Unreachable,
            Self::Foreign | Self::NotDense { .. } | Self::OutOfRange | Self::Short => Kind::Damaged,
            Self::Exhausted => Kind::Full,
            Self::TooNew { .. } | Self::WriterStopped => Kind::Backend,
        }
    }

    /// Tells the caller; several callers may share one fault.
    pub(super) fn tell(self: Arc<Self>, place: String, known: u32) -> BusError {
        if let Self::TooNew { found } = *self {
            return BusError::TooNew {
                place,
                found,
                known,
            };
        }
        match self.kind() {
            Kind::Unreachable => BusError::Unreachable {
                place,
                cause: Box::new(self),
            },
            Kind::Busy => BusError::Busy { place },
            Kind::Full => BusError::Full { place },
            Kind::Damaged => BusError::Damaged {
                place,
                cause: Box::new(self),
            },
            Kind::Backend => BusError::Backend(Box::new(self)),
        }
    }
}

fn sqlite_kind(error: &rusqlite::Error) -> Kind {
    let Some(failure) = error.sqlite_error() else {
        // Rows of another shape than the schema allows.
        return Kind::Damaged;
    };
    let code = failure.code;
    // The shared index could not grow; SQLite does not call this a full disk.
    if code == ErrorCode::DiskFull || failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
        return Kind::Full;
    }
    if code == ErrorCode::DatabaseBusy || code == ErrorCode::DatabaseLocked {
        return Kind::Busy;
    }
    if DAMAGED.contains(&code) {
        return Kind::Damaged;
    }
    if UNREACHABLE.contains(&code) {
        return Kind::Unreachable;
    }
    Kind::Backend
}

use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Error as SqlError, ErrorCode, ffi};

use crate::StoreError;

/// Says what an error of the database means for the store at `path`.
pub(crate) fn of_database(path: &Path, error: SqlError) -> StoreError {
    let path = path.to_owned();
    let failure = error.sqlite_error().copied();
    let is_code = |codes: &[ErrorCode]| failure.is_some_and(|it| codes.contains(&it.code));
    let is_extended = |code| failure.is_some_and(|it| it.extended_code == code);
    // A short read is a file that ends too early; the others cannot come from what is stored here
    // unless it was altered.
    if is_code(&[
        ErrorCode::DatabaseCorrupt,
        ErrorCode::NotADatabase,
        ErrorCode::ConstraintViolation,
        ErrorCode::TypeMismatch,
    ]) || is_extended(ffi::SQLITE_IOERR_SHORT_READ)
        || matches!(
            error,
            SqlError::InvalidColumnType(..) | SqlError::FromSqlConversionFailure(..)
        )
    {
        let what = error.to_string();
        return StoreError::Damaged { path, what };
    }
    // The index of the log, in memory shared by processes, is a file too.
    if is_code(&[ErrorCode::DiskFull]) || is_extended(ffi::SQLITE_IOERR_SHMSIZE) {
        return StoreError::Full { path };
    }
    let locked = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
    if is_code(&locked) || is_code(&[ErrorCode::FileLockingProtocolFailed]) {
        return StoreError::Busy { path };
    }
    let source = Box::new(error);
    if is_code(&[
        ErrorCode::ReadOnly,
        ErrorCode::CannotOpen,
        ErrorCode::PermissionDenied,
    ]) {
        return StoreError::Unwritable { path, source };
    }
    StoreError::Backend { path, source }
}

/// Says what an error of the file system means for the store at `path`.
pub(crate) fn of_files(path: &Path, error: io::Error) -> StoreError {
    let path = path.to_owned();
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return StoreError::Full { path };
    }
    let source = Box::new(error);
    StoreError::Unwritable { path, source }
}

pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        what: what.into(),
    }
}

//! Work that blocks, work that must not stop halfway, and work that must leave no trace.

use std::hint::black_box;

use crate::error::Error;

/// How far down the stack work with keys reaches, at most, in bytes.
const DEPTH: usize = 128 << 10;

/// Does work with keys, then wipes the stack below. Libraries, and every move of a value, copy
/// keys to places that nobody wipes, and threads live long.
pub(crate) fn leaving_no_trace<T>(work: impl FnOnce() -> T) -> T {
    let done = below(work);
    wipe_below();
    done
}

#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_below() {
    black_box(&mut [0_u8; DEPTH]);
}

/// Runs blocking work on a thread of its own kind, and leaves no trace of it there.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(|| leaving_no_trace(work)).await;
    done.map_err(|_| Error::Internal("a worker thread ended early"))
}

/// Runs work to its end, also when the caller stops waiting for it.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::spawn(work).await;
    done.map_err(|_| Error::Internal("a task ended early"))?
}

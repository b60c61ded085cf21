//! Work that blocks, and work that must not stop halfway.

use sealcast_crypto::leaving_no_trace;

use crate::error::Error;

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

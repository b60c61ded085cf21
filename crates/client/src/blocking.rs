//! Work that blocks, off the runtime's threads.

use crate::error::Error;

/// Runs blocking work on a thread of its own kind.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Error::Internal("a worker thread ended early"))
}

//! Being asked to end.

use crate::error::{CommandError, Kind};

/// Waits for Ctrl-C, or on Unix for SIGTERM as well.
pub(crate) async fn asked_to_end() -> Result<(), CommandError> {
    let failed = |_| CommandError::new(Kind::Internal, "internal", "cannot wait for signals");
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended.map_err(failed),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.map_err(failed)
    }
}

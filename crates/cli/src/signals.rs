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

/// Waits for SIGHUP, again and again; on other systems than Unix for ever.
#[derive(Debug)]
pub(crate) struct HangUps {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl HangUps {
    pub(crate) fn listen() -> Result<Self, CommandError> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let failed =
                |_| CommandError::new(Kind::Internal, "internal", "cannot wait for signals");
            let signal = signal(SignalKind::hangup()).map_err(failed)?;
            Ok(Self { signal })
        }
        #[cfg(not(unix))]
        {
            Ok(Self {})
        }
    }

    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}

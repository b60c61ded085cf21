//! From the start of a proxy to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::connection::Shared;
use crate::counts::Counts;
use crate::sealing::Sealing;
use crate::upstream::{Upstream, UpstreamError};

/// How long connections have to end.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long nobody is let in when the system has no room for one more.
const NO_ROOM_WAIT: Duration = Duration::from_millis(100);

/// Stands between clients and their broker; made by [`start`](Self::start).
pub struct Proxy {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The broker cannot be reached as the config file says; see there.
    #[error("cannot connect to the broker as it was said")]
    Upstream(#[source] UpstreamError),
    /// The address that the config file names is in use, or may not be used; name another.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Upstream(_) => "proxy.upstream",
            Self::Listen { .. } => "proxy.listen",
        }
    }
}

impl Proxy {
    /// Listens. Nobody is served before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// Fails when the address cannot be used, or the broker not be connected to as it was said.
    pub async fn start(config: Config, sealing: Arc<dyn Sealing>) -> Result<Self, StartError> {
        let upstream = Upstream::new(&config.upstream, config.upstream_ca.as_deref());
        let upstream = upstream.map_err(StartError::Upstream)?;
        let address = config.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| StartError::Listen { address, source })?;
        Ok(Self {
            listener,
            shared: Arc::new(Shared {
                rules: Arc::new(config.rules),
                sealing,
                upstream,
                limits: config.limits,
                counts: Arc::default(),
            }),
        })
    }

    /// Where clients connect.
    ///
    /// # Errors
    ///
    /// Fails when the system does not say.
    pub fn listen(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What it has done with messages so far, also while it runs.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.counts)
    }

    /// Serves clients until `ends` does. Then each gets the message that it is about to get, and is told to go.
    pub async fn run(self, ends: impl Future<Output = ()>) {
        let process = std::process::id();
        let port = self.listen().map(|of| of.port()).unwrap_or_default();
        tracing::info!(
            process,
            port,
            version = env!("CARGO_PKG_VERSION"),
            "proxy started"
        );
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&self.listener, &self.shared, &stopped, &mut connections) => {}
            () = ends => {}
        }
        // Nobody new comes in.
        drop(self.listener);
        while connections.try_join_next().is_some() {}
        let left = connections.len();
        tracing::info!(connections = left, "proxy told to stop");
        stop.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(END_WITHIN, all).await.is_err() {
            tracing::warn!("leaving connections behind");
        }
        self.shared.counts.tell();
        tracing::info!("proxy stopped");
    }
}

/// Serves whoever comes, as many at a time as there may be.
async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let room = Arc::new(Semaphore::new(shared.limits.connections_max));
    let (mut number, mut is_full) = (0_u64, false);
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "a client cannot be let in");
                sleep(NO_ROOM_WAIT).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            if !is_full {
                let connections_max = shared.limits.connections_max;
                tracing::warn!(
                    connections_max,
                    "clients are turned away, there are too many"
                );
            }
            is_full = true;
            continue;
        };
        is_full = false;
        number += 1;
        let (shared, stopped) = (Arc::clone(shared), stopped.clone());
        connections.spawn(async move {
            shared.serve(number, client, stopped).await;
            drop(place);
        });
    }
}

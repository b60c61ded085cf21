//! From the start of a proxy to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::Listener as _;
use sealcast_serving::Loopback;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::certificates::CertificatesError;
use crate::config::Config;
use crate::connection::Shared;
use crate::counts::Counts;
use crate::listeners::{Door, Hall};
use crate::reload::Control;
use crate::room::Room;
use crate::ruling::Ruling;
use crate::sealing::Sealing;
use crate::standing::{Standing, Watched};
use crate::upstream::{Upstream, UpstreamError};
use crate::watch::router;

/// Stands between clients and their broker; made by [`start`](Self::start).
pub struct Proxy {
    doors: Vec<Door>,
    hall: Arc<Hall>,
    watch: Option<Loopback>,
    config: Arc<Config>,
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
    /// What the proxy is to be known by cannot be used; mend the file.
    #[error("cannot let clients use TLS")]
    Certificates(#[source] CertificatesError),
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
            Self::Certificates(_) => "proxy.certificates",
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
        let mut doors = Vec::new();
        for listener in &config.listeners {
            doors.push(Door::open(listener)?);
        }
        let watch = match config.metrics {
            None => None,
            Some(address) => {
                let bound = Loopback::bind(address).await;
                Some(bound.map_err(|source| StartError::Listen { address, source })?)
            }
        };
        let standing = Arc::new(Standing::default());
        standing.name(&config.rules);
        let sealing = Arc::new(Watched {
            sealing,
            standing: Arc::clone(&standing),
        });
        let shared = Arc::new(Shared {
            ruling: Arc::new(Ruling::new(config.rules.clone(), sealing)),
            upstream,
            room: Arc::new(Room::new(config.limits.park)),
            limits: config.limits,
            counts: Arc::default(),
            leaving: Arc::default(),
            recall: Arc::default(),
        });
        Ok(Self {
            doors,
            hall: Arc::new(Hall::new(shared, standing)),
            watch,
            config: Arc::new(config),
        })
    }

    /// Where it answers `/metrics` and `/healthz`.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.watch
            .as_ref()
            .and_then(|watch| watch.local_addr().ok())
    }

    /// What changes it while it runs.
    pub fn control(&self) -> Control {
        Control {
            hall: Arc::clone(&self.hall),
            ways: self.doors.iter().map(Door::ways).collect(),
            config: Arc::clone(&self.config),
        }
    }

    /// Where clients connect, in the order of the config file.
    ///
    /// # Errors
    ///
    /// Fails when the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.doors.iter().map(Door::address).collect()
    }

    /// What it has done with messages so far, also while it runs.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.hall.shared.counts)
    }

    /// Serves clients until `ends` does. Then each gets the message that it is about to get, and is told to go.
    pub async fn run(self, ends: impl Future<Output = ()>) {
        let process = std::process::id();
        let addresses = self.addresses().unwrap_or_default();
        let port = addresses.first().map(SocketAddr::port);
        tracing::info!(
            process,
            port,
            version = env!("CARGO_PKG_VERSION"),
            "proxy started"
        );
        for (number, address) in (1_u64..).zip(&addresses).skip(1) {
            tracing::info!(listener = number, port = address.port(), "listening");
        }
        let (stop, stopped) = watch::channel(false);
        if let Some(port) = self.metrics().map(|of| of.port()) {
            tracing::info!(port, "metrics");
        }
        let mut serving = JoinSet::new();
        if let Some(watch) = self.watch {
            let mut stopped = stopped.clone();
            let served = axum::serve(watch, router(&self.hall));
            let served = served.with_graceful_shutdown(async move {
                let _is_told = stopped.wait_for(|is_stopped| *is_stopped).await.is_ok();
            });
            serving.spawn(async move {
                let _has_ended = served.await.is_ok();
            });
        }
        let (shared, mut told) = (Arc::clone(&self.hall.shared), stopped.clone());
        serving.spawn(async move {
            tokio::select! {
                _ = told.wait_for(|is_stopped| *is_stopped) => {}
                () = shared.room.age(&shared.ruling, &shared.counts) => {}
                () = shared.recall.age() => {}
            }
        });
        for door in self.doors {
            serving.spawn(door.serve(Arc::clone(&self.hall), stopped.clone()));
        }
        ends.await;
        let connections = self.hall.places.taken_now();
        tracing::info!(connections, "proxy told to stop");
        stop.send_replace(true);
        while serving.join_next().await.is_some() {}
        self.hall.shared.counts.tell();
        tracing::info!("proxy stopped");
    }
}

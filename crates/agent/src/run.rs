//! From the start of an agent to its end.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener as _;
use sealcast::Home;
use sealcast_serving::Loopback;
use tokio::task::JoinSet;

use crate::api::router;
use crate::attend::supervise;
use crate::client::SOCKET;
use crate::config::{AgentConfig, Config};
use crate::decisions::{policy, questions};
use crate::hub::Hub;
use crate::listen::HomeSocket;
use crate::lock::{HomeLock, LockError};
use crate::server::ServerError;

/// How long what runs has to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Serves a home; made by [`start`](Self::start).
#[derive(Debug)]
pub struct Agent {
    hub: Arc<Hub>,
    socket: HomeSocket,
    loopback: Option<Loopback>,
    /// Let go of last.
    _lock: HomeLock,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another agent serves this home; its process, where that is known. One is enough.
    #[error("an agent serves this home already{}", process.map_or(String::new(), |of| format!(": process {of}")))]
    Running {
        /// The other's process.
        process: Option<u32>,
    },
    /// The home cannot be locked; see what the system says.
    #[error("cannot lock the home")]
    Lock(#[source] io::Error),
    /// The socket cannot be made: the path of the home may be too long for one.
    #[error("cannot make the socket: {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server that decides cannot be asked; see the config file.
    #[error("cannot ask the server that decides")]
    Server(#[source] ServerError),
    /// The port on loopback that the config file names is in use, or may not be used; name another, or none.
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
            Self::Running { .. } => "agent.running",
            Self::Lock(_) => "agent.lock",
            Self::Socket { .. } => "agent.socket",
            Self::Server(_) => "agent.server",
            Self::Listen { .. } => "agent.listen",
        }
    }
}

impl Agent {
    /// Makes this process the one agent of a home, and listens.
    ///
    /// # Errors
    ///
    /// Fails when another agent serves the home, or socket or port cannot be used.
    pub async fn start(home: Home, config: Config) -> Result<Self, StartError> {
        let lock = HomeLock::take(home.path()).map_err(|error| match error {
            LockError::Held(process) => StartError::Running { process },
            LockError::Io(error) => StartError::Lock(error),
        })?;
        let path = home.path().join(SOCKET);
        let socket = HomeSocket::bind(&path);
        let socket = socket.map_err(|source| StartError::Socket { path, source })?;
        home.set_asking(config.asking.clone());
        let questions = questions(&config.decisions);
        let policy = policy(&config.decisions, &questions).map_err(StartError::Server)?;
        let hub = Arc::new(Hub::new(home, config, policy, questions));
        let loopback = listen(&hub).await?;
        Ok(Self {
            hub,
            socket,
            loopback,
            _lock: lock,
        })
    }

    /// Where it answers `/metrics` and `/healthz`.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.hub.listen.get().copied()
    }

    /// Serves the home until `ends` does; then tells all who follow streams, keeps where they
    /// stand, and ends.
    pub async fn run(self, ends: impl Future<Output = ()>) {
        let hub = self.hub;
        let process = std::process::id();
        tracing::info!(
            process,
            version = env!("CARGO_PKG_VERSION"),
            "agent started"
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(hub.clone()));
        let stop = hub.clone();
        let served = axum::serve(self.socket, router(&hub, false));
        let served = served.with_graceful_shutdown(async move { stop.stopping().await });
        tasks.spawn(async move { note("socket", served.await) });
        if let Some(loopback) = self.loopback {
            let stop = hub.clone();
            let served = axum::serve(loopback, router(&hub, true));
            let served = served.with_graceful_shutdown(async move { stop.stopping().await });
            tasks.spawn(async move { note("loopback", served.await) });
        }
        ends.await;
        tracing::info!("agent told to stop");
        hub.stop();
        let all = async {
            while tasks.join_next().await.is_some() {}
            hub.idle().await;
        };
        match tokio::time::timeout(END_WITHIN, all).await {
            Ok(()) => tracing::info!("agent stopped"),
            Err(_) => tracing::warn!("agent stopped, leaving connections behind"),
        }
    }
}

/// Listens on loopback. Where another program has the port that nobody chose, the agent does without:
/// others wait for keys, and no user of the machine is to keep them waiting.
async fn listen(hub: &Hub) -> Result<Option<Loopback>, StartError> {
    let Some(address) = hub.config.agent.listen else {
        return Ok(None);
    };
    let fault = |source| StartError::Listen { address, source };
    let is_default = hub.config.agent.listen == AgentConfig::default().listen;
    let loopback = match Loopback::bind(address).await {
        Err(error) if is_default && error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(
                "another program has the port of the metrics; they are on the socket alone"
            );
            return Ok(None);
        }
        bound => bound.map_err(fault)?,
    };
    let at = loopback.local_addr().map_err(fault)?;
    let _is_first = hub.listen.set(at).is_ok();
    Ok(Some(loopback))
}

fn note(place: &'static str, served: io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(place, kind = ?error.kind(), "listening ended");
    }
}

//! Where clients come in.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{CertificatesError, acceptor};
use crate::config::{Listener, Transport};
use crate::connection::Shared;
use crate::places::Places;
use crate::proxy::StartError;
use crate::recall::Origin;
use crate::sockets::listen;
use crate::standing::Standing;
use crate::traffic::{Counted, Traffic};
use crate::upgrade::upgrade;
use crate::wire::Wire;

/// How long connections have to end.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long nobody is let in when the system has no room for one more.
const NO_ROOM_WAIT: Duration = Duration::from_millis(100);

/// What all listeners share.
pub(crate) struct Hall {
    pub(crate) shared: Arc<Shared>,
    pub(crate) places: Arc<Places>,
    /// How many came so far.
    number: AtomicU64,
    pub(crate) standing: Arc<Standing>,
    /// Between clients and the proxy.
    pub(crate) traffic: Arc<Traffic>,
    /// When it began, in seconds since 1970.
    pub(crate) started: u64,
}

impl Hall {
    pub(crate) fn new(shared: Arc<Shared>, standing: Arc<Standing>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            places: Arc::new(Places::new(&shared.limits)),
            shared,
            number: AtomicU64::new(0),
            standing,
            traffic: Arc::default(),
            started: now.unwrap_or_default().as_secs(),
        }
    }

    /// How many came so far and were let in.
    pub(crate) fn connected(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }
}

/// One listener.
pub(crate) struct Door {
    listener: TcpListener,
    ways: Arc<Ways>,
}

/// How clients come in by a listener, which may change.
pub(crate) struct Ways {
    of: Listener,
    now: Mutex<Way>,
}

/// How a client comes in.
#[derive(Clone)]
pub(crate) struct Way {
    transport: Transport,
    tls: Option<TlsAcceptor>,
}

impl Way {
    pub(crate) fn of(listener: &Listener) -> Result<Self, CertificatesError> {
        Ok(Self {
            transport: listener.transport.clone(),
            tls: listener.tls.as_ref().map(acceptor).transpose()?,
        })
    }
}

impl Ways {
    fn now(&self) -> Way {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn replace(&self, way: Way) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// Whether a config file says the same of where and how clients connect.
    pub(crate) fn is(&self, listener: &Listener) -> bool {
        self.of.to_string() == listener.to_string()
    }
}

impl Door {
    /// Listens.
    pub(crate) fn open(of: &Listener) -> Result<Self, StartError> {
        let way = Way::of(of).map_err(StartError::Certificates)?;
        let address = of.address;
        let listener = listen(address);
        Ok(Self {
            listener: listener.map_err(|source| StartError::Listen { address, source })?,
            ways: Arc::new(Ways {
                of: of.clone(),
                now: Mutex::new(way),
            }),
        })
    }

    pub(crate) fn ways(&self) -> Arc<Ways> {
        Arc::clone(&self.ways)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves whoever comes until it is told to stop, and ends when all are gone.
    pub(crate) async fn serve(self, hall: Arc<Hall>, mut stopped: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let stop = stopped.clone();
        tokio::select! {
            _ = stopped.wait_for(|is_stopped| *is_stopped) => {}
            () = self.accept(&hall, &stop, &mut connections) => {}
        }
        // Nobody new comes in.
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(END_WITHIN, all).await.is_err() {
            tracing::warn!("leaving connections behind");
        }
    }

    /// Never ends.
    async fn accept(
        &self,
        hall: &Arc<Hall>,
        stopped: &watch::Receiver<bool>,
        connections: &mut JoinSet<()>,
    ) {
        loop {
            let accepted = self.listener.accept().await;
            while connections.try_join_next().is_some() {}
            let (client, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(kind = ?error.kind(), "a client cannot be let in");
                    sleep(NO_ROOM_WAIT).await;
                    continue;
                }
            };
            let Some(place) = hall.places.take(address.ip()) else {
                continue;
            };
            let (hall, stopped) = (Arc::clone(hall), stopped.clone());
            let greeting = greet((client, address), self.ways.now());
            connections.spawn(async move {
                hall.receive(greeting, stopped).await;
                drop(place);
            });
        }
    }
}

impl Hall {
    /// Serves a client from when it has come in to when it is gone.
    async fn receive(
        &self,
        greeting: impl Future<Output = io::Result<(Box<dyn Wire>, Origin)>>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let known_by = Instant::now() + self.shared.limits.connect_timeout;
        let stop = stopped.clone();
        let greeted = tokio::select! {
            _ = stopped.wait_for(|is_stopped| *is_stopped) => return,
            greeted = timeout_at(known_by, greeting) => greeted,
        };
        match greeted {
            Ok(Ok((wire, origin))) => {
                let traffic = Arc::clone(&self.traffic);
                let client = (Box::new(Counted { wire, traffic }) as Box<dyn Wire>, origin);
                self.shared.serve(number, client, known_by, stop).await;
            }
            Ok(Err(error)) => {
                // Browsers and scanners come by; what they say is not of us.
                tracing::debug!(connection = number, cause = %error, "not taken in");
            }
            Err(_) => tracing::debug!(connection = number, "too slow to be taken in"),
        }
    }
}

/// What comes before MQTT.
async fn greet(
    (client, address): (TcpStream, SocketAddr),
    way: Way,
) -> io::Result<(Box<dyn Wire>, Origin)> {
    // What is slower then is not wrong.
    let _is_prompt = client.set_nodelay(true).is_ok();
    let is_tls = way.tls.is_some();
    let mut origin = Origin::of_address(address.ip());
    let client: Box<dyn Wire> = match way.tls {
        None => Box::new(client),
        Some(acceptor) => {
            let client = acceptor.accept(client).await?;
            let certificates = client.get_ref().1.peer_certificates();
            if let Some(own) = certificates.and_then(<[_]>::first) {
                origin = Origin::of_certificate(own);
            }
            Box::new(client)
        }
    };
    let client = match way.transport {
        Transport::Stream => client,
        Transport::WebSocket { origins } => Box::new(upgrade(client, &origins, is_tls).await?),
    };
    Ok((client, origin))
}

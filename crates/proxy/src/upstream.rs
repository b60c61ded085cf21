//! The broker, and connections to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError as Wrong, ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::certificates::roots;
use crate::sockets::connect;
use crate::traffic::{Counted, Traffic};
use crate::wire::Wire;

/// How long one attempt to connect may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is believed to be there, or not, and how long it takes to find out.
const SEEN_FOR: Duration = Duration::from_secs(1);
const LOOK_FOR: Duration = Duration::from_secs(3);
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// Where the broker is: `mqtt://HOST`, or `mqtts://HOST` for TLS, with `:PORT` where that is not the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    host: String,
    port: u16,
    is_tls: bool,
}

/// Not where a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamUrlError {
    /// It has another scheme, or none.
    #[error("a broker is mqtt:// or mqtts:// and a host, such as \"mqtts://broker.example\"")]
    Scheme,
    /// It has more than a host and a port, or a port that is none.
    #[error("a host, and a port if it is not the usual one, and nothing else")]
    Address,
    /// It names a user, or a password.
    #[error("no user name or password: each client brings its own")]
    Credentials,
}

impl FromStr for UpstreamUrl {
    type Err = UpstreamUrlError;

    fn from_str(text: &str) -> Result<Self, UpstreamUrlError> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(UpstreamUrlError::Scheme),
        };
        if rest.contains('@') {
            return Err(UpstreamUrlError::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|of| of.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':').or(Some(""))),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let usual = if is_tls { TLS_PORT } else { PORT };
        let port = port.map_or(Ok(usual), |of| {
            of.parse().map_err(|_| UpstreamUrlError::Address)
        })?;
        let is_odd = |of: char| matches!(of, '/' | '?' | '#' | ',') || of.is_whitespace();
        match host.is_empty() || host.contains(is_odd) || port == 0 {
            true => Err(UpstreamUrlError::Address),
            false => Ok(Self {
                host: host.to_owned(),
                port,
                is_tls,
            }),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// Why the broker cannot be reached as it was said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// Certificates are for the name of a server, and this is none.
    #[error("the host of the broker cannot be in a certificate")]
    ServerName,
    /// The file with the certificates cannot be used, or the system has none.
    #[error("no certificates to know the broker by{}", path.as_ref().map_or(String::new(), |of| format!(": {}", of.display())))]
    Certificates {
        /// The file; none where the system's were looked for.
        path: Option<PathBuf>,
        /// What is wrong with it, where there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// The broker.
pub(crate) struct Upstream {
    url: UpstreamUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Between the proxy and the broker.
    pub(crate) traffic: Arc<Traffic>,
    faults: AtomicU64,
    /// When it was last tried to connect, and what came of it.
    seen: Mutex<Option<(Instant, Result<(), Fault>)>>,
    /// Whoever looks, so that others wait for what is found.
    looks: tokio::sync::Mutex<()>,
}

impl Upstream {
    /// The broker that a URL names, known by the certificates of a file, or by those of the system.
    pub(crate) fn new(url: &UpstreamUrl, ca: Option<&Path>) -> Result<Self, UpstreamError> {
        let tls = match url.is_tls {
            true => {
                let name = ServerName::try_from(url.host.clone());
                let name = name.map_err(|_| UpstreamError::ServerName)?;
                Some((connector(ca)?, name))
            }
            false => None,
        };
        Ok(Self {
            url: url.clone(),
            tls,
            traffic: Arc::default(),
            faults: AtomicU64::new(0),
            seen: Mutex::new(None),
            looks: tokio::sync::Mutex::new(()),
        })
    }

    /// Makes a connection.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Wire>> {
        let dialling = async {
            let stream = connect(&self.url.host, self.url.port).await?;
            stream.set_nodelay(true)?;
            let wire: Box<dyn Wire> = match &self.tls {
                None => Box::new(stream),
                Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
            };
            Ok(wire)
        };
        let late = |_| io::ErrorKind::TimedOut.into();
        let dialled = timeout(DIAL_TIMEOUT, dialling).await;
        let dialled: io::Result<Box<dyn Wire>> = dialled.map_err(late).flatten();
        let fault = dialled.as_ref().err().map(Fault::of);
        let seen = (Instant::now(), fault.map_or(Ok(()), Err));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        let faults = u64::from(dialled.is_err());
        self.faults.fetch_add(faults, Ordering::Relaxed);
        let traffic = Arc::clone(&self.traffic);
        Ok(Box::new(Counted {
            wire: dialled?,
            traffic,
        }))
    }

    /// How often no connection could be made.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// A connection to it was lost: it may not be there any more.
    pub(crate) fn was_lost(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether it can be connected to: found out anew, where nobody has just tried.
    pub(crate) async fn look(&self) -> Result<(), Fault> {
        let _alone = self.looks.lock().await;
        match *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((since, seen)) if since.elapsed() < SEEN_FOR => return seen,
            Some(_) | None => {}
        }
        match timeout(LOOK_FOR, self.dial()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Fault::of(&error)),
            Err(_) => Err(Fault::SILENT),
        }
    }
}

/// Why it cannot be connected to, in words that say nothing of where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) &'static str);

impl Fault {
    const SILENT: Self = Self("it does not answer");

    pub(crate) fn of(error: &io::Error) -> Self {
        let cause = error.get_ref();
        if let Some(error) = cause.and_then(|of| of.downcast_ref::<rustls::Error>()) {
            return Self(of_tls(error));
        }
        let known = BY_KIND.iter().find(|(kind, _)| *kind == error.kind());
        Self(known.map_or(
            "its name is not known, or the system lets nobody connect",
            |(_, says)| says,
        ))
    }
}

const BY_KIND: [(io::ErrorKind, &str); 8] = [
    (io::ErrorKind::TimedOut, Fault::SILENT.0),
    (io::ErrorKind::ConnectionRefused, "nobody listens there"),
    (io::ErrorKind::HostUnreachable, "no network leads there"),
    (io::ErrorKind::NetworkUnreachable, "no network leads there"),
    (io::ErrorKind::UnexpectedEof, "it hangs up"),
    (io::ErrorKind::ConnectionReset, "it hangs up"),
    (io::ErrorKind::ConnectionAborted, "it hangs up"),
    (io::ErrorKind::BrokenPipe, "it hangs up"),
];

fn of_tls(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return match matches!(error, rustls::Error::InvalidMessage(_)) {
            true => "it does not speak TLS",
            false => "it does not speak TLS as it is spoken here",
        };
    };
    if matches!(wrong, Wrong::Expired | Wrong::ExpiredContext { .. }) {
        "its certificate has expired"
    } else if matches!(wrong, Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) {
        "its certificate is not valid yet, or the clock is wrong"
    } else if matches!(
        wrong,
        Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }
    ) {
        "its certificate is for another name"
    } else if *wrong == Wrong::UnknownIssuer {
        "its certificate does not chain to those of `upstream_ca`, or of the system"
    } else {
        "its certificate cannot be used"
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, UpstreamError> {
    let unusable = |source| UpstreamError::Certificates {
        path: ca.map(Path::to_owned),
        source,
    };
    let roots = match ca {
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
        Some(path) => roots(path).map_err(|error| unusable(Some(error)))?,
    };
    if roots.is_empty() {
        return Err(unusable(None));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| unusable(Some(error.into())))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        for (text, whole) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883"),
            (
                "mqtt://broker.example:11883/",
                "mqtt://broker.example:11883",
            ),
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtts://[::1]", "mqtts://[::1]:8883"),
            ("mqtt://[fd00::1]:18", "mqtt://[fd00::1]:18"),
        ] {
            let url: UpstreamUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), whole);
            assert_eq!(whole.parse(), Ok(url));
        }
        use UpstreamUrlError::{Address, Credentials, Scheme};
        for (odd, error) in [
            ("broker.example", Scheme),
            ("tcp://broker.example", Scheme),
            ("mqtt://kim:secret@broker.example", Credentials),
            ("mqtt://", Address),
            ("mqtt://:1883", Address),
            ("mqtt://broker.example:0", Address),
            ("mqtt://broker.example:x", Address),
            ("mqtt://broker.example/plant", Address),
            ("mqtt://[::1]1883", Address),
            ("mqtt://one,two", Address),
        ] {
            assert_eq!(odd.parse::<UpstreamUrl>(), Err(error), "{odd}");
        }
    }
}

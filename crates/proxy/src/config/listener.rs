//! Where clients connect, as a config file says it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::Wrong;
use crate::upgrade::ANY;

/// Where clients connect, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// An address of this machine.
    pub address: SocketAddr,
    /// How packets travel.
    pub transport: Transport,
    /// What the proxy is known by, where clients use TLS.
    pub tls: Option<Certificates>,
}

/// How packets travel between clients and the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As they are.
    Stream,
    /// Over a WebSocket.
    WebSocket {
        /// Of which origins pages are that may connect: `https://HOST`, or `*` for all. Programs that are no browser
        /// say none, and always may.
        origins: Vec<String>,
    },
}

/// What the proxy is known by, and clients are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// A file with the certificate of the proxy and those that it chains to, in PEM.
    pub certificate: PathBuf,
    /// A file with the private key of the certificate, in PEM.
    pub key: PathBuf,
    /// A file with the certificates that those of clients must chain to, in PEM; where not given, clients need none.
    pub client_ca: Option<PathBuf>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.transport, &self.tls) {
            (Transport::Stream, None) => "mqtt",
            (Transport::Stream, Some(_)) => "mqtts",
            (Transport::WebSocket { .. }, None) => "ws",
            (Transport::WebSocket { .. }, Some(_)) => "wss",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl Listener {
    /// Whether others on a network can read and change what clients send and receive.
    pub fn is_in_clear(&self) -> bool {
        self.tls.is_none() && !self.address.ip().is_loopback()
    }
}

/// Not where clients may connect: what is wrong, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListenerError(String);

/// One of which nothing but where is said: `ADDRESS:PORT` of loopback, or a URL of it, without TLS.
impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(text: &str) -> Result<Self, ListenerError> {
        let simple = ListenerSection::simple(Some(text.to_owned()));
        let checked = simple.checked(Path::new(""));
        checked.map_err(|(_, says)| ListenerError(says))
    }
}

/// A `[[listener]]`, as it stands.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerSection {
    listen: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    origins: Option<Vec<String>>,
    danger_in_clear: Option<bool>,
}

const EXAMPLE: &str =
    "an address and a port, such as \"127.0.0.1:1883\" or \"mqtts://0.0.0.0:8883\"";
const IN_CLEAR: &str = "others on that network could read what clients send: let them use TLS, with mqtts:// or wss://, or say \
                        `danger_in_clear = true` in a `[[listener]]`";

impl ListenerSection {
    /// One of which nothing but where is said.
    pub(super) fn simple(listen: Option<String>) -> Self {
        Self {
            listen,
            ..Self::default()
        }
    }

    /// Relative paths are below `folder`.
    pub(super) fn checked(self, folder: &Path) -> Result<Listener, Wrong> {
        let wrong = |key, says: &str| (key, says.to_owned());
        let listen = self.listen.as_deref();
        let listen = listen.ok_or_else(|| ("listen", format!("is not said: {EXAMPLE}")))?;
        let (scheme, address) = listen.split_once("://").unwrap_or(("mqtt", listen));
        let (is_web, is_tls) = match scheme {
            "mqtt" => (false, false),
            "mqtts" => (false, true),
            "ws" => (true, false),
            "wss" => (true, true),
            _ => return Err(wrong("listen", EXAMPLE)),
        };
        let address = address.parse().map_err(|_| wrong("listen", EXAMPLE))?;
        let listener = Listener {
            address,
            transport: self.transport(is_web)?,
            tls: self.certificates(is_tls, folder)?,
        };
        match listener.is_in_clear() && self.danger_in_clear != Some(true) {
            true => Err(wrong("listen", IN_CLEAR)),
            false => Ok(listener),
        }
    }

    fn transport(&self, is_web: bool) -> Result<Transport, Wrong> {
        let wrong = |says: &str| Err(("origins", says.to_owned()));
        let origins = match (&self.origins, is_web) {
            (None, false) => return Ok(Transport::Stream),
            (Some(_), false) => return wrong("without WebSocket there are none: ws:// or wss://"),
            (None, true) => Vec::new(),
            (Some(origins), true) => origins.clone(),
        };
        match origins.iter().all(|of| is_origin(of)) {
            true => Ok(Transport::WebSocket { origins }),
            false => wrong(
                "each as browsers say it, such as \"https://dashboard.example\", or \"*\" for all",
            ),
        }
    }

    fn certificates(&self, is_tls: bool, folder: &Path) -> Result<Option<Certificates>, Wrong> {
        if !is_tls {
            let superfluous = [
                ("certificate", self.certificate.is_some()),
                ("key", self.key.is_some()),
                ("client_ca", self.client_ca.is_some()),
            ];
            return match superfluous.iter().find(|(_, is_said)| *is_said) {
                Some((key, _)) => Err((
                    key,
                    "without TLS there are none: mqtts:// or wss://".to_owned(),
                )),
                None => Ok(None),
            };
        }
        if self.danger_in_clear.is_some() {
            return Err(("danger_in_clear", "nothing is with TLS".to_owned()));
        }
        let said = |key, path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| folder.join(path));
            let says = "a file in PEM, in a `[[listener]]`: TLS needs it";
            path.ok_or_else(|| (key, says.to_owned()))
        };
        Ok(Some(Certificates {
            certificate: said("certificate", &self.certificate)?,
            key: said("key", &self.key)?,
            client_ca: self.client_ca.as_ref().map(|path| folder.join(path)),
        }))
    }
}

fn is_origin(text: &str) -> bool {
    let host = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_odd = |of: char| matches!(of, '/' | '@' | '?' | '#' | ',') || of.is_whitespace();
    text == ANY || host.is_some_and(|host| !host.is_empty() && !host.contains(is_odd))
}

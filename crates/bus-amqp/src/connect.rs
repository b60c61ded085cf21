//! How a handle comes to its server.

use std::path::Path;
use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt as _, RustlsConnector, RustlsConnectorConfig, TLSConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sealcast_bus::{Credentials, ServerAddress, ServerOptions};
use tokio::time::timeout;

use crate::fault::Fault;

/// How long one server is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Each side says this often that it is there, in seconds; who says nothing for twice as long is not.
const HEARTBEAT: u16 = 10;
/// Who a server that knows nobody yet lets in, from its own machine.
const GUEST: &str = "guest";
/// The virtual host that every server has.
const VHOST: &str = "/";

/// Who is to be connected to, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    uris: Vec<AMQPUri>,
    tls: Option<RustlsConnector>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Target")
    }
}

impl Target {
    pub(crate) fn new(address: &ServerAddress, options: &ServerOptions) -> Result<Self, Fault> {
        let (username, password) = match &options.credentials {
            Credentials::None => (GUEST.to_owned(), GUEST.to_owned()),
            Credentials::Password { user, password } => (user.clone(), password.clone()),
            Credentials::File(_) | Credentials::Token(_) => return Err(Fault::Credentials),
        };
        let wants_tls = options.require_tls || options.certificates.is_some();
        if wants_tls && !address.is_tls() {
            return Err(Fault::NoTls);
        }
        let uri = |server: &String| {
            let (host, port) = server.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(AMQPUri {
                scheme: match address.is_tls() {
                    true => AMQPScheme::AMQPS,
                    false => AMQPScheme::AMQP,
                },
                authority: AMQPAuthority {
                    userinfo: AMQPUserInfo {
                        username: username.clone(),
                        password: password.clone(),
                    },
                    host: host.to_owned(),
                    port: port.parse().ok()?,
                },
                vhost: address.space().unwrap_or(VHOST).to_owned(),
                query: AMQPQueryString {
                    heartbeat: Some(HEARTBEAT),
                    ..AMQPQueryString::default()
                },
            })
        };
        let tls = match address.is_tls() {
            true => Some(connector(options.certificates.as_deref())?),
            false => None,
        };
        let uris = address.servers().iter().filter_map(uri).collect();
        Ok(Self { uris, tls })
    }

    /// Connects to the first server that answers, beginning with that number `turn`. No frame has more
    /// bytes than `frame_max`; the library has room for 64 of them.
    pub(crate) async fn connect(&self, turn: usize, frame_max: u32) -> Result<Connection, Fault> {
        let mut fault = Fault::no_answer("no server is named");
        for index in 0..self.uris.len() {
            let index = turn.wrapping_add(index) % self.uris.len();
            let Some(uri) = self.uris.get(index) else {
                continue;
            };
            match self.connect_in_time(uri, frame_max).await {
                Ok(connection) => return Ok(connection),
                Err(not_there) => fault = not_there,
            }
        }
        Err(fault)
    }

    /// Connects to the one at a place among those that are named, and to no other. None where none is.
    pub(crate) async fn connect_at(
        &self,
        index: usize,
        frame_max: u32,
    ) -> Option<Result<Connection, Fault>> {
        let uri = self.uris.get(index)?;
        Some(self.connect_in_time(uri, frame_max).await)
    }

    async fn connect_in_time(&self, uri: &AMQPUri, frame_max: u32) -> Result<Connection, Fault> {
        let mut uri = uri.clone();
        uri.query.frame_max = Some(frame_max);
        match timeout(CONNECT_TIMEOUT, self.connect_to(uri)).await {
            Ok(connected) => Ok(connected?),
            Err(late) => Err(Fault::late(late)),
        }
    }

    async fn connect_to(&self, uri: AMQPUri) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name("sealcast".into());
        let runtime = lapin::runtime::default_runtime()?;
        let tls = self.tls.clone();
        let connect = async move |uri: AMQPUri, runtime| {
            let mut open = uri.clone();
            open.scheme = AMQPScheme::AMQP;
            let stream = open
                .connect_with_config_async(TLSConfig::default(), &runtime)
                .await?;
            match &tls {
                Some(tls) => Ok(stream.into_rustls(tls, &uri.authority.host).await?),
                None => Ok(stream),
            }
        };
        Connection::connector(uri, runtime, connect, properties).await
    }
}

/// Believes servers for which the certificates of a file vouch, or those of the system.
fn connector(certificates: Option<&Path>) -> Result<RustlsConnector, Fault> {
    let Some(path) = certificates else {
        let config = RustlsConnectorConfig::new_with_native_certs();
        let connector = config.and_then(RustlsConnectorConfig::connector_with_no_client_auth);
        return connector.map_err(|error| Fault::NoAnswer(Box::new(error)));
    };
    let fault = |cause| Fault::Certificates {
        path: path.to_owned(),
        cause,
    };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> =
        read.map_err(|error| fault(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
    let config = RustlsConnectorConfig::default().with_parsable_certificates(certificates);
    config.connector_with_no_client_auth().map_err(fault)
}

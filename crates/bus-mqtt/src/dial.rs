//! How a connection to the broker comes to be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealcast_bus::{Credentials, ServerAddress, ServerOptions};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::fault::Fault;
use crate::message::PART_MAX;
use crate::packet::{
    Connect, Garbled, OTHER_VERSION, OTHER_VERSION_THREE, Packet, Version, Welcome, decode,
    id_of_publish, put_connect, split_head,
};
use crate::prompt::Prompt;

/// How long one attempt to connect may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where there are other servers to try.
const DIAL_TIMEOUT_OF_MANY: Duration = Duration::from_secs(3);
/// The broker gives a client up that it has heard nothing of for one and a half times as long.
const KEEP_ALIVE: u16 = 20;
/// Messages that the broker may have on their way to us.
const RECEIVE_MAX: u16 = u16::MAX;
/// Whatever comes in a larger packet was not written by a bus.
const PACKET_MAX: usize = PART_MAX + (4 << 10);
/// A broker that takes less cannot carry what is sent on ephemeral topics. One of MQTT 3.1.1 does not say
/// what it takes, so that it is given no more.
pub(crate) const TAKEN_MIN: u32 = 96 << 10;
/// The bytes at the start of a message in which its acknowledgement's number is found.
const START_MAX: usize = 2 + u16::MAX as usize + 2;
/// Room for what is read where it is not known how much is to come.
const READ_BYTES: usize = 64 << 10;
/// Packets of fewer bytes are copied out of what was read.
const FEW: usize = READ_BYTES / 2;

/// Whatever a connection runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Who to connect to, and as whom.
#[derive(Clone)]
pub(crate) struct Dial {
    servers: Vec<String>,
    /// The one that let us in last, with which the next attempt begins.
    begin: Arc<AtomicUsize>,
    tls: Option<TlsConnector>,
    login: Option<(String, String)>,
    /// Whether the broker was found to speak 3.1.1 and no more.
    is_three: Arc<AtomicBool>,
}

/// A connection on which the broker has let us in.
pub(crate) struct Connection {
    pub(crate) version: Version,
    pub(crate) welcome: Welcome,
    pub(crate) reader: PacketReader,
    pub(crate) writer: WriteHalf<Box<dyn Wire>>,
}

/// What comes over a connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    Packet(Packet),
    /// A packet that is too large to be of a bus; it was passed over. A message may want to be
    /// acknowledged all the same.
    Oversized(Option<u16>),
}

impl Dial {
    pub(crate) fn new(address: &ServerAddress, options: &ServerOptions) -> Result<Self, Fault> {
        let login = match &options.credentials {
            Credentials::None => None,
            Credentials::Password { user, password } => Some((user.clone(), password.clone())),
            Credentials::File(_) | Credentials::Token(_) => return Err(Fault::Credentials),
        };
        let is_tls = address.is_tls() || options.require_tls || options.certificates.is_some();
        let tls = match is_tls {
            true => Some(connector(options)?),
            false => None,
        };
        Ok(Self {
            servers: address.servers().to_vec(),
            begin: Arc::default(),
            tls,
            login,
            is_three: Arc::default(),
        })
    }

    /// Whether nothing is said without TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects as a client whose session the broker keeps for some seconds after the connection is
    /// gone; for 0 it has none before.
    pub(crate) async fn connect(&self, client: &str, kept_for: u32) -> Result<Connection, Fault> {
        let mut fault = Fault::Closed;
        let count = self.servers.len();
        let begin = self.begin.load(Ordering::Relaxed);
        for index in (begin..begin + count).map(|at| at % count) {
            let server = &self.servers[index];
            match self.connect_to(server, client, kept_for).await {
                Ok(connection) => {
                    self.begin.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(met) => fault = met,
            }
        }
        Err(fault)
    }

    async fn connect_to(
        &self,
        server: &str,
        client: &str,
        kept_for: u32,
    ) -> Result<Connection, Fault> {
        // The next one has to have its turn while somebody waits.
        let patience = match self.servers.len() {
            1 => DIAL_TIMEOUT,
            _ => DIAL_TIMEOUT_OF_MANY,
        };
        let attempt = async |version| {
            let connecting = self.connect_as(server, version, client, kept_for);
            let connected = timeout(patience, connecting).await;
            connected.map_err(|_| Fault::Late).flatten()
        };
        if self.is_three.load(Ordering::Relaxed) {
            return attempt(Version::Three).await;
        }
        match attempt(Version::Five).await {
            // Brokers that know nothing of MQTT 5 say so, or hang up.
            Err(Fault::Turned(OTHER_VERSION | OTHER_VERSION_THREE) | Fault::Closed) => {
                let connection = attempt(Version::Three).await?;
                self.is_three.store(true, Ordering::Relaxed);
                Ok(connection)
            }
            attempted => attempted,
        }
    }

    async fn connect_as(
        &self,
        server: &str,
        version: Version,
        client: &str,
        kept_for: u32,
    ) -> Result<Connection, Fault> {
        let wire = self.wire_to(server).await?;
        let (reader, mut writer) = tokio::io::split(wire);
        let connect = Connect {
            client: client.to_owned(),
            kept_for,
            keep_alive: KEEP_ALIVE,
            receive_max: RECEIVE_MAX,
            packet_max: u32::try_from(PACKET_MAX).unwrap_or(u32::MAX),
            login: self.login.clone(),
        };
        let mut bytes = BytesMut::new();
        put_connect(version, &connect, &mut bytes);
        writer.write_all(&bytes).await.map_err(Fault::no_answer)?;
        writer.flush().await.map_err(Fault::no_answer)?;
        let mut reader = PacketReader {
            version,
            wire: reader,
            bytes: BytesMut::new(),
            pulse: Arc::new(Pulse::new()),
        };
        let welcome = match reader.next().await? {
            Incoming::Packet(Packet::Welcome(welcome)) => welcome,
            Incoming::Packet(Packet::Turned(code)) => return Err(Fault::Turned(code)),
            Incoming::Packet(_) | Incoming::Oversized(_) => return Err(Garbled.into()),
        };
        check(&welcome)?;
        Ok(Connection {
            version,
            welcome,
            reader,
            writer,
        })
    }

    async fn wire_to(&self, server: &str) -> Result<Box<dyn Wire>, Fault> {
        let stream = TcpStream::connect(server).await;
        let stream = stream.and_then(Prompt::new).map_err(Fault::no_answer)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(connector) => {
                let secured = connector.connect(server_name(server)?, stream).await;
                Box::new(secured.map_err(Fault::no_answer)?)
            }
        })
    }
}

/// Whether a bus can be on such a broker.
fn check(welcome: &Welcome) -> Result<(), Fault> {
    if !welcome.takes_acknowledged {
        return Err(Fault::Lacks("acknowledges no messages"));
    }
    if !welcome.takes_retained {
        return Err(Fault::Lacks("retains no messages"));
    }
    if !welcome.takes_wildcards {
        return Err(Fault::Lacks("takes no filters with wildcards"));
    }
    if welcome.packet_max < TAKEN_MIN {
        return Err(Fault::Lacks("takes no packets of 96 KiB"));
    }
    Ok(())
}

fn server_name(server: &str) -> Result<ServerName<'static>, Fault> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| Fault::ServerName)
}

fn connector(options: &ServerOptions) -> Result<TlsConnector, Fault> {
    let mut roots = RootCertStore::empty();
    match &options.certificates {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let unusable = |cause: Arc<dyn std::error::Error + Send + Sync>| {
                let path = path.clone();
                Fault::Certificates { path, cause }
            };
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let certificates: Vec<_> = read.map_err(|error| unusable(Arc::new(error)))?;
            for certificate in certificates {
                let added = roots.add(certificate);
                added.map_err(|error| unusable(Arc::new(error)))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(Fault::no_answer)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Reads one packet after the other.
pub(crate) struct PacketReader {
    version: Version,
    wire: ReadHalf<Box<dyn Wire>>,
    bytes: BytesMut,
    pub(crate) pulse: Arc<Pulse>,
}

/// When something was last heard over a connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    begun: Instant,
    beat_ms: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            beat_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(now, Ordering::Relaxed);
    }

    pub(crate) fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(beat)
    }
}

impl PacketReader {
    pub(crate) async fn next(&mut self) -> Result<Incoming, Fault> {
        loop {
            if let Some((first, head, length)) = split_head(&self.bytes)? {
                if length > PACKET_MAX {
                    return self.pass_over(first, head, length).await;
                }
                if self.bytes.len() >= head + length {
                    self.bytes.advance(head);
                    let body = self.take(length);
                    return Ok(Incoming::Packet(decode(self.version, first, body)?));
                }
                let missing = head + length - self.bytes.len();
                self.fill(missing).await?;
            } else {
                self.fill(READ_BYTES).await?;
            }
        }
    }

    /// Takes bytes that are there. A few are copied: they do not keep all from being freed that came with
    /// them, nor the room for them from being used again.
    fn take(&mut self, length: usize) -> Bytes {
        if length >= FEW {
            return self.bytes.split_to(length).freeze();
        }
        let few = Bytes::copy_from_slice(&self.bytes[..length]);
        self.bytes.advance(length);
        few
    }

    /// Reads, with room for so many bytes at least.
    async fn fill(&mut self, room: usize) -> Result<(), Fault> {
        self.bytes.reserve(room);
        match self.wire.read_buf(&mut self.bytes).await {
            Ok(0) => Err(Fault::Closed),
            Ok(_) => {
                self.pulse.beat();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(Fault::Closed),
            Err(error) => Err(Fault::no_answer(error)),
        }
    }

    async fn pass_over(
        &mut self,
        first: u8,
        head: usize,
        length: usize,
    ) -> Result<Incoming, Fault> {
        while self.bytes.len() < head + length.min(START_MAX) {
            self.fill(READ_BYTES).await?;
        }
        let id = id_of_publish(first, &self.bytes[head..]);
        let mut left = head + length;
        loop {
            let count = left.min(self.bytes.len());
            self.bytes.advance(count);
            left -= count;
            if left == 0 {
                return Ok(Incoming::Oversized(id));
            }
            self.fill(READ_BYTES).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use sealcast_bus::BusUrl;
    use tokio::net::TcpListener;

    use super::*;

    /// Counts who comes, and says the same to each.
    async fn server(says: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                stream.write_all(says).await.ok();
                all.push(stream);
            }
        });
        (port, count)
    }

    #[tokio::test]
    async fn the_server_that_let_us_in_is_the_first_to_be_tried_again() {
        // It is not available.
        let (one, turned) = server(b"\x20\x03\x00\x88\x00").await;
        let (two, let_in) = server(b"\x20\x03\x00\x00\x00").await;
        let url = format!("mqtt://127.0.0.1:{one},127.0.0.1:{two}/x");
        let url = BusUrl::parse(&url).unwrap();
        let dial = Dial::new(url.server().unwrap(), &ServerOptions::default()).unwrap();
        for count in 1..4 {
            dial.clone().connect("sc", 0).await.unwrap();
            assert_eq!(let_in.load(Ordering::Relaxed), count);
            assert_eq!(turned.load(Ordering::Relaxed), 1);
        }
    }
}

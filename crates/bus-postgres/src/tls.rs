//! TLS to a server, by the cryptographic library that is there already.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use crate::fault::Fault;

/// Makes connections secure; without a connector it is not asked to.
#[derive(Clone)]
pub(crate) struct Tls(Option<TlsConnector>);

/// Makes one connection secure.
pub(crate) struct TlsTo(Option<(TlsConnector, ServerName<'static>)>);

/// A connection that is secure.
pub(crate) struct Secured(tokio_rustls::client::TlsStream<Socket>);

impl Tls {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Believes the certificates that those of a file vouch for, or else those of the system.
    pub(crate) fn new(certificates: Option<&Path>) -> Result<Self, Fault> {
        let fault = |cause| Fault::NoAuthority {
            path: certificates.map(Path::to_owned),
            cause,
        };
        let found = match certificates {
            Some(path) => certificates_of(path).map_err(|error| fault(Some(error)))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found);
        if added == 0 {
            return Err(fault(None));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| fault(None))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }
}

fn certificates_of(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>();
    certificates.map_err(|_| io::ErrorKind::InvalidData.into())
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Secured;
    type TlsConnect = TlsTo;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<TlsTo, io::Error> {
        let Some(connector) = self.0.clone() else {
            return Ok(TlsTo(None));
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(TlsTo(Some((connector, name))))
    }
}

impl TlsConnect<Socket> for TlsTo {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Secured, io::Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let (connector, name) = self.0.ok_or(io::ErrorKind::Unsupported)?;
            Ok(Secured(connector.connect(name, socket).await?))
        })
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl TlsStream for Secured {
    /// The password is proven without it: the server is believed by its certificate.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

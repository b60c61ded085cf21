//! What the proxy is known by to clients that use TLS, and they to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::Certificates;

/// A file of certificates, or of a key, that cannot be used: see what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificates or the key in {}", path.display())]
pub struct CertificatesError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What takes clients in by TLS.
pub(crate) fn acceptor(of: &Certificates) -> Result<TlsAcceptor, CertificatesError> {
    let unusable = |path: &Path, source| CertificatesError {
        path: path.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| unusable(&of.certificate, error.into()))?;
    let config = match &of.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let fault = |error| unusable(path, error);
            let roots = Arc::new(roots(path).map_err(fault)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| fault(error.into()))?)
        }
    };
    let chain = certificates(&of.certificate);
    let chain = chain.map_err(|error| unusable(&of.certificate, error))?;
    let key = PrivateKeyDer::from_pem_file(&of.key);
    let key = key.map_err(|error| unusable(&of.key, error.into()))?;
    let config = config.with_single_cert(chain, key);
    let config = config.map_err(|error| unusable(&of.key, error.into()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    match all.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(all),
    }
}

/// What certificates must chain to, from a file.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

//! Asking a server that decides: one HTTP POST a question, `docs/reference/agent.md`, section
//! "Questions".
//!
//! One connection each, to the address that the config file names and no other: no redirection, no
//! proxy, no cookie is known here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::uri::Scheme;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealcast::Verdict;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Longest answer, and longest head of one, in bytes.
const ANSWER_MAX: usize = 1 << 10;
const HEAD_MAX: usize = 16 << 10;

/// Where questions are posted.
pub(crate) struct Server {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why a server cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The URL is none that can be asked; see the config file.
    #[error("the URL cannot be asked")]
    Url,
    /// There are no certificates that a server's could chain to; name a file that has some.
    #[error("no certificates to know the server by{}", path.as_ref().map_or(String::new(), |of| format!(": {}", of.display())))]
    NoAuthority {
        /// The file; none where the system's were looked for.
        path: Option<PathBuf>,
        /// Why it could not be read, where that is so.
        #[source]
        source: Option<io::Error>,
    },
}

/// Why a server has not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// Nobody listens there.
    Unreachable,
    /// Its certificate is not one to believe.
    NotTrusted,
    /// It does not speak HTTP, or says too much.
    NoAnswer,
    /// It answers with another status than 200.
    Status(StatusCode),
    /// Its answer is none that is known here.
    Odd,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("unreachable"),
            Self::NotTrusted => f.write_str("not trusted"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Status(status) => write!(f, "status {}", status.as_u16()),
            Self::Odd => f.write_str("odd answer"),
        }
    }
}

/// What a server answers. A member that is not known could say less than yes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    decision: Word,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Yes,
    No,
    Later,
}

impl Server {
    /// A server, known by the certificates of a file, or else by those of the system.
    pub(crate) fn new(url: &str, ca: Option<&Path>) -> Result<Self, ServerError> {
        let uri: Uri = url.parse().map_err(|_| ServerError::Url)?;
        let host = uri.host().ok_or(ServerError::Url)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let tls = match is_tls {
            true => {
                let name = ServerName::try_from(host.clone()).map_err(|_| ServerError::Url)?;
                Some((connector(ca)?, name))
            }
            false => None,
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            host,
            uri,
            tls,
        })
    }

    /// Posts a question of JSON, and reads the answer.
    pub(crate) async fn ask(&self, question: String) -> Result<Verdict, Undecided> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|_| Undecided::Unreachable)?;
        let Some((tls, name)) = &self.tls else {
            return self.post(tcp, question).await;
        };
        let connected = tls.connect(name.clone(), tcp).await;
        let tls = connected.map_err(|_| Undecided::NotTrusted)?;
        self.post(tls, question).await
    }

    async fn post(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        question: String,
    ) -> Result<Verdict, Undecided> {
        let no_answer = |_| Undecided::NoAnswer;
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(io));
        let (mut sender, connection) = handshake.await.map_err(no_answer)?;
        // It ends when this is dropped.
        let mut driven = JoinSet::new();
        driven.spawn(connection);
        let request = self.request(question).ok_or(Undecided::NoAnswer)?;
        let response = sender.send_request(request).await.map_err(no_answer)?;
        if response.status() != StatusCode::OK {
            return Err(Undecided::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        let body = body.await.map_err(|_| Undecided::NoAnswer)?.to_bytes();
        let answer = serde_json::from_slice::<Answer>(&body).map_err(|_| Undecided::Odd)?;
        Ok(match answer.decision {
            Word::Yes => Verdict::Yes,
            Word::No => Verdict::No,
            Word::Later => Verdict::Later,
        })
    }

    fn request(&self, question: String) -> Option<Request<Full<Bytes>>> {
        let path = self.uri.path_and_query().map_or("/", |of| of.as_str());
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, self.uri.authority()?.as_str())
            .header(
                header::USER_AGENT,
                concat!("sealcast/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(question)))
            .ok()
    }
}

/// What is in the URL may be a secret of who runs the server.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("is_tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, ServerError> {
    let fault = |source| ServerError::NoAuthority {
        path: ca.map(Path::to_owned),
        source,
    };
    let certificates = match ca {
        Some(path) => certificates_of(path).map_err(|error| fault(Some(error)))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(fault(None));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| fault(None))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates_of(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>();
    certificates.map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;

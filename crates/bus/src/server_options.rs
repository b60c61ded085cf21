use std::fmt;
use std::path::PathBuf;

/// How to talk to the servers of a bus: what its URL, which is handed on, does not say.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Who we are.
    pub credentials: Credentials,
    /// A file with the certificates, in PEM, of those who may vouch for a server; those of the system
    /// where not given. Where it is given, nothing is said without TLS.
    pub certificates: Option<PathBuf>,
    /// Whether to say nothing without TLS. Otherwise the URL decides, or the server.
    pub require_tls: bool,
    /// On how many servers of a cluster what is created is kept: 1, 3 or 5; where not given, what the
    /// servers do by themselves.
    pub replicas: Option<usize>,
    /// Whether to hand out what has passed to those who come late, on a bus whose servers keep none of
    /// it: MQTT.
    pub serves_history: bool,
}

/// Who we are to a server.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// Whom a file says, as NATS's `nsc` writes it: a JWT and the seed of its key.
    File(PathBuf),
    /// A user with a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Whoever has this.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File(_) => "File",
            Self::Password { .. } => "Password",
            Self::Token(_) => "Token",
        })
    }
}

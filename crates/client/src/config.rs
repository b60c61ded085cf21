//! What a long-running client may be told: plain values, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

/// How this device asks others for keys, and answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskingConfig {
    /// How long to wait for the answer to a request for keys.
    pub key_request_timeout: Duration,
    /// Requests for keys that are sent in a second, at most, over all streams.
    pub max_key_requests_per_second: u32,
    /// Whether requests of others are answered.
    pub answers: bool,
}

impl Default for AskingConfig {
    fn default() -> Self {
        Self {
            key_request_timeout: Duration::from_secs(30),
            max_key_requests_per_second: 20,
            answers: true,
        }
    }
}

/// Who decides whether somebody who asks without a grant gets one. A decision that does not come in time is a no.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecisionPolicy {
    /// The access log: who has no grant gets no keys.
    #[default]
    Log,
    /// A person, asked by the command line or the console.
    Ask {
        /// How long to wait.
        timeout: Duration,
    },
    /// A program, with the question as JSON on its standard input and the answer on its output.
    Exec {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        args: Vec<String>,
        /// How long to wait.
        timeout: Duration,
    },
    /// A server, with the question as the body of an HTTP POST and the answer as that of its reply.
    Url {
        /// Where to post.
        url: String,
        /// How long to wait.
        timeout: Duration,
    },
}

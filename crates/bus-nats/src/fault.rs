//! What can go wrong with the server, and what that means to the caller.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use async_nats::jetstream::{self, ErrorCode};
use sealcast_bus::{BusError, MayPass};

use crate::message;

/// Why a request to the server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody answered, or whoever did is not ready; may be better in a moment.
    #[error("no answer")]
    NoAnswer(#[source] Box<dyn StdError + Send + Sync>),
    /// The server said no.
    #[error("the server refused")]
    Refused(#[source] jetstream::Error),
    #[error("JetStream is not switched on there: start the server with `-js`")]
    NoJetStream,
    #[error("cannot use the credentials file {}", path.display())]
    CredentialsFile {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("a stream of that name is there, and it is not that of a bus")]
    ForeignStream,
    #[error(
        "the cluster has not {replicas} servers for the stream now; \
         `replicas` of the bus in `servers.toml` says how many it is to be kept on"
    )]
    TooFewServers { replicas: usize },
    #[error("offset {expected} is gone, though it was not trimmed")]
    Missing { expected: u64 },
    #[error("the parts of a large append are gone or altered")]
    Parts,
    #[error("whether it was appended cannot be found out: the topic was trimmed meanwhile")]
    Unknowable,
    #[error("the server takes messages of at most {max_payload} bytes, which is too few for a bus")]
    SmallMessages { max_payload: usize },
    #[error("what lies there has format {0}")]
    TooNew(u8),
    #[error("{0}")]
    Odd(&'static str),
}

/// Where the server has no room: for the account, on its disk, or by a limit of the stream.
const FULL: [ErrorCode; 5] = [
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::STREAM_STORE_FAILED,
];
/// While a cluster has no leader, or a server is starting; and while it has not made up its mind about
/// a message on the same subject, which may be the same message.
const NOT_READY: [ErrorCode; 8] = [
    ErrorCode::CLUSTER_INCOMPLETE,
    ErrorCode::CLUSTER_NOT_AVAILABLE,
    ErrorCode::CLUSTER_NOT_LEADER,
    ErrorCode::RAFT_GENERAL,
    ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT,
    ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY,
    ErrorCode::STREAM_NOT_FOUND,
    ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
];
const WITHOUT_JETSTREAM: [ErrorCode; 2] = [
    ErrorCode::JETSTREAM_NOT_ENABLED,
    ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
];

impl MayPass for Fault {
    fn may_pass(&self) -> bool {
        // A server of a cluster that is starting says for a moment that it has no JetStream.
        matches!(self, Self::NoAnswer(_) | Self::NoJetStream)
    }
}

impl Fault {
    /// What an answer of the server means.
    pub(crate) fn said(error: jetstream::Error) -> Self {
        let code = error.error_code();
        if NOT_READY.contains(&code) {
            Self::NoAnswer(Box::new(error))
        } else if WITHOUT_JETSTREAM.contains(&code) {
            Self::NoJetStream
        } else {
            Self::Refused(error)
        }
    }

    pub(crate) fn no_answer(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::NoAnswer(Box::new(error))
    }

    /// Whether what was asked for may have been done.
    pub(crate) fn leaves_open(&self) -> bool {
        matches!(self, Self::NoAnswer(_))
    }

    pub(crate) fn at(self, place: &str) -> BusError {
        let place = place.to_owned();
        match self {
            Self::NoAnswer(cause) => BusError::Unreachable { place, cause },
            Self::NoJetStream
            | Self::CredentialsFile { .. }
            | Self::ForeignStream
            | Self::TooFewServers { .. }
            | Self::SmallMessages { .. } => BusError::Unreachable {
                place,
                cause: Box::new(self),
            },
            Self::Refused(error) if FULL.contains(&error.error_code()) => BusError::Full { place },
            Self::Refused(error) => BusError::Backend(Box::new(error)),
            Self::Missing { .. } | Self::Parts => BusError::Damaged {
                place,
                cause: Box::new(self),
            },
            Self::TooNew(found) => BusError::TooNew {
                place,
                found: u32::from(found),
                known: u32::from(message::VERSION),
            },
            Self::Unknowable | Self::Odd(_) => BusError::Backend(Box::new(self)),
        }
    }
}

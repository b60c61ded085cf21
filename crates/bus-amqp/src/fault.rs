//! What can go wrong with the server, and what that means to the caller.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use lapin::ErrorKind;
use sealcast_bus::{BusError, MayPass};

use crate::message;

/// Replies of the server (AMQP 0.9.1, section 1.2) that asking again does not change.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// Why a request to the server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody answered, or whoever did is not ready; may be better in a moment.
    #[error("no answer")]
    NoAnswer(#[source] Box<dyn StdError + Send + Sync>),
    /// The queue or exchange is not there.
    #[error("what lay there is gone")]
    Absent(#[source] lapin::Error),
    /// The server takes nothing while it lacks memory or room on its disk.
    #[error("the server takes nothing: it lacks memory or room on its disk")]
    Blocked,
    /// The server said no.
    #[error("the server refused")]
    Refused(#[source] lapin::Error),
    #[error("cannot use the certificates in {}", path.display())]
    Certificates {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("RabbitMQ knows users with passwords, and no other credentials")]
    Credentials,
    #[error("TLS is asked for, and the URL does not begin with `amqps`")]
    NoTls,
    #[error("a queue or exchange of that name is there, and it is not that of a bus")]
    Foreign(#[source] lapin::Error),
    #[error("offset {expected} is gone, though it was not trimmed")]
    Missing { expected: u64 },
    #[error("the parts of a large append are gone or altered")]
    Parts,
    #[error("what lies there has format {0}")]
    TooNew(u8),
    #[error("{0}")]
    Odd(&'static str),
}

/// What the library says when the server has closed a channel or connection, and why.
fn reply(error: &lapin::Error) -> Option<(u16, &str)> {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return None;
    };
    Some((said.get_id(), said.get_message().as_str()))
}

impl From<lapin::Error> for Fault {
    fn from(error: lapin::Error) -> Self {
        match reply(&error) {
            // Whatever else it does not find is not there at this moment.
            Some((NOT_FOUND, said)) if said.starts_with("NOT_FOUND - no ") => Self::Absent(error),
            // A stream that was created a moment ago, and is not everywhere yet.
            Some((PRECONDITION_FAILED, said)) if said.contains("does not have a replica") => {
                Self::NoAnswer(Box::new(error))
            }
            Some((PRECONDITION_FAILED, said)) if said.contains("inequivalent arg") => {
                Self::Foreign(error)
            }
            Some((ACCESS_REFUSED | PRECONDITION_FAILED | NOT_ALLOWED | NOT_IMPLEMENTED, _)) => {
                Self::Refused(error)
            }
            _ => Self::NoAnswer(Box::new(error)),
        }
    }
}

impl MayPass for Fault {
    fn may_pass(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Absent(_) | Self::Blocked)
    }
}

impl Fault {
    /// Nobody answered in the time there is.
    pub(crate) fn late(error: tokio::time::error::Elapsed) -> Self {
        Self::NoAnswer(Box::new(error))
    }

    pub(crate) fn no_answer(says: &'static str) -> Self {
        Self::NoAnswer(says.into())
    }

    pub(crate) fn at(self, place: &str) -> BusError {
        let place = place.to_owned();
        match self {
            Self::NoAnswer(cause) => BusError::Unreachable { place, cause },
            Self::Blocked => BusError::Full { place },
            Self::Refused(error) => match reply(&error) {
                Some((PRECONDITION_FAILED, said)) if said.contains("limit") => {
                    BusError::Full { place }
                }
                Some((ACCESS_REFUSED | NOT_ALLOWED, _)) => BusError::Unreachable {
                    place,
                    cause: Box::new(Self::Refused(error)),
                },
                _ => BusError::Backend(Box::new(error)),
            },
            Self::Absent(_)
            | Self::Certificates { .. }
            | Self::Credentials
            | Self::NoTls
            | Self::Foreign(_) => BusError::Unreachable {
                place,
                cause: Box::new(self),
            },
            Self::Missing { .. } | Self::Parts => BusError::Damaged {
                place,
                cause: Box::new(self),
            },
            Self::TooNew(found) => BusError::TooNew {
                place,
                found: found.into(),
                known: message::VERSION.into(),
            },
            Self::Odd(_) => BusError::Backend(Box::new(self)),
        }
    }
}

//! What can go wrong with the server, and what that means to the caller.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use sealcast_bus::{BusError, MayPass};

use crate::schema;

/// Why the server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody answered; may be better in a moment.
    #[error("no answer")]
    NoAnswer(#[source] Box<dyn StdError + Send + Sync>),
    /// The server said no.
    #[error("the server refused")]
    Refused(#[source] Said),
    /// What was sent may have been heard, so that it is not sent again.
    #[error("the connection broke while it was sent")]
    Interrupted,
    /// It is done, and what the answer was to wait for may not have come.
    #[error("the server warned that something did not go as it should")]
    Warned,
    #[error(
        "the server waits for standbys, none of which answers: connect one, or change its `synchronous_standby_names`"
    )]
    NoStandby,
    #[error("a schema of that name is there, and it is not that of a bus")]
    ForeignSchema,
    #[error("the schema is there, and this user may not use it")]
    Forbidden,
    #[error(
        "a pooler in between keeps no sessions: set its `pool_mode` to `session`, or name the server itself"
    )]
    Pooled,
    #[error("names of more than 63 characters are too long for a schema")]
    LongName,
    #[error("PostgreSQL takes a user and a password, and nothing else")]
    Credentials,
    #[error("no certificates to know the server by{}", path.as_ref().map_or(String::new(), |of| format!(": {}", of.display())))]
    NoAuthority {
        path: Option<PathBuf>,
        #[source]
        cause: Option<std::io::Error>,
    },
    #[error("offset {expected} is gone, though it was not trimmed")]
    Missing { expected: u64 },
    #[error("{0} is not as it was written")]
    Altered(&'static str),
    #[error("the schema has format {0}")]
    TooNew(u32),
    #[error("{0}")]
    Odd(&'static str),
}

/// What a server says when it refuses. What it adds about rows is left out: they hold payloads.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Said {
    code: String,
    message: String,
    constraint: Option<String>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, .. } = self;
        match message.is_empty() {
            true => write!(f, "SQLSTATE {code}"),
            false => write!(f, "{message} (SQLSTATE {code})"),
        }
    }
}

/// The server ends, starts, gives way to another one or has no connection left; or two were in each
/// other's way; or somebody kept a lock.
const MAY_PASS: [&str; 9] = [
    "57P01", "57P02", "57P03", "57P05", "53300", "25006", "40001", "40P01", "55P03",
];
/// The server ends or starts, ends a session that it found idle, or has no connection left.
const STARTING: [&str; 5] = ["57P01", "57P02", "57P03", "57P05", "53300"];
/// Class of errors that say that a connection broke, as those do who stand between.
const BROKEN: &str = "08";
/// What the server calls corrupted.
const CORRUPTED: [&str; 2] = ["XX001", "XX002"];
/// What is not there, or not for this user.
const NOT_THERE: [&str; 5] = ["42501", "42939", "42P01", "3D000", "3F000"];
/// Class of errors that functions of somebody else raise, with whatever text.
const RAISED: &str = "P0";

impl Said {
    fn is_of(&self, class: &str) -> bool {
        self.code.starts_with(class)
    }

    fn at(self, place: String) -> BusError {
        let cause = Box::new(self);
        let code = cause.code.as_str();
        match code {
            "53100" => BusError::Full { place },
            "55P03" | "57014" => BusError::Busy { place },
            _ if NOT_THERE.contains(&code) || MAY_PASS.contains(&code) => {
                BusError::Unreachable { place, cause }
            }
            _ if cause.is_of("28") || cause.is_of(BROKEN) => BusError::Unreachable { place, cause },
            "0A000" => BusError::Damaged { place, cause },
            _ if cause.is_of("42") || CORRUPTED.contains(&code) => {
                BusError::Damaged { place, cause }
            }
            _ => BusError::Backend(cause),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::NoAnswer(Box::new(error));
        };
        let code = said.code().code().to_owned();
        // Where a function says it, it may say what it likes, and call it what it likes.
        let message = match code.starts_with(RAISED) || said.where_().is_some() {
            true => String::new(),
            false => said.message().to_owned(),
        };
        Self::Refused(Said {
            code,
            message,
            constraint: said.constraint().map(str::to_owned),
        })
    }
}

impl MayPass for Fault {
    fn may_pass(&self) -> bool {
        self.is_unanswered() || self.is_said(&MAY_PASS)
    }
}

impl Fault {
    /// Whether a server is there that will let us in soon.
    pub(crate) fn is_starting(&self) -> bool {
        self.is_said(&STARTING)
    }

    /// Whether the statement may have been done nevertheless.
    pub(crate) fn leaves_open(&self) -> bool {
        self.is_unanswered() || self.is_said(&STARTING)
    }

    fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Warned | Self::NoStandby)
            || matches!(self, Self::Refused(said) if said.is_of(BROKEN))
    }

    pub(crate) fn is_said(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Refused(said) if codes.contains(&said.code.as_str()))
    }

    /// Whether the connection is as good as before.
    pub(crate) fn spares_session(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Interrupted)
    }

    /// Whether a constraint did not hold.
    pub(crate) fn is_against(&self, constraint: &str) -> bool {
        matches!(self, Self::Refused(said) if said.constraint.as_deref() == Some(constraint))
    }

    /// Whether something is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.is_said(&["23505", "42P06"])
    }

    /// Whether a table is not as this program knows it.
    pub(crate) fn is_of_another_shape(&self) -> bool {
        self.is_said(&["42703", "42804", "42809"])
    }

    pub(crate) fn at(self, place: &str) -> BusError {
        let place = place.to_owned();
        match self {
            Self::NoAnswer(cause) => BusError::Unreachable { place, cause },
            Self::Refused(said) => said.at(place),
            Self::Interrupted
            | Self::Warned
            | Self::NoStandby
            | Self::ForeignSchema
            | Self::Forbidden
            | Self::Pooled
            | Self::LongName
            | Self::Credentials
            | Self::NoAuthority { .. } => BusError::Unreachable {
                place,
                cause: Box::new(self),
            },
            Self::Missing { .. } | Self::Altered(_) => BusError::Damaged {
                place,
                cause: Box::new(self),
            },
            Self::TooNew(found) => BusError::TooNew {
                place,
                found,
                known: schema::FORMAT,
            },
            Self::Odd(_) => BusError::Backend(Box::new(self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Fault {
        Fault::Refused(Said {
            code: code.into(),
            message: "no".into(),
            constraint: None,
        })
    }

    fn said(code: &str) -> BusError {
        refused(code).at("there")
    }

    #[test]
    fn what_a_server_says_is_told_by_its_code() {
        for code in [
            "42501", "28P01", "28000", "3D000", "42P01", "57P03", "57P05", "53300", "08P01",
            "08006",
        ] {
            let is_told = matches!(said(code), BusError::Unreachable { .. });
            assert!(is_told, "{code}");
        }
        for code in ["42703", "42804", "0A000", "XX001", "XX002"] {
            assert!(matches!(said(code), BusError::Damaged { .. }), "{code}");
        }
        for code in ["55P03", "57014"] {
            assert!(matches!(said(code), BusError::Busy { .. }), "{code}");
        }
        for code in ["53200", "22003", "23514", "P0001", "XX000", "99999"] {
            assert!(matches!(said(code), BusError::Backend(_)), "{code}");
        }
        assert!(matches!(said("53100"), BusError::Full { .. }));
    }

    #[test]
    fn what_a_session_that_was_ended_did_is_open_and_is_tried_again() {
        for code in ["57P01", "57P05", "08P01", "08006"] {
            let fault = refused(code);
            assert!(fault.may_pass() && fault.leaves_open(), "{code}");
        }
        for code in ["40001", "25006"] {
            let fault = refused(code);
            assert!(fault.may_pass() && !fault.leaves_open(), "{code}");
        }
        let fault = refused("53100");
        assert!(!fault.may_pass() && !fault.leaves_open());
    }

    #[test]
    fn an_error_tells_what_was_said() {
        let cause = StdError::source(&said("42501")).unwrap().to_string();
        assert_eq!(cause, "no (SQLSTATE 42501)");
    }
}

//! What can go wrong with the broker, and what that means to the caller.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use sealcast_bus::BusError;

use crate::packet::Garbled;

/// Why the broker did not do what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// Nobody answered; may be better in a moment.
    #[error("no answer")]
    NoAnswer(#[source] Arc<dyn StdError + Send + Sync>),
    #[error("no answer in time")]
    Late,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker closed the connection: {}", said(*.0))]
    Goodbye(u8),
    #[error("the broker does not let us in: {}", said(*.0))]
    Turned(u8),
    /// It said no to one request.
    #[error("the broker refused: {}", said(*.0))]
    Refused(u8),
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("the broker {0}, which a bus cannot do without")]
    Lacks(&'static str),
    #[error("MQTT knows users with passwords, and nothing else of that kind")]
    Credentials,
    #[error("cannot use the certificates in {}", path.display())]
    Certificates {
        path: PathBuf,
        #[source]
        cause: Arc<dyn StdError + Send + Sync>,
    },
    #[error("the name of the server is none that a certificate can vouch for")]
    ServerName,
}

/// The codes of refusals that are told apart; those below 0x80 are of MQTT 3.1.1.
fn said(code: u8) -> String {
    let words = match code {
        0x02 | 0x85 => "it does not like the client id",
        0x03 | 0x88 | 0x89 => "it is not available",
        0x04 | 0x86 => "user or password are wrong",
        0x05 | NOT_AUTHORISED => "this user may not",
        0x8b => "it is shutting down",
        0x8e => "another client has the same id",
        0x95 => "the message is too large",
        QUOTA => "a quota is used up",
        _ => return format!("code {code}"),
    };
    words.to_owned()
}

const QUOTA: u8 = 0x97;
const NOT_AUTHORISED: u8 = 0x87;

impl Fault {
    /// The broker refused what this user has no right to.
    pub(crate) const MAY_NOT: Self = Self::Refused(NOT_AUTHORISED);

    pub(crate) fn no_answer(error: impl StdError + Send + Sync + 'static) -> Self {
        Self::NoAnswer(Arc::new(error))
    }

    pub(crate) fn at(self, place: &str) -> BusError {
        let place = place.to_owned();
        match self {
            Self::Refused(QUOTA) => BusError::Full { place },
            // Who may not use a bus cannot reach it.
            Self::Refused(code) if code != NOT_AUTHORISED => BusError::Backend(Box::new(self)),
            Self::NoAnswer(_)
            | Self::Late
            | Self::Closed
            | Self::Goodbye(_)
            | Self::Turned(_)
            | Self::Refused(_)
            | Self::Garbled(_)
            | Self::Lacks(_)
            | Self::Credentials
            | Self::Certificates { .. }
            | Self::ServerName => BusError::Unreachable {
                place,
                cause: Box::new(self),
            },
        }
    }
}

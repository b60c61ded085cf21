//! Asking for keys, `spec/asking.md`: a reader that lacks one asks, someone entitled answers.
//!
//! ```text
//!   Asker                  s/<stream>/ask                 Responder
//!     │ solicitation ──────────────────────────────────►    │ its turn comes
//!     │                                             claim ◄─│ Decide(question) ⇄ Decided
//!     │ take_answer ◄── bundle in d/<device>/inbox ◄────────│ Give
//!     │   a message opens, or a root fits                   │
//!     │ receipt ───────────────────────────────────────►    │ nobody else gives
//! ```
//!
//! Nobody who asks hears the others: what an asker must know lies in its inbox, refusals too.
//!
//! Both machines are driven alike: hand in what happened, drain `poll_output`, come back with
//! `Tick` when `next_timeout` says so. They hold neither clock nor randomness nor signing keys: what
//! is to be sent comes out as an [`AskBody`], which the driver signs and appends. Outputs are done in
//! their order; what is handed in meanwhile may add to them.
//!
//! A device that asks follows its inbox from before a request leaves until none is open. It may trim
//! an item of that once no process of its home waits for it: after
//! [`REQUEST_LIFETIME_MS_MAX`](sealcast_protocol::REQUEST_LIFETIME_MS_MAX) in any case. A device that
//! answers follows `s/<stream>/ask` all the time. Several processes of a home may each run machines:
//! each takes only what answers its own requests, and waits for what another claims.

use alloc::boxed::Box;
use alloc::vec::Vec;

use sealcast_crypto::SigningKey;
use sealcast_protocol::{
    Claim, DecodeError, DeviceId, Position, Receipt, Refusal, Signable, Solicitation, Verified,
    sign,
};

mod asker;
pub(crate) mod intake;
pub(crate) mod pace;
mod responder;
pub(crate) mod steady;
mod turn;

pub use asker::{Asker, AskerEvent, AskerInput, AskerLimits, AskerOutput, End, OneUse, Outcome};
pub use pace::Pace;
pub use responder::{
    Decision, Question, Responder, ResponderInput, ResponderLimits, ResponderOutput,
};

/// How long a claim holds others back, and how long an answer waits for its receipt, in
/// milliseconds.
pub const LEASE_MS: u64 = 5_000;

/// What goes to the `ask` topic, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskBody {
    /// Asks.
    Solicitation(Box<Solicitation>),
    /// Is about to answer.
    Claim(Claim),
    /// Refuses.
    Refusal(Refusal),
    /// Is done.
    Receipt(Receipt),
}

impl AskBody {
    /// The device in whose inbox it is put, too: a refusal where the asker finds it, a receipt where
    /// responders do that missed it on the topic.
    pub fn inbox(&self) -> Option<DeviceId> {
        match self {
            Self::Solicitation(_) | Self::Claim(_) => None,
            Self::Refusal(body) => Some(body.asker),
            Self::Receipt(body) => Some(body.device),
        }
    }

    /// Signs it with the key of this device. Returns what is to be appended.
    ///
    /// # Errors
    ///
    /// Fails when it is none that others would take.
    pub fn sign(self, key: &SigningKey) -> Result<Vec<u8>, DecodeError> {
        fn wire<T: Signable>(signed: &Verified<T>) -> Vec<u8> {
            signed.wire().to_vec()
        }
        match self {
            Self::Solicitation(body) => sign(key, *body).map(|of| wire(&of)),
            Self::Claim(body) => sign(key, body).map(|of| wire(&of)),
            Self::Refusal(body) => sign(key, body).map(|of| wire(&of)),
            Self::Receipt(body) => sign(key, body).map(|of| wire(&of)),
        }
    }
}

/// The earlier of two times, of which either may be none.
pub(crate) fn earlier(a: Option<Position>, b: Option<Position>) -> Option<Position> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

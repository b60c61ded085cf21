//! Asking for keys: solicitation, claim, refusal and receipt, `spec/asking.md`. What fulfils a
//! request is a [`Bundle`](crate::Bundle).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{WRAP_KEY_LEN, WrapKey, WrapKeyError};

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, Interval, LogHash, Position, RequestId, SessionId, StreamId, UserId};
use crate::signed::{Signable, Unverified};
use crate::v1::device_list::ListPin;
use crate::v1::session::heads_in_range;

/// Most wants of one request.
pub const WANTS_MAX: usize = 128;
/// Longest life of a request, in milliseconds: five minutes.
pub const REQUEST_LIFETIME_MS_MAX: u64 = 5 * 60 * 1000;

/// Asks for keys, signed by the device that they are for.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Solicitation {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// Who asks.
    #[n(2)]
    pub user: UserId,
    /// The device that asks, whose key signs.
    #[n(3)]
    pub device: DeviceId,
    /// The newest entry of its user's device list that the device knows.
    #[n(4)]
    pub list: ListPin,
    /// Drawn at random; not zero.
    #[n(5)]
    pub request: RequestId,
    /// X-Wing key that serves this request alone; 1,216 bytes.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// What is asked for, strictly ascending. Claims, refusals and receipts name a want by its place.
    #[n(7)]
    pub wants: Vec<Want>,
    /// The newest access-log entries that the device had seen, strictly ascending.
    #[n(8)]
    pub heads: Vec<LogHash>,
    /// The device's clock.
    #[n(9)]
    pub time: Position,
    /// When the device stops waiting, by its own clock.
    #[n(10)]
    pub expires: Position,
}

/// An interval that is asked for, of one session or of every session of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Want {
    /// The lane.
    #[n(0)]
    pub lane: UserId,
    /// The session; [`Want::EVERY_SESSION`] for all of the lane.
    #[n(1)]
    pub session: SessionId,
    /// The positions.
    #[n(2)]
    pub interval: Interval,
}

impl Want {
    /// Stands for every session of a lane.
    pub const EVERY_SESSION: SessionId = SessionId([0; 16]);

    /// Whether a session of the lane is asked for.
    pub fn names(&self, session: &SessionId) -> bool {
        self.session == Self::EVERY_SESSION || self.session == *session
    }
}

/// Says that a device is about to answer, so that not everyone does. It holds for five seconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Claim {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// The device that asked.
    #[n(2)]
    pub asker: DeviceId,
    /// Its request.
    #[n(3)]
    pub request: RequestId,
    /// Who answers.
    #[n(4)]
    pub user: UserId,
    /// The device that answers, whose key signs.
    #[n(5)]
    pub device: DeviceId,
    /// Which wants it answers: their places, strictly ascending.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub wants: Vec<u8>,
}

/// Says that a keyholder gives nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Refusal {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// The device that asked.
    #[n(2)]
    pub asker: DeviceId,
    /// Its request.
    #[n(3)]
    pub request: RequestId,
    /// Who refuses.
    #[n(4)]
    pub user: UserId,
    /// The device that refuses, whose key signs.
    #[n(5)]
    pub device: DeviceId,
    /// Which wants it refuses: their places, strictly ascending.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub wants: Vec<u8>,
    /// Why.
    #[n(7)]
    pub reason: RefusalReason,
}

/// Why a keyholder gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(index_only)]
pub enum RefusalReason {
    /// The access log does not entitle the device to it.
    #[n(0)]
    NotEntitled,
    /// The lane has no such session.
    #[n(1)]
    UnknownSession,
    /// Somebody was asked to decide; a yes shows as a grant in the access log.
    #[n(2)]
    PendingApproval,
}

/// Says that keys have worked: nobody else need give them. Signed by the device that asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Receipt {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// Who asked.
    #[n(2)]
    pub user: UserId,
    /// The device that asked, whose key signs.
    #[n(3)]
    pub device: DeviceId,
    /// Its request.
    #[n(4)]
    pub request: RequestId,
    /// Which wants are met: their places, strictly ascending.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub wants: Vec<u8>,
}

impl Solicitation {
    /// The key to wrap the answer to.
    ///
    /// # Errors
    ///
    /// Fails when it is no valid wrapping key; nothing can be given then.
    pub fn wrap_key(&self) -> Result<WrapKey, WrapKeyError> {
        WrapKey::from_bytes(&self.key)
    }
}

impl fmt::Debug for Solicitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Solicitation")
            .field("stream", &self.stream)
            .field("device", &self.device)
            .field("request", &self.request)
            .field("wants", &self.wants)
            .finish_non_exhaustive()
    }
}

impl Signable for Solicitation {
    const LABEL: &'static str = "sealcast.v1 solicitation";
    const LEN_MAX: usize = 48 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        check_version(self.version)?;
        let lives = self.time < self.expires
            && self.expires < Position::END
            && self.expires.0 - self.time.0 <= REQUEST_LIFETIME_MS_MAX;
        let wants = (1..=WANTS_MAX).contains(&self.wants.len())
            && self.wants.is_sorted_by(|a, b| a < b)
            && self.wants.iter().all(|want| want.interval.is_valid());
        in_range(
            lives
                && wants
                && self.request != RequestId::NONE
                && self.key.len() == WRAP_KEY_LEN
                && heads_in_range(&self.heads),
        )
    }
}

/// Longest body of what answers a solicitation or ends it.
const REPLY_LEN_MAX: usize = 512;

impl Signable for Claim {
    const LABEL: &'static str = "sealcast.v1 claim";
    const LEN_MAX: usize = REPLY_LEN_MAX;

    fn check(&self) -> Result<(), DecodeError> {
        check_reply(self.version, &self.request, &self.wants)
    }
}

impl Signable for Refusal {
    const LABEL: &'static str = "sealcast.v1 refusal";
    const LEN_MAX: usize = REPLY_LEN_MAX;

    fn check(&self) -> Result<(), DecodeError> {
        check_reply(self.version, &self.request, &self.wants)
    }
}

impl Signable for Receipt {
    const LABEL: &'static str = "sealcast.v1 receipt";
    const LEN_MAX: usize = REPLY_LEN_MAX;

    fn check(&self) -> Result<(), DecodeError> {
        check_reply(self.version, &self.request, &self.wants)
    }
}

pub(super) fn check_version(found: u8) -> Result<(), DecodeError> {
    match found {
        1 => Ok(()),
        found => Err(DecodeError::UnknownVersion { found }),
    }
}

fn check_reply(version: u8, request: &RequestId, wants: &[u8]) -> Result<(), DecodeError> {
    check_version(version)?;
    let named = !wants.is_empty()
        && wants.is_sorted_by(|a, b| a < b)
        && wants.iter().all(|at| usize::from(*at) < WANTS_MAX);
    in_range(named && *request != RequestId::NONE)
}

pub(super) fn in_range(is_in_range: bool) -> Result<(), DecodeError> {
    match is_in_range {
        true => Ok(()),
        false => Err(DecodeError::OutOfRange),
    }
}

/// An item of a stream's `ask` topic, decoded. Nobody has checked its signature yet.
#[derive(Debug)]
pub enum AskItem {
    /// Asks.
    Solicitation(Box<Unverified<Solicitation>>),
    /// Is about to answer.
    Claim(Unverified<Claim>),
    /// Refuses.
    Refusal(Unverified<Refusal>),
    /// Is done.
    Receipt(Unverified<Receipt>),
}

impl AskItem {
    /// Decodes the wire form of whichever kind it is; no two kinds have bodies of one shape.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are none of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if let Ok(claim) = Unverified::decode(bytes) {
            return Ok(Self::Claim(claim));
        }
        if let Ok(receipt) = Unverified::decode(bytes) {
            return Ok(Self::Receipt(receipt));
        }
        if let Ok(refusal) = Unverified::decode(bytes) {
            return Ok(Self::Refusal(refusal));
        }
        Unverified::decode(bytes).map(|asked| Self::Solicitation(Box::new(asked)))
    }

    /// The stream that it says it is about.
    pub fn stream(&self) -> StreamId {
        match self {
            Self::Solicitation(of) => of.claims().stream,
            Self::Claim(of) => of.claims().stream,
            Self::Refusal(of) => of.claims().stream,
            Self::Receipt(of) => of.claims().stream,
        }
    }
}

//! Session records: the root of a session, named and given to keyholders, `spec/sessions.md`.

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    SessionRoot, UnwrapKey, WRAP_OVERHEAD, WrapError, WrapKey, delimited, digest,
};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DeviceId, Interval, LogHash, Position, SessionId, StreamId, UserId};
use crate::signed::Signable;
use crate::v1::device::wrap_key_hash;
use crate::v1::envelope::first_half;

/// Most log heads that a record or a bundle names; as many as a log entry may.
const HEADS_MAX: usize = 1024;
/// Most keyholder devices that one record wraps the root for.
pub const WRAPS_MAX: usize = 256;

const ROOT_LEN: usize = 32;
const SESSION_LABEL: &str = "sealcast.v1 session id";
const WRAP_LABEL: &str = "sealcast.v1 root wrap";

impl SessionId {
    /// The id of the session of `lane` whose root has this commitment.
    pub fn derive(stream: &StreamId, lane: &UserId, commitment: &[u8; 32]) -> Self {
        Self(first_half(&digest(
            SESSION_LABEL,
            &[&stream.0, &lane.0, commitment],
        )))
    }
}

/// Announces a session, signed by the device that drew its root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SessionRecord {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// The stream.
    #[n(1)]
    pub stream: StreamId,
    /// The user whose lane it is; the signing device is one of this user's.
    #[n(2)]
    pub lane: UserId,
    /// The device that drew the root, and the only one that seals with it.
    #[n(3)]
    pub device: DeviceId,
    /// The session; follows from stream, lane and commitment.
    #[n(4)]
    pub session: SessionId,
    /// Fits the session's root alone.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// When the session was started, by the publisher's clock.
    #[n(6)]
    pub start: Position,
    /// What is sealed with it.
    #[n(7)]
    pub kind: SessionKind,
    /// The newest access-log entries that the device had seen, strictly ascending.
    #[n(8)]
    pub heads: Vec<LogHash>,
    /// The root itself where the stream is public; otherwise empty.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub open_root: Vec<u8>,
    /// The root for each keyholder device, strictly ascending by user and device.
    #[n(10)]
    pub wraps: Vec<RootWrap>,
}

/// What is sealed with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum SessionKind {
    /// Messages as they are made.
    #[n(0)]
    Live,
    /// Older data, at the past times that the publisher states.
    #[n(1)]
    Backfill {
        /// Where its messages may lie.
        #[n(0)]
        interval: Interval,
    },
}

/// A session's root, wrapped for one keyholder device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct RootWrap {
    /// Whose device.
    #[n(0)]
    pub user: UserId,
    /// Which one.
    #[n(1)]
    pub device: DeviceId,
    /// The root, wrapped to the device's long-lived key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub wrapped: Vec<u8>,
}

impl fmt::Debug for RootWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootWrap({} of {})", self.device, self.user)
    }
}

impl Signable for SessionRecord {
    const LABEL: &'static str = "sealcast.v1 session record";
    const LEN_MAX: usize = 384 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        let names = self.session == SessionId::derive(&self.stream, &self.lane, &self.commitment);
        let times = self.start < Position::END
            && match &self.kind {
                SessionKind::Live => true,
                SessionKind::Backfill { interval } => interval.is_valid(),
            };
        let open = self.open_root.is_empty() || self.public_root().is_some();
        let wraps = self.wraps.len() <= WRAPS_MAX
            && self.wraps.is_sorted_by(|a, b| a.holder() < b.holder())
            && self
                .wraps
                .iter()
                .all(|wrap| wrap.wrapped.len() == ROOT_LEN + WRAP_OVERHEAD);
        match names && times && open && wraps && heads_in_range(&self.heads) {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

impl RootWrap {
    fn holder(&self) -> (&UserId, &DeviceId) {
        (&self.user, &self.device)
    }
}

impl SessionRecord {
    /// The root of a public stream's session; `None` where the stream is not public.
    pub fn public_root(&self) -> Option<SessionRoot> {
        let bytes: &[u8; ROOT_LEN] = self.open_root.as_slice().try_into().ok()?;
        let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
        (root.commitment() == self.commitment).then_some(root)
    }

    /// The wrap for one device; `None` where there is none.
    pub fn wrap_for(&self, user: &UserId, device: &DeviceId) -> Option<&RootWrap> {
        self.wraps
            .iter()
            .find(|wrap| wrap.holder() == (user, device))
    }

    /// What a wrap in this record is bound to besides the receiver's key.
    pub fn wrap_context(&self, user: &UserId, device: &DeviceId) -> RootWrapContext {
        RootWrapContext {
            stream: self.stream,
            lane: self.lane,
            session: self.session,
            commitment: self.commitment,
            giver: self.device,
            user: *user,
            device: *device,
        }
    }

    /// Takes the root out of the wrap for one device.
    ///
    /// # Errors
    ///
    /// Fails when there is no wrap for the device, or it does not hold this session's root.
    pub fn unwrap_root(
        &self,
        user: &UserId,
        device: &DeviceId,
        key: &UnwrapKey,
    ) -> Result<SessionRoot, UnwrapRootError> {
        let wrap = self.wrap_for(user, device).ok_or(UnwrapRootError::NoWrap)?;
        unwrap_root(&wrap.wrapped, &self.wrap_context(user, device), key)
    }
}

/// Whether a list of log heads is as it must be: short, and strictly ascending.
pub(super) fn heads_in_range(heads: &[LogHash]) -> bool {
    heads.len() <= HEADS_MAX && heads.is_sorted_by(|a, b| a < b)
}

/// What a wrapped root is bound to, besides the hash of the receiver's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, CborLen)]
#[cbor(array)]
pub struct RootWrapContext {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// The lane.
    #[n(1)]
    pub lane: UserId,
    /// The session.
    #[n(2)]
    pub session: SessionId,
    /// Fits the session's root alone.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; 32],
    /// The device that wraps.
    #[n(4)]
    pub giver: DeviceId,
    /// Whose device the root is for.
    #[n(5)]
    pub user: UserId,
    /// Which one.
    #[n(6)]
    pub device: DeviceId,
}

impl RootWrapContext {
    fn info(&self, to: &WrapKey) -> Vec<u8> {
        delimited(WRAP_LABEL, &[&encode(self), &wrap_key_hash(to)])
    }
}

/// Wraps a session's root for a keyholder device.
///
/// # Errors
///
/// Fails when the root cannot be wrapped, which no valid key causes.
pub fn wrap_root(
    rng: &mut (impl CryptoRng + ?Sized),
    root: &SessionRoot,
    context: &RootWrapContext,
    to: &WrapKey,
) -> Result<RootWrap, WrapError> {
    let wrapped = to.wrap(rng, &context.info(to), root.expose())?;
    Ok(RootWrap {
        user: context.user,
        device: context.device,
        wrapped,
    })
}

/// Takes a root out of its wrap, and checks that it is the session's.
///
/// # Errors
///
/// Fails when the bytes were not wrapped for this key in this context, or hold another root.
pub fn unwrap_root(
    wrapped: &[u8],
    context: &RootWrapContext,
    key: &UnwrapKey,
) -> Result<SessionRoot, UnwrapRootError> {
    let secret = key
        .unwrap(&context.info(&key.wrap_key()), wrapped)
        .map_err(|_| UnwrapRootError::NotAuthentic)?;
    let bytes: &[u8; ROOT_LEN] = secret
        .expose()
        .try_into()
        .map_err(|_| UnwrapRootError::OtherRoot)?;
    let root = SessionRoot::init_with(|root| root.copy_from_slice(bytes));
    match root.commitment() == context.commitment {
        true => Ok(root),
        false => Err(UnwrapRootError::OtherRoot),
    }
}

/// Why a wrap did not give a session's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnwrapRootError {
    /// The record wraps the root for other devices only: ask a keyholder.
    #[error("the record has no wrap for this device")]
    NoWrap,
    /// The wrap was altered, or made for another key or context.
    #[error("the root was not wrapped for this key in this context")]
    NotAuthentic,
    /// The wrap holds something that does not fit the record's commitment: its giver lies.
    #[error("the wrapped root does not fit the session's commitment")]
    OtherRoot,
}

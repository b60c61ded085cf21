//! Bundles: covers of sessions, sealed for one device, `spec/bundles.md`.

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    Cover, SecretBytes, UnwrapKey, WRAP_OVERHEAD, WrapKey, cover as cover_nodes, delimited,
};

use crate::encoding::{DecodeError, encode};
use crate::ids::{DeviceId, Interval, LogHash, Position, SessionId, StreamId, UserId};
use crate::signed::Signable;
use crate::v1::device::wrap_key_hash;
use crate::v1::session::heads_in_range;

/// Most covers in one bundle.
pub const COVERS_MAX: usize = 64;

const KEY_LEN: usize = 32;
const PADDED_TO: usize = 256;
const WRAP_LABEL: &str = "sealcast.v1 bundle";

/// Covers sealed for one device, signed by the device that gives them.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Bundle {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// All that the sealed keys are bound to.
    #[n(1)]
    pub context: BundleContext,
    /// The keys of the covers, wrapped.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub wrapped: Vec<u8>,
}

/// What a bundle is about: who gives which covers to whom.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct BundleContext {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// The user whose lane the sessions belong to.
    #[n(1)]
    pub lane: UserId,
    /// Who gives.
    #[n(2)]
    pub giver_user: UserId,
    /// The giving device, whose key signs.
    #[n(3)]
    pub giver_device: DeviceId,
    /// Who receives.
    #[n(4)]
    pub user: UserId,
    /// The receiving device.
    #[n(5)]
    pub device: DeviceId,
    /// Which of the device's keys it is wrapped to.
    #[n(6)]
    pub key: KeyUse,
    /// The hash of that key.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub wrap_key_hash: [u8; 32],
    /// The newest access-log entries that the giver had seen, strictly ascending.
    #[n(8)]
    pub heads: Vec<LogHash>,
    /// The request that the bundle answers; all zero when it answers none.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub request: [u8; 16],
    /// The covers inside, strictly ascending.
    #[n(10)]
    pub covers: Vec<CoverSpec>,
}

/// Which of a device's keys something is wrapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum KeyUse {
    /// The key of the device's card.
    #[n(0)]
    LongLived,
    /// The fallback key of one period.
    #[n(1)]
    Fallback {
        /// Weeks since the Unix epoch.
        #[n(0)]
        period: u32,
    },
    /// The key of the request that is answered.
    #[n(2)]
    OneUse,
}

/// Names a cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CoverSpec {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The positions that the cover opens.
    #[n(1)]
    pub interval: Interval,
}

impl BundleContext {
    fn check(&self) -> Result<(), DecodeError> {
        let answers = self.request != [0; 16];
        let covers = (1..=COVERS_MAX).contains(&self.covers.len())
            && self.covers.is_sorted_by(|a, b| a < b)
            && self.covers.iter().all(|spec| spec.interval.is_valid());
        let key = answers || self.key != KeyUse::OneUse;
        match covers && key && heads_in_range(&self.heads) {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }

    fn info(&self) -> Vec<u8> {
        delimited(WRAP_LABEL, &[&encode(self)])
    }

    /// Bytes of the covers' keys, without padding; the context must have been checked.
    fn keys_len(&self) -> usize {
        self.covers.iter().map(CoverSpec::keys_len).sum()
    }
}

impl CoverSpec {
    fn keys_len(&self) -> usize {
        cover_nodes(self.interval.from.0, self.interval.until.0).len() * KEY_LEN
    }
}

impl Signable for Bundle {
    const LABEL: &'static str = "sealcast.v1 bundle";
    const LEN_MAX: usize = 256 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        self.context.check()?;
        let padded = self.context.keys_len().next_multiple_of(PADDED_TO);
        match self.wrapped.len() == padded + WRAP_OVERHEAD {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundle").field(&self.context).finish()
    }
}

/// Seals covers for one device; the giver must sign the bundle yet. `covers` are in the order of
/// `context.covers`.
///
/// # Errors
///
/// Fails when the context is none that a receiver would take, or covers or key are not those that
/// it names.
pub fn seal_bundle(
    rng: &mut (impl CryptoRng + ?Sized),
    context: BundleContext,
    covers: &[&Cover],
    to: &WrapKey,
) -> Result<Bundle, SealBundleError> {
    context.check().map_err(SealBundleError::Context)?;
    let named = context.covers.iter().map(|spec| spec.interval);
    let given = covers.iter().map(|cover| Interval {
        from: Position(cover.from()),
        until: Position(cover.until()),
    });
    if !named.eq(given) || context.wrap_key_hash != wrap_key_hash(to) {
        return Err(SealBundleError::Mismatch);
    }
    let len = context.keys_len().next_multiple_of(PADDED_TO);
    let mut keys = SecretBytes::with_capacity(len);
    for cover in covers {
        keys.extend_from_slice(cover.key_bytes().expose());
    }
    let padding = [0; PADDED_TO];
    keys.extend_from_slice(padding.get(..len - keys.len()).unwrap_or_default());
    let wrapped = to
        .wrap(rng, &context.info(), keys.expose())
        .map_err(|_| SealBundleError::Mismatch)?;
    Ok(Bundle {
        version: 1,
        context,
        wrapped,
    })
}

/// Opens a bundle. That its giver may give, and that the keys are the sessions', is for the
/// receiver to find out.
///
/// # Errors
///
/// Fails when the bundle was not sealed for this key, or holds other than its covers' keys.
pub fn open_bundle(
    bundle: &Bundle,
    key: &UnwrapKey,
) -> Result<Vec<(SessionId, Cover)>, OpenBundleError> {
    bundle.check().map_err(OpenBundleError::Malformed)?;
    let context = &bundle.context;
    if context.wrap_key_hash != wrap_key_hash(&key.wrap_key()) {
        return Err(OpenBundleError::OtherKey);
    }
    let keys = key
        .unwrap(&context.info(), &bundle.wrapped)
        .map_err(|_| OpenBundleError::NotAuthentic)?;
    let mut rest = keys.expose();
    let mut covers = Vec::with_capacity(context.covers.len());
    for spec in &context.covers {
        let (own, behind) = rest
            .split_at_checked(spec.keys_len())
            .ok_or(OpenBundleError::NotAuthentic)?;
        let cover = Cover::from_key_bytes(spec.interval.from.0, spec.interval.until.0, own)
            .map_err(|_| OpenBundleError::NotAuthentic)?;
        covers.push((spec.session, cover));
        rest = behind;
    }
    match rest.iter().all(|&byte| byte == 0) {
        true => Ok(covers),
        false => Err(OpenBundleError::Padding),
    }
}

/// Why covers were not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealBundleError {
    /// A receiver would refuse the context.
    #[error("the bundle's context is not one that a receiver takes")]
    Context(#[source] DecodeError),
    /// Covers or key are not those that the context names.
    #[error("covers or key are not those that the bundle's context names")]
    Mismatch,
}

/// Why a bundle was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenBundleError {
    /// The bundle says something that no bundle may say.
    #[error("the bundle is malformed")]
    Malformed(#[source] DecodeError),
    /// The bundle is for another key: perhaps for one that this device has dropped since.
    #[error("the bundle is sealed for another key")]
    OtherKey,
    /// The bundle was altered, or its context is not the one that it was sealed with.
    #[error("the bundle was not sealed for this key in this context")]
    NotAuthentic,
    /// There is something behind the keys.
    #[error("the bundle's padding is not empty")]
    Padding,
}

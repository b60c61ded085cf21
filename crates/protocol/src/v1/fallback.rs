//! Fallback keys: wrapping keys that a device replaces weekly by itself, `spec/devices.md`.

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{SigningKey, VerifyingKey, WRAP_KEY_LEN, WrapKey};

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, Position, UserId};
use crate::signed::{Signable, Unverified, Verified, sign};

/// Length of the period in which one fallback key serves, in milliseconds: a week.
pub const FALLBACK_PERIOD_MS: u64 = 7 * 24 * 3600 * 1000;
/// Periods whose fallback keys a device keeps and givers wrap to: the current one, and the one
/// before it.
pub const FALLBACK_PERIODS: u32 = 2;

/// The wrapping key of a device for one week, signed by the device.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct FallbackKey {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Whose device it is.
    #[n(1)]
    pub user: UserId,
    /// The device that signs.
    #[n(2)]
    pub device: DeviceId,
    /// Weeks since the Unix epoch.
    #[n(3)]
    pub period: u32,
    /// X-Wing key; 1,216 bytes.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub wrap_key: Vec<u8>,
}

impl FallbackKey {
    /// The period that `now` falls into.
    pub fn period_at(now: Position) -> u32 {
        u32::try_from(now.0 / FALLBACK_PERIOD_MS).unwrap_or(u32::MAX)
    }

    /// Whether the key of a period is used at `now`. A key of a period to come is not: whoever keeps
    /// the key longer than two weeks could name it so.
    pub fn is_current(period: u32, now: Position) -> bool {
        let age = Self::period_at(now).checked_sub(period);
        age.is_some_and(|age| age < FALLBACK_PERIODS)
    }

    /// Names the fallback key of one period.
    ///
    /// # Errors
    ///
    /// Never fails for a key that is one.
    pub fn sign(
        user: &UserId,
        signing: &SigningKey,
        wrap_key: &WrapKey,
        period: u32,
    ) -> Result<Verified<Self>, DecodeError> {
        let body = Self {
            version: 1,
            user: *user,
            device: DeviceId::derive(user, signing.verifying_key().as_bytes()),
            period,
            wrap_key: wrap_key.as_bytes().to_vec(),
        };
        sign(signing, body)
    }

    /// Reads the fallback key of a device; `None` where the bytes are not one that the device with
    /// `sign_key` named.
    pub fn read(user: &UserId, sign_key: &VerifyingKey, bytes: &[u8]) -> Option<(u32, WrapKey)> {
        let fallback = Unverified::<Self>::decode(bytes).ok()?;
        let device = DeviceId::derive(user, sign_key.as_bytes());
        if (fallback.claims().user, fallback.claims().device) != (*user, device) {
            return None;
        }
        let fallback = fallback.verify(sign_key).ok()?;
        let wrap_key = WrapKey::from_bytes(&fallback.body().wrap_key).ok()?;
        Some((fallback.body().period, wrap_key))
    }

    /// The newest fallback key of a device among items of its topic, in their order, that is not of a
    /// period to come; of two for one period, the later.
    pub fn newest<'a>(
        user: &UserId,
        sign_key: &VerifyingKey,
        items: impl IntoIterator<Item = &'a [u8]>,
        now: Position,
    ) -> Option<(u32, WrapKey)> {
        let keys = items.into_iter();
        let keys = keys.filter_map(|item| Self::read(user, sign_key, item));
        let begun = keys.filter(|(period, _)| *period <= Self::period_at(now));
        begun.max_by_key(|(period, _)| *period)
    }
}

impl Signable for FallbackKey {
    const LABEL: &'static str = "sealcast.v1 fallback key";
    const LEN_MAX: usize = 1536;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        match self.wrap_key.len() == WRAP_KEY_LEN {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

impl fmt::Debug for FallbackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallbackKey({}, period {})", self.device, self.period)
    }
}

//! Device lists: which devices a user has, in the words of the user's root key, `spec/devices.md`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::{Digest, Signature, SigningKey, VerifyingKey, WRAP_KEY_LEN, WrapKey, digest};

use crate::encoding::DecodeError;
use crate::ids::{DeviceId, LogHash, Position, UserId};
use crate::signed::{Signable, Unverified};
use crate::v1::envelope::first_half;

/// Length of the period in which one fallback key serves, in milliseconds: a week.
pub const FALLBACK_PERIOD_MS: u64 = 7 * 24 * 3600 * 1000;
/// How long a card is usually valid, in milliseconds: a year.
pub const CARD_LIFETIME_MS: u64 = 365 * 24 * 3600 * 1000;

const DEVICE_LABEL: &str = "sealcast.v1 device id";
const POSSESSION_LABEL: &str = "sealcast.v1 card possession";
const FALLBACK_LABEL: &str = "sealcast.v1 fallback key";
const WRAP_KEY_LABEL: &str = "sealcast.v1 wrap key hash";

impl DeviceId {
    /// The id of the device that signs with `sign_key`; it stays the same over renewals.
    pub fn derive(user: &UserId, sign_key: &[u8; 32]) -> Self {
        Self(first_half(&digest(DEVICE_LABEL, &[&user.0, sign_key])))
    }
}

/// Names a wrapping key where the key itself would take too much room.
pub fn wrap_key_hash(key: &WrapKey) -> [u8; 32] {
    *digest(WRAP_KEY_LABEL, &[key.as_bytes()]).as_bytes()
}

/// One entry of a user's device list, signed by the user's root key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ListEntry {
    /// Format version, 1.
    #[n(0)]
    pub version: u8,
    /// Whose list it is; the id is the key that signs.
    #[n(1)]
    pub user: UserId,
    /// Place in the list, from 0.
    #[n(2)]
    pub seq: u32,
    /// The entry before; all zero in the first one.
    #[n(3)]
    pub prev: LogHash,
    /// The clock of the root key's holder.
    #[n(4)]
    pub time: Position,
    /// What the entry says.
    #[n(5)]
    pub body: ListBody,
}

/// What an entry of a device list says. Tag 2 is kept for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum ListBody {
    /// Adds a device, or renews its card.
    #[n(0)]
    Card(#[n(0)] Box<Card>),
    /// Takes a device out, for good.
    #[n(1)]
    Revoke(#[n(0)] CardRevocation),
}

/// The keys of one device.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Card {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Ed25519 key that the device signs with.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sign_key: [u8; 32],
    /// X-Wing key for what must outlive the device's absence; 1,216 bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub wrap_key: Vec<u8>,
    /// X-Wing key that is replaced weekly.
    #[n(3)]
    pub fallback: Fallback,
    /// First position at which the card is no longer valid.
    #[n(4)]
    pub expires: Position,
    /// The device's signature over user and keys: it consents, and holds its signing key.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub possession: [u8; 64],
}

/// A wrapping key for one week.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Fallback {
    /// X-Wing key; 1,216 bytes.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub wrap_key: Vec<u8>,
    /// Weeks since the Unix epoch.
    #[n(1)]
    pub period: u32,
    /// The device's signature over user, device, period and key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Takes a device out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CardRevocation {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// Since when the device is not to be trusted.
    #[n(1)]
    pub time: Position,
}

impl Card {
    /// Makes the card of a device whose keys are at hand; a root key must sign it yet.
    pub fn new(
        user: &UserId,
        signing: &SigningKey,
        wrap_key: &WrapKey,
        fallback: Fallback,
        expires: Position,
    ) -> Self {
        let sign_key = *signing.verifying_key().as_bytes();
        let possession = possession_digest(user, &sign_key, wrap_key.as_bytes());
        Self {
            device: DeviceId::derive(user, &sign_key),
            sign_key,
            wrap_key: wrap_key.as_bytes().to_vec(),
            fallback,
            expires,
            possession: *signing.sign(&possession).as_bytes(),
        }
    }

    /// Checks that every key is one, that the id belongs to the signing key, and that the device
    /// consents to be `user`'s.
    ///
    /// # Errors
    ///
    /// Fails with what is wrong.
    pub fn verify(&self, user: &UserId) -> Result<DeviceKeys, CardError> {
        if self.device != DeviceId::derive(user, &self.sign_key) {
            return Err(CardError::DeviceId);
        }
        let sign_key =
            VerifyingKey::from_bytes(self.sign_key).map_err(|_| CardError::InvalidKey)?;
        let wrap_key = WrapKey::from_bytes(&self.wrap_key).map_err(|_| CardError::InvalidKey)?;
        let possession = possession_digest(user, &self.sign_key, &self.wrap_key);
        sign_key
            .verify(&possession, &Signature::from_bytes(self.possession))
            .map_err(|_| CardError::Possession)?;
        let fallback = self.fallback.verify(user, &sign_key)?;
        Ok(DeviceKeys {
            sign_key,
            wrap_key,
            fallback,
        })
    }
}

impl Fallback {
    /// Makes the fallback key of one period.
    pub fn new(user: &UserId, signing: &SigningKey, wrap_key: &WrapKey, period: u32) -> Self {
        let device = DeviceId::derive(user, signing.verifying_key().as_bytes());
        let digest = fallback_digest(user, &device, period, wrap_key.as_bytes());
        Self {
            wrap_key: wrap_key.as_bytes().to_vec(),
            period,
            signature: *signing.sign(&digest).as_bytes(),
        }
    }

    /// The period that `now` falls into.
    pub fn period_at(now: Position) -> u32 {
        u32::try_from(now.0 / FALLBACK_PERIOD_MS).unwrap_or(u32::MAX)
    }

    /// Checks that the key is one, and that the device with `sign_key` named it.
    ///
    /// # Errors
    ///
    /// Fails with what is wrong.
    pub fn verify(&self, user: &UserId, sign_key: &VerifyingKey) -> Result<WrapKey, CardError> {
        let wrap_key = WrapKey::from_bytes(&self.wrap_key).map_err(|_| CardError::InvalidKey)?;
        let device = DeviceId::derive(user, sign_key.as_bytes());
        let digest = fallback_digest(user, &device, self.period, &self.wrap_key);
        sign_key
            .verify(&digest, &Signature::from_bytes(self.signature))
            .map_err(|_| CardError::Fallback)?;
        Ok(wrap_key)
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({}, expires {})", self.device, self.expires.0)
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fallback(period {})", self.period)
    }
}

/// The keys of a card, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeys {
    /// Verifies what the device signs.
    pub sign_key: VerifyingKey,
    /// Wraps what must outlive the device's absence.
    pub wrap_key: WrapKey,
    /// Wraps where neither the long-lived key nor a request's own key fits.
    pub fallback: WrapKey,
}

impl Signable for ListEntry {
    const LABEL: &'static str = "sealcast.v1 device list entry";
    const LEN_MAX: usize = 3 * 1024;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        let starts = self.prev == NO_ENTRY;
        let body = match &self.body {
            ListBody::Card(card) => {
                card.wrap_key.len() == WRAP_KEY_LEN
                    && card.fallback.wrap_key.len() == WRAP_KEY_LEN
                    && card.expires <= Position::END
            }
            ListBody::Revoke(revocation) => revocation.time < Position::END,
        };
        match starts == (self.seq == 0) && self.time < Position::END && body {
            true => Ok(()),
            false => Err(DecodeError::OutOfRange),
        }
    }
}

impl CardRevocation {
    /// Reads an entry of `user`'s device list that is carried on its own, as proof that the root
    /// key took the device out. Its place in the list is not checked.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are no revocation that `user`'s root key signed.
    pub fn from_proof(user: &UserId, bytes: &[u8]) -> Result<Self, ListFault> {
        let entry = Unverified::<ListEntry>::decode(bytes)?;
        let root = VerifyingKey::from_bytes(user.0).map_err(|_| ListFault::BadSignature)?;
        let entry = entry.verify(&root).map_err(|_| ListFault::BadSignature)?;
        match &entry.body().body {
            ListBody::Revoke(revocation) if entry.body().user == *user => Ok(*revocation),
            ListBody::Revoke(_) => Err(ListFault::OtherUser),
            ListBody::Card(_) => Err(ListFault::Malformed(DecodeError::OutOfRange)),
        }
    }
}

/// Stands where no entry went before.
pub(super) const NO_ENTRY: LogHash = LogHash([0; 32]);

fn possession_digest(user: &UserId, sign_key: &[u8; 32], wrap_key: &[u8]) -> Digest {
    digest(POSSESSION_LABEL, &[&user.0, sign_key, wrap_key])
}

fn fallback_digest(user: &UserId, device: &DeviceId, period: u32, wrap_key: &[u8]) -> Digest {
    let period = period.to_be_bytes();
    digest(FALLBACK_LABEL, &[&user.0, &device.0, &period, wrap_key])
}

/// What is wrong with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The device id is not the one of the user's device with this signing key.
    #[error("the device id does not belong to user and signing key")]
    DeviceId,
    /// A key is not a valid key of its kind.
    #[error("a key of the card is not valid")]
    InvalidKey,
    /// The device has not signed that it is the user's.
    #[error("the device's proof of possession does not hold")]
    Possession,
    /// The device has not signed its fallback key.
    #[error("the fallback key is not signed by the device")]
    Fallback,
}

/// Why an entry was not taken into a device list, or a list not taken for the one known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListFault {
    /// The bytes are no entry.
    #[error("malformed entry")]
    Malformed(#[source] DecodeError),
    /// The entry is of another user's list.
    #[error("the entry belongs to another user's list")]
    OtherUser,
    /// The user's root key did not sign the entry.
    #[error("the entry is not signed by the user's root key")]
    BadSignature,
    /// Entries before this one are missing: read the list again from there.
    #[error("entry {expected} is missing")]
    Gap {
        /// The entry that must come next.
        expected: u32,
    },
    /// Two entries claim one place: somebody shows different lists to different readers, or the
    /// root key is used in two places. Keep the list as it is and tell the user.
    #[error("two entries claim place {seq} of the list")]
    Forked {
        /// The place.
        seq: u32,
    },
    /// The list ends before an entry that was seen earlier: somebody withholds its end.
    #[error("the list ends before entry {seq}, which was seen earlier")]
    Shortened {
        /// Place of the entry that was seen.
        seq: u32,
    },
    /// The card is not sound.
    #[error("the card is not sound")]
    Card(#[source] CardError),
    /// The device was revoked, which is for good, or was never in the list.
    #[error("the device is revoked or was never in the list")]
    NoSuchDevice,
    /// The list is as long as it may be, or names as many devices as it may.
    #[error("the list is full")]
    Full,
}

impl From<DecodeError> for ListFault {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<CardError> for ListFault {
    fn from(error: CardError) -> Self {
        Self::Card(error)
    }
}

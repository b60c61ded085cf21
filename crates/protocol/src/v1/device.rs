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

/// How long a card is usually valid, in milliseconds: a year.
pub const CARD_LIFETIME_MS: u64 = 365 * 24 * 3600 * 1000;

const DEVICE_LABEL: &str = "sealcast.v1 device id";
const POSSESSION_LABEL: &str = "sealcast.v1 card possession";
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

/// What an entry of a device list says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum ListBody {
    /// Adds a device, or renews its card.
    #[n(0)]
    Card(#[n(0)] Box<Card>),
    /// Takes a device out, for good.
    #[n(1)]
    Revoke(#[n(0)] CardRevocation),
    /// Says what all entries before it came to, so that they need not be read.
    #[n(2)]
    Checkpoint(#[n(0)] Checkpoint),
}

/// What a device list came to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Checkpoint {
    /// Half the hash of every entry before, 16 bytes each, by their places.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub entries: Vec<u8>,
    /// Every device that they name, strictly ascending by id.
    #[n(1)]
    pub devices: Vec<CheckpointDevice>,
}

/// What a checkpoint says of one device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CheckpointDevice {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// When its first card was written.
    #[n(1)]
    pub added: Position,
    /// Whether it is revoked.
    #[n(2)]
    pub standing: CheckpointStanding,
}

/// Whether a checkpoint names a device as revoked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum CheckpointStanding {
    /// It is not. Its newest card, whether or not that has expired.
    #[n(0)]
    Stands(#[n(0)] Box<Card>),
    /// It is. What it signed is verified with its key still.
    #[n(1)]
    Revoked(#[n(0)] RevokedDevice),
}

/// A device that was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct RevokedDevice {
    /// Its Ed25519 key.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub sign_key: [u8; 32],
    /// First position at which its card was no longer valid.
    #[n(1)]
    pub expires: Position,
    /// Since when it is not to be trusted.
    #[n(2)]
    pub revoked: Position,
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
    /// First position at which the card is no longer valid.
    #[n(3)]
    pub expires: Position,
    /// The device's signature over user and keys: it consents, and holds its signing key.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub possession: [u8; 64],
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
    pub fn new(user: &UserId, signing: &SigningKey, wrap_key: &WrapKey, expires: Position) -> Self {
        let sign_key = *signing.verifying_key().as_bytes();
        let possession = Self::consent(user, signing, wrap_key);
        Self::of_consent(user, sign_key, wrap_key, possession, expires)
    }

    /// What a device signs to become `user`'s: it consents, and holds its signing key.
    pub fn consent(user: &UserId, signing: &SigningKey, wrap_key: &WrapKey) -> [u8; 64] {
        let sign_key = signing.verifying_key();
        let possession = possession_digest(user, sign_key.as_bytes(), wrap_key.as_bytes());
        *signing.sign(&possession).as_bytes()
    }

    /// Makes the card of a device that consented; whether it did is for [`verify`](Self::verify).
    pub fn of_consent(
        user: &UserId,
        sign_key: [u8; 32],
        wrap_key: &WrapKey,
        possession: [u8; 64],
        expires: Position,
    ) -> Self {
        Self {
            device: DeviceId::derive(user, &sign_key),
            sign_key,
            wrap_key: wrap_key.as_bytes().to_vec(),
            expires,
            possession,
        }
    }

    /// The same keys for longer. The device need not be asked again.
    #[must_use]
    pub fn renewed(&self, expires: Position) -> Self {
        Self {
            expires,
            ..self.clone()
        }
    }

    /// Checks that both keys are keys, that the id belongs to the signing key, and that the device
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
        Ok(DeviceKeys { sign_key, wrap_key })
    }

    fn is_in_range(&self) -> bool {
        self.wrap_key.len() == WRAP_KEY_LEN && self.expires <= Position::END
    }
}

impl Checkpoint {
    fn is_in_range(&self, seq: u32) -> bool {
        let places = usize::try_from(seq)
            .ok()
            .and_then(|n| n.checked_mul(HALF_LEN));
        let devices = self.devices.iter().all(|of| {
            let standing = match &of.standing {
                CheckpointStanding::Stands(card) => card.device == of.device && card.is_in_range(),
                CheckpointStanding::Revoked(out) => {
                    out.expires <= Position::END && out.revoked < Position::END
                }
            };
            standing && of.added < Position::END
        });
        places == Some(self.entries.len())
            && devices
            && self.devices.is_sorted_by(|a, b| a.device < b.device)
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({}, expires {})", self.device, self.expires.0)
    }
}

/// The keys of a card, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeys {
    /// Verifies what the device signs.
    pub sign_key: VerifyingKey,
    /// Wraps what must outlive the device's absence.
    pub wrap_key: WrapKey,
}

impl Signable for ListEntry {
    const LABEL: &'static str = "sealcast.v1 device list entry";
    const LEN_MAX: usize = 4 << 20;

    fn check(&self) -> Result<(), DecodeError> {
        if self.version != 1 {
            return Err(DecodeError::UnknownVersion {
                found: self.version,
            });
        }
        let starts = self.prev == NO_ENTRY;
        let body = match &self.body {
            ListBody::Card(card) => card.is_in_range(),
            ListBody::Revoke(revocation) => revocation.time < Position::END,
            ListBody::Checkpoint(checkpoint) => checkpoint.is_in_range(self.seq),
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
            ListBody::Card(_) | ListBody::Checkpoint(_) => {
                Err(ListFault::Malformed(DecodeError::OutOfRange))
            }
        }
    }
}

/// Bytes of half a hash.
pub(super) const HALF_LEN: usize = 16;
/// Stands where no entry went before.
pub(super) const NO_ENTRY: LogHash = LogHash([0; 32]);

fn possession_digest(user: &UserId, sign_key: &[u8; 32], wrap_key: &[u8]) -> Digest {
    digest(POSSESSION_LABEL, &[&user.0, sign_key, wrap_key])
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
    /// A checkpoint does not say what the entries that are known came to: the root key is used in two
    /// places, or by somebody else.
    #[error("the checkpoint at place {seq} contradicts the entries before it")]
    Contradicted {
        /// Its place.
        seq: u32,
    },
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

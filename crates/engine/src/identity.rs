//! The keys of one device of one user.

use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{SecretBytes, SigningKey, UnwrapKey};
use sealcast_protocol::{
    CARD_LIFETIME_MS, Card, DeviceId, ListBody, Position, UserId, decode, encode,
};
use zeroize::Zeroize;

/// Acts as one device of one user: signs with its key, and unwraps what is sealed for it.
///
/// The user's first device also holds the root key, which signs the device list.
#[derive(Debug)]
pub struct Identity {
    user: UserId,
    device: DeviceId,
    root: Option<SigningKey>,
    signing: SigningKey,
    unwrap: UnwrapKey,
}

#[derive(Encode, Decode, CborLen, Zeroize)]
#[zeroize(drop)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    user: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    root: Vec<u8>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    signing: [u8; 32],
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    unwrap: [u8; 32],
}

const STORED_LEN_MAX: usize = 256;

impl Identity {
    /// Draws a new user and its first device.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let root = SigningKey::generate(rng);
        let signing = SigningKey::generate(rng);
        let user = UserId(*root.verifying_key().as_bytes());
        Self {
            user,
            device: DeviceId::derive(&user, signing.verifying_key().as_bytes()),
            root: Some(root),
            signing,
            unwrap: UnwrapKey::generate(rng),
        }
    }

    /// Acts as a device that was added to a user.
    pub fn added(user: UserId, signing: SigningKey, unwrap: UnwrapKey) -> Self {
        Self {
            user,
            device: DeviceId::derive(&user, signing.verifying_key().as_bytes()),
            root: None,
            signing,
            unwrap,
        }
    }

    /// The user.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Signs for the device.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Signs the user's device list; `None` where this device was added to the user later.
    pub fn root(&self) -> Option<&SigningKey> {
        self.root.as_ref()
    }

    /// Unwraps what is sealed to the device's long-lived key.
    pub fn unwrap_key(&self) -> &UnwrapKey {
        &self.unwrap
    }

    /// The device's card, valid for a year from `now`, to be signed by the root key.
    pub fn card(&self, now: Position) -> ListBody {
        let (user, wrap_key) = (&self.user, self.unwrap.wrap_key());
        let expires = now.after(CARD_LIFETIME_MS);
        ListBody::Card(Card::new(user, &self.signing, &wrap_key, expires).into())
    }

    /// The form in which a store keeps it, encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::from(encode(&Stored {
            user: self.user.0,
            root: self
                .root
                .as_ref()
                .map_or(Vec::new(), |root| root.expose_seed().to_vec()),
            signing: *self.signing.expose_seed(),
            unwrap: *self.unwrap.expose_seed(),
        }))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = decode(bytes, STORED_LEN_MAX).ok()?;
        let root = match stored.root.as_slice() {
            [] => None,
            seed => Some(SigningKey::from_seed(seed.try_into().ok()?)),
        };
        let user = UserId(stored.user);
        let signing = SigningKey::from_seed(&stored.signing);
        Some(Self {
            user,
            device: DeviceId::derive(&user, signing.verifying_key().as_bytes()),
            root,
            signing,
            unwrap: UnwrapKey::from_seed(&stored.unwrap),
        })
    }
}

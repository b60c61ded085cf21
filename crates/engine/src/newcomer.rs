//! A device that waits to be added to a user, `spec/pairing.md`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{SecretBytes, SigningKey, UnwrapKey};
use sealcast_protocol::{
    Card, CardList, Consent, DeviceId, PairingCode, PairingItem, PairingRequest, Position, UserId,
    Verified, Welcome, decode, encode, unwrap_welcome,
};
use zeroize::Zeroize;

use crate::identity::Identity;

/// Holds the keys of a device that is nobody's yet.
#[derive(Debug)]
pub struct Newcomer {
    signing: SigningKey,
    unwrap: UnwrapKey,
    nonce: [u8; 16],
    /// To whom it has consented; never to anybody else.
    user: Option<UserId>,
}

#[derive(Encode, Decode, CborLen, Zeroize)]
#[zeroize(drop)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    signing: [u8; 32],
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    unwrap: [u8; 32],
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    nonce: [u8; 16],
    /// Empty while it has consented to nobody.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    user: Vec<u8>,
}

const STORED_LEN_MAX: usize = 256;

impl Newcomer {
    /// Draws the keys of a new device, for a user if it is known which one it will be.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized), user: Option<UserId>) -> Self {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        Self {
            signing: SigningKey::generate(rng),
            unwrap: UnwrapKey::generate(rng),
            nonce,
            user,
        }
    }

    /// What to show to whoever adds the device.
    pub fn code(&self) -> PairingCode {
        self.request().code()
    }

    /// To whom the device has consented.
    pub fn user(&self) -> Option<UserId> {
        self.user
    }

    fn request(&self) -> PairingRequest {
        PairingRequest {
            sign_key: *self.signing.verifying_key().as_bytes(),
            wrap_key: self.unwrap.wrap_key().as_bytes().to_vec(),
            nonce: self.nonce,
        }
    }

    fn device_of(&self, user: &UserId) -> DeviceId {
        DeviceId::derive(user, self.signing.verifying_key().as_bytes())
    }

    /// Takes the first offer, if none was taken before. Returns whether that changed anything: it
    /// must be durable before the consent leaves.
    pub fn consider<'a>(&mut self, items: impl IntoIterator<Item = &'a PairingItem>) -> bool {
        let offers = items.into_iter().filter_map(|item| match item {
            PairingItem::Offer(user) => Some(*user),
            PairingItem::Request(_) | PairingItem::Consent(_) | PairingItem::Welcome(_) => None,
        });
        let first = offers.into_iter().next().filter(|_| self.user.is_none());
        self.user = self.user.or(first);
        first.is_some()
    }

    /// What the device has to say, as far as it can.
    pub fn says(&self) -> Vec<PairingItem> {
        let request = PairingItem::Request(Box::new(self.request()));
        let consent = self.user.map(|user| {
            let possession = Card::consent(&user, &self.signing, &self.unwrap.wrap_key());
            PairingItem::Consent(Consent { user, possession })
        });
        [request].into_iter().chain(consent).collect()
    }

    /// Finds a welcome to this device, by another of the user to whom it consented that is not revoked,
    /// with a list that has this device in it. The clock of a new device need not be right.
    pub fn welcome<'a>(
        &self,
        items: impl IntoIterator<Item = &'a PairingItem>,
    ) -> Option<Verified<Welcome>> {
        let user = self.user?;
        let device = self.device_of(&user);
        items.into_iter().find_map(|item| {
            let welcome = unwrap_welcome(item, &user, &device, self.code(), &self.unwrap)?;
            let mut list = CardList::new(user);
            for entry in &welcome.claims().list {
                list.apply(&entry.0).ok()?;
            }
            let giver = welcome.claims().giver;
            let by = list
                .device(&giver)
                .filter(|of| of.revoked.is_none())?
                .sign_key;
            let own = list.device(&device).filter(|of| of.revoked.is_none())?;
            let is_own = own.wrap_key.as_ref() == Some(&self.unwrap.wrap_key());
            (is_own && giver != device).then_some(())?;
            welcome.verify(&by).ok()
        })
    }

    /// The device that it has become.
    pub fn into_identity(self, welcome: &Verified<Welcome>) -> Identity {
        Identity::added(welcome.body().user, self.signing, self.unwrap)
    }

    /// The form in which a store keeps it, encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::from(encode(&Stored {
            signing: *self.signing.expose_seed(),
            unwrap: *self.unwrap.expose_seed(),
            nonce: self.nonce,
            user: self.user.map_or(Vec::new(), |user| user.0.to_vec()),
        }))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = decode(bytes, STORED_LEN_MAX).ok()?;
        let user = match stored.user.as_slice() {
            [] => None,
            user => Some(UserId(user.try_into().ok()?)),
        };
        Some(Self {
            signing: SigningKey::from_seed(&stored.signing),
            unwrap: UnwrapKey::from_seed(&stored.unwrap),
            nonce: stored.nonce,
            user,
        })
    }
}

/// The card of a device whose consent to be `user`'s is among items; `None` where it is not.
pub fn consented_card(
    user: &UserId,
    request: &PairingRequest,
    items: &[PairingItem],
    expires: Position,
) -> Option<Card> {
    let wrap_key = request.wrap_key().ok()?;
    items.iter().find_map(|item| {
        let PairingItem::Consent(consent) = item else {
            return None;
        };
        let possession = (consent.user == *user).then_some(consent.possession)?;
        let card = Card::of_consent(user, request.sign_key, &wrap_key, possession, expires);
        card.verify(user).is_ok().then_some(card)
    })
}

//! RustCrypto and dalek: Rust alone, for every target.

use aes_gcm_siv::aead::AeadInOut as _;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit as _};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use sha2::Sha512;

use crate::secret::{SecretArray, assert_wiped};

const _: () = {
    assert_wiped::<ExpandedSecretKey>();
    assert_wiped::<Sha512>();
    assert_wiped::<aes_gcm_siv::aes::Aes256>();
};

/// An Ed25519 key pair. It is expanded anew for each signature, so that what is secret never moves.
pub(crate) struct KeyPair {
    seed: SecretArray<32>,
    public: VerifyingKey,
}

impl KeyPair {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            seed: SecretArray::init_with(|bytes| bytes.copy_from_slice(seed)),
            public: VerifyingKey::from(&ExpandedSecretKey::from(seed)),
        }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let expanded = ExpandedSecretKey::from(self.seed.expose());
        raw_sign::<Sha512>(&expanded, message, &self.public).to_bytes()
    }
}

/// Checks a signature as RFC 8032 has it, without the cofactor. What dalek calls strict asks for no
/// more than the checks above the backends.
pub(crate) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify(message, &signature).is_ok())
}

/// Encrypts with AES-256-GCM-SIV and returns the tag.
///
/// # Panics
///
/// Panics when the buffer is longer than 64 GiB, the bound of the cipher.
#[expect(
    clippy::expect_used,
    reason = "the cipher's own bound, documented on the callers"
)]
pub(crate) fn seal_in_place(
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
) -> [u8; 16] {
    Aes256GcmSiv::new(key.into())
        .encrypt_inout_detached(&nonce.into(), aad, buffer.into())
        .expect("at most 64 GiB are sealed at once")
        .into()
}

/// Decrypts with AES-256-GCM-SIV. When it returns false the buffer holds anything.
#[must_use]
pub(crate) fn open_in_place(
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; 16],
) -> bool {
    Aes256GcmSiv::new(key.into())
        .decrypt_inout_detached(&nonce.into(), aad, buffer.into(), tag.into())
        .is_ok()
}

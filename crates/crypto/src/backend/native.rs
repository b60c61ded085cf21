//! AWS-LC: the fastest where it builds.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};

/// An Ed25519 key pair, expanded for signing. AWS-LC wipes what it frees.
pub(crate) struct KeyPair(Ed25519KeyPair);

impl KeyPair {
    #[expect(
        clippy::expect_used,
        reason = "a seed of 32 bytes fails only for want of memory"
    )]
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed"))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

/// Checks a signature as RFC 8032 has it, without the cofactor.
pub(crate) fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    ParsedPublicKey::new(&ED25519, public)
        .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
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
    let sealed = cipher(key).seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(aad),
        buffer,
    );
    let mut tag = [0; 16];
    tag.copy_from_slice(sealed.expect("at most 64 GiB are sealed at once").as_ref());
    tag
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
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(key)
        .open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer)
        .is_ok()
}

#[expect(
    clippy::expect_used,
    reason = "a key of 32 bytes fails only for want of memory"
)]
fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("any 32 bytes are a key"))
}

//! Sealing of what rests in the store (`spec/primitives.md`, section "Store").

use alloc::vec::Vec;

use rand_core::CryptoRng;

use crate::backend;
use crate::digest::delimited;
use crate::message::{OpenError, TAG_LEN};
use crate::secret::{SecretArray, SecretBytes, redacted_debug, wipe};

const NONCE_LEN: usize = 12;

/// `spec/primitives.md`, section "Store".
const LABEL: &str = "sealcast.v1 store";

/// Reads everything in one local store.
///
/// ```
/// let key = sealcast_crypto::StoreKey::init_with(|bytes| bytes.fill(7));
/// let copy = key.duplicate();
/// ```
///
/// ```compile_fail,E0599
/// let key = sealcast_crypto::StoreKey::init_with(|bytes| bytes.fill(7));
/// let copy = key.clone();
/// ```
pub struct StoreKey(SecretArray<32>);

impl StoreKey {
    /// What sealing adds, in bytes.
    pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

    /// Draws a new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(SecretArray::generate(rng))
    }

    /// Makes a key in place, so that its bytes never lie anywhere else.
    pub fn init_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        Self(SecretArray::init_with(fill))
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// Shows the bytes to code that wraps them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Seals a value under a random nonce: nonce, ciphertext, tag. The context says where the value
    /// belongs, so that it opens in no other place.
    ///
    /// # Panics
    ///
    /// Panics when the value is longer than 64 GiB.
    pub fn seal(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        context: &[u8],
        plaintext: &[u8],
    ) -> Vec<u8> {
        seal_value(self.expose(), rng, &delimited(LABEL, &[context]), plaintext)
    }

    /// Opens a value.
    ///
    /// # Errors
    ///
    /// Fails when it was not sealed with this key in this context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        open_value(self.expose(), &delimited(LABEL, &[context]), sealed)
    }
}

/// Seals a value under a random nonce: nonce, ciphertext, tag.
pub(crate) fn seal_value(
    key: &[u8; 32],
    rng: &mut (impl CryptoRng + ?Sized),
    aad: &[u8],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    let mut sealed = Vec::with_capacity(plaintext.len() + StoreKey::OVERHEAD);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let text = &mut sealed[NONCE_LEN..];
    let tag = backend::seal_in_place(key, nonce, aad, text);
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens what [`seal_value`] made.
pub(crate) fn open_value(
    key: &[u8; 32],
    aad: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes, OpenError> {
    let split = sealed
        .split_first_chunk::<NONCE_LEN>()
        .and_then(|(nonce, rest)| Some((nonce, rest.split_last_chunk::<TAG_LEN>()?)));
    let Some((nonce, (text, tag))) = split else {
        return Err(OpenError::NotAuthentic);
    };
    let mut opened = text.to_vec();
    if !backend::open_in_place(key, *nonce, aad, &mut opened, tag) {
        wipe(&mut opened);
        return Err(OpenError::NotAuthentic);
    }
    Ok(SecretBytes::from(opened))
}

redacted_debug!(StoreKey);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;
    use crate::seeded::Seeded;

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let key = key();
        let sealed = key.seal(&mut Seeded::new(1), b"session 1", b"root");
        assert_eq!(sealed.len(), 4 + StoreKey::OVERHEAD);
        assert_eq!(key.open(b"session 1", &sealed).unwrap().expose(), b"root");
        let elsewhere = key.open(b"session 2", &sealed).map(|_| ());
        assert_eq!(elsewhere, Err(OpenError::NotAuthentic));
    }

    /// fault 6
    #[test]
    fn a_wrong_key_and_every_flipped_bit_are_noticed() {
        let mut sealed = key().seal(&mut Seeded::new(1), b"session 1", b"root");
        let stranger = StoreKey::generate(&mut Seeded::new(3));
        assert!(stranger.open(b"session 1", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert!(key().open(b"session 1", &sealed).is_err(), "bit {bit}");
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..sealed.len() {
            assert!(key().open(b"session 1", &sealed[..length]).is_err());
        }
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let mut rng = Seeded::new(1);
        let one = key().seal(&mut rng, b"", b"root");
        assert_ne!(one, key().seal(&mut rng, b"", b"root"));
    }

    #[test]
    fn randomness_may_be_handed_in_as_an_object() {
        let mut rng = Seeded::new(1);
        let rng: &mut dyn CryptoRng = &mut rng;
        let key = StoreKey::generate(rng);
        let sealed = key.seal(rng, b"", b"root");
        assert_eq!(key.open(b"", &sealed).unwrap().expose(), b"root");
    }

    #[test]
    fn a_sealed_value_keeps_its_bytes() {
        let key = StoreKey::init_with(|bytes| bytes.fill(7));
        let sealed = key.seal(&mut Seeded::new(1), b"session 1", b"root");
        assert_eq!(
            format!("{}", crate::digest::Hex(&sealed)),
            "5dc76cbd474e91b7e85a02bc045b80d597f4e8ecc757f2e26a37df70bc64ac2f"
        );
        assert_eq!(key.duplicate().expose(), key.expose());
    }

    #[test]
    fn debug_shows_no_key_bytes() {
        assert_eq!(format!("{:?}", key()), "StoreKey(..)");
    }

    fn key() -> StoreKey {
        StoreKey::generate(&mut Seeded::new(2))
    }
}

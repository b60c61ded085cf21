//! ristretto255 with SHA-512, as RFC 9497 has it: hashing to elements and to scalars, and decoding
//! (`spec/key-nodes.md`, section "Group").

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity as _;
use sha2::{Digest as _, Sha512};
use zeroize::{Zeroize as _, Zeroizing};

/// Stands where RFC 9497 has its context string: keeps our hashes apart from those of others.
pub(super) const CONTEXT: &[u8] = b"sealcast.v1 key nodes-ristretto255-SHA512";

/// The block of SHA-512, in zeros: `Z_pad` of RFC 9380.
const BLOCK: [u8; 128] = [0; 128];

/// `HashToGroup` of RFC 9497.
pub(super) fn hash_to_element(context: &[u8], message: &[u8]) -> RistrettoPoint {
    RistrettoPoint::from_uniform_bytes(&expand(&[b"HashToGroup-", context], &[message]))
}

/// `HashToScalar` of RFC 9497.
pub(super) fn hash_to_scalar(context: &[u8], parts: &[&[u8]]) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&expand(&[b"HashToScalar-", context], parts))
}

/// `expand_message_xmd` of RFC 9380 with SHA-512, for 64 bytes: one block, so one round.
fn expand(tag: &[&[u8]], parts: &[&[u8]]) -> [u8; 64] {
    let tag_len: usize = tag.iter().map(|part| part.len()).sum();
    let absorb_tag = |hash: Sha512| {
        let hash = tag.iter().fold(hash, |hash, part| hash.chain_update(part));
        hash.chain_update([tag_len as u8]).finalize()
    };
    let start = Sha512::new().chain_update(BLOCK);
    let start = parts
        .iter()
        .fold(start, |hash, part| hash.chain_update(part));
    let first = absorb_tag(start.chain_update([0, 64, 0]));
    absorb_tag(Sha512::new().chain_update(first).chain_update([1])).into()
}

/// Why bytes name no element that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ElementFault {
    /// They are not the one encoding of any element.
    NotCanonical,
    /// They are the identity.
    Identity,
}

/// Decodes an element; the identity is none that anybody has a use for.
pub(super) fn element(bytes: [u8; 32]) -> Result<RistrettoPoint, ElementFault> {
    let point = CompressedRistretto(bytes).decompress();
    let point = point.ok_or(ElementFault::NotCanonical)?;
    match point.is_identity() {
        true => Err(ElementFault::Identity),
        false => Ok(point),
    }
}

/// Decodes a scalar below the order of the group.
pub(super) fn scalar(bytes: [u8; 32]) -> Option<Zeroizing<Scalar>> {
    Option::from(Scalar::from_canonical_bytes(bytes)).map(Zeroizing::new)
}

/// Reduces 64 random bytes, which are wiped.
pub(super) fn reduced(wide: &mut [u8; 64]) -> Zeroizing<Scalar> {
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order_wide(wide));
    wide.zeroize();
    scalar
}

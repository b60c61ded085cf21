//! What a node holds, and how it answers (`spec/key-nodes.md`, sections "Dealing" and "Answers").

use alloc::vec::Vec;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::deal::{Dealing, NodeIndex, PepperCommitment, halves};
use super::group::{CONTEXT, reduced, scalar};
use super::proof::{PROOF_LEN, Pair, Statement};
use super::segment::SegmentLabel;
use crate::digest::absorb;
use crate::secret::{SecretArray, SecretBytes, redacted_debug};

/// Bytes of an answer for one segment: element, pepper.
pub(super) const PART_LEN: usize = 64;

const NONCE_LABEL: &str = "sealcast.v1 key node nonce";

/// Bytes of an answer for so many segments.
pub fn answer_len(segments: usize) -> usize {
    segments.saturating_mul(PART_LEN).saturating_add(PROOF_LEN)
}

/// Opens nothing by itself; with others of its dealing, as many as are needed, every segment record
/// of the lane.
///
/// ```
/// use sealcast_crypto::{NodeIndex, NodeShare};
///
/// let first = NodeIndex::new(1).ok_or("no node")?;
/// let share = NodeShare::from_bytes(first, &[7; 64])?;
/// let copy = &share;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0599
/// use sealcast_crypto::{NodeIndex, NodeShare};
///
/// let first = NodeIndex::new(1).ok_or("no node")?;
/// let share = NodeShare::from_bytes(first, &[7; 64])?;
/// let copy = share.clone();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NodeShare {
    index: NodeIndex,
    /// A scalar that is not zero, and the pepper.
    bytes: SecretArray<64>,
}

impl NodeShare {
    /// Takes up a share: the scalar, then the pepper.
    ///
    /// # Errors
    ///
    /// Fails when the scalar is zero or not below the order of the group.
    pub fn from_bytes(index: NodeIndex, bytes: &[u8; 64]) -> Result<Self, ShareError> {
        let (value, pepper) = halves(bytes);
        let value = scalar(*value).ok_or(ShareError::NotCanonical)?;
        Self::from_parts(index, &value, pepper).ok_or(ShareError::Zero)
    }

    pub(super) fn from_parts(index: NodeIndex, value: &Scalar, pepper: &[u8; 32]) -> Option<Self> {
        let bytes = SecretArray::init_with(|bytes| {
            bytes[..32].copy_from_slice(value.as_bytes());
            bytes[32..].copy_from_slice(pepper);
        });
        (*value != Scalar::ZERO).then_some(Self { index, bytes })
    }

    /// Which node's it is.
    pub fn index(&self) -> NodeIndex {
        self.index
    }

    /// Shows the bytes to code that stores or wraps them.
    pub fn expose(&self) -> &[u8; 64] {
        self.bytes.expose()
    }

    /// Checks the share against what the dealer published. A node that takes a share unchecked may
    /// be blamed for what the dealer did.
    ///
    /// # Errors
    ///
    /// Fails when share or pepper are not those of the dealing.
    pub fn check(&self, dealing: &Dealing) -> Result<(), ShareError> {
        if RistrettoPoint::mul_base(&self.scalar()) != dealing.public_share(self.index) {
            return Err(ShareError::OtherDealing);
        }
        let own = PepperCommitment::of(self.pepper());
        match bool::from(own.0.ct_eq(&dealing.pepper().0)) {
            true => Ok(()),
            false => Err(ShareError::OtherPepper),
        }
    }

    /// Answers for segments, all of which somebody was found entitled to. The answer is secret.
    pub fn answer(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        segments: &[SegmentLabel],
    ) -> SecretBytes {
        let secret = self.scalar();
        let pairs = segments.iter().map(|segment| {
            let of = segment.element();
            let evaluated = *secret * of;
            Pair { of, evaluated }
        });
        let pairs: Zeroizing<Vec<Pair>> = Zeroizing::new(pairs.collect());
        let public = RistrettoPoint::mul_base(&secret);
        let statement = Statement {
            context: CONTEXT,
            public: &public,
            pairs: &pairs,
        };
        let mut drawn = [0; 32];
        rng.fill_bytes(&mut drawn);
        let proof = statement.prove(&secret, |composite, evaluated| {
            self.nonce(&[&drawn, public.compress().as_bytes(), composite, evaluated])
        });
        drawn.zeroize();
        let mut answer = SecretBytes::with_capacity(answer_len(segments.len()));
        for (segment, pair) in segments.iter().zip(pairs.iter()) {
            let evaluated = Zeroizing::new(pair.evaluated.compress().to_bytes());
            answer.extend_from_slice(&*evaluated);
            answer.extend_from_slice(segment.pepper(self.pepper()).expose());
        }
        answer.extend_from_slice(&proof);
        answer
    }

    /// A nonce of the share, of randomness and of what is proved: a node whose randomness comes
    /// again, as that of a copied machine does, must not give its share away by two proofs.
    fn nonce(&self, parts: &[&[u8]]) -> Zeroizing<Scalar> {
        let (secret, _) = halves(self.bytes.expose());
        let mut hasher = blake3::Hasher::new_keyed(secret);
        absorb(&mut hasher, NONCE_LABEL, parts);
        let mut reader = hasher.finalize_xof();
        let mut wide = [0; 64];
        reader.fill(&mut wide);
        reader.zeroize();
        hasher.zeroize();
        reduced(&mut wide)
    }

    fn scalar(&self) -> Zeroizing<Scalar> {
        let (value, _) = halves(self.bytes.expose());
        scalar(*value).unwrap_or_default()
    }

    fn pepper(&self) -> &[u8; 32] {
        halves(self.bytes.expose()).1
    }
}

redacted_debug!(NodeShare);

/// Why a share is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The number is not below the order of the group.
    #[error("share is not canonical")]
    NotCanonical,
    /// A share of zero answers nothing.
    #[error("share is zero")]
    Zero,
    /// The share is not that of this node in this dealing: the dealer may have lied to this node.
    #[error("share does not fit its dealing")]
    OtherDealing,
    /// The pepper is not the one that was committed to: the dealer may have lied to this node.
    #[error("pepper does not fit its dealing")]
    OtherPepper,
}

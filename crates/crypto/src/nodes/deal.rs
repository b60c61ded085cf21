//! Dealing of a lane's secret: shares by Shamir, commitments by Feldman (`spec/key-nodes.md`,
//! section "Dealing").

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU8;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::group::{ElementFault, element, reduced, scalar};
use super::segment::{SegmentKey, SegmentLabel};
use super::share::NodeShare;
use crate::digest::digest;
use crate::secret::{SecretArray, redacted_debug};

/// Most nodes that one secret is dealt to.
pub const NODES_MAX: u8 = 32;

const PEPPER_COMMITMENT_LABEL: &str = "sealcast.v1 key node pepper commitment";

/// The place of a node in a dealing, from 1 to [`NODES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIndex(NonZeroU8);

impl NodeIndex {
    /// There is no node 0: its share would be the secret.
    pub fn new(index: u8) -> Option<Self> {
        let index = NonZeroU8::new(index)?;
        (index.get() <= NODES_MAX).then_some(Self(index))
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0.get()
    }

    pub(super) fn scalar(self) -> Scalar {
        Scalar::from(self.get())
    }
}

/// Opens every segment record of a lane.
///
/// ```
/// let secret = sealcast_crypto::LaneSecret::from_bytes(&[7; 64])?;
/// let copy = secret.duplicate();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0599
/// let secret = sealcast_crypto::LaneSecret::from_bytes(&[7; 64])?;
/// let copy = secret.clone();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LaneSecret {
    /// A scalar that is not zero, and the pepper.
    bytes: SecretArray<64>,
}

impl LaneSecret {
    /// Draws a new secret.
    ///
    /// # Errors
    ///
    /// Fails when the randomness is none.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, DealError> {
        let secret = drawn(rng)?;
        let bytes = SecretArray::init_with(|bytes| {
            bytes[..32].copy_from_slice(secret.as_bytes());
            rng.fill_bytes(&mut bytes[32..]);
        });
        Ok(Self { bytes })
    }

    /// Takes up a secret that was kept: the scalar, then the pepper.
    ///
    /// # Errors
    ///
    /// Fails when the scalar is zero or not below the order of the group.
    pub fn from_bytes(bytes: &[u8; 64]) -> Result<Self, DealingError> {
        let (secret, _) = halves(bytes);
        scalar(*secret).ok_or(DealingError::NotCanonical)?;
        if *secret == [0; 32] {
            return Err(DealingError::Identity);
        }
        let bytes = SecretArray::init_with(|own| own.copy_from_slice(bytes));
        Ok(Self { bytes })
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        let bytes = self.bytes.duplicate();
        Self { bytes }
    }

    /// Shows the bytes to code that stores them.
    pub fn expose(&self) -> &[u8; 64] {
        self.bytes.expose()
    }

    /// Names the secret and says nothing of it: the first commitment of each of its dealings.
    pub fn public(&self) -> [u8; 32] {
        RistrettoPoint::mul_base(&self.scalar())
            .compress()
            .to_bytes()
    }

    /// The key that seals a segment of the lane, without any node.
    pub fn segment_key(&self, segment: &SegmentLabel) -> SegmentKey {
        let evaluated = Zeroizing::new(*self.scalar() * segment.element());
        let evaluated = Zeroizing::new(evaluated.compress().to_bytes());
        let pepper = segment.pepper(self.pepper());
        SegmentKey::derive(segment, &evaluated, pepper.expose())
    }

    /// Deals the secret so that `threshold` of `nodes` nodes open what it seals. Every dealing draws
    /// other shares, and shares of different dealings fit with none of each other.
    ///
    /// # Errors
    ///
    /// Fails unless `1 <= threshold <= nodes <= NODES_MAX`, or when the randomness is none.
    pub fn deal(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        threshold: u8,
        nodes: u8,
    ) -> Result<(Dealing, Vec<NodeShare>), DealError> {
        if threshold == 0 || threshold > nodes || nodes > NODES_MAX {
            return Err(DealError::Threshold);
        }
        // Room is taken once: a vector that moves leaves what it held behind.
        let mut coefficients = Vec::with_capacity(usize::from(threshold));
        coefficients.push(self.scalar());
        for _ in 1..threshold {
            coefficients.push(drawn(rng)?);
        }
        let commitments = coefficients.iter().map(|of| RistrettoPoint::mul_base(of));
        let dealing = Dealing {
            commitments: commitments.collect(),
            pepper: PepperCommitment::of(self.pepper()),
        };
        let shares = (1..=nodes).filter_map(NodeIndex::new).map(|index| {
            let highest_first = coefficients.iter().rev();
            let zero = Zeroizing::new(Scalar::ZERO);
            let value = highest_first.fold(zero, |value, coefficient| {
                Zeroizing::new(*value * index.scalar() + **coefficient)
            });
            NodeShare::from_parts(index, &value, self.pepper())
        });
        let shares: Option<Vec<NodeShare>> = shares.collect();
        Ok((dealing, shares.ok_or(DealError::Randomness)?))
    }

    fn scalar(&self) -> Zeroizing<Scalar> {
        let (secret, _) = halves(self.bytes.expose());
        scalar(*secret).unwrap_or_default()
    }

    fn pepper(&self) -> &[u8; 32] {
        halves(self.bytes.expose()).1
    }
}

redacted_debug!(LaneSecret);

/// The scalar, and the pepper behind it.
pub(super) fn halves(bytes: &[u8; 64]) -> (&[u8; 32], &[u8; 32]) {
    let (halves, _) = bytes.as_chunks();
    (&halves[0], &halves[1])
}

/// A scalar of fresh randomness. Zero comes of a broken generator alone.
fn drawn(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Zeroizing<Scalar>, DealError> {
    let mut wide = [0; 64];
    rng.fill_bytes(&mut wide);
    let scalar = reduced(&mut wide);
    match *scalar == Scalar::ZERO {
        true => Err(DealError::Randomness),
        false => Ok(scalar),
    }
}

/// Fits one pepper and says nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PepperCommitment(pub [u8; 32]);

impl PepperCommitment {
    pub(super) fn of(pepper: &[u8; 32]) -> Self {
        Self(*digest(PEPPER_COMMITMENT_LABEL, &[pepper]).as_bytes())
    }
}

impl fmt::Debug for PepperCommitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PepperCommitment(..)")
    }
}

/// What everybody may know of a dealing: it tells good shares and good answers from others.
#[derive(Clone, PartialEq, Eq)]
pub struct Dealing {
    /// Of the secret first, then of each further coefficient. As many as nodes are needed.
    pub(super) commitments: Vec<RistrettoPoint>,
    pepper: PepperCommitment,
}

impl Dealing {
    /// Reads the commitments of a dealing.
    ///
    /// # Errors
    ///
    /// Fails when there are none or more than [`NODES_MAX`], or when one is not the one encoding of
    /// an element, or is the identity.
    pub fn from_commitments(
        commitments: &[[u8; 32]],
        pepper: PepperCommitment,
    ) -> Result<Self, DealingError> {
        if commitments.is_empty() || commitments.len() > usize::from(NODES_MAX) {
            return Err(DealingError::Threshold);
        }
        let commitments: Result<_, _> = commitments.iter().map(|bytes| element(*bytes)).collect();
        let commitments = commitments.map_err(|fault| match fault {
            ElementFault::NotCanonical => DealingError::NotCanonical,
            ElementFault::Identity => DealingError::Identity,
        })?;
        Ok(Self {
            commitments,
            pepper,
        })
    }

    /// The commitments, as they travel.
    pub fn commitments(&self) -> Vec<[u8; 32]> {
        let encoded = self.commitments.iter();
        encoded.map(|point| point.compress().to_bytes()).collect()
    }

    /// What the pepper must fit.
    pub fn pepper(&self) -> PepperCommitment {
        self.pepper
    }

    /// How many nodes must answer.
    pub fn threshold(&self) -> usize {
        self.commitments.len()
    }

    /// What the share of a node is to the base: the polynomial in the exponent.
    pub(super) fn public_share(&self, index: NodeIndex) -> RistrettoPoint {
        let highest_first = self.commitments.iter().rev();
        highest_first.fold(RistrettoPoint::identity(), |value, commitment| {
            value * index.scalar() + commitment
        })
    }
}

impl fmt::Debug for Dealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dealing({} needed)", self.threshold())
    }
}

/// Why a secret was not dealt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DealError {
    /// At least one node must be needed, no more than there are, and at most 32 may there be.
    #[error("not so many nodes can be needed of so many")]
    Threshold,
    /// The generator gives zeros; nothing that it draws may be used.
    #[error("the randomness is none")]
    Randomness,
}

/// Why bytes are no [`Dealing`], or no [`LaneSecret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DealingError {
    /// There must be between 1 and 32 commitments.
    #[error("not so many nodes can be needed")]
    Threshold,
    /// A number is not reduced, or an element has another encoding.
    #[error("not canonical")]
    NotCanonical,
    /// A commitment is the identity, or the secret zero: it would protect nothing.
    #[error("the identity protects nothing")]
    Identity,
}

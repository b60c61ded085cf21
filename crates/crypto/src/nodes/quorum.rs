//! Putting answers together: who lies is named, and with enough that hold the records open
//! (`spec/key-nodes.md`, section "Combining").

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::deal::{Dealing, NodeIndex};
use super::group::{CONTEXT, ElementFault, element, scalar};
use super::proof::{PROOF_LEN, Pair, Statement};
use super::segment::{SEALED_SEGMENT_LEN, SegmentKey, SegmentLabel};
use super::share::{PART_LEN, answer_len};
use crate::secret::SecretArray;
use crate::tree::NodeKey;

/// Collects the answers of nodes for some segments, and opens their records when there are enough.
pub struct Quorum {
    dealing: Dealing,
    segments: Vec<SegmentLabel>,
    elements: Vec<RistrettoPoint>,
    answers: BTreeMap<NodeIndex, Vec<Part>>,
}

/// What one node says to one segment.
struct Part {
    evaluated: Zeroizing<RistrettoPoint>,
    pepper: SecretArray<32>,
}

impl Quorum {
    /// Begins without an answer.
    pub fn new(dealing: Dealing, segments: Vec<SegmentLabel>) -> Self {
        let elements = segments.iter().map(SegmentLabel::element).collect();
        Self {
            dealing,
            segments,
            elements,
            answers: BTreeMap::new(),
        }
    }

    /// Whether enough nodes have answered.
    pub fn is_enough(&self) -> bool {
        self.answers.len() >= self.dealing.threshold()
    }

    /// Takes the answer of a node. What is refused changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when the node has answered already, or when it did not answer with its share; whoever
    /// signed such an answer lies.
    pub fn take(&mut self, node: NodeIndex, answer: &[u8]) -> Result<(), AnswerError> {
        if self.answers.contains_key(&node) {
            return Err(AnswerError::Repeated);
        }
        if answer.len() != answer_len(self.segments.len()) {
            return Err(AnswerError::Length);
        }
        let split = answer.split_last_chunk::<PROOF_LEN>();
        let (parts, proof) = split.ok_or(AnswerError::Length)?;
        let (parts, _) = parts.as_chunks::<PART_LEN>();
        // Room is taken once: a vector that moves leaves what it held behind.
        let mut read = Vec::with_capacity(parts.len());
        for part in parts {
            read.push(Part::read(part)?);
        }
        let (proof, _) = proof.as_chunks();
        let challenge = scalar(proof[0]).ok_or(AnswerError::NotCanonical)?;
        let response = scalar(proof[1]).ok_or(AnswerError::NotCanonical)?;
        let pairs = self.elements.iter().zip(&read).map(|(of, part)| Pair {
            of: *of,
            evaluated: *part.evaluated,
        });
        let pairs: Zeroizing<Vec<Pair>> = Zeroizing::new(pairs.collect());
        let statement = Statement {
            context: CONTEXT,
            public: &self.dealing.public_share(node),
            pairs: &pairs,
        };
        if !statement.holds(&challenge, &response) {
            return Err(AnswerError::Proof);
        }
        self.answers.insert(node, read);
        Ok(())
    }

    /// Opens the records of the segments, in their order. The proofs say nothing of peppers: where
    /// those that were sent differ, the one that opens the record is right, and whoever sent another
    /// is named.
    ///
    /// # Errors
    ///
    /// Fails when too few nodes have answered.
    pub fn open(&self, records: &[[u8; SEALED_SEGMENT_LEN]]) -> Result<Opened, TooFewAnswers> {
        if !self.is_enough() {
            return Err(TooFewAnswers);
        }
        let factors = self.factors();
        let mut liars = BTreeSet::new();
        let keys = self.segments.iter().zip(records).enumerate();
        let keys = keys.map(|(at, (segment, record))| {
            let evaluated = self.evaluated(at, &factors);
            let said = || {
                let all = self.answers.iter();
                all.filter_map(move |(node, parts)| Some((*node, &parts.get(at)?.pepper)))
            };
            let (right, key) = said().find_map(|(_, pepper)| {
                let key = SegmentKey::derive(segment, &evaluated, pepper.expose());
                Some((pepper, key.open(record).ok()?))
            })?;
            let is_right =
                |pepper: &SecretArray<32>| -> bool { pepper.expose().ct_eq(right.expose()).into() };
            let wrong = said().filter(|(_, pepper)| !is_right(pepper));
            liars.extend(wrong.map(|(node, _)| node));
            Some(key)
        });
        let keys = keys.collect();
        let liars = liars.into_iter().collect();
        Ok(Opened { keys, liars })
    }

    /// As many nodes as are needed, each with its factor of Lagrange: together they give the
    /// polynomial at 0.
    fn factors(&self) -> Vec<(NodeIndex, Scalar)> {
        let needed = self.answers.keys().take(self.dealing.threshold());
        let nodes: Vec<NodeIndex> = needed.copied().collect();
        let factor = |own: &NodeIndex| {
            let others = nodes.iter().filter(|other| *other != own);
            let (above, below) =
                others.fold((Scalar::ONE, Scalar::ONE), |(above, below), other| {
                    let other = other.scalar();
                    (above * other, below * (other - own.scalar()))
                });
            (*own, above * below.invert())
        };
        nodes.iter().map(factor).collect()
    }

    fn evaluated(&self, at: usize, factors: &[(NodeIndex, Scalar)]) -> Zeroizing<[u8; 32]> {
        let mut sum = Zeroizing::new(RistrettoPoint::identity());
        for (node, factor) in factors {
            if let Some(part) = self.answers.get(node).and_then(|parts| parts.get(at)) {
                *sum += factor * *part.evaluated;
            }
        }
        Zeroizing::new(sum.compress().to_bytes())
    }
}

impl fmt::Debug for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (come, needed) = (self.answers.len(), self.dealing.threshold());
        write!(f, "Quorum({come} of {needed} needed)")
    }
}

impl Part {
    fn read(bytes: &[u8; PART_LEN]) -> Result<Self, AnswerError> {
        let (halves, _) = bytes.as_chunks();
        let evaluated = element(halves[0]).map_err(|fault| match fault {
            ElementFault::NotCanonical => AnswerError::NotCanonical,
            ElementFault::Identity => AnswerError::Identity,
        })?;
        Ok(Self {
            evaluated: Zeroizing::new(evaluated),
            pepper: SecretArray::init_with(|pepper| *pepper = halves[1]),
        })
    }
}

/// What came of the answers.
#[derive(Debug)]
pub struct Opened {
    /// The key of each segment. There is none where no pepper that was sent opens the record: it is
    /// false, or all who answered lie.
    pub keys: Vec<Option<NodeKey>>,
    /// Who sent a pepper that is none, ascending.
    pub liars: Vec<NodeIndex>,
}

/// Why an answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The node has answered already.
    #[error("the node has answered already")]
    Repeated,
    /// Another number of bytes than the segments need.
    #[error("answer does not have the length for its segments")]
    Length,
    /// An element or a number has another encoding.
    #[error("answer is not canonical")]
    NotCanonical,
    /// An element is the identity.
    #[error("answer has the identity in it")]
    Identity,
    /// The node did not answer with the share that was dealt to it.
    #[error("answer is not proved")]
    Proof,
}

/// More nodes have to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too few nodes have answered")]
pub struct TooFewAnswers;

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::nodes::LaneSecret;
    use crate::seeded::Seeded;
    use crate::tree::NodeId;

    /// Whoever has one answer fewer than are needed, every record and all that is public, and looks
    /// at no proof.
    #[test]
    fn one_answer_too_few_opens_nothing_whatever_it_is_put_together_with() {
        let secret = LaneSecret::generate(&mut Seeded::new(1)).unwrap();
        let (dealing, shares) = secret.deal(&mut Seeded::new(2), 3, 5).unwrap();
        let node = NodeId {
            depth: 32,
            index: 7,
        };
        let segment = SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node).unwrap();
        let key = NodeKey::init_with(|bytes| bytes.fill(5));
        let record = secret.segment_key(&segment).seal(&key);
        let mut quorum = Quorum::new(dealing.clone(), vec![segment]);
        for share in &shares[1..3] {
            let answer = share.answer(&mut Seeded::new(3), &[segment]);
            quorum.take(share.index(), answer.expose()).unwrap();
        }
        let opens = |quorum: &Quorum| quorum.open(&[record]).unwrap().keys[0].is_some();

        // As if two were enough.
        quorum.dealing.commitments.pop();
        assert!(!opens(&quorum));
        // With an element in place of the third that everybody has.
        quorum.dealing = dealing.clone();
        let fourth = shares[3].index();
        let public = dealing.public_share(fourth);
        for guess in [segment.element(), public, dealing.commitments[0]] {
            let pepper = quorum.answers.values().next().unwrap()[0]
                .pepper
                .duplicate();
            let part = Part {
                evaluated: Zeroizing::new(guess),
                pepper,
            };
            quorum.answers.insert(fourth, vec![part]);
            assert!(!opens(&quorum));
        }
        // With the third they do.
        quorum.answers.remove(&fourth);
        let answer = shares[3].answer(&mut Seeded::new(3), &[segment]);
        quorum.take(fourth, answer.expose()).unwrap();
        assert!(opens(&quorum));
    }
}

//! Segments of a key tree, and what seals one of them (`spec/key-nodes.md`, sections "Segments" and
//! "Records").

use alloc::vec::Vec;

use curve25519_dalek::ristretto::RistrettoPoint;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use super::group::{CONTEXT, hash_to_element};
use crate::backend::{open_in_place, seal_in_place};
use crate::digest::{absorb, delimited};
use crate::message::{COMMITMENT_LEN, OpenError, TAG_LEN};
use crate::secret::{SecretArray, redacted_debug};
use crate::tree::{NodeId, NodeKey, POSITION_BITS, POSITION_END};

/// How high above the leaves the nodes are that are segments, ascending: from a minute to seven
/// weeks.
pub const SEGMENT_HEIGHTS: [u8; 9] = [16, 18, 20, 22, 24, 26, 28, 30, 32];

/// Bytes of a sealed segment: commitment, ciphertext, tag.
pub const SEALED_SEGMENT_LEN: usize = COMMITMENT_LEN + KEY_LEN + TAG_LEN;

const KEY_LEN: usize = 32;

const LABEL: &str = "sealcast.v1 key segment";
const PEPPER_LABEL: &str = "sealcast.v1 key segment pepper";
const KEY_LABEL: &str = "sealcast.v1 key segment key";
const SEALED_LABEL: &str = "sealcast.v1 key segment sealed";

/// Names a segment: which node of which session's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentLabel {
    stream: [u8; 32],
    lane: [u8; 32],
    session: [u8; 16],
    node: NodeId,
}

impl SegmentLabel {
    /// Names a segment; there is none where the node is at no height of [`SEGMENT_HEIGHTS`] or
    /// outside the tree.
    pub fn new(
        stream: &[u8; 32],
        lane: &[u8; 32],
        session: &[u8; 16],
        node: NodeId,
    ) -> Option<Self> {
        let height = height(node)?;
        let in_tree = node.index < POSITION_END >> height;
        (in_tree && SEGMENT_HEIGHTS.contains(&height)).then_some(Self {
            stream: *stream,
            lane: *lane,
            session: *session,
            node,
        })
    }

    /// The node of the tree that it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The element that stands for it: nobody knows its logarithm.
    pub(super) fn element(&self) -> RistrettoPoint {
        hash_to_element(CONTEXT, &self.bytes(LABEL))
    }

    /// What of a lane's pepper goes into this segment alone.
    pub(super) fn pepper(&self, pepper: &[u8; 32]) -> SecretArray<32> {
        SecretArray::init_with(|out| {
            let mut hasher = blake3::Hasher::new_keyed(pepper);
            let mut reader = hasher.update(&self.bytes(PEPPER_LABEL)).finalize_xof();
            reader.fill(out);
            reader.zeroize();
            hasher.zeroize();
        })
    }

    fn bytes(&self, label: &str) -> Vec<u8> {
        let depth = [self.node.depth];
        let index = self.node.index.to_be_bytes();
        delimited(
            label,
            &[&self.stream, &self.lane, &self.session, &depth, &index],
        )
    }
}

fn height(node: NodeId) -> Option<u8> {
    (POSITION_BITS as u8).checked_sub(node.depth)
}

/// Finds the fewest segments that lie in the positions `from..until`, in ascending order. They have
/// no gaps; what they leave over, at either end, is shorter than the smallest of them.
pub fn segments(from: u64, until: u64) -> Vec<NodeId> {
    let smallest = 1 << SEGMENT_HEIGHTS[0];
    let until = until.min(POSITION_END);
    let mut found = Vec::new();
    let mut at = from.min(POSITION_END).next_multiple_of(smallest);
    while at + smallest <= until {
        let fits = |height: &&u8| at.is_multiple_of(1 << **height) && at + (1 << **height) <= until;
        let height = SEGMENT_HEIGHTS
            .iter()
            .rfind(fits)
            .unwrap_or(&SEGMENT_HEIGHTS[0]);
        found.push(NodeId {
            depth: POSITION_BITS as u8 - height,
            index: at >> height,
        });
        at += 1 << height;
    }
    found
}

/// Reads every message of one segment of one session.
///
/// ```
/// use sealcast_crypto::{LaneSecret, NodeId, SegmentLabel};
///
/// let node = NodeId { depth: 32, index: 7 };
/// let segment = SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node).ok_or("no segment")?;
/// let key = LaneSecret::from_bytes(&[7; 64])?.segment_key(&segment);
/// let same = &key;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0599
/// use sealcast_crypto::{LaneSecret, NodeId, SegmentLabel};
///
/// let node = NodeId { depth: 32, index: 7 };
/// let segment = SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node).ok_or("no segment")?;
/// let key = LaneSecret::from_bytes(&[7; 64])?.segment_key(&segment);
/// let same = key.clone();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SegmentKey {
    key: SecretArray<KEY_LEN>,
    /// Stands in the record, so it need not be wiped.
    commitment: [u8; COMMITMENT_LEN],
    associated: Vec<u8>,
}

impl SegmentKey {
    /// The key of a segment, of what k nodes compute together and what each of them knows.
    pub(super) fn derive(segment: &SegmentLabel, evaluated: &[u8; 32], pepper: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(pepper);
        absorb(&mut hasher, KEY_LABEL, &[evaluated, &segment.bytes(LABEL)]);
        let mut reader = hasher.finalize_xof();
        let key = SecretArray::init_with(|bytes| reader.fill(bytes));
        let mut commitment = [0; COMMITMENT_LEN];
        reader.fill(&mut commitment);
        reader.zeroize();
        hasher.zeroize();
        Self {
            key,
            commitment,
            associated: segment.bytes(SEALED_LABEL),
        }
    }

    /// Seals the key of the segment's node. There is one such key, so that one key seals one thing.
    pub fn seal(&self, node: &NodeKey) -> [u8; SEALED_SEGMENT_LEN] {
        let mut ciphertext = *node.expose();
        let tag = seal_in_place(
            self.key.expose(),
            [0; 12],
            &self.associated,
            &mut ciphertext,
        );
        let mut sealed = [0; SEALED_SEGMENT_LEN];
        let (commitment, rest) = sealed.split_at_mut(COMMITMENT_LEN);
        commitment.copy_from_slice(&self.commitment);
        rest[..KEY_LEN].copy_from_slice(&ciphertext);
        rest[KEY_LEN..].copy_from_slice(&tag);
        sealed
    }

    /// Opens what was sealed for the segment.
    ///
    /// # Errors
    ///
    /// Fails when it was sealed under another key, or altered.
    pub fn open(&self, sealed: &[u8; SEALED_SEGMENT_LEN]) -> Result<NodeKey, OpenError> {
        let (commitment, rest) = sealed.split_at(COMMITMENT_LEN);
        let split = rest.split_last_chunk::<TAG_LEN>();
        let (ciphertext, tag) = split.ok_or(OpenError::NotAuthentic)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(OpenError::NotAuthentic);
        }
        let mut opened = false;
        let node = NodeKey::init_with(|bytes| {
            bytes.copy_from_slice(ciphertext);
            opened = open_in_place(self.key.expose(), [0; 12], &self.associated, bytes, tag);
        });
        opened.then_some(node).ok_or(OpenError::NotAuthentic)
    }
}

redacted_debug!(SegmentKey);

//! The key tree of a session: 48 levels over the position (`spec/key-tree.md`).

use alloc::vec::Vec;

use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::digest::digest;
use crate::secret::{SecretArray, redacted_debug};

/// Bits of a position, and so levels of the tree.
pub const POSITION_BITS: u32 = 48;

/// The end of all positions: no position reaches it.
pub const POSITION_END: u64 = 1 << POSITION_BITS;

/// The most nodes that [`cover`] ever needs.
pub const COVER_NODES_MAX: usize = 94;

/// `spec/key-tree.md`, section "Nodes".
const CHILDREN_LABEL: &[u8] = b"sealcast.v1 tree children";

/// `spec/key-tree.md`, section "Root".
const COMMITMENT_LABEL: &str = "sealcast.v1 tree root commitment";

/// Names a node of the tree: the root has depth 0 and index 0, a leaf has depth 48 and its position
/// as index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Steps from the root, at most 48.
    pub depth: u8,
    /// Place among the nodes of this depth, counted from the left.
    pub index: u64,
}

impl NodeId {
    /// The first position below the node, clamped to [`POSITION_END`].
    pub fn from(self) -> u64 {
        self.bound(self.index)
    }

    /// The first position after the node, clamped to [`POSITION_END`].
    pub fn until(self) -> u64 {
        self.bound(self.index.saturating_add(1))
    }

    fn bound(self, index: u64) -> u64 {
        let height = POSITION_BITS.saturating_sub(u32::from(self.depth));
        index.saturating_mul(1 << height).min(POSITION_END)
    }
}

/// Finds the fewest nodes that span the positions `from..until` and no other, in ascending order.
///
/// `until` is clamped to [`POSITION_END`]; there are none when `from >= until`.
pub fn cover(from: u64, until: u64) -> Vec<NodeId> {
    let until = until.min(POSITION_END);
    let mut nodes = Vec::new();
    let mut at = from;
    while at < until {
        let aligned = at.trailing_zeros().min(POSITION_BITS);
        let height = aligned.min((until - at).ilog2());
        nodes.push(NodeId {
            depth: (POSITION_BITS - height) as u8,
            index: at >> height,
        });
        at += 1 << height;
    }
    nodes
}

/// Derives both children of a node, left then right.
pub(crate) fn children(node: &[u8; 32], out: &mut [u8; 64]) {
    let mut hasher = blake3::Hasher::new_keyed(node);
    let mut reader = hasher.update(CHILDREN_LABEL).finalize_xof();
    reader.fill(out);
    reader.zeroize();
    hasher.zeroize();
}

/// Reads every message of one session: all keys of its tree grow from it.
///
/// ```
/// let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(7));
/// let copy = root.duplicate();
/// ```
///
/// ```compile_fail,E0599
/// let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(7));
/// let copy = root.clone();
/// ```
pub struct SessionRoot(SecretArray<32>);

impl SessionRoot {
    /// Draws a new root.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(SecretArray::generate(rng))
    }

    /// Makes a root in place, so that its bytes never lie anywhere else.
    pub fn init_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        Self(SecretArray::init_with(fill))
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// Shows the bytes to code that stores or wraps them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// What a session record may show of the root: it fits this root alone and opens nothing.
    pub fn commitment(&self) -> [u8; 32] {
        *digest(COMMITMENT_LABEL, &[self.expose()]).as_bytes()
    }
}

/// Reads every message sealed below one node of a session's tree.
///
/// ```
/// let key = sealcast_crypto::NodeKey::init_with(|bytes| bytes.fill(7));
/// let copy = key.duplicate();
/// ```
///
/// ```compile_fail,E0599
/// let key = sealcast_crypto::NodeKey::init_with(|bytes| bytes.fill(7));
/// let copy = key.clone();
/// ```
pub struct NodeKey(SecretArray<32>);

impl NodeKey {
    /// Makes a key in place, so that its bytes never lie anywhere else.
    pub fn init_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        Self(SecretArray::init_with(fill))
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self(self.0.duplicate())
    }

    /// Shows the bytes to code that stores or wraps them.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

redacted_debug!(SessionRoot NodeKey);

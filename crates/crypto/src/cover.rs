//! Covers with their keys: the right to read an interval (`spec/key-tree.md`, section "Covers").

use alloc::vec::Vec;

use crate::secret::{SecretBytes, redacted_debug};
use crate::tree::{NodeId, NodeKey, POSITION_END, SessionRoot, cover};
use crate::walker::Descent;

const KEY_LEN: usize = 32;

/// Reads every message sealed at a position of one interval of one session, and none outside.
///
/// The interval is half-open, and its end is never beyond [`POSITION_END`].
///
/// ```
/// let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(7));
/// let copy = sealcast_crypto::Cover::whole(&root).duplicate();
/// ```
///
/// ```compile_fail,E0599
/// let root = sealcast_crypto::SessionRoot::init_with(|bytes| bytes.fill(7));
/// let copy = sealcast_crypto::Cover::whole(&root).clone();
/// ```
pub struct Cover {
    from: u64,
    until: u64,
    nodes: Vec<NodeId>,
    keys: SecretBytes,
}

impl Cover {
    /// Derives the cover of `from..until`, with `until` clamped to [`POSITION_END`]. It is empty
    /// when `from >= until`.
    pub fn from_root(root: &SessionRoot, from: u64, until: u64) -> Self {
        Self::whole(root).derive(from, until.min(POSITION_END))
    }

    /// The cover of a whole session: the root is the key of the topmost node.
    pub fn whole(root: &SessionRoot) -> Self {
        Self::from_node_bytes(NodeId { depth: 0, index: 0 }, root.expose())
    }

    /// The cover that one node is; it is empty when there is no such node.
    pub fn from_node(node: NodeId, key: &NodeKey) -> Self {
        Self::from_node_bytes(node, key.expose())
    }

    fn from_node_bytes(node: NodeId, key: &[u8; KEY_LEN]) -> Self {
        let nodes = cover(node.from(), node.until());
        let mut keys = SecretBytes::with_capacity(KEY_LEN);
        if nodes == [node] {
            keys.extend_from_slice(key);
        }
        Self {
            from: node.from(),
            until: node.until(),
            nodes,
            keys,
        }
    }

    /// Takes the keys of `cover(from, until)`, concatenated in order, as
    /// [`key_bytes`](Self::key_bytes) gives them.
    ///
    /// Nothing can be said about the keys themselves: whether they belong to the session shows
    /// when they open a message.
    ///
    /// # Errors
    ///
    /// Fails when the interval is empty or the number of bytes is not what it needs.
    pub fn from_key_bytes(from: u64, until: u64, keys: &[u8]) -> Result<Self, CoverError> {
        let until = until.min(POSITION_END);
        let nodes = cover(from, until);
        if nodes.is_empty() {
            return Err(CoverError::EmptyInterval);
        }
        if keys.len() != nodes.len() * KEY_LEN {
            return Err(CoverError::KeyLength);
        }
        let mut own = SecretBytes::with_capacity(keys.len());
        own.extend_from_slice(keys);
        Ok(Self {
            from,
            until,
            nodes,
            keys: own,
        })
    }

    /// The first position that it reads.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The first position that it no longer reads.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Whether it reads a position.
    pub fn contains(&self, position: u64) -> bool {
        (self.from..self.until).contains(&position)
    }

    /// The nodes that it holds the keys of: `cover(from, until)`.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// The keys of [`nodes`](Self::nodes), 32 bytes each, concatenated in order.
    pub fn key_bytes(&self) -> SecretBytes {
        self.keys.duplicate()
    }

    /// Makes a second copy, for a holder that must outlive this one.
    pub fn duplicate(&self) -> Self {
        Self {
            from: self.from,
            until: self.until,
            nodes: self.nodes.clone(),
            keys: self.keys.duplicate(),
        }
    }

    /// Derives the cover of a smaller interval, with `until` clamped to [`POSITION_END`]; `None`
    /// when it is empty or not inside this one.
    pub fn narrow(&self, from: u64, until: u64) -> Option<Self> {
        let until = until.min(POSITION_END);
        let inside = self.from <= from && from < until && until <= self.until;
        inside.then(|| self.derive(from, until))
    }

    /// Derives the key of one node; `None` when it reaches outside the interval.
    pub fn node_key(&self, node: NodeId) -> Option<NodeKey> {
        let narrow = self.narrow(node.from(), node.until())?;
        let exact = narrow.nodes == [node];
        exact.then(|| NodeKey::init_with(|bytes| bytes.copy_from_slice(narrow.keys.expose())))
    }

    fn derive(&self, from: u64, until: u64) -> Self {
        let nodes = cover(from, until);
        let mut keys = SecretBytes::with_capacity(nodes.len() * KEY_LEN);
        let mut descent = Descent::new();
        for node in &nodes {
            if let Some(key) = descent.key(self, *node) {
                keys.extend_from_slice(key);
            }
        }
        Self {
            from,
            until,
            nodes,
            keys,
        }
    }

    /// Finds the last held node that begins at or before a position, with its key.
    pub(crate) fn last_node_from(&self, position: u64) -> Option<(NodeId, &[u8; KEY_LEN])> {
        let after = self.nodes.partition_point(|node| node.from() <= position);
        let at = after.checked_sub(1)?;
        let (keys, _) = self.keys.expose().as_chunks();
        Some((*self.nodes.get(at)?, keys.get(at)?))
    }
}

redacted_debug!(Cover);

/// Why bytes are not the keys of a cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoverError {
    /// The interval holds no position.
    #[error("interval is empty")]
    EmptyInterval,
    /// There are more or fewer keys than the interval has nodes.
    #[error("number of key bytes does not fit the interval")]
    KeyLength,
}

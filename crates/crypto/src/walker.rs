//! Cheap derivation of neighbouring keys (`spec/key-tree.md`, section "Nodes").

use alloc::boxed::Box;

use zeroize::ZeroizeOnDrop;

use crate::cover::Cover;
use crate::secret::redacted_debug;
use crate::tree::{NodeId, POSITION_BITS, children};

/// Derives the keys of single positions from a [`Cover`] and remembers the way to the last one.
///
/// Neighbours share most of their way: positions in order cost one step of the tree on average, the
/// same position again costs none, a jump at most 48.
///
/// ```
/// # use sealcast_crypto::{Cover, SessionRoot, Walker};
/// let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// let walker = Walker::new(Cover::whole(&root));
/// let shown = walker.cover();
/// ```
///
/// ```compile_fail,E0599
/// # use sealcast_crypto::{Cover, SessionRoot, Walker};
/// let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// let walker = Walker::new(Cover::whole(&root));
/// let copy = walker.clone();
/// ```
pub struct Walker {
    cover: Cover,
    descent: Descent,
}

impl Walker {
    /// Starts with nothing derived.
    pub fn new(cover: Cover) -> Self {
        let descent = Descent::new();
        Self { cover, descent }
    }

    /// The key of one position; `None` when the cover does not contain it.
    pub fn leaf(&mut self, position: u64) -> Option<Leaf<'_>> {
        let leaf = NodeId {
            depth: POSITION_BITS as u8,
            index: position,
        };
        self.descent.key(&self.cover, leaf).map(Leaf)
    }

    /// The cover that it derives from.
    pub fn cover(&self) -> &Cover {
        &self.cover
    }

    /// Gives the cover back.
    pub fn into_cover(self) -> Cover {
        self.cover
    }
}

/// Reads every message sealed at one position of one session.
///
/// ```
/// # use sealcast_crypto::{Cover, SessionRoot, Walker};
/// # let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// # let mut walker = Walker::new(Cover::whole(&root));
/// let leaf = walker.leaf(5).ok_or("outside")?;
/// let held = [leaf];
/// # Ok::<(), &str>(())
/// ```
///
/// ```compile_fail,E0382
/// # use sealcast_crypto::{Cover, SessionRoot, Walker};
/// # let root = SessionRoot::init_with(|bytes| bytes.fill(7));
/// # let mut walker = Walker::new(Cover::whole(&root));
/// let leaf = walker.leaf(5).ok_or("outside")?;
/// let held = [leaf, leaf];
/// # Ok::<(), &str>(())
/// ```
pub struct Leaf<'a>(&'a [u8; 32]);

impl Leaf<'_> {
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0
    }
}

redacted_debug!(Walker Descent);

impl core::fmt::Debug for Leaf<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Leaf(..)")
    }
}

/// The way down to one node, with both children of every node passed.
///
/// It belongs to one cover: every call must name the same.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Descent {
    /// Entry `d` holds the children of the node of depth `d` on the way.
    pairs: Box<[[u8; 64]; POSITION_BITS as usize]>,
    /// The position that the way leads to.
    #[zeroize(skip)]
    at: u64,
    /// Entries from the held node's depth to here are filled.
    #[zeroize(skip)]
    end: usize,
}

impl Descent {
    pub(crate) fn new() -> Self {
        Self {
            pairs: Box::new([[0; 64]; POSITION_BITS as usize]),
            at: 0,
            end: 0,
        }
    }

    /// Derives the key of a node that lies below a held node of the cover.
    pub(crate) fn key<'a>(&'a mut self, cover: &'a Cover, node: NodeId) -> Option<&'a [u8; 32]> {
        let to = node.from();
        let (held, held_key) = cover.last_node_from(to)?;
        let (begin, depth) = (usize::from(held.depth), usize::from(node.depth));
        let inside = to < held.until() && node.until() <= held.until();
        if !inside || depth > self.pairs.len() {
            return None;
        }
        // Held nodes have no position in common: when the old way is shared as far down as this
        // one, it went through this one.
        let kept = self.end.min(shared_levels(self.at, to) + 1).max(begin);
        for at in kept..depth {
            let (above, below) = self.pairs.split_at_mut(at);
            let parent = match above.last() {
                Some(pair) if at > begin => half(pair, to, at),
                _ => held_key,
            };
            children(parent, &mut below[0]);
        }
        (self.at, self.end) = (to, depth);
        if depth == begin {
            return Some(held_key);
        }
        Some(half(&self.pairs[depth - 1], to, depth))
    }
}

/// How many bits, from the highest, two positions have in common.
fn shared_levels(one: u64, other: u64) -> usize {
    ((one ^ other).leading_zeros() - (u64::BITS - POSITION_BITS)) as usize
}

/// The child of depth `depth` on the way to a position.
fn half(pair: &[u8; 64], to: u64, depth: usize) -> &[u8; 32] {
    let (halves, _) = pair.as_chunks();
    let right = to >> (POSITION_BITS as usize - depth) & 1;
    &halves[right as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SessionRoot;

    #[test]
    fn a_node_that_no_held_node_contains_has_no_key() {
        let root = SessionRoot::init_with(|bytes| bytes.fill(7));
        let (cover, mut descent) = (Cover::from_root(&root, 8, 16), Descent::new());
        let node = |depth, index| NodeId { depth, index };
        assert!(descent.key(&cover, node(45, 1)).is_some());
        assert!(descent.key(&cover, node(48, 7)).is_none());
        assert!(descent.key(&cover, node(48, 16)).is_none());
        assert!(descent.key(&cover, node(49, 8)).is_none());
        let cover = Cover::from_root(&root, 0, 8);
        assert!(Descent::new().key(&cover, node(44, 0)).is_none());
    }

    #[test]
    fn a_leaf_is_right_after_a_node_that_begins_with_it() {
        let root = SessionRoot::init_with(|bytes| bytes.fill(7));
        let cover = Cover::whole(&root);
        let node = |depth, index| NodeId { depth, index };
        let mut descent = Descent::new();
        assert!(descent.key(&cover, node(48, 3)).is_some());
        assert!(descent.key(&cover, node(45, 1)).is_some());
        let mut fresh = Descent::new();
        let expected = fresh.key(&cover, node(48, 8));
        assert_eq!(descent.key(&cover, node(48, 8)), expected);
    }
}

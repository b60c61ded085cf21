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
    /// Depth of the held node where the way begins.
    #[zeroize(skip)]
    begin: usize,
    /// Entries `begin..end` are filled.
    #[zeroize(skip)]
    end: usize,
}

impl Descent {
    pub(crate) fn new() -> Self {
        Self {
            pairs: Box::new([[0; 64]; POSITION_BITS as usize]),
            at: 0,
            begin: 0,
            end: 0,
        }
    }

    /// Derives the key of a node that lies below a held node of the cover.
    pub(crate) fn key<'a>(&'a mut self, cover: &'a Cover, node: NodeId) -> Option<&'a [u8; 32]> {
        let to = node.from();
        let (held, held_key) = cover.node_above(to)?;
        let (begin, depth) = (usize::from(held.depth), usize::from(node.depth));
        if node.until() > held.until() || depth > self.pairs.len() {
            return None;
        }
        // Two held nodes of one depth part above it: so many shared levels mean the same node.
        let shared = shared_levels(self.at, to);
        let kept = if begin == self.begin && shared >= begin {
            self.end.min(shared + 1)
        } else {
            begin
        };
        for at in kept..depth {
            let (above, below) = self.pairs.split_at_mut(at);
            let parent = match above.last() {
                Some(pair) if at > begin => half(pair, to, at),
                _ => held_key,
            };
            children(parent, &mut below[0]);
        }
        (self.at, self.begin, self.end) = (to, begin, kept.max(depth));
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

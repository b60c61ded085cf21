//! One signature for several envelopes, `spec/envelope.md`, section "Batches".
//!
//! The digests of a batch are the leaves of a binary tree, and what is signed is its root. Each
//! envelope carries the nodes beside its way up, so that it is checked without the others.

use alloc::vec::Vec;

use sealcast_crypto::{Digest, digest};

/// Envelopes that one signature may cover, at most.
pub const BATCH_MAX: usize = 1 << DEPTH_MAX;
/// Bytes that an envelope of a batch has more than one that is signed by itself, at most.
pub const BATCH_OVERHEAD_MAX: usize = DEPTH_MAX * NODE_LEN + 2;

const DEPTH_MAX: usize = 8;
const NODE_LEN: usize = 32;
const PAIR_LABEL: &str = "sealcast.v1 envelope pair";
/// Stands for a leaf that a batch does not have.
const NO_LEAF: [u8; NODE_LEN] = [0; NODE_LEN];

/// Where an envelope is in its batch.
#[derive(Clone, Copy)]
pub(super) struct Proof<'a> {
    /// Which leaf it is.
    place: u8,
    /// The nodes beside its way up, the leaf's neighbour first.
    path: &'a [[u8; NODE_LEN]],
    bytes: &'a [u8],
}

impl<'a> Proof<'a> {
    /// Takes it from the end of what stands before the signature; also returns what is left. `None`
    /// where none stands there.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let (_, [place, depth]) = bytes.split_last_chunk()?;
        let (place, depth) = (*place, usize::from(*depth));
        let is_inside = (1..=DEPTH_MAX).contains(&depth) && usize::from(place) >> depth == 0;
        let at = bytes.len().checked_sub(depth * NODE_LEN + 2)?;
        let (before, bytes) = bytes.split_at_checked(at)?;
        let (path, _) = bytes.split_at_checked(depth * NODE_LEN)?;
        let (path, _) = path.as_chunks();
        is_inside.then_some((before, Self { place, path, bytes }))
    }

    /// As it travels.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What is signed, where the envelope has this digest.
    pub(super) fn root(&self, leaf: &Digest) -> Digest {
        let levels = self.path.iter().enumerate();
        levels.fold(*leaf, |node, (level, beside)| {
            match self.place >> level & 1 {
                0 => pair(node.as_bytes(), beside),
                _ => pair(beside, node.as_bytes()),
            }
        })
    }
}

/// The tree of a batch.
pub(super) struct Tree {
    /// From the leaves to the two below the root.
    levels: Vec<Vec<[u8; NODE_LEN]>>,
    root: Digest,
}

impl Tree {
    /// Of 1 to [`BATCH_MAX`] leaves.
    pub(super) fn of(leaves: impl Iterator<Item = Digest>) -> Self {
        let mut level: Vec<_> = leaves.map(|leaf| *leaf.as_bytes()).collect();
        let mut levels = Vec::new();
        loop {
            // A level has two nodes at least, and pairs alone.
            let nodes = level.len().max(2).next_power_of_two();
            level.resize(nodes, NO_LEAF);
            let above = level.chunks_exact(2).map(|of| pair(&of[0], &of[1]));
            let above: Vec<_> = above.collect();
            levels.push(level);
            if let [root] = above[..] {
                return Self { levels, root };
            }
            level = above.iter().map(|node| *node.as_bytes()).collect();
        }
    }

    pub(super) fn root(&self) -> &Digest {
        &self.root
    }

    /// Appends what [`Proof::split`] takes.
    pub(super) fn write_proof(&self, place: usize, bytes: &mut Vec<u8>) {
        for (height, level) in self.levels.iter().enumerate() {
            let beside = level.get(place >> height ^ 1).unwrap_or(&NO_LEAF);
            bytes.extend_from_slice(beside);
        }
        // Neither is above 255: there are no more leaves and levels.
        bytes.extend_from_slice(&[place as u8, self.levels.len() as u8]);
    }
}

fn pair(left: &[u8; NODE_LEN], right: &[u8; NODE_LEN]) -> Digest {
    digest(PAIR_LABEL, &[left, right])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: usize) -> Digest {
        digest("leaf", &[&number.to_be_bytes()])
    }

    #[test]
    fn every_leaf_of_every_batch_leads_to_its_root_and_no_other_does() {
        for count in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 255, 256] {
            let tree = Tree::of((0..count).map(leaf));
            for place in 0..count {
                let mut bytes = b"ciphertext".to_vec();
                tree.write_proof(place, &mut bytes);
                assert!(bytes.len() <= 10 + BATCH_OVERHEAD_MAX);
                let (before, proof) = Proof::split(&bytes).unwrap();
                assert_eq!(before, b"ciphertext");
                assert_eq!(proof.root(&leaf(place)), *tree.root(), "{place} of {count}");
                assert_ne!(proof.root(&leaf(place + 1)), *tree.root());
            }
        }
    }

    #[test]
    fn a_batch_of_three_is_put_together_as_the_page_says() {
        let tree = Tree::of((0..3).map(leaf));
        let [a, b, c] = [0, 1, 2].map(|of| *leaf(of).as_bytes());
        let left = pair(&a, &b);
        let right = pair(&c, &[0; 32]);
        assert_eq!(*tree.root(), pair(left.as_bytes(), right.as_bytes()));
        let mut bytes = Vec::new();
        tree.write_proof(2, &mut bytes);
        assert_eq!(bytes, [&[0; 32][..], left.as_bytes(), &[2, 2]].concat());
    }

    #[test]
    fn what_is_not_a_place_in_a_tree_is_refused() {
        let path = |depth: usize, end: [u8; 2]| [&[7; 9 * 32][..depth * 32], &end].concat();
        let is_place = |bytes: &[u8]| Proof::split(bytes).is_some();
        assert!(is_place(&path(1, [1, 1])) && is_place(&path(8, [255, 8])));
        assert!(!is_place(b"") && !is_place(&[0]) && !is_place(&[0, 1]));
        assert!(!is_place(&path(1, [0, 0])), "a tree of one leaf alone");
        assert!(!is_place(&path(9, [0, 9])), "deeper than may be");
        assert!(!is_place(&path(1, [2, 1])), "a leaf that is not there");
        assert!(!is_place(&path(2, [4, 2])));
        assert!(!is_place(&path(1, [0, 2])), "too short");
    }
}

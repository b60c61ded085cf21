//! A cover opens its interval, all of it, and nothing else.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sealcast_crypto::{
    COVER_NODES_MAX, Cover, CoverError, MessageContext, MessageKey, NodeId, NodeKey, POSITION_END,
    SessionRoot, Walker, cover,
};

/// Where an 8-level subtree of the 48 levels begins, far from both ends.
const SMALL: u64 = 0x1234_5678_9a00;

#[test]
fn covers_of_a_small_tree_are_the_largest_nodes_inside_the_interval() {
    for (from, until) in intervals(256) {
        let expected = largest_inside(Unit::BOTTOM, from, until);
        assert_eq!(cover(SMALL + from, SMALL + until), expected);
    }
}

#[test]
fn covers_at_the_top_of_the_tree_are_the_largest_nodes_inside_the_interval() {
    for (from, until) in intervals(256) {
        let expected = largest_inside(Unit::TOP, from, until);
        assert_eq!(cover(from << 40, until << 40), expected);
    }
}

#[test]
fn every_interval_of_a_small_tree_gets_exactly_the_keys_of_its_nodes() {
    let keys = subtree_keys();
    let root = root();
    for (from, until) in intervals(256) {
        let cover = Cover::from_root(&root, SMALL + from, SMALL + until);
        let expected: Vec<u8> = (cover.nodes().iter()).flat_map(|node| keys[node]).collect();
        assert_eq!(cover.key_bytes().expose(), expected);
    }
}

#[test]
fn every_interval_of_a_small_tree_derives_exactly_its_leaves() {
    let root = root();
    let truth: Vec<_> = (0..64).map(|at| naive_commitment(SMALL + at)).collect();
    for (from, until) in intervals(64) {
        let cover = Cover::from_root(&root, SMALL + from, SMALL + until);
        let mut walker = Walker::new(cover);
        for (at, truth) in (0..64).zip(&truth) {
            let commitment = commitment(&mut walker, SMALL + at);
            let expected = (from..until).contains(&at).then_some(*truth);
            assert_eq!(commitment, expected, "{at} from {from} until {until}");
        }
        assert!(walker.leaf(SMALL - 1).is_none() && walker.leaf(SMALL + 64).is_none());
    }
}

#[test]
fn readers_of_a_small_tree_who_pool_their_keys_reach_exactly_the_union() {
    let (root, keys) = (root(), subtree_keys());
    let by_key: BTreeMap<[u8; 32], NodeId> = keys.iter().map(|(id, key)| (*key, *id)).collect();
    let reach = |from: u64, until: u64| -> BTreeSet<[u8; 32]> {
        let cover = Cover::from_root(&root, SMALL + from, SMALL + until);
        let held = cover.key_bytes();
        held.expose().chunks(32).flat_map(all_below).collect()
    };
    // Everything that is derivable from what a node key gives, whatever the holder thinks it is.
    fn all_below(key: &[u8]) -> BTreeSet<[u8; 32]> {
        let mut all = BTreeSet::new();
        let mut open = vec![(<[u8; 32]>::try_from(key).unwrap(), 0)];
        while let Some((key, depth)) = open.pop() {
            all.insert(key);
            if depth < 8 {
                open.extend(naive_children(&key).map(|child| (child, depth + 1)));
            }
        }
        all
    }
    for (one, other) in [
        ((3, 17), (17, 40)),
        ((0, 128), (129, 256)),
        ((7, 9), (200, 255)),
        ((5, 100), (50, 101)),
        ((1, 255), (1, 2)),
    ] {
        let pooled = reach(one.0, one.1)
            .into_iter()
            .chain(reach(other.0, other.1));
        let leaves: BTreeSet<u64> = pooled
            .filter_map(|key| by_key.get(&key))
            .inspect(|node| {
                let inside = |(from, until): (u64, u64)| {
                    SMALL + from <= node.from() && node.until() <= SMALL + until
                };
                assert!(inside(one) || inside(other), "{node:?} lies outside");
            })
            .filter(|node| node.depth == 48)
            .map(|node| node.index - SMALL)
            .collect();
        let union: BTreeSet<u64> = (one.0..one.1).chain(other.0..other.1).collect();
        assert_eq!(leaves, union);
    }
}

#[test]
fn no_cover_has_more_nodes_than_the_bound_and_one_reaches_it() {
    assert_eq!(cover(1, POSITION_END - 1).len(), COVER_NODES_MAX);
    for (from, until) in intervals(256) {
        assert!(cover(from, until).len() <= 14);
    }
}

#[test]
fn a_cover_from_now_on_has_24_nodes_on_average() {
    let scattered = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let nodes: usize = (1..=1_000)
        .map(|at| cover(scattered(at), POSITION_END).len())
        .sum();
    assert!((23_700..24_300).contains(&nodes), "{nodes} in 1,000");
}

#[test]
fn empty_intervals_have_no_nodes_and_ends_are_clamped() {
    assert_eq!(cover(5, 5), []);
    assert_eq!(cover(6, 5), []);
    assert_eq!(cover(POSITION_END, u64::MAX), []);
    assert_eq!(cover(u64::MAX, u64::MAX), []);
    assert_eq!(cover(0, u64::MAX), [NodeId { depth: 0, index: 0 }]);
    let whole = Cover::from_root(&root(), 0, u64::MAX);
    assert_eq!(whole.until(), POSITION_END);
    assert_eq!(whole.key_bytes().expose(), root().expose());
    let empty = Cover::from_root(&root(), 6, 5);
    assert!(empty.nodes().is_empty() && empty.key_bytes().is_empty() && !empty.contains(5));
    assert!(Walker::new(empty).leaf(5).is_none());
    let beyond = NodeId { depth: 3, index: 8 };
    assert_eq!(
        (beyond.from(), beyond.until()),
        (POSITION_END, POSITION_END)
    );
    let too_deep = NodeId {
        depth: 49,
        index: 3,
    };
    let key = NodeKey::init_with(|bytes| bytes.fill(1));
    assert!(Cover::from_node(beyond, &key).key_bytes().is_empty());
    assert!(Cover::from_node(too_deep, &key).key_bytes().is_empty());
    assert!(Cover::whole(&root()).node_key(too_deep).is_none());
}

/// A position is read from what a stranger sent.
#[test]
fn a_position_behind_the_end_has_no_leaf() {
    let mut whole = Walker::new(Cover::whole(&root()));
    let mut future = Walker::new(Cover::from_root(&root(), SMALL, POSITION_END));
    for position in [POSITION_END, POSITION_END + 1, 1 << 63, u64::MAX] {
        assert!(whole.leaf(position).is_none() && future.leaf(position).is_none());
    }
    assert!(whole.leaf(POSITION_END - 1).is_some() && future.leaf(POSITION_END - 1).is_some());
}

#[test]
fn key_bytes_must_fit_their_interval() {
    let cover = Cover::from_root(&root(), 3, 17);
    let keys = cover.key_bytes();
    let back = Cover::from_key_bytes(3, 17, keys.expose()).unwrap();
    assert_eq!(back.key_bytes().expose(), keys.expose());
    let short = &keys.expose()[1..];
    let refused = Cover::from_key_bytes(3, 17, short).map(|_| ());
    assert_eq!(refused, Err(CoverError::KeyLength));
    let long = [keys.expose(), &[0; 32]].concat();
    let refused = Cover::from_key_bytes(3, 17, &long).map(|_| ());
    assert_eq!(refused, Err(CoverError::KeyLength));
    let refused = Cover::from_key_bytes(3, 19, keys.expose()).map(|_| ());
    assert_eq!(refused, Err(CoverError::KeyLength));
    let refused = Cover::from_key_bytes(17, 17, &[]).map(|_| ());
    assert_eq!(refused, Err(CoverError::EmptyInterval));
}

#[test]
fn a_node_key_reads_what_lies_below_the_node() {
    let cover = Cover::from_root(&root(), SMALL, SMALL + 48);
    let node = NodeId {
        depth: 44,
        index: (SMALL >> 4) + 2,
    };
    let key = cover.node_key(node).unwrap();
    let mut below = Walker::new(Cover::from_node(node, &key));
    let mut whole = Walker::new(Cover::whole(&root()));
    for position in SMALL + 30..SMALL + 50 {
        let inside = (SMALL + 32..SMALL + 48).contains(&position);
        let expected = commitment(&mut whole, position).filter(|_| inside);
        assert_eq!(commitment(&mut below, position), expected);
    }
    let wider = NodeId {
        depth: 42,
        index: SMALL >> 6,
    };
    assert!(cover.node_key(wider).is_none());
}

/// The keys of a root of 32 times 7, written down once.
#[test]
fn the_tree_keeps_its_keys() {
    assert_eq!(
        hex(&root().commitment()),
        "42cc443cbb82b85861c9c002f1b6c01bbeac551afb66c4718caa50a7375863ef"
    );
    let cover = Cover::from_root(&root(), POSITION_END - 3, POSITION_END);
    assert_eq!(
        hex(cover.key_bytes().expose()),
        "31edbc9c12ca3b11e10b79d6cb046671a81178b7d21b781f3807ae317f180f6a4ab2bb4e4a06fa85ea33b2627960327236d39a49801eb41d0d51de2603257b1b"
    );
    let exact = Cover::from_root(&root(), 1_700_000_000_000, 1_700_000_000_003);
    assert_eq!(
        hex(exact.key_bytes().expose()),
        "2152da71c7bb3bd4e8604217e4c17d7e1f61bb4faa14f26ad159ca9d2397993f5ade8ec0b711909cc432f18c64151f89de104c2a4b390114ab4c72ea71039696"
    );
}

proptest! {
    #[test]
    fn a_cover_spans_its_interval_in_order_with_no_two_halves_of_one_node(
        one in 0..=POSITION_END, other in 0..=POSITION_END,
    ) {
        let (from, until) = (one.min(other), one.max(other));
        let nodes = cover(from, until);
        prop_assert!(nodes.len() <= COVER_NODES_MAX);
        let mut at = from;
        for node in &nodes {
            prop_assert_eq!(node.from(), at);
            at = node.until();
        }
        prop_assert_eq!(at, until);
        for pair in nodes.windows(2) {
            let siblings = pair[0].depth == pair[1].depth && pair[0].index % 2 == 0;
            prop_assert!(!siblings || pair[0].index + 1 != pair[1].index);
        }
    }

    #[test]
    fn a_cover_opens_exactly_its_interval(
        from in 0..POSITION_END, length in 1..=1_u64 << 40, inside in any::<u64>(),
    ) {
        let until = (from + length).min(POSITION_END);
        let mut walker = Walker::new(Cover::from_root(&root(), from, until));
        for position in [from, until - 1, from + inside % (until - from)] {
            prop_assert_eq!(commitment(&mut walker, position), Some(naive_commitment(position)));
        }
        prop_assert!(walker.leaf(until).is_none());
        prop_assert!(walker.leaf(from.wrapping_sub(1)).is_none());
    }

    #[test]
    fn a_narrowed_cover_is_the_cover_of_the_smaller_interval_and_never_wider(
        ends in prop::array::uniform4(0..=POSITION_END),
    ) {
        let (from, until) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let wide = Cover::from_root(&root(), from, until);
        let narrow = wide.narrow(ends[2], ends[3]);
        if from <= ends[2] && ends[2] < ends[3] && ends[3] <= until {
            let direct = Cover::from_root(&root(), ends[2], ends[3]);
            let narrow = narrow.unwrap();
            prop_assert_eq!((narrow.from(), narrow.until()), (ends[2], ends[3]));
            let (narrow, direct) = (narrow.key_bytes(), direct.key_bytes());
            prop_assert_eq!(narrow.expose(), direct.expose());
        } else {
            prop_assert!(narrow.is_none());
        }
    }

    #[test]
    fn two_readers_who_pool_their_keys_narrow_to_nothing_beyond_the_union(
        ends in prop::array::uniform4(0..=POSITION_END), position in 0..POSITION_END,
    ) {
        let one = Cover::from_root(&root(), ends[0], ends[1]);
        let other = Cover::from_root(&root(), ends[2], ends[3]);
        let granted = (ends[0]..ends[1]).contains(&position) || (ends[2]..ends[3]).contains(&position);
        let reached = one.narrow(position, position + 1).or(other.narrow(position, position + 1));
        prop_assert_eq!(reached.is_some(), granted);
    }

    #[test]
    fn a_walker_gives_what_naive_derivation_gives(
        from in 0..1_u64 << 20,
        steps in prop::collection::vec((any::<bool>(), 0..1_u64 << 21), 1..60),
    ) {
        let cover = Cover::from_root(&root(), SMALL + from, SMALL + (1 << 20));
        let mut walker = Walker::new(cover);
        let mut position = SMALL + from;
        for (jump, by) in steps {
            position = if jump { SMALL + by } else { position + by % 4 };
            let inside = walker.cover().contains(position);
            let expected = inside.then(|| naive_commitment(position));
            prop_assert_eq!(commitment(&mut walker, position), expected);
        }
    }
}

#[test]
fn a_walker_over_a_long_run_gives_what_naive_derivation_gives() {
    let mut walker = Walker::new(Cover::from_root(&root(), SMALL + 11, SMALL + 1_500));
    for position in SMALL..SMALL + 1_600 {
        let expected = walker
            .cover()
            .contains(position)
            .then(|| naive_commitment(position));
        assert_eq!(commitment(&mut walker, position), expected);
    }
}

#[test]
fn debug_shows_no_key_bytes() {
    let root = root();
    assert_eq!(format!("{root:?}"), "SessionRoot(..)");
    let key = NodeKey::init_with(|bytes| bytes.fill(7));
    assert_eq!(format!("{key:?}"), "NodeKey(..)");
    let cover = Cover::whole(&root);
    assert_eq!(format!("{cover:?}"), "Cover(..)");
    let mut walker = Walker::new(cover.duplicate());
    assert_eq!(format!("{:?}", walker.leaf(1)), "Some(Leaf(..))");
    assert_eq!(format!("{walker:?}"), "Walker(..)");
}

#[test]
fn duplicates_hold_the_same_bytes() {
    assert_eq!(root().duplicate().expose(), root().expose());
    let key = NodeKey::init_with(|bytes| bytes.fill(7));
    assert_eq!(key.duplicate().expose(), key.expose());
    let cover = Cover::from_root(&root(), 3, 17);
    let copy = Walker::new(cover.duplicate()).into_cover();
    assert_eq!((copy.from(), copy.until()), (3, 17));
    assert_eq!(copy.key_bytes().expose(), cover.key_bytes().expose());
}

/// One position of a small tree, in levels of the whole.
#[derive(Clone, Copy)]
struct Unit {
    top: NodeId,
    first: u64,
    height: u32,
}

impl Unit {
    const BOTTOM: Self = Self {
        top: NodeId {
            depth: 40,
            index: SMALL >> 8,
        },
        first: SMALL,
        height: 0,
    };
    const TOP: Self = Self {
        top: NodeId { depth: 0, index: 0 },
        first: 0,
        height: 40,
    };
}

/// All intervals with both ends among the first positions, the empty and backward ones too.
fn intervals(positions: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..=positions).flat_map(move |from| (0..=positions).map(move |until| (from, until)))
}

/// Descends from the top and takes each node that lies inside.
fn largest_inside(unit: Unit, from: u64, until: u64) -> Vec<NodeId> {
    let node = unit.top;
    let first = (node.from() - unit.first) >> unit.height;
    let end = (node.until() - unit.first) >> unit.height;
    if until <= first || end <= from {
        return vec![];
    }
    if from <= first && end <= until {
        return vec![node];
    }
    let child = |right| Unit {
        top: NodeId {
            depth: node.depth + 1,
            index: node.index * 2 + right,
        },
        ..unit
    };
    let mut nodes = largest_inside(child(0), from, until);
    nodes.extend(largest_inside(child(1), from, until));
    nodes
}

/// The keys of the small tree's nodes, each derived by itself.
fn subtree_keys() -> BTreeMap<NodeId, [u8; 32]> {
    (40..=48)
        .flat_map(|depth: u8| {
            let height = 48 - depth;
            let first = SMALL >> height;
            (first..first + (256 >> height)).map(move |index| NodeId { depth, index })
        })
        .map(|node| (node, naive_key(node)))
        .collect()
}

fn naive_key(node: NodeId) -> [u8; 32] {
    let mut key = *root().expose();
    for level in (0..node.depth).rev() {
        let right = node.index >> level & 1;
        key = naive_children(&key)[right as usize];
    }
    key
}

fn naive_children(key: &[u8; 32]) -> [[u8; 32]; 2] {
    let mut both = [0; 64];
    blake3::Hasher::new_keyed(key)
        .update(b"sealcast.v1 tree children")
        .finalize_xof()
        .fill(&mut both);
    let (left, right) = both.split_at(32);
    [left.try_into().unwrap(), right.try_into().unwrap()]
}

const CONTEXT: MessageContext<'_> = MessageContext {
    stream: &[1; 32],
    topic: b"t",
    header: &[2; 72],
};

fn commitment(walker: &mut Walker, position: u64) -> Option<[u8; 24]> {
    let leaf = walker.leaf(position)?;
    Some(MessageKey::derive(&leaf, &CONTEXT).commitment())
}

/// What the message key at a position commits to, with BLAKE3 alone.
fn naive_commitment(position: u64) -> [u8; 24] {
    let leaf = naive_key(NodeId {
        depth: 48,
        index: position,
    });
    let mut input = Vec::new();
    for part in [&b"sealcast.v1 message key"[..], &[1; 32], b"t", &[2; 72]] {
        input.extend((part.len() as u64).to_le_bytes());
        input.extend(part);
    }
    let mut key = [0; 56];
    let mut hasher = blake3::Hasher::new_keyed(&leaf);
    hasher.update(&input).finalize_xof().fill(&mut key);
    key[32..].try_into().unwrap()
}

fn root() -> SessionRoot {
    SessionRoot::init_with(|bytes| bytes.fill(7))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

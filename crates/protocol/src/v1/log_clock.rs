//! Sets of entries that hold, with each entry, its whole past.
//!
//! Entries lie in branches, each a run of one device's chain; a set says how much of each branch
//! lies in it. A set that grew from another shares what both have in common: were each a map of its
//! own, one device that forks often could fill the memory of every other.

use alloc::sync::Arc;

const WIDTH: usize = 8;
const WIDTH_BITS: u32 = 3;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) branch: u32,
    /// Entries of the branch before this one.
    pub(super) index: u32,
}

/// A set of entries, closed under "comes before".
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    root: Option<Arc<Tree>>,
    /// Levels of inner nodes above the lowest.
    height: u32,
}

#[derive(Debug)]
enum Tree {
    /// For each branch, how many of its entries are in the set.
    Lens([u32; WIDTH]),
    Inner([Option<Arc<Self>>; WIDTH]),
}

impl Clock {
    /// Whether an entry is in the set.
    pub(super) fn contains(&self, place: Place) -> bool {
        place.index < self.len(place.branch)
    }

    /// Adds an entry whose past is in the set already.
    pub(super) fn include(&mut self, place: Place) {
        let mut height = 0;
        while column(place.branch, height + 1) != 0 {
            height += 1;
        }
        let mut lens = [0; WIDTH];
        if let Some(len) = lens.get_mut(slot(place.branch, 0)) {
            *len = place.index.saturating_add(1);
        }
        let mut tree = Arc::new(Tree::Lens(lens));
        for level in 1..=height {
            tree = above(tree, slot(place.branch, level));
        }
        self.merge(&Self {
            root: Some(tree),
            height,
        });
    }

    /// Adds all of another set.
    pub(super) fn merge(&mut self, other: &Self) {
        let height = self.height.max(other.height);
        self.root = join(self.lifted(height).as_ref(), other.lifted(height).as_ref());
        self.height = height;
    }

    /// Whether all of another set is in it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        let height = self.height.max(other.height);
        let own = self.lifted(height);
        let both = join(own.as_ref(), other.lifted(height).as_ref());
        match (own, both) {
            (Some(own), Some(both)) => Arc::ptr_eq(&own, &both),
            (own, both) => own.is_none() && both.is_none(),
        }
    }

    fn len(&self, branch: u32) -> u32 {
        if column(branch, self.height + 1) != 0 {
            return 0;
        }
        let mut next = self.root.as_deref();
        let mut level = self.height;
        while let Some(tree) = next {
            match tree {
                Tree::Lens(lens) => {
                    return lens.get(slot(branch, 0)).copied().unwrap_or_default();
                }
                Tree::Inner(parts) => {
                    let part = parts.get(slot(branch, level));
                    next = part.and_then(Option::as_deref);
                    level = level.saturating_sub(1);
                }
            }
        }
        0
    }

    fn lifted(&self, height: u32) -> Option<Arc<Tree>> {
        let mut tree = self.root.clone()?;
        for _ in self.height..height {
            tree = above(tree, 0);
        }
        Some(tree)
    }
}

/// The number of the node over a branch, among those of a level.
fn column(branch: u32, level: u32) -> usize {
    branch.checked_shr(level * WIDTH_BITS).unwrap_or_default() as usize
}

/// Where a branch lies inside a node of a level.
fn slot(branch: u32, level: u32) -> usize {
    column(branch, level) % WIDTH
}

fn above(tree: Arc<Tree>, slot: usize) -> Arc<Tree> {
    let mut parts = [const { None }; WIDTH];
    if let Some(part) = parts.get_mut(slot) {
        *part = Some(tree);
    }
    Arc::new(Tree::Inner(parts))
}

/// Both sets together; one of the two itself where it holds the other.
fn join(a: Option<&Arc<Tree>>, b: Option<&Arc<Tree>>) -> Option<Arc<Tree>> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (one, other) => return one.or(other).cloned(),
    };
    if Arc::ptr_eq(a, b) {
        return Some(a.clone());
    }
    match (&**a, &**b) {
        (Tree::Lens(x), Tree::Lens(y)) => {
            let mut both = *x;
            for (len, other) in both.iter_mut().zip(y) {
                *len = (*len).max(*other);
            }
            match both {
                _ if both == *x => Some(a.clone()),
                _ if both == *y => Some(b.clone()),
                _ => Some(Arc::new(Tree::Lens(both))),
            }
        }
        (Tree::Inner(x), Tree::Inner(y)) => {
            let mut both = [const { None }; WIDTH];
            for (part, (one, other)) in both.iter_mut().zip(x.iter().zip(y)) {
                *part = join(one.as_ref(), other.as_ref());
            }
            match both {
                _ if same(&both, x) => Some(a.clone()),
                _ if same(&both, y) => Some(b.clone()),
                _ => Some(Arc::new(Tree::Inner(both))),
            }
        }
        (Tree::Lens(_), Tree::Inner(_)) | (Tree::Inner(_), Tree::Lens(_)) => {
            unreachable!("both were lifted to one height")
        }
    }
}

fn same(a: &[Option<Arc<Tree>>; WIDTH], b: &[Option<Arc<Tree>>; WIDTH]) -> bool {
    a.iter().zip(b).all(|pair| match pair {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    })
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    fn place(branch: u32, index: u32) -> Place {
        Place { branch, index }
    }

    #[test]
    fn a_set_holds_what_was_included_and_all_before_it_in_the_branch() {
        let mut set = Clock::default();
        for (branch, index) in [(0, 2), (7, 0), (8, 5), (1_000, 1), (u32::MAX, 3)] {
            set.include(place(branch, index));
            assert!(set.contains(place(branch, index)) && set.contains(place(branch, 0)));
            assert!(!set.contains(place(branch, index + 1)));
        }
        assert!(!set.contains(place(9, 0)) && !set.contains(place(1_000_000, 0)));
        assert!(set.contains(place(0, 2)) && set.contains(place(8, 5)));
    }

    #[test]
    fn joined_sets_agree_with_a_plain_map() {
        let mut sets = [Clock::default(), Clock::default()];
        let mut maps = [BTreeMap::new(), BTreeMap::new()];
        let mut random = 7_u32;
        for step in 0..2_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (branch, index) = ((random >> 8) % 700, (random >> 20) % 9);
            let one = step % 2;
            sets[one].include(place(branch, index));
            let len = maps[one].entry(branch).or_insert(0);
            *len = (index + 1).max(*len);
            if step % 97 == 0 {
                let [a, b] = &mut sets;
                a.merge(b);
                for (branch, len) in maps[1].clone() {
                    let own = maps[0].entry(branch).or_insert(0);
                    *own = len.max(*own);
                }
            }
        }
        for (set, map) in sets.iter().zip(&maps) {
            for branch in 0..800 {
                assert_eq!(set.len(branch), map.get(&branch).copied().unwrap_or(0));
            }
        }
    }

    #[test]
    fn joining_a_subset_copies_nothing() {
        let mut small = Clock::default();
        small.include(place(3, 1));
        let mut large = small.clone();
        large.include(place(90, 1));
        let before = large.root.clone();
        large.merge(&small);
        assert!(
            before
                .zip(large.root)
                .is_some_and(|(a, b)| Arc::ptr_eq(&a, &b))
        );
    }
}

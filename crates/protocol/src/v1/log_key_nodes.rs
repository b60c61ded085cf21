//! Which key nodes a stream has, `spec/access-log.md`, section 7, and `spec/key-nodes.md`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::NODES_MAX;

use crate::ids::{DeviceId, LogHash, Position, UserId};
use crate::v1::log_clock::Clock;
use crate::v1::log_graph::AccessLog;
use crate::v1::log_rules::View;
use crate::v1::log_state::LogState;

/// Most alternatives that a condition has, and most demands of each.
pub const CONDITION_MAX: usize = 8;
/// Most users whom one demand names.
pub const APPROVERS_MAX: usize = 32;
/// Most users whom all demands of a condition name.
const ALL_APPROVERS_MAX: usize = 64;

/// The servers that release keys when enough of them find somebody entitled.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct KeyNodes {
    /// How many must answer; 0 where the stream is to have no key nodes any more.
    #[n(0)]
    pub threshold: u8,
    /// The nodes, strictly ascending by user: nobody counts twice.
    #[n(1)]
    pub nodes: Vec<KeyNode>,
    /// What must hold besides what the log says.
    #[n(2)]
    pub condition: Condition,
    /// Publishers draw new lane secrets where it is another one than before.
    #[n(3)]
    pub generation: u32,
}

/// What the counting entries about key nodes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyNodeSets {
    pub(super) named: BTreeMap<LogHash, KeyNodes>,
    pub(super) in_force: Option<LogHash>,
    /// Those that no other one follows: one, where somebody knew of all others.
    pub(super) newest: Vec<LogHash>,
    /// Whether that one counts, or there is none.
    is_settled: bool,
    /// Those that follow all under which keys were given that reach on, and are none of these. None where nothing
    /// that was given reaches further than it would now.
    bounding: Option<Vec<LogHash>>,
    /// Those that do not count since their authors were removed, and that none that counts follows.
    void: Vec<LogHash>,
    /// Those that anybody named who might.
    generations: BTreeSet<u32>,
}

/// One key node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct KeyNode {
    /// The user that the node is.
    #[n(0)]
    pub user: UserId,
    /// The device of that user which holds shares and answers.
    #[n(1)]
    pub device: DeviceId,
}

/// When key nodes release, beyond what the log says: one of these alternatives must hold, and all
/// demands of it. Without an alternative nothing more is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct Condition(#[n(0)] pub Vec<Vec<Demand>>);

/// One thing that must hold, by the node's clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
pub enum Demand {
    /// It is this time, or later.
    #[n(0)]
    After(#[n(0)] Position),
    /// It is not this time yet.
    #[n(1)]
    Before(#[n(0)] Position),
    /// So many of some users approve of whoever asks.
    #[n(2)]
    Approved(#[n(0)] Approvers),
}

/// Users of whom so many must approve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Approvers {
    /// How many.
    #[n(0)]
    pub needed: u8,
    /// Of whom, strictly ascending.
    #[n(1)]
    pub of: Vec<UserId>,
}

impl Condition {
    /// Whether it holds at a time. `approves` tells whether a user approves of whoever asks.
    pub fn holds(&self, now: Position, approves: impl Fn(&UserId) -> bool) -> bool {
        let is_met = |demand: &Demand| match demand {
            Demand::After(time) => now >= *time,
            Demand::Before(time) => now < *time,
            Demand::Approved(Approvers { needed, of }) => {
                of.iter().filter(|user| approves(user)).count() >= usize::from(*needed)
            }
        };
        let mut alternatives = self.0.iter();
        self.0.is_empty() || alternatives.any(|all| all.iter().all(is_met))
    }

    /// What has to come about for it to hold, by each alternative that still can: of approvals how many more, and
    /// of whom. Nothing where it holds, or never will again.
    pub fn lacks(&self, now: Position, approves: impl Fn(&UserId) -> bool) -> Vec<Vec<Demand>> {
        if self.holds(now, &approves) {
            return Vec::new();
        }
        let lack = |demand: &Demand| match demand {
            Demand::After(time) => (now < *time).then_some(Demand::After(*time)),
            Demand::Before(_) => None,
            Demand::Approved(Approvers { needed, of }) => {
                let approved = of.iter().filter(|by| approves(by)).count();
                let needed = usize::from(*needed).saturating_sub(approved);
                let needed = u8::try_from(needed).ok().filter(|needed| *needed > 0)?;
                let of = of.iter().filter(|by| !approves(by)).copied().collect();
                Some(Demand::Approved(Approvers { needed, of }))
            }
        };
        let is_over = |demand: &Demand| matches!(demand, Demand::Before(time) if now >= *time);
        let open = self.0.iter().filter(|all| !all.iter().any(is_over));
        open.map(|all| all.iter().filter_map(lack).collect())
            .collect()
    }

    /// What holds where this and another do; nothing where that is more than a condition can say.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let both = match (self.0.as_slice(), other.0.as_slice()) {
            ([], of) | (of, []) => of.to_vec(),
            (ours, theirs) => {
                let pairs = ours
                    .iter()
                    .flat_map(|one| theirs.iter().map(move |two| (one, two)));
                let both = pairs.map(|(one, two)| {
                    let all: BTreeSet<_> = one.iter().chain(two).cloned().collect();
                    all.into_iter().collect()
                });
                let both: BTreeSet<_> = both.collect();
                both.into_iter().collect()
            }
        };
        Some(Self(both)).filter(Self::is_in_range)
    }

    /// Whether it may hold for somebody and not hold any more later, while it stands as it is. Whoever is given
    /// keys under such a one is given none of what is yet to be published.
    pub fn can_end(&self) -> bool {
        let mut demands = self.0.iter().flatten();
        demands.any(|of| matches!(of, Demand::Before(_) | Demand::Approved(_)))
    }

    /// Whose approvals it asks for.
    pub fn approvers(&self) -> impl Iterator<Item = UserId> + '_ {
        let approvers = self.0.iter().flatten().flat_map(Demand::approvers);
        approvers.copied()
    }

    /// How long it is, from a time on, until more can hold than does, in milliseconds: nothing where time
    /// alone changes nothing.
    pub fn wait_ms(&self, now: Position) -> Option<u64> {
        let demands = self.0.iter().flatten();
        let later = demands.filter_map(|demand| match demand {
            Demand::After(time) if *time > now => Some(time.0 - now.0),
            Demand::After(_) | Demand::Before(_) | Demand::Approved(_) => None,
        });
        later.min()
    }

    fn is_in_range(&self) -> bool {
        let of = |all: &Vec<Demand>| {
            (1..=CONDITION_MAX).contains(&all.len())
                && all.is_sorted_by(|a, b| a < b)
                && all.iter().all(Demand::is_in_range)
        };
        self.0.len() <= CONDITION_MAX
            && self.0.is_sorted_by(|a, b| a < b)
            && self.0.iter().all(of)
            && self.approvers().collect::<BTreeSet<_>>().len() <= ALL_APPROVERS_MAX
    }
}

impl Demand {
    fn approvers(&self) -> &[UserId] {
        match self {
            Self::Approved(approvers) => &approvers.of,
            Self::After(_) | Self::Before(_) => &[],
        }
    }

    fn is_in_range(&self) -> bool {
        match self {
            Self::After(time) | Self::Before(time) => *time < Position::END,
            Self::Approved(Approvers { needed, of }) => {
                (1..=of.len()).contains(&usize::from(*needed))
                    && of.len() <= APPROVERS_MAX
                    && of.is_sorted_by(|a, b| a < b)
            }
        }
    }
}

impl KeyNodes {
    pub(super) fn is_in_range(&self) -> bool {
        let count = self.nodes.len();
        let threshold = usize::from(self.threshold);
        let enough = match count {
            0 => threshold == 0 && self.condition.0.is_empty(),
            _ => (1..=count).contains(&threshold) && count <= usize::from(NODES_MAX),
        };
        enough
            && self
                .nodes
                .windows(2)
                .all(|pair| pair[0].user < pair[1].user)
            && self.condition.is_in_range()
    }
}

impl AccessLog {
    /// The entries about key nodes that count or would but for forks, and the one that no other one follows.
    /// Where several stand side by side none is in force: which of them did their authors mean? Nor is one
    /// that a fork took: what it replaced is not what anybody meant.
    pub(super) fn key_nodes_in(&self, view: &mut View<'_>) -> KeyNodeSets {
        let meant: Vec<_> = view.sets_meant().iter().copied().collect();
        let mut older = Clock::default();
        let mut named = BTreeMap::new();
        for &k in &meant {
            let node = self.node(k);
            if let Some(nodes) = node.entry.body().body.key_nodes() {
                older.merge(&node.past);
                named.insert(node.hash, nodes.clone());
            }
        }
        let newest = meant
            .iter()
            .copied()
            .filter(|&k| !older.contains(self.node(k).place));
        let newest: Vec<_> = newest.collect();
        let in_force = match newest.as_slice() {
            [k] if view.counts(*k) => Some(self.node(*k).hash),
            _ => None,
        };
        let mut newest: Vec<_> = newest.into_iter().map(|k| self.node(k).hash).collect();
        newest.sort_unstable();
        let generation = |&k: &usize| {
            let nodes = self.node(k).entry.body().body.key_nodes();
            nodes.map(|nodes| nodes.generation)
        };
        let generations = self.rights.key_node_sets.iter().filter_map(generation);
        let is_settled = in_force.is_some() || newest.is_empty();
        let in_force = in_force.filter(|k| named.get(k).is_some_and(|set| set.threshold > 0));
        let bounding = in_force
            .and_then(|k| named.get(&k))
            .and_then(|set| self.bounding_sets(&meant, &named, &set.condition));
        let is_meant = |k: &usize| meant.binary_search(k).is_ok();
        let void = self.rights.key_node_sets.iter().copied();
        let void = void.filter(|k| !is_meant(k) && !older.contains(self.node(*k).place));
        let mut void: Vec<_> = void.map(|k| self.node(k).hash).collect();
        void.sort_unstable();
        KeyNodeSets {
            bounding,
            void,
            generations: generations.collect(),
            is_settled,
            in_force,
            named,
            newest,
        }
    }

    /// Those of some sets that follow all under which key nodes gave keys that reach on, by another condition than
    /// the present one. None where there was no such one, or nothing is asked for now.
    fn bounding_sets(
        &self,
        meant: &[usize],
        named: &BTreeMap<LogHash, KeyNodes>,
        now: &Condition,
    ) -> Option<Vec<LogHash>> {
        let reaches_on = |k: &usize| {
            let set = named.get(&self.node(*k).hash);
            set.is_some_and(|of| {
                of.threshold > 0 && !of.condition.can_end() && of.condition != *now
            })
        };
        let mut given = Clock::default();
        for k in meant.iter().filter(|k| reaches_on(k)) {
            let node = self.node(*k);
            given.merge(&node.past);
            given.include(node.place);
        }
        if now.0.is_empty() || !meant.iter().any(reaches_on) {
            return None;
        }
        let bounding = meant.iter().map(|k| self.node(*k));
        let bounding = bounding.filter(|node| node.past.holds(&given));
        let mut bounding: Vec<_> = bounding.map(|node| node.hash).collect();
        bounding.sort_unstable();
        Some(bounding)
    }
}

impl LogState {
    /// The entries about key nodes that no other one follows, of those that count or would but for forks.
    pub fn newest_key_nodes(&self) -> &[LogHash] {
        &self.key_nodes.newest
    }

    /// Of these, those of which none is in force: several, of which nobody who wrote one knew of the others, or
    /// one that a fork took. None where it is clear which one holds.
    pub fn unsettled_key_nodes(&self) -> &[LogHash] {
        match self.key_nodes.is_settled {
            true => &[],
            false => &self.key_nodes.newest,
        }
    }

    /// Entries about key nodes that do not count since whoever wrote them was removed, and that nobody who named key
    /// nodes since knew of: what was in force before them is in force, or nothing.
    pub fn void_key_nodes(&self) -> &[LogHash] {
        &self.key_nodes.void
    }

    /// Whether a session whose record names these entries may be sealed with, as far as conditions go. Under one
    /// that could not end, key nodes gave keys that reach weeks on: where another one is in force since, what they
    /// open must be over.
    pub fn bounds_keys_of(&self, mut knows: impl FnMut(&LogHash) -> bool) -> bool {
        let bounding = self.key_nodes.bounding.as_ref();
        bounding.is_none_or(|of| of.iter().any(&mut knows))
    }

    /// A generation that nobody named who might name key nodes then, whether that counts or not: one more than
    /// the highest, as long as there is one.
    pub fn new_generation(&self) -> u32 {
        let named = &self.key_nodes.generations;
        let after = named.last().map_or(Some(0), |last| last.checked_add(1));
        let free = || (0..=u32::MAX).find(|of| !named.contains(of));
        after.or_else(free).unwrap_or_default()
    }

    /// The key nodes that an entry names which counts or would but for forks, in force or not any more.
    pub fn key_nodes_of(&self, entry: &LogHash) -> Option<&KeyNodes> {
        self.key_nodes.named.get(entry)
    }
}

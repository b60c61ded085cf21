//! What nodes open that pool all that they were ever dealt, and ask nobody.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_crypto::{NodeShare, Quorum};
use sealcast_engine::KnownDeal;
use sealcast_protocol::{DealId, KeyNode, KeyNodes, SegmentRecords, SessionId, Unverified};

use super::Field;
use super::rest::segment_of;
use crate::ground::{Entries, Message};
use crate::settle::failed;
use crate::violation::Violation;

/// Groups of nodes that are tried besides the one of all that were replaced.
const GROUPS: usize = 4;

/// What was dealt to some nodes: of each deal, their shares.
type Pool = BTreeMap<DealId, (KnownDeal, Vec<NodeShare>)>;

impl Field {
    /// Nodes open what was sealed while enough of them were key nodes, or became ones since, and nothing
    /// else: not those that were replaced, with all but one of those that are needed.
    pub(super) fn invariant_no_few_open_what_they_must_not(&mut self) -> Result<(), Violation> {
        let messages = self.world.around.ground.messages.iter();
        let since = messages.map(|of| Some(self.reading(&of.known).in_force()?.0));
        let since: Vec<_> = since.collect();
        for turn in 0..=GROUPS {
            let group = match turn {
                0 => self.those_replaced(),
                _ => self.some_nodes(),
            };
            let pool = self.pool(&group)?;
            let members: BTreeSet<_> = group.iter().filter_map(|at| self.key_node(*at)).collect();
            let mut seen = BTreeSet::new();
            for (message, since) in self.world.around.ground.messages.iter().zip(&since) {
                let is_new = seen.insert((message.header.session, since));
                let may_open = || self.may_open(&members, &message.known, *since);
                if is_new && !may_open() && self.opens(&pool, message) {
                    return Err(Violation::TooFewOpen {
                        what: format!("what nodes {group:?} hold together"),
                        session: message.header.session,
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether enough of some nodes were key nodes at once: those of a set, or of one that was not known then.
    fn may_open(&self, group: &BTreeSet<KeyNode>, known: &Entries, of: Option<usize>) -> bool {
        let entries = self.world.around.ground.entries.iter().enumerate();
        let later = entries.filter(|(number, _)| Some(*number) == of || !known.contains(*number));
        let mut sets = later.filter_map(|(_, of)| of.body.key_nodes());
        sets.any(|set| {
            let in_it = set.nodes.iter().filter(|of| group.contains(of));
            in_it.count() >= usize::from(set.threshold)
        })
    }

    /// All nodes that are none any more, and one less than are needed of those that are.
    fn those_replaced(&mut self) -> Vec<usize> {
        let named = self.named();
        let is_in = |at: &usize| {
            let node = self.key_node(*at);
            let set: Option<&KeyNodes> = named.as_ref();
            node.zip(set)
                .is_some_and(|(node, set)| set.nodes.contains(&node))
        };
        let (mut stay, mut group): (Vec<_>, Vec<_>) = self.nodes.iter().copied().partition(is_in);
        let needed = named.as_ref().map_or(0, |set| set.threshold);
        for _ in 1..needed {
            let pick = self.world.below(stay.len());
            group.push(stay.swap_remove(pick));
        }
        group
    }

    fn some_nodes(&mut self) -> Vec<usize> {
        let all = self.nodes.clone();
        let mut some = all.into_iter();
        let chance = &mut self.world.around.chance;
        some.by_ref().filter(|_| chance.hits(1, 2)).collect()
    }

    fn pool(&self, group: &[usize]) -> Result<Pool, Violation> {
        let mut pool = Pool::new();
        for at in group {
            let Some(device) = self.world.devices.get(*at) else {
                continue;
            };
            let owner = self.world.around.owner;
            let view = device.home.view(owner, &device.identity);
            let view = view.map_err(|stop| failed(*at, stop))?;
            for (id, deal) in view.deals() {
                let Some(share) = view.share(id) else {
                    continue;
                };
                let copy = NodeShare::from_bytes(share.index(), share.expose());
                let copy = copy.map_err(|_| Violation::Odd("a share"))?;
                let held = pool
                    .entry(*id)
                    .or_insert_with(|| (deal.clone(), Vec::new()));
                held.1.push(copy);
            }
        }
        Ok(pool)
    }

    /// Whether a pool of shares opens a record of the smallest segment that a message lies in.
    fn opens(&self, pool: &Pool, message: &Message) -> bool {
        let keys = self.world.around.keys();
        let minute = segment_of(message);
        let mut items = self.world.around.bus.items(&keys);
        items.any(|item| {
            let Ok(records) = Unverified::<SegmentRecords>::decode(item) else {
                return false;
            };
            let of = records.claims();
            let mut found = of.records.iter().filter(|record| record.segment == minute);
            let record = found.next().filter(|_| is_of(of, &message.header.session));
            let label = record.and_then(|record| of.label(record));
            let Some((record, label)) = record.zip(label) else {
                return false;
            };
            let mut fit = pool.values().filter(|(deal, shares)| {
                deal.secret() == of.secret && shares.len() >= deal.dealing.threshold()
            });
            fit.any(|(deal, shares)| {
                let mut quorum = Quorum::new(deal.dealing.clone(), vec![label]);
                for share in shares {
                    let mut rng = crate::seeded::Seeded::new(self.plan.seed);
                    let answer = share.answer(&mut rng, std::slice::from_ref(&label));
                    let _is_first = quorum.take(share.index(), answer.expose()).is_ok();
                }
                let opened = quorum.open(&[record.sealed]);
                opened.is_ok_and(|of| of.keys.iter().any(Option::is_some))
            })
        })
    }
}

fn is_of(records: &SegmentRecords, session: &SessionId) -> bool {
    records.session == *session
}

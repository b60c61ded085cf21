//! Why key nodes released less than was asked for.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{CombinerEvent, Unreleased};
use sealcast_protocol::{KeyNode, NodeRefusalReason, Position};

/// What kept key nodes from releasing what they were asked for, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodesSaid {
    /// Those that refused, and why they did last.
    pub refused: BTreeMap<KeyNode, NodeRefusalReason>,
    /// Where too few answered: those that said nothing in time then, last.
    pub silent: BTreeSet<KeyNode>,
    /// Where too few answered: how many did last, and how many are needed.
    pub too_few: Option<(usize, usize)>,
    /// From when on they release what was published last, where their condition can end.
    pub released_from: Option<Position>,
    /// Whether what a publisher published for them is false.
    pub is_record_false: bool,
    /// Those that said nothing in time, of a request of which it is not known yet what became of it.
    heard_nothing_of: BTreeSet<KeyNode>,
}

impl NodesSaid {
    pub(super) fn note(&mut self, event: CombinerEvent) {
        match event {
            CombinerEvent::Refused(node, reason) => {
                self.refused.insert(node, reason);
            }
            CombinerEvent::Silent(node) => {
                self.heard_nothing_of.insert(node);
            }
            CombinerEvent::Awaited(at) => self.released_from = self.released_from.max(Some(at)),
            CombinerEvent::Failed { why, .. } => match why {
                Unreleased::TooFew {
                    answered, needed, ..
                } => {
                    self.too_few = Some((answered, needed));
                    self.silent = std::mem::take(&mut self.heard_nothing_of);
                }
                Unreleased::FalseRecord => self.is_record_false = true,
            },
            // Whoever was too late for what opened all the same kept nobody from anything.
            CombinerEvent::Asked { .. } | CombinerEvent::Released { .. } => {
                self.heard_nothing_of.clear();
            }
            CombinerEvent::Liar(_) | _ => (),
        }
    }
}

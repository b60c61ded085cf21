//! What key nodes truly said, and what was to be said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealcast_protocol::{
    DeviceId, Interval, KeyNode, LogBody, NodeRequest, Position, RequestId, UserId,
};

use crate::ground::{Entries, Ground};
use crate::lies::Told;
use crate::model::{Spot, Who, may_open};

/// What key nodes said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    lies: BTreeMap<Arc<[u8]>, Told>,
    liars: BTreeSet<KeyNode>,
    /// To which requests each node released.
    released: BTreeSet<(KeyNode, DeviceId, RequestId)>,
}

impl Said {
    /// Notes what a node that lies is about to say.
    pub(crate) fn lied(&mut self, bytes: &[u8], told: Told) {
        self.liars.insert(told.node);
        self.lies.insert(bytes.into(), told);
    }

    pub(crate) fn lie(&self, bytes: &[u8]) -> Option<Told> {
        self.lies.get(bytes).copied()
    }

    pub(crate) fn is_liar(&self, node: &KeyNode) -> bool {
        self.liars.contains(node)
    }

    /// Notes that a node released; false where it did so before.
    pub(crate) fn released(&mut self, node: KeyNode, of: &NodeRequest) -> bool {
        self.released.insert((node, of.device, of.request))
    }

    /// A node's home is that of an earlier time: nobody knows there what was released since.
    pub(crate) fn forgets(&mut self, node: &KeyNode) {
        self.released.retain(|(of, ..)| of != node);
    }
}

/// Whether anything that was known entitles a device to every position of an interval of a lane: to
/// each end of it, and to both sides of where a grant begins or ends.
pub(crate) fn may_read_all(
    ground: &Ground,
    owner: &UserId,
    who: Who,
    lane: &UserId,
    interval: &Interval,
    known: &Entries,
) -> bool {
    let mut at = BTreeSet::from([interval.from, Position(interval.until.0.saturating_sub(1))]);
    for of in &ground.entries {
        if let LogBody::Grant(grant) = &of.body {
            for end in [grant.interval.from, grant.interval.until] {
                at.extend([end, Position(end.0.saturating_sub(1))]);
            }
        }
    }
    at.retain(|at| interval.contains(*at));
    at.into_iter().all(|at| {
        let spot = Spot { lane, at, known };
        may_open(ground, owner, who, &spot)
    })
}

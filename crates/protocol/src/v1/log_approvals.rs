//! Who approves that key nodes release, `spec/access-log.md`, section 7.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};

use crate::ids::{DeviceId, Position, UserId};
use crate::v1::log_clock::Clock;
use crate::v1::log_entry::LogBody;
use crate::v1::log_graph::AccessLog;
use crate::v1::log_rules::View;
use crate::v1::log_state::LogState;

/// Says that key nodes may release to a user, where their condition asks for the author's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Approval {
    /// To whom; never the author.
    #[n(0)]
    pub user: UserId,
    /// Up to when, by the clocks of the key nodes: [`Position::END`] without an end, [`Position::START`] to
    /// take it back.
    #[n(1)]
    pub until: Position,
}

impl Approval {
    pub(super) fn is_in_range(&self, author: &UserId) -> bool {
        self.user != *author && self.until <= Position::END
    }
}

/// For each user, by each who approves.
pub(super) type Approvals = BTreeMap<UserId, BTreeMap<UserId, Approved>>;

/// What one user approved of another, and did not take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approved {
    until: Position,
    /// Those that said it.
    by: BTreeSet<DeviceId>,
}

/// What one user said of another.
#[derive(Default)]
struct Said {
    older: Clock,
    entries: Vec<(usize, DeviceId, Position)>,
}

impl AccessLog {
    /// What counts of what was said last. Where one of the last entries does not count, nobody knows what its
    /// author means now, and nothing is approved. Nothing was said with a device by a removal's word out that
    /// does not know of it: whoever has that device now may say anything.
    pub(super) fn approvals_in(&self, view: &mut View<'_>) -> Approvals {
        let mut said = BTreeMap::<(UserId, UserId), Said>::new();
        for (i, node) in self.nodes() {
            let entry = node.entry.body();
            if let LogBody::Approve(approval) = &entry.body
                && node.verdict.power.is_some()
                && view
                    .outs_of((entry.user, entry.device))
                    .all(|r| self.is_before(i, r))
            {
                let said = said.entry((approval.user, entry.user)).or_default();
                said.older.merge(&node.past);
                said.entries.push((i, entry.device, approval.until));
            }
        }
        let mut approvals = Approvals::new();
        for ((user, by), Said { older, entries }) in said {
            let newest = entries.into_iter();
            let newest = newest.filter(|(i, ..)| !older.contains(self.node(*i).place));
            let mut approved = Approved {
                until: Position::END,
                by: BTreeSet::new(),
            };
            for (i, device, until) in newest {
                let until = if view.counts(i) {
                    until
                } else {
                    Position::START
                };
                approved.until = until.min(approved.until);
                approved.by.insert(device);
            }
            if approved.until > Position::START {
                approvals.entry(user).or_default().insert(by, approved);
            }
        }
        approvals
    }
}

impl LogState {
    /// Who approves that key nodes release to a user, each up to when.
    pub fn approvals(&self, user: &UserId) -> impl Iterator<Item = (UserId, Position)> + '_ {
        let approvals = self.approvals.get(user).into_iter().flatten();
        approvals.map(|(by, of)| (*by, of.until))
    }

    /// The devices with which a user said last that key nodes may release to another; none where it does not.
    pub fn approving_devices(
        &self,
        by: &UserId,
        user: &UserId,
    ) -> impl Iterator<Item = DeviceId> + '_ {
        let said = self.approvals.get(user).and_then(|of| of.get(by));
        said.into_iter().flat_map(|of| of.by.iter().copied())
    }

    /// Whether a user approves at a time that key nodes release to another.
    pub fn approves(&self, by: &UserId, user: &UserId, now: Position) -> bool {
        let said = self.approvals.get(user).and_then(|of| of.get(by));
        said.is_some_and(|of| now < of.until)
    }

    /// Whether a removal of a user would take from its approvals, or from those of it: a condition that no
    /// other follows names it, or there are some.
    pub fn has_approvals(&self, user: &UserId) -> bool {
        let newest = self.newest_key_nodes().iter();
        let mut newest = newest.filter_map(|entry| self.key_nodes_of(entry));
        newest.any(|set| set.condition.approvers().any(|of| of == *user))
            || self.approvals.contains_key(user)
            || self.approvals.values().any(|by| by.contains_key(user))
    }
}

//! Whose approval key nodes ask for: they approve, take it back, are removed, and are asked again.

use sealcast_protocol::{Approvers, Condition, Demand, Position};

use super::{Field, OWNER, READERS};
use crate::around::Stop;
use crate::settle::failed;
use crate::violation::Violation;

/// Users who may be asked for approvals.
pub(super) const APPROVERS: usize = 2;
/// How long a condition waits for a time, at most.
const WAIT_MS: u64 = 600_000;

impl Field {
    /// The first number of those users.
    fn first_approver(&self) -> usize {
        READERS + self.plan.readers + self.nodes.len()
    }

    /// The number of the first device that is added to those of the beginning.
    pub(super) fn first_added(&self) -> usize {
        self.first_approver() + APPROVERS
    }

    pub(super) fn some_approver(&mut self) -> usize {
        self.first_approver() + self.world.below(APPROVERS)
    }

    /// That one of both approves, or both, or a certain one.
    pub(super) fn approved(&mut self) -> Demand {
        let first = self.first_approver();
        let mut of: Vec<_> = (first..first + APPROVERS).map(|at| self.user(at)).collect();
        of.sort_unstable();
        let needed = match self.world.around.chance.below(6) {
            0 | 1 => 2,
            2 => {
                let pick = self.world.below(of.len());
                of = of.get(pick).copied().into_iter().collect();
                1
            }
            _ => 1,
        };
        Demand::Approved(Approvers { needed, of })
    }

    /// Nothing, a time, approvals, or some of these.
    pub(super) fn some_condition(&mut self) -> Condition {
        let later = self.world.around.chance.below(WAIT_MS);
        let time = Position(self.world.around.now).after(later);
        let (after, before) = (Demand::After(time), Demand::Before(time.after(WAIT_MS)));
        let approved = self.approved();
        let kinds = if self.plan.approvals { 9 } else { 3 };
        Condition(match self.world.around.chance.below(kinds) {
            0 => Vec::new(),
            1 => vec![vec![after]],
            2 => vec![vec![before]],
            3 => vec![vec![after], vec![approved]],
            4 => vec![vec![after, approved]],
            5 => vec![vec![before, approved]],
            _ => vec![vec![approved]],
        })
    }

    /// Somebody approves of a reader, for good or for a time, or takes it back.
    pub(super) fn approve(&mut self, approver: usize) -> Result<(), Stop> {
        let pick = self.world.below(self.plan.readers);
        let reader = self.user(READERS + pick);
        let later = self.world.around.chance.below(4_000_000);
        let until = match self.world.around.chance.below(6) {
            0 => Position::START,
            1 => Position(self.world.around.now).after(later),
            _ => Position::END,
        };
        self.act(approver, |acting| acting.approve(reader, until))
    }

    pub(super) fn revoke_approver(&mut self, ruler: usize, approver: usize) -> Result<(), Stop> {
        let user = self.user(approver);
        self.act(ruler, |acting| acting.revoke_without_grants(user))
    }

    /// When all has come to rest the owner mostly names key nodes once more where several sets stand side by
    /// side, or a fork took the newest, and some approve of some. Whether anybody said anything.
    pub(super) fn say_last_words(&mut self) -> Result<bool, Violation> {
        let mut has_said = false;
        let entries = self.world.entries_on_bus();
        let is_settled = self.nodes_in_force(&entries).is_some();
        let set = match is_settled || self.world.around.chance.hits(1, 4) {
            true => None,
            false => self.varied_set(OWNER),
        };
        if let Some(set) = set {
            let named = self.name(OWNER, set);
            named.map_err(|stop| failed(OWNER, stop))?;
            self.world.around.count_asking("sets brought together");
            has_said = true;
        }
        let first = self.first_approver();
        let approvers = (first..first + APPROVERS).filter(|_| self.plan.approvals);
        for approver in approvers.collect::<Vec<_>>() {
            for reader in READERS..READERS + self.plan.readers {
                let is_there = self.world.running().contains(&approver);
                if !is_there || self.world.around.chance.hits(1, 3) {
                    continue;
                }
                let reader = self.user(reader);
                match self.act(approver, |acting| acting.approve(reader, Position::END)) {
                    // Nobody asked it so far.
                    Ok(()) | Err(Stop::Refused(_)) => has_said = true,
                    Err(stop) => return Err(failed(approver, stop)),
                }
            }
        }
        Ok(has_said)
    }
}

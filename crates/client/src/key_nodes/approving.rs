//! Approving of those whom key nodes release to.

use std::collections::BTreeSet;

use sealcast_protocol::{
    Approval, Condition, Demand, LogBody, LogHash, Position, Roles, Standing, UserId,
};

use crate::error::Error;
use crate::stream::Stream;

impl Stream {
    /// Says that key nodes may release to a user, up to a time by their clocks, where their condition asks for
    /// this user's approval: [`Position::END`] without an end, [`Position::START`] to take it back. It is void, and
    /// has to be said again, when a grant is taken from the user, when a condition is set that does not name this
    /// one, and when this one is removed from the stream; then a condition has to name it anew first.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, when the condition does not ask for this user's approval, unless this
    /// takes it back, and of this user itself.
    pub async fn approve_release(&self, user: UserId, until: Position) -> Result<LogHash, Error> {
        let core = &self.core;
        core.sync().await?;
        let me = core.identity().user();
        if user == me {
            return Err(Error::KeyNodes("nobody approves of himself"));
        }
        let is_withdrawn = until == Position::START;
        if !is_withdrawn && !core.key_nodes()?.condition.approvers().any(|of| of == me) {
            return Err(Error::KeyNodes(
                "their condition does not ask for your approval",
            ));
        }
        let approval = Approval { user, until };
        core.write(core.now(), LogBody::Approve(approval)).await
    }

    /// Who approves that key nodes release to a user, and up to when.
    pub fn release_approvals(&self, user: &UserId) -> Vec<(UserId, Position)> {
        self.core.view().state().approvals(user).collect()
    }

    /// The condition on which key nodes release, with the access-log entry that says so; none where the stream has
    /// no key nodes. As far as the log was read.
    pub fn release_condition(&self) -> Option<(LogHash, Condition)> {
        let view = self.core.view();
        let (entry, set) = view.state().key_nodes()?;
        Some((entry, set.condition.clone()))
    }

    /// How everybody stands with the condition on which key nodes release whom a grant lets read, ascending. As far
    /// as the log was read.
    pub fn reader_approvals(&self) -> Vec<ReaderApprovals> {
        let now = self.core.now();
        let view = self.core.view();
        let state = view.state();
        let Some((_, set)) = state.key_nodes() else {
            return Vec::new();
        };
        let standing = state.grants().iter();
        let standing = standing.filter(|of| of.standing == Standing::Counts);
        let reading = standing.filter(|of| of.grant.roles.contains(Roles::READER));
        let readers: BTreeSet<_> = reading.map(|of| of.grant.user).collect();
        let stands = |user| {
            let approves = |by: &UserId| state.approves(by, &user, now);
            let approved = state.approvals(&user).filter(|(by, _)| approves(by));
            ReaderApprovals {
                user,
                approved: approved.collect(),
                releases: set.condition.holds(now, approves),
                missing: set.condition.lacks(now, approves),
            }
        };
        readers.into_iter().map(stands).collect()
    }
}

/// How a reader stands with the condition on which key nodes release.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderApprovals {
    /// The reader.
    pub user: UserId,
    /// Who approves of it, each up to when.
    pub approved: Vec<(UserId, Position)>,
    /// Whether the condition holds for it now, by this device's clock.
    pub releases: bool,
    /// What has to come about otherwise, by each alternative that still can.
    pub missing: Vec<Vec<Demand>>,
}

impl ReaderApprovals {
    /// Whether it is a user's approval that is missing, or one that may be.
    pub fn waits_for(&self, user: &UserId) -> bool {
        let mut missing = self.missing.iter().flatten();
        missing.any(|of| matches!(of, Demand::Approved(some) if some.of.contains(user)))
    }
}

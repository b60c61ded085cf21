//! Approving of those whom key nodes release to.

use sealcast_protocol::{Approval, LogBody, LogHash, Position, UserId};

use crate::error::Error;
use crate::stream::Stream;

impl Stream {
    /// Says that key nodes may release to a user, up to a time by their clocks, where their condition asks for
    /// this user's approval: [`Position::END`] without an end, [`Position::START`] to take it back. When the
    /// user, or this one, is removed from the stream, it is void, and has to be said again; by this one, after a
    /// condition named it anew.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, when the condition does not ask for this user's approval, and of
    /// this user itself.
    pub async fn approve_release(&self, user: UserId, until: Position) -> Result<LogHash, Error> {
        let core = &self.core;
        core.sync().await?;
        let set = core.key_nodes()?;
        let me = core.identity().user();
        if user == me {
            return Err(Error::KeyNodes("nobody approves of himself"));
        }
        if !set.condition.approvers().any(|of| of == me) {
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
}

//! A yes to what the access log does not allow is a grant in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealcast_engine::SharedWith;
use sealcast_protocol::{Grant, Interval, LogBody, Roles, UserId};

use super::policy::Question;
use crate::core::Core;
use crate::error::Error;
use crate::stream::Stream;

/// Grants that one decision writes, at most; the rest stays refused.
const GRANTS_MAX: usize = 16;

impl Stream {
    /// Says yes to a question after whoever asked was told to wait: grants what was asked for and
    /// the access log does not allow by now, and hands out its keys as those of any grant. Returns how
    /// many grants that took.
    ///
    /// # Errors
    ///
    /// Fails when the log does not let this user give that, or bus or store fail.
    pub async fn approve(&self, question: &Question) -> Result<usize, Error> {
        let grants = self.core.grant_asked(question).await?;
        let with = SharedWith::User(question.user);
        self.core.share(with, usize::MAX).await?;
        Ok(grants)
    }
}

impl Core {
    /// Lets the log say yes to what was asked for, as far as it does not already.
    pub(super) async fn grant_asked(self: &Arc<Self>, question: &Question) -> Result<usize, Error> {
        // What an earlier try wrote and did not send counts, and what others granted meanwhile.
        self.resend_entry().await?;
        self.sync().await?;
        let mut grants = 0;
        for (interval, lanes) in self.not_allowed(question).into_iter().take(GRANTS_MAX) {
            let grant = Grant {
                user: question.user,
                devices: Vec::new(),
                roles: Roles::READER,
                lanes: lanes.into_iter().collect(),
                interval,
                reshare: false,
            };
            self.write(self.now(), LogBody::Grant(grant)).await?;
            grants += 1;
        }
        Ok(grants)
    }

    /// What of a question the log does not allow by now: the lanes of each interval.
    fn not_allowed(&self, question: &Question) -> BTreeMap<Interval, BTreeSet<UserId>> {
        let view = self.view();
        let mut lanes: BTreeMap<Interval, BTreeSet<UserId>> = BTreeMap::new();
        for want in question.beyond_log() {
            let (user, device) = (&question.user, &question.device);
            let allowed = view.state().readable(user, device, &want.lane);
            if !allowed.iter().any(|of| of.covers(&want.interval)) {
                lanes.entry(want.interval).or_default().insert(want.lane);
            }
        }
        lanes
    }
}

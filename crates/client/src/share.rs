//! Handing out keys, and cutting the lane.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_engine::{Handout, SharedWith, plan_handouts, wrap_handout};
use sealcast_protocol::{Position, StreamTopics, UserId};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;

/// Handouts that are wrapped and written at once.
const HANDOUTS_AT_ONCE: usize = 64;

/// What was handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) bundles: usize,
    pub(crate) bytes: usize,
}

impl Shared {
    pub(crate) fn add(&mut self, more: Self) {
        self.bundles += more.bundles;
        self.bytes += more.bytes;
    }
}

/// Keys that are due. What is not handed out stays due, also when whoever hands them out is stopped.
struct Debt<'a> {
    core: &'a Core,
    is_to_everyone: bool,
    to: BTreeSet<UserId>,
}

impl<'a> Debt<'a> {
    fn take(core: &'a Core) -> Self {
        Self {
            core,
            is_to_everyone: core.takes_debt(),
            to: core.take_lost_keys(),
        }
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        if self.is_to_everyone {
            self.core.owe_keys();
        }
        self.core.lose_keys(std::mem::take(&mut self.to));
    }
}

impl Core {
    /// Hands out the keys that are due to others, if anything was learned since this was last done.
    pub(crate) async fn share_owed(self: &Arc<Self>) -> Result<(), Error> {
        let mut debt = Debt::take(self);
        if debt.is_to_everyone {
            self.share(SharedWith::Everyone, usize::MAX).await?;
            self.deal_owed().await?;
            debt.is_to_everyone = false;
        }
        while let Some(user) = debt.to.first().copied() {
            self.share(SharedWith::User(user), usize::MAX).await?;
            debt.to.pop_first();
        }
        Ok(())
    }

    /// Hands out the keys that others are entitled to and were not given, at most so many bundles.
    pub(crate) async fn share(
        self: &Arc<Self>,
        with: SharedWith,
        bundles_max: usize,
    ) -> Result<Shared, Error> {
        self.freshen().await?;
        let core = self.clone();
        let plan = off_thread(move || plan_handouts(&core.view(), core.now(), with)).await?;
        let keys = topic(&StreamTopics(self.id()).keys())?;
        let mut shared = Shared::default();
        for some in plan.chunks(HANDOUTS_AT_ONCE) {
            let left = bundles_max.saturating_sub(shared.bundles);
            let some: Vec<_> = some.iter().take(left).cloned().collect();
            if some.is_empty() {
                break;
            }
            let core = self.clone();
            let wrapped = off_thread(move || core.wrap(&some)).await??;
            let some = Shared {
                bundles: wrapped.len(),
                bytes: wrapped.iter().map(Vec::len).sum(),
            };
            self.bus.append(&keys, wrapped).await?;
            shared.add(some);
            self.handed_out().add(some);
        }
        if shared.bundles > 0 {
            self.sync().await?;
        }
        Ok(shared)
    }

    fn wrap(&self, handouts: &[Handout]) -> Result<Vec<Vec<u8>>, Error> {
        let mut wrapped = Vec::new();
        for handout in handouts {
            let bundle = wrap_handout(&self.view(), self.identity(), &mut clock::rng(), handout);
            let bundle = bundle.map_err(|_| Error::Internal("a bundle is odd"))?;
            wrapped.extend(bundle.map(|bundle| bundle.wire().to_vec()));
        }
        Ok(wrapped)
    }

    /// Steps past every position sealed so far in this home's lane. Returns the first free one.
    pub(crate) async fn cut(self: &Arc<Self>) -> Result<Position, Error> {
        let core = self.clone();
        off_thread(move || {
            let mark = core.view().mark();
            core.vault().change_lane(&core.id(), |lane, _| {
                let cut = lane.cut(core.now(), mark);
                cut.map_err(|by| Error::ClockBehind {
                    behind_ms: by.behind_ms,
                })
            })
        })
        .await?
    }

    /// Steps past every position sealed so far, and makes the next message start a session, both at
    /// once for all processes of the home.
    pub(crate) async fn cut_session(self: &Arc<Self>) -> Result<Position, Error> {
        let core = self.clone();
        off_thread(move || {
            let mark = core.view().mark();
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.end_session();
                let cut = lane.cut(core.now(), mark);
                cut.map_err(|by| Error::ClockBehind {
                    behind_ms: by.behind_ms,
                })
            })
        })
        .await?
    }

    /// Makes the next message of this home start a session.
    pub(crate) async fn end_session(self: &Arc<Self>) -> Result<(), Error> {
        let core = self.clone();
        off_thread(move || {
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.end_session();
                Ok(())
            })
        })
        .await?
    }

    /// Whether this device may publish, so that it has a lane to cut.
    pub(crate) fn has_lane(&self) -> bool {
        let view = self.view();
        let (user, device) = view.me();
        view.state()
            .may_publish(&user, &device, self.now().max(view.state().mark()))
    }
}

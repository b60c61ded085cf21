//! Handing out keys, and cutting the lane.

use std::sync::Arc;

use sealcast_engine::{Handout, SharedWith, plan_handouts, wrap_handout};
use sealcast_protocol::{Position, StreamTopics};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;

/// What was handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) bundles: usize,
    pub(crate) bytes: usize,
}

impl Core {
    /// Hands out the keys that others are entitled to and were not given, at most so many bundles.
    pub(crate) async fn share(
        self: &Arc<Self>,
        with: SharedWith,
        bundles_max: usize,
    ) -> Result<Shared, Error> {
        self.freshen().await?;
        let core = self.clone();
        let wrapped = off_thread(move || core.wrap_handouts(with, bundles_max)).await??;
        if wrapped.is_empty() {
            return Ok(Shared::default());
        }
        let shared = Shared {
            bundles: wrapped.len(),
            bytes: wrapped.iter().map(Vec::len).sum(),
        };
        let keys = StreamTopics(self.id()).keys();
        for some in wrapped.chunks(64) {
            self.bus
                .append(&crate::home::topic(&keys)?, some.to_vec())
                .await?;
        }
        self.sync().await?;
        Ok(shared)
    }

    fn wrap_handouts(&self, with: SharedWith, bundles_max: usize) -> Result<Vec<Vec<u8>>, Error> {
        let view = self.view();
        let plan: Vec<Handout> = plan_handouts(&view, clock::now(), with);
        let mut wrapped = Vec::new();
        for handout in plan.iter().take(bundles_max) {
            let bundle = wrap_handout(&view, self.identity(), &mut clock::rng(), handout);
            let bundle = bundle.map_err(|_| Error::Internal("a bundle is odd"))?;
            wrapped.extend(bundle.map(|bundle| bundle.wire().to_vec()));
        }
        Ok(wrapped)
    }

    /// Steps past every position sealed so far in this home's lane. Returns the first free one.
    pub(crate) async fn cut(self: &Arc<Self>) -> Result<Position, Error> {
        let core = self.clone();
        off_thread(move || {
            let mark = core.view().state().mark();
            core.vault().change_lane(&core.id(), |lane, _| {
                let cut = lane.cut(clock::now(), mark);
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
            let mark = core.view().state().mark();
            core.vault().change_lane(&core.id(), |lane, _| {
                lane.end_session();
                let cut = lane.cut(clock::now(), mark);
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
            .may_publish(&user, &device, clock::now().max(view.state().mark()))
    }
}

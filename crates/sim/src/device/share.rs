//! Handing out keys, and cutting the lane.

use sealcast_crypto::Cover;
use sealcast_engine::{Handout, Lane, SharedWith, plan_handouts, wrap_handout};
use sealcast_protocol::{
    BundleContext, Interval, KeyUse, LogHash, Position, seal_bundle, sign, wrap_key_hash,
};

use super::Acting;
use crate::around::Stop;
use crate::plant::Plant;
use crate::violation::Violation;

/// Handouts that are wrapped and written at once.
const HANDOUTS_AT_ONCE: usize = 64;

impl Acting<'_> {
    /// Hands out the keys that are due to others, if anything was learned since this was last done.
    pub(crate) fn share_owed(&mut self) -> Result<(), Stop> {
        if std::mem::take(&mut self.run.owes_keys) {
            let shared = self.share(SharedWith::Everyone, usize::MAX);
            self.run.owes_keys |= shared.is_err();
            shared?;
        }
        for user in std::mem::take(&mut self.run.lost_keys) {
            let shared = self.share(SharedWith::User(user), usize::MAX);
            if let Err(stop) = shared {
                self.run.lost_keys.insert(user);
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Hands out what others are entitled to and were not given, at most so many bundles.
    pub(crate) fn share(&mut self, with: SharedWith, bundles_max: usize) -> Result<(), Stop> {
        self.freshen()?;
        let mut plan = plan_handouts(&self.run.view, self.now(), with);
        plan.truncate(bundles_max);
        if self.around.plant == Some(Plant::NoHandout) {
            plan.clear();
        }
        let keys = self.around.keys();
        let mut bundles = 0;
        for some in plan.chunks(HANDOUTS_AT_ONCE) {
            let mut wrapped = Vec::new();
            for handout in some {
                wrapped.extend(self.wrap(handout)?);
            }
            bundles += wrapped.len();
            self.around.append(self.device.at, &keys, &wrapped)?;
        }
        if bundles > 0 {
            self.note(format_args!("hands out {bundles} bundles"));
            self.sync()?;
        }
        Ok(())
    }

    fn wrap(&mut self, handout: &Handout) -> Result<Option<Vec<u8>>, Stop> {
        if self.around.plant == Some(Plant::WideCover) {
            return self.danger_wrap_wide(handout);
        }
        let rng = &mut self.around.rng;
        let bundle = wrap_handout(&self.run.view, &self.device.identity, rng, handout);
        let bundle = bundle.map_err(|_| Violation::Odd("a bundle of our own"))?;
        Ok(bundle.map(|bundle| bundle.wire().to_vec()))
    }

    /// As [`wrap`](Self::wrap), with covers that end one position later.
    fn danger_wrap_wide(&mut self, handout: &Handout) -> Result<Option<Vec<u8>>, Stop> {
        let (view, identity) = (&self.run.view, &self.device.identity);
        let list = view.list(&handout.user);
        let of = list.and_then(|list| list.device(&handout.device));
        let Some(wrap_key) = of.and_then(|of| of.wrap_key.as_ref()) else {
            return Ok(None);
        };
        let mut specs = handout.covers.clone();
        let mut covers = Vec::new();
        for spec in &mut specs {
            let Some(root) = view.root(&spec.session) else {
                return Ok(None);
            };
            spec.interval = Interval {
                from: spec.interval.from,
                until: spec.interval.until.after(1),
            };
            let (from, until) = (spec.interval.from.0, spec.interval.until.0);
            covers.push(Cover::from_root(root, from, until));
        }
        let context = BundleContext {
            stream: view.stream(),
            lane: handout.lane,
            giver_user: identity.user(),
            giver_device: identity.device(),
            user: handout.user,
            device: handout.device,
            key: KeyUse::LongLived,
            wrap_key_hash: wrap_key_hash(wrap_key),
            heads: view.log().heads(&LogHash([0; 32])),
            request: [0; 16],
            covers: specs,
        };
        let covers: Vec<_> = covers.iter().collect();
        let bundle = seal_bundle(&mut self.around.rng, context, &covers, wrap_key);
        let bundle = bundle.map_err(|_| Violation::Odd("a bundle of our own"))?;
        let bundle = sign(identity.signing(), bundle);
        let bundle = bundle.map_err(|_| Violation::Odd("a bundle of our own"))?;
        Ok(Some(bundle.wire().to_vec()))
    }

    /// Steps past every position sealed so far. Returns the first free one.
    pub(crate) fn cut(&mut self) -> Result<Position, Stop> {
        self.change_and_cut(|_| ())
    }

    /// As [`cut`](Self::cut), and makes the next message start a session.
    pub(crate) fn cut_session(&mut self) -> Result<Position, Stop> {
        self.change_and_cut(Lane::end_session)
    }

    fn change_and_cut(&mut self, change: impl FnOnce(&mut Lane)) -> Result<Position, Stop> {
        self.effect("cut its lane")?;
        let (now, mark) = (self.now(), self.run.view.mark());
        self.device.home.change_lane(|lane, _| {
            change(lane);
            lane.cut(now, mark)
                .map_err(|_| Stop::Refused("its clock is behind"))
        })
    }

    /// Whether this device may publish, so that it has a lane to cut.
    pub(crate) fn has_lane(&self) -> bool {
        let state = self.run.view.state();
        let (user, device) = self.run.view.me();
        state.may_publish(&user, &device, self.now().max(state.mark()))
    }
}

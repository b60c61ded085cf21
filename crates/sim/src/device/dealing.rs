//! What a publisher does for key nodes before it seals.

use sealcast_engine::{Covered, DealtLane};
use sealcast_protocol::{
    Approval, DealId, KeyNodes, LogBody, LogHash, Position, Revoke, SessionId, Targets, UserId,
};

use super::Acting;
use crate::around::Stop;
use crate::plant::Plant;
use crate::violation::Violation;

/// What a lane's secret is to the key nodes that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fitness {
    Fit,
    /// It is not fit for them, and was left.
    Unfit,
    /// Another one was drawn, and the session ended that the one before had records of.
    Renewed,
}

impl Acting<'_> {
    /// Names the key nodes of the stream.
    pub(crate) fn name_key_nodes(&mut self, set: KeyNodes) -> Result<LogHash, Stop> {
        self.sync()?;
        self.write(self.now(), LogBody::KeyNodes(set))
    }

    /// Approves that key nodes release to a user up to a time, or takes it back.
    pub(crate) fn approve(&mut self, user: UserId, until: Position) -> Result<(), Stop> {
        self.sync()?;
        let approval = Approval { user, until };
        self.write(self.now(), LogBody::Approve(approval))?;
        self.around.count_asking(match until {
            Position::START => "approval taken back",
            _ => "approval",
        });
        Ok(())
    }

    /// Removes a user who has no grants.
    pub(crate) fn revoke_without_grants(&mut self, user: UserId) -> Result<(), Stop> {
        self.sync()?;
        let targets = Targets::Users(vec![user]);
        let last = Vec::new();
        self.write(self.now(), LogBody::Revoke(Revoke { targets, last }))?;
        self.around.count_asking("approver removed");
        Ok(())
    }

    /// Puts the records of the segments on the bus that a position of a session lies in.
    pub(super) fn cover_segments(
        &mut self,
        session: SessionId,
        position: Position,
    ) -> Result<(), Stop> {
        let covered = self.make_covered(session, position)?;
        self.run.publisher.note_covered(covered);
        Ok(())
    }

    fn make_covered(&mut self, session: SessionId, position: Position) -> Result<Covered, Stop> {
        let lane = self.fit_lane(true)?;
        let set = self.run.view.state().key_nodes().map(|(set, _)| set);
        let (Some((lane, Fitness::Fit)), Some(set)) = (lane, set) else {
            // What is sealed next is sealed in another session, or for nobody.
            self.deal_owed()?;
            return Ok(Covered::NONE);
        };
        let secret = lane.public();
        let covered = match lane.covered.covers(&session, position) {
            true => Covered {
                set,
                ..lane.covered
            },
            false => {
                let (due, covered) = lane.covered.due(session, position, set);
                self.put_records(&lane, session, &due)?;
                covered
            }
        };
        self.effect("note which segments have records")?;
        let note = |lane: &mut DealtLane| lane.covered = covered;
        let noted = self.device.home.change_dealt(&secret, |lane, _| {
            note(lane);
            Ok(())
        })?;
        self.deal_owed()?;
        Ok(noted.map_or(Covered::NONE, |()| covered))
    }

    /// Makes records of segments, keeps them, and puts them on the bus.
    fn put_records(
        &mut self,
        lane: &DealtLane,
        session: SessionId,
        segments: &[sealcast_crypto::NodeId],
    ) -> Result<(), Stop> {
        let records = lane.seal(&self.run.view, &self.device.identity, session, segments);
        let records = records.ok_or(Violation::Odd("a session without a root"))?;
        let wires: Vec<_> = records.iter().map(|of| of.wire().to_vec()).collect();
        self.effect("keep segment records")?;
        let home = &self.device.home;
        let kept = home.change_dealt(&lane.public(), |lane, txn| {
            for wire in &wires {
                home.put_segments(txn, lane.note_made(), wire)?;
            }
            Ok(())
        })?;
        if kept.is_none() || self.around.plant == Some(Plant::NoSegments) {
            return Ok(());
        }
        let keys = self.around.keys();
        self.around.append(self.device.at, &keys, &wires)?;
        self.note(format_args!("seals {} segments", segments.len()));
        Ok(())
    }

    /// What this home keeps of its lane, with a secret that is fit for the key nodes that the stream has
    /// now: drawn where there is none and `draws`, and drawn anew where what the bus shows says so.
    fn fit_lane(&mut self, draws: bool) -> Result<Option<(DealtLane, Fitness)>, Stop> {
        if self.run.view.state().key_nodes().is_none() {
            return Ok(None);
        }
        let lane = self.fit_lane_now(draws, false)?;
        if !matches!(lane, Some((_, Fitness::Unfit))) {
            return Ok(lane);
        }
        self.sync()?;
        self.fit_lane_now(draws, true)
    }

    fn fit_lane_now(
        &mut self,
        draws: bool,
        renews: bool,
    ) -> Result<Option<(DealtLane, Fitness)>, Stop> {
        self.effect("keep its lane's secret")?;
        let keeps_on = self.around.plant == Some(Plant::KeepSecret);
        let (home, view, rng) = (&self.device.home, &self.run.view, &mut self.around.rng);
        let odd = |_| Violation::Odd("a lane secret");
        home.change_lane(|own, txn| {
            let Some((_, set)) = view.state().key_nodes() else {
                return Ok(None);
            };
            let Some(mut lane) = home.read_dealt(txn)? else {
                if !draws {
                    return Ok(None);
                }
                let lane = DealtLane::draw(rng, set.generation).map_err(odd)?;
                home.write_dealt(txn, &lane)?;
                return Ok(Some((lane, Fitness::Fit)));
            };
            if keeps_on || lane.is_fit(view, set) {
                return Ok(Some((lane, Fitness::Fit)));
            }
            if !renews {
                return Ok(Some((lane, Fitness::Unfit)));
            }
            lane.renew(rng, set.generation).map_err(odd)?;
            own.end_session();
            home.write_dealt(txn, &lane)?;
            Ok(Some((lane, Fitness::Renewed)))
        })
    }

    /// Deals this lane's secrets to the key nodes that the stream has now, unless that was done.
    pub(crate) fn deal_owed(&mut self) -> Result<(), Stop> {
        let Some((lane, _)) = self.fit_lane(false)? else {
            return Ok(());
        };
        let (now, secret) = (self.now(), lane.public());
        let rng = &mut self.around.rng;
        let made = lane.deal(&self.run.view, &self.device.identity, rng, now);
        let Some((deals, dealt)) = made else {
            return Ok(());
        };
        self.effect("keep its deals")?;
        let home = &self.device.home;
        let kept = home.change_dealt(&secret, |lane, txn| {
            lane.note_given(&dealt);
            for deal in &deals {
                home.put_deal(txn, &DealId::from(deal.digest()), deal.wire())?;
            }
            Ok(())
        })?;
        if kept.is_none() {
            return Ok(());
        }
        let wires: Vec<_> = deals.iter().map(|deal| deal.wire().to_vec()).collect();
        let keys = self.around.keys();
        self.around.append(self.device.at, &keys, &wires)?;
        self.note(format_args!("deals {} secrets", wires.len()));
        self.effect("note that it has dealt")?;
        let noted = self.device.home.change_dealt(&secret, |lane, _| {
            lane.note_dealt(dealt);
            Ok(())
        });
        noted.map(|_| ())
    }
}

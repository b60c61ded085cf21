//! What a publisher does for key nodes before it seals.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_engine::{Covered, DealtLane, Space, segments_around};
use sealcast_protocol::{Position, SessionId, StreamId, StreamTopics};
use sealcast_store::Txn;

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;
use crate::seal::Sealer;
use crate::vault::{Vault, key};

impl Sealer {
    /// Puts the records of the segments on the bus that a position of a session lies in.
    pub(crate) async fn cover_segments(
        &self,
        session: SessionId,
        position: Position,
    ) -> Result<(), Error> {
        let covered = self.core.cover_segments(session, position).await?;
        self.publisher().note_covered(covered);
        Ok(())
    }

    /// As [`cover_segments`](Self::cover_segments), for older data.
    pub(crate) async fn cover_past(
        &self,
        session: SessionId,
        positions: BTreeSet<Position>,
    ) -> Result<(), Error> {
        let known = self.publisher().covered_past_of(&session).cloned();
        let (segments, new) = segments_around(positions, &known.unwrap_or_default());
        let core = self.core.clone();
        let lane = off_thread(move || core.vault().dealt_lane_or_new(&core.id()));
        let lane = lane.await??;
        let core = self.core.clone();
        let records = off_thread(move || seal(&core, &lane, session, &segments));
        self.core.append_keys(records.await??).await?;
        self.publisher().note_covered_past(session, new);
        self.core.deal_owed().await
    }
}

impl Core {
    async fn cover_segments(
        self: &Arc<Self>,
        session: SessionId,
        position: Position,
    ) -> Result<Covered, Error> {
        let core = self.clone();
        let lane = off_thread(move || core.vault().dealt_lane_or_new(&core.id()));
        let lane = lane.await??;
        let covered = match lane.covered.covers(&session, position) {
            true => lane.covered,
            false => {
                let (due, covered) = lane.covered.due(session, position);
                let core = self.clone();
                let records = off_thread(move || seal(&core, &lane, session, &due));
                self.append_keys(records.await??).await?;
                let (vault, stream) = (self.vault().clone(), self.id());
                off_thread(move || vault.change_dealt_lane(&stream, |lane| lane.covered = covered))
                    .await??;
                covered
            }
        };
        self.deal_owed().await?;
        Ok(covered)
    }

    async fn append_keys(&self, items: Vec<Vec<u8>>) -> Result<(), Error> {
        let keys = topic(&StreamTopics(self.id()).keys())?;
        self.bus.append(&keys, items).await?;
        Ok(())
    }

    /// Deals this lane's secret to the key nodes that the stream has now, unless that was done. Where a
    /// node's card is not known it is done another time.
    pub(crate) async fn deal_owed(self: &Arc<Self>) -> Result<(), Error> {
        let set = self.view().state().key_nodes().map(|(set, _)| set);
        let Some(set) = set else {
            return Ok(());
        };
        let core = self.clone();
        let deal = off_thread(move || {
            let lane = core.vault().dealt_lane(&core.id())?;
            let lane = lane.filter(|lane| lane.dealt != set);
            let deal = lane.and_then(|lane| {
                let (view, now) = (core.view(), core.now());
                lane.deal(&view, core.identity(), &mut clock::rng(), now)
            });
            Ok::<_, Error>(deal)
        });
        let Some(deal) = deal.await?? else {
            return Ok(());
        };
        let set = deal.body().set;
        self.append_keys(Vec::from([deal.wire().to_vec()])).await?;
        let (vault, stream) = (self.vault().clone(), self.id());
        off_thread(move || vault.change_dealt_lane(&stream, |lane| lane.dealt = set)).await?
    }
}

fn seal(
    core: &Core,
    lane: &DealtLane,
    session: SessionId,
    segments: &[sealcast_crypto::NodeId],
) -> Result<Vec<Vec<u8>>, Error> {
    let records = lane.seal(&core.view(), core.identity(), session, segments);
    let records = records.ok_or(Error::Internal("a session has no root"))?;
    Ok(records.iter().map(|of| of.wire().to_vec()).collect())
}

impl Vault {
    /// What this home keeps of its lane for key nodes.
    fn dealt_lane(&self, stream: &StreamId) -> Result<Option<DealtLane>, Error> {
        self.change_lane(stream, |_, txn| read(txn, stream))
    }

    /// The same, drawn and kept where there is none; one for all processes of the home.
    fn dealt_lane_or_new(&self, stream: &StreamId) -> Result<DealtLane, Error> {
        self.change_lane(stream, |_, txn| {
            if let Some(lane) = read(txn, stream)? {
                return Ok(lane);
            }
            let lane = DealtLane::draw(&mut clock::rng());
            let lane = lane.map_err(|_| Error::Internal("the randomness is none"))?;
            let place = key(Space::LaneSecret, &[&stream.0]);
            txn.put(&place, lane.to_bytes().expose())?;
            Ok(lane)
        })
    }

    fn change_dealt_lane(
        &self,
        stream: &StreamId,
        change: impl FnOnce(&mut DealtLane),
    ) -> Result<(), Error> {
        self.change_lane(stream, |_, txn| {
            if let Some(mut lane) = read(txn, stream)? {
                change(&mut lane);
                let place = key(Space::LaneSecret, &[&stream.0]);
                txn.put(&place, lane.to_bytes().expose())?;
            }
            Ok(())
        })
    }
}

fn read(txn: &mut dyn Txn, stream: &StreamId) -> Result<Option<DealtLane>, Error> {
    let value = txn.get(&key(Space::LaneSecret, &[&stream.0]))?;
    Ok(value.and_then(|value| DealtLane::from_bytes(value.expose())))
}

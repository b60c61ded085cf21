//! What a publisher does for key nodes before it seals.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_engine::{Covered, CoveredPast, Dealt, DealtLane, Space, segments_around};
use sealcast_protocol::{DealId, Position, SessionId, StreamId, StreamTopics};
use sealcast_store::Txn;

use crate::blocking::off_thread;
use crate::clock;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;
use crate::seal::Sealer;
use crate::vault::{Vault, key};

/// Objects with segment records of its own that a device keeps, as many as there are in six weeks of
/// sealing all the time: what a bus lost of them is put back.
const OWN_SEGMENTS_MAX: u64 = 4_096;

/// What a lane's secret is to the key nodes that are known here.
enum Fitness {
    Fit,
    /// It is not fit for them, and was left.
    Unfit,
    /// Another one was drawn, and the session ended that the one before had records of.
    Renewed,
}

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

    /// As [`cover_segments`](Self::cover_segments), for older data. False where the session is one that
    /// nothing more may be sealed in: other segments of it were covered with a secret that is over.
    pub(crate) async fn cover_past(
        &self,
        session: SessionId,
        positions: BTreeSet<Position>,
    ) -> Result<bool, Error> {
        let lane = self.core.fit_lane(true).await?;
        let set = self.core.key_node_set();
        let (Some((lane, _)), Some(set)) = (lane, set) else {
            return Ok(true);
        };
        let known = self.publisher().covered_past_of(&session).cloned();
        let secret = lane.public();
        if known.as_ref().is_some_and(|of| of.secret != secret) {
            return Ok(false);
        }
        let mut smallest = known.map(|of| of.smallest).unwrap_or_default();
        let (segments, mut new) = segments_around(positions, &smallest);
        let core = self.core.clone();
        let made = off_thread(move || core.make_records(&lane, session, &segments));
        let Some(records) = made.await?? else {
            return Ok(true);
        };
        self.core.append_keys(records).await?;
        smallest.append(&mut new);
        self.publisher().note_covered_past(CoveredPast {
            session,
            set,
            secret,
            smallest,
        });
        self.core.deal_owed().await?;
        Ok(true)
    }
}

impl Core {
    async fn cover_segments(
        self: &Arc<Self>,
        session: SessionId,
        position: Position,
    ) -> Result<Covered, Error> {
        let lane = self.fit_lane(true).await?;
        let set = self.key_node_set();
        let (Some((lane, Fitness::Fit)), Some(set)) = (lane, set) else {
            // What is sealed next is sealed in another session, or for nobody.
            self.deal_owed().await?;
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
                let core = self.clone();
                let made = off_thread(move || core.make_records(&lane, session, &due));
                let Some(records) = made.await?? else {
                    return Ok(Covered::NONE);
                };
                self.append_keys(records).await?;
                covered
            }
        };
        let (vault, stream) = (self.vault().clone(), self.id());
        let noted = off_thread(move || {
            vault.change_dealt_lane(&stream, &secret, |lane, _| {
                lane.covered = covered;
                Ok(())
            })
        });
        let is_noted = noted.await??.is_some();
        self.deal_owed().await?;
        Ok(if is_noted { covered } else { Covered::NONE })
    }

    fn key_node_set(&self) -> Option<sealcast_protocol::LogHash> {
        self.view().state().key_nodes().map(|(set, _)| set)
    }

    /// What this home keeps of its lane, with a secret that is fit for the key nodes that the stream has now:
    /// drawn where there is none and `draws`, and drawn anew where what the bus shows says so.
    async fn fit_lane(
        self: &Arc<Self>,
        draws: bool,
    ) -> Result<Option<(DealtLane, Fitness)>, Error> {
        let core = self.clone();
        let lane = off_thread(move || core.fit_lane_now(draws, false)).await??;
        if !matches!(lane, Some((_, Fitness::Unfit))) {
            return Ok(lane);
        }
        // Another process of the home may have dealt to nodes that are not known here yet.
        self.sync().await?;
        let core = self.clone();
        off_thread(move || core.fit_lane_now(draws, true)).await?
    }

    fn fit_lane_now(
        &self,
        draws: bool,
        renews: bool,
    ) -> Result<Option<(DealtLane, Fitness)>, Error> {
        let randomness = |_| Error::Internal("the randomness is none");
        let stream = self.id();
        // The view first and then the store, as whoever seals does: the other way round each would wait for the other.
        let view = self.view();
        self.vault().change_lane(&stream, |own, txn| {
            let Some((_, set)) = view.state().key_nodes() else {
                return Ok(None);
            };
            let Some(mut lane) = read(txn, &stream)? else {
                if !draws {
                    return Ok(None);
                }
                let lane = DealtLane::draw(&mut clock::rng(), set.generation);
                let lane = lane.map_err(randomness)?;
                write(txn, &stream, &lane)?;
                return Ok(Some((lane, Fitness::Fit)));
            };
            if lane.is_fit(&view, set) {
                return Ok(Some((lane, Fitness::Fit)));
            }
            if !renews {
                return Ok(Some((lane, Fitness::Unfit)));
            }
            lane.renew(&mut clock::rng(), set.generation)
                .map_err(randomness)?;
            own.end_session();
            write(txn, &stream, &lane)?;
            Ok(Some((lane, Fitness::Renewed)))
        })
    }

    async fn append_keys(&self, items: Vec<Vec<u8>>) -> Result<(), Error> {
        let keys = topic(&StreamTopics(self.id()).keys())?;
        self.bus.append(&keys, items).await?;
        Ok(())
    }

    /// Makes records of segments, and keeps them for a bus that loses them. None where the secret is not the
    /// lane's any more.
    fn make_records(
        &self,
        lane: &DealtLane,
        session: SessionId,
        segments: &[sealcast_crypto::NodeId],
    ) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let records = lane.seal(&self.view(), self.identity(), session, segments);
        let records = records.ok_or(Error::Internal("a session has no root"))?;
        let records: Vec<_> = records.iter().map(|of| of.wire().to_vec()).collect();
        let stream = self.id();
        self.vault()
            .change_dealt_lane(&stream, &lane.public(), |lane, txn| {
                for records in &records {
                    let place = lane.note_made() % OWN_SEGMENTS_MAX;
                    let place = key(Space::OwnSegments, &[&stream.0, &place.to_be_bytes()]);
                    txn.put(&place, records)?;
                }
                Ok(records)
            })
    }

    /// Deals this lane's secrets to the key nodes that the stream has now, unless that was done. Where too few
    /// of the nodes have a card that is known and live, it is done another time.
    pub(crate) async fn deal_owed(self: &Arc<Self>) -> Result<(), Error> {
        let Some((lane, _)) = self.fit_lane(false).await? else {
            return Ok(());
        };
        let core = self.clone();
        let dealing = off_thread(move || core.make_deals(&lane));
        let Some((deals, dealt, secret)) = dealing.await?? else {
            return Ok(());
        };
        self.append_keys(deals).await?;
        let (vault, stream) = (self.vault().clone(), self.id());
        let noted = off_thread(move || {
            vault.change_dealt_lane(&stream, &secret, |lane, _| {
                lane.note_dealt(dealt);
                Ok(())
            })
        });
        noted.await??;
        Ok(())
    }

    /// Makes the deals that are owed, and keeps them, so that the same ones are put back where a bus loses them,
    /// with who is given shares.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn make_deals(
        &self,
        lane: &DealtLane,
    ) -> Result<Option<(Vec<Vec<u8>>, Dealt, [u8; 32])>, Error> {
        let (stream, secret, now) = (self.id(), lane.public(), self.now());
        let made = lane.deal(&self.view(), self.identity(), &mut clock::rng(), now);
        let Some((deals, dealt)) = made else {
            return Ok(None);
        };
        self.vault()
            .change_dealt_lane(&stream, &secret, |lane, txn| {
                lane.note_given(&dealt);
                let mut wires = Vec::with_capacity(deals.len());
                for deal in &deals {
                    let id = DealId::from(deal.digest());
                    txn.put(&key(Space::Deal, &[&stream.0, &id.0]), deal.wire())?;
                    wires.push(deal.wire().to_vec());
                }
                Ok((wires, dealt.clone(), secret))
            })
    }
}

impl Vault {
    /// Changes what this home keeps of its lane for key nodes. None, and no change, where the lane has another
    /// secret by now.
    fn change_dealt_lane<T>(
        &self,
        stream: &StreamId,
        secret: &[u8; 32],
        change: impl FnOnce(&mut DealtLane, &mut dyn Txn) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.change_lane(stream, |_, txn| {
            let lane = read(txn, stream)?;
            let Some(mut lane) = lane.filter(|lane| lane.public() == *secret) else {
                return Ok(None);
            };
            let result = change(&mut lane, txn)?;
            write(txn, stream, &lane)?;
            Ok(Some(result))
        })
    }
}

fn read(txn: &mut dyn Txn, stream: &StreamId) -> Result<Option<DealtLane>, Error> {
    let value = txn.get(&key(Space::LaneSecret, &[&stream.0]))?;
    Ok(value.and_then(|value| DealtLane::from_bytes(value.expose())))
}

fn write(txn: &mut dyn Txn, stream: &StreamId, lane: &DealtLane) -> Result<(), Error> {
    let place = key(Space::LaneSecret, &[&stream.0]);
    txn.put(&place, lane.to_bytes().expose())?;
    Ok(())
}

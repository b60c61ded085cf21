//! What a home keeps for key nodes: a publisher's secrets and deals, and a node's audit.

use sealcast_engine::{DealtLane, Space};
use sealcast_protocol::DealId;
use sealcast_store::Txn;

use super::{Home, key};
use crate::around::Stop;

impl Home {
    /// Reads, and may change, what is kept of the lane for key nodes; in the transaction of the lane.
    pub(crate) fn read_dealt(&self, txn: &mut dyn Txn) -> Result<Option<DealtLane>, Stop> {
        let value = txn.get(&key(Space::LaneSecret, &[&self.stream.0]))?;
        Ok(value.and_then(|value| DealtLane::from_bytes(value.expose())))
    }

    pub(crate) fn write_dealt(&self, txn: &mut dyn Txn, lane: &DealtLane) -> Result<(), Stop> {
        let place = key(Space::LaneSecret, &[&self.stream.0]);
        Ok(txn.put(&place, lane.to_bytes().expose())?)
    }

    /// Changes what is kept of the lane for key nodes. None where it has another secret by now.
    pub(crate) fn change_dealt<T>(
        &self,
        secret: &[u8; 32],
        change: impl FnOnce(&mut DealtLane, &mut dyn Txn) -> Result<T, Stop>,
    ) -> Result<Option<T>, Stop> {
        self.write(|txn| {
            let lane = self.read_dealt(txn)?;
            let Some(mut lane) = lane.filter(|lane| lane.public() == *secret) else {
                return Ok(None);
            };
            let result = change(&mut lane, txn)?;
            self.write_dealt(txn, &lane)?;
            Ok(Some(result))
        })
    }

    /// Keeps a deal, to be put back where a bus loses it.
    pub(crate) fn put_deal(&self, txn: &mut dyn Txn, id: &DealId, wire: &[u8]) -> Result<(), Stop> {
        Ok(txn.put(&key(Space::Deal, &[&self.stream.0, &id.0]), wire)?)
    }

    /// Keeps segment records, by their number.
    pub(crate) fn put_segments(
        &self,
        txn: &mut dyn Txn,
        number: u64,
        wire: &[u8],
    ) -> Result<(), Stop> {
        let place = key(Space::OwnSegments, &[&self.stream.0, &number.to_be_bytes()]);
        Ok(txn.put(&place, wire)?)
    }

    /// Keeps an entry of the audit. False where another has its place.
    pub(crate) fn put_audit(&self, seq: u64, wire: &[u8]) -> Result<bool, Stop> {
        let place = key(Space::Audit, &[&self.stream.0, &seq.to_be_bytes()]);
        self.write(|txn| {
            let is_free = txn.get(&place)?.is_none();
            if is_free {
                txn.put(&place, wire)?;
            }
            Ok(is_free)
        })
    }

    /// The audit, in its order.
    pub(crate) fn audit(&self) -> Result<Vec<Vec<u8>>, Stop> {
        let entries = self.of_stream(Space::Audit)?.into_iter();
        Ok(entries.map(|(_, wire)| wire.expose().to_vec()).collect())
    }
}

//! What waits for keys, in a home's store.

use sealcast_crypto::SecretBytes;
use sealcast_engine::{Change, Parking, Space, persisted};
use sealcast_protocol::SessionId;
use sealcast_store::{Store as _, Txn};

use super::{Home, key};
use crate::around::Stop;
use crate::violation::Violation;

impl Home {
    /// Reads the index of what waits.
    pub(crate) fn parked(&self, parking: &mut Parking) -> Result<(), Stop> {
        self.write(|txn| restore(txn, parking))
    }

    /// Changes what waits, in one transaction.
    pub(crate) fn change_parked<T>(
        &self,
        parking: &mut Parking,
        work: impl FnOnce(&mut Parking) -> T,
    ) -> Result<T, Stop> {
        self.write(|txn| {
            restore(txn, parking)?;
            let done = work(parking);
            for change in parking.take_changes() {
                match change {
                    Change::Put(put) => txn.put(&key(put.space, &[&put.id]), put.value.expose())?,
                    Change::Remove(space, id) => txn.delete(&key(space, &[&id]))?,
                }
            }
            Ok(done)
        })
    }

    /// Takes some of what may open, with its numbers.
    pub(crate) fn take_parked(
        &self,
        parking: &mut Parking,
        count_max: usize,
        bytes_max: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, Stop> {
        self.write(|txn| {
            restore(txn, parking)?;
            let mut taken = Vec::new();
            for number in parking.take_due(count_max, bytes_max) {
                let id = parking.envelope_id(number);
                let envelope = txn.get(&key(Space::ParkedEnvelope, &[&id]))?;
                let envelope = envelope.ok_or(Violation::Odd("a parked envelope that is gone"))?;
                taken.push((number, envelope.expose().to_vec()));
            }
            Ok(taken)
        })
    }

    /// Whether the store has any key of a session.
    pub(crate) fn has_key(&self, session: &SessionId) -> Result<bool, Stop> {
        let prefix = persisted(&[&self.stream.0, &session.0]);
        let root = self.store.get(&key(Space::Root, &[&prefix]))?;
        let covers = sealcast_store::Space(Space::Cover as u8);
        Ok(root.is_some() || !self.store.scan(covers, &prefix)?.is_empty())
    }

    /// For a planted fault.
    pub(crate) fn danger_lose_parked(&self) -> Result<(), Stop> {
        self.write(|txn| {
            for space in [Space::Parked, Space::ParkedEnvelope] {
                for (key, _) in txn.scan(sealcast_store::Space(space as u8), &self.stream.0)? {
                    txn.delete(&key)?;
                }
            }
            Ok(())
        })
    }
}

/// Brings the index in step with the store.
fn restore(txn: &mut dyn Txn, parking: &mut Parking) -> Result<(), Stop> {
    let place = key(Space::Parked, &[&parking.stamp_id()]);
    let stamp = txn.get(&place)?;
    let stamp = stamp.as_ref().map(SecretBytes::expose);
    if parking.is_current(stamp) {
        return Ok(());
    }
    let rows = txn.scan(place.space, &place.id)?;
    let rows = rows.iter().map(|(row, value)| {
        let number = row.id.get(place.id.len()..).unwrap_or_default();
        (number, value.expose())
    });
    parking.restore(stamp, rows);
    Ok(())
}

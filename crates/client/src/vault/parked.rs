//! What waits for keys, in a home's store.

use sealcast_crypto::SecretBytes;
use sealcast_engine::{Change, Parking, Space};
use sealcast_store::{StoreError, Txn};

use super::{Vault, key};
use crate::error::Error;

impl Vault {
    /// Reads the index of what waits.
    pub(crate) fn parked(&self, parking: &mut Parking) -> Result<(), Error> {
        sealcast_store::transact_with(&*self.0, |txn| restore_parked(txn, parking))
    }

    /// Changes what waits, with all other processes of the home shut out.
    pub(crate) fn change_parked<T>(
        &self,
        parking: &mut Parking,
        work: impl FnOnce(&mut Parking) -> T,
    ) -> Result<T, Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            restore_parked(txn, parking)?;
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

    /// Takes some of what may open, so many envelopes and bytes, with their numbers; and tells of one
    /// that is damaged, which is passed over until the home is opened again.
    pub(crate) fn take_parked(
        &self,
        parking: &mut Parking,
        count_max: usize,
        bytes_max: u64,
    ) -> Result<Taken, Error> {
        let mut numbers = Vec::new();
        let taken = sealcast_store::transact_with(&*self.0, |txn| {
            restore_parked(txn, parking)?;
            numbers = parking.take_due(count_max, bytes_max);
            let mut taken = Taken::default();
            for number in &numbers {
                let place = key(Space::ParkedEnvelope, &[&parking.envelope_id(*number)]);
                match txn.get(&place) {
                    Ok(Some(envelope)) => {
                        let envelope = envelope.expose().to_vec();
                        taken.envelopes.push((*number, envelope));
                    }
                    Ok(None) => taken.damage = Some(Error::Internal("a parked envelope is gone")),
                    Err(damage @ StoreError::Damaged { .. }) => taken.damage = Some(damage.into()),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(taken)
        });
        if taken.is_err() {
            parking.take_back(&numbers);
        }
        taken
    }
}

/// Envelopes that were parked, with their numbers.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) envelopes: Vec<(u64, Vec<u8>)>,
    pub(crate) damage: Option<Error>,
}

/// Brings the index in step with the store, where somebody else had changed that.
fn restore_parked(txn: &mut dyn Txn, parking: &mut Parking) -> Result<(), Error> {
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

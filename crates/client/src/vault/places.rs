//! How far the topics of a stream were read, on the bus where this home uses it.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::Space;
use sealcast_protocol::{DeviceId, StreamId, Ticket};
use sealcast_store::{StoreError, Txn};

use super::{Membership, Vault, key, odd_key, record};
use crate::error::Error;
use crate::place::{Place, Reached};

/// A place, and the digest of its topic's name.
pub(crate) type Placed = ([u8; 32], Reached);

impl Vault {
    /// How far each topic of a stream was read on the bus of its ticket, by the digest of its name.
    pub(crate) fn places(&self, ticket: &Ticket) -> Result<BTreeMap<[u8; 32], Reached>, Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            let mut places = BTreeMap::new();
            if !is_on(txn, ticket)? {
                return Ok(places);
            }
            for (place, value) in txn.scan(cursors(), &ticket.stream().0)? {
                let id = place.id.get(32..).and_then(|id| id.try_into().ok());
                let id = id.ok_or_else(odd_key)?;
                // Without what came before, as homes kept it once, a topic is read from its start.
                places.extend(Reached::from_bytes(value.expose()).map(|reached| (id, reached)));
            }
            Ok(places)
        })
    }

    /// The topics of a stream of which a bus showed less than this home knew, by the digests of their
    /// names.
    pub(crate) fn lost(&self, stream: &StreamId) -> Result<BTreeSet<[u8; 32]>, Error> {
        let rows = self.of_stream(Space::Lost, stream)?.into_iter();
        rows.map(|(id, _)| id.try_into().map_err(|_| odd_key()))
            .collect()
    }

    /// Keeps where live reading stands: of each device, and in the data topic on the bus of a ticket.
    pub(crate) fn track(
        &self,
        ticket: &Ticket,
        trackers: &[(DeviceId, Vec<u8>)],
        (topic, place): ([u8; 32], Place),
    ) -> Result<(), Error> {
        let stream = ticket.stream();
        sealcast_store::transact_with(&*self.0, |txn| {
            for (device, bytes) in trackers {
                txn.put(&key(Space::Track, &[&stream.0, &device.0]), bytes)?;
            }
            let reached = Reached {
                place,
                ..Reached::default()
            };
            put(txn, ticket, &[(topic, reached)])
        })
    }
}

/// Keeps places in topics on the bus of a ticket, unless the home uses the stream on another bus by now:
/// a process that goes on here after a switch knows nothing of places there.
pub(super) fn put(txn: &mut dyn Txn, ticket: &Ticket, places: &[Placed]) -> Result<(), Error> {
    if is_on(txn, ticket)? {
        for (topic, reached) in places {
            let place = key(Space::Cursor, &[&ticket.stream().0, topic]);
            txn.put(&place, &reached.to_bytes())?;
        }
    }
    Ok(())
}

/// Keeps of which topics a bus shows less than this home knows, and of which it no more does.
pub(super) fn put_lost(
    txn: &mut dyn Txn,
    stream: &StreamId,
    lost: &[([u8; 32], bool)],
) -> Result<(), StoreError> {
    for (topic, is_lost) in lost {
        let place = key(Space::Lost, &[&stream.0, topic]);
        match is_lost {
            true => txn.put(&place, &[])?,
            false => txn.delete(&place)?,
        }
    }
    Ok(())
}

/// Leaves of the places in a stream's topics what holds on the bus of a ticket, where it is another than
/// before.
pub(super) fn take_along(txn: &mut dyn Txn, ticket: &Ticket) -> Result<(), Error> {
    if is_on(txn, ticket)? {
        return Ok(());
    }
    for (place, value) in txn.scan(cursors(), &ticket.stream().0)? {
        let reached = Reached::from_bytes(value.expose()).unwrap_or_default();
        txn.put(&place, &reached.elsewhere().to_bytes())?;
    }
    Ok(())
}

/// Whether this home uses a stream on the bus of a ticket, as far as it says.
fn is_on(txn: &dyn Txn, ticket: &Ticket) -> Result<bool, Error> {
    let value = txn.get(&key(Space::Stream, &[&ticket.stream().0]))?;
    let Some(value) = value else { return Ok(true) };
    let known = record::<Membership>(&value)?.ticket;
    let known = Ticket::parse(&known).map_err(Error::Ticket)?;
    Ok(known.bus() == ticket.bus())
}

fn cursors() -> sealcast_store::Space {
    sealcast_store::Space(Space::Cursor as u8)
}
